package methods

import (
	"errors"

	"tunesmith/data"
	"tunesmith/graph"
	"tunesmith/objective"
	"tunesmith/tune"
)

// The two models of PPO train side by side: no parameter is shared, so the gradient of the joint loss is the two
// gradients. Both read rows of a prompt and its answer; the place of a token of the answer is that of the token before it,
// which predicts it.

// ppoPolicy is the loss of the model that answers. Its inputs are the old log-probabilities, the advantages, and weights
// that add to 1 over the step.
type ppoPolicy struct {
	objective.PPO
	temperature float64
}

var errRendered = errors.New("rollouts are sampled, not rendered")

// Renderer implements tune.Objective.
func (ppoPolicy) Renderer(tune.Text) (data.Renderer, error) { return nil, errRendered }

// Count implements tune.Counter: the weights are means already.
func (ppoPolicy) Count(b data.Batch) float64 { return share(b, "weight") }

// Loss implements tune.Objective.
func (o ppoPolicy) Loss(f tune.Forward) *graph.Node {
	in := func(name string) *graph.Node { return f.Input(name, f.Rows, f.Cols) }
	logp, weight := f.LogProbsAt(o.temperature), in("weight")
	change := graph.Apply(graph.Square, graph.Minus(logp, in("old")))
	f.Metric("policy/change", graph.Scale(graph.Sum(graph.Times(change, weight)), 0.5), f.Scope.Scalar(1))
	return o.Policy(logp, in("old"), in("advantage"), weight)
}

// ppoValue is the loss of the model that foretells the reward, times its coefficient.
type ppoValue struct {
	objective.PPO
	coefficient float64
}

// Renderer implements tune.Objective.
func (ppoValue) Renderer(tune.Text) (data.Renderer, error) { return nil, errRendered }

// Count implements tune.Counter.
func (ppoValue) Count(b data.Batch) float64 { return share(b, "value weight") }

// Loss implements tune.Objective.
func (o ppoValue) Loss(f tune.Forward) *graph.Node {
	in := func(name string) *graph.Node { return f.Input(name, f.Rows, f.Cols) }
	value := graph.Reshape(f.Model.Logits(f.Scope, f.Model.Hidden(f.Scope)), f.Rows, f.Cols)
	return graph.Scale(o.Value(value, in("value"), in("return"), in("value weight")), float32(o.coefficient))
}
