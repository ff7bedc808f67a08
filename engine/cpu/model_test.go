package cpu

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
	"tunesmith/graph/reference"
	"tunesmith/quant"
)

// odd is a model whose sizes are no multiples of anything, larger than every block of the kernels.
var odd = llama{layers: 2, c: 72, f: 150, h: 6, g: 2, d: 14, v: 700, rank: 5}

// wide64 returns the values of a store in double precision.
func wide64(s *engine.Store) map[string][]float64 {
	out := map[string][]float64{}
	for _, t := range s.All() {
		v := make([]float64, t.Size())
		for i, x := range t.Float32s() {
			v[i] = float64(x)
		}
		out[t.Name] = v
	}
	return out
}

// fill moves the trained values, gives frozen ones all their bits, and makes positions without a target.
func fill(s *engine.Store, feeds engine.Feeds) {
	for _, t := range s.All() {
		if t.Values == nil {
			v := t.Float32s()
			for i := range v {
				v[i] *= 1 + float32(math.Sin(float64(i)))/50
			}
			t.Format, t.Data = quant.F32, make([]byte, quant.F32.Bytes(len(v)))
			quant.F32.Quantize(t.Data, v)
		}
	}
	move(s)
	targets := feeds["targets"].([]int32)
	for i := range targets {
		if i%3 == 0 {
			targets[i] = -1
		}
	}
}

// move changes what trains, as an optimizer does.
func move(s *engine.Store) {
	for _, t := range s.Trainable() {
		for i := range t.Values {
			t.Values[i] += float32(math.Sin(float64(i))) / 10
		}
		t.Touch()
	}
}

func TestStepAgainstReference(t *testing.T) {
	for _, full := range []bool{false, true} {
		l := odd
		l.full = full
		length := 200 // more positions with a target than headRows
		if testing.Short() {
			length = 70 // more than a block of queries
		}
		g, s, feeds := l.step(t, 2, length)
		fill(s, feeds)
		want, err := reference.Run(g, wide64(s), feeds)
		if err != nil {
			t.Fatal(err)
		}
		for _, level := range kernel.Available() {
			t.Run(fmt.Sprintf("%s/full=%v", level, full), func(t *testing.T) {
				useLevel(t, level)
				bits := map[string]map[string][]float32{}
				for name, open := range map[string]func(b *backend){
					"fp32":  func(b *backend) {},
					"mixed": func(b *backend) { b.Precision, b.weights.format = engine.Mixed, kernel.MixedFormat() },
					"bf16":  func(b *backend) { b.weights.format = kernel.BF16 },
				} {
					for _, workers := range workerCounts {
						b := openWith(t, workers)
						open(b)
						have := runOn(t, b, g, s, feeds)
						b.Close()
						if bits[name] == nil {
							bits[name] = have
						}
						sameBits(t, fmt.Sprint(name, " with ", workers, " workers"), have, bits[name])
					}
				}
				for name, w := range want {
					if e := relative(bits["fp32"][name], w); e > 1e-4 {
						t.Errorf("fp32: %s is off by %.2g of its size", name, e)
					}
					// What trains is multiplied in single precision, so that bfloat16 weights differ only where some are
					// frozen. Bfloat16 activations would add to their error.
					bound := relative(bits["bf16"][name], w)
					if full {
						bound = 3e-3
					}
					if e := relative(bits["mixed"][name], w); e > bound {
						t.Errorf("mixed: %s is off by %.2g of its size, with bfloat16 weights by %.2g", name, e, bound)
					}
				}
			})
		}
	}
}

// useLevel runs the rest of the test at a level of kernels.
func useLevel(t *testing.T, l kernel.Level) {
	before := kernel.Active()
	if err := kernel.Use(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernel.Use(before); err != nil {
			t.Fatal(err)
		}
	})
}

// relative returns the root of the mean squared error over that of the values.
func relative(have []float32, want []float64) float64 {
	var e, w float64
	for i, x := range want {
		d := float64(have[i]) - x
		e += d * d
		w += x * x
	}
	return math.Sqrt(e / max(w, 1e-30))
}

