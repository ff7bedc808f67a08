package objective

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/graph"
	"tunesmith/internal/golden"
)

// number reads a JSON number, or one of the words nan, inf and -inf.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*n = number(f)
	return err
}

// maybe is a number that a case may leave out.
type maybe struct {
	number
	set bool
}

func (m *maybe) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	m.set = true
	return m.number.UnmarshalJSON(b)
}

func (m maybe) or(v float64) float32 {
	if !m.set {
		return float32(v)
	}
	return float32(m.number)
}

// bench runs a loss on given tensors.
type bench struct {
	*graph.Graph
	t      *testing.T
	values map[string]golden.Tensor
	params []*graph.Node
	store  *engine.Store
}

// trained is a tensor whose gradient is wanted, given a constant one.
func (b *bench) trained(name string) *graph.Node {
	v := b.get(name)
	n := b.Param(name, true, v.Shape...)
	b.params = append(b.params, n)
	if err := b.store.Add(&engine.Tensor{Name: name, Shape: v.Shape, Values: floats(v), Trainable: true}); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) given(name string) *graph.Node {
	v := b.get(name)
	return b.Floats(floats(v), v.Shape...)
}

func (b *bench) get(name string) golden.Tensor {
	v, ok := b.values[name]
	if !ok {
		b.t.Fatalf("no tensor %q", name)
	}
	return v
}

func floats(v golden.Tensor) []float32 {
	if v.F32 != nil {
		return v.F32
	}
	out := make([]float32, len(v.I32))
	for i, x := range v.I32 {
		out[i] = float32(x)
	}
	return out
}

