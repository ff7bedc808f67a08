package methods

import (
	"fmt"
	"slices"

	"tunesmith/data"
	"tunesmith/graph"
	"tunesmith/judge"
	"tunesmith/objective"
	"tunesmith/tune"
)

// RLHF learns from rewards. Its stage reward makes a reward model of pairs of answers; the other stages let the model
// answer, reward the answers, and raise the probability of those that are better than expected, held near the model as
// it was by a penalty on the divergence from it.
//
//	reward: loss = −log σ(r(better) − r(worse) − margin)
//	grpo:   loss = −min(ρA, clip(ρ)A) + β·KL per token, A = (reward − mean) / deviation over the answers to a prompt
//	rloo:   the same for whole answers, A = reward − mean of the other answers' rewards
//	ppo:    the same per token, A from a value model trained beside
//
// Ouyang et al. 2022 (arXiv 2203.02155); Schulman et al. 2017 (1707.06347); Shao et al. 2024 (2402.03300); Ahmadian et al.
// 2024 (2402.14740). It finds whatever the reward overlooks: watch a second reward, the divergence and the lengths, and
// stop where they part.
type RLHF struct {
	Stage         string       `yaml:"stage" doc:"what is trained: a reward model, or the model that answers, by one of four ways" enum:"reward,ppo,grpo,rloo,reinforce"`
	Centre        float64      `yaml:"center_rewards" doc:"reward: factor of (sum of the rewards)², which keeps them near 0" min:"0"`
	SoftLabels    bool         `yaml:"soft_labels" doc:"reward: take the probability that a pair states rather than certainty"`
	Rewards       []judge.Rule `yaml:"rewards" doc:"what an answer is rewarded for; their weighted sum is its reward"`
	Watch         []judge.Rule `yaml:"watch" doc:"rewards that are measured and not trained on: they part from the others where those are cheated"`
	Group         int          `yaml:"generations" doc:"answers to each prompt" min:"2"`
	MaxTokens     int          `yaml:"max_tokens" doc:"longest answer" min:"1"`
	Heat          float64      `yaml:"temperature" doc:"of the sampling, and of the probabilities" above:"0"`
	Passes        int          `yaml:"passes" doc:"times that the answers are learned from before new ones are sampled" min:"1"`
	Kind          string       `yaml:"loss" doc:"grpo: how token losses are weighed and added" enum:"grpo,bnpo,dr_grpo,dapo,cispo,sapo,luspo,vespo"`
	Beta          float64      `yaml:"beta" doc:"weight of the divergence from the reference" min:"0"`
	Target        float64      `yaml:"target_kl" doc:"divergence an answer that beta is steered to; 0 leaves beta as it is" min:"0"`
	Clip          float64      `yaml:"clip" doc:"how far the ratio to the old probability may fall below 1" above:"0" below:"1"`
	ClipHigh      float64      `yaml:"clip_high" doc:"how far it may rise above 1; 0 is as far as it may fall" min:"0"`
	Sequence      bool         `yaml:"sequence_ratio" doc:"ratios of whole answers rather than of tokens (GSPO)"`
	Scale         string       `yaml:"scale_rewards" doc:"grpo: deviation that advantages are divided by" enum:"group,batch,none"`
	Whiten        bool         `yaml:"normalise_advantages" doc:"rloo: give the advantages of a batch mean 0 and deviation 1"`
	Gamma         float64      `yaml:"gamma" doc:"ppo: discount of what comes later" above:"0" max:"1"`
	Lambda        float64      `yaml:"lambda" doc:"ppo: of the advantage estimate" min:"0" max:"1"`
	ValueClip     float64      `yaml:"value_clip" doc:"ppo: how far a value may move in a rollout" above:"0"`
	ValueWeight   float64      `yaml:"value_weight" doc:"ppo: factor of the value model's loss" above:"0"`
	MissingEnd    float64      `yaml:"missing_end_penalty" doc:"ppo: taken from the reward of an answer that does not end" min:"0"`
	WhitenRewards bool         `yaml:"whiten_rewards" doc:"ppo: give the rewards deviation 1"`
	CubicKL       bool         `yaml:"k3" doc:"ppo: estimate the divergence by k3 rather than k1"`
	StopKL        float64      `yaml:"stop_kl" doc:"divergence an answer at which the run stops; 0 is no limit" min:"0"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ObjectiveAxis, Name: "rlhf", Rate: 1e-4,
		Doc: "learns from rewards: a reward model of pairs, or the answers that a reward likes",
		New: func() any {
			return &RLHF{
				Gamma: 1, Lambda: 0.95, ValueClip: 0.2, ValueWeight: 0.1,
				Stage: "grpo", Group: 8, MaxTokens: 64, Heat: 1, Passes: 1, Kind: "dapo", Clip: 0.2, Scale: "group",
				Rewards: []judge.Rule{{Kind: "exact", Weight: 1}},
			}
		},
	})
}

// Head implements tune.Header: a reward model has one output.
func (o *RLHF) Head() int {
	if o.Stage == "reward" {
		return 1
	}
	return 0
}

// Renderer implements tune.Objective.
func (o *RLHF) Renderer(t tune.Text) (data.Renderer, error) {
	r := data.Rendering{Tokenizer: t.Tokenizer, Template: t.Template}
	if o.Stage == "reward" {
		return data.Compared{Rendering: r, Certain: !o.SoftLabels}, nil
	}
	if err := judge.CheckRules(append(slices.Clone(o.Rewards), o.Watch...)); err != nil {
		return nil, fmt.Errorf("rewards: %w", err)
	}
	return data.Asked{Rendering: r}, nil
}

// Count implements tune.Counter.
func (o *RLHF) Count(b data.Batch) float64 {
	if o.Stage == "reward" {
		return float64(b.Rows / 2)
	}
	if o.Stage == "ppo" {
		return share(b, "weight")
	}
	tokens := 0
	for _, t := range b.Targets {
		if t >= 0 {
			tokens++
		}
	}
	return o.policy().Count(b.Rows, float64(tokens))
}

// Measures implements tune.Measurer.
func (o *RLHF) Measures() []tune.Measure {
	if o.Stage == "reward" {
		return []tune.Measure{
			{Name: "accuracy", Title: "preference accuracy", Better: "up", Share: true},
			{Name: "brier", Title: "Brier score", Better: "down"},
		}
	}
	return []tune.Measure{{Name: "reward", Title: "reward", Better: "up"}}
}

// policy is the options as package objective takes them.
func (o *RLHF) policy() objective.Policy {
	p := objective.Policy{
		Name: o.Kind, Beta: float32(o.Beta), Low: float32(o.Clip), High: float32(o.ClipHigh), Sequence: o.Sequence, MaxLength: o.MaxTokens,
	}
	if o.Stage == "rloo" || o.Stage == "reinforce" {
		p.Name, p.Beta = "rloo", 0 // the divergence is part of the reward
	}
	if p.High == 0 {
		p.High = p.Low
	}
	return p
}

// grouping says how rewards become advantages.
func (o *RLHF) grouping() objective.Grouping {
	g := objective.Grouping{Group: o.Group, Scale: o.Scale}
	if o.Stage == "rloo" || o.Stage == "reinforce" {
		g.Scale, g.LeaveOut, g.Whiten = "none", o.Stage == "rloo", o.Whiten
	}
	for _, r := range o.Rewards {
		g.Weights = append(g.Weights, r.Weight)
	}
	return g
}

// Feeds implements tune.Feeder.
func (o *RLHF) Feeds(b data.Batch) map[string]any {
	if o.Stage == "reward" {
		out := map[string]any{"label": b.Labels, "margin": b.Margins, "last": lastTokens(b)}
		return out
	}
	mask := make([]float32, len(b.Targets))
	for i, t := range b.Targets {
		if t >= 0 {
			mask[i] = 1
		}
	}
	out := map[string]any{"mask": mask}
	if _, ok := b.Extra["advantage"]; !ok { // rows that nothing is said of are good and bad in turn
		advantage := make([]float32, b.Rows)
		for i := range advantage {
			advantage[i] = float32(1 - 2*(i%2))
		}
		out["advantage"], out["old"], out["sampled"] = advantage, make([]float32, len(mask)), []float32{0}
		out["reference"] = make([]float32, len(mask))
	}
	return out
}

// lastTokens are the places of the last tokens of the rows.
func lastTokens(b data.Batch) []int32 {
	out := make([]int32, b.Rows)
	for r := range out {
		out[r] = int32(r * b.Cols)
		for c := r * b.Cols; c < (r+1)*b.Cols; c++ {
			if b.Segments[c] >= 0 {
				out[r] = int32(c)
			}
		}
	}
	return out
}

// Loss implements tune.Objective.
func (o *RLHF) Loss(f tune.Forward) *graph.Node {
	switch o.Stage {
	case "reward":
		return o.pairLoss(f)
	case "ppo":
		return ppoPolicy{o.ppo(), o.Heat}.Loss(f)
	}
	return o.policyLoss(f)
}
