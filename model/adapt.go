package model

import (
	"fmt"
	"math/rand/v2"

	"tunesmith/engine"
	"tunesmith/site"
)

// Adapted is a model with what methods graft onto it, and the tensors of both.
type Adapted struct {
	*Model
	Grafts []any
	Sites  *site.Map // with the grafts' parameters
	Store  *engine.Store
}

// Adapt loads the model's weights, grafts onto it, and gives the grafts' parameters their first values, which
// depend on the seed and each parameter's name alone.
func (m *Model) Adapt(seed uint64, grafts ...any) (*Adapted, error) {
	sites, err := m.Survey(grafts...)
	if err != nil {
		return nil, err
	}
	if sites.Prefix >= m.Config.MaxPositions {
		return nil, fmt.Errorf("tokens: want fewer virtual tokens than the model's context of %d, have %d", m.Config.MaxPositions, sites.Prefix)
	}
	a := &Adapted{Model: m, Grafts: grafts, Sites: sites, Store: engine.NewStore()}
	for _, p := range sites.Params {
		t, err := a.first(p, seed)
		if err != nil {
			return nil, err
		}
		if err := a.Store.Add(t); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// first returns a tensor with its first values: from the file, or drawn. Values of the base are those of the storage in
// which it is kept.
func (a *Adapted) first(p site.Param, seed uint64) (*engine.Tensor, error) {
	if t, ok := a.Store.Get(p.Name); ok {
		return t, nil
	}
	t, err := a.Model.first(p, seed, func(base site.Param) (*engine.Tensor, error) { return a.first(base, seed) })
	if err != nil || !p.Base || p.Trainable {
		return t, err
	}
	for _, g := range a.Grafts {
		s, ok := g.(site.BaseStorer)
		if !ok {
			continue
		}
		encode, err := s.StoreBase(p, t.Format)
		if err != nil {
			return nil, err
		}
		if encode != nil {
			t.Format, t.Data = encode(t.Float32s())
			if t.Release != nil {
				t.Release()
			}
			t.Values, t.Make, t.Release = nil, nil, nil
		}
	}
	return t, nil
}

// first returns a tensor with its first values; other gives the base's tensors, from which new ones may start.
func (m *Model) first(p site.Param, seed uint64, other func(site.Param) (*engine.Tensor, error)) (*engine.Tensor, error) {
	drawn := m.newHead && p.Name == m.survey.Output.Path+".weight"
	if p.Base && m.File != nil && !drawn {
		return m.load(p)
	}
	t := &engine.Tensor{Name: p.Name, Shape: p.Shape, Trainable: p.Trainable}
	init := p.Init
	if p.Base {
		if init == nil {
			init = fromScratch(p)
		}
		if drawn {
			init = headStart(p)
		}
		if !p.Trainable && len(p.Shape) > 1 { // drawn when the engine packs it, so that it is not held twice
			t.Make = func() []float32 {
				values := make([]float32, p.Size())
				init(values, site.Generator(seed, p.Name), nil)
				return values
			}
			return t, nil
		}
	}
	t.Values = make([]float32, p.Size())
	if init == nil {
		return nil, fmt.Errorf("parameter %q has no first values", p.Name)
	}
	var failed error
	init(t.Values, site.Generator(seed, p.Name), func(name string) []float32 {
		base, ok := m.survey.Param(name)
		if !ok {
			failed = fmt.Errorf("parameter %q starts from %q, which the model does not have", p.Name, name)
			return nil
		}
		src, err := other(base)
		if err != nil {
			failed = err
			return nil
		}
		return src.Float32s()
	})
	return t, failed
}

// MappedBytes returns the bytes of the frozen tensors in their storage, of the file or of the memory.
func (a *Adapted) MappedBytes() int64 {
	var n int64
	for _, t := range a.Store.All() {
		n += int64(len(t.Data))
	}
	return n
}

// fromScratch is the start of a model without weights: vectors are 1 as norms need them, or 0 as biases do,
// matrices normal with a deviation of 0.02 (Radford et al. 2019).
func fromScratch(p site.Param) site.Init {
	return func(dst []float32, rng *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			switch {
			case len(p.Shape) > 1:
				dst[i] = float32(rng.NormFloat64() * 0.02)
			case p.Name[len(p.Name)-4:] != "bias":
				dst[i] = 1
			}
		}
	}
}

// Beside returns another adaptation of the model, with grafts of its own: the frozen weights are held once, and what
// trains is its own. The models may differ in their heads.
func (a *Adapted) Beside(m *Model, seed uint64, grafts ...any) (*Adapted, error) {
	sites, err := m.Survey(grafts...)
	if err != nil {
		return nil, err
	}
	out := &Adapted{Model: m, Grafts: grafts, Sites: sites, Store: engine.NewStore()}
	for _, p := range sites.Params {
		t, ok := a.Store.Get(p.Name)
		if !ok || !p.Base || p.Trainable || t.Trainable {
			if t, err = out.first(p, seed); err != nil {
				return nil, err
			}
		}
		if err := out.Store.Add(t); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Trained returns the tensors that train, in the order of the sites' map.
func (a *Adapted) Trained() []*engine.Tensor {
	var out []*engine.Tensor
	for _, p := range a.Sites.Trainable() {
		if t, ok := a.Store.Get(p.Name); ok {
			out = append(out, t)
		}
	}
	return out
}
