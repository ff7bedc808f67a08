package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/device"
	"tunesmith/evals"
	"tunesmith/runs"
	"tunesmith/tune"
)

// simulation is a keyboard that learns its owner's words, for several people.
type simulation struct {
	app        *app
	model, dir string
	sets       []string
	people     int
	rounds     int
	train      float64
}

// personOutcome is what became of one person.
type personOutcome struct {
	Person  string   `json:"person"`
	Texts   int      `json:"texts"`
	Words   int      `json:"words"`
	Top1    [2]share `json:"top1"` // base, adapted
	Top3    [2]share `json:"top3"`
	General [2]share `json:"general_loss"`
	Taken   int      `json:"generations"`
}

type share float64

func (a *app) deviceSimulate() *cobra.Command {
	s := simulation{app: a}
	c := &cobra.Command{
		Use:   "simulate TEXTS.jsonl",
		Short: "Show what a keyboard would learn of each writer of a file of messages",
		Long: "simulate lets a device of its own learn from the earlier texts of each person, generation by generation, and\nmeasures on the later texts how often the next word is among the first one or three suggestions, with the base\n" +
			"and with the last generation. The file has one JSON object a line with a writer and a text, in order of time.",
		Example: "  tunesmith device simulate messages.jsonl --people 10",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return s.run(c.Context(), args[0]) },
	}
	f := c.Flags()
	f.StringVarP(&s.model, "model", "m", embedded, "base model")
	f.StringArrayVar(&s.sets, "set", nil, "set a key of the devices' run file; may be given again")
	f.IntVar(&s.people, "people", 10, "most writers, those with most texts first")
	f.IntVar(&s.rounds, "rounds", 2, "generations that the earlier texts are cut into")
	f.Float64Var(&s.train, "train", 0.7, "share of the texts that are learned from")
	return c
}

func (s *simulation) run(ctx context.Context, path string) error {
	if s.rounds < 1 || s.people < 1 || !(s.train > 0 && s.train < 1) {
		return usageError{errors.New("simulate: want --rounds and --people of at least 1, and --train between 0 and 1")}
	}
	people, err := evals.ReadPeople(path)
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "tunesmith-device-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	var out []personOutcome
	for i, p := range people[:min(s.people, len(people))] {
		if len(p.Texts) < 4*s.rounds {
			continue
		}
		o, err := s.person(ctx, filepath.Join(s.dir, strconv.Itoa(i)), p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		out = append(out, o)
		fmt.Fprintf(s.app.err, "%s: top-1 %.1f %% → %.1f %%, top-3 %.1f %% → %.1f %%\n", o.Person, 100*o.Top1[0], 100*o.Top1[1], 100*o.Top3[0], 100*o.Top3[1])
	}
	if len(out) == 0 {
		return fmt.Errorf("%s: no writer has the %d texts that %d rounds need", path, 4*s.rounds, s.rounds)
	}
	return s.show(out)
}

// person lets one device learn.
func (s *simulation) person(ctx context.Context, dir string, p evals.Person) (personOutcome, error) {
	cut := int(s.train * float64(len(p.Texts)))
	later := p.Texts[cut:]
	o := personOutcome{Person: p.Name, Texts: len(p.Texts)}
	name, method, err := deviceMethod()
	if err != nil {
		return o, err
	}
	sets := append([]string{"model=" + strconv.Quote(s.model), "data=[{path: new.jsonl}]", "topology.method=" + name}, method.Sets()...)
	r, err := tune.Schema().Load("", append(sets, s.sets...))
	if err != nil {
		return o, err
	}
	path, err := modelPath(s.model)
	if err != nil {
		return o, err
	}
	if err := device.Init(dir, r.Value, path); err != nil {
		return o, err
	}
	d, err := device.Open(dir, modelPath)
	if err != nil {
		return o, err
	}
	defer d.Close()
	for i := range s.rounds {
		var records []data.Record
		for _, text := range p.Texts[i*cut/s.rounds : (i+1)*cut/s.rounds] {
			records = append(records, data.Record{Kind: data.Text, Text: text})
		}
		a, err := d.Adapt(ctx, device.Adaptation{Records: records, General: func() io.Reader { return general() }, Version: version()})
		if err != nil {
			return o, err
		}
		if a.Taken {
			o.Taken++
		} else {
			fmt.Fprintf(s.app.err, "%s, round %d: not taken: %s\n", p.Name, i+1, a.Reason)
		}
		if i == 0 {
			o.General[0] = share(a.Before[runs.General])
		}
	}
	current, err := d.Current()
	if err != nil {
		return o, err
	}
	for i, adapter := range []string{"", d.Adapter(current)} {
		if err := s.measure(ctx, adapter, later, i, &o); err != nil {
			return o, err
		}
	}
	return o, nil
}

// measure fills one side of an outcome.
func (s *simulation) measure(ctx context.Context, adapter string, texts []string, side int, o *personOutcome) error {
	flags := modelFlags{model: s.model, precision: "mixed"}
	if adapter != "" {
		flags.adapter = []string{adapter}
	}
	l, err := flags.open(s.app)
	if err != nil {
		return err
	}
	defer l.Close()
	r, err := evals.NextWords(ctx, l.Adapted, l.backend, l.text.Tokenizer, texts, 128)
	if err != nil {
		return err
	}
	top1, top3 := r.Share()
	o.Words, o.Top1[side], o.Top3[side] = r.Words, share(top1), share(top3)
	loss, _, err := evals.Loss(ctx, l.Adapted, l.backend, l.text.Tokenizer.IDs(readAll(general())), evals.Window)
	o.General[side] = share(loss)
	return err
}

func (s *simulation) show(list []personOutcome) error {
	var mean personOutcome
	better := 0
	var rows [][]string
	row := func(o personOutcome) []string {
		percent := func(x [2]share) string { return fmt.Sprintf("%.1f → %.1f", 100*x[0], 100*x[1]) }
		return []string{o.Person, strconv.Itoa(o.Words), strconv.Itoa(o.Taken), percent(o.Top1), percent(o.Top3), fmt.Sprintf("%.3f → %.3f", o.General[0], o.General[1])}
	}
	for _, o := range list {
		rows = append(rows, row(o))
		if o.Top3[1] > o.Top3[0] {
			better++
		}
		mean.Words += o.Words
		mean.Taken += o.Taken
		for i := range 2 {
			mean.Top1[i] += o.Top1[i] / share(len(list))
			mean.Top3[i] += o.Top3[i] / share(len(list))
			mean.General[i] += o.General[i] / share(len(list))
		}
	}
	mean.Person = "mean"
	if s.app.json {
		return s.app.result(map[string]any{"people": list, "mean": mean, "better": better})
	}
	s.app.say("%s", s.app.grid([]string{"person", "words", "generations", "top-1 %", "top-3 %", "general loss"}, append(rows, row(mean))))
	s.app.say("the top-3 recall of %d of %d people is above the base's", better, len(list))
	return nil
}
