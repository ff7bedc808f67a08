package objective

import "math"

// Reinforced says how the scores of sampled answers become the rewards, advantages and returns of their tokens, in the
// order of TRL's PPO.
type Reinforced struct {
	KL           float64 // coefficient of the divergence from the reference
	CubicKL      bool    // estimate it by e^d − 1 − d (k3) rather than by −d (k1), d = log p₀ − log p
	Gamma        float64 // discount
	Lambda       float64 // of the generalised advantage estimate (Schulman et al. 2015, arXiv 1506.02438)
	WhitenReward bool
	MissingEnd   float64 // taken from the score of an answer that does not end by itself
}

// Episodes are B answers in rows of T columns. Length is the index of an answer's last token, as in TRL; columns after it
// are padding.
type Episodes struct {
	Cols      int
	LogProbs  []float64 // of the model that sampled
	Reference []float64
	Values    []float64
	Scores    []float64 // one an answer
	Length    []int
	Ended     []bool // by the token that ends an answer
}

// Outcome is what a step learns from.
type Outcome struct {
	Scores     []float64 // with the penalty
	KL         []float64 // of each token
	Rewards    []float64
	Advantages []float64
	Returns    []float64
}

// padding reports whether column c is beyond the answer of row r, and beyond it and the column behind it.
func (e Episodes) padding(r, c int) (beyond, behind bool) {
	return c > e.Length[r], c > e.Length[r]+1
}

// Outcome computes the advantages and returns.
func (o Reinforced) Outcome(e Episodes) Outcome {
	n, t := len(e.LogProbs), e.Cols
	out := Outcome{Scores: make([]float64, len(e.Scores)), KL: make([]float64, n), Rewards: make([]float64, n), Advantages: make([]float64, n), Returns: make([]float64, n)}
	values := make([]float64, n)
	var inside, learned []int // columns that count for rewards and values, and those of the answers
	for i := range n {
		r, c := i/t, i%t
		beyond, behind := e.padding(r, c)
		d := 0.0
		if !beyond {
			learned = append(learned, i)
			d = e.Reference[i] - e.LogProbs[i]
		}
		if !behind {
			inside = append(inside, i)
			values[i] = e.Values[i]
		}
		out.KL[i] = -d
		if o.CubicKL {
			out.KL[i] = math.Expm1(d) - d
		}
		out.Rewards[i] = -o.KL * out.KL[i]
	}
	for r, score := range e.Scores {
		if !e.Ended[r] {
			score -= o.MissingEnd
		}
		out.Scores[r] = score
		out.Rewards[r*t+min(e.Length[r]+1, t-1)] += score
	}
	if o.WhitenReward {
		normalise(out.Rewards, inside, true)
	}
	for r := range e.Scores {
		last, next := 0.0, 0.0
		for c := t - 1; c >= 0; c-- {
			i := r*t + c
			last = out.Rewards[i] + o.Gamma*next - values[i] + o.Gamma*o.Lambda*last
			next = values[i]
			out.Advantages[i] = last
			out.Returns[i] = last + values[i]
		}
	}
	normalise(out.Advantages, learned, false)
	return out
}

// normalise divides by the deviation of the elements at the indices, takes their mean away or keeps it, and sets all
// others to 0.
func normalise(x []float64, at []int, keepMean bool) {
	var mean, square float64
	for _, i := range at {
		mean += x[i]
	}
	mean /= float64(len(at))
	for _, i := range at {
		square += (x[i] - mean) * (x[i] - mean)
	}
	const eps = 1e-8
	scale := 1 / math.Sqrt(square/float64(max(1, len(at)-1))+eps)
	out := make([]float64, len(x))
	for _, i := range at {
		out[i] = (x[i] - mean) * scale
		if keepMean {
			out[i] += mean
		}
	}
	copy(x, out)
}

// AdaptKL returns the coefficient of the divergence that steers towards a target (Ziegler et al. 2019, arXiv
// 1909.08593): it changes by at most a fifth, over as many samples as the horizon.
func AdaptKL(coefficient, divergence, target float64, samples int, horizon float64) float64 {
	e := math.Max(-0.2, math.Min(0.2, divergence/target-1))
	return coefficient * (1 + e*float64(samples)/horizon)
}
