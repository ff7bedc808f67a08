package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/recipes"
	"tunesmith/tune"
)

func (a *app) demo() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Adapt the embedded model to a small task, here and now",
		Long:  "demo adapts the embedded base model on embedded data and shows answers, scores and losses before and\nafter. It needs no network and takes about a minute.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			began := time.Now()
			// The data stays, so that a demo that is stopped can be resumed.
			dir, err := os.UserCacheDir()
			if err != nil {
				dir = os.TempDir()
			}
			dir = filepath.Join(dir, "tunesmith", "demo")
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
			if err := recipes.WriteDemo(dir); err != nil {
				return err
			}
			r, err := tune.Schema().Load(filepath.Join(dir, "demo.yaml"), []string{"output=" + out})
			if err != nil {
				return err
			}
			v := r.Value
			for i := range v.Data {
				v.Data[i].Path = filepath.Join(dir, v.Data[i].Path)
			}
			v.Eval.Task = filepath.Join(dir, v.Eval.Task)
			v.Name = "" // a second demo gets a number
			a.say("the embedded base model learns to route customers' messages, on this machine\n")
			e, err := a.run(c.Context(), v, "demo")
			if err != nil {
				return err
			}
			return e.answers(time.Since(began))
		},
	}
	c.Flags().StringVar(&out, "output", "runs", "directory of the runs")
	return c
}

// answers shows answers before and after side by side.
func (e *experiment) answers(spent time.Duration) error {
	if e.app.json {
		return nil
	}
	var rows [][]string
	for i, q := range e.task[:min(len(e.task), e.config.Eval.Samples)] {
		mark := "✗"
		if e.score[1].Answers[i].Right {
			mark = "✓"
		}
		rows = append(rows, []string{clip(q.Asked(), 46), clip(e.score[0].Answers[i].Text, 24), clip(e.score[1].Answers[i].Text, 18) + " " + mark})
	}
	e.app.say("%s", e.app.grid([]string{"message", "before", "after"}, rows))
	e.app.say("done in %s; look at the report, or talk with the result:\n  tunesmith chat -a %s", fmt.Sprintf("%.0f s", spent.Seconds()), filepath.Join(e.dir.Dir(), "adapter"))
	return nil
}

// clip shortens a text to n characters on one line.
func clip(s string, n int) string {
	out := []rune{}
	for _, r := range s {
		if r == '\n' {
			r = ' '
		}
		out = append(out, r)
	}
	if len(out) > n {
		return string(out[:n-1]) + "…"
	}
	return string(out)
}
