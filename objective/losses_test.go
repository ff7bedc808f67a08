package objective

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"tunesmith/graph"
	"tunesmith/internal/golden"
)

// TestGoldenKTO checks the losses of single labelled answers.
func TestGoldenKTO(t *testing.T) {
	var cases []struct {
		Name, Inputs string
		Beta         maybe
		Loss         number
		LossType     string `json:"loss_type"`
		Desirable    maybe  `json:"desirable_weight"`
		Undesirable  maybe  `json:"undesirable_weight"`
		Label        []float32
		Metrics      map[string]number
	}
	all := load(t, "kto_losses", &cases)
	for _, c := range cases {
		t.Run(c.Name+"/"+c.Inputs, func(t *testing.T) {
			o := KTO{Beta: c.Beta.or(0.1), Desirable: c.Desirable.or(1), Undesirable: c.Undesirable.or(1), WithoutKL: c.LossType == "apo_zero_unpaired"}
			mask := shifted(all[c.Inputs+"/completion_mask"])
			loss, out := evaluate(t, all, func(b *bench) *graph.Node {
				ratio := func(policy, reference *graph.Node) *graph.Node {
					return Answers{LogProbsBT: policy, ReferenceBT: reference}.Ratio()
				}
				x := ratio(b.trained(c.Inputs+"/policy_logps"), b.given(c.Inputs+"/ref_logps"))
				kl := ratio(b.given(c.Inputs+"/policy_kl_logps"), b.given(c.Inputs+"/ref_kl_logps"))
				b.Output("kl", KTODivergence(kl))
				return graph.Mean(o.Loss(x, b.Floats(c.Label, len(c.Label)), kl))
			})
			sameLoss(t, "loss", loss, float64(c.Loss), bound)
			sameAll(t, "gradient", out["grad "+c.Inputs+"/policy_logps"], all[c.Inputs+"/grad/"+c.Name], mask.F32, bound)
			if want, ok := c.Metrics["kl"]; ok && !o.WithoutKL {
				sameLoss(t, "divergence", float64(out["kl"][0]), float64(want), bound)
			}
		})
	}
}

// TestGoldenContrast checks the losses over pairs that need no reference.
func TestGoldenContrast(t *testing.T) {
	var cases []struct {
		Name, Inputs string
		PerExample   []number `json:"per_example"`
		Mean         number   `json:"loss_mean"`
		MeanLogOdds  maybe    `json:"mean_log_odds"`
		Config       struct {
			Beta      float32
			Smoothing float32 `json:"label_smoothing"`
			Gamma     float32 `json:"simpo_gamma"`
			Alpha     float32
			LossType  string `json:"loss_type"`
		}
	}
	all := load(t, "cpo_orpo_losses", &cases)
	for _, c := range cases {
		t.Run(c.Name+"/"+c.Inputs, func(t *testing.T) {
			loss, out := evaluate(t, all, func(b *bench) *graph.Node {
				chosen, rejected := b.trained(c.Inputs+"/chosen"), b.trained(c.Inputs+"/rejected")
				var each *graph.Node
				if c.Config.LossType != "" {
					o := Contrast{Name: c.Config.LossType, Beta: c.Config.Beta, Smoothing: c.Config.Smoothing, Gamma: c.Config.Gamma, Alpha: c.Config.Alpha}
					each = o.Loss(chosen, rejected)
				} else { // the case holds what is subtracted from the likelihood's loss
					b.Output("odds", graph.Mean(LogOdds(chosen, rejected)))
					each = graph.Scale(OddsRatio(chosen, rejected), -c.Config.Beta)
				}
				b.Output("each", each)
				return graph.Mean(each)
			})
			sameLoss(t, "loss", loss, float64(c.Mean), bound)
			for i, want := range c.PerExample {
				sameLoss(t, fmt.Sprintf("pair %d", i), float64(out["each"][i]), float64(want), bound)
			}
			if c.MeanLogOdds.set {
				sameLoss(t, "log odds", float64(out["odds"][0]), float64(c.MeanLogOdds.number), bound)
			}
			for _, side := range []string{"chosen", "rejected"} {
				sameAll(t, "gradient of "+side, out["grad "+c.Inputs+"/"+side], all["grad/"+c.Name+"/"+c.Inputs+"/"+side], nil, bound)
			}
		})
	}
}

