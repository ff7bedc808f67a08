package site

import (
	"strconv"
	"strings"

	"tunesmith/graph"
)

// Router chooses the experts of a layer.
type Router struct {
	Path              string // module path, such as "model.layers.0.mlp.gate"
	Experts, PerToken int
}

// Experts is one projection of all experts of a layer.
type Experts struct {
	Path    string // module path of the experts, such as "model.layers.0.mlp.experts"
	Before  string // what stands before an expert's number, mostly nothing
	Name    string // of the projection, such as "down_proj"
	In, Out int
	Count   int
	Stacked bool // one parameter (Count, Out, In) for all
	// Stack is the name of the tensor (Count, StackRows, In) that holds the experts in transformers 5, of which the
	// projection is the rows from First on.
	Stack            string
	First, StackRows int
}

// Param returns the name of the weight of an expert; all have one where they are stacked.
func (e Experts) Param(i int) string {
	if e.Stacked {
		return e.Path + "." + e.Name
	}
	return e.Path + "." + e.Before + strconv.Itoa(i) + "." + e.Name + ".weight"
}

// Modules returns the paths of the experts' modules; none where they are stacked in one parameter.
func (e Experts) Modules() []string {
	if e.Stacked {
		return nil
	}
	out := make([]string, e.Count)
	for i := range out {
		out[i] = strings.TrimSuffix(e.Param(i), ".weight")
	}
	return out
}

// Route is what a router has decided: its logits and their softmax (R, E), a 1 for each expert that it has chosen, and
// for each that the row goes to, which are fewer where experts are full.
type Route struct {
	Router
	Logits, Probs, Chosen, Mask *graph.Node
}

// A method implements those of these interfaces that it needs.
type (
	// RouterGrafter changes the logits (R, E) of a router of x (R, C).
	RouterGrafter interface {
		GraftRouter(s *Scope, r Router, x, logits *graph.Node) *graph.Node
	}
	// ChoiceGrafter changes the mask of where rows go, for instance by a capacity of the experts.
	ChoiceGrafter interface {
		GraftChoice(s *Scope, r Route) *graph.Node
	}
	// ExpertGrafter changes the result y (N, Out) of a projection by the experts of the dispatched rows x (N, In).
	ExpertGrafter interface {
		GraftExperts(s *Scope, e Experts, route graph.Routing, x, y *graph.Node) *graph.Node
	}
)

// Router builds the router named name of x (R, C) and the choice of perToken of the experts. Rows of padding go to none.
func (s *Scope) Router(name string, x *graph.Node, experts, perToken int, bias bool) Route {
	r := Route{Router: Router{Path: s.Name(name), Experts: experts, PerToken: perToken}}
	s.map_.Routers = append(s.map_.Routers, r.Router)
	s.Scope(name, func() {
		y := graph.Project(x, s.base(r.Path, "weight", "", experts, x.Dim(-1)))
		if bias {
			y = graph.Plus(y, s.base(r.Path, "bias", "", experts))
		}
		for _, g := range s.grafts {
			if t, ok := g.(RouterGrafter); ok {
				y = t.GraftRouter(s, r.Router, x, y)
			}
		}
		r.Logits, r.Probs = y, graph.Softmax(y)
		r.Chosen = graph.Top(y, s.In.Segments, perToken)
		r.Mask = r.Chosen
		for _, g := range s.grafts {
			if t, ok := g.(ChoiceGrafter); ok {
				r.Mask = t.GraftChoice(s, r)
			}
		}
	})
	s.routes = append(s.routes, r)
	return r
}

// Routes returns what the routers built so far have decided.
func (s *Scope) Routes() []Route { return s.routes }

// Experts builds a projection of the dispatched rows x (N, In) by the experts of the module at the current place. Path
// and In of e are set.
func (s *Scope) Experts(e Experts, route graph.Routing, x *graph.Node) (y *graph.Node) {
	e.Path, e.In = s.Path(), x.Dim(-1)
	s.map_.Experts = append(s.map_.Experts, e)
	s.Scope(e.Name, func() {
		var w []*graph.Node
		for i := range e.Count {
			p := Param{Name: e.Param(i), Shape: []int{e.Out, e.In}, Base: true}
			if e.Stacked {
				p.Shape = []int{e.Count, e.Out, e.In}
			}
			w = append(w, s.own(p.Name, p))
			if e.Stacked {
				break
			}
		}
		y = route.Project(x, w...)
		for _, g := range s.grafts {
			if t, ok := g.(ExpertGrafter); ok {
				y = t.GraftExperts(s, e, route, x, y)
			}
		}
	})
	return y
}
