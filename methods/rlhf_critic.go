package methods

import (
	"context"
	"fmt"

	"tunesmith/data"
	"tunesmith/model"
	"tunesmith/objective"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// critic is PPO's value model: the same base, whose frozen weights are held once, with grafts and a head of its own. It
// makes its step whenever the policy makes one.
type critic struct {
	*trainer.Stepper
	o *RLHF
}

// criticPrefix begins the names of the critic's tensors in a checkpoint.
const criticPrefix = trainer.SourcePrefix + "critic:"

func newCritic(o *RLHF, s *trainer.Session) (*critic, error) {
	headed, err := s.Model.Model.WithHead(model.Head{Kind: model.SequenceHead, Labels: 1})
	if err != nil {
		return nil, fmt.Errorf("value model: %w", err)
	}
	method, ok := s.Config.Parameters.Options.(tune.Parameters)
	if !ok {
		return nil, fmt.Errorf("value model: parameters %q cannot be trained", s.Config.Parameters.Name)
	}
	graft, err := method.Graft(headed.Map())
	if err != nil {
		return nil, fmt.Errorf("value model: %w", err)
	}
	a, err := s.Model.Beside(headed, s.Config.Seed+1, graft, trainer.HeadGraft(headed))
	if err != nil {
		return nil, fmt.Errorf("value model: %w", err)
	}
	c := &critic{o: o}
	c.Stepper, err = s.StepperFor(a, ppoValue{o.ppo(), o.ValueWeight})
	return c, err
}

// ppo is the options as package objective takes them.
func (o *RLHF) ppo() objective.PPO {
	return objective.PPO{Clip: float32(o.Clip), ValueClip: float32(o.ValueClip)}
}

// ahead takes the values of a row at the answer's tokens and behind its last one.
func ahead(b data.Batch, row int, values []float32) []float32 {
	out := b.Answer(row, values)
	return append(out, values[lastTarget(b, row)+1])
}

// lastTarget is the place of a row's last target.
func lastTarget(b data.Batch, row int) int {
	last := row * b.Cols
	for i := last; i < (row+1)*b.Cols; i++ {
		if b.Targets[i] >= 0 {
			last = i
		}
	}
	return last
}

// advantages fills in what the answers of a rollout are worth, token by token.
func (c *critic) advantages(ctx context.Context, r *rollouts, scores []float64) error {
	all := r.state.Answers
	e := objective.Episodes{Scores: scores}
	for _, a := range all {
		e.Cols = max(e.Cols, len(a.IDs)+1)
	}
	n := len(all) * e.Cols
	e.LogProbs, e.Reference, e.Values = make([]float64, n), make([]float64, n), make([]float64, n)
	at := 0
	for _, b := range r.batches() {
		values, err := c.Values(ctx, b)
		if err != nil {
			return err
		}
		for row := range b.Rows {
			a := &all[at]
			a.Values = ahead(b, row, values)
			for k, v := range a.Values {
				e.Values[at*e.Cols+k] = float64(v)
			}
			for k, v := range a.Old {
				e.LogProbs[at*e.Cols+k], e.Reference[at*e.Cols+k] = float64(v), float64(v)
			}
			for k, v := range a.Reference {
				e.Reference[at*e.Cols+k] = float64(v)
			}
			e.Length, e.Ended = append(e.Length, len(a.IDs)-1), append(e.Ended, a.Ended)
			at++
		}
	}
	o := objective.Reinforced{
		KL: r.state.Beta, CubicKL: c.o.CubicKL, Gamma: c.o.Gamma, Lambda: c.o.Lambda, WhitenReward: c.o.WhitenRewards, MissingEnd: c.o.MissingEnd,
	}
	out := o.Outcome(e)
	for i := range all {
		a := &all[i]
		a.Advantages, a.Returns = nil, nil
		for k := range a.IDs {
			a.Advantages = append(a.Advantages, float32(out.Advantages[i*e.Cols+k]))
		}
		for k := range a.Values {
			a.Returns = append(a.Returns, float32(out.Returns[i*e.Cols+k]))
		}
	}
	return nil
}

// weigh gives the batches of a step the weights by which losses become means over its tokens.
func (c *critic) weigh(batches []data.Batch) {
	var tokens, places float32
	for _, b := range batches {
		tokens += float32(b.Supervised)
		places += float32(b.Supervised + b.Rows)
	}
	for _, b := range batches {
		weight, value := make([]float32, len(b.Targets)), make([]float32, len(b.Targets))
		for row := range b.Rows {
			for i := row * b.Cols; i < (row+1)*b.Cols; i++ {
				if b.Targets[i] >= 0 {
					weight[i], value[i] = 1/tokens, 1/places
				}
			}
			value[lastTarget(b, row)+1] = 1 / places
		}
		b.Extra["weight"], b.Extra["value weight"] = weight, value
	}
}

// step makes the critic's own step on the policy's batches.
func (c *critic) step(ctx context.Context, batches []data.Batch, to *trainer.StepResult) error {
	own, err := c.Step(ctx, batches)
	if err != nil {
		return fmt.Errorf("value model: %w", err)
	}
	to.Values["value loss"] = own.Loss / c.o.ValueWeight
	return nil
}

// share is the part that a batch has in its step, from the weights of its tokens.
func share(b data.Batch, name string) float64 {
	var sum float64
	weights, _ := b.Extra[name].([]float32)
	for _, w := range weights {
		sum += float64(w)
	}
	return sum
}
