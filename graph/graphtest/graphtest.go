// Package graphtest draws random graphs of every operation, for the tests of package graph and of engines.
package graphtest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"pgregory.net/rapid"

	"tunesmith/graph"
)

// Trial is one random graph under test: its parameters get random values, away from kinks.
type Trial struct {
	rapid.TB
	T       *rapid.T // where shapes and attributes are drawn; nil for a seeded trial
	G       *graph.Graph
	Rand    *rand.Rand // of the values
	Max     int        // largest dimension drawn
	Freeze  bool       // draw parameters that do not train, too
	Params  map[string][]float64
	Names   []string // of the parameters that train, in the order of their making
	Trained []*graph.Node
}

// Draw returns a trial whose shapes, attributes and values are all drawn.
func Draw(t *rapid.T) *Trial {
	tr := Seeded(t, rapid.Uint64().Draw(t, "seed"))
	tr.T = t
	return tr
}

// Seeded returns a trial whose values are drawn from a seed.
func Seeded(t rapid.TB, seed uint64) *Trial {
	return &Trial{TB: t, Rand: rand.New(rand.NewPCG(seed, 1)), Max: 5, Params: map[string][]float64{}}
}

// Dim draws a dimension.
func (t *Trial) Dim(name string) int { return rapid.IntRange(1, t.Max).Draw(t.T, name) }

// Choose draws one of 0 … n−1.
func (t *Trial) Choose(name string, n int) int { return rapid.IntRange(0, n-1).Draw(t.T, name) }

// Flip draws a truth value.
func (t *Trial) Flip(name string) bool { return rapid.Bool().Draw(t.T, name) }

// Shape draws dimensions.
func (t *Trial) Shape(name string, rank int) []int {
	out := make([]int, rank)
	for i := range out {
		out[i] = t.Dim(fmt.Sprint(name, i))
	}
	return out
}

// Param is a trained tensor of values with magnitudes between 0.3 and 1.5, either sign.
func (t *Trial) Param(shape ...int) *graph.Node {
	return t.draw(func() float64 { return math.Copysign(0.3+1.2*t.Rand.Float64(), t.Rand.Float64()-0.5) }, shape)
}

// Positive is a trained tensor of values between 0.5 and 2.
func (t *Trial) Positive(shape ...int) *graph.Node {
	return t.draw(func() float64 { return 0.5 + 1.5*t.Rand.Float64() }, shape)
}

func (t *Trial) draw(f func() float64, shape []int) *graph.Node {
	name := fmt.Sprint("p", len(t.Params))
	trains := !t.Freeze || t.Flip("trains")
	n := t.G.Param(name, trains, shape...)
	v := make([]float64, n.Size())
	for i := range v {
		v[i] = float64(float32(f())) // so that engines see the same value
	}
	t.Params[name] = v
	if trains {
		t.Names, t.Trained = append(t.Names, name), append(t.Trained, n)
	}
	return n
}

// Ints is a constant of integers from lo … hi−1.
func (t *Trial) Ints(lo, hi int, shape ...int) *graph.Node {
	v := make([]int32, sizeOf(shape))
	for i := range v {
		v[i] = int32(lo + t.Rand.IntN(hi-lo))
	}
	return t.G.Ints(v, shape...)
}

