package model

import (
	"tunesmith/graph"
	"tunesmith/site"
)

// Switch is the feed-forward of Switch Transformers (Fedus et al. 2021, arXiv 2101.03961): each row goes to one expert,
// which takes a limited number of each sequence; the rows behind them get zeros.
type Switch struct {
	Experts    int
	Width      int
	Capacity   int // rows of an expert in a sequence; 0 for no limit
	Bias       bool
	Activation string
}

// Build builds the layer at the current place on x (B, T, C).
func (w Switch) Build(s *site.Scope, x *graph.Node) *graph.Node {
	act, err := activation(w.Activation)
	if err != nil {
		s.Fail("Switch", "%v", err)
	}
	c := x.Dim(2)
	xRC := graph.Reshape(x, -1, c)
	r := s.Router("router.classifier", xRC, w.Experts, 1, w.Bias)
	if w.Capacity > 0 {
		r.Mask = graph.Limited(r.Mask, w.Capacity, x.Dim(1))
	}
	routing := graph.Routed(r.Mask, 1)
	y := routing.Dispatch(xRC)
	s.Scope("experts", func() {
		project := func(name string, y *graph.Node, out int) *graph.Node {
			return s.Experts(site.Experts{Before: "expert_", Name: name, Out: out, Count: w.Experts}, routing, y)
		}
		y = project("wo", graph.Apply(act, project("wi", y, w.Width)), c)
	})
	return graph.Reshape(routing.Collect(y, weights(r, false)), x.Shape()...)
}

// SequenceBalance builds the load-balancing loss of one route whose rows are sequences of t: E² times the mean, over
// sequences and experts, of how often an expert was chosen times its mean probability. It is 1 where the load is even.
func SequenceBalance(r site.Route, t int) *graph.Node {
	mean := func(x *graph.Node) *graph.Node { return graph.Mean(graph.Reshape(x, -1, t, r.Experts), 1) }
	return graph.Scale(graph.Mean(graph.Times(mean(r.Chosen), mean(r.Probs))), float32(r.Experts*r.Experts))
}
