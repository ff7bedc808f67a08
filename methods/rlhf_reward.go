package methods

import (
	"context"
	"fmt"
	"math"
	"slices"

	"tunesmith/data"
	"tunesmith/generate"
	"tunesmith/judge"
	"tunesmith/runs"
)

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