func sizeOf(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// Weigh returns the sum of the values, each times its own random weight, so that no error can cancel.
func (t *Trial) Weigh(ys ...*graph.Node) *graph.Node {
	var loss *graph.Node
	for _, y := range ys {
		v := make([]float32, y.Size())
		for i := range v {
			v[i] = float32(t.Rand.NormFloat64())
		}
		term := graph.Sum(graph.Times(y, t.G.Floats(v, y.Shape()...)))
		if loss == nil {
			loss = term
		} else {
			loss = graph.Plus(loss, term)
		}
	}
	return loss
}

// OutputGradients makes the loss and its gradient of each parameter outputs of the graph.
func (t *Trial) OutputGradients(loss *graph.Node) {
	t.G.Output("loss", loss)
	for i, d := range graph.Gradient(loss, t.Trained) {
		if d == nil {
			d = graph.BroadcastTo(t.G.Scalar(0), t.Trained[i].Shape())
		}
		t.G.Output(t.Names[i], d)
	}
}

// Cases is the table of operations whose gradient is tested, each on random shapes and attributes.
var Cases = map[string]func(t *Trial) []*graph.Node{
	"unary": func(t *Trial) []*graph.Node {
		x := t.Param(t.Shape("x", 2)...)
		var ys []*graph.Node
		for f := graph.Neg; f < graph.Add; f++ {
			switch f {
			case graph.Log, graph.Sqrt:
				ys = append(ys, graph.Apply(f, t.Positive(3)))
			default:
				ys = append(ys, graph.Apply(f, x))
			}
		}
		return ys
	},
	"binary": func(t *Trial) []*graph.Node {
		// Each dimension is there in both, in one as 1, or missing at the front of the second.
		rank := 1 + t.Choose("rank", 3)
		a, b := t.Shape("a", rank), []int(nil)
		b = append(b, a...)
		for i := range rank {
			switch t.Choose("broadcast", 3) {
			case 1:
				a[i] = 1
			case 2:
				b[i] = 1
			}
		}
		b = b[t.Choose("missing", rank+1):]
		x, y := t.Param(a...), t.Param(b...)
		if t.Flip("exchange") {
			x, y = y, x
		}
		var ys []*graph.Node
		for f := graph.Add; f <= graph.Equal; f++ {
			ys = append(ys, graph.Combine(f, x, y))
		}
		return ys
	},
	"affine": func(t *Trial) []*graph.Node {
		x := t.Param(t.Shape("x", 2)...)
		return []*graph.Node{
			graph.Scale(graph.Shift(x, 0.25), -1.5), graph.Softcap(x, 2), graph.Bound(x, -0.2, 0.25),
			graph.Bound(x, -10, 10),
		}
	},
	"where": func(t *Trial) []*graph.Node {
		s := t.Shape("x", 2)
		a, b := t.Param(s...), t.Param(s...)
		return []*graph.Node{graph.Select(graph.Combine(graph.Less, a, b), graph.Times(a, a), b)}
	},
	"reduce": func(t *Trial) []*graph.Node {
		x := t.Param(t.Shape("x", 3)...)
		var axes []int
		for a := range 3 {
			if t.Flip("axis") {
				axes = append(axes, a-3*t.Choose("negative", 2))
			}
		}
		return []*graph.Node{
			graph.Sum(x, axes...), graph.Mean(x, axes...), graph.Largest(x, axes...),
			graph.LogSumExp(x, axes...), graph.Softmax(x),
		}
	},
	"shape": func(t *Trial) []*graph.Node {
		x := t.Param(t.Shape("x", 3)...)
		axis := t.Choose("axis", 3)
		lo := t.Choose("lo", x.Dim(axis))
		part := graph.SliceAxis(x, axis, lo, lo+1+t.Choose("hi", x.Dim(axis)-lo))
		perm := rapid.Permutation([]int{0, 1, 2}).Draw(t.T, "perm")
		return []*graph.Node{
			graph.Times(part, part), graph.Permute(graph.Times(x, x), perm...), graph.Reshape(x, -1),
			graph.Join(axis, x, graph.Times(part, part), x), graph.BroadcastTo(graph.Sum(x, 1), []int{2, x.Dim(0), x.Dim(2)}),
		}
	},
	"rows": func(t *Trial) []*graph.Node {
		x := t.Param(4, t.Dim("x1"), t.Dim("x2"))
		index := t.Ints(-1, 4, t.Shape("index", 2)...)
		y := graph.Rows(x, index)
		return []*graph.Node{graph.Times(y, y)}
	},
	"linear": func(t *Trial) []*graph.Node {
		b, m, n, k := t.Dim("b"), t.Dim("m"), t.Dim("n"), t.Dim("k")
		x, w := t.Param(b, m, k), t.Param(n, k)
		y := graph.Project(x, w)
		return []*graph.Node{y, graph.ProjectT(graph.Apply(graph.Square, y), w)}
	},
	"matmul": func(t *Trial) []*graph.Node {
		b, m, n, k := t.Dim("b"), t.Dim("m"), t.Dim("n"), t.Dim("k")
		transA, transB := t.Flip("transA"), t.Flip("transB")
		sa, sb := []int{b, 2, m, k}, []int{b, 2, k, n}
		if transA {
			sa[2], sa[3] = k, m
		}
		if transB {
			sb[2], sb[3] = n, k
		}
		return []*graph.Node{graph.Product(t.Param(sa...), t.Param(sb...), transA, transB)}
	},
	"embed": func(t *Trial) []*graph.Node {
		// Where the padding row is used, differences would see it and the gradient must not; so it is never drawn.
		w := t.Param(4, t.Dim("c"))
		return []*graph.Node{graph.Lookup(w, t.Ints(0, 3, t.Shape("ids", 2)...), 3-4*t.Choose("pad", 2))}
	},
	"rmsnorm": func(t *Trial) []*graph.Node {
		c := t.Dim("c")
		return []*graph.Node{graph.NormRMS(t.Param(t.Dim("b"), t.Dim("t"), c), t.Param(c), 1e-3, float32(t.Choose("offset", 2)))}
	},
	"layernorm": func(t *Trial) []*graph.Node {
		c := 1 + t.Dim("c")
		x := t.Param(t.Dim("b"), c)
		return []*graph.Node{graph.NormLayer(x, t.Param(c), t.Param(c), 0.1), graph.NormLayer(x, t.Param(c), nil, 0.1)}
	},
	"rope": func(t *Trial) []*graph.Node {
		d := 1 + t.Dim("d")
		freq := make([]float32, 1+t.Choose("pairs", d/2))
		for i := range freq {
			freq[i] = float32(1 / float64(i+1))
		}
		x := t.Param(2, t.Dim("t"), t.Dim("h"), d)
		r := graph.RoPE{InvFreq: freq, Factor: 1.25, Interleaved: t.Flip("interleaved")}
		return []*graph.Node{graph.Rotate(x, t.Ints(0, 50, x.Shape()[:2]...), r)}
	},
	"attention": func(t *Trial) []*graph.Node {
		b, q, g, d := 1+t.Choose("b", 2), t.Dim("t"), 1+t.Choose("g", 2), t.Dim("d")
		h := g * (1 + t.Choose("group", 2))
		a := graph.Attention{
			Causal: t.Flip("causal"), Window: t.Choose("window", 4), Prefix: t.Choose("prefix", 3),
			Softcap: float32(t.Choose("softcap", 2)) * 1.5, Scale: 0.7,
		}
		var segments *graph.Node
		if t.Flip("segments") {
			segments = t.Ints(0, 2, b, q)
		}
		k, v := t.Param(b, a.Prefix+q, g, d), t.Param(b, a.Prefix+q, g, d)
		return []*graph.Node{graph.Attend(t.Param(b, q, h, d), k, v, segments, a)}
	},
	"gate": func(t *Trial) []*graph.Node {
		s := t.Shape("x", 2)
		gate, up := t.Param(s...), t.Param(s...)
		var ys []*graph.Node
		for _, f := range []graph.Fn{graph.SiLU, graph.Gelu, graph.GeluTanh, graph.ReLU} {
			ys = append(ys, graph.Gate(f, gate, up))
		}
		return ys
	},
	"experts": func(t *Trial) []*graph.Node {
		rows, e, c, m := 2*t.Dim("rows"), 1+t.Dim("experts"), t.Dim("c"), t.Dim("m")
		k := 1 + t.Choose("k", e)
		scores := make([]float32, rows*e)
		for i := range scores {
			scores[i] = float32(t.Rand.NormFloat64())
		}
		var segments *graph.Node
		if t.Flip("padding") {
			segments = t.Ints(-1, 2, rows)
		}
		mask := graph.Top(t.G.Floats(scores, rows, e), segments, k)
		if t.Flip("capacity") {
			mask = graph.Limited(mask, 1+t.Choose("limit", 3), rows/2)
		}
		route := graph.Routed(mask, k)
		matrices := func(m, k int) []*graph.Node {
			if t.Flip("stacked") {
				return []*graph.Node{t.Param(e, m, k)}
			}
			var w []*graph.Node
			for range e {
				w = append(w, t.Param(m, k))
			}
			return w
		}
		x := route.Project(route.Dispatch(t.Param(rows, c)), matrices(m, c)...)
		w := matrices(m, c)
		back := graph.Apply(graph.Tanh, route.ProjectT(x, w...))
		weights := graph.Times(mask, graph.Softmax(t.Param(rows, e)))
		return []*graph.Node{route.Collect(back, weights), x}
	},
	"dropout": func(t *Trial) []*graph.Node {
		x := t.Param(t.Shape("x", 2)...)
		key := t.Ints(math.MinInt32, math.MaxInt32, 2)
		y := graph.Drop(x, key, 0.4)
		return []*graph.Node{graph.Times(y, y), graph.Drop(x, key, 0.1)}
	},
	"tokens": func(t *Trial) []*graph.Node {
		n, c, v := t.Dim("n"), t.Dim("c"), 1+t.Dim("v")
		h, w := t.Param(n, c), t.Param(v, c)
		var bias *graph.Node
		if t.Flip("bias") {
			bias = t.Param(v)
		}
		o := graph.TokenLogProb{Scale: 0.8, Softcap: float32(t.Choose("softcap", 2)) * 3}
		logp, mean := graph.LogProbs(h, w, t.Ints(-1, v, n), bias, o)
		return [][]*graph.Node{{logp}, {mean}, {logp, mean}}[t.Choose("results", 3)]
	},
}

// TwoLayers builds a small transformer with everything that a real one has and returns the targets' log-probs.
func TwoLayers(t *Trial, recompute bool) *graph.Node {
	const b, s, c, h, kv, d, f, v = 2, 4, 6, 2, 1, 4, 5, 7
	g := t.G
	table := t.Param(v, c)
	x := graph.Lookup(table, t.Ints(0, v, b, s), -1)
	pos := t.Ints(0, 9, b, s)
	key := g.Ints([]int32{12345, -7}, 2)
	rope := graph.RoPE{InvFreq: []float32{1, 0.1}, Factor: 1}
	for range 2 {
		layer := func() {
			n := graph.NormRMS(x, t.Param(c), 1e-5, 0)
			q := graph.Rotate(graph.Reshape(graph.Project(n, t.Param(h*d, c)), b, s, h, d), pos, rope)
			k := graph.Rotate(graph.Reshape(graph.Project(n, t.Param(kv*d, c)), b, s, kv, d), pos, rope)
			val := graph.Reshape(graph.Project(n, t.Param(kv*d, c)), b, s, kv, d)
			a := graph.Attend(q, k, val, nil, graph.Attention{Causal: true, Scale: 0.5})
			x = graph.Plus(x, graph.Drop(graph.Project(graph.Reshape(a, b, s, h*d), t.Param(c, h*d)), key, 0.2))
			n = graph.NormRMS(x, t.Param(c), 1e-5, 0)
			y := graph.Gate(graph.SiLU, graph.Project(n, t.Param(f, c)), graph.Project(n, t.Param(f, c)))
			x = graph.Plus(x, graph.Project(y, t.Param(c, f)))
		}
		if recompute {
			g.Recompute(layer)
		} else {
			layer()
		}
	}
	x = graph.NormRMS(x, t.Param(c), 1e-5, 0)
	logp, _ := graph.LogProbs(graph.Reshape(x, b*s, c), table, t.Ints(-1, v, b*s), nil, graph.TokenLogProb{Scale: 1})
	return logp
}
