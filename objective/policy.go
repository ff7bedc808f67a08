package objective

import (
	"math"
	"slices"

	"tunesmith/graph"
)

// Rollout is a batch of sampled answers: B rows of T positions. Positions outside of the mask count for nothing.
type Rollout struct {
	LogProbsBT  *graph.Node // of the trained model
	OldBT       *graph.Node // of the model that sampled; nil where it is the trained one
	ReferenceBT *graph.Node // nil where Beta is 0
	EntropyBT   *graph.Node // of the trained model's distributions; nil where EntropyBonus is 0
	MaskBT      *graph.Node
	KeepBT      *graph.Node // 1 at positions whose loss counts (see TopEntropy); nil for all
	AdvantageB  *graph.Node
}

// Policy is the loss of a policy gradient method whose advantages belong to whole answers.
type Policy struct {
	Name         string  // one of PolicyLosses
	Beta         float32 // weight of the divergence from the reference
	Low, High    float32 // the ratio to the old policy is clipped to 1 − Low … 1 + High; High itself bounds cispo
	Sequence     bool    // ratios of whole answers, the geometric mean of the tokens' (GSPO, 2507.18071)
	Delta        float32 // upper bound of the ratio where it is not clipped, 0 for none
	MaxLength    int     // longest answer, by which dr_grpo divides
	OffPolicy    float32 // rows of negative advantage that are less likely than before by more count for nothing; 0 is off
	UnbiasedKL   bool    // weigh the divergence by the ratio
	EntropyBonus float32
}

// PolicyLosses are the names that Policy knows: GRPO (2402.03300), BNPO and DAPO (2503.14476), Dr. GRPO (2503.20783),
// CISPO (2506.13585), SAPO, LUSPO, VESPO as TRL has them, and RLOO (2402.14740).
var PolicyLosses = []string{"grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo", "rloo"}

// Constants of single losses, as in TRL.
const (
	sapoPositive, sapoNegative = 1.0, 1.05
	vespoLow, vespoHigh        = 1e-8, 20 // bounds of the answer's ratio, the second as a logarithm
)

// Loss returns what is to be divided by Count: the sum over the batch.
func (o Policy) Loss(r Rollout) *graph.Node {
	old := r.OldBT
	if old == nil {
		old = graph.Detach(r.LogProbsBT)
	}
	logRatio := graph.Minus(r.LogProbsBT, old)
	aB1 := graph.Reshape(r.AdvantageB, -1, 1)
	if o.Name == "rloo" {
		return graph.Sum(o.clipped(graph.Apply(graph.Exp, masked(logRatio, r.MaskBT)), aB1))
	}
	logWeight := logRatio
	if o.Sequence {
		logWeight = graph.Over(masked(logRatio, r.MaskBT), lengths(r.MaskBT))
	}
	w := graph.Apply(graph.Exp, logWeight)
	loss := graph.BroadcastTo(o.token(w, aB1, logRatio, r), r.MaskBT.Shape())
	if o.OffPolicy != 0 {
		g := r.MaskBT.Graph()
		drift := graph.Over(masked(graph.Minus(old, r.LogProbsBT), r.MaskBT), lengths(r.MaskBT))
		good := graph.Combine(graph.LessEq, g.Scalar(0), aB1)
		near := graph.Combine(graph.LessEq, drift, g.Scalar(o.OffPolicy))
		loss = graph.Times(loss, graph.Detach(graph.Combine(graph.Max, good, near)))
	}
	if r.KeepBT != nil {
		loss = graph.Times(loss, r.KeepBT)
	}
	if o.Beta != 0 {
		d := graph.Minus(r.ReferenceBT, r.LogProbsBT)
		kl := graph.Minus(graph.Apply(graph.Exp, d), graph.Shift(d, 1))
		if o.UnbiasedKL {
			kl = graph.Times(kl, w)
		}
		loss = graph.Plus(loss, graph.Scale(kl, o.Beta))
	}
	sum := o.sum(loss, r.MaskBT)
	if o.EntropyBonus != 0 {
		mean := graph.Over(graph.Sum(graph.Times(r.EntropyBT, r.MaskBT)), graph.Sum(r.MaskBT))
		sum = graph.Minus(sum, graph.Scale(graph.Times(mean, o.count(r.MaskBT)), o.EntropyBonus))
	}
	return sum
}

// clipped is −min(w·A, clip(w)·A).
func (o Policy) clipped(w, aB1 *graph.Node) *graph.Node {
	free := w
	if o.Delta != 0 {
		free = graph.Bound(w, -math.MaxFloat32, o.Delta)
	}
	return neg(graph.Combine(graph.Min, graph.Times(free, aB1), graph.Times(graph.Bound(w, 1-o.Low, 1+o.High), aB1)))
}

