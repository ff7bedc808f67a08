package cpu

import "tunesmith/graph"

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
