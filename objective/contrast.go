package objective

import (
	"math"

	"tunesmith/graph"
)

// Contrast is a loss over pairs that needs no reference: CPO (Xu et al. 2024, arXiv 2401.08417), SimPO (Meng et al.
// 2024, 2405.14734), AlphaPO (Gupta et al. 2025, 2501.03884).
type Contrast struct {
	Name      string // sigmoid, hinge, ipo or simpo
	Beta      float32
	Smoothing float32
	Gamma     float32 // margin that simpo asks for
	Alpha     float32 // shape of AlphaPO's reward; 0 is the log-probability itself
}

// Averaged reports whether the loss takes the mean of an answer's log-probabilities rather than their sum.
func (o Contrast) Averaged() bool { return o.Name == "simpo" || o.Name == "ipo" }

// Loss returns the loss of each pair from the log-probabilities of its answers.
func (o Contrast) Loss(chosenB, rejectedB *graph.Node) *graph.Node {
	zB := graph.Minus(chosenB, rejectedB)
	if o.Alpha != 0 {
		shape := func(x *graph.Node) *graph.Node { // (1 − p^−α) / α
			return graph.Scale(oneMinus(graph.Apply(graph.Exp, graph.Scale(x, -o.Alpha))), 1/o.Alpha)
		}
		zB = graph.Minus(shape(chosenB), shape(rejectedB))
	}
	switch o.Name {
	case "hinge":
		return graph.Apply(graph.ReLU, oneMinus(graph.Scale(zB, o.Beta)))
	case "ipo":
		return graph.Apply(graph.Square, graph.Shift(zB, -1/(2*o.Beta)))
	case "simpo":
		return smoothed(graph.Shift(graph.Scale(zB, o.Beta), -o.Gamma), o.Smoothing)
	}
	return smoothed(graph.Scale(zB, o.Beta), o.Smoothing)
}

// LogOdds returns log(p/(1−p)) of the chosen minus that of the rejected answer, from mean log-probabilities (ORPO, Hong
// et al. 2024, arXiv 2403.07691).
func LogOdds(chosenB, rejectedB *graph.Node) *graph.Node {
	return graph.Minus(graph.Minus(chosenB, rejectedB), graph.Minus(log1mExp(chosenB), log1mExp(rejectedB)))
}

// OddsRatio returns −log σ of the log odds ratio.
func OddsRatio(chosenB, rejectedB *graph.Node) *graph.Node {
	return neg(logSigmoid(LogOdds(chosenB, rejectedB)))
}

// log1mExp is log(1 − eˣ) of x < 0. With t = tanh(−x/2) it is log(2t/(1 + t)), which loses nothing near 0.
func log1mExp(x *graph.Node) *graph.Node {
	t := graph.Apply(graph.Tanh, graph.Scale(x, -0.5))
	return graph.Apply(graph.Log, graph.Scale(graph.Over(t, graph.Shift(t, 1)), 2))
}

// KTO is the loss of single answers that are labelled good or bad (Ethayarajh et al. 2024, arXiv 2402.01306), or
// without KL the unpaired form of APO-zero.
type KTO struct {
	Beta        float32
	Desirable   float32 // weight of good answers
	Undesirable float32 // weight of bad answers
	WithoutKL   bool
}

// Loss returns the loss of each answer. ratioB is the log-ratio to the reference, goodB 1 or 0, and klB the log-ratio of
// answers to other prompts, whose mean over the batch estimates the divergence from the reference.
func (o KTO) Loss(ratioB, goodB, klB *graph.Node) *graph.Node {
	if o.WithoutKL {
		p := sigmoid(graph.Scale(ratioB, o.Beta))
		return choose(goodB, oneMinus(p), p)
	}
	kl := KTODivergence(klB)
	good := oneMinus(sigmoid(graph.Scale(graph.Minus(ratioB, kl), o.Beta)))
	bad := oneMinus(sigmoid(graph.Scale(graph.Minus(kl, ratioB), o.Beta)))
	return choose(goodB, graph.Scale(good, o.Desirable), graph.Scale(bad, o.Undesirable))
}

// KTODivergence is the mean log-ratio of a batch of mismatched answers, at least 0, without gradient.
func KTODivergence(klB *graph.Node) *graph.Node {
	return graph.Detach(graph.Apply(graph.ReLU, graph.Mean(klB)))
}

// choose returns a where goodB is 1 and b where it is 0.
func choose(goodB, a, b *graph.Node) *graph.Node {
	return graph.Select(goodB, graph.BroadcastTo(a, goodB.Shape()), graph.BroadcastTo(b, goodB.Shape()))
}

// BradleyTerry is the loss of a reward model over pairs.
type BradleyTerry struct {
	Centre float32 // factor of (rewards' sum)², which keeps rewards near 0 (Eisenstein et al. 2023, arXiv 2312.09244)
}

// Loss returns −log σ(c − r − margin) of each pair, softened by the probability p that the chosen answer is better, plus
// the centring. marginB and pB may be nil.
func (o BradleyTerry) Loss(chosenB, rejectedB, marginB, pB *graph.Node) *graph.Node {
	d := graph.Minus(chosenB, rejectedB)
	if marginB != nil {
		d = graph.Minus(d, marginB)
	}
	l := SoftLogistic(d, pB)
	if o.Centre == 0 {
		return l
	}
	return graph.Plus(l, graph.Scale(graph.Apply(graph.Square, graph.Plus(chosenB, rejectedB)), o.Centre))
}

// Distil returns the generalised Jensen–Shannon divergence of each position from a teacher (Agarwal et al. 2023, arXiv
// 2306.13649). beta is the teacher's weight in the mixture: 0 is KL(teacher‖student), 1 KL(student‖teacher).
func Distil(studentNV, teacherNV *graph.Node, beta, temperature float32) *graph.Node {
	s, t := logSoftmax(graph.Scale(studentNV, 1/temperature)), logSoftmax(graph.Scale(teacherNV, 1/temperature))
	switch beta {
	case 0:
		return divergence(t, s)
	case 1:
		return divergence(s, t)
	}
	a, b := graph.Shift(s, float32(math.Log(1-float64(beta)))), graph.Shift(t, float32(math.Log(float64(beta))))
	mixture := graph.Plus(a, graph.Apply(graph.Softplus, graph.Minus(b, a)))
	return graph.Plus(graph.Scale(divergence(t, mixture), beta), graph.Scale(divergence(s, mixture), 1-beta))
}

// divergence is KL(p‖q) of each row, from log-probabilities.
func divergence(pNV, qNV *graph.Node) *graph.Node {
	return graph.Sum(graph.Times(graph.Apply(graph.Exp, pNV), graph.Minus(pNV, qNV)), -1)
}

func logSoftmax(xNV *graph.Node) *graph.Node {
	return graph.Minus(xNV, graph.Reshape(graph.LogSumExp(xNV, -1), append(append([]int{}, xNV.Shape()[:xNV.Rank()-1]...), 1)...))
}
