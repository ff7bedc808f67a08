package judge

import "math"

// Verdict is what a judge says of two answers A and B that it has seen in both orders.
type Verdict struct {
	P          float64 `json:"p"`          // probability that A is the better one, averaged over the orders
	First      float64 `json:"first"`      // that with A first
	Swapped    float64 `json:"swapped"`    // that with B first, turned back to A
	Consistent bool    `json:"consistent"` // both orders prefer the same answer
	Bias       float64 `json:"bias"`       // how much standing first helps A
	Hard       string  `json:"hard"`       // A, B or tie
}

// PreferFirst returns the probability that a judge prefers the first answer, from the log-probabilities of the forms of
// its two marks ("1" and " 1", …): the forms' probabilities add up, and the two sums are normalised.
func PreferFirst(first, second []float64) float64 {
	return logistic(logSum(first) - logSum(second))
}

// Average joins the judge's views of both orders: first is the probability that the first answer is better when A
// stands first, and when B does.
func Average(aFirst, bFirst float64) Verdict {
	v := Verdict{First: aFirst, Swapped: 1 - bFirst}
	v.P = (v.First + v.Swapped) / 2
	v.Consistent = (v.First > 0.5) == (v.Swapped > 0.5)
	v.Bias = v.First - v.Swapped
	switch {
	case v.P > 0.5:
		v.Hard = "A"
	case v.P < 0.5:
		v.Hard = "B"
	default:
		v.Hard = "tie"
	}
	return v
}

// Entropy is the uncertainty of a verdict in nats, at most ln 2.
func (v Verdict) Entropy() float64 {
	var h float64
	for _, x := range []float64{v.P, 1 - v.P} {
		if x > 0 {
			h -= x * math.Log(x)
		}
	}
	return h
}

// Score is a mark from 1 to the number of log-probabilities: its expectation, and that from −1 to 1. mass is the
// probability of all marks together; where it is small, the judge has said something else.
func Score(logprobs []float64) (expected, normalised, mass float64) {
	total := logSum(logprobs)
	for i, l := range logprobs {
		expected += float64(i+1) * math.Exp(l-total)
	}
	middle := float64(len(logprobs)+1) / 2
	return expected, (expected - middle) / (middle - 1), math.Exp(total)
}

func logistic(x float64) float64 {
	if x < 0 {
		e := math.Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-x))
}

// logSum is log Σ eˣ, −∞ for nothing.
func logSum(x []float64) float64 {
	most := math.Inf(-1)
	for _, v := range x {
		most = math.Max(most, v)
	}
	if math.IsInf(most, -1) {
		return most
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(v - most)
	}
	return most + math.Log(sum)
}
