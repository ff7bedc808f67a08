package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/data/inspect"
	"tunesmith/model"
	"tunesmith/trainer"
	"tunesmith/tune"
)

func (a *app) data() *cobra.Command {
	c := &cobra.Command{
		Use:   "data",
		Short: "Look at training data, clean it, split it",
		Long: "The commands take data files, folders, patterns such as 'data/*.jsonl', descriptions such as\n" +
			"dataset_info.json#NAME, or a run file, which means its data, its evaluation data, its model and template.",
	}
	c.AddCommand(a.dataPreview(), a.dataCheck(), a.dataClean(), a.dataDedup(), a.dataSplit(), a.dataStats(), a.dataScore())
	return c
}

// dataFlags say what is read and how.
type dataFlags struct {
	format, model, template string
	columns                 map[string]string
	limit                   int
	sets                    []string
	maxLength               int
}

func (f *dataFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.format, "format", "", "form of a record; found out where empty")
	c.Flags().StringToStringVar(&f.columns, "columns", nil, "our names of columns to the file's, as in instruction=question,output=reply")
	c.Flags().IntVar(&f.limit, "limit", 0, "most records that are read of a source; 0 for all")
	c.Flags().StringVarP(&f.model, "model", "m", "", "model whose tokenizer, chat template and context the data has to fit")
	c.Flags().StringVar(&f.template, "chat-template", "", "chat template: a file, or a built-in name")
	c.Flags().IntVar(&f.maxLength, "max-length", 0, "longest example in tokens; 0 is the model's context")
	c.Flags().StringArrayVar(&f.sets, "set", nil, "set a key of the run file")
}

// input is what a command looks at.
type input struct {
	sources []data.Source
	against []data.Source // evaluation data that a run file names
	run     *tune.Run     // of a run file, nil for data files
	title   string
}

// read turns arguments into sources.
func (f *dataFlags) read(args []string) (*input, error) {
	in := &input{title: filepath.Base(args[0])}
	for _, path := range args {
		if ext := filepath.Ext(path); ext != ".yaml" && ext != ".yml" {
			in.sources = append(in.sources, data.Source{Path: path, Format: data.Format(f.format), Columns: f.columns, Limit: f.limit})
			continue
		}
		if len(args) > 1 {
			return nil, usageError{fmt.Errorf("%s: a run file stands alone, and names its data itself", path)}
		}
		r, err := tune.Schema().Load(path, f.sets)
		if err != nil {
			return nil, err
		}
		in.run, in.sources, in.against = r.Value, tune.Sources(r.Value.Data), tune.Sources(r.Value.Eval.Data)
		if f.model == "" {
			f.model = r.Value.Model
		}
		if f.template == "" {
			f.template = r.Value.ChatTemplate
		}
		if f.maxLength == 0 {
			f.maxLength = r.Value.MaxLength
		}
	}
	return in, nil
}

// lens is how a model sees data.
type lens struct {
	text   tune.Text
	render data.Renderer
	limit  int // tokens of the longest example
	model  *model.Model
}

// lens opens the model that the data is for; nil where none is named.
func (f *dataFlags) lens(in *input) (*lens, error) {
	if f.model == "" {
		return nil, nil
	}
	path, err := modelPath(f.model)
	if err != nil {
		return nil, err
	}
	m, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	l := &lens{limit: m.Config.MaxPositions, model: m}
	if f.maxLength > 0 {
		l.limit = min(l.limit, f.maxLength)
	}
	if err := l.open(path, f.template, in.run); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return l, nil
}

func (l *lens) open(path, template string, run *tune.Run) error {
	var err error
	if l.text, err = tune.OpenText(path, l.model.File, template); err != nil {
		return err
	}
	name, options := tune.Default(tune.ObjectiveAxis), any(nil)
	if run != nil {
		name, options = run.Objective.Name, run.Objective.Options
	}
	if options == nil {
		m, err := tune.Find(tune.ObjectiveAxis, name)
		if err != nil {
			return err
		}
		options = m.New()
	}
	objective, ok := options.(tune.Objective)
	if !ok {
		return fmt.Errorf("objective %q shows no data", name)
	}
	l.render, err = objective.Renderer(l.text)
	return err
}

