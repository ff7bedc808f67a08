package objective

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/graph"
	"tunesmith/internal/nearest"
)

// Answers holds the log-probabilities of B answers, one a row of T positions; they are 0 outside of the answer.
type Answers struct {
	LogProbsBT  *graph.Node // of the trained model
	ReferenceBT *graph.Node // of the reference; nil for losses that need none
	MaskBT      *graph.Node // 1 at the tokens of the answer
	LengthB     *graph.Node // tokens of the answer
	SquaresBT   *graph.Node // log Σp² over the vocabulary, for Weighting alone
}

// Ratio returns log p − log p of the reference of each answer.
func (a Answers) Ratio() *graph.Node { return graph.Sum(graph.Minus(a.LogProbsBT, a.ReferenceBT), -1) }

// Term is one loss of a weighted sum.
type Term struct {
	Name   string
	Weight float32
}

// Preference is a weighted sum of losses over pairs of answers, of which the first is better. The names are those of
// TRL (Rafailov et al. 2023, arXiv 2305.18290, and the papers named at the losses), with cdpo beside them.
type Preference struct {
	Terms       []Term
	Beta        float32
	Smoothing   float32 // share of pairs that are taken to be the wrong way round
	Divergence  string  // reverse_kl, forward_kl, js_divergence or alpha_divergence
	Coefficient float32 // of alpha_divergence
	Temperature float32 // of discopop
	Weighting   bool    // weigh pairs by how likely the model is to write them (WPO, Zhou et al. 2024)
}

// pairs is what the losses of pairs are made of: for each of B pairs the log-ratios to the reference.
type pairs struct {
	Preference
	chosen, rejected Answers
	cB, rB           *graph.Node // log-ratios of the chosen and the rejected answer
	dB               *graph.Node // f(c) − f(r)
	betaD            *graph.Node
	labelB           *graph.Node
}

// losses by name: each gives a value per pair, or for sft one for all.
var losses = map[string]func(p pairs) *graph.Node{
	"sigmoid": func(p pairs) *graph.Node { return SoftLogistic(p.betaD, p.labelB) },
	// Mitchell 2023: labels that are wrong with a known probability.
	"cdpo": func(p pairs) *graph.Node { return smoothed(p.betaD, p.Smoothing) },
	// Zhao et al. 2023 (2305.10425).
	"hinge": func(p pairs) *graph.Node { return graph.Apply(graph.ReLU, oneMinus(p.betaD)) },
	// Azar et al. 2023 (2310.12036), averaged over the tokens.
	"ipo": func(p pairs) *graph.Node {
		return graph.Apply(graph.Square, graph.Shift(p.perToken(), -1/(2*p.Beta)))
	},
	"sigmoid_norm": func(p pairs) *graph.Node { return neg(logSigmoid(graph.Scale(p.perToken(), p.Beta))) },
	// Chowdhury et al. 2024 (2403.00409): unbiased under labels that are wrong with a known probability.
	"robust": func(p pairs) *graph.Node {
		right, wrong := logSigmoid(p.betaD), logSigmoid(neg(p.betaD))
		return graph.Scale(graph.Plus(graph.Scale(right, p.Smoothing-1), graph.Scale(wrong, p.Smoothing)), 1/(1-2*p.Smoothing))
	},
	// Ji et al. 2024 (2402.00856).
	"exo_pair": func(p pairs) *graph.Node {
		side := func(x *graph.Node, q float64) *graph.Node {
			return graph.Times(sigmoid(x), graph.Shift(logSigmoid(x), -float32(math.Log(q))))
		}
		return graph.Plus(side(p.betaD, 1-float64(p.Smoothing)), side(neg(p.betaD), float64(p.Smoothing)))
	},
	// Chen et al. 2024 (2402.05369).
	"nca_pair": func(p pairs) *graph.Node {
		c, r := graph.Scale(p.cB, p.Beta), graph.Scale(p.rB, p.Beta)
		rest := graph.Plus(logSigmoid(neg(c)), logSigmoid(neg(r)))
		return neg(graph.Plus(logSigmoid(c), graph.Scale(rest, 0.5)))
	},
	// Jung et al. 2024 (2404.04656), without its shift of the rewards.
	"bco_pair": func(p pairs) *graph.Node {
		return neg(graph.Plus(logSigmoid(graph.Scale(p.cB, p.Beta)), logSigmoid(graph.Scale(p.rB, -p.Beta))))
	},
	// Wu et al. 2024 (2405.00675).
	"sppo_hard": func(p pairs) *graph.Node {
		half := 0.5 / p.Beta
		return graph.Plus(graph.Apply(graph.Square, graph.Shift(p.cB, -half)), graph.Apply(graph.Square, graph.Shift(p.rB, half)))
	},
	// D'Oosterlinck et al. 2024 (2408.06266).
	"apo_zero": func(p pairs) *graph.Node {
		return graph.Plus(oneMinus(sigmoid(graph.Scale(p.cB, p.Beta))), sigmoid(graph.Scale(p.rB, p.Beta)))
	},
	"apo_down": func(p pairs) *graph.Node {
		return graph.Plus(sigmoid(graph.Scale(p.cB, p.Beta)), oneMinus(sigmoid(graph.Scale(graph.Minus(p.cB, p.rB), p.Beta))))
	},
	// Lu et al. 2024 (2406.08414).
	"discopop": func(p pairs) *graph.Node {
		m := sigmoid(graph.Scale(p.betaD, 1/p.Temperature))
		return graph.Plus(graph.Times(neg(logSigmoid(p.betaD)), oneMinus(m)), graph.Times(graph.Apply(graph.Exp, neg(p.betaD)), m))
	},
	// Melnyk et al. 2024 (2406.05882): the distributions of a batch are compared, not its pairs.
	"aot": func(p pairs) *graph.Node {
		policy := graph.Minus(graph.Sum(p.chosen.LogProbsBT, -1), graph.Sum(p.rejected.LogProbsBT, -1))
		reference := graph.Minus(graph.Sum(p.chosen.ReferenceBT, -1), graph.Sum(p.rejected.ReferenceBT, -1))
		return smoothed(graph.Scale(graph.Minus(sorted(policy), sorted(reference)), p.Beta), p.Smoothing)
	},
	"aot_unpaired": func(p pairs) *graph.Node {
		return smoothed(graph.Scale(graph.Minus(sorted(p.cB), sorted(p.rB)), p.Beta), p.Smoothing)
	},
	"sft": func(p pairs) *graph.Node {
		return graph.Over(graph.Sum(graph.Times(p.chosen.LogProbsBT, p.chosen.MaskBT)), neg(graph.Sum(p.chosen.MaskBT)))
	},
}

