package cpu

import (
	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// What the backward pass takes from the forward pass decides how much memory a step takes. What can be had again
// cheaply is not kept: a norm or an element function is computed again where its inputs are there anyway, with the
// same bits. In mixed precision, what is only multiplied into gradients is kept as halves, with eight times less error
// than bfloat16 would have.

const (
	far     = 64   // nodes between a value and a use that belongs to another pass
	worthIt = 4096 // elements from which on a value is worth the trouble
)

// result names one result of a node.
type result struct {
	node  *graph.Node
	index int
}

// source returns the result behind a node that only renames it.
func source(n *graph.Node) result {
	for {
		switch op := n.Op.(type) {
		case graph.ReshapeTo, graph.StopGradient:
			n = n.In[0]
		case graph.Pick:
			return result{n.In[0], op.Index}
		default:
			return result{n, 0}
		}
	}
}

// copyKey tells copies for exact uses from those of 16 bits.
type copyKey struct {
	result
	exact bool
}

// again is a value as uses far behind it see it.
type again struct {
	value *value
	make  *instr // computes it again, or widens what was kept
	kept  *value // in its place until then; nil where it is computed again
	from  *value // what is narrowed
}

// use asks for the first result of a node, to be computed before the node that is lowered.
func (p *planner) use(n *graph.Node) *value {
	r := source(n)
	if p.at-r.node.ID <= far || n.Kind() != graph.Float || n.Size() < worthIt {
		return p.result(n, 0)
	}
	key := copyKey{r, p.rough == 0 || p.Precision == engine.FP32}
	a := p.copies[key]
	if a == nil {
		switch {
		case p.repeatable(key):
			a = p.repeat(r.node)
		case !key.exact && keepable(r.node):
			a = p.narrow(r)
		default:
			return p.result(n, 0)
		}
		p.copies[key] = a
	}
	return a.value
}

// useRough is use where the rounding to a half does no harm in mixed precision.
func (p *planner) useRough(n *graph.Node) *value {
	p.rough++
	defer func() { p.rough-- }()
	return p.use(n)
}

// repeatable reports whether the value is cheap to compute and what it takes is there where it is needed again.
func (p *planner) repeatable(key copyKey) bool {
	switch key.node.Op.(type) {
	case graph.RMSNorm, graph.LayerNorm, graph.GatedAct, graph.Unary, graph.Affine, graph.Dropout:
	default:
		return false
	}
	for _, x := range key.node.In {
		r := source(x)
		switch r.node.Op.(type) {
		case graph.Param, graph.Input, graph.Constant:
			continue
		}
		asked := p.values[r.node.ID] != nil && p.values[r.node.ID][r.index] != nil
		if in := (copyKey{r, key.exact}); !asked && p.copies[in] == nil && !p.repeatable(in) {
			return false
		}
	}
	return true
}

// repeat plans to compute a node again.
func (p *planner) repeat(n *graph.Node) *again {
	twin := *n
	twin.ID = len(p.values)
	p.values, p.uses = append(p.values, nil), append(p.uses, 1)
	a := &again{value: p.result(&twin, 0)}
	before := len(p.instrs)
	if err := p.lower(&twin); err != nil || len(p.instrs) != before+1 {
		panic("cpu: an operation that is repeated is one instruction and has no errors")
	}
	a.make = p.instrs[before]
	p.instrs = p.instrs[:before]
	return a
}

// keepable reports whether a node's results are computed at every run.
func keepable(n *graph.Node) bool {
	switch n.Op.(type) {
	case graph.Param, graph.State, graph.Input, graph.Constant, graph.CacheAppend:
		return false
	}
	return true
}

// narrow plans to keep a result in 16 bits.
func (p *planner) narrow(r result) *again {
	a := &again{from: p.result(r.node, r.index)}
	n := a.from.size
	a.kept, a.value = p.temporary((n+1)/2), p.temporary(n)
	a.make = &instr{node: r.node, in: []*value{a.kept}, out: []*value{a.value}, bind: func(*program) []phase {
		to, from := a.value.f(), kernel.F16(a.kept.f())
		return []phase{func(worker, workers int) {
			lo, hi := share(n, grain, worker, workers)
			kernel.FromF16(to[lo:hi], from[lo:hi])
		}}
	}}
	return a
}

// keep is the instruction that narrows.
func (a *again) keep(n *graph.Node) *instr {
	return &instr{node: n, in: []*value{a.from}, out: []*value{a.kept}, bind: func(*program) []phase {
		to, from := kernel.F16(a.kept.f()), a.from.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(from), grain, worker, workers)
			kernel.ToF16(to[lo:hi], from[lo:hi])
		}}
	}}
}

// placeCopies puts the instructions that make copies before the first that reads them, and those that narrow what is
// kept behind what computes it. Instructions stand in the order of their execution.
func (p *planner) placeCopies() {
	makers, narrowed := map[*value]*instr{}, map[*value]*again{}
	for _, a := range p.copies {
		makers[a.value] = a.make
		if a.kept != nil {
			narrowed[a.from.root()] = a
		}
	}
	var out []*instr
	var place func(in *instr)
	place = func(in *instr) {
		for _, list := range [][]*value{in.in, in.over} {
			for _, v := range list {
				if m := makers[v.root()]; m != nil {
					delete(makers, v.root())
					place(m)
				}
			}
		}
		out = append(out, in)
		for _, v := range in.out {
			if a := narrowed[v.root()]; a != nil {
				delete(narrowed, v.root())
				out = append(out, a.keep(in.node))
			}
		}
	}
	for _, in := range p.instrs {
		place(in)
	}
	p.instrs = out
}
