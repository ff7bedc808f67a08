package graph_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/graph"
	"tunesmith/graph/reference"
)

// trial is one random graph under test: its parameters get random values, away from kinks.
type trial struct {
	rapid.TB
	T       *rapid.T // where shapes and attributes are drawn
	g       *graph.Graph
	rng     *rand.Rand
	params  map[string][]float64
	names   []string
	trained []*graph.Node
	every   int     // check every n-th element of a parameter
	bound   float64 // of a gradient's error, relative to 1 + its magnitude
}

func newTrial(t *rapid.T) *trial {
	tr := seededTrial(t, rapid.Uint64().Draw(t, "seed"))
	tr.T = t
	return tr
}

func seededTrial(t rapid.TB, seed uint64) *trial {
	return &trial{TB: t, rng: rand.New(rand.NewPCG(seed, 1)), params: map[string][]float64{}, every: 1, bound: 1e-6}
}

func (t *trial) dim(name string) int { return rapid.IntRange(1, 5).Draw(t.T, name) }

func (t *trial) choose(name string, n int) int { return rapid.IntRange(0, n-1).Draw(t.T, name) }

func (t *trial) flip(name string) bool { return rapid.Bool().Draw(t.T, name) }

func (t *trial) shape(name string, rank int) []int {
	out := make([]int, rank)
	for i := range out {
		out[i] = t.dim(fmt.Sprint(name, i))
	}
	return out
}

// param is a trained tensor of values with magnitudes between 0.3 and 1.5, either sign.
func (t *trial) param(shape ...int) *graph.Node {
	return t.draw(func() float64 { return math.Copysign(0.3+1.2*t.rng.Float64(), t.rng.Float64()-0.5) }, shape)
}

// positive is a trained tensor of values between 0.5 and 2.
func (t *trial) positive(shape ...int) *graph.Node {
	return t.draw(func() float64 { return 0.5 + 1.5*t.rng.Float64() }, shape)
}

func (t *trial) draw(f func() float64, shape []int) *graph.Node {
	name := fmt.Sprint("p", len(t.names))
	n := t.g.Param(name, true, shape...)
	v := make([]float64, n.Size())
	for i := range v {
		v[i] = f()
	}
	t.params[name] = v
	t.names, t.trained = append(t.names, name), append(t.trained, n)
	return n
}

// ints is a constant of integers from lo … hi−1.
func (t *trial) ints(lo, hi int, shape ...int) *graph.Node {
	v := make([]int32, sizeOf(shape))
	for i := range v {
		v[i] = int32(lo + t.rng.IntN(hi-lo))
	}
	return t.g.Ints(v, shape...)
}