func (l *lens) Close() error { return l.model.Close() }

// ends are the tokens that may end an answer.
func (l *lens) ends() []int32 {
	var out []int32
	for _, id := range l.text.Stops() {
		out = append(out, int32(id))
	}
	return out
}

// ruleFlags say what the rules look for and do.
type ruleFlags struct {
	drop, mend, report, off []string
	against                 []string
	threshold, cover        float64
	words                   int
	redact                  bool
}

func (f *ruleFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.drop, "drop", nil, "rules that drop a record")
	c.Flags().StringSliceVar(&f.mend, "mend", nil, "rules that change a record's texts")
	c.Flags().StringSliceVar(&f.report, "report", nil, "rules that only report")
	c.Flags().StringSliceVar(&f.off, "off", nil, "rules that are not asked")
	c.Flags().BoolVar(&f.redact, "redact", false, "replace private data by [TYPE], as --mend private does")
	c.Flags().StringArrayVar(&f.against, "against", nil, "evaluation data that training records must not hold; may be given again")
	c.Flags().Float64Var(&f.threshold, "threshold", 0.8, "likeness from which texts are near-duplicates")
	c.Flags().Float64Var(&f.cover, "cover", 0.5, "share of an evaluation text that makes a leak; 0 is any run of words")
	c.Flags().IntVar(&f.words, "words", 13, "words of a run that shows a leak")
}

// actions are the rules with another action than their own.
func (f *ruleFlags) actions() map[string]inspect.Action {
	out := map[string]inspect.Action{}
	if f.redact {
		out["private"] = inspect.Mend
	}
	for _, of := range []struct {
		names  []string
		action inspect.Action
	}{{f.report, inspect.Remark}, {f.mend, inspect.Mend}, {f.drop, inspect.Drop}, {f.off, inspect.Off}} {
		for _, name := range of.names {
			out[name] = of.action
		}
	}
	return out
}

// inspector prepares to look at data through a lens, which may be nil.
func (f *ruleFlags) inspector(in *input, l *lens, ledger *data.Ledger, sample int) (*inspect.Inspector, error) {
	o := inspect.Options{Actions: f.actions(), Threshold: f.threshold, Words: f.words, Cover: f.cover, Sample: sample}
	if l != nil {
		o.Render, o.Ends, o.Limit = l.render, l.ends(), l.limit
	}
	x, err := inspect.New(o)
	if err != nil {
		return nil, usageError{err}
	}
	against := in.against
	for _, path := range f.against {
		against = append(against, data.Source{Path: path})
	}
	return x, x.Against(against, ledger)
}

// rulesHelp lists the rules for the help of a command.
func rulesHelp() string {
	var b strings.Builder
	b.WriteString("\n\nRules and what they do unless told otherwise:\n")
	for _, r := range inspect.Rules() {
		fmt.Fprintf(&b, "  %-20s %-7s %s\n", r.Name, r.Action, r.Doc)
	}
	return strings.TrimRight(b.String(), "\n")
}

// fresh refuses to write over a file.
func fresh(path string, force bool) error {
	if path == "" {
		return usageError{errors.New("give the new file's place with -o")}
	}
	if _, err := os.Stat(path); err == nil && !force {
		return fmt.Errorf("%s exists already; give another name, or --force to replace it", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// tasks shows how the tasks of a mixture take part.
func (a *app) tasks(t *trainer.Tasks, passes []float64) {
	if t == nil {
		return
	}
	var rows [][]string
	for i, p := range t.Parts {
		from := "the start"
		if p.From > 0 {
			from = fmt.Sprintf("%.0f %%", 100*p.From)
		}
		rows = append(rows, []string{t.Names[i], thousands(t.Sizes[i].Examples), thousands(int(t.Sizes[i].Tokens)), fmt.Sprintf("%.1f %%", 100*p.Share), fmt.Sprintf("%.2f", passes[i]), fmt.Sprintf("%g", p.Weight), from})
		if passes[i] > 16 {
			a.say("warning: each epoch passes %.0f times over task %s; lower its share, or raise its size", passes[i], t.Names[i])
		}
	}
	a.say("%s", a.grid([]string{"task", "examples", "trained tokens", "share", "passes an epoch", "weight", "from"}, rows))
}
