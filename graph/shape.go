package graph

import "slices"

// ReshapeTo gives the same elements another shape; it moves nothing.
type ReshapeTo struct{ Shape []int }

// Transpose puts axis Perm[i] of the input at place i.
type Transpose struct{ Perm []int }

// Slice takes Lo … Hi−1 of an axis.
type Slice struct{ Axis, Lo, Hi int }

// Pad is the gradient of Slice: the input lies at Lo of an axis of length Size, zeros around it.
type Pad struct{ Axis, Lo, Size int }

// Concat joins values along an axis.
type Concat struct{ Axis int }

// Broadcast repeats dimensions of 1, aligned at the end, to the shape.
type Broadcast struct{ Shape []int }

// GatherRows takes rows of x (N, …) by index (M…): the result is (M…, …); a negative index gives a row of zeros.
type GatherRows struct{}

// ScatterRows is the gradient of GatherRows: inputs rows (M…, …) and index (M…), result (N, …) with the rows that
// share an index added in their order, and zeros elsewhere.
type ScatterRows struct{ N int }

// Reshape gives x another shape of the same size; one dimension may be −1.
func Reshape(x *Node, shape ...int) *Node {
	shape = clone(shape)
	if i := slices.Index(shape, -1); i >= 0 {
		shape[i] = 1
		if s := size(shape); s > 0 {
			shape[i] = x.Size() / s
		}
	}
	if same(shape, x.Shape()) {
		return x
	}
	return add(ReshapeTo{shape}, x)
}

// Permute puts axis perm[i] of x at place i.
func Permute(x *Node, perm ...int) *Node { return add(Transpose{clone(perm)}, x) }

// SliceAxis returns lo … hi−1 along an axis.
func SliceAxis(x *Node, axis, lo, hi int) *Node {
	if axis < 0 {
		axis += x.Rank()
	}
	if axis >= 0 && axis < x.Rank() && lo == 0 && hi == x.Dim(axis) {
		return x
	}
	return add(Slice{axis, lo, hi}, x)
}

// Join concatenates along an axis.
func Join(axis int, xs ...*Node) *Node {
	if len(xs) == 1 {
		return xs[0]
	}
	if axis < 0 {
		axis += xs[0].Rank()
	}
	return add(Concat{axis}, xs...)
}

// BroadcastTo repeats x to the shape.
func BroadcastTo(x *Node, shape []int) *Node {
	if same(x.Shape(), shape) {
		return x
	}
	return add(Broadcast{clone(shape)}, x)
}

// Rows takes rows of x by index.
func Rows(x, index *Node) *Node { return add(GatherRows{}, x, index) }

// String implements Op.
func (ReshapeTo) String() string { return "Reshape" }

// String implements Op.
func (Transpose) String() string { return "Transpose" }

// String implements Op.
func (Slice) String() string { return "Slice" }

// String implements Op.
func (Pad) String() string { return "Pad" }

// String implements Op.
func (Concat) String() string { return "Concat" }

// String implements Op.
func (Broadcast) String() string { return "Broadcast" }

// String implements Op.
func (GatherRows) String() string { return "GatherRows" }

// String implements Op.
func (ScatterRows) String() string { return "ScatterRows" }

func (o ReshapeTo) infer(n *Node) []Type {
	if size(o.Shape) != n.In[0].Size() {
		n.fail("want %d elements, shape %v has %d", n.In[0].Size(), o.Shape, size(o.Shape))
	}
	return []Type{{Shape: o.Shape, Kind: n.In[0].Kind()}}
}

func (o Transpose) infer(n *Node) []Type {
	n.want(0, Float, len(o.Perm))
	out := make([]int, len(o.Perm))
	seen := make([]bool, len(o.Perm))
	for i, p := range o.Perm {
		if p < 0 || p >= len(o.Perm) || seen[p] {
			n.fail("%v is not a permutation of the axes", o.Perm)
		}
		seen[p] = true
		out[i] = n.In[0].Dim(p)
	}
	return float(out...)
}

func (o Slice) infer(n *Node) []Type {
	a := n.axis(o.Axis, n.In[0].Rank())
	if d := n.In[0].Dim(a); o.Lo < 0 || o.Hi > d || o.Lo >= o.Hi {
		n.fail("%d … %d is no range within axis %d of length %d", o.Lo, o.Hi, a, d)
	}
	out := clone(n.In[0].Shape())
	out[a] = o.Hi - o.Lo
	return []Type{{Shape: out, Kind: n.In[0].Kind()}}
}

func (o Pad) infer(n *Node) []Type {
	out := clone(n.In[0].Shape())
	out[o.Axis] = o.Size
	return float(out...)
}

func (o Concat) infer(n *Node) []Type {
	a := n.axis(o.Axis, n.In[0].Rank())
	out := clone(n.In[0].Shape())
	for i, x := range n.In[1:] {
		n.want(i+1, n.In[0].Kind(), len(out))
		for d := range out {
			if d != a && x.Dim(d) != out[d] {
				n.fail("input %d differs in axis %d", i+1, d)
			}
		}
		out[a] += x.Dim(a)
	}
	return []Type{{Shape: out, Kind: n.In[0].Kind()}}
}

func (o Broadcast) infer(n *Node) []Type {
	n.want(0, Float, -1)
	if s, ok := broadcast(n.In[0].Shape(), o.Shape); !ok || !same(s, o.Shape) {
		n.fail("does not broadcast to %v", o.Shape)
	}
	return float(o.Shape...)
}

func (GatherRows) infer(n *Node) []Type {
	n.want(0, Float, -1)
	n.want(1, Int, -1)
	return float(append(clone(n.In[1].Shape()), n.In[0].Shape()[1:]...)...)
}

func (o ScatterRows) infer(n *Node) []Type {
	n.want(1, Int, -1)
	return float(append([]int{o.N}, n.In[0].Shape()[n.In[1].Rank():]...)...)
}

func (ReshapeTo) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{Reshape(dy[0], n.In[0].Shape()...)}
}

func (o Transpose) vjp(_ *Node, dy []*Node) []*Node {
	back := make([]int, len(o.Perm))
	for i, p := range o.Perm {
		back[p] = i
	}
	return []*Node{Permute(dy[0], back...)}
}

func (o Slice) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{add(Pad{o.Axis, o.Lo, n.In[0].Dim(o.Axis)}, dy[0])}
}

func (o Pad) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{SliceAxis(dy[0], o.Axis, o.Lo, o.Lo+n.In[0].Dim(o.Axis))}
}

func (o Concat) vjp(n *Node, dy []*Node) []*Node {
	out := make([]*Node, len(n.In))
	at := 0
	for i, x := range n.In {
		if d := x.Dim(o.Axis); x.needs {
			out[i] = SliceAxis(dy[0], o.Axis, at, at+d)
		}
		at += x.Dim(o.Axis)
	}
	return out
}

func (Broadcast) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{SumTo(dy[0], n.In[0].Shape())}
}

func (GatherRows) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{add(ScatterRows{n.In[0].Dim(0)}, dy[0], n.In[1]), nil}
}

func (ScatterRows) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{Rows(dy[0], n.In[1]), nil}
}
