package methods

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/graph"
	"tunesmith/internal/nearest"
	"tunesmith/site"
	"tunesmith/tune"
)

// LoRA on the experts of a mixture: each has factors of its own, which only the rows that come to it see and train. They
// are chosen one by one as modules, or all of a layer by the name of the tensor that holds them in transformers 5
// (target_parameters); then the factors stand in one tensor, too, whatever the base's own form.

// stack is the update of a stacked tensor (E, out, in): A (E·rank, in) has row e·rank + k, B (out, rank·E) column k·E + e.
type stack struct {
	*update
	experts int
	rows    int
}

// stackPart is what one of the model's parameters is of a stack.
type stackPart struct {
	*stack
	expert   int // −1 for all
	first, n int // rows of each expert
}

// mixture resolves the updates of experts.
func (l *lora) mixture(m *site.Map) error {
	l.stacks, l.parts = map[string]*stack{}, map[string]stackPart{}
	for _, e := range m.Experts {
		for _, module := range e.Modules() {
			l.projections[module] = !slices.Contains(l.whole, module)
		}
		if err := l.checkExperts(e); err != nil {
			return err
		}
	}
	for _, name := range l.TargetParameters {
		if !slices.ContainsFunc(m.Experts, func(e site.Experts) bool { return (tune.Targets{name}).Match(e.Stack) }) {
			var known []string
			for _, e := range m.Experts {
				known = append(known, e.Stack)
			}
			return fmt.Errorf("target_parameters: %q is no stacked tensor of experts of this model%s", name, nearest.Hint(name, known))
		}
	}
	for _, e := range m.Experts {
		if !l.TargetParameters.Match(e.Stack) || len(l.Layers) > 0 && !slices.Contains(l.Layers, site.IndexOf(e.Stack)) {
			continue
		}
		if err := l.stacked(e, m); err != nil {
			return err
		}
	}
	return nil
}

// stacked resolves the update of a projection by its stacked tensor.
func (l *lora) stacked(e site.Experts, m *site.Map) error {
	if l.DoRA || l.LoRABias || l.splitting() {
		return fmt.Errorf("target_parameters: %s has neither dora nor lora_bias nor init %s", e.Stack, l.Init)
	}
	k := l.stacks[e.Stack]
	if k == nil {
		u, err := l.update(e.Stack, m)
		if err != nil {
			return err
		}
		// Where both tensors of a layer are targets, PEFT wraps one in the other.
		module, _ := tune.ModuleOf(e.Stack)
		u.path = module
		inner := slices.IndexFunc(m.Experts, func(o site.Experts) bool {
			return strings.HasPrefix(o.Stack, module+".") && l.TargetParameters.Match(o.Stack)
		})
		last := slices.ContainsFunc(m.Experts[inner:], func(o site.Experts) bool {
			return strings.HasPrefix(o.Stack, module+".") && o.Stack != m.Experts[inner].Stack && l.TargetParameters.Match(o.Stack)
		})
		if last && m.Experts[inner].Stack == e.Stack {
			u.path += ".base_layer"
		}
		k = &stack{update: u, experts: e.Count, rows: e.StackRows}
		l.stacks[e.Stack] = k
	}
	if e.Stacked {
		l.parts[e.Param(0)] = stackPart{k, -1, 0, e.Out}
		return nil
	}
	for i := range e.Count {
		l.parts[e.Param(i)] = stackPart{k, i, e.First, e.Out}
	}
	return nil
}

// ofExperts returns the updates of a projection's experts, nil for those without, and one of them; nil where there is
// none.
func (l *lora) ofExperts(e site.Experts) (all []*update, one *update) {
	for _, module := range e.Modules() {
		u := l.updates[module]
		all = append(all, u)
		if u != nil {
			one = u
		}
	}
	return all, one
}

// checkExperts refuses what the updates of single experts cannot have. Those of one projection are of one shape, so that
// they are grouped products as the experts themselves are.
func (l *lora) checkExperts(e site.Experts) error {
	all, one := l.ofExperts(e)
	for _, u := range all {
		switch {
		case u == nil:
		case l.DoRA || l.LoRABias:
			return fmt.Errorf("targets: %s is an expert, whose update has neither dora nor lora_bias", u.path)
		case u.rank != one.rank || u.scale != one.scale:
			return fmt.Errorf("rank_pattern: want one rank and one alpha for %s of all experts of a layer, have ranks %d and %d",
				e.Name, one.rank, u.rank)
		}
	}
	return nil
}

// GraftExperts implements site.ExpertGrafter.
func (l *lora) GraftExperts(s *site.Scope, e site.Experts, route graph.Routing, x, y *graph.Node) *graph.Node {
	if k := l.stacks[e.Stack]; k != nil {
		a, b := k.factors(s, e)
		y = graph.Plus(y, graph.Scale(route.Project(route.Project(l.drop(s, x), a), b), k.scale))
	}
	all, one := l.ofExperts(e)
	if one == nil {
		return y
	}
	a, b := make([]*graph.Node, e.Count), make([]*graph.Node, e.Count)
	rank := one.rank
	for i, u := range all {
		if u != nil {
			a[i], b[i] = l.factors(s, u, e.Param(i), e.Out, e.In)
			rank = a[i].Dim(0)
		}
	}
	for i, u := range all {
		if u == nil { // nothing is added
			a[i] = graph.BroadcastTo(s.Scalar(0), []int{rank, e.In})
			b[i] = graph.BroadcastTo(s.Scalar(0), []int{e.Out, rank})
		}
	}
	return graph.Plus(y, graph.Scale(route.Project(route.Project(l.drop(s, x), a...), b...), one.scale))
}

// factors declares A and B and returns them as (E, rank, in) and, of the rows of the projection, (E, out, rank).
func (k *stack) factors(s *site.Scope, e site.Experts) (a, b *graph.Node) {
	nameA, nameB := k.names()
	a = s.Declare(site.Param{Name: nameA, Shape: []int{k.experts * k.rank, e.In}, Trainable: true, Init: kaiming(e.In)})
	b = s.Declare(site.Param{Name: nameB, Shape: []int{k.rows, k.rank * k.experts}, Trainable: true, Init: zeros})
	b = graph.Permute(graph.Reshape(b, k.rows, k.rank, k.experts), 2, 0, 1)
	return graph.Reshape(a, k.experts, k.rank, e.In), graph.SliceAxis(b, 1, e.First, e.First+e.Out)
}

// merge adds the update of a stack to a parameter that is the whole of it or an expert's part.
func (p stackPart) merge(w []float32, value func(string) []float32) error {
	nameA, nameB := p.names()
	a, b := value(nameA), value(nameB)
	in := len(a) / (p.experts * p.rank)
	if len(b) != p.rows*p.rank*p.experts || len(a) != in*p.experts*p.rank {
		return fmt.Errorf("merge %s: %d and %d values of rank %d do not fit %d experts", p.path, len(b), len(a), p.rank, p.experts)
	}
	add := func(w []float32, e int) {
		own := make([]float32, p.n*p.rank) // B of the expert
		for o := range p.n {
			for r := range p.rank {
				own[o*p.rank+r] = b[((p.first+o)*p.rank+r)*p.experts+e]
			}
		}
		addProduct(w, own, a[e*p.rank*in:(e+1)*p.rank*in], p.rank, float64(p.scale))
	}
	if p.expert >= 0 {
		add(w, p.expert)
		return nil
	}
	for e := range p.experts {
		add(w[e*p.n*in:(e+1)*p.n*in], e)
	}
	return nil
}