func TestRecomputationOfModel(t *testing.T) {
	l := odd
	g, s, feeds := l.step(t, 1, 70)
	fill(s, feeds)
	l.recompute = true
	again, _, _ := l.step(t, 1, 70)
	b := openWith(t, 2)
	defer b.Close()
	sameBits(t, "recomputation", runOn(t, b, again, s, feeds), runOn(t, b, g, s, feeds))
	kept, err := b.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	cut, err := b.Compile(again, s)
	if err != nil {
		t.Fatal(err)
	}
	if k, c := kept.Memory().Activations, cut.Memory().Activations; c >= k {
		t.Errorf("activations take %d bytes with recomputation, %d without", c, k)
	}
}

func TestMemoryIsWhatIsAllocated(t *testing.T) {
	l := llama{layers: 2, c: 256, f: 512, h: 4, g: 2, d: 64, v: 8192, rank: 4}
	g, s, feeds := l.step(t, 2, 256)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	b := openWith(t, 2)
	p, err := b.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	m := p.Memory()
	if err := p.Run(context.Background(), feeds); err != nil {
		t.Fatal(err)
	}
	grown := heap() - before
	var stored int64 // was there before
	for _, x := range s.All() {
		stored += int64(len(x.Values))*4 + int64(len(x.Data))
	}
	if diff := math.Abs(float64(grown-(m.Total()-stored))) / float64(m.Total()); diff > 0.02 {
		t.Errorf("planned %d bytes beside the store's, the heap has grown by %d", m.Total()-stored, grown)
	}
	if total := int64(len(b.arena)+len(p.(*program).outputMemory))*4 + int64(p.(*program).ownSize)*4; total != m.Activations {
		t.Errorf("activations: planned %d bytes, allocated %d", m.Activations, total)
	}
	var workspace int64
	for _, s := range b.scratch {
		workspace += int64(len(s)) * 4
	}
	if workspace != m.Workspace {
		t.Errorf("workspace: planned %d bytes, allocated %d", m.Workspace, workspace)
	}
	if again := p.Memory(); again != m {
		t.Errorf("memory changes with a run: %+v, before %+v", again, m)
	}
	runtime.KeepAlive(p)
	b.Close()
}

func TestProgramsShareWeights(t *testing.T) {
	g, s, _ := odd.step(t, 1, 40)
	longer, _, _ := odd.step(t, 1, 60)
	b := openWith(t, 1)
	defer b.Close()
	forms := func(g *graph.Graph) (out []*form) {
		p, err := b.Compile(g, s)
		if err != nil {
			t.Fatal(err)
		}
		out = slices.Clone(p.(*program).forms)
		slices.SortFunc(out, func(x, y *form) int {
			return cmp.Or(cmp.Compare(x.tensor.Name, y.tensor.Name), cmp.Compare(x.layout, y.layout))
		})
		return out
	}
	if x, y := forms(g), forms(longer); len(x) == 0 || !slices.Equal(x, y) {
		t.Errorf("two programs over one store have %d and %d forms, not all the same", len(x), len(y))
	}
}

func TestTrainedWeightsAreReadAnew(t *testing.T) {
	g, s, feeds := odd.step(t, 1, 40)
	b := openWith(t, 2)
	defer b.Close()
	p, err := b.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Run(context.Background(), feeds); err != nil {
			t.Fatal(err)
		}
		move(s)
	}
	if err := p.Run(context.Background(), feeds); err != nil {
		t.Fatal(err)
	}
	fresh := openWith(t, 1)
	defer fresh.Close()
	want := runOn(t, fresh, g, s, feeds)
	have := map[string][]float32{}
	for _, o := range g.Outputs {
		have[o.Name] = p.Output(o.Name)
	}
	sameBits(t, "after two changes", have, want)
}

