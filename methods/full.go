package methods

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"tunesmith/site"
	"tunesmith/tune"
)

// Full trains the model's own weights: all of them, or those that the options choose. It moves most and forgets
// most, and takes memory for a gradient and two moments of every trained weight.
//
//	θ ← θ − lr · update(∂loss/∂θ)
//
// It stops paying off where the data is small or the general ability has to stay; then take a thin method.
type Full struct {
	Targets     tune.Targets `yaml:"targets" doc:"modules that train: names, or one regular expression for the whole path; all where empty"`
	Exclude     tune.Targets `yaml:"exclude" doc:"modules that stay as they are"`
	Layers      []int        `yaml:"layers" doc:"numbers of the layers that train; all where empty, embeddings and head included"`
	LastLayers  int          `yaml:"last_layers" doc:"train only this many of the last layers; 0 is no limit" min:"0"`
	FreezeEmbed bool         `yaml:"freeze_embeddings" doc:"leave the embedding, and with it a tied output projection, as it is"`
	EmbedRatio  float64      `yaml:"embedding_ratio" doc:"learning rate of the embedding over that of the layers" above:"0"`
	HeadRatio   float64      `yaml:"head_ratio" doc:"learning rate of an output projection of its own over that of the layers" above:"0"`
	LayerDecay  float64      `yaml:"layer_decay" doc:"learning rate of a layer over that of the layer above; the embedding stands below all" above:"0" max:"1"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "full", Rate: 2e-5,
		Doc: "trains the model's own weights, all or chosen ones",
		New: func() any { return &Full{EmbedRatio: 1, HeadRatio: 1, LayerDecay: 1} },
	})
}

// Graft implements tune.Parameters.
func (o *Full) Graft(m *site.Map) (any, error) {
	if o.LastLayers > m.Layers {
		return nil, fmt.Errorf("last_layers: want at most the model's %d, have %d", m.Layers, o.LastLayers)
	}
	for _, l := range o.Layers {
		if l < 0 || l >= m.Layers {
			return nil, fmt.Errorf("layers: want numbers from 0 to %d, have %d", m.Layers-1, l)
		}
	}
	f := full{Full: *o, train: map[string]bool{}, m: m}
	for _, p := range m.Params {
		module, _ := tune.ModuleOf(p.Name)
		if o.chooses(m, module) {
			f.train[p.Name] = true
		}
	}
	if len(f.train) == 0 {
		return nil, fmt.Errorf("targets: %v with exclude %v and layers %v choose none of the model's modules", o.Targets, o.Exclude, o.Layers)
	}
	return f, nil
}

func (o *Full) chooses(m *site.Map, module string) bool {
	layer := site.IndexOf(module)
	switch {
	case o.FreezeEmbed && module == m.Embedding,
		len(o.Targets) > 0 && !o.Targets.Match(module),
		o.Exclude.Match(module),
		len(o.Layers) > 0 && !slices.Contains(o.Layers, layer),
		o.LastLayers > 0 && layer < m.Layers-o.LastLayers:
		return false
	}
	return true
}

type full struct {
	Full
	train map[string]bool
	m     *site.Map
}

// RateScale implements tune.RateScaler.
func (f full) RateScale(p site.Param) float64 {
	module, _ := tune.ModuleOf(p.Name)
	above := 0 // layers between the parameter and the output
	scale := 1.0
	switch layer := site.IndexOf(module); {
	case layer >= 0:
		above = f.m.Layers - 1 - layer
	case module == f.m.Embedding:
		above, scale = f.m.Layers, cmp.Or(f.EmbedRatio, 1)
	case module == f.m.Output.Path:
		scale = cmp.Or(f.HeadRatio, 1)
	}
	return scale * math.Pow(cmp.Or(f.LayerDecay, 1), float64(above))
}

// TrainBase implements site.Selector.
func (f full) TrainBase(name string) bool { return f.train[name] }

// Merge implements tune.Merger: the trained values are the weights.
func (f full) Merge(_, name string, w []float32, value func(string) []float32) (bool, error) {
	if !f.train[name] {
		return false, nil
	}
	return true, tune.Replace(w, value(name), name)
}
