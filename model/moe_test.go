package model

import (
	"context"
	"testing"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/site"
)

// chosen trains the base parameters that it holds; nil trains all.
type chosen func(name string) bool

// TrainBase implements site.Selector.
func (f chosen) TrainBase(name string) bool { return f(name) }

// mixtureConfig is a small Mixtral; a dense model of the same active parameters where experts is 0.
func mixtureConfig(hidden, width, experts, perToken int) Config {
	c := Config{
		Type: "mixtral", Hidden: hidden, Intermediate: width, Layers: 2, Heads: hidden / 32, KVHeads: hidden / 32, HeadDim: 32, Vocab: 256,
		MaxPositions: 1024, NormEps: 1e-5, Activation: "silu", PadID: -1, BOS: -1, Windows: make([]int, 2), Rope: plainRope(10000, 1024),
		Mixture: Mixture{Experts: experts, PerToken: perToken, Width: width, Normalize: true},
	}
	if experts == 0 {
		c.Type, c.Intermediate, c.Mixture = "llama", width*perToken, Mixture{}
	}
	return c
}

// trainingPass compiles the loss of rows of t tokens and the gradients of what trains, and returns what runs it.
func trainingPass(tb testing.TB, c Config, precision engine.Precision, t int, trains func(string) bool) func() {
	tb.Helper()
	m, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := m.Adapt(1, chosen(trains))
	if err != nil {
		tb.Fatal(err)
	}
	backend, err := engine.Open("cpu", engine.Options{Precision: precision})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = backend.Close() })
	ids, pos := make([]int32, t), make([]int32, t)
	for i := range ids {
		ids[i], pos[i] = int32(i*7919%c.Vocab), int32(i)
	}
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Ints(ids, 1, t), Positions: g.Ints(pos, 1, t)}, a.Grafts...)
		h := m.Hidden(s)
		logp, _ := m.LogProbs(s, graph.Reshape(h, t, c.Hidden), g.Ints(ids, t))
		loss := graph.Scale(graph.Sum(logp), -1)
		g.Output("loss", loss)
		var nodes []*graph.Node
		for _, p := range a.Sites.Trainable() {
			nodes = append(nodes, g.Param(p.Name, true, p.Shape...))
		}
		for i, d := range graph.Gradient(loss, nodes) {
			g.Output("grad."+a.Sites.Trainable()[i].Name, d)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	p, err := backend.Compile(g, a.Store)
	if err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := p.Run(context.Background(), nil); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkMixture is a forward and backward pass over 512 tokens of a mixture with two of eight experts a token, and of
// a dense model of the same active parameters.
func BenchmarkMixture(b *testing.B) {
	for name, experts := range map[string]int{"dense": 0, "mixture": 8} {
		for part, trains := range map[string]func(string) bool{
			"all": func(string) bool { return true }, "attention": func(n string) bool { return site.IndexOf(n) >= 0 && len(n) > 24 && n[15:24] == "self_attn" },
		} {
			b.Run(name+"/"+part, func(b *testing.B) {
				run := trainingPass(b, mixtureConfig(256, 704, experts, 2), engine.Mixed, 512, trains)
				run()
				for b.Loop() {
					run()
				}
			})
		}
	}
}
