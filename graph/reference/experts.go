package reference

import (
	"slices"

	"tunesmith/graph"
)

func topK(op graph.TopK, n *graph.Node, in [][]float64) []float64 {
	e := n.Dim(1)
	mask := make([]float64, n.Size())
	for r := range n.Dim(0) {
		if len(in) > 1 && in[1][r] < 0 {
			continue
		}
		scores := in[0][r*e : (r+1)*e]
		order := make([]int, e)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case scores[a] > scores[b]:
				return -1
			case scores[a] < scores[b]:
				return 1
			}
			return 0
		})
		for _, i := range order[:op.K] {
			mask[r*e+i] = 1
		}
	}
	return mask
}

func capacity(op graph.Capacity, n *graph.Node, mask []float64) []float64 {
	e := n.Dim(1)
	out, count := make([]float64, len(mask)), make([]int, e)
	for i, v := range mask {
		if i%(op.Rows*e) == 0 {
			clear(count)
		}
		if v != 0 && count[i%e] < op.Limit {
			out[i] = 1
			count[i%e]++
		}
	}
	return out
}

func route(n *graph.Node, mask []float64) [][]float64 {
	r, e := n.In[0].Dim(0), n.In[0].Dim(1)
	rows, bounds, places := make([]float64, n.Size()), make([]float64, e+1), make([]float64, len(mask))
	for i := range rows {
		rows[i] = -1
	}
	at := 0
	for j := range e {
		bounds[j] = float64(at)
		for i := range r {
			places[i*e+j] = -1
			if mask[i*e+j] != 0 {
				rows[at], places[i*e+j] = float64(i), float64(at)
				at++
			}
		}
	}
	bounds[e] = float64(at)
	return [][]float64{rows, bounds, places}
}

func dispatch(n *graph.Node, in [][]float64) []float64 {
	c := n.Dim(1)
	out := make([]float64, n.Size())
	for i, r := range in[2] {
		if r >= 0 {
			copy(out[i*c:(i+1)*c], in[0][int(r)*c:])
		}
	}
	return out
}

func collect(n *graph.Node, in [][]float64) []float64 {
	c, e := n.Dim(1), n.In[1].Dim(1)
	out := make([]float64, n.Size())
	for i, p := range in[2] {
		for j := range c {
			if p >= 0 {
				out[i/e*c+j] += in[1][i] * in[0][int(p)*c+j]
			}
		}
	}
	return out
}

func collectGrad(n *graph.Node, in [][]float64) [][]float64 {
	dy, x, w, places := in[0], in[1], in[2], in[3]
	c, e := n.Dim(1), n.In[2].Dim(1)
	dx, dw := make([]float64, len(x)), make([]float64, len(w))
	for i, p := range places {
		for j := range c {
			if p >= 0 {
				dx[int(p)*c+j] = w[i] * dy[i/e*c+j]
				dw[i] += x[int(p)*c+j] * dy[i/e*c+j]
			}
		}
	}
	return [][]float64{dx, dw}
}

// grouped is the products of rows with the matrix of their group.
func grouped(n *graph.Node, in [][]float64) [][]float64 {
	bounds := in[1]
	if _, outer := n.Op.(graph.GroupedOuter); outer {
		bounds = in[2]
	}
	group := func(row int) int {
		for e := range len(bounds) - 1 {
			if float64(row) < bounds[e+1] {
				return e
			}
		}
		return -1
	}
	a, b := n.In[0].Dim(1), n.Dim(-1)
	if op, outer := n.Op.(graph.GroupedOuter); outer {
		all := make([]float64, op.Experts*a*b)
		for r := range n.In[0].Dim(0) {
			e := group(r)
			if e < 0 {
				continue
			}
			for i := range a {
				for j := range b {
					all[(e*a+i)*b+j] += in[0][r*a+i] * in[1][r*b+j]
				}
			}
		}
		if op.Stacked {
			return [][]float64{all}
		}
		var out [][]float64
		for e := range op.Experts {
			out = append(out, all[e*a*b:(e+1)*a*b])
		}
		return out
	}
	w := slices.Concat(in[2:]...)
	_, transposed := n.Op.(graph.GroupedLinearT)
	out := make([]float64, n.Size())
	for r := range n.Dim(0) {
		e := group(r)
		if e < 0 {
			continue
		}
		for j := range b {
			for i := range a {
				at := (e*b+j)*a + i
				if transposed {
					at = (e*a+i)*b + j
				}
				out[r*b+j] += in[0][r*a+i] * w[at]
			}
		}
	}
	return [][]float64{out}
}
