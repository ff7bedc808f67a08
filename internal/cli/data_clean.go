package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/data/inspect"
	"tunesmith/internal/atomicfile"
)

func (a *app) dataClean() *cobra.Command {
	var f dataFlags
	var r ruleFlags
	var o output
	c := &cobra.Command{
		Use:   "clean SOURCE...",
		Short: "Write a new file without what the rules drop, and a ledger of the reasons",
		Long: "Reads data in any form and writes it as JSON lines in the canonical form. The sources stay as they are. The ledger\n" +
			"has a line of JSON for every record that was dropped or mended, and for every line that cannot be read." + rulesHelp(),
		Example: "  tunesmith data clean raw/*.csv -o train.jsonl --against test.jsonl --redact\n  tunesmith data clean raw.jsonl -o train.jsonl --drop truncated,boilerplate --off near_duplicate",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.clean(c, args, &f, &r, &o)
		},
	}
	f.add(c)
	r.add(c)
	o.add(c)
	return c
}

func (a *app) dataDedup() *cobra.Command {
	var f dataFlags
	var o output
	r := ruleFlags{words: 13}
	var exact bool
	c := &cobra.Command{
		Use:     "dedup SOURCE...",
		Short:   "Write a new file without duplicates and near-duplicates",
		Long:    "Keeps the first of the records whose texts are equal but for case and white space, or nearly equal by their MinHash\nsignatures. All other rules are off.",
		Example: "  tunesmith data dedup a.jsonl b.jsonl -o train.jsonl --threshold 0.7",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for _, rule := range inspect.Rules() {
				if rule.Name != "exact_duplicate" && (rule.Name != "near_duplicate" || exact) {
					r.off = append(r.off, rule.Name)
				}
			}
			return a.clean(c, args, &f, &r, &o)
		},
	}
	f.add(c)
	o.add(c)
	c.Flags().Float64Var(&r.threshold, "threshold", 0.8, "likeness from which texts are near-duplicates")
	c.Flags().BoolVar(&exact, "exact", false, "leave near-duplicates in")
	return c
}

// output says where cleaned data goes.
type output struct {
	path, ledger string
	force        bool
}

func (o *output) add(c *cobra.Command) {
	c.Flags().StringVarP(&o.path, "output", "o", "", "the new file, of JSON lines")
	c.Flags().StringVar(&o.ledger, "ledger", "", "file of the reasons; the new file's name with .ledger.jsonl where empty")
	c.Flags().BoolVar(&o.force, "force", false, "replace existing files")
}

// entry is a line of the ledger.
type entry struct {
	inspect.Finding
	Text string `json:"text,omitempty"` // of a record that is dropped
}

// clean writes what is kept and why the rest is not. Both files appear whole or not at all.
func (a *app) clean(c *cobra.Command, args []string, f *dataFlags, r *ruleFlags, o *output) error {
	if o.ledger == "" {
		o.ledger = o.path + ".ledger.jsonl"
	}
	if err := fresh(o.path, o.force); err != nil {
		return err
	}
	if err := fresh(o.ledger, o.force); err != nil {
		return err
	}
	in, l, err := f.open(args)
	if err != nil {
		return err
	}
	defer l.close()
	var report *inspect.Report
	err = atomicfile.Write(o.ledger, func(reasons io.Writer) error {
		return atomicfile.Write(o.path, func(kept io.Writer) error {
			good, why := bufio.NewWriterSize(kept, 1<<16), bufio.NewWriterSize(reasons, 1<<16)
			unread := &data.Ledger{Mode: data.Skip, Sink: why}
			x, err := r.inspector(in, l, unread, 0)
			if err != nil {
				return err
			}
			lines := json.NewEncoder(why)
			lines.SetEscapeHTML(false)
			err = x.Run(c.Context(), in.sources, unread, func(res inspect.Result) error {
				for _, found := range res.Findings {
					e := entry{Finding: found}
					switch found.Action {
					case inspect.Remark:
						continue
					case inspect.Drop:
						e.Text = res.Record.Content()
					}
					if err := lines.Encode(e); err != nil {
						return err
					}
				}
				if res.Dropped {
					return nil
				}
				line, err := res.Record.Line()
				if err != nil {
					return err
				}
				_, err = good.Write(line)
				return err
			})
			if err != nil {
				return err
			}
			if err := unread.Err(); err != nil {
				return err
			}
			if report = x.Report(); report.Kept == 0 {
				return fmt.Errorf("%s: no record is left; see what the rules find with: tunesmith data check", in.title)
			}
			if err := good.Flush(); err != nil {
				return err
			}
			return why.Flush()
		})
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.result(report)
	}
	a.report(report)
	a.say("wrote %s; the reasons stand in %s", o.path, o.ledger)
	return nil
}

func (a *app) dataSplit() *cobra.Command {
	var f dataFlags
	var out string
	var share float64
	var seed uint64
	var force bool
	c := &cobra.Command{
		Use:   "split SOURCE...",
		Short: "Write a training and an evaluation file",
		Long: "The part of a record is a function of its content: it stays the same when records are added, removed or moved, and\n" +
			"equal records are never on both sides. Remove near-duplicates first, or they may be.",
		Example: "  tunesmith data split clean.jsonl -o data --share 0.1",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !(share > 0 && share < 1) {
				return usageError{fmt.Errorf("share: want a number between 0 and 1, have %g", share)}
			}
			in, err := f.read(args)
			if err != nil {
				return err
			}
			paths := [2]string{filepath.Join(out, "train.jsonl"), filepath.Join(out, "eval.jsonl")}
			for _, p := range paths {
				if err := fresh(p, force); err != nil {
					return err
				}
			}
			if err := os.MkdirAll(out, 0o777); err != nil {
				return err
			}
			ledger := &data.Ledger{Mode: data.Skip}
			var n [2]int
			err = atomicfile.Write(paths[0], func(train io.Writer) error {
				return atomicfile.Write(paths[1], func(eval io.Writer) error {
					writers := [2]*bufio.Writer{bufio.NewWriter(train), bufio.NewWriter(eval)}
					for _, s := range in.sources {
						if err := split(s, ledger, share, seed, writers, &n); err != nil {
							return err
						}
					}
					if n[0] == 0 || n[1] == 0 {
						return fmt.Errorf("%d records to train on and %d to evaluate with: change the share or the seed", n[0], n[1])
					}
					if err := writers[0].Flush(); err != nil {
						return err
					}
					return writers[1].Flush()
				})
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.result(map[string]any{"train": paths[0], "eval": paths[1], "train_records": n[0], "eval_records": n[1], "problems": ledger.Problems()})
			}
			a.problems(ledger)
			a.say("wrote %s (%d records) and %s (%d records)", paths[0], n[0], paths[1], n[1])
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVarP(&out, "output", "o", ".", "directory for train.jsonl and eval.jsonl")
	c.Flags().Float64Var(&share, "share", 0.1, "part of the records to evaluate with")
	c.Flags().Uint64Var(&seed, "seed", 42, "another seed gives another split")
	c.Flags().BoolVar(&force, "force", false, "replace existing files")
	return c
}

// split writes the records of a source to two files.
func split(s data.Source, l *data.Ledger, share float64, seed uint64, to [2]*bufio.Writer, n *[2]int) error {
	return data.Each(s, l, func(rec data.Record) error {
		side := 0
		if data.HeldOut(rec, share, seed) {
			side = 1
		}
		line, err := rec.Line()
		if err != nil {
			return err
		}
		if _, err := to[side].Write(line); err != nil {
			return err
		}
		n[side]++
		return nil
	})
}
