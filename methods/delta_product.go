package methods

import (
	"cmp"
	"errors"

	"tunesmith/graph"
	"tunesmith/site"
)

var errUnsaved = errors.New("save_projection: want true: the bases cannot be drawn again here, save them along")

// hadamard is W + s·(B₁·A₁)∘(B₂·A₂), FedPara's product (Hyeon-Woo et al. 2022, arXiv 2108.06098).
type hadamard struct{}

func (hadamard) tensors(d *delta, at site.Linear) []site.Param {
	r := cmp.Or(d.Rank, 8)
	return []site.Param{
		{Name: "hada_w1_a", Shape: []int{at.Out, r}, Init: kaiming(r)},
		{Name: "hada_w1_b", Shape: []int{r, at.In}, Init: kaiming(at.In)},
		{Name: "hada_w2_a", Shape: []int{at.Out, r}, Init: kaiming(r)},
		{Name: "hada_w2_b", Shape: []int{r, at.In}, Init: zeros},
	}
}

func (hadamard) graft(_ *site.Scope, d *delta, _ site.Linear, x, y *graph.Node, p []*graph.Node) *graph.Node {
	change := graph.Times(graph.ProjectT(p[0], p[1]), graph.ProjectT(p[2], p[3]))
	return graph.Plus(y, graph.Scale(graph.Project(x, change), d.scale(8, 8)))
}

func (hadamard) merge(d *delta, _ site.Linear, w []float32, p [][]float32, _ func(string) []float32) error {
	r := cmp.Or(d.Rank, 8)
	one, two := make([]float32, len(w)), make([]float32, len(w))
	addProduct(one, p[0], p[1], r, 1)
	addProduct(two, p[2], p[3], r, 1)
	scale := float64(d.scale(8, 8))
	for i := range w {
		w[i] = float32(float64(w[i]) + scale*float64(one[i])*float64(two[i]))
	}
	return nil
}

func (hadamard) read(o *Delta, r *peftKeys) { o.Rank, o.Alpha = key(r, "r", 8), key(r, "alpha", 8.0) }

func (hadamard) write(o *Delta, c map[string]any) {
	c["r"], c["alpha"], c["init_weights"] = cmp.Or(o.Rank, 8), cmp.Or(o.Alpha, 8), true
	c["rank_pattern"], c["alpha_pattern"] = map[string]any{}, map[string]any{}
}

// kronecker is W + s·C⊗D, where C and D are whole or products of thin factors (Yeh et al. 2024, arXiv 2309.14859).
type kronecker struct{}

// sides returns the sides of C and D: C is (out1, in1), D (out2, in2).
func (kronecker) sides(d *delta, at site.Linear) (out1, out2, in1, in2 int) {
	in1, in2 = factors(at.In, d.Factor)
	out1, out2 = factors(at.Out, d.Factor)
	return out1, out2, in1, in2
}

// factors returns two numbers whose product is n: the first is the factor where it divides n, else the two nearest to
// each other of which the first is at most the factor, where there is one.
func factors(n, factor int) (int, int) {
	if factor > 0 && n%factor == 0 {
		return factor, n / factor
	}
	best := 1
	for m := 1; m*m <= n && (factor == 0 || m <= factor); m++ {
		if n%m == 0 {
			best = m
		}
	}
	return best, n / best
}

// whole says which of C and D are whole.
func (k kronecker) whole(d *delta, at site.Linear) (c, e bool) {
	out1, out2, in1, in2 := k.sides(d, at)
	r := cmp.Or(d.Rank, 8)
	return !d.FactorBoth || 2*r >= max(out1, in1), 2*r >= max(out2, in2)
}

func (k kronecker) tensors(d *delta, at site.Linear) []site.Param {
	out1, out2, in1, in2 := k.sides(d, at)
	r := cmp.Or(d.Rank, 8)
	wholeC, wholeD := k.whole(d, at)
	var out []site.Param
	if wholeC {
		out = append(out, site.Param{Name: "lokr_w1", Shape: []int{out1, in1}, Init: zeros})
	} else {
		out = append(out, site.Param{Name: "lokr_w1_a", Shape: []int{out1, r}, Init: zeros}, site.Param{Name: "lokr_w1_b", Shape: []int{r, in1}, Init: kaiming(in1)})
	}
	if wholeD {
		return append(out, site.Param{Name: "lokr_w2", Shape: []int{out2, in2}, Init: kaiming(in2)})
	}
	return append(out, site.Param{Name: "lokr_w2_a", Shape: []int{out2, r}, Init: kaiming(r)}, site.Param{Name: "lokr_w2_b", Shape: []int{r, in2}, Init: kaiming(in2)})
}

// graft applies D to each part of the input and C across the parts, so that the Kronecker product is never built.
func (k kronecker) graft(_ *site.Scope, d *delta, at site.Linear, x, y *graph.Node, p []*graph.Node) *graph.Node {
	out1, out2, in1, in2 := k.sides(d, at)
	wholeC, _ := k.whole(d, at)
	c, rest := p[:1], p[1:]
	if !wholeC {
		c, rest = p[:2], p[2:]
	}
	h := graph.Reshape(x, -1, in1, in2)
	n := h.Dim(0)
	h = through(h, rest)                      // (n, in1, out2)
	h = through(graph.Permute(h, 0, 2, 1), c) // (n, out2, out1)
	h = graph.Reshape(graph.Permute(h, 0, 2, 1), n, out1*out2)
	return graph.Plus(y, graph.Scale(graph.Reshape(h, y.Shape()...), d.scale(8, 8)))
}

// through projects by a whole matrix or by two thin ones.
func through(x *graph.Node, p []*graph.Node) *graph.Node {
	for i := len(p) - 1; i >= 0; i-- {
		x = graph.Project(x, p[i])
	}
	return x
}

func (k kronecker) merge(d *delta, at site.Linear, w []float32, p [][]float32, _ func(string) []float32) error {
	out1, out2, in1, in2 := k.sides(d, at)
	r := cmp.Or(d.Rank, 8)
	full := func(p [][]float32, n int) []float32 {
		if len(p) == 1 {
			return p[0]
		}
		m := make([]float32, n)
		addProduct(m, p[0], p[1], r, 1)
		return m
	}
	at1 := 1
	if wholeC, _ := k.whole(d, at); !wholeC {
		at1 = 2
	}
	c, e := full(p[:at1], out1*in1), full(p[at1:], out2*in2)
	scale := float64(d.scale(8, 8))
	for o1 := range out1 {
		for o2 := range out2 {
			row := w[(o1*out2+o2)*at.In:][:at.In]
			for i1 := range in1 {
				f := scale * float64(c[o1*in1+i1])
				for i2 := range in2 {
					row[i1*in2+i2] = float32(float64(row[i1*in2+i2]) + f*float64(e[o2*in2+i2]))
				}
			}
		}
	}
	return nil
}

func (kronecker) read(o *Delta, r *peftKeys) {
	o.Rank, o.Alpha = key(r, "r", 8), key(r, "alpha", 8.0)
	o.Factor, o.FactorBoth = max(key(r, "decompose_factor", -1), 0), key(r, "decompose_both", false)
}

func (kronecker) write(o *Delta, c map[string]any) {
	c["r"], c["alpha"], c["init_weights"] = cmp.Or(o.Rank, 8), cmp.Or(o.Alpha, 8), true
	c["rank_pattern"], c["alpha_pattern"] = map[string]any{}, map[string]any{}
	c["decompose_both"], c["decompose_factor"] = o.FactorBoth, cmp.Or(o.Factor, -1)
}
