package methods

import (
	"cmp"
	"math"
	"math/rand/v2"

	"tunesmith/graph"
	"tunesmith/site"
)

// Random bases, drawn as PEFT draws them, so that a file without them can be used.

// kaimingOf draws a basis uniform in ±bound from torch's generator, behind so many numbers that were drawn before.
func kaimingOf(seed uint64, before int, bound float64) site.Init {
	return func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		g := newTorchRandom(seed)
		for range before {
			g.uint32()
		}
		from, width := float32(-bound), float32(bound)-float32(-bound)
		for i := range dst {
			dst[i] = g.float32()*width + from
		}
	}
}

// vera is W + diag(b)·B·diag(d)·A (Kopiczko et al. 2024, arXiv 2310.11454). A (rank, in) and B (out, rank) are those of
// the largest module; others take the first columns and rows.
type vera struct{}

func (vera) rank(d *delta) int { return cmp.Or(d.Rank, 256) }

func (v vera) bases(d *delta) []site.Param {
	r := v.rank(d)
	bound := func(fan int) float64 { return math.Sqrt(3) * (math.Sqrt2 / math.Sqrt(float64(fan))) }
	return []site.Param{
		{Name: "base_model.vera_A", Shape: []int{r, d.in}, Init: kaimingOf(d.Seed, 0, bound(d.in))},
		{Name: "base_model.vera_B", Shape: []int{d.out, r}, Init: kaimingOf(d.Seed, r*d.in, bound(r))},
	}
}

func (v vera) tensors(d *delta, at site.Linear) []site.Param {
	start := func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			dst[i] = float32(d.Start)
		}
	}
	return []site.Param{{Name: "vera_lambda_b", Shape: []int{at.Out}, Init: zeros}, {Name: "vera_lambda_d", Shape: []int{v.rank(d)}, Init: start}}
}

func (v vera) graft(s *site.Scope, d *delta, at site.Linear, x, y *graph.Node, p []*graph.Node) *graph.Node {
	b := declare(s, v.bases(d))
	h := graph.Times(graph.Project(x, graph.SliceAxis(b[0], 1, 0, at.In)), p[1])
	return graph.Plus(y, graph.Times(graph.Project(h, graph.SliceAxis(b[1], 0, 0, at.Out)), p[0]))
}

func (v vera) merge(d *delta, at site.Linear, w []float32, p [][]float32, value func(string) []float32) error {
	r, b := v.rank(d), v.bases(d)
	all, out := value(b[0].Name), value(b[1].Name)
	left, right := make([]float32, at.Out*r), make([]float32, 0, r*at.In)
	for k := range r {
		right = append(right, all[k*d.in:k*d.in+at.In]...)
	}
	for o := range at.Out {
		for k := range r {
			left[o*r+k] = p[0][o] * p[1][k] * out[o*r+k]
		}
	}
	addProduct(w, left, right, r, 1)
	return nil
}

func (vera) read(o *Delta, r *peftKeys) {
	o.Rank, o.Dropout = key(r, "r", 256), key(r, "vera_dropout", 0.0)
	o.Start, o.Seed = key(r, "d_initial", 0.1), key(r, "projection_prng_key", uint64(0))
}

func (v vera) write(o *Delta, c map[string]any) {
	c["r"], c["vera_dropout"], c["d_initial"] = cmp.Or(o.Rank, 256), o.Dropout, o.Start
	c["projection_prng_key"], c["save_projection"], c["init_weights"], c["bias"] = o.Seed, o.SaveBases, true, "none"
}

// randLoRA is W + s·UB·UA (Albert et al. 2025, arXiv 2502.00987): UA stacks A·diag(γᵢ) scaled by λᵢ for so many bases that
// their ranks reach the smaller side of W, and UB the bases B. Where the input is the larger side both change places. PEFT
// counts the columns of UB by base and the rows of UA by rank, which pairs them otherwise than the paper; so does this.
type randLoRA struct{}

func (randLoRA) rank(d *delta) int { return cmp.Or(d.Rank, 32) }

