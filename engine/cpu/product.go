package cpu

import (
	"tunesmith/graph"
)

// A sum of matrix products is one instruction: y = other + α₁·x₁·W₁ + α₂·x₂·W₂ …, where the products add to the
// destination and are never stored alone. Shapes: M rows, N columns, K depth.

// matrix is an operand read by strides.
type matrix struct {
	v                *value
	rowStep, colStep int
}

// term is one product of a sum: α·a·b.
type term struct {
	node  *graph.Node // Linear, LinearT or Outer
	alpha float32
}

// sum is what flattening a node finds.
type sum struct {
	terms []term
	other *graph.Node // added before the products; nil for none
}

// span is how many nodes may lie between a product and the sum that it is moved to.
const span = 32

// isSum reports whether lowerSum takes the node.
func (p *planner) isSum(n *graph.Node) bool {
	_, ok := p.flatten(n)
	return ok
}

// flatten reads a node as a sum of products and at most one other value.
func (p *planner) flatten(n *graph.Node) (s sum, ok bool) {
	if s.terms = p.products(n, n, 1); s.terms != nil {
		return s, true
	}
	b, ok := n.Op.(graph.Binary)
	if !ok || b.Fn != graph.Add || n.In[0].Size() != n.Size() || n.In[1].Size() != n.Size() {
		return s, false
	}
	for i, x := range n.In {
		if p.uses[x.ID] != 1 {
			continue
		}
		if s.terms = p.products(n, x, 1); s.terms != nil {
			s.other = n.In[1-i]
			return s, true
		}
	}
	return s, false
}

// products returns the products that n is the sum of, each times alpha, or nil where it is anything else. Only the
// top node may have other uses.
func (p *planner) products(top, n *graph.Node, alpha float32) []term {
	if n != top && (p.uses[n.ID] != 1 || top.ID-n.ID > span) {
		return nil
	}
	switch op := n.Op.(type) {
	case graph.Linear, graph.LinearT, graph.Outer:
		return []term{{n, alpha}}
	case graph.ReshapeTo:
		if n != top {
			return p.products(top, n.In[0], alpha)
		}
	case graph.Affine:
		if op.Add == 0 {
			return p.products(top, n.In[0], alpha*op.Mul)
		}
	case graph.Binary:
		if op.Fn == graph.Add && n.In[0].Size() == n.Size() && n.In[1].Size() == n.Size() {
			if a := p.products(top, n.In[0], alpha); a != nil {
				if b := p.products(top, n.In[1], alpha); b != nil {
					return append(a, b...)
				}
			}
		}
	}
	return nil
}

// lowerSum plans the node where it is a sum of products, and reports whether it is one.
func (p *planner) lowerSum(n *graph.Node) bool {
	s, ok := p.flatten(n)
	if !ok {
		return false
	}
	dst := p.wanted(n, 0)
	in := &instr{node: n, out: []*value{dst}}
	var other *value
	if s.other != nil {
		other = p.use(s.other)
		in.over = append(in.over, other)
	}
	var products []product
	for _, t := range s.terms {
		q := p.product(t)
		in.in = append(in.in, q.a.v, q.b.v)
		products = append(products, q)
	}
	in.bind = func(*program) []phase {
		var phases []phase
		to := dst.f()
		if other != nil {
			if from := other.f(); len(to) > 0 && &from[0] != &to[0] {
				phases = append(phases, func(worker, workers int) {
					lo, hi := share(len(to), grain, worker, workers)
					copy(to[lo:hi], from[lo:hi])
				})
			}
		}
		for i, q := range products {
			phases = append(phases, q.phase(to, i > 0 || other != nil))
		}
		return phases
	}
	p.emit(in)
	return true
}

// product is α·a·b of M × K and K × N.
type product struct {
	a, b    matrix
	m, n, k int
	alpha   float32
}

