package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/data/inspect"
)

// errFound is a data set in which strict checking found something.
var errFound = errors.New("the data is not clean")

func (a *app) dataCheck() *cobra.Command {
	var f dataFlags
	var r ruleFlags
	var page string
	var strict bool
	c := &cobra.Command{
		Use:     "check SOURCE...",
		Short:   "Report what is wrong with data, without changing anything",
		Long:    "Reports what cleaning would mend and drop, and what is worth a look." + rulesHelp(),
		Example: "  tunesmith data check train.jsonl\n  tunesmith data check run.yaml --html report.html\n  tunesmith data check train.jsonl --against test.jsonl -m model.gguf --strict",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in, l, err := f.open(args)
			if err != nil {
				return err
			}
			defer l.close()
			ledger := &data.Ledger{Mode: data.Skip}
			x, err := r.inspector(in, l, ledger, 5)
			if err != nil {
				return err
			}
			if err := x.Run(c.Context(), in.sources, ledger, nil); err != nil {
				return err
			}
			report := x.Report()
			if page != "" {
				if err := a.writePage(page, in.title, report, l); err != nil {
					return err
				}
			}
			if a.json {
				if err := a.result(report); err != nil {
					return err
				}
			} else {
				a.report(report)
				a.problems(ledger)
			}
			if n := report.Dropped + report.Mended + report.Unreadable; strict && n > 0 {
				return fmt.Errorf("%w: %d of %d records would be mended or dropped; clean it with: tunesmith data clean", errFound, n, report.Records+report.Unreadable)
			}
			return nil
		},
	}
	f.add(c)
	r.add(c)
	c.Flags().StringVar(&page, "html", "", "write the report as a page, with histograms and coloured tokens")
	c.Flags().BoolVar(&strict, "strict", false, "fail if a record would be mended or dropped")
	return c
}

// open reads the arguments and opens the model, where there is one.
func (f *dataFlags) open(args []string) (*input, *lens, error) {
	in, err := f.read(args)
	if err != nil {
		return nil, nil, err
	}
	l, err := f.lens(in)
	return in, l, err
}

// close closes the model; a lens may be nil.
func (l *lens) close() {
	if l != nil {
		l.Close()
	}
}

// report shows what was found.
func (a *app) report(r *inspect.Report) {
	var rows [][]string
	var examples []string
	for _, c := range r.Rules {
		if c.Records == 0 {
			continue
		}
		rows = append(rows, []string{c.Rule, string(c.Action), fmt.Sprint(c.Records), fmt.Sprintf("%.1f %%", 100*float64(c.Records)/float64(r.Records))})
		for _, f := range c.Examples[:min(2, len(c.Examples))] {
			examples = append(examples, fmt.Sprintf("%v: %s: %s", f.Position, f.Rule, f.Detail))
		}
	}
	if len(rows) > 0 {
		a.say("%s", a.grid([]string{"rule", "action", "records", ""}, rows))
		a.say("%s", strings.Join(examples, "\n"))
	}
	a.lengths(r)
	a.say("%d records: %d kept (%d of them mended), %d dropped; %d cannot be read", r.Records, r.Kept, r.Mended, r.Dropped, r.Unreadable)
}

// lengths shows the distributions of a report.
func (a *app) lengths(r *inspect.Report) {
	var rows [][]string
	add := func(name string, s *data.Spread) {
		if s != nil && s.Max > 0 {
			rows = append(rows, []string{name, fmt.Sprint(s.Min), fmt.Sprint(s.Median), fmt.Sprintf("%.1f", s.Mean), fmt.Sprint(s.P90), fmt.Sprint(s.P99), fmt.Sprint(s.Max), bars(s.Buckets)})
		}
	}
	add("tokens", r.Tokens)
	add("trained tokens", r.Trained)
	add("messages", &r.Turns)
	add("characters asked", &r.Asked)
	add("characters answered", &r.Answers)
	a.say("%s", a.grid([]string{"of a record", "least", "median", "mean", "90 %", "99 %", "most", "by powers of two"}, rows))
}

// bars draws a histogram in one line.
func bars(buckets []int) string {
	const levels = "▁▂▃▄▅▆▇█"
	most := slices.Max(buckets)
	var b strings.Builder
	for _, n := range buckets {
		if n == 0 {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune([]rune(levels)[(n*8-1)/most])
	}
	return b.String()
}

func (a *app) dataStats() *cobra.Command {
	var f dataFlags
	c := &cobra.Command{
		Use:     "stats SOURCE...",
		Short:   "Count records, lengths, scripts and, with a model, tokens",
		Example: "  tunesmith data stats train.jsonl -m model.gguf",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in, l, err := f.open(args)
			if err != nil {
				return err
			}
			defer l.close()
			ledger := &data.Ledger{Mode: data.Skip}
			off := map[string]inspect.Action{}
			for _, rule := range inspect.Rules() {
				off[rule.Name] = inspect.Off
			}
			o := inspect.Options{Actions: off}
			if l != nil {
				o.Render = l.render
			}
			x, err := inspect.New(o)
			if err != nil {
				return err
			}
			if err := x.Run(c.Context(), in.sources, ledger, nil); err != nil {
				return err
			}
			r := x.Report()
			r.Rules = nil
			if a.json {
				return a.result(r)
			}
			a.lengths(r)
			a.say("records: %s", counts(r.Kinds))
			a.say("scripts: %s", counts(r.Scripts))
			if r.Tokens != nil {
				a.say("%s tokens, %s of them trained (%.1f %%)", thousands(int(r.Sum)), thousands(int(r.TrainedSum)), 100*float64(r.TrainedSum)/float64(max(1, r.Sum)))
			}
			a.problems(ledger)
			return nil
		},
	}
	f.add(c)
	return c
}

// counts lists names with their numbers, the most frequent first.
func counts(m map[string]int) string {
	names := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(names, func(a, b string) int { return m[b] - m[a] })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, m[name])
	}
	return strings.Join(names, ", ")
}
