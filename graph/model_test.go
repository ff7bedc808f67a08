package graph_test

import (
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/graph"
	"tunesmith/graph/graphtest"
	"tunesmith/graph/reference"
)

func TestGradientOfModel(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		// Logits are large, and so are third derivatives: the bound is wide.
		check(graphtest.Seeded(t, 1), 5, 1e-4, map[reflect.Type]bool{}, func(t *graphtest.Trial) []*graph.Node {
			return []*graph.Node{graphtest.TwoLayers(t, recompute)}
		})
	}
}

func TestRecomputeChangesNothing(t *testing.T) {
	grads := func(recompute bool) (map[string][]float64, int) {
		tr := graphtest.Seeded(t, 2)
		var nodes int
		g, err := graph.Build(func(g *graph.Graph) {
			tr.G = g
			loss := tr.Weigh(graphtest.TwoLayers(tr, recompute))
			nodes = len(g.Nodes)
			tr.OutputGradients(loss)
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := reference.Run(g, tr.Params, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out, len(g.Nodes) - nodes
	}
	kept, plain := grads(false)
	again, more := grads(true)
	if diff := cmp.Diff(kept, again); diff != "" {
		t.Fatal(diff)
	}
	if more <= plain {
		t.Fatalf("the backward pass has %d nodes with recomputation, %d without", more, plain)
	}
}

func TestDetach(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Param("x", true, 1)
		loss := graph.Sum(graph.Times(graph.Detach(x), x))
		g.Output("dx", graph.Gradient(loss, []*graph.Node{x})[0])
		if d := graph.Gradient(graph.Sum(graph.Detach(x)), []*graph.Node{x})[0]; d != nil {
			t.Errorf("gradient through Detach: want none, have %v", d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := reference.Run(g, map[string][]float64{"x": {3}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if out["dx"][0] != 3 {
		t.Errorf("d(detach(x)·x)/dx at 3: want 3, have %g", out["dx"][0])
	}
}

func TestFrozenHasNoGradientNodes(t *testing.T) {
	_, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.Float, 3, 4)
		below := graph.Apply(graph.Tanh, graph.Project(x, g.Param("frozen", false, 5, 4)))
		w := g.Param("w", true, 2, 5)
		loss := graph.Sum(graph.Project(below, w))
		before := len(g.Nodes)
		graph.Gradient(loss, []*graph.Node{w})
		for _, n := range g.Nodes[before:] {
			switch n.Op.(type) {
			case graph.UnaryGrad, graph.LinearT:
				t.Errorf("%v is built although nothing trains below it", n)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestShapeErrors(t *testing.T) {
	x := func(g *graph.Graph, shape ...int) *graph.Node { return g.Param("x", false, shape...) }
	w := func(g *graph.Graph, shape ...int) *graph.Node { return g.Param("w", false, shape...) }
	i := func(g *graph.Graph, shape ...int) *graph.Node { return g.Input("i", graph.Int, shape...) }
	for _, tt := range []struct {
		want string
		f    func(g *graph.Graph)
	}{
		{
			"Linear: last dimension of the input and of the weight differ, inputs have shapes [[2 3] [4 5]]",
			func(g *graph.Graph) { graph.Project(x(g, 2, 3), w(g, 4, 5)) },
		},
		{
			"LinearT: last dimension of the input and first of the weight differ, inputs have shapes [[2 3] [4 5]]",
			func(g *graph.Graph) { graph.ProjectT(x(g, 2, 3), w(g, 4, 5)) },
		},
		{
			"MatMul: inner dimensions 3 and 4 differ, inputs have shapes [[2 3] [4 5]]",
			func(g *graph.Graph) { graph.Product(x(g, 2, 3), w(g, 4, 5), false, false) },
		},
		{
			"Add: shapes do not broadcast, inputs have shapes [[2 3] [2]]",
			func(g *graph.Graph) { graph.Plus(x(g, 2, 3), w(g, 2)) },
		},
		{
			"Reshape: want 6 elements, shape [4] has 4, inputs have shapes [[2 3]]",
			func(g *graph.Graph) { graph.Reshape(x(g, 2, 3), 4) },
		},
		{
			"Transpose: [0 0] is not a permutation of the axes, inputs have shapes [[2 3]]",
			func(g *graph.Graph) { graph.Permute(x(g, 2, 3), 0, 0) },
		},
		{
			"Slice: 1 … 4 is no range within axis 1 of length 3, inputs have shapes [[2 3]]",
			func(g *graph.Graph) { graph.SliceAxis(x(g, 2, 3), 1, 1, 4) },
		},
		{
			"Concat: input 1 differs in axis 1, inputs have shapes [[2 3] [2 4]]",
			func(g *graph.Graph) { graph.Join(0, x(g, 2, 3), w(g, 2, 4)) },
		},
		{
			"Broadcast: does not broadcast to [2 4], inputs have shapes [[2 3]]",
			func(g *graph.Graph) { graph.BroadcastTo(x(g, 2, 3), []int{2, 4}) },
		},
		{
			"Sum: axis 2 is outside of 2 dimensions, inputs have shapes [[2 3]]",
			func(g *graph.Graph) { graph.Sum(x(g, 2, 3), 2) },
		},
		{
			"Embed: input 1: want kind int, have float, inputs have shapes [[2 3] [2]]",
			func(g *graph.Graph) { graph.Lookup(x(g, 2, 3), w(g, 2), -1) },
		},
		{
			"RMSNorm: input 1 has 4 elements, the last axis of the first has 3, inputs have shapes [[2 3] [4]]",
			func(g *graph.Graph) { graph.NormRMS(x(g, 2, 3), w(g, 4), 0, 0) },
		},
		{
			"RoPE: positions differ from the first two dimensions, inputs have shapes [[1 2 3 4] [2 2]]",
			func(g *graph.Graph) { graph.Rotate(x(g, 1, 2, 3, 4), i(g, 2, 2), graph.RoPE{}) },
		},
		{
			"Attention: want equal batch and head dimension, and query heads a multiple of key heads, inputs have shapes [[1 2 3 4] [1 2 2 4] [1 2 2 4]]",
			func(g *graph.Graph) {
				k := w(g, 1, 2, 2, 4)
				graph.Attend(x(g, 1, 2, 3, 4), k, k, nil, graph.Attention{})
			},
		},
		{
			"ReLUGrad: has no gradient of its own: second derivatives are not supported, inputs have shapes [[2] [2]]",
			func(g *graph.Graph) {
				p := g.Param("p", true, 2)
				d := graph.Gradient(graph.Sum(graph.Apply(graph.ReLU, p)), []*graph.Node{p})
				graph.Gradient(graph.Sum(d[0]), []*graph.Node{p})
			},
		},
		{
			`layers.0.mlp: Param: "x" is already Param of shape [2] and kind float, asked again as Param of shape [3] and kind float`,
			func(g *graph.Graph) {
				x(g, 2)
				g.Scope("layers.0", func() { g.Scope("mlp", func() { x(g, 3) }) })
			},
		},
		{
			"Dropout: rate 1.5 is not between 0 and 1, inputs have shapes [[2] [2]]",
			func(g *graph.Graph) { graph.Drop(x(g, 2), i(g, 2), 1.5) },
		},
		{
			"TokenLogProb: want hidden (N, C), vocabulary (V, C), targets (N), inputs have shapes [[2 3] [5 4] [2]]",
			func(g *graph.Graph) { graph.LogProbs(x(g, 2, 3), w(g, 5, 4), i(g, 2), nil, graph.TokenLogProb{}) },
		},
	} {
		_, err := graph.Build(tt.f)
		if err == nil {
			t.Errorf("want error %q, have none", tt.want)
		} else if err.Error() != tt.want {
			t.Errorf("want error %q\nhave       %q", tt.want, err)
		}
	}
}

func TestDropoutKeepsItsShare(t *testing.T) {
	const n = 100000
	for _, rate := range []float32{0.05, 0.5, 0.9} {
		kept := 0
		for i := range uint64(n) {
			if graph.DropoutKeep(99, 3, i, rate) {
				kept++
			}
		}
		want := n * (1 - float64(rate))
		if math.Abs(float64(kept)-want) > 5*math.Sqrt(n*0.25) {
			t.Errorf("rate %g: kept %d of %d, want about %.0f", rate, kept, n, want)
		}
	}
}
