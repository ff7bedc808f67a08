package optim

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"tunesmith/internal/nearest"
)

// WeightAverage follows the weights of a run: e ← e + (1−d)(w − e), where d of update i = 0, 1, 2, … makes the kind.
type WeightAverage struct{ s averaging }

// averages are the kinds: the share of the old average in update i.
var averages = map[string]func(decay float64, i int) float64{
	// ema starts as a copy of the weights.
	"ema": func(decay float64, i int) float64 {
		if i == 0 {
			return 0
		}
		return decay
	},
	// ema_warmup follows fast at first.
	"ema_warmup": func(decay float64, i int) float64 {
		return min(decay, float64(i+1)/float64(i+10))
	},
	// ema_debiased starts at zero and is divided by 1 − decay^(i+1); this is the same without the division.
	"ema_debiased": func(decay float64, i int) float64 {
		return decay * (1 - math.Pow(decay, float64(i))) / (1 - math.Pow(decay, float64(i+1)))
	},
	// swa is the mean of all weights seen.
	"swa": func(_ float64, i int) float64 { return float64(i) / float64(i+1) },
}

// NewWeightAverage makes an average of kind ema, ema_warmup, ema_debiased or swa; swa has no decay.
func NewWeightAverage(kind string, decay float64, par Parallel) (*WeightAverage, error) {
	share, ok := averages[kind]
	if !ok {
		known := slices.Sorted(maps.Keys(averages))
		return nil, fmt.Errorf("weight average: want one of %v, have %q%s", known, kind, nearest.Hint(kind, known))
	}
	if !(decay >= 0 && decay < 1) {
		return nil, fmt.Errorf("weight average %s: decay: want a number in [0, 1), have %v", kind, decay)
	}
	if par == nil {
		par = serial
	}
	r := rule{
		buffers: func(shape []int) []buffer { return []buffer{{name: "average", shape: shape, copy: true}} },
		elements: func(t int, _, _ float64) func(w, g []float32, s [][]float32) {
			fresh := float32(1 - share(decay, t-1))
			return func(w, _ []float32, s [][]float32) {
				for i, e := range s[0] {
					s[0][i] = e + (w[i]-e)*fresh
				}
			}
		},
		average: func(dst, _ []float32, s [][]float32) { copy(dst, s[0]) },
	}
	return &WeightAverage{averaging{&stepper{name: kind, rule: r, groups: []Group{{LRScale: 1}}, parallel: par}}}, nil
}

// Update takes the weights of params in; gradients are not looked at.
func (a *WeightAverage) Update(params []Param) error {
	list := slices.Clone(params)
	for i, p := range list {
		list[i].Grad, list[i].Group = p.Value, 0
	}
	return a.s.Step(list, 0)
}

// Average writes the averages into dst, one slice a parameter; before the first update they are the weights.
func (a *WeightAverage) Average(params []Param, dst [][]float32) error {
	list := slices.Clone(params)
	for i := range list {
		list[i].Group = 0
	}
	return a.s.Average(list, dst)
}

// State returns what the next update depends on, as that of an optimizer.
func (a *WeightAverage) State() State { return a.s.State() }

// Restore continues from a state.
func (a *WeightAverage) Restore(s State) error { return a.s.Restore(s) }
