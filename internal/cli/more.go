package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/internal/atomicfile"
	"tunesmith/model"
	"tunesmith/runs"
	"tunesmith/tune"
)

func readAll(r io.Reader) string {
	b, _ := io.ReadAll(r) // from memory
	return string(b)
}

func (a *app) init() *cobra.Command {
	var m, d, method string
	var force bool
	c := &cobra.Command{
		Use:   "init [RUN.yaml]",
		Short: "Write a commented run file to start from",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := "run.yaml"
			if len(args) > 0 {
				path = args[0]
			}
			if _, err := os.Stat(path); err == nil && !force {
				return fmt.Errorf("%s exists already; give another name, or --force to replace it", path)
			}
			s := tune.Schema()
			r, err := s.Load("", []string{"model=" + m, "data=[{path: " + strconv.Quote(d) + "}]", "parameters.method=" + method})
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := s.Template(&b, r.Value, "model", "data", "parameters.rank", "parameters.alpha", "parameters.targets", "epochs", "batch_size", "learning_rate", "max_length"); err != nil {
				return err
			}
			if err := atomicfile.WriteFile(path, b.Bytes()); err != nil {
				return err
			}
			a.say("wrote %s; look at the data with: tunesmith data preview %s\nthen start with:                      tunesmith train %s", path, path, path)
			return nil
		},
	}
	c.Flags().StringVarP(&m, "model", "m", embedded, "base model")
	c.Flags().StringVarP(&d, "data", "d", "train.jsonl", "training data")
	c.Flags().StringVar(&method, "method", tune.Default(tune.ParametersAxis), "parameters method: "+strings.Join(tune.Names(tune.ParametersAxis), ", "))
	c.Flags().BoolVar(&force, "force", false, "replace an existing file")
	return c
}

func (a *app) data() *cobra.Command {
	c := &cobra.Command{Use: "data", Short: "Look at training data"}
	var sets []string
	var most int
	var problems bool
	preview := &cobra.Command{
		Use:   "preview RUN.yaml",
		Short: "Show, token by token, what a run file would train",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := tune.Schema().Load(args[0], sets)
			if err != nil {
				return err
			}
			return a.preview(c, r.Value, most, problems)
		},
	}
	preview.Flags().StringArrayVar(&sets, "set", nil, "set a key of the run file")
	preview.Flags().IntVarP(&most, "examples", "n", 3, "examples shown")
	preview.Flags().BoolVar(&problems, "problems", false, "list everything that is wrong with the data, not only the first ten")
	c.AddCommand(preview)
	return c
}

// preview renders a run's data and shows the first examples and what was wrong.
func (a *app) preview(c *cobra.Command, r *tune.Run, most int, problems bool) error {
	path, err := modelPath(r.Model)
	if err != nil {
		return err
	}
	m, err := model.Open(path)
	if err != nil {
		return err
	}
	defer m.Close()
	text, err := tune.OpenText(path, m.File, r.ChatTemplate)
	if err != nil {
		return err
	}
	objective, ok := r.Objective.Options.(tune.Objective)
	if !ok {
		return fmt.Errorf("objective %q shows no data", r.Objective.Name)
	}
	render, err := objective.Renderer(text)
	if err != nil {
		return err
	}
	ledger := &data.Ledger{Mode: data.Skip}
	store := data.NewStore("", 1<<40)
	limit := m.Config.MaxPositions
	if r.MaxLength > 0 {
		limit = min(limit, r.MaxLength)
	}
	if err := data.Load(c.Context(), tune.Sources(r.Data), render, data.LoadOptions{MaxLength: limit, Overlength: r.Overlength}, ledger, store, nil); err != nil {
		return err
	}
	stats, _ := store.Stats()
	if a.json {
		var examples [][]data.Token
		for i := range min(most, store.Len()) {
			e, err := store.Example(i)
			if err != nil {
				return err
			}
			examples = append(examples, data.Preview(e, text.Bytes))
		}
		return a.result(map[string]any{"examples": examples, "stats": stats, "problems": ledger.Problems()})
	}
	trained, rest := lipgloss.NewStyle(), lipgloss.NewStyle()
	if a.colour(a.out) {
		trained, rest = trained.Foreground(lipgloss.Color("10")), rest.Faint(true)
	}
	for i := range min(most, store.Len()) {
		e, err := store.Example(i)
		if err != nil {
			return err
		}
		a.say("%s: %d tokens, %d trained", e.Pos, len(e.IDs), e.Supervised())
		a.say("%s\n", tokens(data.Preview(e, text.Bytes), a.colour(a.out), trained, rest))
	}
	a.say("%d examples, %d tokens, %d trained; lengths: median %d, 99 %% up to %d, longest %d", stats.Examples, stats.Tokens, stats.Supervised, stats.Lengths.Median, stats.Lengths.P99, stats.Lengths.Max)
	if problems {
		for _, p := range ledger.Problems() {
			a.say("%v", p.Error())
		}
		return nil
	}
	a.problems(ledger)
	return nil
}

