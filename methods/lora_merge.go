package methods

import (
	"fmt"
	"math"

	"tunesmith/tune"
)

// Merge implements tune.Merger: W + s·B·A, in double precision; with DoRA its rows get their trained lengths.
func (l *lora) Merge(path, _ string, w []float32, value func(string) []float32) (bool, error) {
	module, leaf := tune.ModuleOf(path)
	changed := false
	if name, ok := l.copied(path); ok {
		if err := tune.Replace(w, value(name), path); err != nil {
			return false, err
		}
		changed = true
	}
	if p, ok := l.parts[path]; ok {
		changed = true
		if err := p.merge(w, value); err != nil {
			return false, err
		}
	}
	u, updated := l.updates[module]
	switch {
	case updated && leaf == "weight":
		if err := l.mergeWeight(u, w, value); err != nil {
			return false, err
		}
		changed = true
	case updated && leaf == "bias" && l.LoRABias:
		for i, v := range value(u.name("lora_B.bias")) {
			w[i] += u.scale * v
		}
		changed = true
	}
	if leaf == "weight" && l.tokens.holds(module) {
		l.tokens.merge(w, value)
		changed = true
	}
	return changed, nil
}

func (l *lora) mergeWeight(u *update, w []float32, value func(string) []float32) error {
	if l.LoRABias && !u.biased {
		return fmt.Errorf("merge %s: lora_bias trained a bias where the model has none; keep the adapter apart", u.path)
	}
	a, b, rank := l.values(u, value)
	columns := u.embedding || u.transposed
	if columns { // stored the other way round: one row a token, or an input
		a, b = transpose(b, len(b)/rank), transpose(a, rank)
	}
	out, in := len(b)/rank, len(a)/rank
	if out*rank != len(b) || in*rank != len(a) || out*in != len(w) {
		return fmt.Errorf("merge %s: %d and %d values of rank %d do not fit a weight of %d", u.path, len(b), len(a), rank, len(w))
	}
	addProduct(w, b, a, rank, float64(u.scale))
	if l.DoRA {
		rescale(w, in, columns, value(u.name(magnitude)))
	}
	return nil
}

// values returns the factors as they act on the weight of the file; see factors.
func (l *lora) values(u *update, value func(string) []float32) (a, b []float32, rank int) {
	nameA, nameB := u.names()
	a, b = value(nameA), value(nameB)
	if !l.splits(u) {
		return a, b, u.rank
	}
	return append(a[:len(a):len(a)], value(u.name(startA))...), joinColumns(b, value(u.name(startB)), u.rank), 2 * u.rank
}

// addProduct adds s·B·A to w (out, in): b (out, rank), a (rank, in).
func addProduct(w, b, a []float32, rank int, s float64) {
	in := len(a) / rank
	sum := make([]float64, in)
	for o := range len(b) / rank {
		clear(sum)
		for r := range rank {
			f := s * float64(b[o*rank+r])
			for i, v := range a[r*in : (r+1)*in] {
				sum[i] += f * float64(v)
			}
		}
		for i, v := range sum {
			w[o*in+i] = float32(float64(w[o*in+i]) + v)
		}
	}
}

// rescale gives the rows of w, or its columns, the lengths m.
func rescale(w []float32, in int, columns bool, m []float32) {
	length := func(i int) int {
		if columns {
			return i % in
		}
		return i / in
	}
	norm := squares(w, in, columns)
	for i, v := range w {
		k := length(i)
		w[i] = float32(float64(v) * float64(m[k]) / math.Sqrt(norm[k]))
	}
}

// squares returns the squared lengths of the rows of w, or of its columns.
func squares(w []float32, in int, columns bool) []float64 {
	n := len(w) / in
	if columns {
		n = in
	}
	out := make([]float64, n)
	for i, v := range w {
		k := i / in
		if columns {
			k = i % in
		}
		out[k] += float64(v) * float64(v)
	}
	return out
}

// joinColumns puts the columns of b behind those of a, which have as many.
func joinColumns(a, b []float32, columns int) []float32 {
	out := make([]float32, 0, len(a)+len(b))
	for i := 0; i < len(a); i += columns {
		out = append(append(out, a[i:i+columns]...), b[i:i+columns]...)
	}
	return out
}

// transpose returns x (rows, columns) as (columns, rows).
func transpose(x []float32, rows int) []float32 {
	out, columns := make([]float32, len(x)), len(x)/rows
	for r := range rows {
		for c := range columns {
			out[c*rows+r] = x[r*columns+c]
		}
	}
	return out
}
