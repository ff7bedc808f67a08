package cpu

import (
	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
	"tunesmith/quant"
)

// A sum of matrix products is one instruction: y = other + α₁·x₁·W₁ + α₂·x₂·W₂ …, where the products add to the
// destination and are never stored alone. Shapes: M rows, N columns, K depth.

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
		return s, s.scalable()
	}
	b, ok := n.Op.(graph.Binary)
	if !ok || b.Fn != graph.Add || n.In[0].Size() != n.Size() || n.In[1].Size() != n.Size() {
		return s, false
	}
	for i, x := range n.In {
		s = sum{terms: p.products(n, x, 1), other: n.In[1-i]}
		if s.terms != nil && p.uses[x.ID] == 1 && s.scalable() {
			return s, true
		}
	}
	return s, false
}

// scalable reports whether every factor has a place: the first product of a sum is scaled when it is done, an added
// one by its left operand, which an Outer shares among all its blocks.
func (s sum) scalable() bool {
	for i, t := range s.terms {
		if _, outer := t.node.Op.(graph.Outer); outer && t.alpha != 1 && (i > 0 || s.other != nil) {
			return false
		}
	}
	return true
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
		// The products of a sum have rows of one length.
		if x := n.In[0]; n != top && n.Rank() > 0 && x.Rank() > 0 && x.Dim(-1) == n.Dim(-1) {
			return p.products(top, x, alpha)
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
	for i, t := range s.terms {
		q := p.product(t, i > 0 || other != nil)
		in.in = append(in.in, q.a)
		if q.b != nil {
			in.in = append(in.in, q.b)
		}
		if q.passing != nil {
			in.temp = append(in.temp, q.passing.memory)
		}
		products = append(products, q)
	}
	work := newSumWork(products)
	in.scratch = work.scratch()
	in.bind = func(prog *program) []phase { return work.bind(prog, dst, other) }
	p.emit(in)
	return true
}

// product is α·a·b of M × K and K × N.
type product struct {
	a, b    *value // b is nil where packed is there
	aT, bT  bool   // transposed: a is stored as K × M, b as N × K
	form    *form
	passing *passing       // in place of a form
	stored  *engine.Tensor // in place of a form: read as it is stored
	turned  bool           // x·W by what is packed for x·Wᵀ
	m, n, k int
	alpha   float32
}

// packLimit is the number of elements up to which a trained weight is packed anew at every step, for x·Wᵀ. Larger
// ones are laid out slice by slice in the product itself, and for x·W the rows are read as they stand.
const packLimit = 1 << 16

// The forms of a weight on the right side, beside those that the backend keeps.
const (
	// fewRows is the number of rows up to which a weight is multiplied as it is stored where it is only read.
	fewRows = 64
	// passingLimit is the number of elements of the largest weight that is packed for one product alone.
	passingLimit = 1 << 23
)

// passing is a weight that is packed for one product and forgotten: it costs time instead of memory.
type passing struct {
	tensor *engine.Tensor
	format kernel.Format
	memory *value
}

// right chooses how a weight is read.
func (p *planner) right(q *product, t *engine.Tensor, w *graph.Node) {
	keep := func() { q.form = p.form(t, panels) }
	pass := func(format kernel.Format) {
		q.passing = &passing{t, format, p.temporary(kernel.PackedLen(format, t.Shape[0], t.Shape[1]))}
		if t.Values == nil {
			p.storage[t] = true
		}
	}
	switch {
	case t.Trainable && p.weights.format.BothSides() && t.Size() > packLimit && t.Size() <= passingLimit:
		pass(p.weights.format)
	case t.Trainable && (q.turned || t.Size() > packLimit):
		q.b = p.use(w)
	case t.Trainable || p.learns || t.Values == nil && t.Data == nil:
		keep()
	case q.m <= fewRows && p.readable(t):
		if q.stored = t; t.Values == nil {
			p.storage[t] = true
		}
	case t.Size() > passingLimit || !p.readable(t) || p.weights.find(t, panels) != nil:
		keep()
	default:
		pass(p.weights.formatOf(t))
	}
}

// storedOf views a tensor as the right operand of products of few rows.
func storedOf(t *engine.Tensor) *kernel.Stored {
	w := &kernel.Stored{Cols: t.Shape[0], Depth: t.Shape[1], Format: t.Format, Data: t.Data}
	if t.Values != nil {
		w.Format, w.Data = quant.F32, kernel.Bytes(t.Values)
	}
	return w
}

// readable reports whether products of few rows can read the weight's storage, with the precision that is asked for.
func (p *planner) readable(t *engine.Tensor) bool {
	f := t.Format
	if t.Values != nil {
		f = quant.F32
	}
	exact := f == quant.F32 || f == quant.F16 || f == quant.BF16
	return (exact || p.Precision != engine.FP32) && kernel.CanMultiply(f, t.Shape[1])
}

// panels is the format and the columns of what a product reads as panels, ok false where it reads none.
func (q product) panels() (f kernel.Format, cols int, ok bool) {
	switch {
	case q.form != nil:
		return q.form.packed.Format, q.form.tensor.Shape[0], true
	case q.passing != nil:
		return q.passing.format, q.passing.tensor.Shape[0], true
	}
	return "", 0, false
}

// product returns the operands of a term. A constant factor of an operand joins the term's, where that has a place.
func (p *planner) product(t term, added bool) product {
	q := product{alpha: t.alpha}
	x, w := t.node.In[0], t.node.In[1]
	_, outer := t.node.Op.(graph.Outer)
	if !outer || !added {
		x, w = p.unscaled(x, &q.alpha), p.unscaled(w, &q.alpha)
	}
	rows := func(x *graph.Node) int { return x.Size() / max(x.Dim(-1), 1) }
	use := p.use
	if outer {
		use = p.useRough
	}
	q.a = use(x)
	switch t.node.Op.(type) {
	case graph.Linear:
		q.m, q.n, q.k, q.bT = rows(x), w.Dim(0), w.Dim(1), true
	case graph.LinearT:
		q.m, q.n, q.k = rows(x), w.Dim(1), w.Dim(0)
		q.turned = true
	case graph.Outer:
		q.m, q.n, q.k, q.aT = x.Dim(-1), w.Dim(-1), rows(x), true
	}
	if t, err := p.stores(w); err == nil && t != nil && !outer {
		p.right(&q, t, w)
	} else {
		q.b = use(w)
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

// sumWork computes a sum of products block of rows by block of rows, so that a block of the result and of the
// operands stays in the second cache from one product to the next.
type sumWork struct {
	products  []product
	m, n      int
	blockRows int
}

const blockBytes = 192 << 10 // of a left operand

func newSumWork(products []product) sumWork {
	w := sumWork{products: products, m: products[0].m, n: products[0].n, blockRows: products[0].m}
	tile := kernel.TileRows()
	for _, q := range products {
		if _, _, ok := q.panels(); ok {
			w.blockRows = min(w.blockRows, max(blockBytes/4/max(q.k, 1)/tile*tile, 2*tile))
		}
	}
	return w
}

// scratch is the block of a left operand that is scaled or in integers, and what MatMul needs.
func (w sumWork) scratch() int {
	n := 0
	for _, q := range w.products {
		format, cols, packed := q.panels()
		need := 0
		switch {
		case q.tall():
			need = kernel.MatMulScratch + q.m*q.n
		case q.stored != nil:
			need = kernel.StoredLeftLen(q.m, q.k)
		case !packed:
			need = kernel.MatMulScratch
		case q.turned:
			need = kernel.TurnedScratch(w.blockRows, format, cols)
		case format.BothSides():
			need = kernel.QuantizedLen(format, w.blockRows, q.k)
		}
		if q.alpha != 1 {
			need += w.blockRows * q.k
		}
		n = max(n, need)
		if q.passing != nil {
			n = max(n, kernel.PackScratch)
		}
	}
	return n
}

// bind returns the phases: weights that are packed for these products alone come first.
func (w sumWork) bind(prog *program, dst, other *value) []phase {
	var phases []phase
	packed := make([]*kernel.Packed, len(w.products))
	for i, q := range w.products {
		if q.form != nil {
			packed[i] = q.form.packed
		}
		if q.passing != nil {
			t := q.passing.tensor
			packed[i] = kernel.NewPacked(q.passing.format, t.Shape[0], t.Shape[1], q.passing.memory.f())
			phases = append(phases, func(worker, workers int) {
				lo, hi := share(packed[i].Panels(), 1, worker, workers)
				packPanels(packed[i], 0, reader(t), lo, hi, prog.scratch(worker))
			})
		}
	}
	return append(phases, w.multiply(prog, dst, other, packed))
}

func (w sumWork) multiply(prog *program, dst, other *value, packed []*kernel.Packed) phase {
	to := dst.f()
	var from []float32
	if other != nil {
		if from = other.f(); len(to) > 0 && &from[0] == &to[0] {
			from = nil
		}
	}
	return func(worker, workers int) {
		r := split(w.m, w.n, worker, workers)
		scratch := prog.scratch(worker)
		for m0 := r.M0; m0 < r.M1; m0 += w.blockRows {
			m1 := min(m0+w.blockRows, r.M1)
			if from != nil {
				for i := m0; i < m1; i++ {
					copy(to[i*w.n+r.N0:i*w.n+r.N1], from[i*w.n+r.N0:])
				}
			}
			block := kernel.Range{M0: m0, M1: m1, N0: r.N0, N1: r.N1}
			for i, q := range w.products {
				q.compute(to, block, packed[i], i > 0 || other != nil, scratch)
			}
		}
	}
}

// split returns a worker's part of a product: rows, or columns where there are few rows, so that each part of the
// right operand is read by one worker.
func split(m, n, worker, workers int) kernel.Range {
	r := kernel.Range{M1: m, N1: n}
	if m >= 32*workers || n < m {
		r.M0, r.M1 = share(m, kernel.TileRows(), worker, workers)
	} else {
		r.N0, r.N1 = share(n, kernel.TileCols(), worker, workers)
	}
	return r
}

// compute computes a block of the product, or adds it to what is there.
func (q product) compute(dst []float32, r kernel.Range, packed *kernel.Packed, add bool, scratch []float32) {
	a := q.a.f()
	scaleAfter := q.alpha != 1 && !add
	if q.tall() {
		q.computeTall(dst, r, add, scratch)
		return
	}
	if q.aT {
		kernel.MatMul(dst, q.n, kernel.RowMajor(a, q.m).T(), kernel.RowMajor(q.b.f(), q.n), q.k, r, add, scratch)
	} else {
		rows := kernel.Range{M1: r.M1 - r.M0, N0: r.N0, N1: r.N1}
		x, to := a[r.M0*q.k:r.M1*q.k], dst[r.M0*q.n:]
		if q.alpha != 1 && add {
			scaled := scratch[:len(x)]
			scratch = scratch[len(x):]
			kernel.Scale(scaled, x, q.alpha)
			x = scaled
		}
		switch {
		case q.stored != nil:
			stored := storedOf(q.stored)
			stored.Gemv(to, q.n, stored.NewStoredLeft(x, rows.M1, scratch), r.N0, r.N1, add)
		case packed == nil:
			b := kernel.RowMajor(q.b.f(), q.n)
			if q.bT {
				b = kernel.RowMajor(q.b.f(), q.k).T()
			}
			kernel.MatMul(to, q.n, kernel.RowMajor(x, q.k), b, q.k, rows, add, scratch)
		case q.turned:
			kernel.GemmTurned(to, q.n, x, q.k, packed, rows, add, scratch)
		case packed.Format.BothSides():
			z := kernel.NewQuantized(packed.Format, rows.M1, q.k, scratch)
			z.Quantize(x, q.k, 0, rows.M1)
			kernel.GemmQuantized(to, q.n, z, packed, rows, add)
		default:
			kernel.Gemm(to, q.n, x, q.k, packed, rows, add)
		}
	}
	if scaleAfter {
		for i := r.M0; i < r.M1; i++ {
			row := dst[i*q.n+r.N0 : i*q.n+r.N1]
			kernel.Scale(row, row, q.alpha)
		}
	}
}

// tall reports whether the product is the narrow gradient of a weight, such as that of LoRA's B. It is computed
// lying, so that the narrow operand is the one that is laid out anew.
func (q product) tall() bool { return q.aT && q.n*4 <= q.m }

func (q product) computeTall(dst []float32, r kernel.Range, add bool, scratch []float32) {
	width := r.M1 - r.M0
	lying, scratch := scratch[:q.n*width], scratch[q.n*width:]
	a := kernel.Matrix{Data: q.a.f()[r.M0:], Row: q.m, Col: 1}
	kernel.MatMul(lying, width, kernel.RowMajor(q.b.f(), q.n).T(), a, q.k, kernel.Range{M1: q.n, N1: width}, false, scratch)
	for i := range width {
		row := dst[(r.M0+i)*q.n:][:q.n]
		for j := range row {
			x := q.alpha * lying[j*width+i]
			if add {
				x += row[j]
			}
			row[j] = x
		}
	}
}

func (p *planner) lowerMatMul(n *graph.Node, op graph.MatMul) {
	a, b, dst := p.use(n.In[0]), p.use(n.In[1]), p.wanted(n, 0)
	m, cols, k := n.Dim(-2), n.Dim(-1), n.In[0].Dim(-1)
	if op.TransA {
		k = n.In[0].Dim(-2)
	}
	batch := n.Size() / max(m*cols, 1)
	p.emit(&instr{node: n, in: []*value{a, b}, out: []*value{dst}, scratch: kernel.MatMulScratch, bind: func(prog *program) []phase {
		dst, a, b := dst.f(), a.f(), b.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(batch*m, 1, worker, workers)
			for lo < hi {
				i, row := lo/m, lo%m
				end := min(m, row+hi-lo)
				x, y := kernel.RowMajor(a[i*m*k:], k), kernel.RowMajor(b[i*k*cols:], cols)
				if op.TransA {
					x = kernel.RowMajor(a[i*m*k:], m).T()
				}
				if op.TransB {
					y = kernel.RowMajor(b[i*k*cols:], k).T()
				}
				kernel.MatMul(dst[i*m*cols:], cols, x, y, k, kernel.Range{M0: row, M1: end, N1: cols}, false, prog.scratch(worker))
				lo += end - row
			}
		}}
	}})
}
