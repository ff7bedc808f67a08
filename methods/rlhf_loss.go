package methods

import (
	"tunesmith/graph"
	"tunesmith/objective"
	"tunesmith/tune"
)

// scores builds the output of a model with a head of one label at the places (rows) of a batch.
func scores(f tune.Forward, lastR *graph.Node) *graph.Node {
	h := f.Model.Hidden(f.Scope)
	h = graph.Rows(graph.Reshape(h, f.Rows*f.Cols, h.Dim(-1)), lastR)
	return graph.Reshape(f.Model.Logits(f.Scope, h), f.Rows)
}

// pairLoss is the sum over the pairs of a reward model's losses.
func (o *RLHF) pairLoss(f tune.Forward) *graph.Node {
	f.Sequences = 2
	n := f.Rows / 2
	r := scores(f, f.IntInput("last", f.Rows))
	chosen, rejected := part(f, r, 0), part(f, r, 1)
	label := f.Input("label", n)
	loss := objective.BradleyTerry{Centre: float32(o.Centre)}.Loss(chosen, rejected, f.Input("margin", n), label)
	d := graph.Minus(chosen, rejected)
	f.Metric("accuracy", graph.Sum(graph.Combine(graph.Less, rejected, chosen)), nil)
	f.Metric("margin", graph.Sum(d), nil)
	f.Metric("mean_reward", graph.Sum(graph.Scale(graph.Plus(chosen, rejected), 0.5)), nil)
	// How far the stated probability is from what happened, 0.25 where it says nothing.
	f.Metric("brier", graph.Sum(graph.Apply(graph.Square, graph.Minus(graph.Apply(graph.Sigmoid, d), label))), nil)
	return graph.Sum(loss)
}

// policyLoss is the sum of the losses of sampled answers. The inputs are the log-probabilities of the model that
// sampled them and whether they are to be used ("sampled" 1) or the answers are the trained model's own.
func (o *RLHF) policyLoss(f tune.Forward) *graph.Node {
	p := o.policy()
	logp := f.LogProbsAt(o.Heat)
	mask := f.Input("mask", f.Rows, f.Cols)
	sampled := f.Input("sampled", 1)
	old := graph.Plus(graph.Times(sampled, f.Input("old", f.Rows, f.Cols)), graph.Times(graph.Shift(graph.Scale(sampled, -1), 1), graph.Detach(logp)))
	r := objective.Rollout{LogProbsBT: logp, OldBT: old, MaskBT: mask, AdvantageB: f.Input("advantage", f.Rows)}
	if p.Beta != 0 {
		r.ReferenceBT = f.Input("reference", f.Rows, f.Cols)
	}
	ratio := graph.Times(graph.Minus(logp, old), mask)
	tokens := graph.Sum(mask)
	f.Metric("policy/change", graph.Scale(graph.Sum(graph.Apply(graph.Square, ratio)), 0.5), tokens)
	return p.Loss(r)
}
