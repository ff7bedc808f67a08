package methods

import (
	"maps"
	"slices"

	"tunesmith/tune"
)

// Factors implements tune.Factored. Updates that are no plain product, such as those with trained lengths, have none.
func (l *lora) Factors() []tune.Factors {
	if l.DoRA || l.LoRABias {
		return nil
	}
	var out []tune.Factors
	for _, path := range slices.Sorted(maps.Keys(l.updates)) {
		u := l.updates[path]
		if l.splits(u) {
			return nil // the start is taken off again by other matrices
		}
		a, b := u.names()
		out = append(out, tune.Factors{A: a, B: b, Scale: float64(u.scale)})
	}
	return out
}
