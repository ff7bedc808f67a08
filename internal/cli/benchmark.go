package cli

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/evals"
)

// benchmarkFlags say which benchmarks a model takes, and how.
type benchmarkFlags struct {
	tasks     []string
	examples  map[string]string // files by benchmark
	shots     int
	limit     int
	style     evals.Style
	noSpecial bool
}

func (f *benchmarkFlags) add(c *cobra.Command) {
	var docs []string
	for _, b := range evals.Benchmarks() {
		docs = append(docs, b.Name+": "+b.Doc)
	}
	c.Long = "eval measures a model: its score on questions of your own, its loss on a text, and public benchmarks, which are\n" +
		"read from their own files:\n  " + strings.Join(docs, "\n  ")
	c.Flags().StringArrayVarP(&f.tasks, "benchmark", "b", nil, "a benchmark and its file, as in mmlu=mmlu_test.jsonl.gz; may be given again")
	c.Flags().StringToStringVar(&f.examples, "examples", nil, "a benchmark and the file of its examples, as in mmlu=mmlu_dev.jsonl")
	c.Flags().IntVar(&f.shots, "shots", 5, "examples before each question of a benchmark that has a file of them")
	c.Flags().IntVar(&f.limit, "limit", 0, "most questions of a benchmark; 0 is all")
	c.Flags().BoolVar(&f.style.Chat, "chat", false, "ask benchmarks through the chat template; those of instructions always are")
	c.Flags().BoolVar(&f.style.Turns, "turns", false, "with --chat, make each example a turn of its own")
	c.Flags().StringVar(&f.style.System, "system", "", "with --chat, text of the system message")
	c.Flags().BoolVar(&f.noSpecial, "no-special", false, "put no token at the start of plain texts")
}

// take lets a model take the benchmarks and returns rows of figures, and the same for machines.
func (f *benchmarkFlags) take(ctx context.Context, a *app, l *loaded) ([][]string, map[string]any, error) {
	var rows [][]string
	out := map[string]any{}
	for _, task := range f.tasks {
		name, path, ok := strings.Cut(task, "=")
		if !ok {
			return nil, nil, usageError{fmt.Errorf("benchmark: want NAME=FILE such as mmlu=mmlu_test.jsonl.gz, have %q", task)}
		}
		b, err := evals.FindBenchmark(name)
		if err != nil {
			return nil, nil, usageError{err}
		}
		items, err := b.Read(path)
		if err != nil {
			return nil, nil, err
		}
		if f.limit > 0 {
			items = items[:min(f.limit, len(items))]
		}
		var examples []evals.Item
		shots := 0
		if path, ok := f.examples[name]; ok {
			shots = f.shots
			if examples, err = b.Read(path); err != nil {
				return nil, nil, err
			}
		}
		style := f.style
		style.Chat = style.Chat || items[0].Judge != nil && len(items[0].Stops) == 0 // an instruction is a user's turn
		taker := evals.Taker{
			Ranker:    evals.NewRanker(l.Adapted, l.backend, l.text.Tokenizer, evals.RankerOptions{Special: !f.noSpecial && !style.Chat}),
			Generator: l.generator(), Text: l.text, Style: style, Special: !f.noSpecial,
		}
		if terminal(a.err) {
			taker.Progress = func(done, all int) {
				fmt.Fprintf(a.err, "\r%s %d/%d ", name, done, all)
				if done == all {
					fmt.Fprint(a.err, "\r\033[K")
				}
			}
		}
		measures, err := taker.Take(ctx, b, items, examples, shots)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = measures
		for _, m := range measures {
			rows = append(rows, []string{name + " " + m.Metric, fmt.Sprintf("%.1f %%", 100*m.Mean), margin(m) + fmt.Sprintf("%d questions of %s", m.Items, path)})
		}
	}
	return rows, out, nil
}

// margin shows the 95 % interval of a measure.
func margin(m evals.Measure) string {
	stderr := float64(m.Stderr)
	if math.IsNaN(stderr) {
		return ""
	}
	return fmt.Sprintf("± %.1f, ", 196*stderr)
}

// interval shows the 95 % interval of a share of right answers.
func interval(s evals.Score) string {
	low, high := evals.Interval(s.Right, s.Total)
	return fmt.Sprintf("%.1f to %.1f %%", 100*low, 100*high)
}

// chance returns how likely two models that answer the same questions differ as much by chance alone.
func chance(before, after evals.Score) float64 {
	gained, lost := 0, 0
	for i := range before.Answers {
		switch {
		case after.Answers[i].Right && !before.Answers[i].Right:
			gained++
		case before.Answers[i].Right && !after.Answers[i].Right:
			lost++
		}
	}
	return evals.McNemar(gained, lost)
}
