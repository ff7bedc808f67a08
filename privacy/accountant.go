package privacy

import (
	"errors"
	"fmt"
	"math"
)

// ErrBudget is a step that would give away more than was declared.
var ErrBudget = errors.New("the privacy budget is spent")

// Kind is a way to add up what steps give away.
type Kind string

// The ways of Epsilon: by Rényi divergences, and by the distribution of the loss, which is tighter.
const (
	ByRDP Kind = "rdp"
	ByPRV Kind = "prv"
)

// Epsilon returns the ε of a history at δ.
func Epsilon(by Kind, history []Event, delta float64) (float64, error) {
	for _, e := range history {
		if err := e.check(); err != nil {
			return 0, err
		}
	}
	switch by {
	case ByRDP:
		e, _ := EpsilonRDP(history, delta)
		return e, nil
	case ByPRV:
		return EpsilonPRV(history, delta)
	}
	return 0, fmt.Errorf("privacy: accountant: want %s or %s, have %q", ByRDP, ByPRV, by)
}

// Accountant keeps the books of one budget. Its value is what has to be stored to go on.
type Accountant struct {
	By      Kind    `json:"by"`
	Budget  float64 `json:"budget"` // the declared ε
	Delta   float64 `json:"delta"`
	History []Event `json:"history"`
}

// Spent returns the ε of the history.
func (a *Accountant) Spent() (float64, error) { return Epsilon(a.By, a.History, a.Delta) }

// Spend enters steps before they are made. It refuses, with an error that wraps ErrBudget and the books unchanged, what
// would pass the budget.
func (a *Accountant) Spend(e Event) error {
	history := with(a.History, e)
	epsilon, err := Epsilon(a.By, history, a.Delta)
	if err != nil {
		return err
	}
	if !(epsilon <= a.Budget) {
		spent, err := a.Spent()
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: ε is %.4g of %.4g at δ %g, and the next %d steps would make it %.4g; stop here, or start anew with more noise",
			ErrBudget, spent, a.Budget, a.Delta, e.Steps, epsilon)
	}
	a.History = history
	return nil
}

// with adds an event to a history, to its last entry where that is of the same kind.
func with(history []Event, e Event) []Event {
	out := append([]Event(nil), history...)
	if n := len(out); n > 0 && out[n-1].Noise == e.Noise && out[n-1].Rate == e.Rate {
		out[n-1].Steps += e.Steps
		return out
	}
	return append(out, e)
}

// Calibrate returns a noise multiplier with which the steps stay within ε, at most 0.01 below it.
func Calibrate(by Kind, epsilon, delta, rate float64, steps int) (float64, error) {
	const tolerance, most = 0.01, 1 << 20
	if !(epsilon > 0 && delta > 0 && delta < 1) {
		return 0, fmt.Errorf("privacy: want ε > 0 and δ between 0 and 1, have %g and %g", epsilon, delta)
	}
	low, high := 0.0, 5.0
	have := math.Inf(1)
	for have > epsilon {
		high *= 2
		if high > most {
			return 0, fmt.Errorf("privacy: no noise reaches ε %g at δ %g in %d steps with the accountant %s", epsilon, delta, steps, by)
		}
		var err error
		if have, err = Epsilon(by, []Event{{high, rate, steps}}, delta); err != nil {
			return 0, err
		}
	}
	for epsilon-have > tolerance && high-low > 1e-9*high {
		middle := (low + high) / 2
		e, err := Epsilon(by, []Event{{middle, rate, steps}}, delta)
		if err != nil || e >= epsilon {
			low = middle // too little noise, perhaps too little to be accounted for
			continue
		}
		high, have = middle, e
	}
	return high, nil
}
