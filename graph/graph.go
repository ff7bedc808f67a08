// Package graph describes a computation on tensors: about forty operations made for transformers, each with its
// shape rule, its gradient and its cost. It computes nothing; an engine compiles the description.
//
// A graph is built by a function. Mistakes of shape inside it panic with a *ShapeError, and Build turns the panic
// into an error that names the place in the model. Nodes are numbered in the order of their creation, and that
// order is a topological one: an engine runs them in it, so that the order of the builder's calls decides what is
// alive when.
package graph

import (
	"fmt"
	"strings"
)

// Kind is the element type of a value.
type Kind uint8

// Values are real numbers or 32-bit integers. How many bits an engine spends on a real number is its own affair.
const (
	Float Kind = iota
	Int
)

func (k Kind) String() string {
	if k == Int {
		return "int"
	}
	return "float"
}

// Type is the shape and the kind of a value; a scalar has no dimensions.
type Type struct {
	Shape []int
	Kind  Kind
}

// Size returns the number of elements.
func (t Type) Size() int { return size(t.Shape) }

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// Op is one operation. The set is closed: the types of this package are all there are, and an engine switches over
// them. Exported fields are the operation's attributes.
type Op interface {
	// String is the operation's name in errors, plans and tables.
	String() string
	// infer returns the types of the results, or panics through fail.
	infer(n *Node) []Type
	// vjp returns the gradient of each input, nil where there is none, from the gradients of the results; a result
	// that the loss does not depend on has gradient nil.
	vjp(n *Node, dy []*Node) []*Node
}

// Node is one value, or several where the operation has several results (see Pick). It is immutable once built.
type Node struct {
	ID    int
	Op    Op
	In    []*Node
	Types []Type
	Path  string // where in the model it was built, for errors and plans
	// Region is the number of the recomputed region that the node belongs to, 0 for none.
	Region int

	graph *Graph
	needs bool // a trainable parameter lies below
}

// Shape returns the shape of the first result.
func (n *Node) Shape() []int { return n.Types[0].Shape }

// Kind returns the kind of the first result.
func (n *Node) Kind() Kind { return n.Types[0].Kind }

// Dim returns one dimension of the first result; a negative axis counts from the end.
func (n *Node) Dim(axis int) int {
	s := n.Shape()
	if axis < 0 {
		axis += len(s)
	}
	return s[axis]
}

// Size returns the number of elements of the first result.
func (n *Node) Size() int { return n.Types[0].Size() }

// Rank returns the number of dimensions of the first result.
func (n *Node) Rank() int { return len(n.Shape()) }

// Graph returns the graph that the node belongs to.
func (n *Node) Graph() *Graph { return n.graph }

func (n *Node) String() string {
	return fmt.Sprintf("%%%d=%s%v", n.ID, n.Op.String(), n.Shape())
}

// Graph is a computation under construction or complete.
type Graph struct {
	Nodes   []*Node
	Outputs []Output

	named   map[string]*Node // inputs, parameters and states by name
	path    []string
	region  int
	regions int

	dropouts uint32
}

// Output is a named result of the whole graph.
type Output struct {
	Name string
	Node *Node
}

// ShapeError is a mistake in building a graph.
type ShapeError struct {
	Path   string // site in the model, may be empty
	Op     string
	Reason string
	Shapes [][]int // of the inputs
}

func (e *ShapeError) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Op + ": " + e.Reason)
	if len(e.Shapes) > 0 {
		fmt.Fprintf(&b, ", inputs have shapes %v", e.Shapes)
	}
	return b.String()
}

// Build runs f on a new graph. A *ShapeError that f panics with comes back as the error; other panics go on.
func Build(f func(g *Graph)) (g *Graph, err error) {
	g = &Graph{named: map[string]*Node{}}
	defer func() {
		if r := recover(); r != nil {
			shape, ok := r.(*ShapeError)
			if !ok {
				panic(r)
			}
			g, err = nil, shape
		}
	}()
	f(g)
	return g, nil
}

// Scope runs f with name appended to the path of the nodes that it builds.
func (g *Graph) Scope(name string, f func()) {
	g.path = append(g.path, name)
	defer func() { g.path = g.path[:len(g.path)-1] }()
	f()
}

// Path returns the current path, joined by dots.
func (g *Graph) Path() string { return strings.Join(g.path, ".") }

// Recompute runs f as a region whose inner values are not kept for the backward pass: Gradient builds them again
// from the values that enter the region, at the moment when it needs them. Regions do not nest; an inner one
// belongs to the outer.
func (g *Graph) Recompute(f func()) {
	if g.region != 0 {
		f()
		return
	}
	g.regions++
	g.region = g.regions
	defer func() { g.region = 0 }()
	f()
}

// Output names n as a result of the graph.
func (g *Graph) Output(name string, n *Node) {
	g.Outputs = append(g.Outputs, Output{name, n})
}

// Fail ends the building of the graph with a mistake that the caller of the graph found, for example a model whose
// dimensions do not fit together.
func (g *Graph) Fail(op, format string, args ...any) {
	panic(&ShapeError{Path: g.Path(), Op: op, Reason: fmt.Sprintf(format, args...)})
}

// add appends a node for op.
func add(op Op, in ...*Node) *Node {
	if len(in) == 0 {
		panic("graph: add needs an input to find the graph")
	}
	return in[0].graph.add(op, in...)
}

func (g *Graph) add(op Op, in ...*Node) *Node {
	n := &Node{Op: op, In: in, Path: g.Path(), Region: g.region, graph: g}
	for _, x := range in {
		if x.graph != g {
			n.fail("an input belongs to another graph")
		}
		n.needs = n.needs || x.needs
	}
	switch op := op.(type) {
	case Param:
		n.needs = op.Trainable
	case StopGradient:
		n.needs = false
	}
	n.Types = op.infer(n)
	n.ID = len(g.Nodes)
	g.Nodes = append(g.Nodes, n)
	return n
}

// fail panics with a ShapeError about n.
func (n *Node) fail(format string, args ...any) {
	e := &ShapeError{Path: n.Path, Op: n.Op.String(), Reason: fmt.Sprintf(format, args...)}
	for _, x := range n.In {
		e.Shapes = append(e.Shapes, x.Shape())
	}
	panic(e)
}

// want fails unless input i has the kind and, where rank >= 0, the rank.
func (n *Node) want(i int, kind Kind, rank int) {
	x := n.In[i]
	if x.Kind() != kind {
		n.fail("input %d: want kind %v, have %v", i, kind, x.Kind())
	}
	if rank >= 0 && x.Rank() != rank {
		n.fail("input %d: want %d dimensions, have %d", i, rank, x.Rank())
	}
}

func float(shape ...int) []Type { return []Type{{Shape: shape, Kind: Float}} }

func same(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func clone(s []int) []int { return append([]int(nil), s...) }

// axis turns a negative axis into a positive one.
func (n *Node) axis(axis, rank int) int {
	a := axis
	if a < 0 {
		a += rank
	}
	if a < 0 || a >= rank {
		n.fail("axis %d is outside of %d dimensions", axis, rank)
	}
	return a
}

// rows returns the product of all dimensions but the last.
func rows(shape []int) int { return size(shape[:len(shape)-1]) }
