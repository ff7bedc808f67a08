package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/device"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

func (a *app) device() *cobra.Command {
	c := &cobra.Command{
		Use:   "device",
		Short: "Adapt a model on its user's machine, within limits, in generations that can be taken back",
	}
	c.AddCommand(a.deviceInit(), a.deviceAdapt(), a.deviceStatus(), a.deviceRollback(), a.deviceDiff(), a.deviceApply(), a.deviceSimulate())
	return c
}

// deviceMethod returns the method of the topology axis whose runs are adaptations of a device.
func deviceMethod() (string, device.Method, error) {
	for _, m := range tune.Methods(tune.TopologyAxis) {
		if d, ok := m.New().(device.Method); ok {
			return m.Name, d, nil
		}
	}
	return "", nil, errors.New("this build has no method for devices")
}

func (a *app) deviceInit() *cobra.Command {
	var m string
	var sets []string
	c := &cobra.Command{
		Use:     "init DIR",
		Short:   "Make a device's directory",
		Example: "  tunesmith device init phone -m model.gguf --set topology.memory=400MiB --set topology.window=22:00-06:00",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, method, err := deviceMethod()
			if err != nil {
				return err
			}
			path, err := modelPath(m)
			if err != nil {
				return err
			}
			// The data that a run file has to name is given to each adaptation instead.
			all := append([]string{"model=" + strconv.Quote(m), "data=[{path: new.jsonl}]", "topology.method=" + name}, method.Sets()...)
			r, err := tune.Schema().Load("", append(all, sets...))
			if err != nil {
				return err
			}
			if err := device.Init(args[0], r.Value, path); err != nil {
				return err
			}
			a.say("made %s; its limits stand in %s/run.yaml under topology\nadapt it with: tunesmith device adapt %s --data new.jsonl", args[0], args[0], args[0])
			return nil
		},
	}
	c.Flags().StringVarP(&m, "model", "m", embedded, "base model")
	c.Flags().StringArrayVar(&sets, "set", nil, "set a key of the run file, as in topology.memory=400MiB; may be given again")
	return c
}

func (a *app) deviceAdapt() *cobra.Command {
	var sources []string
	c := &cobra.Command{
		Use:   "adapt DIR",
		Short: "Make the next generation from new data, or go on with one that was deferred",
		Long: "adapt learns from new data on top of the current generation, while the device's settings allow it. It keeps\nthe result only if it is better on held-out new data and not worse in general. Work that has to stop is kept;\n" +
			"the exit code is then 75, and the same command goes on with it.",
		Example: "  tunesmith device adapt phone --data messages.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := device.Open(args[0], modelPath)
			if err != nil {
				return err
			}
			defer d.Close()
			records, err := a.records(sources)
			if err != nil {
				return err
			}
			p := progress{app: a}
			r, err := d.Adapt(c.Context(), device.Adaptation{
				Records: records, General: func() io.Reader { return general() }, Version: version(), Progress: p.show,
				Started: func(s *trainer.Session, f device.Fit) {
					for _, change := range f.Changes {
						a.say("to fit into %s: %s", f.Limit, change)
					}
					trained, all := s.Counts()
					a.say("%s of %s values train, on %d examples for %d steps; %s planned of %s", thousands(trained), thousands(all),
						s.Examples.Len(), s.Trainer.Schedule.Steps, f.Total(), f.Limit)
				},
			})
			if errors.Is(err, device.ErrDeferred) {
				return fmt.Errorf("%w; go on later with: tunesmith device adapt %s", err, args[0])
			}
			if err != nil {
				return err
			}
			return a.adapted(r, len(records) > 0)
		},
	}
	c.Flags().StringArrayVarP(&sources, "data", "d", nil, "file, folder or pattern of new data; may be given again")
	return c
}

