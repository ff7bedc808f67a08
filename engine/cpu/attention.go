package cpu

import (
	"cmp"
	"slices"

	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// Attention is cut into units of one batch row, one head of keys and values with its query heads, and, forward, one
// block of queries. Legend: q (B, T, H, D), k and v (B, S, G, D).

// attentionShape is the sizes.
type attentionShape struct {
	op               graph.Attention
	b, t, s, h, g, d int
}

func newShape(op graph.Attention, q, k *graph.Node) attentionShape {
	return attentionShape{op: op, b: q.Dim(0), t: q.Dim(1), s: k.Dim(1), h: q.Dim(2), g: k.Dim(2), d: q.Dim(3)}
}

// kernel is the description of one unit; first is the place of query 0 among the keys behind the prefix.
func (s attentionShape) kernel(first int) kernel.Attention {
	return kernel.Attention{
		Queries: s.t, Keys: s.s, Dim: s.d, Group: s.h / s.g, QRow: s.h * s.d, KRow: s.g * s.d,
		Prefix: s.op.Prefix, First: first, Causal: s.op.Causal, Window: s.op.Window, Softcap: s.op.Softcap, Scale: s.op.Scale,
	}
}

// unit is a part of the work and about how long it takes.
type unit struct {
	b, g, q0, q1 int
	cost         int
}

const queryUnit = 64

// units returns each worker's units of the forward pass: the longest are given out first, each to the worker that
// has least.
func (s attentionShape) units(workers int) [][]unit {
	var all []unit
	for b := range s.b {
		for g := range s.g {
			for q := 0; q < s.t; q += queryUnit {
				u := unit{b, g, q, min(q+queryUnit, s.t), s.s}
				if s.op.Causal && s.s == s.t+s.op.Prefix {
					u.cost = s.op.Prefix + u.q1
				}
				all = append(all, u)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b unit) int { return cmp.Compare(b.cost, a.cost) })
	out, load := make([][]unit, workers), make([]int, workers)
	for _, u := range all {
		w := slices.Index(load, slices.Min(load))
		out[w] = append(out[w], u)
		load[w] += u.cost
	}
	return out
}

// The first element of a unit in q, in k and in the logarithms of denominators (B, H, T).
func (s attentionShape) q(b, g int) int   { return b*s.t*s.h*s.d + g*(s.h/s.g)*s.d }
func (s attentionShape) k(b, g int) int   { return b*s.s*s.g*s.d + g*s.d }
func (s attentionShape) lse(b, g int) int { return (b*s.h + g*(s.h/s.g)) * s.t }

func (p *planner) lowerAttention(n *graph.Node, op graph.Attention) {
	q, k, v := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2])
	s := newShape(op, n.In[0], n.In[1])
	segments := p.segments(n, 3)
	unit := s.kernel(0)
	in := &instr{node: n, in: []*value{q, k, v}, scratch: unit.ForwardScratch()}
	out, lse := p.resultOrTemporary(n, 0, in), p.resultOrTemporary(n, 1, in)
	in.bind = func(prog *program) []phase {
		out, lse, q, k, v, segments := out.f(), lse.f(), q.f(), k.f(), v.f(), segments()
		units := s.units(p.Workers)
		return []phase{func(worker, _ int) {
			for _, u := range units[worker] {
				a := s.masked(segments, u.b, 0)
				qa, ka := s.q(u.b, u.g), s.k(u.b, u.g)
				a.Forward(out[qa:], lse[s.lse(u.b, u.g):], q[qa:], k[ka:], v[ka:], u.q0, u.q1, prog.scratch(worker))
			}
		}}
	}
	p.emit(in)
}

// resultOrTemporary returns result i of the node as an output of the instruction, or memory for it where nothing
// asks for it.
func (p *planner) resultOrTemporary(n *graph.Node, i int, in *instr) *value {
	if v := p.wanted(n, i); v != nil {
		in.out = append(in.out, v)
		return v
	}
	v := p.temporary(n.Types[i].Size())
	in.temp = append(in.temp, v)
	return v
}

// segments returns what gives the segments at binding: input i of the node, nil where it is absent.
func (p *planner) segments(n *graph.Node, i int) func() []int32 {
	if len(n.In) <= i {
		return func() []int32 { return nil }
	}
	v := p.use(n.In[i])
	return func() []int32 { return v.i() }
}

func (s attentionShape) masked(segments []int32, b, first int) kernel.Attention {
	a := s.kernel(first)
	if segments != nil {
		a.QSeg = segments[b*s.t : (b+1)*s.t]
		a.KSeg = a.QSeg
	}
	return a
}

// lowerAttentionGrad plans the gradient: a worker has whole heads of keys, to which nobody else adds.
func (p *planner) lowerAttentionGrad(n *graph.Node, op graph.AttentionGrad) {
	dout, q, k, v := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2]), p.useRough(n.In[3])
	out, lse := p.useRough(n.In[4]), p.use(n.In[5])
	s := newShape(op.Attention, n.In[1], n.In[2])
	segments := p.segments(n, 6)
	unit := s.kernel(0)
	in := &instr{node: n, in: []*value{dout, q, k, v, out, lse}, scratch: unit.BackwardScratch()}
	dq, dk, dv := p.resultOrTemporary(n, 0, in), p.resultOrTemporary(n, 1, in), p.resultOrTemporary(n, 2, in)
	in.bind = func(prog *program) []phase {
		dout, q, k, v, out, lse, segments := dout.f(), q.f(), k.f(), v.f(), out.f(), lse.f(), segments()
		dq, dk, dv := dq.f(), dk.f(), dv.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(s.b*s.g, 1, worker, workers)
			for u := lo; u < hi; u++ {
				b, g := u/s.g, u%s.g
				a := s.masked(segments, b, 0)
				qa, ka := s.q(b, g), s.k(b, g)
				a.Backward(dq[qa:], dk[ka:], dv[ka:], dout[qa:], q[qa:], k[ka:], v[ka:], out[qa:], lse[s.lse(b, g):], prog.scratch(worker))
			}
		}}
	}
	p.emit(in)
}

// lowerCachedAttention plans attention over caches, of which the keys behind the last query are not read.
func (p *planner) lowerCachedAttention(n *graph.Node, op graph.CachedAttention) {
	q, k, v, start := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2]), p.use(n.In[3])
	s := newShape(op.Attention, n.In[0], n.In[1])
	p.checkRange("cache position", n.In[3], 0, s.s-s.t+1)
	unit := s.kernel(0)
	in := &instr{node: n, in: []*value{q, k, v}, scratch: unit.ForwardScratch()}
	out, lse := p.resultOrTemporary(n, 0, in), p.temporary(s.b*s.h*s.t)
	in.temp = append(in.temp, lse)
	in.bind = func(prog *program) []phase {
		out, lse, q, k, v, start := out.f(), lse.f(), q.f(), k.f(), v.f(), start.i()
		units := s.units(p.Workers)
		return []phase{func(worker, _ int) {
			for _, u := range units[worker] {
				at := int(start[u.b])
				a := s.kernel(at - s.op.Prefix)
				a.Keys = max(at+u.q1, min(s.op.Prefix, s.s))
				qa, ka := s.q(u.b, u.g), s.k(u.b, u.g)
				a.Forward(out[qa:], lse[s.lse(u.b, u.g):], q[qa:], k[ka:], v[ka:], u.q0, u.q1, prog.scratch(worker))
			}
		}}
	}
	p.emit(in)
}
