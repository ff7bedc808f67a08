package methods

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/generate"
	"tunesmith/judge"
	"tunesmith/objective"
	"tunesmith/runs"
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

// reward scores the answers: what each rule says of each, and what the watched rules say.
func (r *rollouts) reward(ctx context.Context, all []answer) (scores, watched [][]float64, err error) {
	scores, watched = make([][]float64, len(r.o.Rewards)), make([][]float64, len(r.o.Watch))
	for i, a := range all {
		c := judge.Case{Prompt: r.decode(a.Prompt), Answer: r.decode(a.IDs), Expected: a.expected}
		for _, side := range []struct {
			scorer *judge.Scorer
			out    [][]float64
		}{{r.scorer, scores}, {r.watch, watched}} {
			v, err := side.scorer.Score(ctx, c)
			if err != nil {
				return nil, nil, fmt.Errorf("answer %d: %w", i+1, err)
			}
			for f := range v {
				side.out[f] = append(side.out[f], v[f])
			}
		}
	}
	return scores, watched, nil
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

// learnable turns scores into advantages.
func (r *rollouts) learnable(ctx context.Context, scores [][]float64) error {
	all := r.state.Answers
	if r.critic != nil {
		totals := make([]float64, len(all))
		for i := range all {
			totals[i] = total(r.o.Rewards, scores, i)
		}
		return r.critic.advantages(ctx, r, totals)
	}
	g := r.o.grouping()
	if r.o.Stage != "grpo" && r.state.Beta > 0 { // the divergence is taken from the reward
		penalty := r.divergences()
		for i := range penalty {
			penalty[i] *= -r.state.Beta
		}
		scores, g.Weights = append(slices.Clone(scores), penalty), append(slices.Clone(g.Weights), 1)
	}
	if r.o.Stage == "reinforce" {
		g.Group = len(all)
	}
	for i, a := range g.Advantages(scores) {
		all[i].Advantage = float32(a)
	}
	return nil
}

func total(rules []judge.Rule, scores [][]float64, i int) float64 {
	var sum float64
	for f, rule := range rules {
		sum += rule.Weight * scores[f][i]
	}
	return sum
}

// describe makes the metrics of a rollout.
func (r *rollouts) describe(scores, watched [][]float64) map[string]float64 {
	all := r.state.Answers
	n := float64(len(all))
	v := map[string]float64{}
	for i, a := range all {
		v["reward"] += total(r.o.Rewards, scores, i) / n
		v["length"] += float64(len(a.IDs)) / n
		v["repetition"] += repetition(a.IDs) / n
		if a.Ended {
			v["ended"] += 1 / n
		}
	}
	for f, name := range judge.Names(r.o.Rewards) {
		v["reward/"+name] = mean(scores[f])
	}
	for f, name := range judge.Names(r.o.Watch) {
		v["watch/"+name] = mean(watched[f])
	}
	if r.referred() {
		v["kl"] = mean(r.divergences())
		v["beta"] = r.state.Beta
	}
	if r.state.Began == nil {
		r.state.Began = v
	}
	// Rewards that rise while what is watched falls are being cheated.
	for f, name := range judge.Names(r.o.Watch) {
		lost := r.o.Watch[f].Weight * (r.state.Began["watch/"+name] - v["watch/"+name])
		if gained := v["reward"] - r.state.Began["reward"]; lost > parted && gained > parted {
			v["parted"] = math.Max(v["parted"], lost)
		}
	}
	return v
}

// parted is how far a reward has to rise and a watched one to fall for a warning.
const parted = 0.1

// Warn implements tune.Watcher.
func (o *RLHF) Warn(values map[string]float64) string {
	switch {
	case values["parted"] > 0:
		return fmt.Sprintf("the reward rises while a watched one has fallen by %.2f: the reward is being cheated; stop here, raise beta, or mend the reward", values["parted"])
	case values["repetition"] > 0.5:
		return fmt.Sprintf("%.0f %% of the answers is repetition: lower the learning rate or raise beta", 100*values["repetition"])
	}
	return ""
}

// repetition is the share of tokens that repeat a run of four that stands before.
func repetition(ids []int32) float64 {
	const run = 4
	if len(ids) < 2*run {
		return 0
	}
	seen, again := map[[run]int32]bool{}, 0
	for i := 0; i+run <= len(ids); i++ {
		key := [run]int32(ids[i : i+run])
		if seen[key] {
			again++
		}
		seen[key] = true
	}
	return float64(again) / float64(len(ids)-run+1)
}

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(max(1, len(x)))
}

// Evaluate implements trainer.Source: greedy answers to the prompts that are held out, rewarded. The loss is minus the
// reward.
func (r *rollouts) Evaluate(ctx context.Context) (map[string]float64, error) {
	out := map[string]float64{}
	n := min(r.s.Held.Len(), r.s.Config.Eval.Most)
	if n == 0 {
		return out, nil
	}
	const rows = 16
	var all []answer
	for at := 0; at < n; at += rows {
		var part []answer
		for i := at; i < min(at+rows, n); i++ {
			e, err := r.s.Held.Example(i)
			if err != nil {
				return nil, err
			}
			part = append(part, r.prompt(e))
		}
		if err := r.answers(ctx, part, generate.Options{}); err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	scores, watched, err := r.reward(ctx, all)
	if err != nil {
		return nil, err
	}
	var reward float64
	for i := range all {
		reward += total(r.o.Rewards, scores, i) / float64(n)
	}
	out[runs.Eval], out[runs.Eval+"/reward"] = -reward, reward
	for f, name := range judge.Names(r.o.Rewards) {
		out[runs.Eval+"/reward/"+name] = mean(scores[f])
	}
	for f, name := range judge.Names(r.o.Watch) {
		out[runs.Eval+"/watch/"+name] = mean(watched[f])
	}
	return out, nil
}

// prompt takes the prompt and the expected answer out of an example.
func (r *rollouts) prompt(e data.Example) answer {
	n := slices.Index(e.Train, true)
	if n < 0 {
		n = len(e.IDs)
	}
	return answer{Prompt: e.IDs[:n], expected: r.decode(e.IDs[n:])}
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
