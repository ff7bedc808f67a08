package cpu

import (
	"slices"

	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// Elements move as runs: a tensor seen as outer × axis × inner, of which whole stretches of axis × inner are copied.

func outerInner(shape []int, axis int) (outer, inner int) {
	outer, inner = 1, 1
	for i, d := range shape {
		switch {
		case i < axis:
			outer *= d
		case i > axis:
			inner *= d
		}
	}
	return outer, inner
}

// part is one copy of a run of n elements for each of the outer indices.
type part struct {
	dst, src             *value
	dstAt, srcAt         int // of the first run
	dstStride, srcStride int
	n                    int
}

// parts returns the copies of a Slice, Pad or Concat, and how often each is repeated.
func (p *planner) parts(n *graph.Node, op graph.Op) (list []part, outer int) {
	dst := p.wanted(n, 0)
	x := n.In[0]
	switch op := op.(type) {
	case graph.Slice:
		axis := op.Axis
		if axis < 0 {
			axis += x.Rank()
		}
		outer, inner := outerInner(x.Shape(), axis)
		run := (op.Hi - op.Lo) * inner
		return []part{{dst, p.use(x), 0, op.Lo * inner, run, x.Dim(axis) * inner, run}}, outer
	case graph.Pad:
		outer, inner := outerInner(x.Shape(), op.Axis)
		run := x.Dim(op.Axis) * inner
		return []part{{dst, p.use(x), op.Lo * inner, 0, op.Size * inner, run, run}}, outer
	case graph.Concat:
		outer, inner := outerInner(n.Shape(), op.Axis)
		at := 0
		for _, x := range n.In {
			run := x.Dim(op.Axis) * inner
			list = append(list, part{dst, p.use(x), at, 0, n.Dim(op.Axis) * inner, run, run})
			at += run
		}
		return list, outer
	}
	return nil, 0
}

func copyRuns[T any](dst, src []T, q part, lo, hi int) {
	for i := lo; i < hi; i++ {
		copy(dst[q.dstAt+i*q.dstStride:][:q.n], src[q.srcAt+i*q.srcStride:][:q.n])
	}
}

// copyParts is a Slice or Concat of integers.
func copyParts(p *planner, n *graph.Node, op graph.Op) func() {
	list, outer := p.parts(n, op)
	return func() {
		for _, q := range list {
			copyRuns(q.dst.i(), q.src.i(), q, 0, outer)
		}
	}
}

func (p *planner) lowerParts(n *graph.Node, op graph.Op, clean bool) {
	list, outer := p.parts(n, op)
	in := &instr{node: n, out: []*value{list[0].dst}}
	for _, q := range list {
		in.in = append(in.in, q.src)
	}
	in.bind = func(*program) []phase {
		return []phase{func(worker, workers int) {
			lo, hi := share(outer, 1, worker, workers)
			if outer == 1 {
				lo, hi = 0, 0
				if worker == 0 {
					hi = 1
				}
			}
			if clean {
				q := list[0]
				clear(q.dst.f()[lo*q.dstStride : hi*q.dstStride])
			}
			for _, q := range list {
				copyRuns(q.dst.f(), q.src.f(), q, lo, hi)
			}
		}}
	}
	p.emit(in)
}

func (p *planner) lowerSlice(n *graph.Node, op graph.Slice)   { p.lowerParts(n, op, false) }
func (p *planner) lowerPad(n *graph.Node, op graph.Pad)       { p.lowerParts(n, op, true) }
func (p *planner) lowerConcat(n *graph.Node, op graph.Concat) { p.lowerParts(n, op, false) }

// lowerTranspose permutes axes. Neighbouring axes that stay neighbours move as one.
func (p *planner) lowerTranspose(n *graph.Node, op graph.Transpose) {
	x := n.In[0]
	stride := make([]int, x.Rank())
	size := 1
	for i := x.Rank() - 1; i >= 0; i-- {
		stride[i] = size
		size *= x.Dim(i)
	}
	var dims, strides []int
	for i, a := range op.Perm {
		if d := len(dims); i > 0 && a == op.Perm[i-1]+1 {
			dims[d-1] *= x.Dim(a)
			strides[d-1] = stride[a]
			continue
		}
		dims, strides = append(dims, x.Dim(a)), append(strides, stride[a])
	}
	src, dst := p.use(x), p.wanted(n, 0)
	p.emit(&instr{node: n, in: []*value{src}, out: []*value{dst}, bind: func(*program) []phase {
		dst, src := dst.f(), src.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(dst), grain, worker, workers)
			gather(dst[lo:hi], src, dims, strides, lo)
		}}
	}})
}