// PreferenceLosses returns the names of the losses over pairs, sorted.
func PreferenceLosses() []string {
	var out []string
	for name := range losses {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Divergences are the names of the f-divergences from the reference (Wang et al. 2023, arXiv 2309.16240).
var Divergences = []string{"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"}

// Validate reports what no loss can be made of.
func (o Preference) Validate() error {
	if len(o.Terms) == 0 {
		return fmt.Errorf("loss: want at least one of %s", strings.Join(PreferenceLosses(), ", "))
	}
	for _, t := range o.Terms {
		if losses[t.Name] == nil {
			return fmt.Errorf("loss: want one of %s, have %q%s", strings.Join(PreferenceLosses(), ", "), t.Name, nearest.Hint(t.Name, PreferenceLosses()))
		}
		switch {
		case t.Name == "exo_pair" && (o.Smoothing <= 0 || o.Smoothing >= 1):
			return fmt.Errorf("label_smoothing: exo_pair wants a value above 0, such as 0.001, have %g: without it the loss is infinite", o.Smoothing)
		case t.Name == "robust" && o.Smoothing >= 0.5:
			return fmt.Errorf("label_smoothing: robust wants a value below 0.5, have %g: labels that are wrong half of the time say nothing", o.Smoothing)
		}
	}
	if !slices.Contains(Divergences, o.Divergence) {
		return fmt.Errorf("divergence: want one of %s, have %q%s", strings.Join(Divergences, ", "), o.Divergence, nearest.Hint(o.Divergence, Divergences))
	}
	if !(o.Beta > 0) {
		return fmt.Errorf("beta: want > 0, have %g", o.Beta)
	}
	return nil
}

// Loss returns the mean over the pairs of the weighted losses. labelB is the probability that the chosen answer is the
// better one, which the sigmoid loss weighs both directions by; nil is certainty.
func (o Preference) Loss(chosen, rejected Answers, labelB *graph.Node) *graph.Node {
	p := pairs{Preference: o, chosen: chosen, rejected: rejected, labelB: labelB, cB: chosen.Ratio(), rB: rejected.Ratio()}
	p.dB = graph.Minus(o.divergence(p.cB), o.divergence(p.rB))
	p.betaD = graph.Scale(p.dB, o.Beta)
	var sum *graph.Node
	for _, t := range o.Terms {
		l := losses[t.Name](p)
		if o.Weighting && l.Rank() > 0 {
			l = graph.Times(l, graph.Times(chosen.likelihood(), rejected.likelihood()))
		}
		l = graph.Scale(graph.Mean(l), t.Weight)
		if sum == nil {
			sum = l
		} else {
			sum = graph.Plus(sum, l)
		}
	}
	return sum
}

// divergence is f, by which the log-ratio to the reference enters.
func (o Preference) divergence(x *graph.Node) *graph.Node {
	switch o.Divergence {
	case "forward_kl":
		return oneMinus(graph.Apply(graph.Exp, neg(x)))
	case "js_divergence":
		return graph.Shift(logSigmoid(x), math.Ln2)
	case "alpha_divergence":
		a := o.Coefficient - 1
		if a == 0 {
			return x
		}
		const most = 80 // e to it is still finite
		e := graph.Apply(graph.Exp, graph.Bound(graph.Scale(x, a), -math.MaxFloat32, most))
		return graph.Scale(graph.Shift(e, -1), 1/a)
	}
	return x
}

// perToken is d with each log-ratio divided by its answer's length.
func (p pairs) perToken() *graph.Node {
	return graph.Minus(graph.Over(p.divergence(p.cB), p.chosen.LengthB), graph.Over(p.divergence(p.rB), p.rejected.LengthB))
}

// likelihood is e to the mean over the tokens of log p − log Σp², without gradient.
func (a Answers) likelihood() *graph.Node {
	x := graph.Times(graph.Minus(a.LogProbsBT, a.SquaresBT), a.MaskBT)
	return graph.Detach(graph.Apply(graph.Exp, graph.Over(graph.Sum(x, -1), graph.Sum(a.MaskBT, -1))))
}

// SoftLogistic returns −p·log σ(x) − (1 − p)·log σ(−x) for the probability p that x should be positive; a nil p is 1.
func SoftLogistic(xB, pB *graph.Node) *graph.Node {
	if pB == nil {
		return neg(logSigmoid(xB))
	}
	return neg(graph.Plus(graph.Times(pB, logSigmoid(xB)), graph.Times(oneMinus(pB), logSigmoid(neg(xB)))))
}

// smoothed is −(1 − ε)·log σ(x) − ε·log σ(−x).
func smoothed(x *graph.Node, epsilon float32) *graph.Node {
	l := graph.Scale(logSigmoid(x), epsilon-1)
	if epsilon == 0 {
		return l
	}
	return graph.Plus(l, graph.Scale(logSigmoid(neg(x)), -epsilon))
}

func neg(x *graph.Node) *graph.Node        { return graph.Scale(x, -1) }
func oneMinus(x *graph.Node) *graph.Node   { return graph.Shift(graph.Scale(x, -1), 1) }
func sigmoid(x *graph.Node) *graph.Node    { return graph.Apply(graph.Sigmoid, x) }
func logSigmoid(x *graph.Node) *graph.Node { return graph.Apply(graph.LogSigmoid, x) }

// sorted returns the elements of a vector in rising order; equal ones keep their order. It multiplies by the matrix of
// the permutation, for batches are short and the gradient is then that of a product.
func sorted(xB *graph.Node) *graph.Node {
	g, n := xB.Graph(), xB.Dim(0)
	x := graph.Detach(xB)
	row, col := graph.Reshape(x, 1, n), graph.Reshape(x, n, 1)
	before, place := make([]float32, n*n), make([]float32, n)
	for i := range n {
		place[i] = float32(i)
		for j := range i {
			before[i*n+j] = 1
		}
	}
	smaller := graph.Combine(graph.Less, graph.BroadcastTo(row, []int{n, n}), graph.BroadcastTo(col, []int{n, n}))
	ties := graph.Times(graph.Combine(graph.Equal, row, col), g.Floats(before, n, n))
	rank := graph.Sum(graph.Plus(smaller, ties), 1) // how many come before element i
	choose := graph.Combine(graph.Equal, graph.Reshape(g.Floats(place, n), n, 1), graph.Reshape(rank, 1, n))
	return graph.Sum(graph.Times(choose, graph.Reshape(xB, 1, n)), 1)
}

// LongTail returns the factors of single tokens by which LD-DPO makes long answers count less: 1 up to the length of
// the shorter answer of the pair, alpha after it (Liu et al. 2024, arXiv 2409.06411), 0 outside of the answers. partner gives the row of the other answer.
func LongTail(mask []float32, cols int, alpha float32, partner func(row int) int) []float32 {
	lengths := make([]int, len(mask)/cols)
	for i, m := range mask {
		if m != 0 {
			lengths[i/cols]++
		}
	}
	out := make([]float32, len(mask))
	for r, n := range lengths {
		short, seen := min(n, lengths[partner(r)]), 0
		for i := r * cols; i < (r+1)*cols; i++ {
			if mask[i] == 0 {
				continue
			}
			out[i] = 1
			if seen++; seen > short {
				out[i] = alpha
			}
		}
	}
	return out
}
