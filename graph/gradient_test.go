package graph_test

import (
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/graph"
	"tunesmith/graph/graphtest"
	"tunesmith/graph/reference"
)

// check compares the gradients of what build returns with central differences, for every n-th element of a parameter,
// within a bound relative to 1 + the gradient's magnitude, and marks the operations met.
func check(t *graphtest.Trial, n int, bound float64, met map[reflect.Type]bool, build func(t *graphtest.Trial) []*graph.Node) {
	g, err := graph.Build(func(g *graph.Graph) {
		t.G = g
		loss := t.Weigh(build(t)...)
		t.OutputGradients(loss)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range g.Nodes {
		met[reflect.TypeOf(x.Op)] = true
	}
	run := func() map[string][]float64 {
		out, err := reference.Run(g, t.Params, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got := run()
	const step = 1e-5
	for _, name := range t.Names {
		p := t.Params[name]
		for i := 0; i < len(p); i += n {
			x := p[i]
			p[i] = x + step
			up := run()["loss"][0]
			p[i] = x - step
			down := run()["loss"][0]
			p[i] = x
			want := (up - down) / (2 * step)
			if have := got[name][i]; !(math.Abs(have-want) <= bound*(1+math.Abs(want))) {
				t.Fatalf("gradient of %s[%d]: finite difference %g, have %g", name, i, want, have)
			}
		}
	}
}

func TestGradients(t *testing.T) {
	met := map[reflect.Type]bool{}
	for name, build := range graphtest.Cases {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { check(graphtest.Draw(t), 1, 1e-6, met, build) })
		})
	}
	// What holds no gradient, or is tested elsewhere.
	for _, op := range []graph.Op{graph.Input{}, graph.State{}, graph.StopGradient{}, graph.CacheAppend{}, graph.CachedAttention{}} {
		met[reflect.TypeOf(op)] = true
	}
	for _, op := range graph.Ops() {
		if !met[reflect.TypeOf(op)] {
			t.Errorf("no gradient test meets %T", op)
		}
	}
}
