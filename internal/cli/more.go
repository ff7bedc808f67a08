package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/internal/atomicfile"
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