// tokens shows trained tokens in colour, or, without colours, between ⟦ and ⟧.
func tokens(list []data.Token, colour bool, trained, rest lipgloss.Style) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		var part []byte
		for j < len(list) && list[j].Train == list[i].Train {
			part = append(part, list[j].Text...)
			j++
		}
		text := strings.ToValidUTF8(string(part), "\ufffd")
		switch {
		case colour && list[i].Train:
			b.WriteString(paint(trained, text))
		case colour:
			b.WriteString(paint(rest, text))
		case list[i].Train:
			b.WriteString("⟦" + text + "⟧")
		default:
			b.WriteString(text)
		}
		i = j
	}
	return b.String()
}

// paint styles a text line by line, so that its line breaks stay as they are.
func paint(s lipgloss.Style, text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = s.Render(l)
		}
	}
	return strings.Join(lines, "\n")
}

func (a *app) runs() *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:   "runs",
		Short: "List the runs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list, err := runs.List(root)
			if err != nil {
				a.say("warning: %v", err)
			}
			if a.json {
				return a.result(list)
			}
			var rows [][]string
			for _, i := range list {
				rows = append(rows, []string{filepath.Base(i.Dir), string(i.Status), fmt.Sprint(i.Step)})
			}
			a.say("%s", a.grid([]string{"run", "status", "step"}, rows))
			return nil
		},
	}
	c.Flags().StringVar(&root, "root", "runs", "directory of the runs")
	report := &cobra.Command{
		Use:   "report RUN_DIRECTORY",
		Short: "Write a run's report.html again",
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, args []string) error { return runs.Report(args[0], a.lang) },
	}
	c.AddCommand(report)
	return c
}

func (a *app) methods() *cobra.Command {
	return &cobra.Command{
		Use:   "methods [NAME]",
		Short: "List the methods, or the options of one",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var rows [][]string
			if len(args) == 0 {
				for _, m := range tune.Methods("") {
					rows = append(rows, []string{string(m.Axis), m.Name, m.Doc})
				}
				a.say("%s", a.grid([]string{"axis", "method", ""}, rows))
				return nil
			}
			for _, o := range tune.Schema().Options() {
				if o.Variant == args[0] && !o.Section {
					rows = append(rows, []string{o.Path, o.Type, o.Default, o.Doc})
				}
			}
			if len(rows) == 0 {
				_, err := tune.Find(tune.ParametersAxis, args[0])
				return usageError{err}
			}
			a.say("%s", a.grid([]string{"key", "type", "default", ""}, rows))
			return nil
		},
	}
}

func (a *app) config() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "About run files"}
	c.AddCommand(&cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of run files, for editors",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return a.result(tune.Schema().JSON("tunesmith run file")) },
	}, &cobra.Command{
		Use:   "check RUN.yaml",
		Short: "Check a run file and report everything that is wrong",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := tune.Schema().Load(args[0], nil); err != nil {
				return err
			}
			a.say("%s is a valid run file", args[0])
			return nil
		},
	})
	return c
}