// TestGoldenReward checks the losses of reward models.
func TestGoldenReward(t *testing.T) {
	var cases []struct {
		Name, Inputs string
		Margin       bool
		Centre       *float32 `json:"center_rewards_coefficient"`
		Loss         number
	}
	all := load(t, "reward_losses", &cases)
	for _, c := range cases {
		t.Run(c.Name+"/"+c.Inputs, func(t *testing.T) {
			var o BradleyTerry
			if c.Centre != nil {
				o.Centre = *c.Centre
			}
			loss, out := evaluate(t, all, func(b *bench) *graph.Node {
				r := b.trained(c.Inputs + "/rewards")
				n := r.Dim(0) / 2
				var margin *graph.Node
				if c.Margin {
					margin = b.given(c.Inputs + "/margin")
				}
				return graph.Mean(o.Loss(graph.SliceAxis(r, 0, 0, n), graph.SliceAxis(r, 0, n, 2*n), margin, nil))
			})
			sameLoss(t, "loss", loss, float64(c.Loss), bound)
			sameAll(t, "gradient", out["grad "+c.Inputs+"/rewards"], all[c.Inputs+"/grad/"+c.Name], nil, bound)
		})
	}
}

// TestGoldenDistil checks the divergences from a teacher.
func TestGoldenDistil(t *testing.T) {
	var cases []struct {
		Name        string
		Beta        float32
		Temperature float32
		Reduction   string
		Items       *float64 `json:"num_items_in_batch"`
		UseLabels   bool     `json:"use_labels"`
		Loss        number
	}
	all := load(t, "gkd_losses", &cases)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			shape := all["student_logits"].Shape
			weights := make([]float32, shape[0]*shape[1])
			var tokens float64
			for i, l := range all["labels"].I32 {
				if l >= 0 || !c.UseLabels {
					weights[i] = 1
					tokens++
				}
			}
			count := 1.0
			switch {
			case c.Items != nil:
				count = *c.Items
			case c.Reduction == "batchmean" && c.UseLabels:
				count = tokens
			case c.Reduction == "batchmean":
				count = float64(shape[0])
			case c.Reduction == "mean":
				count = tokens * float64(shape[2])
			}
			loss, out := evaluate(t, all, func(b *bench) *graph.Node {
				each := Distil(b.trained("student_logits"), b.given("teacher_logits"), c.Beta, c.Temperature)
				sum := graph.Sum(graph.Times(each, b.Floats(weights, shape[0], shape[1])))
				return graph.Scale(sum, float32(1/count))
			})
			sameLoss(t, "loss", loss, float64(c.Loss), bound)
			if want, ok := all["grad/"+c.Name]; ok {
				sameAll(t, "gradient", out["grad student_logits"], want, nil, bound)
			}
		})
	}
}

type policyCase struct {
	Name       string
	LossType   string `json:"loss_type"`
	Beta       float32
	Low        float32  `json:"epsilon_low"`
	High       float32  `json:"epsilon_high"`
	Level      string   `json:"importance_sampling_level"`
	Delta      *float32 `json:"delta"`
	MaxLength  int      `json:"max_completion_length"`
	Quantile   *float64 `json:"top_entropy_quantile"`
	OffPolicy  *float32 `json:"off_policy_mask_threshold"`
	UnbiasedKL bool     `json:"use_bias_correction_kl"`
	Accum      float64
	Items      float64 `json:"num_items_in_batch"`
	Entropy    float32 `json:"entropy_coef"`
	ToolMask   bool    `json:"tool_mask"`
	OnPolicy   bool    `json:"on_policy"`
	Old        string  // rloo: on or off
	Loss       number
}

func (c policyCase) options() Policy {
	o := Policy{
		Name: c.LossType, Beta: c.Beta, Low: c.Low, High: c.High, Sequence: c.Level == "sequence", MaxLength: c.MaxLength,
		UnbiasedKL: c.UnbiasedKL, EntropyBonus: c.Entropy,
	}
	if c.Delta != nil {
		o.Delta = *c.Delta
	}
	if c.OffPolicy != nil {
		o.OffPolicy = *c.OffPolicy
	}
	return o
}

