package cpu

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/graph/graphtest"
	"tunesmith/graph/reference"
)

// storeOf puts a trial's values into a store.
func storeOf(t rapid.TB, g *graph.Graph, params map[string][]float64) *engine.Store {
	s := engine.NewStore()
	for _, n := range g.Nodes {
		var name string
		trainable := false
		switch op := n.Op.(type) {
		case graph.Param:
			name, trainable = op.Name, op.Trainable
		case graph.State:
			name = op.Name
		default:
			continue
		}
		v := make([]float32, n.Size())
		for i, x := range params[name] {
			v[i] = float32(x)
		}
		if err := s.Add(&engine.Tensor{Name: name, Shape: n.Shape(), Values: v, Trainable: trainable}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func openWith(t rapid.TB, workers int) *backend {
	b, err := open(engine.Options{Precision: engine.FP32, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// runOn compiles g and runs it twice, so that what a run leaves behind would be seen, and returns all outputs.
func runOn(t rapid.TB, b engine.Backend, g *graph.Graph, s *engine.Store, feeds engine.Feeds) map[string][]float32 {
	p, err := b.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Run(context.Background(), feeds); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string][]float32{}
	for _, o := range g.Outputs {
		out[o.Name] = slices.Clone(p.Output(o.Name))
	}
	return out
}

// close32 fails unless have is want within a bound, relative to the largest of the tensor or 1, the size of the terms
// of sums that cancel.
func close32(t rapid.TB, name string, have []float32, want []float64, bound float64) {
	t.Helper()
	if len(have) != len(want) {
		t.Fatalf("%s: want %d values, have %d", name, len(want), len(have))
	}
	top := 1.0
	for _, w := range want {
		top = max(top, math.Abs(w))
	}
	for i, w := range want {
		if !(math.Abs(float64(have[i])-w) <= bound*top) {
			t.Fatalf("%s[%d]: want %g, have %g (largest %g)", name, i, w, have[i], top)
		}
	}
}

var workerCounts = []int{1, 2, 3}

// compare runs a random graph on engines with several numbers of workers: bits are equal, and values are the
// reference's.
func compare(t *rapid.T, backends []*backend, met map[reflect.Type]bool, build func(t *graphtest.Trial) []*graph.Node) {
	tr := graphtest.Draw(t)
	tr.Max, tr.Freeze = 20, true
	g, err := graph.Build(func(g *graph.Graph) {
		tr.G = g
		ys := build(tr)
		for i, y := range ys {
			g.Output(fmt.Sprint("y", i), y)
		}
		tr.OutputGradients(tr.Weigh(ys...))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g.Nodes {
		met[reflect.TypeOf(n.Op)] = true
	}
	want, err := reference.Run(g, tr.Params, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := storeOf(t, g, tr.Params)
	var first map[string][]float32
	for _, b := range backends {
		have := runOn(t, b, g, s, nil)
		if first == nil {
			first = have
			for name, w := range want {
				close32(t, name, have[name], w, 5e-5)
			}
		}
		sameBits(t, fmt.Sprintf("%d workers against 1", b.Workers), have, first)
	}
}

func sameBits(t rapid.TB, what string, have, want map[string][]float32) {
	t.Helper()
	for name, w := range want {
		for i := range w {
			if math.Float32bits(have[name][i]) != math.Float32bits(w[i]) {
				t.Fatalf("%s: %s[%d]: want %g, have %g", what, name, i, w[i], have[name][i])
			}
		}
	}
}

func openAll(t *testing.T) []*backend {
	var out []*backend
	for _, w := range workerCounts {
		b := openWith(t, w)
		t.Cleanup(func() { b.Close() })
		out = append(out, b)
	}
	return out
}

func TestOperations(t *testing.T) {
	backends := openAll(t)
	met := map[reflect.Type]bool{}
	for name, build := range graphtest.Cases {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { compare(t, backends, met, build) })
		})
	}
	// What these cases do not hold has a test of its own: TestFeeds, TestCache.
	for _, op := range []graph.Op{graph.Input{}, graph.State{}, graph.CacheAppend{}, graph.CachedAttention{}, graph.StopGradient{}} {
		met[reflect.TypeOf(op)] = true
	}
	for _, op := range graph.Ops() {
		if !met[reflect.TypeOf(op)] {
			t.Errorf("no test meets %T", op)
		}
	}
}

// TestMixedGraphs joins the cases into one graph, so that values of many sizes live in one arena.
func TestMixedGraphs(t *testing.T) {
	backends := openAll(t)
	names := sortedKeys(graphtest.Cases)
	rapid.Check(t, func(t *rapid.T) {
		compare(t, backends, map[reflect.Type]bool{}, func(tr *graphtest.Trial) []*graph.Node {
			var ys []*graph.Node
			for range 2 + tr.Choose("cases", 4) {
				ys = append(ys, graphtest.Cases[names[tr.Choose("case", len(names))]](tr)...)
			}
			// What follows uses what came before, which keeps it alive past others.
			total := graph.Sum(ys[0])
			for _, y := range ys[1:] {
				total = graph.Plus(graph.Scale(total, 0.5), graph.Mean(graph.Times(y, graph.Apply(graph.Tanh, y))))
			}
			return append(ys, total)
		})
	})
}

func TestModelAndRecomputation(t *testing.T) {
	backends := openAll(t)
	outputs := map[bool]map[string][]float32{}
	for _, recompute := range []bool{false, true} {
		tr := graphtest.Seeded(t, 7)
		g, err := graph.Build(func(g *graph.Graph) {
			tr.G = g
			logp := graphtest.TwoLayers(tr, recompute)
			g.Output("logp", logp)
			tr.OutputGradients(tr.Weigh(logp))
		})
		if err != nil {
			t.Fatal(err)
		}
		want, err := reference.Run(g, tr.Params, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := storeOf(t, g, tr.Params)
		for _, b := range backends {
			have := runOn(t, b, g, s, nil)
			if outputs[recompute] == nil {
				outputs[recompute] = have
				for name, w := range want {
					close32(t, name, have[name], w, 5e-5)
				}
			}
			sameBits(t, fmt.Sprint(b.Workers, " workers"), have, outputs[recompute])
		}
	}
	sameBits(t, "recomputation", outputs[true], outputs[false])
}
