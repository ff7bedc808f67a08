package reference

import "tunesmith/graph"

// matrix is a view of rows × columns.
type matrix struct {
	v          []float64
	rows, cols int
	rs, cs     int // strides
}

func view(v []float64, cols int) matrix { return matrix{v, len(v) / max(cols, 1), cols, cols, 1} }

func (m matrix) t() matrix { return matrix{m.v, m.cols, m.rows, m.cs, m.rs} }

func (m matrix) at(i, j int) float64 { return m.v[i*m.rs+j*m.cs] }

func multiply(a, b matrix) []float64 {
	out := make([]float64, a.rows*b.cols)
	for i := range a.rows {
		for j := range b.cols {
			s := 0.0
			for k := range a.cols {
				s += a.at(i, k) * b.at(k, j)
			}
			out[i*b.cols+j] = s
		}
	}
	return out
}

func product(n *graph.Node, in [][]float64) []float64 {
	a, b := view(in[0], n.In[0].Dim(-1)), view(in[1], n.In[1].Dim(-1))
	switch op := n.Op.(type) {
	case graph.Linear:
		return multiply(a, b.t())
	case graph.LinearT:
		return multiply(a, b)
	case graph.Outer:
		return multiply(a.t(), b)
	case graph.MatMul:
		batch := 1
		for _, d := range n.Shape()[:n.Rank()-2] {
			batch *= d
		}
		var out []float64
		for i := range batch {
			sa, sb := len(in[0])/batch, len(in[1])/batch
			a, b := view(in[0][i*sa:(i+1)*sa], n.In[0].Dim(-1)), view(in[1][i*sb:(i+1)*sb], n.In[1].Dim(-1))
			if op.TransA {
				a = a.t()
			}
			if op.TransB {
				b = b.t()
			}
			out = append(out, multiply(a, b)...)
		}
		return out
	}
	return nil
}