// token is the loss of each token without its divergence; w has one column where ratios are of whole answers.
func (o Policy) token(w, aB1, logRatio *graph.Node, r Rollout) *graph.Node {
	g := w.Graph()
	switch o.Name {
	case "cispo":
		w = graph.Detach(graph.Bound(w, -math.MaxFloat32, o.High))
		return neg(graph.Times(graph.Times(w, aB1), r.LogProbsBT))
	case "sapo":
		positive := graph.Combine(graph.Less, g.Scalar(0), aB1)
		tau := graph.Shift(graph.Scale(positive, sapoPositive-sapoNegative), sapoNegative)
		soft := graph.Over(sigmoid(graph.Times(tau, graph.Shift(w, -1))), tau)
		return graph.Scale(graph.Times(soft, aB1), -4)
	case "vespo":
		logW := graph.Bound(masked(logRatio, r.MaskBT), float32(math.Log(vespoLow)), vespoHigh)
		good := graph.Combine(graph.LessEq, g.Scalar(0), aB1)
		k, lambda := graph.Shift(neg(good), 3), graph.Shift(good, 2) // 2 and 3 where the advantage is not negative, else 3 and 2
		phi := graph.Plus(lambda, graph.Minus(graph.Times(k, logW), graph.Times(lambda, graph.Apply(graph.Exp, logW))))
		return neg(graph.Times(graph.Times(graph.Detach(graph.Apply(graph.Exp, phi)), aB1), r.LogProbsBT))
	}
	return o.clipped(w, aB1)
}

// perRow are the losses that average within an answer first, or over answers.
var perRow = []string{"grpo", "sapo", "luspo", "rloo"}

// sum adds the losses of the tokens up, in an answer first where the method averages there.
func (o Policy) sum(lossBT, maskBT *graph.Node) *graph.Node {
	if o.Name == "grpo" || o.Name == "sapo" {
		return graph.Sum(graph.Over(masked(lossBT, maskBT), lengths(maskBT)))
	}
	return graph.Sum(graph.Times(lossBT, maskBT))
}

// Count is what the sum of a batch of rows with so many tokens in the mask is divided by; counts of several batches
// add up.
func (o Policy) Count(rows int, tokens float64) float64 {
	switch {
	case slices.Contains(perRow, o.Name):
		return float64(rows)
	case o.Name == "dr_grpo":
		return float64(rows * o.MaxLength)
	}
	return tokens
}

// count is Count in the graph.
func (o Policy) count(maskBT *graph.Node) *graph.Node {
	if n := o.Count(maskBT.Dim(0), 0); n != 0 {
		return maskBT.Graph().Scalar(float32(n))
	}
	return graph.Sum(maskBT)
}

// masked sums the rows over the mask, as a column.
func masked(xBT, maskBT *graph.Node) *graph.Node {
	return graph.Reshape(graph.Sum(graph.Times(xBT, maskBT), -1), -1, 1)
}

// lengths are the rows' tokens in the mask, at least 1, as a column.
func lengths(maskBT *graph.Node) *graph.Node {
	return graph.Bound(graph.Reshape(graph.Sum(maskBT, -1), -1, 1), 1, math.MaxFloat32)
}

// PPO is the clipped loss of policy and value function (Schulman et al. 2017, arXiv 1707.06347).
type PPO struct {
	Clip      float32 // of the ratio
	ValueClip float32 // of the values' change
}

// Policy returns Σ w·max(−A·ratio, −A·clip(ratio)); the weights are the mask, divided by whatever the mean is over.
func (o PPO) Policy(newBT, oldBT, advantageBT, weightBT *graph.Node) *graph.Node {
	ratio := graph.Apply(graph.Exp, graph.Minus(newBT, oldBT))
	a := neg(advantageBT)
	worse := graph.Combine(graph.Max, graph.Times(a, ratio), graph.Times(a, graph.Bound(ratio, 1-o.Clip, 1+o.Clip)))
	return graph.Sum(graph.Times(worse, weightBT))
}

// Value returns ½ Σ w·max((v − R)², (clip(v) − R)²) with v clipped to its old value ± ValueClip.
func (o PPO) Value(valueBT, oldBT, returnBT, weightBT *graph.Node) *graph.Node {
	low, high := graph.Shift(oldBT, -o.ValueClip), graph.Shift(oldBT, o.ValueClip)
	clipped := graph.Combine(graph.Min, graph.Combine(graph.Max, valueBT, low), high)
	free := graph.Apply(graph.Square, graph.Minus(valueBT, returnBT))
	bound := graph.Apply(graph.Square, graph.Minus(clipped, returnBT))
	return graph.Scale(graph.Sum(graph.Times(graph.Combine(graph.Max, free, bound), weightBT)), 0.5)
}
