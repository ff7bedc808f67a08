package optim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model makes parameters of several shapes, one larger than a chunk, with gradients that differ by step.
func model() []Param {
	var params []Param
	for i, shape := range [][]int{{3, 5}, {chunk + 77}, {40, 450}, {2, 3, 4}, {1}, {}} {
		n := size(shape)
		params = append(params, Param{Name: fmt.Sprint("p", i), Shape: shape, Value: make([]float32, n), Grad: make([]float32, n), Group: i % 2})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range params {
		for i := range p.Value {
			p.Value[i] = float32(r.NormFloat64())
		}
	}
	return params
}

func gradients(params []Param, step int) {
	r := rand.New(rand.NewPCG(3, uint64(step)))
	for _, p := range params {
		for i := range p.Grad {
			p.Grad[i] = float32(r.NormFloat64())
		}
	}
}

var twoGroups = []Group{{LRScale: 1, WeightDecay: 0.1}, {LRScale: 0.5}}

// variants are settings that change an optimizer's state.
func variants() map[string]Options {
	out := map[string]Options{}
	for _, name := range Names() {
		out[name] = Options{}
	}
	out["adamw amsgrad"] = Options{AMSGrad: true}
	out["sgd momentum"] = Options{Momentum: new(0.9), Nesterov: new(true)}
	out["rmsprop all"] = Options{Momentum: new(0.9), Centered: true}
	out["adafactor all"] = Options{Beta1: 0.9, RelativeStep: true, ScaleParameter: true}
	out["schedulefree_adamw warm"] = Options{WarmupSteps: 3, R: 1}
	for k, o := range out {
		o.Groups = twoGroups
		out[k] = o
	}
	return out
}

// scattered cuts the work into pieces of uneven size and runs them at the same time, in any order.
func scattered(seed uint64) Parallel {
	return func(n int, f func(lo, hi int)) {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		var wg sync.WaitGroup
		for lo := 0; lo < n; {
			from, to := lo, min(n, lo+1+r.IntN(3))
			wg.Go(func() { f(from, to) })
			lo = to
		}
		wg.Wait()
	}
}

func values(params []Param) [][]float32 {
	var out [][]float32
	for _, p := range params {
		out = append(out, slices.Clone(p.Value))
	}
	return out
}

func equal(a, b [][]float32) bool { return slices.EqualFunc(a, b, slices.Equal) }

func run(t *testing.T, o Optimizer, params []Param, from, to int) {
	t.Helper()
	for step := from; step < to; step++ {
		gradients(params, step)
		if err := o.Step(params, 0.01/float64(step+1)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSameBitsForAnyWorkers(t *testing.T) {
	for label, o := range variants() {
		t.Run(label, func(t *testing.T) {
			var want [][]float32
			for _, par := range []Parallel{nil, scattered(1), scattered(2)} {
				o.Parallel = par
				opt, err := New(strings.Fields(label)[0], o)
				if err != nil {
					t.Fatal(err)
				}
				params := model()
				before := values(params)
				run(t, opt, params, 0, 3)
				if want == nil {
					want = values(params)
					for i, p := range params {
						if slices.Equal(before[i], p.Value) {
							t.Errorf("%s has not moved", p.Name)
						}
					}
				} else if !equal(want, values(params)) {
					t.Error("values differ by the way the work is cut")
				}
			}
		})
	}
}

func TestStateContinuesWithEqualBits(t *testing.T) {
	for label, o := range variants() {
		t.Run(label, func(t *testing.T) {
			name := strings.Fields(label)[0]
			straight, _ := New(name, o)
			params := model()
			run(t, straight, params, 0, 3)

			first, _ := New(name, o)
			stopped := model()
			run(t, first, stopped, 0, 2)
			second, _ := New(name, o)
			if err := second.Restore(first.State()); err != nil {
				t.Fatal(err)
			}
			third, _ := New(name, o) // saved again before a step was made
			if err := third.Restore(second.State()); err != nil {
				t.Fatal(err)
			}
			run(t, third, stopped, 2, 3)
			if !equal(values(params), values(stopped)) {
				t.Error("a stopped run differs")
			}
			if diff := cmp.Diff(straight.State(), third.State()); diff != "" {
				t.Errorf("states differ: %.300s", diff)
			}
			n := 0
			for _, s := range third.State().Tensors {
				n += len(s.Data) + (len(s.Codes)+3)/4
			}
			if got := third.Floats(params); got != n {
				t.Errorf("Floats: want %d, have %d", n, got)
			}
		})
	}
}

func TestRestoreRefusesOtherState(t *testing.T) {
	saved := func(name string, params []Param) State {
		o, _ := New(name, Options{Groups: twoGroups})
		run(t, o, params, 0, 1)
		return o.State()
	}
	adam := saved("adam", model())
	short := State{Counters: adam.Counters, Tensors: adam.Tensors[1:]}
	bent := State{Counters: adam.Counters, Tensors: slices.Clone(adam.Tensors)}
	bent.Tensors[0].Shape = []int{5, 3}
	for _, c := range []struct {
		label string
		state State
		want  string
	}{
		{"no step", State{}, "optimizer adamw: the saved state has no step"},
		{"other optimizer", saved("lion", model()), "optimizer adamw: parameter p0: the saved state has no exp_avg_sq; it belongs to another optimizer or other parameters"},
		{"missing", short, "optimizer adamw: parameter p0: the saved state has no exp_avg; it belongs to another optimizer or other parameters"},
		{"shape", bent, "optimizer adamw: parameter p0: saved exp_avg: want shape [3 5], have [5 3] with 15 elements"},
		{
			"fewer parameters", saved("adam", append(model(), Param{Name: "more", Shape: []int{1}, Value: []float32{1}, Grad: []float32{1}})),
			"optimizer adamw: the saved state has 14 tensors, of which 12 belong to the parameters",
		},
	} {
		t.Run(c.label, func(t *testing.T) {
			o, _ := New("adamw", Options{Groups: twoGroups})
			params := model()
			before := values(params)
			err := o.Restore(c.state)
			if err == nil {
				err = o.Step(params, 0.1)
			}
			if err == nil || err.Error() != c.want {
				t.Errorf("want %q, have %v", c.want, err)
			}
			if !equal(before, values(params)) {
				t.Error("a refused state has changed values")
			}
		})
	}
	if o, _ := New("nadam", Options{}); o.Restore(adam) == nil {
		t.Error("nadam has taken the counters of adam")
	}
}

func TestErrors(t *testing.T) {
	one := func(p Param) func() error {
		return func() error {
			o, err := New("adamw", Options{})
			if err != nil {
				return err
			}
			return o.Step([]Param{p}, 1)
		}
	}
	open := func(name string, o Options) func() error {
		return func() error { _, err := New(name, o); return err }
	}
	schedule := func(name string, o ScheduleOptions) func() error {
		if o.Total == 0 {
			o.Total = 10
		}
		o.LR = 1e-3
		return func() error { _, err := NewSchedule(name, o); return err }
	}
	for _, c := range []struct {
		want string
		f    func() error
	}{
		{`optimizer: want one of [adadelta adafactor adagrad adam adam_8bit adamax adamw adamw_8bit lion lion_8bit muon nadam radam rmsprop schedulefree_adamw schedulefree_sgd sgd stable_adamw torch_adafactor], have "adawm", did you mean adam or adamw?`, open("adawm", Options{})},
		{"optimizer adamw: betas[1]: want a number in [0, 1), have 1", open("adamw", Options{Betas: []float64{0.9, 1}})},
		{"optimizer adamw: betas: want two numbers, have [0.9]", open("adamw", Options{Betas: []float64{0.9}})},
		{"optimizer adamw: eps: want > 0, have NaN", open("adamw", Options{Eps: math.NaN()})},
		{"optimizer sgd: momentum: want a number in [0, 1), have 1", open("sgd", Options{Momentum: new(1.0)})},
		{"optimizer adafactor: warmup_init: want relative_step with it", open("adafactor", Options{WarmupInit: true})},
		{"optimizer adamw: learning rate: want a number >= 0, have NaN", func() error {
			o, _ := New("adamw", Options{})
			return o.Step(nil, math.NaN())
		}},
		{"optimizer adamw: group 0: lr scale: want > 0, have 0", open("adamw", Options{Groups: []Group{{}}})},
		{"optimizer adamw: group 0: weight decay: want >= 0, have -1", open("adamw", Options{Groups: []Group{{1, -1}}})},
		{"optimizer sgd: nesterov: want a momentum and no dampening", open("sgd", Options{Nesterov: new(true)})},
		{`optimizer muon: adjust_lr_fn: want one of [original match_rms_adamw], have "match"`, open("muon", Options{AdjustLR: "match"})},
		{"optimizer schedulefree_sgd: momentum (betas[0]): want a number in (0, 1)", open("schedulefree_sgd", Options{Momentum: new(0.0)})},
		{"optimizer adamw: parameter w: shape [2] has 2 elements, have 1 values", one(Param{Name: "w", Shape: []int{2}, Value: []float32{1}, Grad: []float32{1}})},
		{"optimizer adamw: parameter w: want 1 gradients, have 0", one(Param{Name: "w", Shape: []int{1}, Value: []float32{1}})},
		{"optimizer adamw: parameter w: want a group below 1, have 1", one(Param{Name: "w", Shape: []int{1}, Value: []float32{1}, Grad: []float32{1}, Group: 1})},
		{`schedule: want one of [constant constant_with_warmup cosine cosine_warmup_with_min_lr cosine_with_min_lr cosine_with_restarts inverse_sqrt linear polynomial warmup_stable_decay], have "cosin", did you mean cosine`, schedule("cosin", ScheduleOptions{})},
		{"schedule linear: warmup: want a count of updates, or a share below 1, have 1.5", schedule("linear", ScheduleOptions{Warmup: 1.5})},
		{"schedule linear: total updates: want >= 1, have -1", schedule("linear", ScheduleOptions{Total: -1})},
		{"schedule cosine_with_min_lr: want one of min_lr and min_lr_rate, have 0 and 0", schedule("cosine_with_min_lr", ScheduleOptions{})},
		{"schedule polynomial: lr_end: want less than the learning rate 0.001, have 1", schedule("polynomial", ScheduleOptions{LREnd: new(1.0)})},
		{"schedule warmup_stable_decay: num_decay_steps: want >= 1", schedule("warmup_stable_decay", ScheduleOptions{})},
		{"schedule warmup_stable_decay: want at most 10 updates of warm-up and decay together, have 5 and 6", schedule("warmup_stable_decay", ScheduleOptions{Warmup: 5, DecaySteps: 6})},
		{`schedule warmup_stable_decay: decay_type: want one of [linear cosine 1-sqrt], have "cosin", did you mean cosine`, schedule("warmup_stable_decay", ScheduleOptions{DecaySteps: 6, DecayType: "cosin"})},
		{`schedule: want one of [greedy reduce_lr_on_plateau], have "gredy", did you mean greedy`, func() error { _, err := NewMetricSchedule("gredy", MetricOptions{}); return err }},
		{"schedule greedy: factor: want a number in (0, 1), have 1", func() error { _, err := NewMetricSchedule("greedy", MetricOptions{Factor: 1}); return err }},
		{`weight average: want one of [ema ema_debiased ema_warmup swa], have "eam", did you mean ema`, func() error { _, err := NewWeightAverage("eam", 0.9, nil); return err }},
	} {
		if err := c.f(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("want %q, have %v", c.want, err)
		}
	}
}

func TestOtherParametersAreRefused(t *testing.T) {
	for label, change := range map[string]func([]Param) []Param{
		"name":  func(p []Param) []Param { p[0].Name = "q"; return p },
		"shape": func(p []Param) []Param { p[0].Shape = []int{5, 3}; return p },
		"fewer": func(p []Param) []Param { return p[1:] },
		"last":  func(p []Param) []Param { return p[:1] },
		"more":  func(p []Param) []Param { return append(p, Param{Name: "q", Shape: []int{0}}) },
	} {
		o, _ := New("sgd", Options{Groups: twoGroups})
		params := model()
		run(t, o, params, 0, 1)
		if err := o.Step(change(params), 1); err == nil {
			t.Errorf("%s: another list of parameters was taken", label)
		}
	}
	o, _ := New("sgd", Options{Groups: twoGroups})
	if err := o.Step(append(model(), model()[0]), 1); err == nil {
		t.Error("two parameters of one name were taken")
	}
}

func TestNormIsExactForAnyWorkers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		p := rapid.SampledFrom([]float64{0.5, 1, 2, 3, math.Inf(1)}).Draw(t, "p")
		params := model()
		gradients(params, int(seed%100))
		want := Norm(params, p, nil)
		if got := Norm(params, p, scattered(seed)); got != want {
			t.Fatalf("%v-norm: want %v, have %v", p, want, got)
		}
		limit := rapid.Float64Range(1e-3, 100).Draw(t, "limit")
		if got := ClipNorm(params, limit, p, scattered(seed)); got != want {
			t.Fatalf("norm: want %v, have %v", want, got)
		}
		if got := Norm(params, p, nil); got > limit*(1+1e-5) {
			t.Fatalf("norm after clipping to %v: have %v", limit, got)
		}
	})
}

func TestWarmupNeverExceedsPeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := ScheduleOptions{LR: 1, Total: rapid.IntRange(1, 60).Draw(t, "total"), DecaySteps: 1, MinLRRate: 0.1, LREnd: new(0.0)}
		o.Warmup = rapid.SampledFrom([]float64{0, 0.03, 0.5, float64(o.Total - 1)}).Draw(t, "warmup")
		if o.WarmupSteps() >= o.Total {
			o.Warmup = 0
		}
		name := rapid.SampledFrom(ScheduleNames()).Draw(t, "name")
		s, err := NewSchedule(name, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range o.Total + 5 {
			if lr := s(i); !(lr >= 0 && lr <= 1) {
				t.Fatalf("%s: lr[%d] = %v", name, i, lr)
			}
		}
	})
}