// counts returns the bases of a module, and its smaller and larger side.
func (v randLoRA) counts(d *delta, out, in int) (bases, small, large int) {
	small, large = min(out, in), max(out, in)
	return (small + v.rank(d) - 1) / v.rank(d), small, large
}

func (v randLoRA) bases(d *delta) []site.Param {
	n, small, large := v.counts(d, d.out, d.in)
	r := v.rank(d)
	// Uniform with a = √5, which is ±1/√fan.
	return []site.Param{
		{Name: "base_model.randlora_A", Shape: []int{r, 1, small}, Init: kaimingOf(d.Seed, 0, 1/math.Sqrt(float64(small)))},
		{Name: "base_model.randlora_B", Shape: []int{large, n, r}, Init: kaimingOf(d.Seed, r*small, 1/math.Sqrt(float64(r)))},
	}
}

func (v randLoRA) tensors(d *delta, at site.Linear) []site.Param {
	n, small, large := v.counts(d, at.Out, at.In)
	even := func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			dst[i] = 1 / float32(large)
		}
	}
	return []site.Param{
		{Name: "randlora_lambda", Shape: []int{v.rank(d), n}, Init: zeros},
		{Name: "randlora_gamma", Shape: []int{n, small}, Init: even},
	}
}

func (v randLoRA) graft(s *site.Scope, d *delta, at site.Linear, x, y *graph.Node, p []*graph.Node) *graph.Node {
	b := declare(s, v.bases(d))
	n, small, large := v.counts(d, at.Out, at.In)
	r := v.rank(d)
	a := graph.SliceAxis(b[0], 2, 0, small)
	ua := graph.Times(graph.Times(graph.Reshape(p[0], r, n, 1), a), graph.Reshape(p[1], 1, n, small))
	ua = graph.Reshape(ua, r*n, small)
	ub := graph.Reshape(graph.SliceAxis(graph.SliceAxis(b[1], 0, 0, large), 1, 0, n), large, n*r)
	var dy *graph.Node
	if small == at.In {
		dy = graph.Project(graph.Project(x, ua), ub)
	} else {
		dy = graph.ProjectT(graph.ProjectT(x, ub), ua)
	}
	return graph.Plus(y, graph.Scale(dy, d.scale(32, 640)))
}

func (v randLoRA) merge(d *delta, at site.Linear, w []float32, p [][]float32, value func(string) []float32) error {
	n, small, large := v.counts(d, at.Out, at.In)
	r, b := v.rank(d), v.bases(d)
	a, basis := value(b[0].Name), value(b[1].Name)
	most, wide := b[1].Shape[1], b[0].Shape[2]
	ua, ub := make([]float32, 0, r*n*small), make([]float32, 0, large*n*r)
	for k := range r {
		for i := range n {
			for j := range small {
				ua = append(ua, p[0][k*n+i]*a[k*wide+j]*p[1][i*small+j])
			}
		}
	}
	for o := range large {
		ub = append(ub, basis[o*most*r:][:n*r]...)
	}
	scale := float64(d.scale(32, 640))
	if small == at.In {
		addProduct(w, ub, ua, r*n, scale)
	} else {
		addProduct(w, transpose(ua, r*n), transpose(ub, large), r*n, scale)
	}
	return nil
}

func (randLoRA) read(o *Delta, r *peftKeys) {
	o.Rank, o.Alpha, o.Dropout = key(r, "r", 32), key(r, "randlora_alpha", 640.0), key(r, "randlora_dropout", 0.0)
	o.Seed = key(r, "projection_prng_key", uint64(0))
	if !o.SaveBases {
		r.fail(errUnsaved)
	}
}

func (randLoRA) write(o *Delta, c map[string]any) {
	c["r"], c["randlora_alpha"], c["randlora_dropout"] = cmp.Or(o.Rank, 32), cmp.Or(o.Alpha, 640), o.Dropout
	c["projection_prng_key"], c["save_projection"], c["init_weights"], c["bias"] = o.Seed, o.SaveBases, true, "none"
}
