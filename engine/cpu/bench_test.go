package cpu

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/quant"
)

var (
	profile = flag.Bool("profile", false, "list the processor time of each kind of instruction after a benchmark")
	threads = flag.Int("threads", 0, "workers of a benchmark; 0 is one per core")
)

// llama is the shape of a model of the llama family with LoRA on all linear layers.
type llama struct {
	layers, c, f, h, g, d, v int
	rank                     int
	recompute, full          bool
}

var smol135 = llama{layers: 30, c: 576, f: 1536, h: 9, g: 3, d: 64, v: 49152, rank: 16}

// step builds one training step: the loss and the gradients of all updates. The weights are in 16 bits.
func (l llama) step(t testing.TB, b, s int) (*graph.Graph, *engine.Store, engine.Feeds) {
	store := engine.NewStore()
	rng := rand.New(rand.NewPCG(1, 2))
	var trained []*graph.Node
	param := func(g *graph.Graph, name string, trains bool, shape ...int) *graph.Node {
		trains = trains || l.full
		n := g.Param(name, trains, shape...)
		if _, ok := store.Get(name); ok {
			return n
		}
		v := make([]float32, n.Size())
		for i := range v {
			v[i] = float32(rng.NormFloat64()) * float32(1/math.Sqrt(float64(shape[len(shape)-1])))
			if len(shape) == 1 {
				v[i] = 1
			}
		}
		x := &engine.Tensor{Name: name, Shape: shape, Values: v, Trainable: trains}
		if trains {
			trained = append(trained, n)
		} else {
			x.Format, x.Data, x.Values = quant.BF16, make([]byte, 2*len(v)), nil
			quant.BF16.Quantize(x.Data, v)
		}
		if err := store.Add(x); err != nil {
			t.Fatal(err)
		}
		return n
	}
	g, err := graph.Build(func(g *graph.Graph) {
		linear := func(name string, x *graph.Node, out int) *graph.Node {
			in := x.Dim(-1)
			y := graph.Project(x, param(g, name, false, out, in))
			if l.rank == 0 {
				return y
			}
			down := graph.Project(x, param(g, name+".a", true, l.rank, in))
			return graph.Plus(y, graph.Scale(graph.Project(down, param(g, name+".b", true, out, l.rank)), 2))
		}
		freq := make([]float32, l.d/2)
		for i := range freq {
			freq[i] = float32(math.Pow(1e4, -float64(2*i)/float64(l.d)))
		}
		rope := graph.RoPE{InvFreq: freq, Factor: 1}
		ids, pos := g.Input("ids", graph.Int, b, s), g.Input("positions", graph.Int, b, s)
		table := param(g, "embed", false, l.v, l.c)
		x := graph.Lookup(table, ids, -1)
		for i := range l.layers {
			layer := func() {
				name := func(n string) string { return fmt.Sprintf("%d.%s", i, n) }
				n := graph.NormRMS(x, param(g, name("n1"), false, l.c), 1e-5, 0)
				heads := func(y *graph.Node, h int) *graph.Node { return graph.Reshape(y, b, s, h, l.d) }
				q := graph.Rotate(heads(linear(name("q"), n, l.h*l.d), l.h), pos, rope)
				k := graph.Rotate(heads(linear(name("k"), n, l.g*l.d), l.g), pos, rope)
				v := heads(linear(name("v"), n, l.g*l.d), l.g)
				a := graph.Attend(q, k, v, nil, graph.Attention{Causal: true, Scale: float32(1 / math.Sqrt(float64(l.d)))})
				x = graph.Plus(x, linear(name("o"), graph.Reshape(a, b, s, l.h*l.d), l.c))
				n = graph.NormRMS(x, param(g, name("n2"), false, l.c), 1e-5, 0)
				y := graph.Gate(graph.SiLU, linear(name("gate"), n, l.f), linear(name("up"), n, l.f))
				x = graph.Plus(x, linear(name("down"), y, l.c))
			}
			if l.recompute {
				g.Recompute(layer)
			} else {
				layer()
			}
		}
		x = graph.NormRMS(x, param(g, "norm", false, l.c), 1e-5, 0)
		logp, _ := graph.LogProbs(graph.Reshape(x, b*s, l.c), table, g.Input("targets", graph.Int, b*s), nil, graph.TokenLogProb{Scale: 1})
		loss := graph.Scale(graph.Sum(logp), -1/float32(b*s))
		g.Output("loss", loss)
		for i, d := range graph.Gradient(loss, trained) {
			g.Output(trained[i].Op.(graph.Param).Name, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ints := func(n, limit int) []int32 {
		v := make([]int32, n)
		for i := range v {
			v[i] = int32(rng.IntN(limit))
		}
		return v
	}
	feeds := engine.Feeds{"ids": ints(b*s, l.v), "targets": ints(b*s, l.v), "positions": make([]int32, b*s)}
	for i := range b * s {
		feeds["positions"].([]int32)[i] = int32(i % s)
	}
	return g, store, feeds
}

func BenchmarkLoRA(b *testing.B) {
	for _, bt := range []struct {
		precision engine.Precision
		batch     int
	}{{engine.FP32, 4}, {engine.Mixed, 4}, {engine.Mixed, 1}} {
		b.Run(fmt.Sprintf("%s/batch%d", bt.precision, bt.batch), func(b *testing.B) {
			g, s, feeds := smol135.step(b, bt.batch, 256)
			e, err := engine.Open("cpu", engine.Options{Precision: bt.precision, Workers: *threads})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			start := time.Now()
			c, err := e.Compile(g, s)
			if err != nil {
				b.Fatal(err)
			}
			compiled := time.Since(start)
			if err := c.Run(context.Background(), feeds); err != nil {
				b.Fatal(err)
			}
			first := time.Since(start)
			start = time.Now()
			for _, f := range c.(*program).forms {
				f.stale = true
			}
			c.(*program).packStale()
			packed := time.Since(start)
			var times *profiler
			if *profile {
				times = profileOf(c.(*program))
			}
			before := processTime()
			for b.Loop() {
				if err := c.Run(context.Background(), feeds); err != nil {
					b.Fatal(err)
				}
			}
			m := c.Memory()
			b.ReportMetric(float64(bt.batch*256)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric((processTime()-before).Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(m.Total())/1e6, "MB")
			b.Logf("%s, compiled in %v, packed in %v, first step after %v, memory %+v", e.Name(), compiled, packed, first, m)
			if times != nil {
				times.report(b)
			}
		})
	}
}

// profiler measures worker 0's processor time from phase to phase, by the operation and shape of the instruction.
type profiler struct {
	last  time.Duration
	total map[string]time.Duration
	count map[string]int
}

func profileOf(p *program) *profiler {
	runtime.LockOSThread()
	t := &profiler{total: map[string]time.Duration{}, count: map[string]int{}}
	p.phases = []phase{func(worker, _ int) {
		if worker == 0 {
			t.last = threadTime()
		}
	}}
	for _, in := range p.instrs {
		name := in.node.Op.String()
		for _, x := range in.node.In {
			name += fmt.Sprint(" ", x.Shape())
		}
		for _, f := range in.bind(p) {
			p.phases = append(p.phases, func(worker, workers int) {
				f(worker, workers)
				if worker == 0 {
					now := threadTime()
					t.total[name] += now - t.last
					t.count[name]++
					t.last = now
				}
			})
		}
	}
	return t
}

func (t *profiler) report(b *testing.B) {
	names := sortedKeys(t.total)
	slices.SortFunc(names, func(x, y string) int { return int(t.total[y] - t.total[x]) })
	var sum time.Duration
	for _, d := range t.total {
		sum += d
	}
	for _, n := range names[:min(len(names), 40)] {
		b.Logf("%5.1f%% %8.2f ms %5d × %s", 100*float64(t.total[n])/float64(sum), t.total[n].Seconds()*1000/float64(b.N), t.count[n]/b.N, n)
	}
}

func BenchmarkDropout(b *testing.B) {
	x := wave(blockSize, 1)
	key := []int32{1, 2}
	b.SetBytes(4 * blockSize)
	for b.Loop() {
		dropout(graph.Dropout{Rate: 0.1, Salt: 1}, x, x, key, 0)
	}
}
