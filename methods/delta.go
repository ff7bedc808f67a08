package methods

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// Delta freezes the model and changes chosen projections in other shapes than the product of two thin matrices: relatives
// of LoRA that train fewer values, or changes of higher rank with as many.
//
//	vera       W + diag(b)·B·diag(d)·A                A, B random, frozen and shared; b and d train
//	randlora   W + s·Σᵢ Bᵢ·diag(λᵢ)·A·diag(γᵢ)        bases random, frozen and shared; λ and γ train
//	loha       W + s·(B₁·A₁)∘(B₂·A₂)                  rank up to rank²
//	lokr       W + s·C⊗(B·A)                          Kronecker product, full rank from few values
//	oft        W·blockdiag(R)ᵀ                        R rotations of blocks of the input; lengths and angles stay
//	fourierft  W + s·Re F⁻¹(S)                        few coefficients at random frequencies
//
// It stops being worth while where LoRA's memory is no concern: these shapes save values, not computation.
type Delta struct {
	Shape       string       `yaml:"shape" doc:"what the change is made of" enum:"vera,randlora,loha,lokr,oft,fourierft"`
	Rank        int          `yaml:"rank" doc:"rank of the factors; 0 is the shape's own: 256 for vera, 32 for randlora, 8 for loha and lokr" min:"0"`
	Alpha       float64      `yaml:"alpha" doc:"strength: the change is scaled by alpha/rank; 0 is the shape's own" min:"0"`
	Dropout     float64      `yaml:"dropout" doc:"share of the inputs of the change that are dropped in training" min:"0" below:"1"`
	Targets     tune.Targets `yaml:"targets" doc:"modules that change: all-linear, names, or one regular expression for the whole path"`
	Exclude     tune.Targets `yaml:"exclude" doc:"modules left out of the targets"`
	Layers      []int        `yaml:"layers" doc:"numbers of the layers that change; all where empty"`
	Block       int          `yaml:"block_size" doc:"oft: inputs that turn together; lowered or raised to divide the width" min:"2"`
	Blocks      int          `yaml:"blocks" doc:"oft: number of blocks, instead of their size; 0 takes the size" min:"0"`
	ShareBlocks bool         `yaml:"share_blocks" doc:"oft: one rotation for all blocks of a module"`
	Terms       int          `yaml:"series_terms" doc:"oft: terms of the series that stands for the exact rotation; 0 is exact" min:"0" max:"64"`
	Factor      int          `yaml:"factor" doc:"lokr: rows and columns of C; 0 is near the root of the width" min:"0"`
	FactorBoth  bool         `yaml:"factor_both" doc:"lokr: C is of low rank too"`
	Frequencies int          `yaml:"frequencies" doc:"fourierft: coefficients of a module" min:"1"`
	Start       float64      `yaml:"start" doc:"vera: first values of d"`
	SaveBases   bool         `yaml:"save_bases" doc:"write random bases along, so that no program has to draw them again"`
	Seed        uint64       `yaml:"bases_seed" doc:"random bases and frequencies come from it, by torch's generator"`
}

// changeShape computes one kind of change. It keeps nothing: all that differs between modules stands in the delta's options.
type changeShape interface {
	// tensors lists what trains in a module.
	tensors(d *delta, at site.Linear) []site.Param
	// graft returns the changed result.
	graft(s *site.Scope, d *delta, at site.Linear, x, y *graph.Node, p []*graph.Node) *graph.Node
	// merge changes the weight by the values of the tensors.
	merge(d *delta, at site.Linear, w []float32, p [][]float32, value func(string) []float32) error
	// read takes the options from a PEFT config, write puts them there.
	read(o *Delta, r *peftKeys)
	write(o *Delta, c map[string]any)
}

