package cpu

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tunesmith/engine"
	"tunesmith/graph"
)

// class says whose memory a value lies in.
type class uint8

const (
	arena  class = iota // shared memory, from the first to the last instruction that touches the value
	output              // the program's own, since it is read after the run
	fixed               // a tensor of the store or a constant
)

// value is a result of a node. Values that share memory point to one root, directly or through others.
type value struct {
	parent *value // nil for a root
	size   int
	class  class

	first, last int // of a root in the arena: the instructions that touch it, −1 for the feeds
	offset      int

	floats []float32 // of a root, once it is bound
	ints   []int32
}

func (v *value) root() *value {
	for v.parent != nil {
		v = v.parent
	}
	return v
}

// f and i are the memory, to be called when instructions are bound.
func (v *value) f() []float32 { return v.root().floats[:v.size:v.size] }
func (v *value) i() []int32   { return v.root().ints }

// instr is one instruction: a node, or several that were fused.
type instr struct {
	node    *graph.Node
	in, out []*value
	// over lists more inputs: those whose memory an output of their size may take where this is their last use. Each
	// element of the outputs is written when all of the inputs that belong to it have been read.
	over    []*value
	temp    []*value // written and read by it alone
	scratch int      // floats per worker
	bind    func(p *program) []phase
}

// planner turns the nodes that the outputs need into instructions. It walks them from the last to the first, so
// that a node is met after all its uses and can be left out, or fused into them.
type planner struct {
	*backend
	store  *engine.Store
	g      *graph.Graph
	values [][]*value // by node and result; nil where nothing asks for it
	uses   []int      // by node: how many nodes and outputs ask for it

	learns  bool // gradients are asked for
	at      int  // the node that is lowered
	rough   int  // useRough is under way
	copies  map[copyKey]*again
	instrs  []*instr // the last first
	first   []*instr // what stands before all others, such as tables
	prepare []func() // integers, the last first
	checks  []func() error
	feeds   map[string]*feed
	tensors []*engine.Tensor          // of the parameters and states
	stored  map[*engine.Tensor]*value // those whose values instructions read or write in place
	storage map[*engine.Tensor]bool   // those whose storage instructions read
	states  map[*engine.Tensor]bool
	forms   map[*form]bool
	tables  map[string]*table
	heads   map[*graph.Node]*head
	ownSize int // memory that instructions have of their own, in floats
}

// feed is where an input goes.
type feed struct {
	node  *graph.Node
	value *value // nil where no output depends on it
}

// Compile implements engine.Backend.
func (b *backend) Compile(g *graph.Graph, s *engine.Store) (engine.Program, error) {
	p := &planner{
		backend: b, store: s, g: g,
		values: make([][]*value, len(g.Nodes)), uses: make([]int, len(g.Nodes)), copies: map[copyKey]*again{},
		feeds: map[string]*feed{}, stored: map[*engine.Tensor]*value{}, storage: map[*engine.Tensor]bool{},
		states: map[*engine.Tensor]bool{}, forms: map[*form]bool{}, tables: map[string]*table{}, heads: map[*graph.Node]*head{},
	}
	for _, n := range g.Nodes {
		if in, ok := n.Op.(graph.Input); ok {
			p.feeds[in.Name] = &feed{node: n}
		}
	}
	p.count()
	for _, n := range g.Nodes {
		switch n.Op.(type) {
		case graph.LinearT, graph.Outer, graph.TokenLogProbGrad:
			p.learns = p.learns || p.uses[n.ID] > 0
		}
	}
	outputs := map[string]*value{}
	for _, o := range g.Outputs {
		if _, ok := outputs[o.Name]; ok {
			return nil, fmt.Errorf("two outputs are named %q", o.Name)
		}
		if o.Node.Kind() != graph.Float {
			return nil, fmt.Errorf("output %q: want kind float, have %v", o.Name, o.Node.Kind())
		}
		outputs[o.Name] = p.use(o.Node)
	}
	for id := len(g.Nodes) - 1; id >= 0; id-- {
		if n := g.Nodes[id]; p.values[id] != nil {
			p.at = id
			if err := p.lower(n); err != nil {
				return nil, fmt.Errorf("%s: %w", strings.TrimPrefix(fmt.Sprintf("%s: %v", n.Path, n), ": "), err)
			}
		}
	}
	p.own(outputs)
	slices.Reverse(p.instrs)
	slices.Reverse(p.prepare)
	p.instrs = append(p.first, p.instrs...)
	p.placeCopies()
	return p.layOut(outputs), nil
}