// records reads data sets whole. Problems of single records are shown, and the records left out.
func (a *app) records(paths []string) ([]data.Record, error) {
	var out []data.Record
	l := &data.Ledger{Mode: data.Skip}
	for _, path := range paths {
		err := data.Each(data.Source{Path: path}, l, func(r data.Record) error {
			out = append(out, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	a.problems(l)
	return out, nil
}

// adapted shows what became of an adaptation.
func (a *app) adapted(r device.Result, given bool) error {
	if a.json {
		return a.result(map[string]any{
			"taken": r.Taken, "reason": r.Reason, "generation": r.Generation.Number, "resumed": r.Resumed,
			"before": r.Before, "after": r.After, "planned_bytes": int64(r.Fit.Total()), "peak_rss_bytes": peakRSS(),
		})
	}
	var rows [][]string
	for _, row := range []struct{ name, split string }{{"held-out loss", runs.Eval}, {"general loss", runs.General}} {
		rows = append(rows, []string{row.name, fmt.Sprintf("%.4f", float64(r.Before[row.split])), fmt.Sprintf("%.4f", float64(r.After[row.split]))})
	}
	a.say("%s", a.grid([]string{"", "before", "after"}, rows))
	if r.Taken {
		a.say("generation %d is in use", r.Generation.Number)
	} else {
		a.say("not taken: %s", r.Reason)
	}
	if r.Resumed && given {
		a.say("this was the adaptation that had been deferred; give the new data again to learn from it")
	}
	return nil
}

func (a *app) deviceStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status DIR",
		Short: "Show the generations of a device, and whether it may work now",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := device.Open(args[0], modelPath)
			if err != nil {
				return err
			}
			defer d.Close()
			s, err := d.Status()
			if err != nil {
				return err
			}
			if a.json {
				return a.result(s)
			}
			rows := [][]string{{mark(s.Current == 0) + "0", "", "the bare base", "", ""}}
			for _, g := range s.Generations {
				rows = append(rows, []string{
					mark(g.Number == s.Current) + strconv.Itoa(g.Number), strconv.Itoa(g.Parent), g.Created.Format("2006-01-02 15:04"),
					change(g, runs.Eval), change(g, runs.General),
				})
			}
			a.say("%s", a.grid([]string{"generation", "parent", "made", "held-out loss", "general loss"}, rows))
			a.say("may work: %s\nmemory limit: %s\nreplay buffer: %d records", s.Allowed, s.Limit, s.Replay)
			if s.Pending {
				a.say("an adaptation is deferred; go on with: tunesmith device adapt %s", args[0])
			}
			return nil
		},
	}
}

func mark(current bool) string {
	if current {
		return "→ "
	}
	return "  "
}

func change(g device.Generation, split string) string {
	was, ok := g.Before[split]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.4f → %.4f", float64(was), float64(g.After[split]))
}

func (a *app) deviceRollback() *cobra.Command {
	var to int
	c := &cobra.Command{
		Use:   "rollback DIR",
		Short: "Take the current generation back",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := device.Open(args[0], modelPath)
			if err != nil {
				return err
			}
			defer d.Close()
			from, err := d.Current()
			if err != nil {
				return err
			}
			if c.Flags().Changed("to") {
				err = d.Switch(to)
			} else {
				_, to, err = d.Rollback()
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.result(map[string]int{"from": from, "to": to})
			}
			a.say("generation %d is in use again, instead of %d", to, from)
			return nil
		},
	}
	c.Flags().IntVar(&to, "to", 0, "generation to go to instead of the parent; 0 is the bare base")
	return c
}

func (a *app) deviceDiff() *cobra.Command {
	var out string
	var o device.PatchOptions
	c := &cobra.Command{
		Use:     "diff DIR FROM TO",
		Short:   "Write the patch that turns one generation into another",
		Example: "  tunesmith device diff phone 1 2 -o update.patch --int8 --density 0.2",
		Args:    cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			from, err := strconv.Atoi(args[1])
			to, err2 := strconv.Atoi(args[2])
			if err := errors.Join(err, err2); err != nil || out == "" {
				return usageError{errors.New("diff: want two numbers of generations, and the patch's file with -o")}
			}
			d, err := device.Open(args[0], modelPath)
			if err != nil {
				return err
			}
			defer d.Close()
			p, err := d.NewPatch(from, to, o)
			if err != nil {
				return err
			}
			if err := p.WriteFile(out); err != nil {
				return err
			}
			f, err := runs.HashFile(out)
			if err != nil {
				return err
			}
			if a.json {
				return a.result(map[string]any{"file": out, "bytes": f.Bytes, "base": p.Base, "parent": p.Parent, "target": p.Target})
			}
			a.say("wrote %s, %s", out, size(f.Bytes))
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file of the patch")
	c.Flags().BoolVar(&o.Int8, "int8", false, "write changes as 8-bit steps: a quarter of the size, a little off the target")
	c.Flags().Float64Var(&o.Density, "density", 0, "share of the values that may change, the largest changes first; 0 is all")
	return c
}

func (a *app) deviceApply() *cobra.Command {
	return &cobra.Command{
		Use:   "apply DIR PATCH",
		Short: "Make a generation of a patch, and put it into use",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := device.Open(args[0], modelPath)
			if err != nil {
				return err
			}
			defer d.Close()
			p, err := device.OpenPatch(args[1])
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return err
				}
				return fmt.Errorf("%w; nothing was changed", err)
			}
			g, err := d.Apply(p, d.State.Base)
			if err != nil {
				return fmt.Errorf("%w; nothing was changed", err)
			}
			if a.json {
				return a.result(g)
			}
			a.say("generation %d is in use", g.Number)
			return nil
		},
	}
}
