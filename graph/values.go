package graph

// Input is a value that the caller feeds at each run.
type Input struct{ Name string }

// Param is a named tensor that lives between runs in the engine's store, in whatever storage format it has there.
type Param struct {
	Name      string
	Trainable bool
}

// State is a named tensor that a run changes in place, such as a key/value cache.
type State struct{ Name string }

// Constant holds the values themselves.
type Constant struct {
	Float []float32 // one of the two
	Int   []int32
}

// Pick is one result of an operation that has several.
type Pick struct{ Index int }

// StopGradient passes its input on and its gradient not.
type StopGradient struct{}

// Input returns the value that is fed under the name.
func (g *Graph) Input(name string, kind Kind, shape ...int) *Node {
	return g.leaf(Input{name}, name, Type{Shape: clone(shape), Kind: kind})
}

// Param returns the parameter of that name; asked twice, it is the same node, trainable if either asked for it
// trainable before a use, so that tied weights have one gradient.
func (g *Graph) Param(name string, trainable bool, shape ...int) *Node {
	return g.leaf(Param{name, trainable}, name, Type{Shape: clone(shape), Kind: Float})
}

// State returns the state of that name.
func (g *Graph) State(name string, shape ...int) *Node {
	return g.leaf(State{name}, name, Type{Shape: clone(shape), Kind: Float})
}

// leaf adds a named node without inputs, once.
func (g *Graph) leaf(op Op, name string, t Type) *Node {
	if n, ok := g.named[name]; ok {
		if n.Op != op || !same(n.Shape(), t.Shape) || n.Kind() != t.Kind {
			g.Fail(op.String(), "%q is already %s of shape %v and kind %v, asked again as %s of shape %v and kind %v",
				name, n.Op.String(), n.Shape(), n.Kind(), op.String(), t.Shape, t.Kind)
		}
		return n
	}
	region := g.region
	g.region = 0 // a leaf is never recomputed
	n := &Node{Op: op, Path: g.Path(), Types: []Type{t}, graph: g}
	g.region = region
	if p, ok := op.(Param); ok {
		n.needs = p.Trainable
	}
	n.ID = len(g.Nodes)
	g.Nodes = append(g.Nodes, n)
	g.named[name] = n
	return n
}

// Floats returns a constant of the given shape.
func (g *Graph) Floats(v []float32, shape ...int) *Node {
	return g.constant(Constant{Float: v}, Type{Shape: clone(shape), Kind: Float}, len(v))
}

// Ints returns an integer constant of the given shape.
func (g *Graph) Ints(v []int32, shape ...int) *Node {
	return g.constant(Constant{Int: v}, Type{Shape: clone(shape), Kind: Int}, len(v))
}

// Scalar returns a constant without dimensions.
func (g *Graph) Scalar(v float32) *Node { return g.Floats([]float32{v}) }

func (g *Graph) constant(op Constant, t Type, have int) *Node {
	if t.Size() != have {
		g.Fail(op.String(), "shape %v has %d elements, %d are given", t.Shape, t.Size(), have)
	}
	n := &Node{ID: len(g.Nodes), Op: op, Types: []Type{t}, Path: g.Path(), graph: g}
	g.Nodes = append(g.Nodes, n)
	return n
}

// String implements Op.
func (Input) String() string { return "Input" }

// String implements Op.
func (Param) String() string { return "Param" }

// String implements Op.
func (State) String() string { return "State" }

// String implements Op.
func (Constant) String() string { return "Constant" }

// String implements Op.
func (Pick) String() string { return "Pick" }

// String implements Op.
func (StopGradient) String() string { return "StopGradient" }

func (Input) infer(n *Node) []Type        { return n.Types }
func (Param) infer(n *Node) []Type        { return n.Types }
func (State) infer(n *Node) []Type        { return n.Types }
func (Constant) infer(n *Node) []Type     { return n.Types }
func (p Pick) infer(n *Node) []Type       { return n.In[0].Types[p.Index : p.Index+1] }
func (StopGradient) infer(n *Node) []Type { return n.In[0].Types[:1] }

func (Input) vjp(*Node, []*Node) []*Node        { return nil }
func (Param) vjp(*Node, []*Node) []*Node        { return nil }
func (State) vjp(*Node, []*Node) []*Node        { return nil }
func (Constant) vjp(*Node, []*Node) []*Node     { return nil }
func (Pick) vjp(n *Node, dy []*Node) []*Node    { return dy } // Gradient routes it to the right result
func (StopGradient) vjp(*Node, []*Node) []*Node { return []*Node{nil} }

// Detach returns x without its gradient.
func Detach(x *Node) *Node { return add(StopGradient{}, x) }

// pick returns result i of a node with several.
func pick(n *Node, i int) *Node { return add(Pick{i}, n) }