// count fills uses.
func (p *planner) count() {
	for _, o := range p.g.Outputs {
		p.uses[o.Node.ID]++
	}
	for id := len(p.g.Nodes) - 1; id >= 0; id-- {
		if p.uses[id] > 0 {
			for _, x := range p.g.Nodes[id].In {
				p.uses[x.ID]++
			}
		}
	}
}

// result asks for a result of a node.
func (p *planner) result(n *graph.Node, i int) *value {
	if p.values[n.ID] == nil {
		p.values[n.ID] = make([]*value, len(n.Types))
	}
	if p.values[n.ID][i] == nil {
		p.values[n.ID][i] = &value{size: n.Types[i].Size()}
	}
	return p.values[n.ID][i]
}

// wanted returns result i of the node that is lowered, nil where nothing asks for it.
func (p *planner) wanted(n *graph.Node, i int) *value { return p.values[n.ID][i] }

// temporary returns a value without a node.
func (p *planner) temporary(size int) *value { return &value{size: size} }

// alias makes the node's result share the memory of v.
func (p *planner) alias(n *graph.Node, v *value) { p.values[n.ID][0].parent = v }

func (p *planner) emit(in *instr) { p.instrs = append(p.instrs, in) }

// ready gives a root memory of its own that stays.
func (v *value) ready(floats []float32) {
	v.class, v.floats = fixed, floats
}

// tensor returns the stored tensor of a parameter or state.
func (p *planner) tensor(n *graph.Node, name string) (*engine.Tensor, error) {
	t, ok := p.store.Get(name)
	if !ok {
		return nil, fmt.Errorf("%q is not in the store", name)
	}
	if !slices.Equal(t.Shape, n.Shape()) {
		return nil, fmt.Errorf("%q: the graph has shape %v, the store %v", name, n.Shape(), t.Shape)
	}
	if !slices.Contains(p.tensors, t) {
		p.tensors = append(p.tensors, t)
	}
	return t, nil
}

// form returns a tensor in a layout, which the program keeps.
func (p *planner) form(t *engine.Tensor, l layout) *form { return p.formOf(t, l, 0) }

// formOf is form for one matrix of a stack.
func (p *planner) formOf(t *engine.Tensor, l layout, part int) *form {
	f := p.weights.get(t, l, part)
	p.forms[f] = true
	return f
}

// own gives every output memory that nothing else has: a copy, where it is a stored tensor, a constant, a feed or
// the memory of another output.
func (p *planner) own(outputs map[string]*value) {
	feeds := map[*value]bool{}
	for _, f := range p.feeds {
		if f.value != nil {
			feeds[f.value.root()] = true
		}
	}
	taken := map[*value]bool{}
	var copies []*instr
	for _, o := range p.g.Outputs {
		v := outputs[o.Name]
		r := v.root()
		if r.class == arena && !feeds[r] && !taken[r] {
			taken[r] = true
			r.class = output
			continue
		}
		c := &value{size: v.size, class: output}
		outputs[o.Name] = c
		copies = append(copies, copyInstr(o.Node, c, v))
	}
	p.instrs = append(copies, p.instrs...)
}

