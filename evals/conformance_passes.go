package evals

import (
	"context"
	"fmt"
	"math"
	"slices"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/generate"
	"tunesmith/graph"
	"tunesmith/site"
)

// passes checks what an adapted model computes in other ways than row by row: its gradient against differences of the
// loss, recomputed layers, rows that are packed, and generation behind caches.
func (c *conformance) passes(ctx context.Context) error {
	if !c.usual {
		return nil // the objective plays no part in it
	}
	checks := []func(context.Context) error{c.recomputes, c.packs, c.generates}
	if c.base.Config.Type == "llama" {
		checks = append(checks, c.slopes) // where experts are chosen there are jumps, which no slope tells
	}
	for _, check := range checks {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pass returns the sum of the losses of a batch, the gradient of every trained tensor, and the logits.
func (c *conformance) pass(ctx context.Context, b data.Batch, recompute bool) (map[string][]float32, error) {
	trained := c.adapted.Sites.Trainable()
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{
			IDs: g.Input("ids", graph.Int, b.Rows, b.Cols), Positions: g.Input("positions", graph.Int, b.Rows, b.Cols),
			Segments: g.Input("segments", graph.Int, b.Rows, b.Cols), Recompute: recompute,
		}, c.adapted.Grafts...)
		h := c.adapted.Hidden(s)
		g.Output("logits", c.adapted.Logits(s, h))
		logp, _ := c.adapted.LogProbs(s, graph.Reshape(h, -1, h.Dim(-1)), g.Input("targets", graph.Int, b.Rows*b.Cols))
		loss := graph.Scale(graph.Sum(logp), -1)
		g.Output("loss", loss)
		nodes := make([]*graph.Node, len(trained))
		for i, p := range trained {
			nodes[i] = g.Param(p.Name, true, p.Shape...)
		}
		for i, d := range graph.Gradient(loss, nodes) {
			if d != nil {
				g.Output(trained[i].Name, d)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	p, err := c.backend.Compile(g, c.adapted.Store)
	if err != nil {
		return nil, err
	}
	if err := p.Run(ctx, engine.Feeds{"ids": b.IDs, "positions": b.Positions, "segments": b.Segments, "targets": b.Targets}); err != nil {
		return nil, err
	}
	out := map[string][]float32{}
	for _, o := range g.Outputs {
		out[o.Name] = slices.Clone(p.Output(o.Name))
	}
	return out, nil
}

// rounding is how far two losses of the batch may be off in single precision.
const rounding = 1e-3

// slopes compares the gradient of each tensor with the difference of the loss along it.
func (c *conformance) slopes(ctx context.Context) error {
	at, err := c.pass(ctx, c.batch, false)
	if err != nil {
		return err
	}
	for _, t := range c.adapted.Trained() {
		grad := at[t.Name]
		norm := 0.0
		for _, g := range grad {
			norm += float64(g) * float64(g)
		}
		if norm = math.Sqrt(norm); norm < 1e-2 {
			continue // differences of single precision would not see it
		}
		was := slices.Clone(t.Values)
		step := min(0.0003*float64(at["loss"][0])/norm, 0.02) // short, since some functions have corners
		move := func(by float64) (float64, error) {
			for i, g := range grad {
				t.Values[i] = float32(float64(was[i]) + by*float64(g)/norm)
			}
			t.Touch()
			there, err := c.pass(ctx, c.batch, false)
			if err != nil {
				return 0, err
			}
			return float64(there["loss"][0]), nil
		}
		up, err := move(step)
		if err != nil {
			return err
		}
		down, err := move(-step)
		copy(t.Values, was)
		t.Touch()
		if err != nil {
			return err
		}
		if slope := (up - down) / (2 * step); math.Abs(slope-norm) > 0.03*norm+rounding/step {
			return fmt.Errorf("gradient of %q: its length is %.4f, the loss rises by %.4f along it", t.Name, norm, slope)
		}
	}
	return nil
}

func (c *conformance) recomputes(ctx context.Context) error {
	want, err := c.pass(ctx, c.batch, false)
	if err != nil {
		return err
	}
	have, err := c.pass(ctx, c.batch, true)
	if err != nil {
		return err
	}
	for name, w := range want {
		if err := near(have[name], w, 1e-3); err != nil {
			return fmt.Errorf("%s with layers recomputed: %w", name, err)
		}
	}
	return nil
}

// packs lays all rows behind each other into one.
func (c *conformance) packs(ctx context.Context) error {
	want, err := c.pass(ctx, c.batch, false)
	if err != nil {
		return err
	}
	b := c.batch
	b.Segments = make([]int32, len(b.IDs))
	for i := range b.Segments {
		b.Segments[i] = int32(i / c.batch.Cols)
	}
	b.Rows, b.Cols = 1, len(b.IDs)
	have, err := c.pass(ctx, b, false)
	if err != nil {
		return err
	}
	for _, name := range []string{"logits", "loss"} {
		if err := near(have[name], want[name], 2e-3); err != nil {
			return fmt.Errorf("%s of packed rows: %w", name, err)
		}
	}
	return nil
}

// generates writes a few tokens behind prompts of unequal length, and computes each again without a cache.
func (c *conformance) generates(ctx context.Context) error {
	prompts := [][]int{{5, 9, 2}, {7, 1, 30, 11, 4}}
	const tokens = 5
	results, err := generate.New(c.adapted, c.backend).Generate(ctx, prompts, generate.Options{MaxTokens: tokens})
	if err != nil {
		return err
	}
	for r, prompt := range prompts {
		all := append(slices.Clone(prompt), results[r].IDs...)
		b := data.Batch{Rows: 1, Cols: len(all), IDs: make([]int32, len(all)), Positions: make([]int32, len(all)), Segments: make([]int32, len(all)), Targets: make([]int32, len(all))}
		for i, id := range all {
			b.IDs[i], b.Positions[i], b.Targets[i] = int32(id), int32(i), -1
		}
		out, err := c.pass(ctx, b, false)
		if err != nil {
			return err
		}
		v := len(out["logits"]) / len(all)
		for i := len(prompt); i < len(all); i++ {
			row := out["logits"][(i-1)*v : i*v]
			if best := slices.Max(row); row[all[i]] < best-1e-3 {
				return fmt.Errorf("generation with caches: token %d of row %d has logit %g without them, the best has %g", i-len(prompt)+1, r+1, row[all[i]], best)
			}
		}
	}
	return nil
}
