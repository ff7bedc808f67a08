package methods

import (
	"slices"

	"tunesmith/data"
	"tunesmith/graph"
	"tunesmith/objective"
	"tunesmith/tune"
)

// Shapes: B examples, T positions. The rows of a batch are the sequences of its examples in turn.

// part takes sequence i of every example of x (rows, …).
func part(f tune.Forward, x *graph.Node, i int) *graph.Node {
	if f.Sequences == 1 {
		return x
	}
	rest := x.Shape()[1:]
	shape := append([]int{f.Rows / f.Sequences, f.Sequences}, rest...)
	return graph.Reshape(graph.SliceAxis(graph.Reshape(x, shape...), 1, i, i+1), append([]int{f.Rows / f.Sequences}, rest...)...)
}

// compared is the mean loss of pairs against the reference.
func (o *DPO) compared(f tune.Forward) *graph.Node {
	logp, squares := o.logProbs(f)
	reference := graph.Reshape(f.Reference(), f.Rows, f.Cols)
	if o.LongTail != 1 {
		tail := f.Input("tail", f.Rows, f.Cols)
		logp, reference = graph.Times(logp, tail), graph.Times(reference, tail)
	}
	mask, length := f.Input("mask", f.Rows, f.Cols), f.Input("length", f.Rows)
	side := func(i int) objective.Answers {
		a := objective.Answers{
			LogProbsBT: part(f, logp, i), ReferenceBT: part(f, reference, i), MaskBT: part(f, mask, i), LengthB: part(f, length, i),
		}
		if squares != nil {
			a.SquaresBT = part(f, squares, i)
		}
		return a
	}
	c, r := side(0), side(1)
	label := f.Input("label", f.Rows/f.Sequences)
	loss := o.preference().Loss(c, r, label)
	o.measure(f, graph.Scale(c.Ratio(), float32(o.Beta)), graph.Scale(r.Ratio(), float32(o.Beta)), c, r)
	f.Metric("drift", graph.Sum(c.Ratio()), graph.Sum(c.MaskBT))
	return loss
}

// logProbs returns the log-probabilities of the targets and, where the loss weighs by likelihood, log Σp².
func (o *DPO) logProbs(f tune.Forward) (logp, squares *graph.Node) {
	if !o.Weighting {
		return f.LogProbs(), nil
	}
	h := f.Model.Hidden(f.Scope)
	logp, _ = f.Model.LogProbs(f.Scope, graph.Reshape(h, -1, h.Dim(-1)), f.Targets)
	logits := graph.Detach(f.Model.Logits(f.Scope, h))
	squares = graph.Minus(graph.LogSumExp(graph.Scale(logits, 2), -1), graph.Scale(graph.LogSumExp(logits, -1), 2))
	return graph.Reshape(logp, f.Rows, f.Cols), squares
}

// measure notes the metrics of pairs. Of equal rewards neither is the greater.
func (o *DPO) measure(f tune.Forward, chosenB, rejectedB *graph.Node, c, r objective.Answers) {
	right := graph.Combine(graph.Less, rejectedB, chosenB)
	longer := graph.Combine(graph.Less, r.LengthB, c.LengthB)
	shorter := graph.Combine(graph.Less, c.LengthB, r.LengthB)
	wrong := graph.Combine(graph.Less, chosenB, rejectedB)
	f.Metric("rewards/chosen", graph.Sum(chosenB), nil)
	f.Metric("rewards/rejected", graph.Sum(rejectedB), nil)
	f.Metric("margin", graph.Sum(graph.Minus(chosenB, rejectedB)), nil)
	f.Metric("accuracy", graph.Sum(right), nil)
	f.Metric("logps/chosen", graph.Sum(c.LogProbsBT), nil)
	f.Metric("logps/rejected", graph.Sum(r.LogProbsBT), nil)
	// How often the longer answer is the one that the data, and the one that the model prefers: equal where the model
	// has no bias of its own.
	f.Metric("longer/data", graph.Sum(longer), nil)
	f.Metric("longer/model", graph.Sum(graph.Plus(graph.Times(longer, right), graph.Times(shorter, wrong))), nil)
}

