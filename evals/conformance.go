package evals

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/site"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// Check is one promise of one method, and what was found.
type Check struct {
	Method, Name string
	Err          error // nil where the promise holds
}

// Conformance checks on a small random model that every parameters method with every objective keeps what a method
// promises: the first step starts from the base, only what is declared changes, the loss falls on a few rows, a saved
// adapter gives the same logits, and so do merged weights, packed rows and generation.
func Conformance(ctx context.Context, report func(Check)) error {
	for _, p := range tune.Methods(tune.ParametersAxis) {
		for _, o := range tune.Methods(tune.ObjectiveAxis) {
			if err := conform(ctx, p, o, "llama", p.Name+" with "+o.Name, report); err != nil {
				return err
			}
		}
	}
	return nil
}

// FamilyConformance checks the same of every parameters method, with the usual objective, on a small model of another
// family.
func FamilyConformance(ctx context.Context, family string, report func(Check)) error {
	for _, p := range tune.Methods(tune.ParametersAxis) {
		for _, o := range tune.Methods(tune.ObjectiveAxis) {
			if !o.Default {
				continue
			}
			if err := conform(ctx, p, o, family, p.Name+" on "+family, report); err != nil {
				return err
			}
		}
	}
	return nil
}

func conform(ctx context.Context, p, o tune.Method, family, name string, report func(Check)) error {
	objective, ok := o.New().(tune.Objective)
	if !ok {
		return nil
	}
	c, err := newConformance(p, objective, o.Default, family)
	if err != nil {
		report(Check{name, "starts", err})
		return nil
	}
	for _, promise := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"starts from the base", c.startsFromBase},
		{"memorises a few rows, and changes only what it declares", c.memorises},
		{"saved and loaded, it gives equal logits", c.roundTrip},
		{"merged, it gives equal logits", c.merges},
		{"recomputed, packed and behind caches it is the same, and its gradient is the slope", c.passes},
	} {
		report(Check{name, promise.name, promise.run(ctx)})
	}
	return c.backend.Close()
}

type conformance struct {
	method    tune.Method
	objective tune.Objective
	usual     bool // it is the objective of runs that name none
	backend   engine.Backend
	base      *model.Model
	bare      *model.Adapted
	adapted   *model.Adapted
	graft     any
	stored    []any // what keeps the base in another storage, without the rest of the method
	batch     data.Batch
}

func newConformance(p tune.Method, objective tune.Objective, usual bool, family string) (*conformance, error) {
	config, err := model.Small(family)
	if err != nil {
		return nil, err
	}
	base, err := model.New(config)
	if err != nil {
		return nil, err
	}
	c := &conformance{method: p, objective: objective, usual: usual, base: base, batch: smallBatch(4, 16, 64)}
	if c.backend, err = engine.Open("cpu", engine.Options{}); err != nil {
		return nil, err
	}
	options := p.New
	if p.Sample != nil {
		options = p.Sample
	}
	if c.graft, err = options().(tune.Parameters).Graft(base.Map()); err != nil {
		return nil, err
	}
	if s, ok := c.graft.(site.BaseStorer); ok {
		c.stored = []any{struct{ site.BaseStorer }{s}}
	}
	if c.bare, err = base.Adapt(1, c.stored...); err != nil {
		return nil, err
	}
	c.adapted, err = trainer.Adapt(context.Background(), base, c.graft, c.backend, 1)
	return c, err
}

func smallBatch(rows, cols, vocab int) data.Batch {
	n := rows * cols
	b := data.Batch{
		Rows: rows, Cols: cols, Tokens: n, IDs: make([]int32, n), Targets: make([]int32, n), Positions: make([]int32, n),
		Segments: make([]int32, n), Weights: make([]float32, n),
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range b.IDs {
		b.IDs[i], b.Positions[i] = int32(rng.IntN(vocab)), int32(i%cols)
	}
	for i := range b.IDs {
		b.Targets[i] = -1
		if i%cols != cols-1 {
			b.Targets[i], b.Weights[i] = b.IDs[i+1], 1
			b.Supervised++
		}
	}
	return b
}

// logits returns the logits of the batch.
func (c *conformance) logits(ctx context.Context, m *model.Adapted) ([]float32, error) {
	b := c.batch
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, b.Rows, b.Cols), Positions: g.Input("positions", graph.Int, b.Rows, b.Cols)}, m.Grafts...)
		g.Output("logits", m.Logits(s, m.Hidden(s)))
	})
	if err != nil {
		return nil, err
	}
	p, err := c.backend.Compile(g, m.Store)
	if err != nil {
		return nil, err
	}
	if err := p.Run(ctx, engine.Feeds{"ids": b.IDs, "positions": b.Positions}); err != nil {
		return nil, err
	}
	return slices.Clone(p.Output("logits")), nil
}

