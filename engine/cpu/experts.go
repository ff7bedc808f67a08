package cpu

import (
	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// Mixtures of experts: where rows go is known only when the program runs, so instructions read the bounds of each
// expert's rows as they run. No result depends on how the work is shared.

// lowerTopK plans the mask of the largest scores of each row.
func (p *planner) lowerTopK(n *graph.Node, op graph.TopK) {
	scores, mask, experts := p.use(n.In[0]), p.wanted(n, 0), n.Dim(1)
	segments := p.segments(n, 1)
	p.emit(&instr{node: n, in: []*value{scores}, out: []*value{mask}, bind: func(*program) []phase {
		scores, mask, segments := scores.f(), mask.f(), segments()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(mask)/experts, 1, worker, workers)
			for r := lo; r < hi; r++ {
				chosen := mask[r*experts : (r+1)*experts]
				clear(chosen)
				if segments == nil || segments[r] >= 0 {
					markLargest(chosen, scores[r*experts:(r+1)*experts], op.K)
				}
			}
		}}
	}})
}

// markLargest sets the places of the k largest scores to 1; of equal ones the first count.
func markLargest(mask, scores []float32, k int) {
	for range k {
		best := -1
		for i, v := range scores {
			if mask[i] == 0 && (best < 0 || v > scores[best]) {
				best = i
			}
		}
		mask[best] = 1
	}
}

func (p *planner) lowerCapacity(n *graph.Node, op graph.Capacity) {
	mask, dst, experts := p.use(n.In[0]), p.wanted(n, 0), n.Dim(1)
	p.emit(&instr{node: n, in: []*value{mask}, out: []*value{dst}, bind: func(*program) []phase {
		mask, dst := mask.f(), dst.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(dst)/(op.Rows*experts), 1, worker, workers)
			for s := lo; s < hi; s++ {
				count := make([]int, experts)
				for i := s * op.Rows * experts; i < (s+1)*op.Rows*experts; i++ {
					dst[i] = 0
					if e := i % experts; mask[i] != 0 && count[e] < op.Limit {
						dst[i] = 1
						count[e]++
					}
				}
			}
		}}
	}})
}

// lowerRoute plans the sorting of rows by expert, which is one worker's work.
func (p *planner) lowerRoute(n *graph.Node) {
	mask := p.use(n.In[0])
	experts := n.In[0].Dim(1)
	in := &instr{node: n, in: []*value{mask}}
	rows, bounds, places := p.resultOrTemporary(n, 0, in), p.resultOrTemporary(n, 1, in), p.resultOrTemporary(n, 2, in)
	in.bind = func(*program) []phase {
		mask, rows, bounds, places := mask.f(), rows.f(), bounds.f(), places.f()
		return []phase{func(worker, _ int) {
			if worker != 0 {
				return
			}
			next := make([]int, experts+1)
			for i, v := range mask {
				if v != 0 {
					next[i%experts+1]++
				}
			}
			for e := range experts {
				next[e+1] += next[e]
			}
			for e, at := range next {
				bounds[e] = float32(at)
			}
			for i, v := range mask {
				places[i] = noRow
				if at := &next[i%experts]; v != 0 {
					rows[*at], places[i] = float32(i/experts), float32(*at)
					*at++
				}
			}
			for i := int(bounds[experts]); i < len(rows); i++ {
				rows[i] = noRow
			}
		}}
	}
	p.emit(in)
}

func (p *planner) lowerDispatch(n *graph.Node) {
	x, rows, dst, width := p.use(n.In[0]), p.use(n.In[2]), p.wanted(n, 0), n.Dim(1)
	p.emit(&instr{node: n, in: []*value{x, rows}, out: []*value{dst}, bind: func(*program) []phase {
		x, rows, dst := x.f(), rows.f(), dst.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(rows), 1, worker, workers)
			for i := lo; i < hi; i++ {
				to := dst[i*width : (i+1)*width]
				if r := int(rows[i]); r >= 0 {
					copy(to, x[r*width:])
				} else {
					clear(to)
				}
			}
		}}
	}})
}

