package methods

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// Adapter puts small trained networks with a bottleneck behind, or beside, the frozen blocks of the model.
//
//	A(x) = scale · W_up·f(W_down·x + b_down) + b_up,  W_down (hidden/reduction, hidden)
//	y = r + h + A(x),  r the residual stream, h the block's result, x one of h + r, h, r
//
// Houlsby et al. 2019 (arXiv 1902.00751): behind attention and feed-forward, x = h; Pfeiffer et al. 2020 (2005.00247):
// behind the feed-forward, x = h + r; He et al. 2021 (2110.04366): beside it, x = r. It is not linear, so that it stays
// apart from the weights and costs time at inference. Names and files are those of the adapters library.
type Adapter struct {
	Name        string                 `yaml:"name" doc:"name of the adapter in its files"`
	Places      string                 `yaml:"places" doc:"blocks that get one" enum:"feed_forward,attention,both"`
	Input       string                 `yaml:"input" doc:"what it reads: the block's result on the residual stream, the result alone, or, beside the block, the residual stream" enum:"sum,result,residual"`
	Reduction   float64                `yaml:"reduction" doc:"the model's width over that of the bottleneck" above:"0"`
	ReductionBy tune.Patterns[float64] `yaml:"reduction_by_layer" doc:"other reductions by number of the layer"`
	LeaveOut    []int                  `yaml:"leave_out" doc:"numbers of layers without adapters"`
	Function    string                 `yaml:"function" doc:"between the two projections" enum:"relu,gelu,gelu_new,swish,silu,tanh,sigmoid,leakyrelu"`
	Scale       float64                `yaml:"scale" doc:"factor of the adapter's result"`
	Scaling     string                 `yaml:"scaling" doc:"fixed factor, one that trains, or one a channel that trains" enum:"fixed,learned,channel"`
	Init        string                 `yaml:"init" doc:"first values: the base's output (zero), or near it, as BERT or as Houlsby et al. start" enum:"zero,bert,houlsby"`
	Dropout     float64                `yaml:"dropout" doc:"share of the adapter's result that is dropped in training" min:"0" below:"1"`
	NormBefore  bool                   `yaml:"norm_before" doc:"a layer norm of its own before the first projection"`
	NormAfter   bool                   `yaml:"norm_after" doc:"a layer norm of its own on the result, which then does not start from the base"`

	// Choices of the adapters library that only its files make.
	normResidual   bool // the norm of the result takes the residual in
	residualBefore bool // the residual is the block's result, not the adapter's input
	outerResidual  bool // the residual stream is added behind the adapter
}

// unnamed is the name of an adapter that nobody named.
const unnamed = "default"

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "adapter", PEFT: "adapters/bottleneck", Rate: 1e-3,
		Doc: "puts small trained networks behind or beside the frozen blocks",
		New: func() any {
			return &Adapter{
				Name: unnamed, Places: "feed_forward", Input: "sum", Reduction: 16, Function: "relu", Scale: 1, Scaling: "fixed", Init: "zero",
				residualBefore: true, outerResidual: true,
			}
		},
	})
}

// functions are those between the projections, by the library's names.
var functions = map[string]func(x *graph.Node) *graph.Node{
	"relu": unary(graph.ReLU), "gelu": unary(graph.Gelu), "gelu_new": unary(graph.GeluTanh), "swish": unary(graph.SiLU), "silu": unary(graph.SiLU),
	"tanh": unary(graph.Tanh), "sigmoid": unary(graph.Sigmoid),
	"leakyrelu": func(x *graph.Node) *graph.Node { return graph.Combine(graph.Max, x, graph.Scale(x, 0.01)) },
}

func unary(f graph.Fn) func(*graph.Node) *graph.Node {
	return func(x *graph.Node) *graph.Node { return graph.Apply(f, x) }
}

