package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/engine"
	"tunesmith/runs"
)

// verdict says how bad a finding is.
type verdict string

const (
	wrong verdict = "error"   // it does not work
	doubt verdict = "warning" // it works otherwise than may be meant
	fine  verdict = "ok"
)

// finding is one thing that was looked at.
type finding struct {
	Verdict verdict `json:"verdict"`
	What    string  `json:"what"`
	Remedy  string  `json:"remedy,omitempty"`
}

// examination is a doctor's work on one adapter, model or run.
type examination struct {
	app       *app
	base      string // of an adapter, where it is given
	template  string
	precision string
	tokens    int
	Target    string    `json:"target"`
	Kind      string    `json:"kind"`
	Findings  []finding `json:"findings"`
}

func (e *examination) add(v verdict, remedy, what string, args ...any) {
	e.Findings = append(e.Findings, finding{v, fmt.Sprintf(what, args...), remedy})
}

func (e *examination) ok(what string, args ...any) { e.add(fine, "", what, args...) }

func (e *examination) doctorEngine() (engine.Backend, error) {
	return engine.Open("cpu", engine.Options{Precision: engine.Precision(e.precision)})
}

func (a *app) doctor() *cobra.Command {
	e := &examination{app: a}
	c := &cobra.Command{
		Use:   "doctor ADAPTER|MODEL|RUN",
		Short: "Find out why an adapter, a model or a run does not work",
		Long: "doctor looks for what keeps an adapter from loading or from doing anything, for what a model lacks to answer and to\n" +
			"stop, and for what went wrong in a run. Each finding names a remedy. The exit code is 1 where something is wrong.",
		Example: "  tunesmith doctor runs/run/adapter -m model.gguf\n  tunesmith doctor runs/run --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e.Target = args[0]
			if err := e.examine(c.Context()); err != nil {
				return err
			}
			return e.report()
		},
	}
	c.Flags().StringVarP(&e.base, "model", "m", "", "an adapter's base; the one that it names where empty")
	c.Flags().StringVar(&e.template, "chat-template", "", "chat template: a file, or a built-in name")
	c.Flags().StringVar(&e.precision, "precision", string(engine.Mixed), "accuracy of the products: fp32 or mixed")
	c.Flags().IntVar(&e.tokens, "max-tokens", 128, "length up to which answers are tried; 0 tries none")
	return c
}

// examine finds out what the target is and looks at it.
func (e *examination) examine(ctx context.Context) error {
	path := e.Target
	if path == embedded {
		e.Kind = "model"
		return e.model(ctx, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("doctor: %w; give the directory of an adapter, a model or a run, or a GGUF file", err)
	}
	has := func(names ...string) bool {
		for _, name := range names {
			if m, _ := filepath.Glob(filepath.Join(path, name)); len(m) > 0 {
				return true
			}
		}
		return false
	}
	switch {
	case info.IsDir() && has(runs.ConfigFile, runs.ManifestFile):
		e.Kind = "run"
		return e.run(ctx, path)
	case info.IsDir() && (has("adapter_config.json", "adapter_model.*") || !has("config.json") && has("*/adapter_config.json")):
		e.Kind = "adapter"
		return e.adapter(ctx, path)
	case !info.IsDir() && strings.HasPrefix(filepath.Base(path), "adapter_"):
		e.Kind = "adapter"
		return e.adapter(ctx, filepath.Dir(path))
	}
	e.Kind = "model"
	return e.model(ctx, path)
}

// errUnwell is what doctor ends with where something is wrong.
var errUnwell = errors.New("something is wrong")

func (e *examination) report() error {
	bad, doubtful := 0, 0
	for _, f := range e.Findings {
		switch f.Verdict {
		case wrong:
			bad++
		case doubt:
			doubtful++
		}
	}
	if e.app.json {
		if err := e.app.result(e); err != nil {
			return err
		}
	} else {
		e.app.say("%s %s", e.Kind, e.Target)
		for _, f := range e.Findings {
			e.app.say("%-8s %s", f.Verdict, f.What)
			if f.Remedy != "" {
				e.app.say("%-8s → %s", "", f.Remedy)
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("doctor: %w with %s: %d errors, %d warnings", errUnwell, e.Target, bad, doubtful)
	}
	return nil
}