// TestMinimises checks the direction of each optimizer's step on a bowl.
func TestMinimises(t *testing.T) {
	for label, o := range variants() {
		opt, _ := New(strings.Fields(label)[0], o)
		p := Param{Name: "w", Shape: []int{2, 2}, Value: []float32{1, -1, 0.5, 2}, Grad: make([]float32, 4)}
		bowl := func() (s float64) { return squares(p.Value) }
		before := bowl()
		for range 50 {
			copy(p.Grad, p.Value)
			if err := opt.Step([]Param{p}, 0.02); err != nil {
				t.Fatal(err)
			}
		}
		if after := bowl(); !(after < before) {
			t.Errorf("%s: the bowl's height went from %v to %v", label, before, after)
		}
	}
}

func ExampleNew() {
	w := Param{Name: "w", Shape: []int{2}, Value: []float32{1, -1}, Grad: []float32{0.5, -0.5}}
	o, err := New("adamw", Options{Groups: []Group{{LRScale: 1, WeightDecay: 0.01}}})
	if err != nil {
		panic(err)
	}
	if err := o.Step([]Param{w}, 0.1); err != nil {
		panic(err)
	}
	fmt.Printf("%.3f\n", w.Value)
	// Output: [0.899 -0.899]
}

func ExampleNewSchedule() {
	lr, err := NewSchedule("cosine", ScheduleOptions{LR: 2e-4, Total: 100, Warmup: 0.1})
	if err != nil {
		panic(err)
	}
	for _, step := range []int{0, 5, 10, 55, 99} {
		fmt.Printf("%d %.2e\n", step, lr(step))
	}
	// Output:
	// 0 0.00e+00
	// 5 1.00e-04
	// 10 2.00e-04
	// 55 1.00e-04
	// 99 6.09e-08
}

func BenchmarkAdamW(b *testing.B) {
	o, _ := New("adamw", Options{})
	n := 1 << 20
	p := []Param{{Name: "w", Shape: []int{n}, Value: make([]float32, n), Grad: make([]float32, n)}}
	for i := range p[0].Grad {
		p[0].Grad[i] = float32(i%17) - 8
	}
	b.SetBytes(int64(n) * 4)
	for b.Loop() {
		if err := o.Step(p, 1e-3); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNorm(b *testing.B) {
	n := 1 << 20
	p := []Param{{Name: "w", Shape: []int{n}, Value: make([]float32, n), Grad: make([]float32, n)}}
	b.SetBytes(int64(n) * 4)
	for b.Loop() {
		Norm(p, 2, nil)
	}
}