// evaluate returns the scalar that build makes, other outputs, and the gradients of the trained tensors by name.
func evaluate(t *testing.T, values map[string]golden.Tensor, build func(b *bench) *graph.Node) (loss float64, out map[string][]float32) {
	t.Helper()
	backend, err := engine.Open("cpu", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	b := &bench{t: t, values: values, store: engine.NewStore()}
	g, err := graph.Build(func(g *graph.Graph) {
		b.Graph = g
		l := build(b)
		g.Output("loss", l)
		for i, d := range graph.Gradient(l, b.params) {
			name := b.params[i].Op.(graph.Param).Name
			if d == nil {
				d = graph.BroadcastTo(g.Scalar(0), b.params[i].Shape())
			}
			g.Output("grad "+name, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, b.store)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context(), engine.Feeds{}); err != nil {
		t.Fatal(err)
	}
	out = map[string][]float32{}
	for _, o := range g.Outputs {
		out[o.Name] = p.Output(o.Name)
	}
	return float64(out["loss"][0]), out
}

// bound is tolerance class E1, relative where the reference is large.
const bound = 3e-6

func within(have, want, most float64) bool {
	if math.IsNaN(want) || math.IsInf(want, 0) {
		return have == want || math.IsNaN(have) && math.IsNaN(want)
	}
	return math.Abs(have-want) <= most*math.Max(1, math.Abs(want))
}

func sameLoss(t *testing.T, what string, have, want, most float64) {
	t.Helper()
	if !within(have, want, most) {
		t.Errorf("%s: want %.8g, have %.8g", what, want, have)
	}
}

// sameAll compares where the mask is not 0; a nil mask is everywhere.
func sameAll(t *testing.T, what string, have []float32, want golden.Tensor, mask []float32, most float64) {
	t.Helper()
	w := floats(want)
	if len(have) != len(w) {
		t.Errorf("%s: want %d values, have %d", what, len(w), len(have))
		return
	}
	for i := range w {
		if (mask == nil || mask[i] != 0) && !within(float64(have[i]), float64(w[i]), most) {
			t.Errorf("%s, element %d: want %.8g, have %.8g", what, i, w[i], have[i])
			return
		}
	}
}

// load reads the cases and the tensors of a file of the area.
func load(t *testing.T, name string, cases any) map[string]golden.Tensor {
	t.Helper()
	dir := golden.Dir(t, "objectives")
	var file struct{ Cases json.RawMessage }
	golden.JSON(t, filepath.Join(dir, name+".json"), &file)
	if err := json.Unmarshal(file.Cases, cases); err != nil {
		t.Fatal(err)
	}
	return golden.Load(t, filepath.Join(dir, name+".safetensors"))
}

type dpoCase struct {
	Name        string
	Inputs      string
	LossType    []string  `json:"loss_type"`
	LossWeights []float32 `json:"loss_weights"`
	Beta        maybe
	Smoothing   maybe  `json:"label_smoothing"`
	Divergence  string `json:"f_divergence_type"`
	Coefficient maybe  `json:"f_alpha_divergence_coef"`
	Tau         maybe  `json:"discopop_tau"`
	Weighting   bool   `json:"use_weighting"`
	LongTail    maybe  `json:"ld_alpha"`
	HasGrad     bool   `json:"has_grad"`
	Loss        number
	PerExample  []number `json:"per_example"`
}

func (c dpoCase) options() Preference {
	o := Preference{
		Beta: c.Beta.or(0.1), Smoothing: c.Smoothing.or(0), Divergence: c.Divergence, Coefficient: c.Coefficient.or(0.5),
		Temperature: c.Tau.or(0.05), Weighting: c.Weighting,
	}
	if o.Divergence == "" {
		o.Divergence = "reverse_kl"
	}
	for i, name := range c.LossType {
		w := float32(1)
		if i < len(c.LossWeights) {
			w = c.LossWeights[i]
		}
		o.Terms = append(o.Terms, Term{name, w})
	}
	return o
}

// TestGoldenPreference checks value and gradient of every loss over pairs, and each pair alone.
func TestGoldenPreference(t *testing.T) {
	var cases []dpoCase
	all := load(t, "dpo_losses", &cases)
	for _, c := range cases {
		t.Run(c.Name+"/"+c.Inputs, func(t *testing.T) {
			o := c.options()
			if err := o.Validate(); err != nil {
				t.Fatal(err)
			}
			mask := shifted(all[c.Inputs+"/completion_mask"])
			pairs := mask.Shape[0] / 2
			most := c.bound(all)
			loss, out := c.run(t, o, all, nil)
			sameLoss(t, "loss", loss, float64(c.Loss), most)
			if want, ok := all[c.Inputs+"/grad/"+c.Name]; ok {
				sameAll(t, "gradient", out["grad policy_logps"], want, mask.F32, most)
			}
			for i, want := range c.PerExample {
				loss, _ := c.run(t, o, all, []int{i, pairs + i})
				sameLoss(t, fmt.Sprintf("pair %d", i), loss, float64(want), most)
			}
		})
	}
}

// bound is the tolerance: where a loss is exponential in a log-ratio, the rounding of the sums of log-probabilities,
// which the library subtracts after summing, grows into a relative error.
func (c dpoCase) bound(all map[string]golden.Tensor) float64 {
	if c.Divergence != "forward_kl" && c.Divergence != "alpha_divergence" {
		return bound
	}
	v := all[c.Inputs+"/policy_logps"]
	var most float64
	for r := range v.Shape[0] {
		var sum float64
		for _, x := range v.F32[r*v.Shape[1] : (r+1)*v.Shape[1]] {
			sum += math.Abs(float64(x))
		}
		most = max(most, sum)
	}
	return bound + 2*most/(1<<23)
}

// shifted drops the first column, which no token predicts.
func shifted(mask golden.Tensor) golden.Tensor {
	rows, cols := mask.Shape[0], mask.Shape[1]
	out := golden.Tensor{Shape: []int{rows, cols - 1}}
	for r := range rows {
		out.F32 = append(out.F32, floats(mask)[r*cols+1:(r+1)*cols]...)
	}
	return out
}

// run computes the loss of the rows, all of them where none are named.
func (c dpoCase) run(t *testing.T, o Preference, all map[string]golden.Tensor, rows []int) (float64, map[string][]float32) {
	t.Helper()
	values := map[string]golden.Tensor{}
	for _, name := range []string{"completion_mask", "policy_logps", "ref_logps", "log_sum_sq_probs"} {
		v := all[c.Inputs+"/"+name]
		n := v.Shape[1]
		if rows != nil {
			var picked []float32
			for _, r := range rows {
				picked = append(picked, floats(v)[r*n:(r+1)*n]...)
			}
			v = golden.Tensor{Shape: []int{len(rows), n}, F32: picked}
		}
		values[name] = v
	}
	mask := values["completion_mask"]
	rowsAll, cols := mask.Shape[0], mask.Shape[1]
	var length []float32
	for r := range rowsAll {
		var n float32
		for _, v := range floats(mask)[r*cols : (r+1)*cols] {
			n += v
		}
		length = append(length, n)
	}
	values["mask"] = shifted(mask)
	values["length"] = golden.Tensor{Shape: []int{rowsAll}, F32: length}
	return evaluate(t, values, func(b *bench) *graph.Node {
		policy := b.trained("policy_logps")
		n := policy.Dim(0) / 2
		half := func(x *graph.Node, i int) *graph.Node { return graph.SliceAxis(x, 0, i*n, (i+1)*n) }
		reference := b.given("ref_logps")
		if c.LongTail.set {
			w := LongTail(values["mask"].F32, cols-1, c.LongTail.or(1), func(row int) int { return (row + n) % (2 * n) })
			tail := b.Floats(w, 2*n, cols-1)
			policy, reference = graph.Times(policy, tail), graph.Times(reference, tail)
		}
		side := func(i int) Answers {
			return Answers{
				LogProbsBT: half(policy, i), ReferenceBT: half(reference, i), MaskBT: half(b.given("mask"), i),
				LengthB: half(b.given("length"), i), SquaresBT: half(b.given("log_sum_sq_probs"), i),
			}
		}
		return o.Loss(side(0), side(1), nil)
	})
}
