package trainer

import (
	"context"
	"fmt"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/tune"
)

// programs compiles and keeps the passes of one adapted model. Shapes of a batch are part of the key, and batches
// come in multiples of 32 columns, so a run has few of them.
type programs struct {
	model     *model.Adapted
	backend   engine.Backend
	objective tune.Objective
	recompute bool
	cache     *engine.Cache
}

// pass is what a program computes.
type pass uint8

const (
	forward  pass = iota // the loss, without dropout
	backward             // the loss and the gradients, with dropout
)

// get returns the program for a batch's shape.
func (p *programs) get(kind pass, rows, cols int) (engine.Program, error) {
	return p.cache.Get(fmt.Sprintf("%d/%d×%d", kind, rows, cols), func() (engine.Program, error) {
		g, err := graph.Build(func(g *graph.Graph) { p.build(g, kind, rows, cols) })
		if err != nil {
			return nil, err
		}
		return p.backend.Compile(g, p.model.Store)
	})
}

func (p *programs) build(g *graph.Graph, kind pass, rows, cols int) {
	in := site.Inputs{
		IDs:       g.Input("ids", graph.Int, rows, cols),
		Positions: g.Input("positions", graph.Int, rows, cols),
		Segments:  g.Input("segments", graph.Int, rows, cols),
	}
	if kind == backward {
		in.DropKey = g.Input("dropout", graph.Int, 2)
		in.Recompute = p.recompute
	}
	s := site.New(g, in, p.model.Grafts...)
	sum := p.objective.Loss(tune.Forward{
		Model:   p.model,
		Scope:   s,
		Targets: g.Input("targets", graph.Int, rows*cols),
		Weights: g.Input("weights", graph.Float, rows*cols),
	})
	g.Output("sum", sum)
	if kind == forward {
		return
	}
	loss := graph.Times(sum, g.Input("scale", graph.Float))
	params := p.model.Sites.Trainable()
	nodes := make([]*graph.Node, len(params))
	for i, t := range params {
		nodes[i] = g.Param(t.Name, true, t.Shape...)
	}
	for i, d := range graph.Gradient(loss, nodes) {
		if d == nil { // the loss does not depend on it
			d = graph.BroadcastTo(g.Scalar(0), params[i].Shape)
		}
		g.Output("grad."+params[i].Name, d)
	}
}

// feeds are the inputs that both passes take from a batch.
func feeds(b data.Batch) engine.Feeds {
	return engine.Feeds{"ids": b.IDs, "positions": b.Positions, "segments": b.Segments, "targets": b.Targets, "weights": b.Weights}
}

// weight is the sum of a batch's loss weights, which is its number of supervised tokens where none is weighted.
func weight(b data.Batch) float64 {
	var sum float64
	for _, w := range b.Weights {
		sum += float64(w)
	}
	return sum
}

// loss returns the sum of the token losses of a batch, without dropout.
func (p *programs) loss(ctx context.Context, b data.Batch) (float64, error) {
	program, err := p.get(forward, b.Rows, b.Cols)
	if err != nil {
		return 0, err
	}
	if err := program.Run(ctx, feeds(b)); err != nil {
		return 0, err
	}
	return float64(program.Output("sum")[0]), nil
}