func sizeOf(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// weigh returns the sum of the values, each times its own random weight, so that no error can cancel.
func (t *trial) weigh(ys ...*graph.Node) *graph.Node {
	var loss *graph.Node
	for _, y := range ys {
		v := make([]float32, y.Size())
		for i := range v {
			v[i] = float32(t.rng.NormFloat64())
		}
		term := graph.Sum(graph.Times(y, t.g.Floats(v, y.Shape()...)))
		if loss == nil {
			loss = term
		} else {
			loss = graph.Plus(loss, term)
		}
	}
	return loss
}

// check compares the gradients of what build returns with central differences, and marks the operations met.
func (t *trial) check(met map[reflect.Type]bool, build func(t *trial) []*graph.Node) {
	g, err := graph.Build(func(g *graph.Graph) {
		t.g = g
		loss := t.weigh(build(t)...)
		t.outputGradients(loss)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g.Nodes {
		met[reflect.TypeOf(n.Op)] = true
	}
	run := func() map[string][]float64 {
		out, err := reference.Run(g, t.params, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got := run()
	const step = 1e-5
	for _, name := range t.names {
		p := t.params[name]
		for i := 0; i < len(p); i += t.every {
			x := p[i]
			p[i] = x + step
			up := run()["loss"][0]
			p[i] = x - step
			down := run()["loss"][0]
			p[i] = x
			want := (up - down) / (2 * step)
			if have := got[name][i]; !(math.Abs(have-want) <= t.bound*(1+math.Abs(want))) {
				t.Fatalf("gradient of %s[%d]: finite difference %g, have %g", name, i, want, have)
			}
		}
	}
}

// outputGradients makes the loss and its gradient of each parameter outputs of the graph.
func (t *trial) outputGradients(loss *graph.Node) {
	t.g.Output("loss", loss)
	for i, d := range graph.Gradient(loss, t.trained) {
		if d == nil {
			d = graph.BroadcastTo(t.g.Scalar(0), t.trained[i].Shape())
		}
		t.g.Output(t.names[i], d)
	}
}

// gradients is the table of operations whose gradient is tested, each on random shapes and attributes.
var gradients = map[string]func(t *trial) []*graph.Node{
	"unary": func(t *trial) []*graph.Node {
		x := t.param(t.shape("x", 2)...)
		var ys []*graph.Node
		for f := graph.Neg; f < graph.Add; f++ {
			switch f {
			case graph.Log, graph.Sqrt:
				ys = append(ys, graph.Apply(f, t.positive(3)))
			default:
				ys = append(ys, graph.Apply(f, x))
			}
		}
		return ys
	},
	"binary": func(t *trial) []*graph.Node {
		// Each dimension is there in both, in one as 1, or missing at the front of the second.
		rank := 1 + t.choose("rank", 3)
		a, b := t.shape("a", rank), []int(nil)
		b = append(b, a...)
		for i := range rank {
			switch t.choose("broadcast", 3) {
			case 1:
				a[i] = 1
			case 2:
				b[i] = 1
			}
		}
		b = b[t.choose("missing", rank+1):]
		x, y := t.param(a...), t.param(b...)
		if t.flip("exchange") {
			x, y = y, x
		}
		var ys []*graph.Node
		for f := graph.Add; f <= graph.Equal; f++ {
			ys = append(ys, graph.Combine(f, x, y))
		}
		return ys
	},
	"affine": func(t *trial) []*graph.Node {
		x := t.param(t.shape("x", 2)...)
		return []*graph.Node{graph.Scale(graph.Shift(x, 0.25), -1.5), graph.Softcap(x, 2), graph.Bound(x, -0.2, 0.25),
			graph.Bound(x, -10, 10)}
	},
	"where": func(t *trial) []*graph.Node {
		s := t.shape("x", 2)
		a, b := t.param(s...), t.param(s...)
		return []*graph.Node{graph.Select(graph.Combine(graph.Less, a, b), graph.Times(a, a), b)}
	},
	"reduce": func(t *trial) []*graph.Node {
		x := t.param(t.shape("x", 3)...)
		var axes []int
		for a := range 3 {
			if t.flip("axis") {
				axes = append(axes, a-3*t.choose("negative", 2))
			}
		}
		return []*graph.Node{graph.Sum(x, axes...), graph.Mean(x, axes...), graph.Largest(x, axes...),
			graph.LogSumExp(x, axes...), graph.Softmax(x)}
	},
	"shape": func(t *trial) []*graph.Node {
		x := t.param(t.shape("x", 3)...)
		axis := t.choose("axis", 3)
		lo := t.choose("lo", x.Dim(axis))
		part := graph.SliceAxis(x, axis, lo, lo+1+t.choose("hi", x.Dim(axis)-lo))
		perm := rapid.Permutation([]int{0, 1, 2}).Draw(t.T, "perm")
		return []*graph.Node{graph.Times(part, part), graph.Permute(graph.Times(x, x), perm...), graph.Reshape(x, -1),
			graph.Join(axis, x, graph.Times(part, part), x), graph.BroadcastTo(graph.Sum(x, 1), []int{2, x.Dim(0), x.Dim(2)})}
	},
	"rows": func(t *trial) []*graph.Node {
		x := t.param(4, t.dim("x1"), t.dim("x2"))
		index := t.ints(-1, 4, t.shape("index", 2)...)
		y := graph.Rows(x, index)
		return []*graph.Node{graph.Times(y, y)}
	},
	"linear": func(t *trial) []*graph.Node {
		b, m, n, k := t.dim("b"), t.dim("m"), t.dim("n"), t.dim("k")
		x, w := t.param(b, m, k), t.param(n, k)
		y := graph.Project(x, w)
		return []*graph.Node{y, graph.ProjectT(graph.Apply(graph.Square, y), w)}
	},
	"matmul": func(t *trial) []*graph.Node {
		b, m, n, k := t.dim("b"), t.dim("m"), t.dim("n"), t.dim("k")
		transA, transB := t.flip("transA"), t.flip("transB")
		sa, sb := []int{b, 2, m, k}, []int{b, 2, k, n}
		if transA {
			sa[2], sa[3] = k, m
		}
		if transB {
			sb[2], sb[3] = n, k
		}
		return []*graph.Node{graph.Product(t.param(sa...), t.param(sb...), transA, transB)}
	},
	"embed": func(t *trial) []*graph.Node {
		// Where the padding row is used, differences would see it and the gradient must not; so it is never drawn.
		w := t.param(4, t.dim("c"))
		return []*graph.Node{graph.Lookup(w, t.ints(0, 3, t.shape("ids", 2)...), 3-4*t.choose("pad", 2))}
	},
	"rmsnorm": func(t *trial) []*graph.Node {
		c := t.dim("c")
		return []*graph.Node{graph.NormRMS(t.param(t.dim("b"), t.dim("t"), c), t.param(c), 1e-3, float32(t.choose("offset", 2)))}
	},
	"layernorm": func(t *trial) []*graph.Node {
		c := 1 + t.dim("c")
		x := t.param(t.dim("b"), c)
		return []*graph.Node{graph.NormLayer(x, t.param(c), t.param(c), 0.1), graph.NormLayer(x, t.param(c), nil, 0.1)}
	},
	"rope": func(t *trial) []*graph.Node {
		d := 1 + t.dim("d")
		freq := make([]float32, 1+t.choose("pairs", d/2))
		for i := range freq {
			freq[i] = float32(1 / float64(i+1))
		}
		x := t.param(2, t.dim("t"), t.dim("h"), d)
		r := graph.RoPE{InvFreq: freq, Factor: 1.25, Interleaved: t.flip("interleaved")}
		return []*graph.Node{graph.Rotate(x, t.ints(0, 50, x.Shape()[:2]...), r)}
	},
	"attention": func(t *trial) []*graph.Node {
		b, q, g, d := 1+t.choose("b", 2), t.dim("t"), 1+t.choose("g", 2), t.dim("d")
		h := g * (1 + t.choose("group", 2))
		a := graph.Attention{Causal: t.flip("causal"), Window: t.choose("window", 4), Prefix: t.choose("prefix", 3),
			Softcap: float32(t.choose("softcap", 2)) * 1.5, Scale: 0.7}
		var segments *graph.Node
		if t.flip("segments") {
			segments = t.ints(0, 2, b, q)
		}
		k, v := t.param(b, a.Prefix+q, g, d), t.param(b, a.Prefix+q, g, d)
		return []*graph.Node{graph.Attend(t.param(b, q, h, d), k, v, segments, a)}
	},
	"gate": func(t *trial) []*graph.Node {
		s := t.shape("x", 2)
		gate, up := t.param(s...), t.param(s...)
		var ys []*graph.Node
		for _, f := range []graph.Fn{graph.SiLU, graph.Gelu, graph.GeluTanh, graph.ReLU} {
			ys = append(ys, graph.Gate(f, gate, up))
		}
		return ys
	},
	"dropout": func(t *trial) []*graph.Node {
		x := t.param(t.shape("x", 2)...)
		key := t.ints(math.MinInt32, math.MaxInt32, 2)
		y := graph.Drop(x, key, 0.4)
		return []*graph.Node{graph.Times(y, y), graph.Drop(x, key, 0.1)}
	},
	"tokens": func(t *trial) []*graph.Node {
		n, c, v := t.dim("n"), t.dim("c"), 1+t.dim("v")
		h, w := t.param(n, c), t.param(v, c)
		var bias *graph.Node
		if t.flip("bias") {
			bias = t.param(v)
		}
		o := graph.TokenLogProb{Scale: 0.8, Softcap: float32(t.choose("softcap", 2)) * 3}
		logp, mean := graph.LogProbs(h, w, t.ints(-1, v, n), bias, o)
		return [][]*graph.Node{{logp}, {mean}, {logp, mean}}[t.choose("results", 3)]
	},
}

func TestGradients(t *testing.T) {
	met := map[reflect.Type]bool{}
	for name, build := range gradients {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { newTrial(t).check(met, build) })
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
