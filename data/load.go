package data

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// Renderer turns a record into tokens. It is called by several goroutines at once. The warnings are remarks on a
// record that is used all the same.
type Renderer interface {
	Render(Record) (e Example, warnings []string, err error)
}

// LoadOptions say how records become examples.
type LoadOptions struct {
	MaxLength  int // tokens; 0 is no limit
	Overlength Overlength
	EvalShare  float64 // part of the records that is held out
	SplitSeed  uint64
}

// blockSize is how many records are rendered or looked at together. It does not depend on the number of processors, so that a
// ledger has the same order everywhere.
const blockSize = 512

// Load reads sources to their end into two stores: examples to train on, and examples that are held out. Problems of
// records go to the ledger, and in mode strict its Err is returned at the end. held may be nil if nothing is held
// out.
func Load(ctx context.Context, sources []Source, render Renderer, o LoadOptions, l *Ledger, train, held *Store) error {
	if o.EvalShare < 0 || o.EvalShare >= 1 || o.EvalShare > 0 && held == nil {
		return fmt.Errorf("data: part to hold out: want 0 <= share < 1, have %g", o.EvalShare)
	}
	for _, s := range sources {
		if err := load(ctx, s, render, o, l, train, held); err != nil {
			return err
		}
	}
	return l.Err()
}

// load reads one source.
func load(ctx context.Context, s Source, render Renderer, o LoadOptions, l *Ledger, train, held *Store) error {
	r, err := Open(s, l)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.EachBlock(ctx, func(records []Record) error {
		for i, out := range renderAll(records, render, o) {
			for _, p := range out.problems {
				l.Add(p)
			}
			to := train
			if o.EvalShare > 0 && HeldOut(records[i], o.EvalShare, o.SplitSeed) {
				to = held
			}
			for _, e := range out.examples {
				if err := to.Add(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// LoadRecords renders records that are in memory into a store. Problems go to the ledger.
func LoadRecords(ctx context.Context, records []Record, render Renderer, o LoadOptions, l *Ledger, to *Store) error {
	for at := 0; at < len(records); at += blockSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, out := range renderAll(records[at:min(at+blockSize, len(records))], render, o) {
			for _, p := range out.problems {
				l.Add(p)
			}
			for _, e := range out.examples {
				if err := to.Add(e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// rendered is what became of one record.
type rendered struct {
	examples []Example
	problems []Problem
}

// renderAll renders records on all processors.
func renderAll(records []Record, render Renderer, o LoadOptions) []rendered {
	out := make([]rendered, len(records))
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(records))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(records); i += workers {
				out[i] = renderOne(records[i], render, o)
			}
		})
	}
	wg.Wait()
	return out
}

func renderOne(r Record, render Renderer, o LoadOptions) (out rendered) {
	e, warnings, err := render.Render(r)
	for _, w := range warnings {
		out.problems = append(out.problems, Problem{Position: r.Pos, Level: Warning, Reason: w})
	}
	if err != nil {
		var p *Problem
		if !errors.As(err, &p) {
			p = &Problem{Level: Bad, Reason: err.Error(), Remedy: "mend or remove the record"}
		}
		out.problems = append(out.problems, *p.at(r.Pos))
		return out
	}
	e.Pos, e.Task = r.Pos, r.Task
	var p *Problem
	if out.examples, p = Fit(e, o.MaxLength, o.Overlength); p != nil {
		out.problems = append(out.problems, *p)
	}
	return out
}
