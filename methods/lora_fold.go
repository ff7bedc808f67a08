package methods

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/model"
	"tunesmith/tune"
)

// Fold returns an adapter on its model as plain updates of the model's own weights: what started from a part of a weight
// (PiSSA, OLoRA) exactly, in twice the rank; lengths of rows (DoRA) and a base in another storage in the rank given, by
// the largest singular values. kept is the share of the updates' squared length that this keeps.
func Fold(a *model.Adapted, rank int) (u *Updates, kept float64, err error) {
	if len(a.Grafts) != 1 {
		return nil, 0, errors.New("fold: want a model with one adapter")
	}
	l, ok := a.Grafts[0].(*lora)
	switch {
	case !ok:
		return nil, 0, errors.New("fold: the adapter's method has no low-rank updates")
	case l.LoRABias:
		return nil, 0, errors.New("fold: lora_bias has no place in a plain adapter; merge it into the model instead")
	}
	exact := !l.DoRA && !l.store.quantises()
	if !exact && rank < 1 {
		return nil, 0, errors.New("rank: want >= 1: this adapter's change of the weights is not of low rank, choose what to keep")
	}
	value := func(param string) []float32 {
		if t, ok := a.Store.Get(param); ok {
			return t.Float32s()
		}
		return nil
	}
	o := l.LoRA
	o.DoRA, o.Init, o.RSLoRA = false, "uniform", false
	u = &Updates{Name: "folded", options: o}
	u.options.Targets = l.modules
	var all, lost float64
	for _, path := range sortedPaths(l.updates) {
		at := l.updates[path]
		if exact {
			x, y, r := l.values(at, value)
			u.Modules = append(u.Modules, Factors{Path: path, Embedding: at.embedding, Rank: r, A: x, B: y, Scale: float64(at.scale)})
			continue
		}
		f, square, rest, err := l.foldModule(a, at, rank, value)
		if err != nil {
			return nil, 0, err
		}
		u.Modules, all, lost = append(u.Modules, f), all+square, lost+rest
	}
	for _, p := range a.Sites.Trainable() {
		if !strings.Contains(p.Name, ".lora_") {
			u.Others = append(u.Others, checkpoint.Float32Tensor(p.Name, p.Shape, value(p.Name)))
		}
	}
	if all == 0 {
		return u, 1, nil
	}
	return u, 1 - lost/all, nil
}

// foldModule finds the update of a rank that is nearest to what the adapter makes of the file's weight.
func (l *lora) foldModule(a *model.Adapted, at *update, rank int, value func(string) []float32) (f Factors, square, rest float64, err error) {
	name := at.path + ".weight"
	param := name
	if at.path == a.Sites.Output.Path && a.Sites.Tied != "" {
		param = a.Sites.Tied + ".weight"
	}
	base, err := a.Values(param)
	if err != nil {
		return f, 0, 0, err
	}
	kept, ok := a.Store.Get(param)
	if !ok {
		return f, 0, 0, fmt.Errorf("fold: %s is not loaded", param)
	}
	w := slices.Clone(kept.Float32s())
	if _, err := l.Merge(name, param, w, value); err != nil {
		return f, 0, 0, err
	}
	p, _ := a.Sites.Param(param)
	out, in := p.Shape[0], p.Shape[1]
	for i, v := range base {
		w[i] -= v
		square += float64(w[i]) * float64(w[i])
	}
	rank = min(rank, out, in)
	s := singular(w, out, in, rank, 1)
	addProduct(w, s.b, s.a, rank, -1)
	for _, v := range w {
		rest += float64(v) * float64(v)
	}
	f = Factors{Path: at.path, Embedding: at.embedding, Rank: rank, A: s.a, B: s.b, Scale: 1}
	if at.embedding {
		f.A, f.B = transpose(s.b, out), transpose(s.a, rank)
	}
	return f, square, rest, nil
}

func sortedPaths(updates map[string]*update) []string {
	var out []string
	for path := range updates {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// Describe sets where a folded adapter belongs.
func (u *Updates) Describe(base string, from tune.AdapterOrigin) {
	u.Base, u.origin.Contract = base, from.Contract
}

// Difference compares two adapters.
type Difference struct {
	Modules []ModuleDifference
	OnlyA   []string // modules that only the first updates
	OnlyB   []string
	A, B    float64 // lengths of all updates together
	Apart   float64 // length of the difference
}

// ModuleDifference compares the updates of one module.
type ModuleDifference struct {
	Path   string
	A, B   float64 // lengths of the updates
	Apart  float64 // length of the difference
	Cosine float64 // of the angle between them: 1 for the same direction, 0 where one is 0
}

// Diff compares two adapters by what they do to the weights; other factors of the same update are equal.
func Diff(a, b *Updates) (Difference, error) {
	var d Difference
	in := map[string]Factors{}
	for _, f := range b.Modules {
		in[f.Path] = f
	}
	var squareA, squareB, apart float64
	for _, f := range a.Modules {
		squareA += f.Dot(f)
		g, ok := in[f.Path]
		if !ok {
			d.OnlyA = append(d.OnlyA, f.Path)
			apart += f.Dot(f)
			continue
		}
		delete(in, f.Path)
		if f.In() != g.In() || f.Out() != g.Out() {
			return d, fmt.Errorf("module %s: the adapters belong to different models: %d×%d and %d×%d", f.Path, f.Out(), f.In(), g.Out(), g.In())
		}
		m := ModuleDifference{Path: f.Path, A: f.Norm(), B: g.Norm()}
		dot := f.Dot(g)
		square := max(0, f.Dot(f)+g.Dot(g)-2*dot)
		apart += square
		m.Apart = math.Sqrt(square)
		if m.A > 0 && m.B > 0 {
			m.Cosine = dot / (m.A * m.B)
		}
		d.Modules = append(d.Modules, m)
	}
	for _, g := range b.Modules {
		squareB += g.Dot(g)
		if _, left := in[g.Path]; left {
			d.OnlyB = append(d.OnlyB, g.Path)
			apart += g.Dot(g)
		}
	}
	d.A, d.B, d.Apart = math.Sqrt(squareA), math.Sqrt(squareB), math.Sqrt(apart)
	return d, nil
}
