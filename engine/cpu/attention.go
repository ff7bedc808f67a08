package cpu

import (
	"math"

	"tunesmith/graph"
)

// attentionShape is the sizes of q (B, T, H, D) and of k and v (B, S, G, D).
type attentionShape struct {
	op               graph.Attention
	b, t, s, h, g, d int
}

func newShape(op graph.Attention, q, k *graph.Node) attentionShape {
	return attentionShape{op: op, b: q.Dim(0), t: q.Dim(1), s: k.Dim(1), h: q.Dim(2), g: k.Dim(2), d: q.Dim(3)}
}

// keys is what a query sees: 0 … prefix−1 and from … to−1, of which segments may hide some.
type keys struct{ prefix, from, to int }

func (s attentionShape) keys(i int) keys {
	k := keys{prefix: s.op.Prefix, from: 0, to: s.t}
	if s.op.Causal {
		k.to = i + 1
	}
	if w := s.op.Window; w > 0 {
		k.from = max(0, i+1-w)
	}
	k.from += s.op.Prefix
	k.to += s.op.Prefix
	return k
}

func (s attentionShape) query(b, i, h int) int { return ((b*s.t+i)*s.h + h) * s.d }
func (s attentionShape) key(b, j, h int) int   { return ((b*s.s+j)*s.g + h/(s.h/s.g)) * s.d }

// scores fills p with the limited scores of one query, −∞ where a segment hides the key, and returns the largest.
// sees tells, in order, the keys that are in k.
func (s attentionShape) scores(p, q, key []float32, b, i, h int, k keys, segments []int32) (top float32) {
	top = float32(math.Inf(-1))
	at := s.query(b, i, h)
	q = q[at : at+s.d]
	s.each(k, func(n, j int) {
		if segments != nil && j >= s.op.Prefix && segments[b*s.t+i] != segments[b*s.t+j-s.op.Prefix] {
			p[n] = float32(math.Inf(-1))
			return
		}
		var z float32
		for c, x := range key[s.key(b, j, h):][:s.d] {
			z += q[c] * x
		}
		z *= s.op.Scale
		if limit := s.op.Softcap; limit > 0 {
			z = limit * float32(math.Tanh(float64(z/limit)))
		}
		p[n] = z
		top = max(top, z)
	})
	return top
}

// each calls f with the number and the index of every key in k.
func (s attentionShape) each(k keys, f func(n, j int)) {
	n := 0
	for j := range k.prefix {
		f(n, j)
		n++
	}
	for j := k.from; j < k.to; j++ {
		f(n, j)
		n++
	}
}

func (s attentionShape) forwardRow(dst, q, key, v []float32, b, i, h int, k keys, segments []int32, p []float32) (lse float32) {
	top := s.scores(p, q, key, b, i, h, k, segments)
	n := k.prefix + k.to - k.from
	sum := 0.0
	for j, z := range p[:n] {
		e := math.Exp(float64(z - top))
		p[j] = float32(e)
		sum += e
	}
	at := s.query(b, i, h)
	out := dst[at : at+s.d]
	clear(out)
	s.each(k, func(n, j int) {
		w := p[n] / float32(sum)
		for c, x := range v[s.key(b, j, h):][:s.d] {
			out[c] += w * x
		}
	})
	return top + float32(math.Log(sum))
}

func (p *planner) lowerAttention(n *graph.Node, op graph.Attention) {
	q, k, v := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2])
	out, lse := p.wanted(n, 0), p.wanted(n, 1)
	segments := p.segments(n, 3)
	s := newShape(op, n.In[0], n.In[1])
	in := &instr{node: n, in: []*value{q, k, v}, scratch: s.s}
	if out == nil {
		out = p.temporary(q.size)
		in.temp = append(in.temp, out)
	} else {
		in.out = append(in.out, out)
	}
	if lse != nil {
		in.out = append(in.out, lse)
	}
	in.bind = func(p *program) []phase {
		out, q, k, v, segments := out.f(), q.f(), k.f(), v.f(), segments()
		return []phase{func(worker, workers int) {
			lo, hi := share(s.b*s.h, 1, worker, workers)
			for u := lo; u < hi; u++ {
				for i := range s.t {
					l := s.forwardRow(out, q, k, v, u/s.h, i, u%s.h, s.keys(i), segments, p.scratch(worker))
					if lse != nil {
						lse.f()[u*s.t+i] = l
					}
				}
			}
		}}
	}
	p.emit(in)
}

