package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/device"
	"tunesmith/internal/atomicfile"
	"tunesmith/plan"
	"tunesmith/tune"
)

func (a *app) advise() *cobra.Command {
	var m, memory, goal, minutes, out string
	var sets []string
	var quick bool
	c := &cobra.Command{
		Use:     "advise DATA...",
		Short:   "Say which methods suit the data, the machine and the goal, and what a run takes",
		Long:    "advise tries every method on the model and the data. It says which composition suits, why, what it takes in\nmemory (from the engine's own plan) and in time (from measured steps), and which rules of the field are broken.",
		Example: "  tunesmith advise train.jsonl -m model.gguf --goal memory --memory 2GiB",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			limit, err := memoryLimit(memory)
			if err != nil {
				return err
			}
			within := 0.0
			if minutes != "" {
				d, err := time.ParseDuration(minutes)
				if err != nil {
					return usageError{fmt.Errorf("time: want a duration such as 30m, have %q", minutes)}
				}
				within = d.Minutes()
			}
			path, err := modelPath(m)
			if err != nil {
				return err
			}
			var list []string
			for _, d := range args {
				list = append(list, "{path: "+strconv.Quote(d)+"}")
			}
			base := []string{"model=" + strconv.Quote(m), "data=[" + strings.Join(list, ", ") + "]"}
			r, err := tune.Schema().Load("", append(base, sets...))
			if err != nil {
				return err
			}
			q := plan.Question{Run: r.Value, Model: path, Goal: plan.Goal(goal), Limit: limit, Minutes: within, Measure: !quick}
			if terminal(a.err) {
				q.Progress = func(what string) { fmt.Fprintf(a.err, "\r\033[Ktrying %s", what) }
			}
			advice, err := plan.Advise(c.Context(), q)
			if terminal(a.err) {
				fmt.Fprint(a.err, "\r\033[K")
			}
			if err != nil {
				if advice != nil && !a.json {
					a.candidates(advice)
				}
				return err
			}
			if a.json {
				return a.result(advice)
			}
			a.advice(advice)
			if out == "" {
				a.say("\nwrite the run file with -o run.yaml")
				return nil
			}
			advised, err := tune.Schema().Load("", slices.Concat(base, sets, advice.Sets))
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := tune.Schema().Template(&b, advised.Value, "model", "data"); err != nil {
				return err
			}
			if err := atomicfile.WriteFile(out, b.Bytes()); err != nil {
				return err
			}
			a.say("\nwrote %s; start with: tunesmith train %s", out, out)
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&m, "model", "m", embedded, "base model")
	f.StringVar(&goal, "goal", string(plan.Quality), "what counts most: "+strings.Join(plan.Goals(), ", "))
	f.StringVar(&memory, "memory", "", "memory that the run may take, such as 2GiB; what the machine has left where empty")
	f.StringVar(&minutes, "time", "", "time that the run may take, such as 30m")
	f.StringArrayVar(&sets, "set", nil, "a key of the run that is settled, as in max_length=512; may be given again")
	f.StringVarP(&out, "output", "o", "", "run file to write")
	f.BoolVar(&quick, "quick", false, "make no steps; the time stays unknown")
	return c
}

// memoryLimit is what a run may take: what the flag says, or what is left here.
func memoryLimit(flag string) (int64, error) {
	s := device.Settings{Root: "/"}
	if flag != "" {
		if err := s.Memory.UnmarshalText([]byte(flag)); err != nil {
			return 0, usageError{fmt.Errorf("memory: %w", err)}
		}
		return int64(s.Memory), nil
	}
	return int64(s.Limit().Bytes), nil
}

// candidates shows all methods of the parameters axis on the data.
func (a *app) candidates(p *plan.Advice) {
	var rows [][]string
	yes := map[bool]string{true: "yes", false: "no"}
	for _, c := range p.Candidates {
		row := []string{c.Method, thousands(c.Trained), fmt.Sprintf("%.2f %%", 100*c.Share), size(c.Total()), yes[c.Fits], yes[c.Enough], yes[c.Merges], c.Files}
		if c.Why != "" {
			row = []string{c.Method, "", "", "", "no: " + clip(c.Why, 40), "", "", c.Files}
		}
		rows = append(rows, row)
	}
	a.say("%s", a.grid([]string{"method", "trained", "share", "memory", "fits", "capacity", "merges", "files"}, rows))
}

// advice shows the answer for people.
func (a *app) advice(p *plan.Advice) {
	a.candidates(p)
	var other [][]string
	for _, axis := range []tune.Axis{tune.ObjectiveAxis, tune.MixtureAxis, tune.TopologyAxis} {
		for _, m := range tune.Methods(axis) {
			chosen := ""
			if m.Name == p.Objective && axis == tune.ObjectiveAxis || m.Name == p.Topology && axis == tune.TopologyAxis {
				chosen = "→ "
			}
			other = append(other, []string{string(axis), chosen + m.Name, m.Doc})
		}
	}
	a.say("%s", a.grid([]string{"axis", "method", ""}, other))
	for _, r := range p.Reasons {
		a.say("• %s", r)
	}
	e := p.Estimate
	line := fmt.Sprintf("%d steps on %s tokens, %s of memory", e.Steps, thousands(int(e.Tokens)), size(e.Bytes))
	if e.Seconds > 0 {
		line += fmt.Sprintf(", about %s at %.0f tokens/s", short(time.Duration(e.Seconds*float64(time.Second))), e.TokensPerSecond)
	}
	a.say("• %s", line)
	for _, c := range p.Checks {
		if c.OK {
			a.say("✓ %s: %s", c.Rule, c.Detail)
		} else {
			a.say("✗ %s: %s; %s", c.Rule, c.Detail, c.Remedy)
		}
	}
}
