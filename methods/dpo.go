package methods

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tunesmith/data"
	"tunesmith/graph"
	"tunesmith/internal/nearest"
	"tunesmith/objective"
	"tunesmith/tune"
)

// DPO learns from pairs of answers of which one is better: it raises the probability of the better one against the
// worse one, measured from where the model began, so that the reward is in the model itself and none is trained.
//
//	loss = −log σ(β·Δ),  Δ = log(p/p₀)(better) − log(p/p₀)(worse),  p₀ the model before training
//
// Rafailov et al. 2023 (arXiv 2305.18290). The other losses put another function in the place of −log σ; kto needs no
// pairs but answers that are labelled good or bad, and orpo, simpo and cpo need no p₀. It stops working where both
// answers are far from what the model writes: it then learns to make both unlikely, the worse one more so.
type DPO struct {
	Losses      []string  `yaml:"loss" doc:"loss, or several that are added: sigmoid (DPO), cdpo, ipo, hinge, …; kto, apo_zero_unpaired; orpo, simpo, cpo, cpo_hinge, cpo_ipo"`
	Weights     []float64 `yaml:"loss_weights" doc:"factors of the losses; 1 each where empty"`
	Beta        float64   `yaml:"beta" doc:"how dear it is to leave the reference" above:"0"`
	Smoothing   float64   `yaml:"label_smoothing" doc:"share of pairs that may be the wrong way round, for the losses that know it" min:"0" below:"1"`
	Divergence  string    `yaml:"divergence" doc:"how the distance from the reference counts" enum:"reverse_kl,forward_kl,js_divergence,alpha_divergence"`
	Alpha       float64   `yaml:"alpha_divergence" doc:"coefficient of alpha_divergence"`
	LongTail    float64   `yaml:"long_tail" doc:"factor of the tokens of an answer beyond the length of the shorter one (LD-DPO)" min:"0"`
	Weighting   bool      `yaml:"likelihood_weighting" doc:"pairs count as much as the model is likely to write them (WPO)"`
	Gamma       float64   `yaml:"gamma" doc:"margin of simpo" min:"0"`
	Shape       float64   `yaml:"reward_shape" doc:"shape of AlphaPO's reward, for simpo; 0 is the plain log-probability" min:"0"`
	NLL         float64   `yaml:"nll" doc:"weight of the likelihood of the better answer in cpo and simpo" min:"0"`
	Temperature float64   `yaml:"discopop_temperature" doc:"of discopop" above:"0"`
	Desirable   float64   `yaml:"desirable_weight" doc:"weight of good answers in kto" min:"0"`
	Undesirable float64   `yaml:"undesirable_weight" doc:"weight of bad answers in kto" min:"0"`
	SoftLabels  bool      `yaml:"soft_labels" doc:"take the probability that a pair states rather than certainty"`
	Online      bool      `yaml:"online_reference" doc:"compute the reference at every step rather than once before the first"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ObjectiveAxis, Name: "dpo", Rate: 5e-5,
		Doc: "learns which of two answers is better, or which answers are good",
		New: func() any {
			return &DPO{
				Losses: []string{"sigmoid"}, Beta: 0.1, Divergence: "reverse_kl", Alpha: 0.5, LongTail: 1, Gamma: 0.5, NLL: 1,
				Temperature: 0.05, Desirable: 1, Undesirable: 1,
			}
		},
	})
}

// The losses that do not compare pairs with a reference.
var (
	unpairedLosses = []string{"kto", "apo_zero_unpaired"}
	contrastLosses = []string{"orpo", "simpo", "cpo", "cpo_hinge", "cpo_ipo"}
)

func (o *DPO) unpaired() bool { return slices.Contains(unpairedLosses, o.Losses[0]) }
func (o *DPO) contrast() bool { return slices.Contains(contrastLosses, o.Losses[0]) }

// check reports what no loss can be made of.
func (o *DPO) check() error {
	alone := slices.Concat(unpairedLosses, contrastLosses)
	known := slices.Concat(alone, objective.PreferenceLosses())
	if len(o.Losses) == 0 {
		return fmt.Errorf("loss: want at least one of %s", strings.Join(known, ", "))
	}
	for _, name := range o.Losses {
		switch {
		case !slices.Contains(known, name):
			return fmt.Errorf("loss: want one of %s, have %q%s", strings.Join(known, ", "), name, nearest.Hint(name, known))
		case slices.Contains(alone, name) && len(o.Losses) > 1:
			return fmt.Errorf("loss: %s stands alone, it cannot be added to %v", name, o.Losses)
		}
	}
	if len(o.Weights) > 0 && len(o.Weights) != len(o.Losses) {
		return fmt.Errorf("loss_weights: want %d, one a loss, have %d", len(o.Losses), len(o.Weights))
	}
	if slices.Contains(alone, o.Losses[0]) {
		return nil
	}
	return o.preference().Validate()
}

// preference is the options as package objective takes them.
func (o *DPO) preference() objective.Preference {
	p := objective.Preference{
		Beta: float32(o.Beta), Smoothing: float32(o.Smoothing), Divergence: o.Divergence, Coefficient: float32(o.Alpha),
		Temperature: float32(o.Temperature), Weighting: o.Weighting,
	}
	for i, name := range o.Losses {
		t := objective.Term{Name: name, Weight: 1}
		if len(o.Weights) > 0 {
			t.Weight = float32(o.Weights[i])
		}
		p.Terms = append(p.Terms, t)
	}
	return p
}

// Renderer implements tune.Objective.
func (o *DPO) Renderer(t tune.Text) (data.Renderer, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := data.Rendering{Tokenizer: t.Tokenizer, Template: t.Template}
	if o.unpaired() {
		return data.Judged{Rendering: r}, nil
	}
	return data.Compared{Rendering: r, Certain: !o.SoftLabels}, nil
}

// Reference implements tune.Referrer.
func (o *DPO) Reference() (needed, online bool) { return !o.contrast(), o.Online }

// Rearrange implements tune.Rearranger: kto looks at each prompt with another's answer too.
func (o *DPO) Rearrange(examples *data.Store) (*data.Store, error) {
	if o.Losses[0] != "kto" || examples.Len() == 0 {
		return examples, nil
	}
	if examples.Len() == 1 {
		return nil, errors.New("kto: want at least two examples: it compares prompts with answers to others")
	}
	return data.Mismatched(examples)
}

// Measures implements tune.Measurer.
func (o *DPO) Measures() []tune.Measure {
	if o.unpaired() {
		return []tune.Measure{{Name: "margin", Title: "reward margin", Better: "up"}}
	}
	return []tune.Measure{
		{Name: "accuracy", Title: "preference accuracy", Better: "up", Share: true},
		{Name: "margin", Title: "reward margin", Better: "up"},
	}
}

// collapse is the fall of the chosen answers' log-probability, in nats a token, that is worth a warning.
const collapse = 1

// Warn implements tune.Watcher.
func (o *DPO) Warn(values map[string]float64) string {
	if drift, ok := values["drift"]; ok && drift < -collapse {
		return fmt.Sprintf("the better answers have become less likely by %.2f nats a token, the worse ones more so: lower the learning rate, raise beta, or add sft to the losses", -drift)
	}
	return ""
}

// sequences are the rows of an example.
func (o *DPO) sequences() int {
	if o.Losses[0] == "apo_zero_unpaired" {
		return 1
	}
	return 2
}

// Count implements tune.Counter: losses are means over examples.
func (o *DPO) Count(b data.Batch) float64 { return float64(b.Rows / o.sequences()) }

// Feeds implements tune.Feeder.
func (o *DPO) Feeds(b data.Batch) map[string]any {
	mask, lengths := make([]float32, len(b.Targets)), make([]float32, b.Rows)
	for i, t := range b.Targets {
		if t >= 0 {
			mask[i] = 1
			lengths[i/b.Cols]++
		}
	}
	labels := b.Labels
	if labels == nil { // of a batch that says nothing, the first of each pair is the better one
		labels = slices.Repeat([]float32{1}, b.Rows/o.sequences())
	}
	out := map[string]any{"mask": mask, "length": lengths, "label": labels}
	if o.LongTail != 1 {
		out["tail"] = objective.LongTail(mask, b.Cols, float32(o.LongTail), func(row int) int { return row ^ 1 })
	}
	if o.Losses[0] == "orpo" {
		out["every"] = everyTarget(b)
	}
	return out
}

// Loss implements tune.Objective: the sum over the examples of a batch.
func (o *DPO) Loss(f tune.Forward) *graph.Node {
	f.Sequences = o.sequences()
	mean := o.compared
	switch {
	case o.unpaired():
		mean = o.judged
	case o.contrast():
		mean = o.contrasted
	}
	return graph.Scale(mean(f), float32(f.Rows/f.Sequences))
}
