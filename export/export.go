// Package export hands a tuned model over in the formats that others read: a Hugging Face directory, or a GGUF file.
// What methods added is folded into the weights in single precision or better, and rounded once, as it is written.
package export

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/tune"
)

// merger folds grafts into the weights of a model.
type merger struct {
	*model.Adapted
	grafts []tune.Merger
	// untied says that the output projection no longer shares the embedding's weight.
	untied bool
	// extended is the model with the biases that grafts add, nil where they add none; keys say so in config.json.
	extended *model.Model
	keys     map[string]any
}

func newMerger(a *model.Adapted) (*merger, error) {
	m := &merger{Adapted: a}
	for _, g := range a.Grafts {
		x, ok := g.(tune.Merger)
		if !ok {
			return nil, errors.New("export: the method cannot be folded into the weights; hand over its adapter instead")
		}
		m.grafts = append(m.grafts, x)
	}
	if err := m.extend(); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if !a.Config.Tied || a.Config.Head.Kind != "" || len(m.grafts) == 0 { // a classifier's head shares nothing
		return m, nil
	}
	embedding, err := m.values(a.Sites.Tied+leaf, a.Sites.Tied+leaf)
	if err != nil {
		return nil, err
	}
	head, err := m.values(a.Sites.Output.Path+leaf, a.Sites.Tied+leaf)
	m.untied = !slices.Equal(embedding, head)
	return m, err
}

const leaf = ".weight"

// extend makes room for what grafts add to the model.
func (m *merger) extend() error {
	var names []string
	for _, g := range m.grafts {
		if e, ok := g.(tune.Extender); ok {
			names = append(names, e.Adds()...)
		}
	}
	if len(names) == 0 {
		return nil
	}
	c, keys, err := m.WithBiases(names)
	if err != nil {
		return err
	}
	m.keys = keys
	m.extended, err = model.New(c)
	return err
}

// values returns one of the model's parameters, as the module at the path uses it, with the grafts folded in.
func (m *merger) values(path, name string) ([]float32, error) {
	var w []float32
	if t, ok := m.Store.Get(name); ok {
		w = slices.Clone(t.Float32s())
	} else if _, own := m.Map().Param(name); !own && m.extended != nil {
		p, _ := m.extended.Map().Param(name)
		w = make([]float32, p.Size()) // a bias that comes with one that trains
	} else {
		v, err := m.Values(name)
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		w = v
	}
	value := func(param string) []float32 {
		if t, ok := m.Store.Get(param); ok {
			return t.Float32s()
		}
		return nil
	}
	for _, g := range m.grafts {
		if _, err := g.Merge(path, name, w, value); err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
	}
	return w, nil
}

// weight is a tensor to be written: a parameter of the model as the module at the path uses it.
type weight struct {
	path, name string
	shape      []int
}

// weights lists the tensors of the merged model.
func (m *merger) weights() []weight {
	var out []weight
	all := m.Map()
	if m.extended != nil {
		all = m.extended.Map()
	}
	for _, p := range all.Params {
		out = append(out, weight{p.Name, p.Name, p.Shape})
	}
	if m.untied {
		p, _ := m.Map().Param(m.Sites.Tied + leaf)
		out = append(out, weight{m.Sites.Output.Path + leaf, p.Name, p.Shape})
	}
	return out
}

// config returns the merged model's.
func (m *merger) config() model.Config {
	c := m.Config
	if m.extended != nil {
		c = m.extended.Config
	}
	c.Tied = c.Tied && !m.untied
	return c
}

// tensor returns a weight for a writer, which computes it when its turn has come. change, where it is not nil, sees the
// values before they are encoded.
func (m *merger) tensor(w weight, name string, f quant.Format, change func([]float32) []float32) checkpoint.Tensor {
	return checkpoint.Tensor{Name: name, Shape: w.shape, Format: f, Fetch: func() ([]byte, error) {
		v, err := m.values(w.path, w.name)
		if err != nil {
			return nil, err
		}
		if err := fits(v, f); err != nil {
			return nil, err
		}
		if change != nil {
			v = change(v)
		}
		t, err := checkpoint.FromFloat32s(name, w.shape, v, f)
		return t.Data, err
	}}
}

// fits refuses what a format cannot hold: no numbers, and in half precision what is beyond its range.
func fits(values []float32, f quant.Format) error {
	const half = 65504
	for i, v := range values {
		switch x := math.Abs(float64(v)); {
		case !(x <= math.MaxFloat32):
			return fmt.Errorf("value %d is %v; the training that made it has diverged", i, v)
		case f == quant.F16 && x > half:
			return fmt.Errorf("value %d is %g, beyond the range of F16; write BF16 or F32", i, v)
		}
	}
	return nil
}

// fromGGUF reports whether the model was read from a GGUF file.
func (m *merger) fromGGUF() bool { return m.File != nil && strings.HasSuffix(m.Path, ".gguf") }

// Rounding is what a storage loses of a merged model's weights, as a share of their length.
type Rounding struct {
	All   float64 // of all weights together
	Most  float64 // of the tensor that loses most
	Worst string  // that tensor
}

// Loss returns what is lost of the weights, with the grafts folded in, where they are written in a format: in a GGUF file,
// where some tensors keep more, or in a directory.
func Loss(a *model.Adapted, f quant.Format, gguf bool) (Rounding, error) {
	var r Rounding
	m, err := newMerger(a)
	if err != nil {
		return r, err
	}
	var lost, all float64
	for _, w := range m.weights() {
		values, err := m.values(w.path, w.name)
		if err != nil {
			return r, err
		}
		format := f
		if gguf {
			format = storage(f, w.shape, m.Config.Vocab)
		}
		t, err := checkpoint.FromFloat32s(w.name, w.shape, values, format)
		if err != nil {
			return r, fmt.Errorf("export: %w", err)
		}
		var rest, square float64
		for i, v := range t.Float32s() {
			d := float64(v) - float64(values[i])
			rest, square = rest+d*d, square+float64(values[i])*float64(values[i])
		}
		if share := math.Sqrt(rest / max(square, math.SmallestNonzeroFloat64)); share > r.Most {
			r.Most, r.Worst = share, w.path
		}
		lost, all = lost+rest, all+square
	}
	if all > 0 {
		r.All = math.Sqrt(lost / all)
	}
	return r, nil
}
