package methods

import (
	"math"
	"math/rand/v2"

	"tunesmith/graph"
	"tunesmith/site"
)

// Names of DoRA's tensors of a module: the trained lengths, and the frozen squares of the weight's own.
const (
	magnitude = "lora_magnitude_vector"
	ownLength = "weight_squares"
)

// length declares the trained lengths m (out) and returns m / ‖W + s·B·A‖, where the norm is that of each row (of each
// column for an embedding) and passes no gradient (Liu et al. 2024, arXiv 2402.09353). The sum is never built:
//
//	‖w + s·b·A‖² = ‖w‖² + 2s·b·(A·w) + s²·b·(A·Aᵀ)·b
//
// w is the frozen weight, named param; a (k, in) and b (out, k) are as in factors. Dropout acts on the update alone,
// where PEFT drops the input of W as well.
func (l *lora) length(s *site.Scope, u *update, param string, w, a, b *graph.Node) *graph.Node {
	a, b = graph.Detach(a), graph.Detach(b)
	out, in := b.Dim(0), w.Dim(1)
	product := graph.Project
	if u.embedding {
		product = graph.ProjectT
	}
	linear := graph.Sum(graph.Times(b, graph.Permute(product(a, w), 1, 0)), 1)
	square := graph.Sum(graph.Times(b, graph.Project(b, graph.Project(a, a))), 1)
	row, columns := in, u.embedding
	if u.transposed {
		row, columns = out, true
	}
	own := func(f func(float64) float64) site.Init {
		return func(dst []float32, _ *rand.Rand, base func(string) []float32) {
			for i, v := range squares(base(param), row, columns) {
				dst[i] = float32(f(v))
			}
		}
	}
	frozen := s.Declare(site.Param{Name: u.name(ownLength), Shape: []int{out}, Init: own(func(v float64) float64 { return v })})
	norm := graph.Plus(frozen, graph.Plus(graph.Scale(linear, 2*u.scale), graph.Scale(square, u.scale*u.scale)))
	m := s.Declare(site.Param{Name: u.name(magnitude), Shape: []int{out}, Trainable: true, Init: own(math.Sqrt)})
	return graph.Over(m, graph.Apply(graph.Sqrt, norm))
}
