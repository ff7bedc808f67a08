package methods

import (
	"fmt"
	"slices"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// BitFit trains the biases of the model and nothing else.
//
//	y = W·x + b,  b trained, W frozen
//
// Ben Zaken et al. 2021 (arXiv 2106.10199). Most language models of today have no biases, or only those of queries, keys
// and values: then zero biases can be added, which start from the base. A bias shifts and cannot mix, so that the method
// falls behind where a task needs more than that.
type BitFit struct {
	Biases tune.Targets `yaml:"biases" doc:"modules whose biases train: names, or one regular expression for the whole path; all where empty"`
	Add    tune.Targets `yaml:"add_biases" doc:"projections without a bias that get one of zeros: all-linear, or names such as [v_proj]"`
	Norms  bool         `yaml:"norms" doc:"train the weights of the norms too"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "bitfit", PEFT: "tunesmith/bitfit", Rate: 5e-3,
		Doc: "trains biases alone, the model's own or added ones",
		New: func() any { return &BitFit{} }, Sample: func() any { return &BitFit{Add: tune.Targets{tune.AllLinear}} },
	})
}

// Graft implements tune.Parameters.
func (o *BitFit) Graft(m *site.Map) (any, error) {
	b := &bitfit{BitFit: *o, train: map[string]bool{}, added: map[string]bool{}}
	for _, p := range m.Params {
		module, leaf := tune.ModuleOf(p.Name)
		bias := leaf == "bias" && (len(o.Biases) == 0 || o.Biases.Match(module))
		if bias || o.Norms && leaf == "weight" && slices.Contains(m.Norms, module) {
			b.train[p.Name] = true
		}
	}
	if len(o.Add) > 0 {
		paths, err := tune.Choice{Key: "add_biases", Targets: o.Add}.Resolve(m)
		if err != nil {
			return nil, err
		}
		for _, l := range m.Linears {
			if !l.Bias && slices.Contains(paths, l.Path) {
				b.added[l.Path] = true
			}
		}
	}
	if len(b.train)+len(b.added) > 0 {
		return b, nil
	}
	if len(o.Biases) > 0 {
		return nil, fmt.Errorf("biases: %v has none in this model; leave the option out for all that there are, or see add_biases", o.Biases)
	}
	return nil, fmt.Errorf("biases: this model has none; add zero ones with add_biases: all-linear, or with names such as [v_proj]")
}

// bitfit is the graft.
type bitfit struct {
	BitFit
	train map[string]bool // the model's own parameters
	added map[string]bool // modules with a new bias
}

// TrainBase implements site.Selector.
func (b *bitfit) TrainBase(name string) bool { return b.train[name] }

// GraftLinear implements site.LinearGrafter.
func (b *bitfit) GraftLinear(s *site.Scope, l site.Linear, _, y *graph.Node) *graph.Node {
	if !b.added[l.Path] {
		return y
	}
	return graph.Plus(y, s.Declare(site.Param{Name: l.Path + ".bias", Shape: []int{l.Out}, Trainable: true, Init: zeros}))
}

// Adds implements tune.Extender.
func (b *bitfit) Adds() []string {
	var out []string
	for path := range b.added {
		out = append(out, path+".bias")
	}
	slices.Sort(out)
	return out
}

// Merge implements tune.Merger.
func (b *bitfit) Merge(_, name string, w []float32, value func(string) []float32) (bool, error) {
	module, leaf := tune.ModuleOf(name)
	if !b.train[name] && !(leaf == "bias" && b.added[module]) {
		return false, nil
	}
	return true, tune.Replace(w, value(name), name)
}

// PEFT implements tune.PEFTWriter, in our own layout: no library has files of biases alone. The tensors are the new
// biases under the model's own names.
func (b *bitfit) PEFT() map[string]any {
	return map[string]any{tune.OwnMethod: "bitfit", "biases": []string(b.Biases), "add_biases": []string(b.Add), "norms": b.Norms}
}

// ReadPEFT implements tune.PEFTReader.
func (o *BitFit) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = BitFit{Biases: r.modules("biases"), Add: r.modules("add_biases"), Norms: key(&r, "norms", false)}
	return r.err
}
