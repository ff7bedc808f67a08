package methods

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	"tunesmith/site"
	"tunesmith/tune"
)

// Factors is the update Scale·B·A of one module, as an adapter file holds it.
type Factors struct {
	Path      string // of the module
	Embedding bool   // A is (rank, vocabulary) and B (hidden, rank); the update is transposed
	Rank      int
	A, B      []float32 // (rank, in) and (out, rank)
	Scale     float64
}

// Updates is an adapter of low-rank updates, apart from any model.
type Updates struct {
	Name    string // directory that it was read from
	Base    string
	Modules []Factors           // sorted by path
	Others  []checkpoint.Tensor // what else it trains: lengths of rows, biases, whole modules, rows of tokens
	options LoRA
	origin  tune.AdapterOrigin
}

// Out returns the rows of B.
func (f Factors) Out() int { return len(f.B) / f.Rank }

// In returns the columns of A.
func (f Factors) In() int { return len(f.A) / f.Rank }

// Dot returns the sum of the products of the elements of two updates of one module, from their factors alone.
func (f Factors) Dot(g Factors) float64 {
	// tr(Aᵀ·Bᵀ·B'·A') = Σ (BᵀB')·(AA'ᵀ)
	var sum float64
	bb := make([]float64, f.Rank*g.Rank)
	for o := range f.Out() {
		for r := range f.Rank {
			addScaled32(bb[r*g.Rank:(r+1)*g.Rank], g.B[o*g.Rank:(o+1)*g.Rank], float64(f.B[o*f.Rank+r]))
		}
	}
	in := f.In()
	for r := range f.Rank {
		for q := range g.Rank {
			var aa float64
			for i, v := range f.A[r*in : (r+1)*in] {
				aa += float64(v) * float64(g.A[q*in+i])
			}
			sum += bb[r*g.Rank+q] * aa
		}
	}
	return f.Scale * g.Scale * sum
}

func addScaled32(sum []float64, x []float32, f float64) {
	for i, v := range x {
		sum[i] += f * float64(v)
	}
}

// Norm returns the length of the update, its Frobenius norm.
func (f Factors) Norm() float64 { return math.Sqrt(max(0, f.Dot(f))) }

// tensorName finds the module and the factor in a tensor's name.
var tensorName = regexp.MustCompile(`^base_model\.model\.(.+)\.lora_(embedding_)?([AB])(\.weight)?$`)

// OpenUpdates reads an adapter directory whose method is of low-rank updates.
func OpenUpdates(dir string) (*Updates, error) {
	a, err := tune.OpenAdapter(dir)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	u, err := readUpdates(a)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", dir, err)
	}
	return u, nil
}

func readUpdates(a *tune.Adapter) (*Updates, error) {
	u := &Updates{Name: a.Dir, Base: a.Base, origin: a.AdapterOrigin}
	switch o := a.Options.(type) {
	case *LoRA:
		u.options = *o
	case *QLoRA:
		u.options = o.LoRA
	default:
		return nil, fmt.Errorf("method %s has no low-rank updates that could be combined", a.Method.Name)
	}
	at := map[string]*Factors{}
	for _, t := range a.Tensors() {
		m := tensorName.FindStringSubmatch(t.Name)
		if m == nil {
			t.Data = slices.Clone(t.Data) // the file is closed
			u.Others = append(u.Others, t)
			continue
		}
		if len(t.Shape) != 2 || t.Size() == 0 {
			return nil, fmt.Errorf("tensor %q: want a matrix, have shape %v", t.Name, t.Shape)
		}
		f := at[m[1]]
		if f == nil {
			f = &Factors{Path: m[1], Embedding: m[2] != ""}
			at[m[1]] = f
		}
		values := t.Float32s()
		if slices.ContainsFunc(values, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }) {
			return nil, fmt.Errorf("tensor %q holds no numbers; the training that made it has diverged", t.Name)
		}
		rank := t.Shape[0]
		if m[3] == "A" {
			f.A = values
		} else {
			f.B, rank = values, t.Shape[1]
		}
		if f.Rank != 0 && f.Rank != rank {
			return nil, fmt.Errorf("module %s: A has rank %d, B %d", f.Path, f.Rank, rank)
		}
		f.Rank = rank
	}
	for _, f := range at {
		if f.A == nil || f.B == nil {
			return nil, fmt.Errorf("module %s has only one of its two factors", f.Path)
		}
		alpha, err := tune.ByPattern(u.options.AlphaPattern, f.Path, u.options.Alpha)
		if err != nil {
			return nil, err
		}
		f.Scale = alpha / float64(f.Rank)
		if u.options.RSLoRA {
			f.Scale = alpha / math.Sqrt(float64(f.Rank))
		}
		u.Modules = append(u.Modules, *f)
	}
	if len(u.Modules) == 0 {
		return nil, errors.New("it holds no low-rank update")
	}
	slices.SortFunc(u.Modules, func(a, b Factors) int { return cmp.Compare(a.Path, b.Path) })
	return u, nil
}

