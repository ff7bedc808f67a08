package graph

import "slices"

// ReduceFn names a reduction.
type ReduceFn uint8

// The reductions.
const (
	ReduceSum ReduceFn = iota
	ReduceMean
	ReduceMax
	ReduceLogSumExp
)

var reduceNames = [...]string{"Sum", "Mean", "Max", "LogSumExp"}

// Reduce folds the axes, which stand in rising order; they keep the dimension 1 where Keep is set.
type Reduce struct {
	Fn   ReduceFn
	Axes []int
	Keep bool
}

// Sum returns the sum over the axes, or over all where none is given.
func Sum(x *Node, axes ...int) *Node { return reduce(ReduceSum, x, false, axes) }

// Mean returns the mean over the axes, or over all where none is given.
func Mean(x *Node, axes ...int) *Node { return reduce(ReduceMean, x, false, axes) }

// Largest returns the maximum over the axes; its gradient goes to every element that equals the maximum, shared
// equally.
func Largest(x *Node, axes ...int) *Node { return reduce(ReduceMax, x, false, axes) }

// LogSumExp returns log Σ eˣ over the axes, computed without overflow.
func LogSumExp(x *Node, axes ...int) *Node { return reduce(ReduceLogSumExp, x, false, axes) }

// Softmax returns the softmax over the last axis.
func Softmax(x *Node) *Node {
	return Apply(Exp, Minus(x, reduce(ReduceLogSumExp, x, true, []int{-1})))
}

func reduce(f ReduceFn, x *Node, keep bool, axes []int) *Node {
	probe := &Node{Op: Reduce{Fn: f}, In: []*Node{x}, Path: x.graph.Path()}
	var list []int
	for _, a := range axes {
		list = append(list, probe.axis(a, x.Rank()))
	}
	if len(axes) == 0 {
		for i := range x.Rank() {
			list = append(list, i)
		}
	}
	slices.Sort(list)
	return add(Reduce{Fn: f, Axes: slices.Compact(list), Keep: keep}, x)
}

// String implements Op.
func (o Reduce) String() string { return reduceNames[o.Fn] }

func (o Reduce) infer(n *Node) []Type {
	n.want(0, Float, -1)
	return float(reduced(n.In[0].Shape(), o.Axes, o.Keep)...)
}

func reduced(shape, axes []int, keep bool) []int {
	var out []int
	for i, d := range shape {
		switch {
		case !slices.Contains(axes, i):
			out = append(out, d)
		case keep:
			out = append(out, 1)
		}
	}
	return out
}

func (o Reduce) vjp(n *Node, dy []*Node) []*Node {
	x := n.In[0]
	kept := reduced(x.Shape(), o.Axes, true)
	d := Reshape(dy[0], kept...)
	y := Reshape(n, kept...)
	switch o.Fn {
	case ReduceMean:
		d = Scale(d, float32(n.Size())/float32(x.Size()))
	case ReduceMax:
		hit := Combine(Equal, x, y)
		count := reduce(ReduceSum, hit, true, o.Axes)
		return []*Node{Times(hit, Over(d, count))}
	case ReduceLogSumExp:
		return []*Node{Times(d, Apply(Exp, Minus(x, y)))}
	}
	return []*Node{BroadcastTo(d, x.Shape())}
}

// SumTo sums x over the dimensions that broadcasting made from shape: the gradient of broadcasting.
func SumTo(x *Node, shape []int) *Node {
	if same(x.Shape(), shape) {
		return x
	}
	off := x.Rank() - len(shape)
	var axes []int
	for i, d := range x.Shape() {
		if i < off || (shape[i-off] == 1 && d != 1) {
			axes = append(axes, i)
		}
	}
	if len(axes) > 0 {
		x = reduce(ReduceSum, x, false, axes)
	}
	return Reshape(x, shape...)
}
