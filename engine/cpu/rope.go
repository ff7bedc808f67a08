package cpu

import (
	"fmt"
	"math"

	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// table is the cosines and sines of a set of positions, (B, T, pairs) each, computed once a run for all rotations
// that share it.
type table struct{ cos, sin *value }

func (p *planner) rotations(n *graph.Node, op graph.RoPE) *table {
	key := fmt.Sprint(n.In[1].ID, op.Factor, op.InvFreq)
	if t := p.tables[key]; t != nil {
		return t
	}
	positions, rows, pairs := p.use(n.In[1]), n.In[1].Size(), len(op.InvFreq)
	t := &table{p.temporary(rows * pairs), p.temporary(rows * pairs)}
	p.tables[key] = t
	p.first = append(p.first, &instr{node: n, out: []*value{t.cos, t.sin}, bind: func(*program) []phase {
		cos, sin, positions := t.cos.f(), t.sin.f(), positions.i()
		return []phase{func(worker, workers int) {
			lo, hi := share(rows, 1, worker, workers)
			for r := lo; r < hi; r++ {
				for i, f := range op.InvFreq {
					s, c := math.Sincos(float64(positions[r]) * float64(f))
					cos[r*pairs+i], sin[r*pairs+i] = float32(c*float64(op.Factor)), float32(s*float64(op.Factor))
				}
			}
		}}
	}})
	return t
}

func (p *planner) lowerRoPE(n *graph.Node, op graph.RoPE) {
	x, dst, t := p.use(n.In[0]), p.wanted(n, 0), p.rotations(n, op)
	heads, d, pairs := n.Dim(2), n.Dim(3), len(op.InvFreq)
	sign := float32(1)
	if op.Inverse {
		sign = -1
	}
	in := &instr{node: n, in: []*value{t.cos, t.sin}, over: []*value{x}, out: []*value{dst}}
	in.bind = func(*program) []phase {
		dst, x, cos, sin := dst.f(), x.f(), t.cos.f(), t.sin.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(x)/d, 1, worker, workers)
			for r := lo; r < hi; r++ {
				x, y := x[r*d:(r+1)*d], dst[r*d:(r+1)*d]
				cos, sin := cos[r/heads*pairs:][:pairs], sin[r/heads*pairs:][:pairs]
				if !op.Interleaved {
					copy(y, x)
					kernel.Rotate(y, cos, sin, op.Inverse)
					continue
				}
				for i, c := range cos {
					a, b, s := x[2*i], x[2*i+1], sin[i]*sign
					y[2*i], y[2*i+1] = a*c-b*s, b*c+a*s
				}
				copy(y[2*pairs:], x[2*pairs:])
			}
		}}
	}
	p.emit(in)
}