// Plain reports what the adapter has beside plain updates, nil where it has nothing.
func (u *Updates) Plain() error {
	for _, t := range u.Others {
		if !strings.HasSuffix(t.Name, ".base_layer.weight") { // the base's own, which PEFT saves along
			return fmt.Errorf("adapter %s trains %s beside its updates; merge it into the model instead", u.Name, strings.TrimPrefix(t.Name, tune.PEFTPrefix))
		}
	}
	if u.options.splitting() {
		return fmt.Errorf("adapter %s started from a part of the weights (%s); convert it with its base first", u.Name, u.options.Init)
	}
	return nil
}

// Save writes the adapter as a plain one: the scale is alpha / rank, of each module where they differ.
func (u *Updates) Save(dir, program string) error {
	info := tune.AdapterInfo{Base: u.Base, Contract: u.origin.Contract, Version: program}
	return tune.SaveAdapter(dir, writtenUpdates{u}, &site.Map{}, engine.NewStore(), info)
}

// writtenUpdates is the graft that tune.SaveAdapter writes.
type writtenUpdates struct{ *Updates }

// PEFT implements tune.PEFTWriter.
func (w writtenUpdates) PEFT() map[string]any {
	return (&lora{LoRA: w.plainOptions(), modules: w.options.Targets}).PEFT()
}

// PEFTTensors implements tune.PEFTTensors.
func (w writtenUpdates) PEFTTensors([]site.Param, func(string) []float32) []checkpoint.Tensor {
	return w.tensors()
}

// Origin implements tune.OriginWriter.
func (w writtenUpdates) Origin() (string, any) { return w.origin.Maker, w.origin.More }

// plainOptions returns options that say rank and scale of every module.
func (u *Updates) plainOptions() LoRA {
	o := u.options
	o.RSLoRA, o.RankPattern, o.AlphaPattern = false, nil, nil
	if o.Init != loftQ {
		o.Init = "uniform"
	}
	o.Rank, o.Alpha = u.Modules[0].Rank, u.Modules[0].Scale*float64(u.Modules[0].Rank)
	for _, f := range u.Modules {
		key := regexp.QuoteMeta(f.Path)
		if f.Rank != o.Rank {
			o.RankPattern = append(o.RankPattern, tune.Pattern[int]{Key: key, Value: f.Rank})
		}
		if alpha := f.Scale * float64(f.Rank); alpha != o.Alpha {
			o.AlphaPattern = append(o.AlphaPattern, tune.Pattern[float64]{Key: key, Value: alpha})
		}
	}
	return o
}

// Graft implements tune.Parameters: the updates as a method's options, to use them on a model without a file.
func (u *Updates) Graft(m *site.Map) (any, error) {
	o := u.plainOptions()
	if u.origin.Maker == "" {
		return o.Graft(m)
	}
	q := &QLoRA{}
	if err := q.ReadOrigin(u.origin.More); err != nil {
		return nil, err
	}
	q.LoRA = o
	return q.Graft(m)
}

// Adapter returns the updates as an adapter that can be used on a model.
func (u *Updates) Adapter() *tune.Adapter {
	a := tune.NewAdapter(u.Name, u, u.Base, u.tensors())
	a.AdapterOrigin = u.origin
	return a
}

// tensors returns what an adapter file holds.
func (u *Updates) tensors() []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for _, f := range u.Modules {
		nameA, nameB := (&update{path: f.Path, embedding: f.Embedding}).names()
		out = append(out, checkpoint.Float32Tensor(nameA, []int{f.Rank, f.In()}, f.A), checkpoint.Float32Tensor(nameB, []int{f.Out(), f.Rank}, f.B))
	}
	return append(out, u.Others...)
}

// title is the adapter's name in messages.
func (u *Updates) title() string { return filepath.Base(filepath.Clean(u.Name)) }