// Graft implements tune.Parameters.
func (o *Adapter) Graft(m *site.Map) (any, error) {
	if o.Name == "" || strings.ContainsAny(o.Name, ". ") {
		return nil, fmt.Errorf("name: want letters and digits without points, have %q", o.Name)
	}
	for _, l := range o.LeaveOut {
		if l < 0 || l >= m.Layers {
			return nil, fmt.Errorf("leave_out: want numbers from 0 to %d, have %d", m.Layers-1, l)
		}
	}
	a := &bottleneck{Adapter: *o, hidden: m.Hidden, at: map[string]place{}}
	for _, path := range m.Sublayers {
		attention := slices.ContainsFunc(m.KVs, func(kv site.KV) bool { return kv.Path == path || strings.HasPrefix(kv.Path, path+".") })
		kind := "output_adapters"
		if attention {
			kind = "attention_adapters"
		}
		layer := site.IndexOf(path)
		if o.Places == "feed_forward" && attention || o.Places == "attention" && !attention || slices.Contains(o.LeaveOut, layer) {
			continue
		}
		reduction := o.Reduction
		for _, p := range o.ReductionBy {
			if p.Key == fmt.Sprint(layer) {
				reduction = p.Value
			}
		}
		if !(reduction > 0) || float64(m.Hidden)/reduction > 4*float64(m.Hidden) {
			return nil, fmt.Errorf("reduction: want at least 0.25 in layer %d, have %g", layer, reduction)
		}
		block, _ := tune.ModuleOf(path)
		a.at[path] = place{name: block + "." + kind + ".adapters." + o.Name + ".", width: max(1, int(float64(m.Hidden)/reduction))}
	}
	if len(a.at) == 0 {
		return nil, fmt.Errorf("leave_out: %v leaves no layer for adapters", o.LeaveOut)
	}
	return a, nil
}

// bottleneck is the graft: adapters at places of one model.
type bottleneck struct {
	Adapter
	hidden int
	at     map[string]place // by path of the block
}

// place is one adapter.
type place struct {
	name  string // of its tensors, up to the last point
	width int    // of the bottleneck
}

// GraftSublayer implements site.SublayerGrafter. The stream r is added by the model.
func (a *bottleneck) GraftSublayer(s *site.Scope, path string, r, h *graph.Node) *graph.Node {
	p, ok := a.at[path]
	if !ok {
		return h
	}
	x := h
	switch a.Input {
	case "sum":
		x = graph.Plus(h, r)
	case "residual":
		x = r
	}
	y := a.network(s, p, x)
	if a.Input == "residual" {
		if a.NormAfter {
			y = a.norm(s, p, "adapter_norm_after", y)
		}
		return graph.Plus(h, y)
	}
	inner := x
	if a.residualBefore {
		inner = h
	}
	if a.normResidual {
		y = graph.Plus(y, inner)
	}
	if a.NormAfter {
		y = a.norm(s, p, "adapter_norm_after", y)
	}
	if !a.normResidual {
		y = graph.Plus(y, inner)
	}
	if !a.outerResidual {
		y = graph.Minus(y, r)
	}
	return y
}

// network builds the adapter itself.
func (a *bottleneck) network(s *site.Scope, p place, x *graph.Node) *graph.Node {
	down, up := a.starts()
	z, place := x, "0"
	if a.NormBefore {
		z, place = a.norm(s, p, "adapter_norm_before", x), "1"
	}
	vector := func(leaf string, n int) *graph.Node {
		return s.Declare(site.Param{Name: p.name + leaf, Shape: []int{n}, Trainable: true, Init: zeros})
	}
	matrix := func(leaf string, out, in int, start site.Init) *graph.Node {
		return s.Declare(site.Param{Name: p.name + leaf, Shape: []int{out, in}, Trainable: true, Init: start})
	}
	var factor *graph.Node
	switch a.Scaling {
	case "learned":
		factor = s.Declare(site.Param{Name: p.name + "scaling", Shape: []int{1}, Trainable: true, Init: ones})
	case "channel":
		factor = s.Declare(site.Param{Name: p.name + "scaling", Shape: []int{a.hidden}, Trainable: true, Init: ones})
	}
	z = graph.Plus(graph.Project(z, matrix("adapter_down."+place+".weight", p.width, a.hidden, down)), vector("adapter_down."+place+".bias", p.width))
	y := functions[a.Function](z)
	y = graph.Plus(graph.Project(y, matrix("adapter_up.weight", a.hidden, p.width, up)), vector("adapter_up.bias", a.hidden))
	if s.Training() {
		y = graph.Drop(y, s.In.DropKey, float32(a.Dropout))
	}
	if factor != nil {
		y = graph.Times(y, factor)
	} else {
		y = graph.Scale(y, float32(a.Scale))
	}
	return y
}

// starts returns the first values of the two projections.
func (a *bottleneck) starts() (down, up site.Init) {
	switch a.Init {
	case "bert":
		return normal(0.02), normal(0.02)
	case "houlsby":
		return truncated(0.01), truncated(0.01)
	}
	return uniform(1 / math.Sqrt(float64(a.hidden))), zeros
}

func (a *bottleneck) norm(s *site.Scope, p place, leaf string, x *graph.Node) *graph.Node {
	w := s.Declare(site.Param{Name: p.name + leaf + ".weight", Shape: []int{a.hidden}, Trainable: true, Init: ones})
	b := s.Declare(site.Param{Name: p.name + leaf + ".bias", Shape: []int{a.hidden}, Trainable: true, Init: zeros})
	return graph.NormLayer(x, w, b, 1e-5)
}
