package methods

import (
	"fmt"
	"slices"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// LNTuning trains the norms of the model and nothing else; it folds into the weights.
//
//	y = norm(x)·w + b,  w and b trained
//
// Zhao et al. 2023 (arXiv 2312.11420). It scales channels before each block; alone it moves little, beside another method
// it costs nothing. Names and files are PEFT's.
type LNTuning struct {
	Targets tune.Targets `yaml:"targets" doc:"norms that train: names, or one regular expression for the whole path; all where empty"`
	Exclude tune.Targets `yaml:"exclude" doc:"norms that stay"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "ln_tuning", PEFT: "LN_TUNING", Rate: 5e-3,
		Doc: "trains the weights and biases of the norms; merges into them",
		New: func() any { return &LNTuning{} },
	})
}

// Graft implements tune.Parameters.
func (o *LNTuning) Graft(m *site.Map) (any, error) {
	var norms []string
	for _, path := range m.Norms {
		if (len(o.Targets) == 0 || o.Targets.Match(path)) && !o.Exclude.Match(path) {
			norms = append(norms, path)
		}
	}
	if len(norms) == 0 {
		return nil, fmt.Errorf("targets: %v without %v chooses none of the model's %d norms, such as %s", o.Targets, o.Exclude, len(m.Norms), m.Norms[0])
	}
	return &lnTuning{LNTuning: *o, norms: norms}, nil
}

// lnTuning is the graft.
type lnTuning struct {
	LNTuning
	norms []string
}

// GraftParam implements site.ParamGrafter: the norms train as copies under PEFT's names.
func (l *lnTuning) GraftParam(s *site.Scope, path string, p site.Param) *graph.Node {
	name, ok := l.copied(path)
	if !ok {
		return nil
	}
	return s.Declare(site.Param{Name: name, Shape: p.Shape, Trainable: true, Init: tune.CopyOf(p.Name)})
}

func (l *lnTuning) copied(path string) (string, bool) {
	module, leaf := tune.ModuleOf(path)
	return tune.PEFTPrefix + module + ".ln_tuning_layers." + leaf, slices.Contains(l.norms, module)
}

// Merge implements tune.Merger.
func (l *lnTuning) Merge(path, _ string, w []float32, value func(string) []float32) (bool, error) {
	name, ok := l.copied(path)
	if !ok {
		return false, nil
	}
	return true, tune.Replace(w, value(name), path)
}

// ReadPEFT implements tune.PEFTReader.
func (o *LNTuning) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = LNTuning{Targets: r.modules("target_modules"), Exclude: r.modules("exclude_modules")}
	if len(r.modules("modules_to_save")) > 0 {
		r.fail(fmt.Errorf("modules_to_save: want null, have %s: not supported", c["modules_to_save"]))
	}
	return r.err
}

// PEFT implements tune.PEFTWriter.
func (l *lnTuning) PEFT() map[string]any {
	var names []string
	for _, path := range l.norms {
		if _, name := tune.ModuleOf(path); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var targets any = names
	if len(l.Targets) > 0 {
		targets = listOrOne(l.Targets)
	}
	return map[string]any{
		"peft_type": "LN_TUNING", "target_modules": targets, "exclude_modules": oneOrList(l.Exclude), "modules_to_save": nil,
	}
}
