// Package federation lets several owners of private data tune one model together. What leaves an owner is a trained
// update of the parameters; the data stays. The package has the arithmetic of the server (strategies), the rounds, the
// messages and what carries them. Local work is the trainer's, with any method.
package federation

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Tensor is one trained parameter. Lists of tensors have the order of the parameters method's own list.
type Tensor struct {
	Name   string
	Shape  []int
	Values []float32
}

// Update is what a client returns of a round.
type Update struct {
	Client   string
	Examples int     // that it has
	Loss     float64 // mean training loss of the round
	Tensors  []Tensor
	Control  []Tensor // SCAFFOLD: change of the client's control variate
	Scalars  []float64
}

// clone copies tensors with their values.
func clone(tensors []Tensor) []Tensor {
	out := slices.Clone(tensors)
	for i := range out {
		out[i].Values = slices.Clone(out[i].Values)
	}
	return out
}

// empty returns tensors of the same names and shapes, full of zeros.
func empty(tensors []Tensor) []Tensor {
	out := slices.Clone(tensors)
	for i := range out {
		out[i].Values = make([]float32, len(out[i].Values))
	}
	return out
}

// minus returns a − b.
func minus(a, b []Tensor) []Tensor {
	out := empty(a)
	for i := range out {
		for k, v := range a[i].Values {
			out[i].Values[k] = v - b[i].Values[k]
		}
	}
	return out
}

// plus returns a + b.
func plus(a, b []Tensor) []Tensor {
	out := empty(a)
	for i := range out {
		for k, v := range a[i].Values {
			out[i].Values[k] = v + b[i].Values[k]
		}
	}
	return out
}

// values returns the values alone, without a copy.
func values(tensors []Tensor) [][]float32 {
	var out [][]float32
	for _, t := range tensors {
		out = append(out, t.Values)
	}
	return out
}

func size(tensors []Tensor) int {
	n := 0
	for _, t := range tensors {
		n += len(t.Values)
	}
	return n
}

// sameTensors reports what differs in names and shapes.
func sameTensors(want, have []Tensor) error {
	if len(want) != len(have) {
		return fmt.Errorf("want %d tensors, have %d", len(want), len(have))
	}
	for i, w := range want {
		h := have[i]
		if w.Name != h.Name || !slices.Equal(w.Shape, h.Shape) || len(w.Values) != len(h.Values) {
			return fmt.Errorf("tensor %d: want %s of shape %v, have %s of shape %v", i, w.Name, w.Shape, h.Name, h.Shape)
		}
	}
	return nil
}

// finite refuses values that are no numbers: one of them would spoil the whole model.
func finite(tensors []Tensor) error {
	for _, t := range tensors {
		for i, v := range t.Values {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				return fmt.Errorf("tensor %s: value %d is %v", t.Name, i, v)
			}
		}
	}
	return nil
}

// sortUpdates puts updates into the order of their clients' names, so that sums do not depend on who came first.
func sortUpdates(updates []Update) {
	slices.SortFunc(updates, func(a, b Update) int {
		switch {
		case a.Client < b.Client:
			return -1
		case a.Client > b.Client:
			return 1
		}
		return 0
	})
}

var errNoUpdates = errors.New("federation: a round needs at least one update")

// weights returns each client's part of all examples.
func weights(updates []Update) ([]float64, error) {
	var all float64
	for _, u := range updates {
		if u.Examples <= 0 {
			return nil, fmt.Errorf("federation: client %s: want more than 0 examples, have %d", u.Client, u.Examples)
		}
		all += float64(u.Examples)
	}
	if all == 0 {
		return nil, errNoUpdates
	}
	out := make([]float64, len(updates))
	for i, u := range updates {
		out[i] = float64(u.Examples) / all
	}
	return out, nil
}

// mean returns the weighted mean of the updates, in double precision.
func mean(updates []Update, weights []float64) [][]float64 {
	var out [][]float64
	for i, t := range updates[0].Tensors {
		out = append(out, make([]float64, len(t.Values)))
		for c, u := range updates {
			for k, v := range u.Tensors[i].Values {
				out[i][k] += weights[c] * float64(v)
			}
		}
	}
	return out
}

// MeanLoss is the training loss of the updates, weighted by their examples.
func MeanLoss(updates []Update) float64 {
	var sum, all float64
	for _, u := range updates {
		sum += float64(u.Examples) * u.Loss
		all += float64(u.Examples)
	}
	return sum / all
}

// round32 puts doubles into tensors like those given.
func round32(like []Tensor, values [][]float64) []Tensor {
	out := empty(like)
	for i := range out {
		for k, v := range values[i] {
			out[i].Values[k] = float32(v)
		}
	}
	return out
}
