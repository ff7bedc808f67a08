package methods

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
	"tunesmith/site"
	"tunesmith/tune"
)

// Combination says how adapters become one.
type Combination struct {
	// Kind is one of Kinds. cat is the weighted sum itself, in the sum of the ranks; linear adds the factors, which also
	// multiplies A of one with B of another; svd is the best sum of a smaller rank. ties drops small elements and those
	// whose sign the others outvote; dare drops elements by chance and enlarges the others; magnitude_prune drops small
	// ones. These act on the factors, or with _svd behind them on the updates.
	Kind      string
	Rank      int     // of the result of a kind with svd; 0 is the largest of the adapters'
	Density   float64 // share of the elements that stay, for ties, dare and magnitude_prune
	Frequency bool    // ties: signs vote alike, instead of by the sum of their elements
	Seed      uint64  // of dare
	// keeps gives the elements that dare keeps of a matrix of an adapter.
	keeps func(module, matrix string, adapter, n int) []bool
}

// Kinds are the kinds of combinations.
func Kinds() []string {
	return []string{
		"cat", "linear", "svd", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd",
		"magnitude_prune", "magnitude_prune_svd",
	}
}

// Combine returns the weighted combination of adapters, as PEFT's add_weighted_adapter does.
func Combine(list []*Updates, weights []float64, c Combination) (*Updates, error) {
	if err := c.check(list, weights); err != nil {
		return nil, err
	}
	out := &Updates{Name: "combination", Base: list[0].Base, options: list[0].options, origin: list[0].origin}
	places := map[string]bool{}
	for _, u := range list {
		if err := u.Plain(); err != nil {
			return nil, err
		}
		if u.origin.Maker != out.origin.Maker || string(u.origin.More) != string(out.origin.More) {
			return nil, fmt.Errorf("adapters %s and %s belong to bases in different storage", list[0].title(), u.title())
		}
		if u.Base != out.Base {
			out.Base = ""
		}
		if u.origin.Contract != out.origin.Contract {
			out.origin.Contract = ""
		}
		for _, f := range u.Modules {
			places[f.Path] = true
		}
		if !slices.Equal(u.options.Targets, list[0].options.Targets) {
			out.options.Targets = nil
		}
	}
	paths := slices.Sorted(maps.Keys(places))
	for _, path := range paths {
		f, err := c.module(path, list, weights)
		if err != nil {
			return nil, err
		}
		out.Modules = append(out.Modules, f)
	}
	if out.options.Targets == nil {
		out.options.Targets, out.options.Exclude, out.options.Layers = tune.Targets(paths), nil, nil
	}
	return out, nil
}

func (c *Combination) check(list []*Updates, weights []float64) error {
	switch {
	case !slices.Contains(Kinds(), c.Kind):
		return fmt.Errorf("kind: want one of %s, have %q%s", strings.Join(Kinds(), ", "), c.Kind, nearest.Hint(c.Kind, Kinds()))
	case len(list) == 0 || len(list) != len(weights):
		return fmt.Errorf("want adapters with a weight each, have %d and %d", len(list), len(weights))
	case c.prunes() && !(c.Density > 0 && c.Density <= 1):
		return fmt.Errorf("density: %s wants a share above 0 and at most 1, have %g", c.Kind, c.Density)
	case c.Rank < 0:
		return fmt.Errorf("rank: want >= 1, have %d", c.Rank)
	case c.Rank > 0 && !strings.HasSuffix(c.Kind, "svd"):
		return fmt.Errorf("rank: %s has the rank of its adapters; take a kind with svd for another", c.Kind)
	}
	for i, w := range weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return fmt.Errorf("weight of %s: want a number, have %v", list[i].title(), w)
		}
	}
	if c.keeps == nil {
		c.keeps = func(module, matrix string, adapter, n int) []bool {
			rng := site.Generator(c.Seed, fmt.Sprintf("%s.%s.%d", module, matrix, adapter))
			out := make([]bool, n)
			for i := range out {
				out[i] = rng.Float64() < c.Density
			}
			return out
		}
	}
	return nil
}

func (c *Combination) prunes() bool { return c.Kind != "cat" && c.Kind != "linear" && c.Kind != "svd" }

