package methods

import (
	"tunesmith/checkpoint"
	"tunesmith/graph"
	"tunesmith/site"
)

// factors declares A (k, in) and B (out, k) of the update s·B·A of the frozen weight, which is the parameter param. A
// start that stands for a part of the weight is taken off again by more rows and columns.
func (l *lora) factors(s *site.Scope, u *update, param string, out, in int) (a, b *graph.Node) {
	starts := l.starts(u, param, out, in)
	nameA, nameB := u.names()
	a = s.Declare(site.Param{Name: nameA, Shape: []int{u.rank, in}, Trainable: !l.freezes(u), Init: starts.a})
	b = s.Declare(site.Param{Name: nameB, Shape: []int{out, u.rank}, Trainable: true, Init: starts.b})
	if l.splits(u) {
		a = graph.Join(0, a, s.Declare(site.Param{Name: u.name(startA), Shape: []int{u.rank, in}, Init: starts.a}))
		b = graph.Join(1, b, s.Declare(site.Param{Name: u.name(startB), Shape: []int{out, u.rank}, Init: starts.minusB}))
	}
	if l.freezes(u) {
		b = projected(s, a, b, u.scale)
	}
	return a, b
}

// freezes reports whether A stays as it started.
func (l *lora) freezes(u *update) bool { return l.FreezeA && !u.embedding }

// projected returns B with another gradient, g·P instead of g, where P = (A·Aᵀ + 1e-8·I)⁻¹/s²: the step of B that changes
// s·B·A as nearly as it can to the step of a whole update. A frozen A is LoRA-FA (Zhang et al. 2023, arXiv 2308.03303), the
// gradient that of its optimizer in PEFT.
func projected(s *site.Scope, a, b *graph.Node, scale float32) *graph.Node {
	const turns = 18
	a = graph.Detach(a)
	r := a.Dim(0)
	gram := graph.Plus(graph.Project(a, a), s.Floats(scaledIdentity(r, 1e-8), r, r))
	trace := graph.Sum(graph.Times(graph.Project(a, a), identity(s, r)), 0, 1)
	start := graph.Times(identity(s, r), graph.Apply(graph.Reciprocal, trace))
	p := inverted(s, graph.Reshape(gram, 1, r, r), graph.Reshape(start, 1, r, r), turns)
	p = graph.Detach(graph.Scale(graph.Reshape(p, r, r), 1/(scale*scale)))
	moved := graph.Project(b, p) // P is symmetric
	return graph.Plus(moved, graph.Detach(graph.Minus(b, moved)))
}

// frozenFactors returns the A that stay, which an adapter's file holds too.
func (l *lora) frozenFactors(value func(string) []float32) []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for _, path := range sortedPaths(l.updates) {
		if u := l.updates[path]; l.freezes(u) {
			name, _ := u.names()
			v := value(name)
			out = append(out, checkpoint.Float32Tensor(name, []int{u.rank, len(v) / u.rank}, v))
		}
	}
	return out
}