// near compares logits.
func near(got, want []float32, bound float64) error {
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= bound) {
			return fmt.Errorf("logit %d: want %g, have %g", i, want[i], got[i])
		}
	}
	return nil
}

func (c *conformance) startsFromBase(ctx context.Context) error {
	if c.method.Moved {
		return nil
	}
	want, err := c.logits(ctx, c.bare)
	if err != nil {
		return err
	}
	got, err := c.logits(ctx, c.adapted)
	if err != nil {
		return err
	}
	return near(got, want, 1e-5)
}

func (c *conformance) memorises(ctx context.Context) error {
	o, err := optim.New("adamw", optim.Options{})
	if err != nil {
		return err
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: c.adapted, Backend: c.backend, Objective: c.objective, Optimizer: o,
		Schedule: func(int) float64 { return 2e-2 }, Clip: 1,
	})
	if err != nil {
		return err
	}
	batches := []data.Batch{c.batch}
	if err := s.Refer(ctx, batches); err != nil {
		return err
	}
	var first, last float64
	steps, most := 200, 0.99
	switch {
	case !c.usual:
		steps = 60 // other objectives show only that the method follows them
	case c.base.Config.Type != "llama":
		steps, most = 12, 0.9999 // and so do other families
	}
	for i := range steps {
		r, err := s.Step(ctx, batches)
		if err != nil {
			return err
		}
		if last = r.Loss; i == 0 {
			first = r.Loss
		}
	}
	// Thin methods reach little in a model of random weights; one that trains nothing would stay where it is.
	if last > most*first {
		return fmt.Errorf("the loss fell from %.3f to %.3f only in %d steps", first, last, steps)
	}
	for _, t := range c.bare.Store.All() {
		now, ok := c.adapted.Store.Get(t.Name)
		if ok && !now.Trainable && !slices.Equal(now.Float32s(), t.Float32s()) {
			return fmt.Errorf("%q changed and is not declared", t.Name)
		}
	}
	return nil
}

func (c *conformance) roundTrip(ctx context.Context) error {
	if _, ok := c.graft.(tune.PEFTWriter); !ok {
		return nil // the weights themselves are the result; merging covers them
	}
	tmp, err := os.MkdirTemp("", "tunesmith-selftest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "adapter")
	if err := tune.SaveAdapter(dir, c.graft, c.adapted.Sites, c.adapted.Store, tune.AdapterInfo{Base: "base"}); err != nil {
		return err
	}
	a, err := tune.OpenAdapter(dir)
	if err != nil {
		return err
	}
	defer a.Close()
	graft, err := a.Options.Graft(c.base.Map())
	if err != nil {
		return err
	}
	again, err := c.base.Adapt(1, graft)
	if err != nil {
		return err
	}
	if err := a.Fill(again.Store, again.Sites); err != nil {
		return err
	}
	want, err := c.logits(ctx, c.adapted)
	if err != nil {
		return err
	}
	got, err := c.logits(ctx, again)
	if err != nil {
		return err
	}
	return near(got, want, 0)
}

func (c *conformance) merges(ctx context.Context) error {
	m, ok := c.graft.(tune.Merger)
	if !ok {
		if _, ok := c.graft.(tune.PEFTWriter); !ok {
			return errors.New("the method has neither a merge nor adapter files")
		}
		return nil
	}
	if e, ok := m.(tune.Extender); ok && len(e.Adds()) > 0 {
		return nil // the result is another architecture, which exporting makes
	}
	want, err := c.logits(ctx, c.adapted)
	if err != nil {
		return err
	}
	merged, err := c.base.Adapt(1, c.stored...)
	if err != nil {
		return err
	}
	value := func(param string) []float32 {
		if t, ok := c.adapted.Store.Get(param); ok {
			return t.Values
		}
		return nil
	}
	for _, t := range merged.Store.All() {
		t.Values, t.Format, t.Data, t.Make = t.Float32s(), 0, nil, nil
		if _, err := m.Merge(t.Name, t.Name, t.Values, value); err != nil {
			return err
		}
		t.Touch()
	}
	got, err := c.logits(ctx, merged)
	if err != nil {
		return err
	}
	return near(got, want, 2e-4)
}
