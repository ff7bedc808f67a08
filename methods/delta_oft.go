package methods

import (
	"math"

	"tunesmith/graph"
	"tunesmith/site"
)

// rotation is W·blockdiag(R)ᵀ (Qiu et al. 2023, arXiv 2306.07280): blocks of the input turn by R = (I−Q)·(I+Q)⁻¹, Q skew, or
// by the first terms of the series I + 2Q + 2Q² + …, which turns the other way. The trained rows are Q's upper triangles.
type rotation struct{}

// block returns the size of the blocks of a module.
func (rotation) block(o *Delta, in int) int {
	if o.Blocks > 0 {
		return in / divisor(in, o.Blocks)
	}
	return divisor(in, o.Block)
}

// divisor returns the divisor of n that is nearest to k, the lower of two.
func divisor(n, k int) int {
	if k >= n {
		return n
	}
	for d := range n {
		if k-d > 0 && n%(k-d) == 0 {
			return k - d
		}
		if n%(k+d) == 0 {
			return k + d
		}
	}
	return n
}

func (v rotation) tensors(d *delta, at site.Linear) []site.Param {
	b := v.block(&d.Delta, at.In)
	n := at.In / b
	if d.ShareBlocks {
		n = 1
	}
	return []site.Param{{Name: "oft_R.weight", Shape: []int{n, b * (b - 1) / 2}, Init: zeros}}
}

func (v rotation) graft(s *site.Scope, d *delta, at site.Linear, x, _ *graph.Node, p []*graph.Node) *graph.Node {
	b := v.block(&d.Delta, at.In)
	q := skew(s, p[0], b)
	r := v.series(s, q, d.Terms)
	blocks := at.In / b
	if d.ShareBlocks {
		r = graph.BroadcastTo(r, []int{blocks, b, b})
	}
	h := graph.Permute(graph.Reshape(x, -1, blocks, b), 1, 0, 2)
	h = graph.Reshape(graph.Permute(graph.Product(h, r, false, false), 1, 0, 2), x.Shape()...)
	y := graph.Project(h, s.BaseWeight(at))
	if at.Bias {
		y = graph.Plus(y, s.BaseBias(at))
	}
	return y
}

// skew lays upper triangles (n, b(b−1)/2) out as skew matrices (n, b, b).
func skew(s *site.Scope, upper *graph.Node, b int) *graph.Node {
	n, count := upper.Dim(0), upper.Dim(1)
	place := make([]int32, b*b)
	k := int32(0)
	for i := range b {
		place[i*b+i] = int32(2 * count)
		for j := i + 1; j < b; j++ {
			place[i*b+j], place[j*b+i] = k, int32(count)+k
			k++
		}
	}
	rows := graph.Permute(upper, 1, 0)
	zero := graph.BroadcastTo(s.Scalar(0), []int{1, n})
	table := graph.Join(0, rows, graph.Scale(rows, -1), zero)
	return graph.Reshape(graph.Permute(graph.Lookup(table, s.Ints(place, b*b), -1), 1, 0), n, b, b)
}

// series returns the rotations of skew matrices.
func (rotation) series(s *site.Scope, q *graph.Node, terms int) *graph.Node {
	b := q.Dim(1)
	one := identity(s, b)
	if terms == 0 {
		plus := graph.Plus(q, one)
		// The eigenvalues of (I+Q)(I+Q)ᵀ lie between 1 and 1 + ‖Q‖²/2.
		square := graph.Sum(graph.Times(q, q), 1, 2)
		bound := graph.Shift(graph.Scale(square, 0.25), 1)
		start := graph.Times(graph.Permute(plus, 0, 2, 1), graph.Reshape(graph.Apply(graph.Reciprocal, bound), q.Dim(0), 1, 1))
		return graph.Product(graph.Minus(one, q), inverted(s, plus, start, 10), false, false)
	}
	r := graph.BroadcastTo(graph.Reshape(one, 1, b, b), q.Shape())
	power := q
	for k := 1; k < terms; k++ {
		if k > 1 {
			power = graph.Product(power, q, false, false)
		}
		f := float32(2)
		if k == terms-1 && k > 2 {
			f = 1
		}
		r = graph.Plus(r, graph.Scale(power, f))
	}
	return r
}

func identity(s *site.Scope, n int) *graph.Node {
	one := make([]float32, n*n)
	for i := range n {
		one[i*n+i] = 1
	}
	return s.Floats(one, n, n)
}