func copyInstr(n *graph.Node, dst, src *value) *instr {
	return &instr{node: n, in: []*value{src}, out: []*value{dst}, bind: func(*program) []phase {
		dst, src := dst.f(), src.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(dst), grain, worker, workers)
			copy(dst[lo:hi], src[lo:hi])
		}}
	}}
}

// layOut decides where values lie and returns the program.
func (p *planner) layOut(outputs map[string]*value) *program {
	prog := &program{
		backend: p.backend, instrs: p.instrs, prepare: p.prepare, checks: p.checks, feeds: p.feeds,
		outputs: outputs, tensors: p.tensors, stored: p.stored, storage: p.storage, states: p.states, ownSize: p.ownSize,
	}
	roots := p.lifetimes()
	p.merge()
	live := roots[:0]
	for _, r := range roots {
		if r.parent == nil {
			live = append(live, r)
		}
	}
	prog.arenaSize = place(live)
	for _, r := range live {
		if r.class == output {
			r.offset = prog.outputSize
			prog.outputSize += roundUp(r.size, align)
		}
	}
	for _, in := range p.instrs {
		prog.scratchSize = max(prog.scratchSize, roundUp(in.scratch, align))
	}
	prog.values = live
	for f := range p.forms {
		prog.forms = append(prog.forms, f)
	}
	prog.outputMemory = aligned(prog.outputSize)
	return prog
}

// lifetimes finds the first and last instruction of every root outside of the store, and returns the roots in the
// order of their first.
func (p *planner) lifetimes() []*value {
	var roots []*value
	met := map[*value]bool{}
	touch := func(v *value, at int) {
		r := v.root()
		if r.class == fixed || r.ints != nil {
			return
		}
		if !met[r] {
			met[r] = true
			r.first = at
			roots = append(roots, r)
		}
		r.last = at
	}
	for _, name := range sortedKeys(p.feeds) {
		if f := p.feeds[name]; f.value != nil {
			touch(f.value, -1)
		}
	}
	for at, in := range p.instrs {
		for _, list := range [][]*value{in.in, in.over, in.out, in.temp} {
			for _, v := range list {
				touch(v, at)
			}
		}
	}
	return roots
}

// merge lets outputs take the memory of inputs that end there. It goes backwards, so that what ends as an
// output of the program can be computed in its place from early on.
func (p *planner) merge() {
	for at := len(p.instrs) - 1; at >= 0; at-- {
		in := p.instrs[at]
		for _, out := range in.out {
			dst := out.root()
			for _, v := range in.over {
				src := v.root()
				if src == dst || src.class != arena || dst.class == fixed || src.last != at || dst.first != at ||
					src.size != dst.size || reads(in.in, src) {
					continue
				}
				dst.first = src.first
				src.parent = dst
				break
			}
		}
	}
}

func reads(list []*value, root *value) bool {
	return slices.ContainsFunc(list, func(v *value) bool { return v.root() == root })
}

// place gives the roots in the arena offsets such that no two that live at one time overlap, and returns the size.
// The largest are placed first, each into the tightest gap that holds it.
func place(roots []*value) int {
	var order []*value
	for _, r := range roots {
		if r.class == arena {
			order = append(order, r)
		}
	}
	slices.SortStableFunc(order, func(a, b *value) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.first, b.first))
	})
	total := 0
	var placed []*value // by offset
	for _, r := range order {
		need := roundUp(r.size, align)
		best, bestGap, end := -1, 0, 0
		for _, q := range placed {
			if q.last < r.first || q.first > r.last {
				continue
			}
			if gap := q.offset - end; gap >= need && (best < 0 || gap < bestGap) {
				best, bestGap = end, gap
			}
			end = max(end, q.offset+roundUp(q.size, align))
		}
		if best < 0 {
			best = end
		}
		r.offset = best
		total = max(total, best+need)
		at, _ := slices.BinarySearchFunc(placed, r, func(a, b *value) int { return cmp.Compare(a.offset, b.offset) })
		placed = slices.Insert(placed, at, r)
	}
	return total
}
