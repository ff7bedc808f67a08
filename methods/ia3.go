package methods

import (
	"fmt"
	"maps"
	"slices"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// IA3 scales what chosen projections give, or take in, by trained vectors; it folds into the weights.
//
//	y = l∘(W·x + b), or y = W·(l∘x) + b in a feed-forward,  l starts at 1
//
// Liu et al. 2022 (arXiv 2205.05638). It has the fewest values of all methods that merge, made for few examples; it
// cannot mix channels and stops early on tasks that need that. Names and files are PEFT's.
type IA3 struct {
	Targets     tune.Targets `yaml:"targets" doc:"modules that are scaled: names, or one regular expression for the whole path"`
	FeedForward tune.Targets `yaml:"feed_forward" doc:"those among them whose input is scaled, not their result"`
	Exclude     tune.Targets `yaml:"exclude" doc:"modules left out of the targets"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "ia3", PEFT: "IA3", Rate: 1e-2,
		Doc: "scales keys, values and feed-forward channels by trained vectors; merges into the weights",
		New: func() any {
			return &IA3{Targets: tune.Targets{"k_proj", "v_proj", "down_proj"}, FeedForward: tune.Targets{"down_proj"}}
		},
	})
}

// Graft implements tune.Parameters.
func (o *IA3) Graft(m *site.Map) (any, error) {
	paths, err := tune.Choice{Key: "targets", Targets: o.Targets, Exclude: o.Exclude}.Resolve(m)
	if err != nil {
		return nil, err
	}
	g := &ia3{IA3: *o, inputs: map[string]bool{}, transposed: map[string]bool{}}
	for _, l := range m.Linears {
		if slices.Contains(paths, l.Path) {
			g.inputs[l.Path], g.transposed[l.Path] = o.FeedForward.Match(l.Path), l.Transposed
		}
	}
	if len(g.inputs) != len(paths) {
		return nil, fmt.Errorf("targets: want projections, have the embedding or the output among %v", o.Targets)
	}
	return g, nil
}

// ia3 is the graft: by module, whether its input is scaled, and whether its weight stands as (in, out).
type ia3 struct {
	IA3
	inputs, transposed map[string]bool
}

func (g *ia3) name(path string) string { return tune.PEFTPrefix + path + ".ia3_l" }

// GraftLinear implements site.LinearGrafter.
func (g *ia3) GraftLinear(s *site.Scope, l site.Linear, x, y *graph.Node) *graph.Node {
	input, ok := g.inputs[l.Path]
	if !ok {
		return y
	}
	shape, n := []int{l.Out, 1}, l.Out
	if input {
		shape, n = []int{1, l.In}, l.In
	}
	f := graph.Reshape(s.Declare(site.Param{Name: g.name(l.Path), Shape: shape, Trainable: true, Init: ones}), n)
	if !input {
		return graph.Times(y, f)
	}
	y = graph.Project(graph.Times(x, f), s.BaseWeight(l))
	if l.Bias {
		y = graph.Plus(y, s.BaseBias(l))
	}
	return y
}

// Merge implements tune.Merger.
func (g *ia3) Merge(path, _ string, w []float32, value func(string) []float32) (bool, error) {
	module, leaf := tune.ModuleOf(path)
	input, ok := g.inputs[module]
	if !ok || input && leaf == "bias" {
		return false, nil
	}
	f := value(g.name(module))
	if len(f) == 0 || len(w)%len(f) != 0 {
		return false, fmt.Errorf("merge %s: %d factors do not fit %d values", path, len(f), len(w))
	}
	columns := input
	if leaf == "weight" && g.transposed[module] {
		columns = !input
	}
	row := len(w) / len(f) // values that share a factor
	for i := range w {
		if columns {
			w[i] *= f[i%len(f)]
		} else {
			w[i] *= f[i/row]
		}
	}
	return true, nil
}

// ReadPEFT implements tune.PEFTReader. Missing targets are PEFT's for the llama family.
func (o *IA3) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = IA3{Targets: r.modules("target_modules"), FeedForward: r.modules("feedforward_modules"), Exclude: r.modules("exclude_modules")}
	if len(r.modules("modules_to_save")) > 0 {
		r.fail(fmt.Errorf("modules_to_save: want null, have %s: not supported", c["modules_to_save"]))
	}
	if len(o.Targets) == 0 {
		o.Targets, o.FeedForward = tune.Targets{"k_proj", "v_proj", "down_proj"}, tune.Targets{"down_proj"}
	}
	return r.err
}

// PEFT implements tune.PEFTWriter.
func (g *ia3) PEFT() map[string]any {
	transposed := slices.Contains(slices.Collect(maps.Values(g.transposed)), true)
	return map[string]any{
		"peft_type": "IA3", "target_modules": listOrOne(g.Targets), "feedforward_modules": listOrOne(g.FeedForward),
		"exclude_modules": oneOrList(g.Exclude), "modules_to_save": nil, "init_ia3_weights": true, "fan_in_fan_out": transposed,
	}
}

// listOrOne writes names as a list, a pattern as one text, nothing as an empty list.
func listOrOne(t tune.Targets) any {
	if v := oneOrList(t); v != nil {
		return v
	}
	return []string{}
}
