package reference

import (
	"math"
	"slices"

	"tunesmith/graph"
)

// indices calls f with every index of the shape, in row-major order.
func indices(shape []int, f func(at []int)) {
	size := 1
	for _, d := range shape {
		size *= d
	}
	at := make([]int, len(shape))
	for range size {
		f(at)
		for d := len(shape) - 1; d >= 0; d-- {
			if at[d]++; at[d] < shape[d] {
				break
			}
			at[d] = 0
		}
	}
}

// flat returns the place of an index in a tensor of the shape; dimensions of 1 repeat.
func flat(shape, at []int) int {
	place := 0
	for d, n := range shape {
		i := at[d]
		if n == 1 {
			i = 0
		}
		place = place*n + i
	}
	return place
}

// spread broadcasts x from one shape to another.
func spread(x []float64, from, to []int) []float64 {
	var out []float64
	indices(to, func(at []int) { out = append(out, x[flat(from, at[len(to)-len(from):])]) })
	return out
}

func reduce(op graph.Reduce, x []float64, n *graph.Node) []float64 {
	shape := n.In[0].Shape()
	kept := slices.Clone(shape)
	for _, a := range op.Axes {
		kept[a] = 1
	}
	top, sum := make([]float64, n.Size()), make([]float64, n.Size())
	for i := range top {
		top[i] = math.Inf(-1)
	}
	i := 0
	indices(shape, func(at []int) {
		o := flat(kept, at)
		top[o] = max(top[o], x[i])
		i++
	})
	i = 0
	indices(shape, func(at []int) {
		o := flat(kept, at)
		if op.Fn == graph.ReduceLogSumExp {
			sum[o] += math.Exp(x[i] - top[o])
		} else {
			sum[o] += x[i]
		}
		i++
	})
	switch op.Fn {
	case graph.ReduceMean:
		return each(sum, func(s float64) float64 { return s * float64(len(sum)) / float64(len(x)) })
	case graph.ReduceMax:
		return top
	case graph.ReduceLogSumExp:
		return zip(top, sum, func(t, s float64) float64 { return t + math.Log(s) })
	}
	return sum
}

// reshape is the operations that move elements.
func reshape(n *graph.Node, in [][]float64) []float64 {
	x := in[0]
	shape := n.In[0].Shape()
	out := make([]float64, n.Size())
	i := 0
	walk := func(shape []int, f func(at []int)) {
		indices(shape, func(at []int) { f(slices.Clone(at)); i++ })
	}
	switch op := n.Op.(type) {
	case graph.Transpose:
		walk(shape, func(at []int) {
			to := make([]int, len(at))
			for d, p := range op.Perm {
				to[d] = at[p]
			}
			out[flat(n.Shape(), to)] = x[i]
		})
	case graph.Slice:
		a := op.Axis
		if a < 0 {
			a += len(shape)
		}
		walk(n.Shape(), func(at []int) {
			at[a] += op.Lo
			place := 0
			for d, size := range shape {
				place = place*size + at[d]
			}
			out[i] = x[place]
		})
	case graph.Pad:
		walk(shape, func(at []int) {
			at[op.Axis] += op.Lo
			place := 0
			for d, size := range n.Shape() {
				place = place*size + at[d]
			}
			out[place] = x[i]
		})
	case graph.Concat:
		lo := 0
		for j, part := range n.In {
			i = 0
			walk(part.Shape(), func(at []int) {
				at[op.Axis] += lo
				place := 0
				for d, size := range n.Shape() {
					place = place*size + at[d]
				}
				out[place] = in[j][i]
			})
			lo += part.Dim(op.Axis)
		}
	case graph.Broadcast:
		return spread(x, shape, n.Shape())
	case graph.GatherRows:
		width := n.In[0].Size() / max(n.In[0].Dim(0), 1)
		for r, row := range in[1] {
			if row >= 0 {
				copy(out[r*width:(r+1)*width], x[int(row)*width:])
			}
		}
	case graph.ScatterRows:
		width := n.Size() / max(op.N, 1)
		for r, row := range in[1] {
			for c := range width {
				if row >= 0 {
					out[int(row)*width+c] += x[r*width+c]
				}
			}
		}
	}
	return out
}