// module combines the updates of one module, of those adapters that have one.
func (c *Combination) module(path string, list []*Updates, weights []float64) (Factors, error) {
	var parts []Factors
	var with []float64
	for i, u := range list {
		at, ok := slices.BinarySearchFunc(u.Modules, path, func(f Factors, p string) int { return cmp.Compare(f.Path, p) })
		if ok {
			parts, with = append(parts, u.Modules[at]), append(with, weights[i])
		}
	}
	first, largest := parts[0], 0
	for _, f := range parts {
		if f.In() != first.In() || f.Out() != first.Out() || f.Embedding != first.Embedding {
			return first, fmt.Errorf("module %s: the adapters belong to different models: %d×%d and %d×%d", path, first.Out(), first.In(), f.Out(), f.In())
		}
		if f.Rank != first.Rank && !strings.HasSuffix(c.Kind, "svd") && c.Kind != "cat" {
			return first, fmt.Errorf("module %s: %s wants adapters of one rank, have %d and %d; take cat or svd", path, c.Kind, first.Rank, f.Rank)
		}
		largest = max(largest, f.Rank)
	}
	rank := min(cmp.Or(c.Rank, largest), first.In(), first.Out())
	switch {
	case c.Kind == "cat":
		return cat(parts, with), nil
	case c.Kind == "svd":
		f, _ := cat(parts, with).Compress(rank)
		return f, nil
	case strings.HasSuffix(c.Kind, "_svd"):
		return c.onUpdates(parts, with, rank), nil
	}
	return c.onFactors(parts, with), nil
}

// cat puts the factors beside each other, which adds the updates.
func cat(parts []Factors, weights []float64) Factors {
	out := Factors{Path: parts[0].Path, Embedding: parts[0].Embedding, Scale: 1}
	for i, f := range parts {
		for _, v := range f.A {
			out.A = append(out.A, float32(weights[i]*f.Scale*float64(v)))
		}
		if out.Rank == 0 {
			out.B = slices.Clone(f.B)
		} else {
			out.B = join(out.B, out.Rank, f.B, f.Rank)
		}
		out.Rank += f.Rank
	}
	return out
}

// join puts the columns of b (…, q) behind those of a (…, p).
func join(a []float32, p int, b []float32, q int) []float32 {
	out := make([]float32, 0, len(a)+len(b))
	for i := range len(a) / p {
		out = append(append(out, a[i*p:(i+1)*p]...), b[i*q:(i+1)*q]...)
	}
	return out
}

// onFactors combines A with A and B with B, each with the root of its weight.
func (c *Combination) onFactors(parts []Factors, weights []float64) Factors {
	out := Factors{Path: parts[0].Path, Embedding: parts[0].Embedding, Rank: parts[0].Rank, Scale: 1}
	var as, bs [][]float32
	var wa, wb []float64
	for i, f := range parts {
		w := weights[i] * f.Scale
		root := math.Sqrt(math.Abs(w))
		as, bs = append(as, f.A), append(bs, f.B)
		wa, wb = append(wa, math.Copysign(root, w)), append(wb, root)
	}
	out.A = c.mix(out.Path, "lora_A", as, wa)
	out.B = c.mix(out.Path, "lora_B", bs, wb)
	return out
}

// onUpdates combines the updates and keeps the rank's largest part.
func (c *Combination) onUpdates(parts []Factors, weights []float64, rank int) Factors {
	first := parts[0]
	var deltas [][]float32
	for _, f := range parts {
		d := make([]float32, f.Out()*f.In())
		addProduct(d, f.B, f.A, f.Rank, f.Scale)
		deltas = append(deltas, d)
	}
	s := singular(c.mix(first.Path, "delta", deltas, weights), first.Out(), first.In(), rank, 1)
	return Factors{Path: first.Path, Embedding: first.Embedding, Rank: rank, A: s.a, B: s.b, Scale: 1}
}

// mix adds weighted matrices after their elements are dropped.
func (c *Combination) mix(module, matrix string, list [][]float32, weights []float64) []float32 {
	kind := strings.TrimSuffix(c.Kind, "_svd")
	for i, x := range list {
		switch {
		case strings.HasPrefix(kind, "dare"):
			keeps := c.keeps(module, matrix, i, len(x))
			y := make([]float32, len(x))
			for k, v := range x {
				if keeps[k] {
					y[k] = float32(float64(v) / c.Density)
				}
			}
			list[i] = y
		case c.prunes():
			list[i] = prune(x, c.Density)
		}
	}
	out := make([]float32, len(list[0]))
	for k := range out {
		var sum, votes float64
		for i, x := range list {
			sum += weights[i] * float64(x[k])
			if v := float64(x[k]); c.Frequency && v != 0 {
				votes += math.Copysign(1, v)
			} else {
				votes += v
			}
		}
		if strings.HasSuffix(kind, "ties") {
			sum = 0
			agree := 0
			for i, x := range list {
				if v := float64(x[k]); v != 0 && (v > 0) == (votes >= 0) {
					sum, agree = sum+weights[i]*v, agree+1
				}
			}
			sum /= float64(max(agree, 1))
		}
		out[k] = float32(sum)
	}
	return out
}

// prune keeps the elements of largest absolute value.
func prune(x []float32, density float64) []float32 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(math.Abs(float64(x[b])), math.Abs(float64(x[a])))
	})
	out := make([]float32, len(x))
	for _, i := range order[:int(density*float64(len(x)))] {
		out[i] = x[i]
	}
	return out
}