// contrastNames are the losses as package objective calls them; orpo averages as simpo does.
var contrastNames = map[string]string{"orpo": "simpo", "simpo": "simpo", "cpo": "sigmoid", "cpo_hinge": "hinge", "cpo_ipo": "ipo"}

// contrasted is the mean loss of pairs without a reference.
func (o *DPO) contrasted(f tune.Forward) *graph.Node {
	orpo := o.Losses[0] == "orpo"
	if orpo {
		f.Targets = f.IntInput("every", f.Rows*f.Cols)
	}
	logp := f.LogProbs()
	mask, length := f.Input("mask", f.Rows, f.Cols), f.Input("length", f.Rows)
	side := func(i int) objective.Answers {
		m := part(f, mask, i)
		return objective.Answers{LogProbsBT: graph.Times(part(f, logp, i), m), MaskBT: m, LengthB: part(f, length, i)}
	}
	c, r := side(0), side(1)
	contrast := objective.Contrast{
		Name: contrastNames[o.Losses[0]],
		Beta: float32(o.Beta), Smoothing: float32(o.Smoothing), Gamma: float32(o.Gamma), Alpha: float32(o.Shape),
	}
	score := func(a objective.Answers) *graph.Node {
		sum := graph.Sum(a.LogProbsBT, -1)
		if contrast.Averaged() {
			return graph.Over(sum, a.LengthB)
		}
		return sum
	}
	cB, rB := score(c), score(r)
	o.measure(f, graph.Scale(cB, float32(o.Beta)), graph.Scale(rB, float32(o.Beta)), c, r)
	if orpo {
		every := graph.Combine(graph.Less, part(f, logp, 0), f.Scope.Scalar(0)) // a log-probability of 0 is no target
		nll := graph.Over(graph.Sum(part(f, logp, 0)), graph.Scale(graph.Sum(every), -1))
		return graph.Plus(nll, graph.Scale(graph.Mean(objective.OddsRatio(cB, rB)), float32(o.Beta)))
	}
	loss := graph.Mean(contrast.Loss(cB, rB))
	if o.NLL != 0 {
		nll := graph.Over(graph.Sum(c.LogProbsBT), graph.Scale(graph.Sum(c.MaskBT), -1))
		loss = graph.Plus(loss, graph.Scale(nll, float32(o.NLL)))
	}
	return loss
}

// everyTarget makes the prompt of the better answer a target too: orpo teaches the whole of it.
func everyTarget(b data.Batch) []int32 {
	out := slices.Clone(b.Targets)
	for i := range out {
		if i/b.Cols%2 == 0 && (i+1)%b.Cols != 0 && b.Segments[i] >= 0 && b.Segments[i+1] == b.Segments[i] {
			out[i] = b.IDs[i+1]
		}
	}
	return out
}

// judged is the mean loss of single answers that are labelled good or bad.
func (o *DPO) judged(f tune.Forward) *graph.Node {
	logp := f.LogProbs()
	each := graph.Sum(graph.Minus(logp, graph.Reshape(f.Reference(), f.Rows, f.Cols)), -1)
	ratio, good := part(f, each, 0), f.Input("label", f.Rows/f.Sequences)
	loss := objective.KTO{
		Beta: float32(o.Beta), Desirable: float32(o.Desirable), Undesirable: float32(o.Undesirable), WithoutKL: o.Losses[0] != "kto",
	}
	var kl *graph.Node
	if !loss.WithoutKL {
		kl = part(f, each, 1)
		f.Metric("kl", objective.KTODivergence(kl), f.Scope.Scalar(1))
	}
	reward, bad := graph.Scale(ratio, float32(o.Beta)), graph.Shift(graph.Scale(good, -1), 1)
	f.Metric("rewards/chosen", graph.Sum(graph.Times(reward, good)), graph.Sum(good))
	f.Metric("rewards/rejected", graph.Sum(graph.Times(reward, bad)), graph.Sum(bad))
	tokens := graph.Sum(graph.Times(f.Input("length", f.Rows), f.Scope.Scalar(1)))
	f.Metric("drift", graph.Sum(graph.Times(ratio, good)), tokens)
	return graph.Mean(loss.Loss(ratio, good, kl))
}
