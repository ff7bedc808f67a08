package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/quant"
)

// llama is the shape of a model of the llama family with LoRA on all linear layers, none where rank is 0.
type llama struct {
	layers, c, f, h, g, d, v int
	rank                     int
	recompute, full          bool
}

var smol135 = llama{layers: 30, c: 576, f: 1536, h: 9, g: 3, d: 64, v: 49152, rank: 16}

// builder builds a graph and the store of its random parameters. Frozen weights are in 16 bits.
type builder struct {
	llama
	t       testing.TB
	g       *graph.Graph
	store   *engine.Store
	rng     *rand.Rand
	trained []*graph.Node
}

func (l llama) build(t testing.TB, f func(b *builder)) (*graph.Graph, *builder) {
	b := &builder{llama: l, t: t, store: engine.NewStore(), rng: rand.New(rand.NewPCG(1, 2))}
	g, err := graph.Build(func(g *graph.Graph) {
		b.g = g
		f(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return g, b
}

func (b *builder) param(name string, trains bool, shape ...int) *graph.Node {
	trains = trains || b.full
	n := b.g.Param(name, trains, shape...)
	if _, ok := b.store.Get(name); ok {
		return n
	}
	v := make([]float32, n.Size())
	for i := range v {
		v[i] = float32(b.rng.NormFloat64()) * float32(1/math.Sqrt(float64(shape[len(shape)-1])))
		if len(shape) == 1 {
			v[i] = 1
		}
	}
	x := &engine.Tensor{Name: name, Shape: shape, Values: v, Trainable: trains}
	if trains {
		b.trained = append(b.trained, n)
	} else {
		x.Format, x.Data, x.Values = quant.BF16, make([]byte, 2*len(v)), nil
		quant.BF16.Quantize(x.Data, v)
	}
	b.add(x)
	return n
}

func (b *builder) add(x *engine.Tensor) {
	if err := b.store.Add(x); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) linear(name string, x *graph.Node, out int) *graph.Node {
	in := x.Dim(-1)
	y := graph.Project(x, b.param(name, false, out, in))
	if b.rank == 0 {
		return y
	}
	down := graph.Project(x, b.param(name+".a", true, b.rank, in))
	return graph.Plus(y, graph.Scale(graph.Project(down, b.param(name+".b", true, out, b.rank)), 2))
}

// hidden builds all layers; attend is the attention of one.
func (b *builder) hidden(rows, s int, attend func(layer int, q, k, v *graph.Node, a graph.Attention) *graph.Node) (x, table *graph.Node) {
	freq := make([]float32, b.d/2)
	for i := range freq {
		freq[i] = float32(math.Pow(1e4, -float64(2*i)/float64(b.d)))
	}
	rope := graph.RoPE{InvFreq: freq, Factor: 1}
	ids, pos := b.g.Input("ids", graph.Int, rows, s), b.g.Input("positions", graph.Int, rows, s)
	table = b.param("embed", false, b.v, b.c)
	x = graph.Lookup(table, ids, -1)
	for i := range b.layers {
		layer := func() {
			name := func(n string) string { return fmt.Sprintf("%d.%s", i, n) }
			n := graph.NormRMS(x, b.param(name("n1"), false, b.c), 1e-5, 0)
			heads := func(y *graph.Node, h int) *graph.Node { return graph.Reshape(y, rows, s, h, b.d) }
			q := graph.Rotate(heads(b.linear(name("q"), n, b.h*b.d), b.h), pos, rope)
			k := graph.Rotate(heads(b.linear(name("k"), n, b.llama.g*b.d), b.llama.g), pos, rope)
			v := heads(b.linear(name("v"), n, b.llama.g*b.d), b.llama.g)
			a := attend(i, q, k, v, graph.Attention{Causal: true, Scale: float32(1 / math.Sqrt(float64(b.d)))})
			x = graph.Plus(x, b.linear(name("o"), graph.Reshape(a, rows, s, b.h*b.d), b.c))
			n = graph.NormRMS(x, b.param(name("n2"), false, b.c), 1e-5, 0)
			y := graph.Gate(graph.SiLU, b.linear(name("gate"), n, b.f), b.linear(name("up"), n, b.f))
			x = graph.Plus(x, b.linear(name("down"), y, b.c))
		}
		if b.recompute {
			b.g.Recompute(layer)
		} else {
			layer()
		}
	}
	return graph.NormRMS(x, b.param("norm", false, b.c), 1e-5, 0), table
}

func (b *builder) ints(n, limit int) []int32 {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(b.rng.IntN(limit))
	}
	return v
}

// step builds one training step: the loss and the gradients of all that trains.
func (l llama) step(t testing.TB, rows, s int) (*graph.Graph, *engine.Store, engine.Feeds) {
	g, b := l.build(t, func(b *builder) {
		x, table := b.hidden(rows, s, func(_ int, q, k, v *graph.Node, a graph.Attention) *graph.Node {
			return graph.Attend(q, k, v, nil, a)
		})
		logp, _ := graph.LogProbs(graph.Reshape(x, rows*s, b.c), table, b.g.Input("targets", graph.Int, rows*s), nil, graph.TokenLogProb{Scale: 1})
		loss := graph.Scale(graph.Sum(logp), -1/float32(rows*s))
		b.g.Output("loss", loss)
		for i, d := range graph.Gradient(loss, b.trained) {
			b.g.Output(b.trained[i].Op.(graph.Param).Name, d)
		}
	})
	feeds := engine.Feeds{"ids": b.ints(rows*s, l.v), "targets": b.ints(rows*s, l.v), "positions": make([]int32, rows*s)}
	for i := range rows * s {
		feeds["positions"].([]int32)[i] = int32(i % s)
	}
	return g, b.store, feeds
}

// decode builds one token of each row at the end of caches of that length, and its logits.
func (l llama) decode(t testing.TB, rows, length int) (*graph.Graph, *engine.Store, engine.Feeds) {
	g, b := l.build(t, func(b *builder) {
		start := b.g.Input("start", graph.Int, rows)
		cache := func(name string, x *graph.Node) *graph.Node {
			shape := []int{rows, length, b.llama.g, b.d}
			b.add(&engine.Tensor{Name: name, Shape: shape, Values: make([]float32, rows*length*b.llama.g*b.d)})
			return graph.Append(b.g.State(name, shape...), x, start)
		}
		x, table := b.hidden(rows, 1, func(layer int, q, k, v *graph.Node, a graph.Attention) *graph.Node {
			return graph.AttendCached(q, cache(fmt.Sprint("k", layer), k), cache(fmt.Sprint("v", layer), v), start, a)
		})
		b.g.Output("logits", graph.Project(x, table))
	})
	start := make([]int32, rows)
	for i := range start {
		start[i] = int32(length - 1)
	}
	return g, b.store, engine.Feeds{"ids": b.ints(rows, l.v), "positions": start, "start": start}
}
