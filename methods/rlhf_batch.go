package methods

import (
	"context"
	"slices"

	"tunesmith/data"
)

// logProbs computes the log-probabilities of the answers' tokens under the model that sampled them and the reference.
func (r *rollouts) logProbs(ctx context.Context) error {
	at := 0
	for _, b := range r.batches() {
		old, err := r.s.LogProbs(ctx, b, false)
		if err != nil {
			return err
		}
		var reference []float32
		if r.referred() {
			if reference, err = r.s.LogProbs(ctx, b, true); err != nil {
				return err
			}
		}
		for row := range b.Rows {
			a := &r.state.Answers[at+row]
			a.Old = b.Answer(row, old)
			if reference != nil {
				a.Reference = b.Answer(row, reference)
			}
		}
		at += b.Rows
	}
	return nil
}

// divergences is Σ log p − log p₀ of each answer.
func (r *rollouts) divergences() []float64 {
	out := make([]float64, len(r.state.Answers))
	for i, a := range r.state.Answers {
		for k := range a.Reference {
			out[i] += float64(a.Old[k]) - float64(a.Reference[k])
		}
	}
	return out
}

// batches lays the rollout into batches of the run's size.
func (r *rollouts) batches() []data.Batch {
	var out []data.Batch
	for part := range slices.Chunk(r.state.Answers, r.s.Config.BatchSize) {
		out = append(out, r.batch(part))
	}
	if r.critic != nil {
		r.critic.weigh(out)
	}
	return out
}

func (r *rollouts) batch(part []answer) data.Batch {
	prompts, ids := make([][]int32, len(part)), make([][]int32, len(part))
	for i, a := range part {
		prompts[i], ids[i] = a.Prompt, a.IDs
	}
	b := data.Answers(prompts, ids, int32(max(r.text.Tokenizer.Pad(), 0)))
	spread := func(get func(a answer) []float32) []float32 {
		out := make([]float32, len(b.Targets))
		for row, a := range part {
			b.Spread(row, get(a), out)
		}
		return out
	}
	b.Extra = map[string]any{
		"old": spread(func(a answer) []float32 { return a.Old }), "reference": spread(func(a answer) []float32 { return a.Reference }),
	}
	if r.critic != nil {
		b.Extra["advantage"] = spread(func(a answer) []float32 { return a.Advantages })
		returns, values := make([]float32, len(b.Targets)), make([]float32, len(b.Targets))
		for row, a := range part {
			for name, v := range map[*[]float32][]float32{&returns: a.Returns, &values: a.Values} {
				if n := len(a.IDs); len(v) > n { // one more than the answer has tokens
					b.Spread(row, v[:n], *name)
					(*name)[lastTarget(b, row)+1] = v[n]
				}
			}
		}
		b.Extra["return"], b.Extra["value"] = returns, values
		return b
	}
	advantage, sampled := make([]float32, len(part)), float32(0)
	for i, a := range part {
		advantage[i] = a.Advantage
	}
	if r.o.Passes > 1 { // else the answers are the trained model's own, and the ratio is exactly 1
		sampled = 1
	}
	b.Extra["advantage"], b.Extra["sampled"] = advantage, []float32{sampled}
	return b
}
