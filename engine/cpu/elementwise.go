package cpu

import (
	"tunesmith/graph"
)

// Element functions are fused into trees: what only one other element function reads is not stored. A tree is
// evaluated block by block on registers, pieces of the worker's scratch that stay in the first cache.

const (
	blockSize = 1024 // elements of a register
	registers = 8
)

// operand is what an element function reads: a whole value of the tree's size, a register, or a smaller value that
// is first spread into a register.
type operand struct {
	value         *value
	register      int // −1 for a value that is read where it lies
	dims, strides []int
}

// elementOp is one function of a tree; its result goes to a register, of the root to the destination.
type elementOp struct {
	args [3]operand
	n    int
	to   int
	bind func() elementFn
}

// elementFn computes a block of a result, whose first element has the flat index at.
type elementFn func(dst, a, b, c []float32, at int)

// tree is the element functions of one instruction, in the order of their evaluation.
type tree struct {
	p    *planner
	root *graph.Node
	ops  []elementOp
	in   []*value // spread
	over []*value // read in place
	deep int      // registers in use
}

// elements reports whether the node is computed element by element.
func elements(n *graph.Node) bool {
	switch n.Op.(type) {
	case graph.Unary, graph.UnaryGrad, graph.Affine, graph.Clamp, graph.Binary, graph.Where, graph.GatedAct, graph.Dropout,
		graph.Broadcast:
		return n.Kind() == graph.Float
	}
	return false
}

func (p *planner) lowerElements(n *graph.Node) {
	t := &tree{p: p, root: n}
	t.add(n, 0)
	p.emit(&instr{
		node: n, in: t.in, over: t.over, out: []*value{p.wanted(n, 0)}, scratch: t.deep * blockSize,
		bind: t.bind,
	})
}

// near is how many nodes may lie between an element function and the one that it is fused into. What lies further
// apart belongs to different passes, where fusing would keep the inputs alive in place of the result.
const near = 8

// add appends the functions of n; the result goes to register to, which with those above it is free.
func (t *tree) add(n *graph.Node, to int) {
	inputs := n.In
	rough := -1 // the input that is only multiplied into a gradient
	switch n.Op.(type) {
	case graph.Dropout:
		inputs = n.In[:1] // the key is no operand
	case graph.UnaryGrad:
		rough = 1
	}
	op := elementOp{to: to, n: len(inputs)}
	free := to
	for i, x := range inputs {
		if i == rough {
			t.p.rough++
		}
		op.args[i] = t.operand(n, x, free)
		if i == rough {
			t.p.rough--
		}
		if op.args[i].register >= 0 {
			free++
		}
	}
	t.deep = max(t.deep, to+1, free)
	op.bind = t.p.elementFn(n)
	t.ops = append(t.ops, op)
}

// operand returns how n reads x. Register to and those above it are free.
func (t *tree) operand(n, x *graph.Node, to int) operand {
	if x.Size() == t.root.Size() && sameShape(x.Shape(), n.Shape()) {
		inner := x
		for t.p.uses[inner.ID] == 1 && isReshape(inner) {
			inner = inner.In[0]
		}
		if t.p.uses[inner.ID] == 1 && elements(inner) && t.root.ID-inner.ID <= near && to < registers-2 && !t.p.isSum(inner) {
			t.add(inner, to)
			return operand{register: to}
		}
		v := t.p.use(x)
		t.over = append(t.over, v)
		return operand{value: v, register: -1}
	}
	v := t.p.use(x)
	t.in = append(t.in, v)
	dims, strides := broadcastStrides(x.Shape(), n.Shape())
	return operand{value: v, register: to, dims: dims, strides: strides}
}

func isReshape(n *graph.Node) bool {
	_, ok := n.Op.(graph.ReshapeTo)
	return ok
}

func (t *tree) bind(p *program) []phase {
	dst := t.p.values[t.root.ID][0].f()
	type bound struct {
		fn   elementFn
		src  [3][]float32
		args [3]operand
		n    int
		to   int
	}
	ops := make([]bound, len(t.ops))
	for i, op := range t.ops {
		ops[i] = bound{fn: op.bind(), args: op.args, n: op.n, to: op.to}
		for j := range op.n {
			if v := op.args[j].value; v != nil {
				ops[i].src[j] = v.f()
			}
		}
	}
	return []phase{func(worker, workers int) {
		lo, hi := share(len(dst), blockSize, worker, workers)
		scratch := p.scratch(worker)
		for at := lo; at < hi; at += blockSize {
			n := min(blockSize, hi-at)
			register := func(i int) []float32 { return scratch[i*blockSize : i*blockSize+n] }
			for i := range ops {
				op := &ops[i]
				var in [3][]float32
				for j := range op.n {
					a := &op.args[j]
					switch {
					case a.value == nil:
						in[j] = register(a.register)
					case a.register < 0:
						in[j] = op.src[j][at : at+n]
					default:
						in[j] = register(a.register)
						gather(in[j], op.src[j], a.dims, a.strides, at)
					}
				}
				to := dst[at : at+n]
				if i < len(ops)-1 {
					to = register(op.to)
				}
				op.fn(to, in[0], in[1], in[2], at)
			}
		}
	}}
}

// elementFn returns what binds the node's function.
func (p *planner) elementFn(n *graph.Node) func() elementFn {
	fn := func(f elementFn) func() elementFn { return func() elementFn { return f } }
	switch op := n.Op.(type) {
	case graph.Unary:
		return fn(unary(op.Fn))
	case graph.UnaryGrad:
		return fn(unaryGrad(op.Fn))
	case graph.Affine:
		return fn(affine(op.Mul, op.Add))
	case graph.Clamp:
		return fn(clamp(op.Lo, op.Hi))
	case graph.Binary:
		return fn(binary(op.Fn))
	case graph.Where:
		return fn(choose)
	case graph.GatedAct:
		return fn(gate(op.Fn))
	case graph.Broadcast:
		return fn(func(dst, a, _, _ []float32, _ int) { copy(dst, a) })
	case graph.Dropout:
		key := p.use(n.In[1])
		return func() elementFn {
			key := key.i()
			return func(dst, a, _, _ []float32, at int) { dropout(op, dst, a, key, at) }
		}
	}
	return nil
}

func (p *planner) lowerGatedActGrad(n *graph.Node, op graph.GatedActGrad) {
	dy, gate, up := p.use(n.In[0]), p.useRough(n.In[1]), p.useRough(n.In[2])
	dgate, dup := p.wanted(n, 0), p.wanted(n, 1)
	in := &instr{node: n, over: []*value{gate, up, dy}, scratch: blockSize}
	// A result that nothing asks for goes to scratch, so that the function is one.
	for _, v := range []*value{dgate, dup} {
		if v != nil {
			in.out = append(in.out, v)
		}
	}
	in.bind = func(p *program) []phase {
		dy, gate, up := dy.f(), gate.f(), up.f()
		f := gateGrad(op.Fn)
		return []phase{func(worker, workers int) {
			lo, hi := share(len(dy), blockSize, worker, workers)
			for at := lo; at < hi; at += blockSize {
				end := min(at+blockSize, hi)
				to := func(v *value) []float32 {
					if v == nil {
						return p.scratch(worker)[:end-at]
					}
					return v.f()[at:end]
				}
				f(to(dgate), to(dup), dy[at:end], gate[at:end], up[at:end])
			}
		}}
	}
	p.emit(in)
}