// TestStorage runs the same model with frozen weights in several formats and as the values that these hold.
func TestStorage(t *testing.T) {
	l := llama{layers: 1, c: 64, f: 96, h: 2, g: 1, d: 32, v: 600, rank: 2}
	for _, format := range []quant.Format{quant.F32, quant.F16, quant.Q8_0, quant.Q4_1, quant.Q5_0} {
		g, s, feeds := l.step(t, 1, 20)
		values := engine.NewStore()
		for _, x := range s.All() {
			if x.Values == nil {
				v := x.Float32s()
				x.Format, x.Data = format, make([]byte, format.Bytes(len(v)))
				format.Quantize(x.Data, v)
			}
			y := &engine.Tensor{Name: x.Name, Shape: x.Shape, Values: x.Float32s(), Trainable: x.Trainable}
			if err := values.Add(y); err != nil {
				t.Fatal(err)
			}
		}
		b := openWith(t, 2)
		sameBits(t, format.String(), runOn(t, b, g, s, feeds), runOn(t, b, g, values, feeds))
		p, err := b.Compile(g, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.(*program).forms {
			if f.layout == plain && len(f.tensor.Shape) > 1 {
				t.Errorf("%s: %q is kept in single precision", format, f.tensor.Name)
			}
		}
		b.Close()
	}
}

// TestInference runs programs that learn nothing, which read frozen weights as they are stored, or pack them for one
// product, and compares them with the reference.
func TestInference(t *testing.T) {
	l := llama{layers: 1, c: 288, f: 320, h: 6, g: 2, d: 48, v: 600}
	formats := []quant.Format{quant.BF16, quant.Q4_1, quant.F32, quant.F16, quant.Q8_0, quant.Q4_0, quant.Q5_0}
	if testing.Short() {
		formats = formats[:2]
	}
	for _, format := range formats {
		for _, rows := range []int{1, 5, fewRows + 6} {
			g, s, feeds := l.decode(t, rows, 8)
			for _, x := range s.All() {
				if x.Values == nil && len(x.Shape) > 1 {
					v := x.Float32s()
					x.Format, x.Data = format, make([]byte, format.Bytes(len(v)))
					format.Quantize(x.Data, v)
				}
			}
			states := map[string][]float32{}
			for _, x := range s.All() {
				if x.Values != nil {
					states[x.Name] = slices.Clone(x.Values)
				}
			}
			want, err := reference.Run(g, wide64(s), feeds)
			if err != nil {
				t.Fatal(err)
			}
			for _, precision := range []engine.Precision{engine.FP32, engine.Mixed} {
				bound := 1e-5
				if precision == engine.Mixed {
					bound = 2e-3 // bfloat16 operands would be off by 5e-3
				}
				name := fmt.Sprintf("%v/%d rows/%s", format, rows, precision)
				var bits map[string][]float32
				for _, workers := range workerCounts {
					e, err := engine.Open("cpu", engine.Options{Precision: precision, Workers: workers})
					if err != nil {
						t.Fatal(err)
					}
					for name, v := range states {
						x, _ := s.Get(name)
						copy(x.Values, v)
					}
					have := runOn(t, e.(*backend), g, s, feeds)
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					if bits == nil {
						bits = have
					}
					sameBits(t, name, have, bits)
				}
				if e := relative(bits["logits"], want["logits"]); e > bound {
					t.Errorf("%s: off by %.2g of its size, want %.2g", name, e, bound)
				}
			}
		}
	}
}

// TestFullInMixedPrecision trains weights that are large enough to be packed for each product.
func TestFullInMixedPrecision(t *testing.T) {
	l := llama{layers: 1, c: 272, f: 300, h: 4, g: 2, d: 68, v: 300, full: true}
	g, s, feeds := l.step(t, 2, 40)
	fill(s, feeds)
	want, err := reference.Run(g, wide64(s), feeds)
	if err != nil {
		t.Fatal(err)
	}
	var bits map[string][]float32
	for _, workers := range workerCounts {
		e, err := engine.Open("cpu", engine.Options{Precision: engine.Mixed, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		have := runOn(t, e.(*backend), g, s, feeds)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if bits == nil {
			bits = have
		}
		sameBits(t, fmt.Sprint(workers, " workers"), have, bits)
	}
	for name, w := range want {
		if e := relative(bits[name], w); e > 3e-3 {
			t.Errorf("%s is off by %.2g of its size", name, e)
		}
	}
}