// shapes are the shapes by name; PEFT's type is the name in capitals.
var shapes = map[string]changeShape{
	"vera": vera{}, "randlora": randLoRA{}, "loha": hadamard{}, "lokr": kronecker{}, "oft": rotation{}, "fourierft": fourier{},
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "delta", PEFT: "OFT VERA RANDLORA LOHA LOKR FOURIERFT", Rate: 1e-3,
		Doc: "changes projections by rotations, Kronecker, Hadamard or Fourier shapes, or by random bases",
		New: func() any {
			return &Delta{Shape: "oft", Targets: tune.Targets{tune.AllLinear}, Block: 32, Frequencies: 1000, Start: 0.1, SaveBases: true}
		},
	})
}

// Graft implements tune.Parameters.
func (o *Delta) Graft(m *site.Map) (any, error) {
	kind, ok := shapes[o.Shape]
	if !ok {
		return nil, fmt.Errorf("shape: want one of %s, have %q", strings.Join(slices.Sorted(maps.Keys(shapes)), ", "), o.Shape)
	}
	choice := tune.Choice{Key: "targets", Targets: o.Targets, Exclude: o.Exclude, Layers: o.Layers}
	paths, err := choice.Resolve(m)
	if err != nil {
		return nil, err
	}
	d := &delta{Delta: *o, kind: kind, modules: map[string]site.Linear{}, list: o.Targets}
	if o.Targets.IsPattern() {
		if d.list, err = moduleList(&LoRA{Targets: o.Targets, Exclude: o.Exclude, Layers: o.Layers}, paths, m); err != nil {
			return nil, err
		}
	}
	for _, path := range paths {
		at := slices.IndexFunc(m.Linears, func(l site.Linear) bool { return l.Path == path })
		if at < 0 {
			return nil, fmt.Errorf("targets: %s is no projection; shape %s changes projections inside of layers only", path, o.Shape)
		}
		l := m.Linears[at]
		d.modules[path] = l
		d.out, d.in = max(d.out, l.Out), max(d.in, l.In)
		if n := d.Rank; n > 4*m.Hidden || d.Blocks > l.In || d.Shape == "fourierft" && d.Frequencies > l.In*l.Out {
			return nil, fmt.Errorf("%s: want rank, blocks and frequencies within its size of %d×%d, have %d, %d and %d", path, l.Out, l.In, n, d.Blocks, d.Frequencies)
		}
	}
	d.first = paths[0]
	return d, nil
}

// delta is the graft.
type delta struct {
	Delta
	kind    changeShape
	modules map[string]site.Linear
	list    []string // as PEFT's target_modules
	first   string   // module
	out, in int      // largest of the modules
}

// scale returns alpha/rank with the shape's own defaults.
func (o *Delta) scale(rank int, alpha float64) float32 {
	return float32(cmp.Or(o.Alpha, alpha) / float64(cmp.Or(o.Rank, rank)))
}

// GraftLinear implements site.LinearGrafter.
func (d *delta) GraftLinear(s *site.Scope, at site.Linear, x, y *graph.Node) *graph.Node {
	if _, ok := d.modules[at.Path]; !ok {
		return y
	}
	var p []*graph.Node
	for _, t := range d.kind.tensors(d, at) {
		t.Name, t.Trainable = tune.PEFTPrefix+at.Path+"."+t.Name, true
		p = append(p, s.Declare(t))
	}
	if s.Training() {
		x = graph.Drop(x, s.In.DropKey, float32(d.Dropout))
	}
	return d.kind.graft(s, d, at, x, y, p)
}

// Merge implements tune.Merger.
func (d *delta) Merge(path, _ string, w []float32, value func(string) []float32) (bool, error) {
	module, leaf := tune.ModuleOf(path)
	at, ok := d.modules[module]
	if !ok || leaf != "weight" {
		return false, nil
	}
	if len(w) != at.In*at.Out {
		return false, fmt.Errorf("merge %s: want %d values, have %d", path, at.In*at.Out, len(w))
	}
	var p [][]float32
	for _, t := range d.kind.tensors(d, at) {
		p = append(p, value(tune.PEFTPrefix+module+"."+t.Name))
	}
	if !at.Transposed {
		return true, d.kind.merge(d, at, w, p, value)
	}
	turned := transpose(w, at.In) // a file of the (in, out) kind
	if err := d.kind.merge(d, at, turned, p, value); err != nil {
		return false, err
	}
	copy(w, transpose(turned, at.Out))
	return true, nil
}