// TestGoldenPolicy checks the losses of GRPO's family and of RLOO.
func TestGoldenPolicy(t *testing.T) {
	var cases []policyCase
	all := load(t, "grpo_rloo_losses", &cases)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			o := c.options()
			mask := floats(all["completion_mask"])
			var tokens float64
			for i := range mask {
				if c.ToolMask {
					mask[i] *= float32(all["tool_mask"].I32[i])
				}
				tokens += float64(mask[i])
			}
			shape := all["completion_mask"].Shape
			count := o.Count(shape[0], tokens)
			switch c.LossType {
			case "dapo", "cispo", "vespo":
				count = c.Items
			case "rloo":
			default:
				count *= c.Accum
			}
			loss, out := evaluate(t, all, func(b *bench) *graph.Node {
				r := Rollout{LogProbsBT: b.trained("logps"), MaskBT: b.Floats(mask, shape...), AdvantageB: b.given("advantages"), ReferenceBT: b.given("ref_logps")}
				switch {
				case c.LossType == "rloo":
					old := make([]float32, len(mask))
					for i, v := range all["rloo_old_logps/"+c.Old].F32 {
						old[i*shape[1]] = v // the sum of a row, at its first token
					}
					r.OldBT = b.Floats(old, shape...)
				case !c.OnPolicy:
					r.OldBT = b.given("old_logps")
				}
				if c.Entropy != 0 {
					r.EntropyBT = b.trained("entropies")
				}
				if c.Quantile != nil && *c.Quantile < 1 {
					r.KeepBT = b.Floats(TopEntropy(all["entropies"].F32, mask, *c.Quantile), shape...)
				}
				return graph.Scale(o.Loss(r), float32(1/count))
			})
			sameLoss(t, "loss", loss, float64(c.Loss), bound)
			sameAll(t, "gradient", out["grad logps"], all["grad/"+c.Name], nil, bound)
			if want, ok := all["grad_entropy/"+c.Name]; ok {
				sameAll(t, "gradient of the entropies", out["grad entropies"], want, nil, bound)
			}
		})
	}
}

// TestGoldenSoftLabel checks the loss of pairs of which the better one is not certain.
func TestGoldenSoftLabel(t *testing.T) {
	var file struct {
		Cases []struct {
			Beta     float32
			Delta    float32
			P        float32
			Loss     float64
			Gradient float64 `json:"grad_delta"`
			Clamped  float64 `json:"loss_clamped_04_06"`
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "rlaif"), "soft_label.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no case")
	}
	for i, c := range file.Cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			values := map[string]golden.Tensor{"delta": {Shape: []int{1}, F32: []float32{c.Delta}}}
			loss, out := evaluate(t, values, func(b *bench) *graph.Node {
				x := graph.Scale(b.trained("delta"), c.Beta)
				p := b.Floats([]float32{c.P}, 1)
				b.Output("clamped", SoftLogistic(x, graph.Bound(p, 0.4, 0.6)))
				return graph.Sum(SoftLogistic(x, p))
			})
			sameLoss(t, "loss of the clamped label", float64(out["clamped"][0]), c.Clamped, bound)
			sameLoss(t, "loss", loss, c.Loss, bound)
			sameLoss(t, "gradient", float64(out["grad delta"][0]), c.Gradient, bound)
		})
	}
}

// TestGoldenAdvantages checks every table of rewards.
func TestGoldenAdvantages(t *testing.T) {
	var file struct {
		Advantages []struct {
			Table, Trainer string
			Weights        []float64 `json:"reward_weights"`
			Group          int       `json:"num_generations"`
			Rewards        [][]*float64
			Want           []float64 `json:"advantages_in_reward_order"`
			Config         struct {
				Scale       string    `json:"scale_rewards"`
				Aggregation string    `json:"multi_objective_aggregation"`
				Normalize   bool      `json:"normalize_advantages"`
				Clip        []float64 `json:"reward_clip_range"`
			}
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "objectives"), "grpo_rloo_run.json"), &file)
	if len(file.Advantages) == 0 {
		t.Fatal("no table")
	}
	for i, c := range file.Advantages {
		t.Run(fmt.Sprintf("%d/%s/%s", i, c.Table, c.Trainer), func(t *testing.T) {
			o := Grouping{
				Group: c.Group, Weights: c.Weights, Scale: c.Config.Scale, EachFirst: c.Config.Aggregation == "normalize_then_sum",
				LeaveOut: c.Trainer == "rloo", Clamp: c.Config.Clip, Whiten: c.Config.Normalize,
			}
			var rewards [][]float64
			for _, row := range c.Rewards {
				var r []float64
				for _, x := range row {
					if x == nil {
						r = append(r, math.NaN())
					} else {
						r = append(r, *x)
					}
				}
				rewards = append(rewards, r)
			}
			for k, have := range o.Advantages(rewards) {
				sameLoss(t, fmt.Sprintf("answer %d", k), have, c.Want[k], bound)
			}
		})
	}
}
