package trainer

import (
	"context"
	"fmt"
	"slices"

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
	metrics   []string        // names of the objective's metrics
	shared    map[string]bool // of those, the ones that have no count of their own
	inputs    map[string]bool // that the loss reads
}

// pass is what a program computes.
type pass uint8

const (
	forward   pass = iota // the loss, without dropout
	backward              // the loss and the gradients, with dropout
	language              // the loss of all targets as text, whatever the objective, without dropout
	reference             // the log-probability of each target without the grafts
	current               // the log-probability of each target
	outputs               // the output of a head of one label at every place
)

// get returns the program for a batch's shape.
func (p *programs) get(kind pass, b data.Batch) (engine.Program, error) {
	return p.cache.Get(fmt.Sprintf("%d/%d×%d/%d", kind, b.Rows, b.Cols, max(1, b.Sequences)), func() (engine.Program, error) {
		g, err := graph.Build(func(g *graph.Graph) { p.build(g, kind, b) })
		if err != nil {
			return nil, err
		}
		for _, n := range g.Nodes {
			if in, ok := n.Op.(graph.Input); ok {
				p.inputs[in.Name] = true
			}
		}
		return p.backend.Compile(g, p.model.Store)
	})
}

func (p *programs) build(g *graph.Graph, kind pass, b data.Batch) {
	rows, cols := b.Rows, b.Cols
	in := site.Inputs{
		IDs:       g.Input("ids", graph.Int, rows, cols),
		Positions: g.Input("positions", graph.Int, rows, cols),
		Segments:  g.Input("segments", graph.Int, rows, cols),
	}
	if kind == backward {
		in.DropKey = g.Input("dropout", graph.Int, 2)
		in.Recompute = p.recompute
	}
	grafts := p.model.Grafts
	if kind == reference {
		grafts = nil
	}
	f := tune.Forward{
		Model: p.model,
		Scope: site.New(g, in, grafts...),
		Rows:  rows, Cols: cols, Sequences: max(1, b.Sequences),
		Record: func(name string, sum, count *graph.Node) { p.record(g, name, sum, count) },
	}
	if kind != outputs {
		f.Targets = g.Input("targets", graph.Int, rows*cols)
	}
	switch kind {
	case reference, current:
		temperature := 1.0
		if t, ok := p.objective.(tune.Tempered); ok {
			temperature = t.Temperature()
		}
		g.Output("logp", f.LogProbsAt(temperature))
		return
	case outputs:
		g.Output("logp", graph.Reshape(p.model.Logits(f.Scope, p.model.Hidden(f.Scope)), rows, cols))
		return
	case language:
		g.Output("sum", graph.Scale(graph.Sum(f.LogProbs()), -1))
		return
	}
	f.Weights = g.Input("weights", graph.Float, rows*cols)
	sum := p.objective.Loss(f)
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

// record makes a metric an output of the graph.
func (p *programs) record(g *graph.Graph, name string, sum, count *graph.Node) {
	g.Output("sum/"+name, sum)
	if count != nil {
		g.Output("count/"+name, count)
	}
	if !slices.Contains(p.metrics, name) {
		p.metrics = append(p.metrics, name)
		if count == nil {
			p.shared[name] = true
		}
	}
}

// tokens are the inputs that every pass takes from a batch.
func tokens(b data.Batch) engine.Feeds {
	return engine.Feeds{"ids": b.IDs, "positions": b.Positions, "segments": b.Segments, "targets": b.Targets}
}

// feeds are the inputs of the passes that compute the loss.
func (p *programs) feeds(b data.Batch) engine.Feeds {
	in := tokens(b)
	delete(in, "targets")
	add := func(name string, v any) {
		if p.inputs[name] {
			in[name] = v
		}
	}
	add("targets", b.Targets)
	add("weights", b.Weights)
	add("reference", b.Reference)
	for name, v := range b.Extra {
		add("own/"+name, v)
	}
	if o, ok := p.objective.(tune.Feeder); ok {
		for name, v := range o.Feeds(b) {
			add("own/"+name, v)
		}
	}
	return in
}

// values adds a batch's metrics up.
type values struct{ sum, count map[string]float64 }

func newValues() values { return values{map[string]float64{}, map[string]float64{}} }

// add takes the metrics of a batch whose losses are divided by unit.
func (v values) add(p *programs, program engine.Program, unit float64) {
	for _, name := range p.metrics {
		v.sum[name] += float64(program.Output("sum/" + name)[0])
		if p.shared[name] {
			v.count[name] += unit
		} else {
			v.count[name] += float64(program.Output("count/" + name)[0])
		}
	}
}

// means returns the metrics; one of nothing is left out.
func (v values) means() map[string]float64 {
	out := map[string]float64{}
	for name, sum := range v.sum {
		if n := v.count[name]; n > 0 {
			out[name] = sum / n
		}
	}
	return out
}

// weight is what the sum of a batch's losses is divided by: the objective's count, else the sum of the tokens' weights,
// which is the number of supervised tokens where none is weighted.
func (p *programs) weight(b data.Batch) float64 {
	if o, ok := p.objective.(tune.Counter); ok {
		return o.Count(b)
	}
	return weight(b)
}

func weight(b data.Batch) float64 {
	var sum float64
	for _, w := range b.Weights {
		sum += float64(w)
	}
	return sum
}

// loss returns the sum of the losses of a batch, without dropout, and adds its metrics to v.
func (p *programs) loss(ctx context.Context, b data.Batch, v values) (float64, error) {
	program, err := p.get(forward, b)
	if err != nil {
		return 0, err
	}
	if err := program.Run(ctx, p.feeds(b)); err != nil {
		return 0, err
	}
	v.add(p, program, p.weight(b))
	return float64(program.Output("sum")[0]), nil
}

// logProbs returns the log-probability of each target of a batch under the model, or without the grafts under its base.
func (p *programs) logProbs(ctx context.Context, kind pass, b data.Batch) ([]float32, error) {
	program, err := p.get(kind, b)
	if err != nil {
		return nil, err
	}
	in := tokens(b)
	if kind == outputs {
		delete(in, "targets")
	}
	if err := program.Run(ctx, in); err != nil {
		return nil, err
	}
	return slices.Clone(program.Output("logp")), nil
}