// ReadPEFT implements tune.PEFTReader.
func (o *Delta) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	kind := strings.ToLower(key(&r, "peft_type", ""))
	*o = Delta{
		Shape: kind, Block: 32, Frequencies: 1000, Start: 0.1, SaveBases: key(&r, "save_projection", true),
		Targets: r.modules("target_modules"), Exclude: r.modules("exclude_modules"), Layers: numbers(&r, "layers_to_transform"),
	}
	if len(o.Targets) == 0 && r.err == nil {
		o.Targets = tune.Targets{"q_proj", "v_proj"} // PEFT's default for the families here
	}
	if bias := key(&r, "bias", "none"); bias != "none" {
		r.fail(fmt.Errorf("bias: want none, have %q: not supported", bias))
	}
	for _, k := range []string{"fan_in_fan_out", "coft", "sparse", "very_sparse", "use_effective_conv2d"} {
		if key(&r, k, false) {
			r.fail(fmt.Errorf("%s: want false, have true: not supported", k))
		}
	}
	for _, k := range []string{"modules_to_save", "rank_pattern", "alpha_pattern", "n_frequency_pattern"} {
		if v := string(c[k]); v != "" && v != "null" && v != "[]" && v != "{}" {
			r.fail(fmt.Errorf("%s: want none, have %s: not supported", k, v))
		}
	}
	if s, ok := shapes[kind]; ok {
		s.read(o, &r)
	}
	if o.Rank < 0 || o.Block < 0 || o.Blocks < 0 || o.Terms < 0 || o.Terms > 64 || o.Frequencies < 1 {
		r.fail(fmt.Errorf("want counts above 0, have %+v", *o))
	}
	return r.err
}

// PEFT implements tune.PEFTWriter.
func (d *delta) PEFT() map[string]any {
	c := map[string]any{
		"peft_type": strings.ToUpper(d.Shape), "target_modules": d.list, "layers_to_transform": nullIfEmpty(d.Layers),
		"layers_pattern": nil, "modules_to_save": nil,
	}
	if len(d.Exclude) > 0 {
		c["exclude_modules"] = oneOrList(d.Exclude)
	}
	d.kind.write(&d.Delta, c)
	return c
}

// Param implements tune.FileNamer: randlora's files repeat the shared bases for each module.
func (o *Delta) Param(tensor string) string {
	for _, basis := range []string{"randlora_A", "randlora_B"} {
		if strings.HasSuffix(tensor, "."+basis) && tensor != "base_model."+basis {
			return ""
		}
	}
	return strings.Replace(tensor, ".default", "", 1)
}

// PEFTTensors implements tune.PEFTTensors: the shared bases stand in the file too.
func (d *delta) PEFTTensors(trained []site.Param, value func(string) []float32) []checkpoint.Tensor {
	out := tune.Tensors(trained, value)
	if b, ok := d.kind.(basesShape); ok && d.SaveBases {
		for _, p := range b.bases(d) {
			out = append(out, checkpoint.Float32Tensor(p.Name, p.Shape, value(p.Name)))
			if d.Shape == "randlora" {
				for _, module := range slices.Sorted(maps.Keys(d.modules)) {
					name := tune.PEFTPrefix + module + strings.TrimPrefix(p.Name, "base_model")
					out = append(out, checkpoint.Float32Tensor(name, p.Shape, value(p.Name)))
				}
			}
		}
	}
	return out
}

// basesShape is a shape with frozen tensors that all modules share.
type basesShape interface{ bases(d *delta) []site.Param }

// declare returns the nodes of the shared bases.
func declare(s *site.Scope, list []site.Param) []*graph.Node {
	var out []*graph.Node
	for _, p := range list {
		out = append(out, s.Declare(p))
	}
	return out
}
