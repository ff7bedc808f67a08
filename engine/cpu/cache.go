package cpu

import (
	"fmt"

	"tunesmith/graph"
)

// lowerCacheAppend writes rows into a cache: into the state's tensor itself, or into a copy of a computed value
// where that is needed later.
func (p *planner) lowerCacheAppend(n *graph.Node) {
	cache, x, start, dst := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2]), p.wanted(n, 0)
	b, width := n.Dim(0), n.Dim(2)*n.Dim(3)
	rows, length := n.In[1].Dim(1)*width, n.Dim(1)*width
	limit := n.Dim(1) - n.In[1].Dim(1)
	p.checkRange("cache position", n.In[2], 0, limit+1)
	in := &instr{node: n, in: []*value{x}, over: []*value{cache}, out: []*value{dst}}
	if isState(n.In[0]) {
		p.alias(n, cache)
	}
	in.bind = func(*program) []phase {
		dst, cache, x, start := dst.f(), cache.f(), x.f(), start.i()
		return []phase{func(worker, workers int) {
			lo, hi := share(b, 1, worker, workers)
			for i := lo; i < hi; i++ {
				to := dst[i*length : (i+1)*length]
				if &dst[0] != &cache[0] {
					copy(to, cache[i*length:])
				}
				copy(to[int(start[i])*width:], x[i*rows:(i+1)*rows])
			}
		}}
	}
	p.emit(in)
}

// isState reports whether the node is a state or what was appended to it.
func isState(n *graph.Node) bool {
	switch n.Op.(type) {
	case graph.State:
		return true
	case graph.CacheAppend, graph.ReshapeTo:
		return isState(n.In[0])
	}
	return false
}

func (p *planner) lowerCachedAttention(n *graph.Node, op graph.CachedAttention) {
	q, k, v, start, dst := p.use(n.In[0]), p.use(n.In[1]), p.use(n.In[2]), p.use(n.In[3]), p.wanted(n, 0)
	s := newShape(op.Attention, n.In[0], n.In[1])
	p.checks = append(p.checks, func() error {
		for b, at := range start.i() {
			if at < 0 || int(at)+s.t > s.s {
				return fmt.Errorf("cache position %d of row %d: want 0 … %d", at, b, s.s-s.t)
			}
		}
		return nil
	})
	p.emit(&instr{node: n, in: []*value{q, k, v}, out: []*value{dst}, scratch: s.s, bind: func(p *program) []phase {
		dst, q, k, v, start := dst.f(), q.f(), k.f(), v.f(), start.i()
		return []phase{func(worker, workers int) {
			lo, hi := share(s.b*s.h, 1, worker, workers)
			for u := lo; u < hi; u++ {
				b, h := u/s.h, u%s.h
				for i := range s.t {
					at := int(start[b]) + i
					from, to := 0, at+1
					if w := s.op.Window; w > 0 {
						from = max(0, at+1-w)
					}
					s.forwardRow(dst, q, k, v, b, i, h, keys{prefix: min(s.op.Prefix, from), from: from, to: max(to, s.op.Prefix)}, nil, p.scratch(worker))
				}
			}
		}}
	}})
}