// inverted returns the inverses of matrices m (k, n, n) by Newton's iteration from start, which has to be near enough: all
// eigenvalues of I − m·start below 1. Only the last turn has a gradient, which is the inverse's own: −m⁻¹·dm·m⁻¹.
func inverted(s *site.Scope, m, start *graph.Node, turns int) *graph.Node {
	n := m.Dim(-1)
	two := s.Floats(scaledIdentity(n, 2), n, n)
	frozen := graph.Detach(m)
	x := graph.Detach(start)
	for range turns {
		x = graph.Product(x, graph.Minus(two, graph.Product(frozen, x, false, false)), false, false)
	}
	x = graph.Detach(x)
	return graph.Product(x, graph.Minus(two, graph.Product(m, x, false, false)), false, false)
}

func scaledIdentity(n int, f float32) []float32 {
	out := make([]float32, n*n)
	for i := range n {
		out[i*n+i] = f
	}
	return out
}

func (v rotation) merge(d *delta, at site.Linear, w []float32, p [][]float32, _ func(string) []float32) error {
	b := v.block(&d.Delta, at.In)
	count := b * (b - 1) / 2
	row := make([]float64, b)
	for k := range at.In / b {
		upper := p[0]
		if !d.ShareBlocks {
			upper = p[0][k*count:][:count]
		}
		r := turn(upper, b, d.Terms)
		for o := range at.Out {
			part := w[o*at.In+k*b:][:b]
			for i := range b { // W·Rᵀ
				row[i] = 0
				for j, x := range part {
					row[i] += float64(x) * r[i*b+j]
				}
			}
			for i, x := range row {
				part[i] = float32(x)
			}
		}
	}
	return nil
}

// turn returns the rotation (b, b) of an upper triangle.
func turn(upper []float32, b, terms int) []float64 {
	q := make([]float64, b*b)
	k := 0
	for i := range b {
		for j := i + 1; j < b; j++ {
			q[i*b+j], q[j*b+i] = float64(upper[k]), -float64(upper[k])
			k++
		}
	}
	r := make([]float64, b*b)
	if terms == 0 {
		// R·(I+Q) = I−Q, solved from the right: (I+Q)ᵀ·Rᵀ = (I−Q)ᵀ, and (I+Q)ᵀ = I−Q.
		a, t := make([]float64, b*b), make([]float64, b*b)
		for i := range b * b {
			a[i], t[i] = -q[i], q[i]
		}
		for i := range b {
			a[i*b+i]++
			t[i*b+i]++
		}
		solve(a, t, b)
		for i := range b {
			for j := range b {
				r[j*b+i] = t[i*b+j]
			}
		}
		return r
	}
	power := q
	for i := range b {
		r[i*b+i] = 1
	}
	for k := 1; k < terms; k++ {
		if k > 1 {
			power = times64(power, q, b)
		}
		f := 2.0
		if k == terms-1 && k > 2 {
			f = 1
		}
		addScaled(r, power, f)
	}
	return r
}

func times64(x, y []float64, n int) []float64 {
	out := make([]float64, n*n)
	for i := range n {
		for k := range n {
			addScaled(out[i*n:(i+1)*n], y[k*n:(k+1)*n], x[i*n+k])
		}
	}
	return out
}

// solve overwrites t (n, n) with a⁻¹·t by elimination with the largest pivot; a is lost.
func solve(a, t []float64, n int) {
	for c := range n {
		best := c
		for i := c + 1; i < n; i++ {
			if math.Abs(a[i*n+c]) > math.Abs(a[best*n+c]) {
				best = i
			}
		}
		for j := range n {
			a[c*n+j], a[best*n+j] = a[best*n+j], a[c*n+j]
			t[c*n+j], t[best*n+j] = t[best*n+j], t[c*n+j]
		}
		f := 1 / a[c*n+c]
		for j := range n {
			a[c*n+j] *= f
			t[c*n+j] *= f
		}
		for i := range n {
			if i == c {
				continue
			}
			g := -a[i*n+c]
			addScaled(a[i*n:(i+1)*n], a[c*n:(c+1)*n], g)
			addScaled(t[i*n:(i+1)*n], t[c*n:(c+1)*n], g)
		}
	}
}

func (rotation) read(o *Delta, r *peftKeys) {
	o.Block, o.Blocks = key(r, "oft_block_size", 32), key(r, "r", 0)
	o.ShareBlocks = key(r, "block_share", false)
	if key(r, "use_cayley_neumann", true) {
		o.Terms = key(r, "num_cayley_neumann_terms", 5)
	}
}

func (rotation) write(o *Delta, c map[string]any) {
	c["r"], c["oft_block_size"] = o.Blocks, o.Block
	if o.Blocks > 0 {
		c["oft_block_size"] = 0
	}
	c["block_share"], c["use_cayley_neumann"], c["bias"], c["init_weights"] = o.ShareBlocks, o.Terms > 0, "none", true
	if o.Terms > 0 {
		c["num_cayley_neumann_terms"] = o.Terms
	}
}