func (p *planner) lowerCollect(n *graph.Node) {
	x, w, places, dst := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2]), p.wanted(n, 0)
	width, experts := n.Dim(1), n.In[1].Dim(1)
	p.emit(&instr{node: n, in: []*value{x, w, places}, out: []*value{dst}, bind: func(*program) []phase {
		x, w, places, dst := x.f(), w.f(), places.f(), dst.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(w)/experts, 1, worker, workers)
			for r := lo; r < hi; r++ {
				to := dst[r*width : (r+1)*width]
				clear(to)
				for i := r * experts; i < (r+1)*experts; i++ {
					if at := int(places[i]); at >= 0 {
						kernel.Axpy(to, x[at*width:(at+1)*width], w[i])
					}
				}
			}
		}}
	}})
}

func (p *planner) lowerCollectGrad(n *graph.Node) {
	dy, x, w, places := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2]), p.use(n.In[3])
	width, experts := n.Dim(1), n.In[2].Dim(1)
	in := &instr{node: n, in: []*value{dy, x, w, places}}
	dx, dw := p.resultOrTemporary(n, 0, in), p.resultOrTemporary(n, 1, in)
	in.bind = func(*program) []phase {
		dy, x, w, places, dx, dw := dy.f(), x.f(), w.f(), places.f(), dx.f(), dw.f()
		return []phase{
			func(worker, workers int) {
				lo, hi := share(len(dx), grain, worker, workers)
				clear(dx[lo:hi])
			},
			func(worker, workers int) {
				lo, hi := share(len(w)/experts, 1, worker, workers)
				for r := lo; r < hi; r++ {
					d := dy[r*width : (r+1)*width]
					for i := r * experts; i < (r+1)*experts; i++ {
						dw[i] = 0
						if at := int(places[i]); at >= 0 {
							kernel.Scale(dx[at*width:(at+1)*width], d, w[i])
							dw[i] = float32(kernel.Dot(x[at*width:(at+1)*width], d))
						}
					}
				}
			},
		}
	}
	p.emit(in)
}

// experts are the right operands of a grouped product: the matrices, or what is packed of them.
type experts struct {
	m, k   int      // rows and columns of a matrix as it is stored
	turned bool     // x·W, where the other is x·Wᵀ
	values []*value // one for each expert, or one of all; nil where forms are there
	forms  []*form
	count  int
}

// expertMatrices returns the operands of a grouped product.
func (p *planner) expertMatrices(n *graph.Node, turned bool) (experts, error) {
	w := n.In[2:]
	x := experts{m: w[0].Dim(-2), k: w[0].Dim(-1), turned: turned, count: n.In[1].Dim(0) - 1}
	var frozen []*engine.Tensor
	for _, m := range w {
		t, err := p.stores(m)
		if err != nil {
			return x, err
		}
		if t != nil && !t.Trainable {
			frozen = append(frozen, t)
		}
	}
	if len(frozen) < len(w) {
		for _, m := range w {
			x.values = append(x.values, p.use(m))
		}
		return x, nil
	}
	for e := range x.count {
		if len(w) < x.count {
			x.forms = append(x.forms, p.formOf(frozen[0], panels, e))
		} else {
			x.forms = append(x.forms, p.form(frozen[e], panels))
		}
	}
	return x, nil
}

// matrix returns an expert's matrix as the right operand.
func (x experts) matrix(e int) kernel.Matrix {
	var data []float32
	if len(x.values) == 1 && x.count > 1 {
		data = x.values[0].f()[e*x.m*x.k : (e+1)*x.m*x.k]
	} else {
		data = x.values[e].f()
	}
	m := kernel.RowMajor(data, x.k)
	if !x.turned {
		m = m.T()
	}
	return m
}

// sizes returns the columns of the left and of the right side.
func (x experts) sizes() (in, out int) {
	if x.turned {
		return x.m, x.k
	}
	return x.k, x.m
}

// block is the most rows that are multiplied at once, so that they stay in the second cache.
func (x experts) block() int {
	in, _ := x.sizes()
	tile := kernel.TileRows()
	return max(blockBytes/4/max(in, 1)/tile*tile, 2*tile)
}

