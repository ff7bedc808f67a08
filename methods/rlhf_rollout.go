package methods

import (
	"context"
	"encoding/json"
	"fmt"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/generate"
	"tunesmith/judge"
	"tunesmith/objective"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// rollouts samples answers with the weights as they are, rewards them, and gives the batches to learn from them. It
// implements trainer.Source.
type rollouts struct {
	o      *RLHF
	s      *trainer.Session
	text   tune.Text
	gen    *generate.Generator
	scorer *judge.Scorer
	watch  *judge.Scorer
	critic *critic // of ppo
	state  rolloutState
}

// rolloutState is all that a run needs to go on with the same bits.
type rolloutState struct {
	Answers []answer           `json:"answers"` // of the current rollout; none between rollouts
	Values  map[string]float64 `json:"values"`
	Number  int                `json:"number"` // of the rollout, which seeds its sampling
	Step    int                `json:"step"`   // steps made on it
	Beta    float64            `json:"beta"`
	Began   map[string]float64 `json:"began"` // rewards of the first rollout
	Loader  data.State         `json:"loader"`
}

// answer is a sampled answer with all that a step learns from.
type answer struct {
	Prompt    []int32   `json:"prompt"`
	IDs       []int32   `json:"ids"` // with the token that ended it
	Ended     bool      `json:"ended"`
	Old       []float32 `json:"old"`
	Reference []float32 `json:"reference,omitempty"`
	Advantage float32   `json:"advantage"`
	// Of ppo, a value a token.
	Advantages []float32 `json:"advantages,omitempty"`
	Returns    []float32 `json:"returns,omitempty"`
	Values     []float32 `json:"values,omitempty"`

	expected string
}

// Samples implements trainer.Sampled.
func (o *RLHF) Samples() bool { return o.Stage != "reward" }

// Room implements trainer.Sampled.
func (o *RLHF) Room() int { return o.MaxTokens + 1 }

// Prompts implements trainer.Sampled.
func (o *RLHF) Prompts(rows int) (prompts, steps int, err error) {
	if rows%o.group() != 0 {
		return 0, 0, fmt.Errorf("generations: want a divisor of batch_size × gradient_accumulation = %d, have %d", rows, o.group())
	}
	if o.Target > 0 && o.Stage == "grpo" {
		return 0, 0, fmt.Errorf("target_kl: grpo has its divergence in the loss, where beta stays as it is; choose another stage, or set beta alone")
	}
	return rows / o.group(), o.Passes, nil
}

// group is the number of answers to a prompt.
func (o *RLHF) group() int {
	if o.Stage == "ppo" {
		return 1
	}
	return o.Group
}

// Temperature implements tune.Tempered.
func (o *RLHF) Temperature() float64 { return o.Heat }

// Open implements trainer.Sampled.
func (o *RLHF) Open(s *trainer.Session) (trainer.Source, error) {
	r := &rollouts{o: o, s: s, text: s.Text, gen: generate.New(s.Model, s.Backend), state: rolloutState{Beta: o.Beta}}
	var err error
	if r.scorer, err = judge.NewScorer(o.Rewards); err != nil {
		return nil, fmt.Errorf("rewards: %w", err)
	}
	if r.watch, err = judge.NewScorer(o.Watch); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if o.Stage == "ppo" {
		r.critic, err = newCritic(o, s)
	}
	return r, err
}

// Next implements trainer.Source.
func (r *rollouts) Next(ctx context.Context) ([]data.Batch, error) {
	if len(r.state.Answers) == 0 {
		before := r.s.Loader.State()
		if err := r.sample(ctx); err != nil {
			r.state.Answers = nil
			return nil, joinRestore(err, r.s.Loader.Restore(before))
		}
	}
	return r.batches(), nil
}

func joinRestore(err, restore error) error {
	if restore != nil {
		return fmt.Errorf("%w; and %w", err, restore)
	}
	return err
}

// Done implements trainer.Source.
func (r *rollouts) Done(ctx context.Context, step *trainer.StepResult) error {
	if r.critic != nil {
		if err := r.critic.step(ctx, r.batches(), step); err != nil {
			return err
		}
	}
	for name, v := range r.state.Values {
		step.Values[name] = v
	}
	if r.state.Step++; r.state.Step < r.o.Passes {
		return nil
	}
	kl := r.state.Values["kl"]
	if r.o.Target > 0 {
		const horizon = 10000
		r.state.Beta = objective.AdaptKL(r.state.Beta, kl, r.o.Target, len(r.state.Answers), horizon)
	}
	r.state.Answers, r.state.Step = nil, 0
	r.state.Number++
	if r.o.StopKL > 0 && kl > r.o.StopKL {
		return fmt.Errorf("the divergence from the reference is %.2f an answer, above stop_kl %.2f: %w", kl, r.o.StopKL, trainer.ErrEnough)
	}
	return nil
}

// sample makes the next rollout.
func (r *rollouts) sample(ctx context.Context) error {
	step, err := r.s.Loader.Next()
	if err != nil {
		return err
	}
	var prompts []answer
	for _, b := range step {
		prompts = append(prompts, r.prompts(b)...)
	}
	var all []answer
	for _, p := range prompts {
		for range r.o.group() {
			all = append(all, p)
		}
	}
	seed := r.s.Config.Seed ^ (uint64(r.state.Number)+1)*0x9e3779b97f4a7c15
	if err := r.answers(ctx, all, generate.Options{Seed: seed, Sampling: generate.Sampling{Temperature: r.o.Heat}}); err != nil {
		return err
	}
	scores, watched, err := r.reward(ctx, all)
	if err != nil {
		return err
	}
	r.state.Answers = all
	if err := r.logProbs(ctx); err != nil {
		return err
	}
	r.state.Values = r.describe(scores, watched)
	r.state.Loader = r.s.Loader.State()
	return r.learnable(ctx, scores)
}

// prompts takes the prompts and the expected answers out of a batch.
func (r *rollouts) prompts(b data.Batch) []answer {
	var out []answer
	for row := range b.Rows {
		var a answer
		var expected []int
		for c := row * b.Cols; c < (row+1)*b.Cols && b.Segments[c] >= 0; c++ {
			if len(expected) == 0 && (c == row*b.Cols || b.Targets[c-1] < 0) {
				a.Prompt = append(a.Prompt, b.IDs[c])
			} else {
				expected = append(expected, int(b.IDs[c]))
			}
		}
		a.expected = r.text.Tokenizer.Decode(expected, true)
		out = append(out, a)
	}
	return out
}

// answers fills in the answers to the prompts.
func (r *rollouts) answers(ctx context.Context, all []answer, o generate.Options) error {
	prompts := make([][]int, len(all))
	for i, a := range all {
		for _, id := range a.Prompt {
			prompts[i] = append(prompts[i], int(id))
		}
	}
	o.MaxTokens, o.Stop = r.o.MaxTokens, r.text.Stops()
	results, err := r.gen.Generate(ctx, prompts, o)
	if err != nil {
		return err
	}
	for i, res := range results {
		ids := res.IDs
		if res.Why == generate.Stopped {
			ids, all[i].Ended = append(ids, res.End), true
		}
		for _, id := range ids {
			all[i].IDs = append(all[i].IDs, int32(id))
		}
	}
	return nil
}

func (r *rollouts) decode(ids []int32) string {
	wide := make([]int, len(ids))
	for i, id := range ids {
		wide[i] = int(id)
	}
	return r.text.Tokenizer.Decode(wide, true)
}

// referred reports whether the divergence from the reference is needed.
func (r *rollouts) referred() bool {
	return r.o.Beta > 0 || r.o.Target > 0 || r.o.StopKL > 0
}

// Save implements trainer.Source.
func (r *rollouts) Save(s *checkpoint.State) error {
	text, err := json.Marshal(r.state)
	if err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	s.Meta["rollout"] = text
	if r.critic != nil {
		return r.critic.Tensors(criticPrefix, s)
	}
	return nil
}

// Restore implements trainer.Source.
func (r *rollouts) Restore(s checkpoint.State) error {
	var state rolloutState
	if err := json.Unmarshal(s.Meta["rollout"], &state); err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	r.state = state
	if r.critic != nil {
		if err := r.critic.RestoreTensors(criticPrefix, s); err != nil {
			return err
		}
	}
	if len(state.Answers) == 0 {
		return nil
	}
	return r.s.Loader.Restore(state.Loader)
}