// gather fills dst, which is the elements of a tensor of the dimensions from the flat index at on, with the
// elements of src at the strides.
func gather(dst, src []float32, dims, strides []int, at int) {
	if len(dst) == 0 {
		return
	}
	last := len(dims) - 1
	if last < 0 {
		dst[0] = src[0]
		return
	}
	index := make([]int, len(dims))
	place := 0
	for d := last; d >= 0; d-- {
		index[d] = at % dims[d]
		at /= dims[d]
		place += index[d] * strides[d]
	}
	for len(dst) > 0 {
		n, s := min(dims[last]-index[last], len(dst)), strides[last]
		switch s {
		case 0:
			v := src[place]
			for i := range dst[:n] {
				dst[i] = v
			}
		case 1:
			copy(dst[:n], src[place:])
		default:
			for i := range dst[:n] {
				dst[i] = src[place+i*s]
			}
		}
		dst = dst[n:]
		place -= index[last] * s
		index[last] = 0
		for d := last - 1; d >= 0; d-- {
			place += strides[d]
			if index[d]++; index[d] < dims[d] {
				break
			}
			place -= dims[d] * strides[d]
			index[d] = 0
		}
	}
}

// broadcastStrides returns the dimensions of to and the strides by which a tensor of shape from repeats in it, with
// axes joined where they can be.
func broadcastStrides(from, to []int) (dims, strides []int) {
	stride := 1
	full := make([]int, len(to))
	for i := 1; i <= len(from); i++ {
		if d := from[len(from)-i]; d > 1 {
			full[len(to)-i] = stride
			stride *= d
		}
	}
	for i, d := range to {
		if d == 1 {
			continue
		}
		if k := len(dims) - 1; k >= 0 && strides[k] == full[i]*d {
			dims[k] *= d
			strides[k] = full[i]
			continue
		}
		dims, strides = append(dims, d), append(strides, full[i])
	}
	if len(dims) == 0 {
		return []int{1}, []int{0}
	}
	return dims, strides
}

// noRow is an index that no row has.
const noRow = -1

func (p *planner) lowerGatherRows(n *graph.Node) {
	x, index, dst := p.use(n.In[0]), p.use(n.In[1]), p.wanted(n, 0)
	rows := n.In[0].Dim(0)
	p.checkRange("row index", n.In[1], anyBelow, rows)
	width := n.In[0].Size() / max(rows, 1)
	p.emit(&instr{node: n, in: []*value{x}, out: []*value{dst}, bind: func(*program) []phase {
		dst, x, index := dst.f(), x.f(), index.i()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(index), 1, worker, workers)
			for r := lo; r < hi; r++ {
				to := dst[r*width : (r+1)*width]
				if i := int(index[r]); i >= 0 {
					copy(to, x[i*width:])
				} else {
					clear(to)
				}
			}
		}}
	}})
}

// lowerScatterRows adds rows to where their index says, except those of a negative index and those of skip. A
// worker has a range of columns, so that rows are added in their order.
func (p *planner) lowerScatterRows(n *graph.Node, rows, index *value, skip int32) {
	dst := p.wanted(n, 0)
	count := n.Dim(0)
	width := n.Size() / max(count, 1)
	p.emit(&instr{node: n, in: []*value{rows}, out: []*value{dst}, bind: func(*program) []phase {
		dst, rows, index := dst.f(), rows.f(), index.i()
		return []phase{
			func(worker, workers int) {
				lo, hi := share(len(dst), grain, worker, workers)
				clear(dst[lo:hi])
			},
			func(worker, workers int) {
				lo, hi := share(width, align, worker, workers)
				if lo == hi {
					return
				}
				for r, i := range index {
					if i >= 0 && i != skip {
						to := dst[int(i)*width+lo : int(i)*width+hi]
						kernel.Add(to, to, rows[r*width+lo:])
					}
				}
			},
		}
	}})
	if _, ok := n.Op.(graph.ScatterRows); ok {
		p.checkRange("row index", n.In[1], anyBelow, count)
	}
}

// sameShape reports whether two shapes are equal but for leading dimensions of 1.
func sameShape(a, b []int) bool {
	trim := func(s []int) []int {
		for len(s) > 0 && s[0] == 1 {
			s = s[1:]
		}
		return s
	}
	return slices.Equal(trim(a), trim(b))
}