func (x experts) scratch() int {
	switch {
	case x.forms == nil:
		return kernel.MatMulScratch
	case x.turned:
		return kernel.TurnedScratch(x.block(), x.forms[0].packed.Format, x.m)
	case x.forms[0].packed.Format.BothSides():
		return kernel.QuantizedLen(x.forms[0].packed.Format, x.block(), x.k)
	}
	return 0
}

// lowerGrouped plans the product of rows with the matrix of their group.
func (p *planner) lowerGrouped(n *graph.Node, turned bool) error {
	left, bounds, dst := p.use(n.In[0]), p.use(n.In[1]), p.wanted(n, 0)
	w, err := p.expertMatrices(n, turned)
	if err != nil {
		return err
	}
	in := &instr{node: n, in: append([]*value{left, bounds}, w.values...), out: []*value{dst}, scratch: w.scratch()}
	in.bind = func(prog *program) []phase {
		dst, left, bounds := dst.f(), left.f(), bounds.f()
		depth, width := w.sizes()
		return []phase{func(worker, workers int) {
			total := int(bounds[w.count])
			r := split(total, width, worker, workers)
			for e := range w.count {
				lo, hi := max(int(bounds[e]), r.M0), min(int(bounds[e+1]), r.M1)
				for ; lo < hi; lo += w.block() {
					rows := min(w.block(), hi-lo)
					w.multiply(e, dst[lo*width:], left[lo*depth:(lo+rows)*depth], kernel.Range{M1: rows, N0: r.N0, N1: r.N1}, prog.scratch(worker))
				}
			}
			lo, hi := share(len(dst)-total*width, 1, worker, workers)
			clear(dst[total*width+lo : total*width+hi])
		}}
	}
	p.emit(in)
	return nil
}

// multiply computes rows of the product with one expert's matrix.
func (x experts) multiply(e int, dst, left []float32, r kernel.Range, scratch []float32) {
	in, out := x.sizes()
	if x.forms == nil {
		kernel.MatMul(dst, out, kernel.RowMajor(left, in), x.matrix(e), in, r, false, scratch)
		return
	}
	switch p := x.forms[e].packed; {
	case x.turned:
		kernel.GemmTurned(dst, out, left, in, p, r, false, scratch)
	case p.Format.BothSides():
		q := kernel.NewQuantized(p.Format, r.M1, in, scratch)
		q.Quantize(left, in, 0, r.M1)
		kernel.GemmQuantized(dst, out, q, p, r, false)
	default:
		kernel.Gemm(dst, out, left, in, p, r, false)
	}
}

// lowerGroupedOuter plans the gradients of the experts' matrices: a worker has rows of all of them.
func (p *planner) lowerGroupedOuter(n *graph.Node, op graph.GroupedOuter) {
	dy, x, bounds := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2])
	m, k := n.In[0].Dim(1), n.In[1].Dim(1)
	in := &instr{node: n, in: []*value{dy, x, bounds}, scratch: kernel.MatMulScratch}
	results := make([]*value, op.Experts)
	for i := range n.Types {
		if v := p.wanted(n, i); v != nil {
			results[i] = v
			in.out = append(in.out, v)
		}
	}
	in.bind = func(prog *program) []phase {
		dy, x, bounds := dy.f(), x.f(), bounds.f()
		to := func(e int) []float32 {
			switch {
			case op.Stacked:
				return results[0].f()[e*m*k : (e+1)*m*k]
			case results[e] == nil:
				return nil
			}
			return results[e].f()
		}
		return []phase{func(worker, workers int) {
			m0, m1 := share(m, kernel.TileRows(), worker, workers)
			for e := range op.Experts {
				dst, lo, hi := to(e), int(bounds[e]), int(bounds[e+1])
				switch {
				case dst == nil:
				case lo == hi:
					clear(dst[m0*k : m1*k])
				default:
					kernel.MatMul(dst, k, kernel.RowMajor(dy[lo*m:hi*m], m).T(), kernel.RowMajor(x[lo*k:hi*k], k), hi-lo,
						kernel.Range{M0: m0, M1: m1, N1: k}, false, prog.scratch(worker))
				}
			}
		}}
	}
	p.emit(in)
}