// product returns the operands of a term. A constant factor of an operand joins the term's.
func (p *planner) product(t term) product {
	q := product{alpha: t.alpha}
	x, w := p.unscaled(t.node.In[0], &q.alpha), p.unscaled(t.node.In[1], &q.alpha)
	rows := func(x *graph.Node) int { return x.Size() / max(x.Dim(-1), 1) }
	xv, wv := p.use(x), p.use(w)
	switch t.node.Op.(type) {
	case graph.Linear:
		q.m, q.n, q.k = rows(x), w.Dim(0), w.Dim(1)
		q.a, q.b = matrix{xv, q.k, 1}, matrix{wv, 1, q.k}
	case graph.LinearT:
		q.m, q.n, q.k = rows(x), w.Dim(1), w.Dim(0)
		q.a, q.b = matrix{xv, q.k, 1}, matrix{wv, q.n, 1}
	case graph.Outer:
		q.m, q.n, q.k = x.Dim(-1), w.Dim(-1), rows(x)
		q.a, q.b = matrix{xv, 1, q.m}, matrix{wv, q.n, 1}
	}
	return q
}

// unscaled returns what a multiple by a constant is taken of, and multiplies alpha by the constant.
func (p *planner) unscaled(n *graph.Node, alpha *float32) *graph.Node {
	for {
		op, ok := n.Op.(graph.Affine)
		if !ok || op.Add != 0 {
			return n
		}
		*alpha *= op.Mul
		n = n.In[0]
	}
}

func (q product) phase(dst []float32, keep bool) phase {
	a, b := q.a.v.f(), q.b.v.f()
	return func(worker, workers int) {
		m0, m1, n0, n1 := split(q.m, q.n, worker, workers)
		multiply(dst, q.n, a, q.a.rowStep, q.a.colStep, b, q.b.rowStep, q.b.colStep, m0, m1, n0, n1, q.k, q.alpha, keep)
	}
}

// split returns a worker's rows and columns of a product: a range of the longer side.
func split(m, n, worker, workers int) (m0, m1, n0, n1 int) {
	m1, n1 = m, n
	if m >= n || m >= 16*workers {
		m0, m1 = share(m, 4, worker, workers)
	} else {
		n0, n1 = share(n, align, worker, workers)
	}
	return
}

func (p *planner) lowerMatMul(n *graph.Node, op graph.MatMul) {
	a, b, dst := p.use(n.In[0]), p.use(n.In[1]), p.wanted(n, 0)
	m, cols, k := n.Dim(-2), n.Dim(-1), n.In[0].Dim(-1)
	aRow, aCol, bRow, bCol := k, 1, cols, 1
	if op.TransA {
		k = n.In[0].Dim(-2)
		aRow, aCol = 1, m
	}
	if op.TransB {
		bRow, bCol = 1, k
	}
	batch := n.Size() / max(m*cols, 1)
	p.emit(&instr{node: n, in: []*value{a, b}, out: []*value{dst}, bind: func(*program) []phase {
		dst, a, b := dst.f(), a.f(), b.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(batch*m, 1, worker, workers)
			for lo < hi {
				i, row := lo/m, lo%m
				end := min(m, row+hi-lo)
				multiply(dst[i*m*cols:], cols, a[i*m*k:], aRow, aCol, b[i*k*cols:], bRow, bCol, row, end, 0, cols, k, 1, false)
				lo += end - row
			}
		}}
	}})
}

// multiply is c = α·a·b, or c += α·a·b to keep what is there, for the rows m0 … m1−1 and columns n0 … n1−1.
func multiply(c []float32, ldc int, a []float32, aRow, aCol int, b []float32, bRow, bCol int, m0, m1, n0, n1, k int, alpha float32, keep bool) {
	for i := m0; i < m1; i++ {
		to := c[i*ldc : i*ldc+n1]
		if !keep {
			clear(to[n0:])
		}
		if bCol == 1 {
			for l := range k {
				x := alpha * a[i*aRow+l*aCol]
				row := b[l*bRow : l*bRow+n1]
				for j := n0; j < n1; j++ {
					to[j] += x * row[j]
				}
			}
			continue
		}
		for j := n0; j < n1; j++ {
			var s float32
			at := j * bCol
			for l := range k {
				s += a[i*aRow+l*aCol] * b[at+l*bRow]
			}
			to[j] += alpha * s
		}
	}
}