// segments returns what gives the segments at binding: input i of the node, nil where it is absent.
func (p *planner) segments(n *graph.Node, i int) func() []int32 {
	if len(n.In) <= i {
		return func() []int32 { return nil }
	}
	v := p.use(n.In[i])
	return func() []int32 { return v.i() }
}

// lowerAttentionGrad plans the gradient: a worker has whole groups of heads, whose keys nobody else adds to.
func (p *planner) lowerAttentionGrad(n *graph.Node, op graph.AttentionGrad) {
	var in [6]*value
	for i := range in {
		in[i] = p.use(n.In[i])
	}
	segments := p.segments(n, 6)
	s := newShape(op.Attention, n.In[1], n.In[2])
	ins := &instr{node: n, in: in[:], scratch: 2 * s.s}
	var results [3]*value
	for i := range results {
		if results[i] = p.wanted(n, i); results[i] != nil {
			ins.out = append(ins.out, results[i])
		} else {
			results[i] = p.temporary(in[i+1].size)
			ins.temp = append(ins.temp, results[i])
		}
	}
	ins.bind = func(p *program) []phase {
		g := attentionGrad{attentionShape: s, dout: in[0].f(), q: in[1].f(), k: in[2].f(), v: in[3].f(), out: in[4].f(), lse: in[5].f(),
			dq: results[0].f(), dk: results[1].f(), dv: results[2].f(), segments: segments()}
		return []phase{func(worker, workers int) {
			lo, hi := share(s.b*s.g, 1, worker, workers)
			scratch := p.scratch(worker)
			for u := lo; u < hi; u++ {
				g.group(u/s.g, u%s.g, scratch[:s.s], scratch[s.s:2*s.s])
			}
		}}
	}
	p.emit(ins)
}

type attentionGrad struct {
	attentionShape
	dout, q, k, v, out, lse, dq, dk, dv []float32
	segments                            []int32
}

func (a attentionGrad) group(b, group int, p, z []float32) {
	heads := a.h / a.g
	for j := range a.s {
		at := a.key(b, j, group*heads)
		clear(a.dk[at : at+a.d])
		clear(a.dv[at : at+a.d])
	}
	for h := group * heads; h < (group+1)*heads; h++ {
		for i := range a.t {
			keys := a.keys(i)
			a.scores(z, a.q, a.k, b, i, h, keys, a.segments)
			at := a.query(b, i, h)
			dout, out, q, dq := a.dout[at:at+a.d], a.out[at:at+a.d], a.q[at:at+a.d], a.dq[at:at+a.d]
			lse := a.lse[(b*a.h+h)*a.t+i]
			var mean float32
			for c, x := range dout {
				mean += x * out[c]
			}
			clear(dq)
			a.each(keys, func(n, j int) {
				w := float32(math.Exp(float64(z[n] - lse)))
				if w == 0 {
					return
				}
				at := a.key(b, j, h)
				var dp float32
				for c, x := range dout {
					dp += x * a.v[at+c]
					a.dv[at+c] += w * x
				}
				ds := w * (dp - mean) * a.op.Scale
				if limit := a.op.Softcap; limit > 0 {
					y := z[n] / limit
					ds *= 1 - y*y
				}
				for c := range dq {
					dq[c] += ds * a.k[at+c]
					a.dk[at+c] += ds * q[c]
				}
			})
		}
	}
}
