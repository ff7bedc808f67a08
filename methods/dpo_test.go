package methods

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/data"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/trainer"
	"tunesmith/tune"
)

func newDPO(change func(o *DPO)) *DPO {
	m, _ := tune.Find(tune.ObjectiveAxis, "dpo")
	o := m.New().(*DPO)
	change(o)
	return o
}

// TestGoldenDPORun makes whole runs with LoRA, the reference being the adapter as it begins.
func TestGoldenDPORun(t *testing.T) {
	dir, runs, all := objectiveRuns(t, "dpo_run")
	for _, r := range runs {
		t.Run(r.Name, func(t *testing.T) {
			values := within(all, r.Name)
			o := newDPO(func(o *DPO) {
				o.Beta, o.LongTail = r.number("beta", 0.1), r.number("ld_alpha", 1)
				o.Losses = texts(r.Config["loss_type"])
				if w, ok := r.Config["loss_weights"].([]any); ok {
					for _, x := range w {
						o.Weights = append(o.Weights, x.(float64))
					}
				}
			})
			if err := o.check(); err != nil {
				t.Fatal(err)
			}
			m := openModel(t, filepath.Join(dir, "tiny_llama"))
			fresh := func() *model.Adapted {
				a, _ := adapt(t, m, &LoRA{Rank: int(r.number("r", 0)), Alpha: r.number("lora_alpha", 0), Targets: texts(r.Config["target"]), Bias: "none", Init: "uniform"})
				fill(t, a, values, func(p string) string { return "init/" + p })
				return a
			}
			var batches []data.Batch
			for i := range r.Micro {
				get := func(name string) golden.Tensor { return values[fmt.Sprintf("batch%d/%s", i, name)] }
				labels := labelled(get("input_ids"), get("completion_mask"))
				side := func(k int) [3]golden.Tensor {
					return [3]golden.Tensor{half(get("input_ids"), k), half(get("attention_mask"), k), half(labels, k)}
				}
				batches = append(batches, interleave(side(0), side(1)))
			}
			names := map[string]string{
				"rewards/accuracies": "accuracy", "rewards/margins": "margin", "rewards/chosen": "rewards/chosen", "rewards/rejected": "rewards/rejected",
				"logps/chosen": "logps/chosen", "logps/rejected": "logps/rejected",
			}
			trainRun(t, r, o, fresh, values, r.number("max_grad_norm", 0), batches, names)
		})
	}
}

func texts(list any) []string {
	var out []string
	for _, x := range list.([]any) {
		out = append(out, x.(string))
	}
	return out
}

// TestGoldenKTORun makes whole runs of all weights; the reference is another model.
func TestGoldenKTORun(t *testing.T) {
	dir, runs, all := objectiveRuns(t, "kto_run")
	for _, r := range runs {
		t.Run(r.Name, func(t *testing.T) {
			values := within(all, r.Name)
			o := newDPO(func(o *DPO) {
				o.Losses, o.Beta = []string{r.text("loss_type", "kto")}, r.number("beta", 0.1)
				o.Desirable, o.Undesirable = r.number("desirable_weight", 1), r.number("undesirable_weight", 1)
			})
			m, ref := openModel(t, filepath.Join(dir, "tiny_llama")), openModel(t, filepath.Join(dir, "tiny_llama_ref"))
			reference, err := ref.Adapt(1)
			if err != nil {
				t.Fatal(err)
			}
			backend := openBackend(t)
			var batches []data.Batch
			for i := range r.Micro {
				get := func(prefix string) [3]golden.Tensor {
					v := func(name string) golden.Tensor { return values[fmt.Sprintf("batch%d/%s%s", i, prefix, name)] }
					return [3]golden.Tensor{v("input_ids"), v("attention_mask"), labelled(v("input_ids"), v("completion_mask"))}
				}
				parts := [][3]golden.Tensor{get("")}
				if o.sequences() == 2 {
					parts = append(parts, get("KL_"))
				}
				b := interleave(parts...)
				for _, l := range values[fmt.Sprintf("batch%d/label", i)].I32 {
					b.Labels = append(b.Labels, float32(l))
				}
				b.Reference = targetLogProbs(t, backend, reference, b)
				batches = append(batches, b)
			}
			names := map[string]string{"rewards/chosen": "rewards/chosen", "rewards/rejected": "rewards/rejected"}
			if o.Losses[0] == "kto" {
				names["kl"] = "kl"
			}
			trainRun(t, r, o, whole(t, m), values, 0, batches, names)
		})
	}
}

// whole returns the model with all weights trained, anew at each call.
func whole(t *testing.T, m *model.Model) func() *model.Adapted {
	return func() *model.Adapted {
		a, _ := adapt(t, m, &Full{})
		return a
	}
}

// TestGoldenContrastRuns makes whole runs of the losses without a reference.
func TestGoldenContrastRuns(t *testing.T) {
	for _, file := range []string{"orpo_run", "cpo_run"} {
		dir, runs, all := objectiveRuns(t, file)
		for _, r := range runs {
			t.Run(r.Name, func(t *testing.T) {
				values := within(all, r.Name)
				o := newDPO(func(o *DPO) {
					o.Beta, o.Gamma, o.NLL = r.number("beta", 0.1), r.number("simpo_gamma", 0.5), r.number("cpo_alpha", 1)
					o.Shape, o.Smoothing = r.number("alpha", 0), r.number("label_smoothing", 0)
					o.Losses = []string{"orpo"}
					if file == "cpo_run" {
						o.Losses = []string{map[string]string{"simpo": "simpo", "sigmoid": "cpo", "hinge": "cpo_hinge", "ipo": "cpo_ipo"}[r.text("loss_type", "sigmoid")]}
					}
				})
				m := openModel(t, filepath.Join(dir, "tiny_llama"))
				var batches []data.Batch
				for i := range r.Micro {
					side := func(name string) [3]golden.Tensor {
						v := func(what string) golden.Tensor { return values[fmt.Sprintf("batch%d/%s_%s", i, name, what)] }
						return [3]golden.Tensor{v("input_ids"), v("attention_mask"), v("labels")}
					}
					batches = append(batches, interleave(side("chosen"), side("rejected")))
				}
				names := map[string]string{
					"rewards/accuracies": "accuracy", "rewards/margins": "margin", "rewards/chosen": "rewards/chosen", "rewards/rejected": "rewards/rejected",
				}
				trainRun(t, r, o, whole(t, m), values, 0, batches, names)
			})
		}
	}
}

// tinyPair is a batch of pairs for a small model, of which the halves differ.
func tinyPairs(t *testing.T) (*model.Model, data.Batch) {
	t.Helper()
	m, err := model.New(model.Config{
		Type: "llama", Hidden: 16, Intermediate: 24, Layers: 1, Heads: 2, KVHeads: 1, HeadDim: 8, Vocab: 32, MaxPositions: 64, NormEps: 1e-5,
		Activation: "silu", PadID: -1, BOS: -1, Windows: make([]int, 1),
		Rope: model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 64, MaxPositions: 64},
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := []int32{1, 2, 3, 4, 5, 6, 1, 2, 7, 8, 9, 0, 3, 1, 10, 11, 12, 13, 3, 1, 14, 15, 0, 0}
	labels := []int32{-100, -100, 3, 4, 5, 6, -100, -100, 7, 8, 9, -100, -100, -100, 10, 11, 12, 13, -100, -100, 14, 15, -100, -100}
	mask := []int32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}
	b := batchOf(4, 6, ids, labels, mask, nil, nil)
	b.Sequences, b.Labels, b.Margins = 2, []float32{1, 1}, []float32{0, 0}
	b.Tasks, b.Examples = make([]int, 4), [][]int{{0}, {0}, {1}, {1}}
	return m, b
}

func stepperOf(t *testing.T, a *model.Adapted, o tune.Objective, rate float64) *trainer.Stepper {
	t.Helper()
	opt, err := optim.New("adamw", optim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.NewStepper(trainer.StepConfig{Model: a, Backend: openBackend(t), Objective: o, Optimizer: opt, Schedule: func(int) float64 { return rate }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLossAtTheReference: a model that equals its reference has the loss that theory says, and no pair is right.
func TestLossAtTheReference(t *testing.T) {
	for name, want := range map[string]float64{
		"sigmoid": math.Ln2, "cdpo": math.Ln2, "robust": math.Ln2, "hinge": 1, "ipo": 25, "nca_pair": 2 * math.Ln2,
		"bco_pair": 2 * math.Ln2, "apo_zero": 1, "apo_down": 1, "kto": 0.5, "sppo_hard": 50,
	} {
		t.Run(name, func(t *testing.T) {
			m, b := tinyPairs(t)
			a, _ := adapt(t, m, &LoRA{Rank: 2, Alpha: 4, Targets: tune.Targets{"q_proj", "v_proj"}, Bias: "none", Init: "uniform"})
			o := newDPO(func(o *DPO) { o.Losses, o.Online = []string{name}, true })
			loss, values, err := stepperOf(t, a, o, 0).Measure(t.Context(), []data.Batch{b})
			if err != nil {
				t.Fatal(err)
			}
			nearNumber(t, "loss", loss, want, 1e-6)
			if name != "kto" && values["accuracy"] != 0 {
				t.Errorf("of equal rewards %.2f are counted as right", values["accuracy"])
			}
		})
	}
}

// TestSwappedPairs: L(Δ) − L(−Δ) = −βΔ.
func TestSwappedPairs(t *testing.T) {
	m, b := tinyPairs(t)
	a, _ := adapt(t, m, &Full{})
	reference := make([]float32, len(b.Targets))
	for i, target := range b.Targets {
		if target >= 0 {
			reference[i] = -2 - 0.1*float32(i%7)
		}
	}
	b.Reference = reference
	s := stepperOf(t, a, newDPO(func(*DPO) {}), 0)
	loss := func(label float32) (float64, float64) {
		b.Labels = []float32{label, label}
		l, values, err := s.Measure(t.Context(), []data.Batch{b})
		if err != nil {
			t.Fatal(err)
		}
		return l, values["margin"]
	}
	right, margin := loss(1)
	wrong, _ := loss(0)
	nearNumber(t, "difference of the losses", right-wrong, -margin, 1e-5)
	soft, _ := loss(0.25)
	nearNumber(t, "loss of a soft label", soft, 0.25*right+0.75*wrong, 1e-5)
}

// TestReferenceOnceOrAlways: the reference that is computed before the first step equals the one at every step.
func TestReferenceOnceOrAlways(t *testing.T) {
	var losses [2][]float64
	for i, online := range []bool{true, false} {
		m, b := tinyPairs(t)
		a, _ := adapt(t, m, &LoRA{Rank: 2, Alpha: 4, Targets: tune.Targets{"q_proj", "v_proj"}, Bias: "none", Init: "uniform"})
		s := stepperOf(t, a, newDPO(func(o *DPO) { o.Online = online }), 1e-2)
		batches := []data.Batch{b}
		if !online {
			if err := s.Refer(t.Context(), batches); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if online {
				batches[0].Reference = nil
			}
			r, err := s.Step(t.Context(), batches)
			if err != nil {
				t.Fatal(err)
			}
			losses[i] = append(losses[i], r.Loss)
		}
	}
	if !slices.Equal(losses[0], losses[1]) || losses[0][4] >= losses[0][0] {
		t.Errorf("have %v and %v", losses[0], losses[1])
	}
}

// TestMarginGrows: on one batch, with a small rate, the margin grows at every step.
func TestMarginGrows(t *testing.T) {
	m, b := tinyPairs(t)
	a, _ := adapt(t, m, &Full{})
	s := stepperOf(t, a, newDPO(func(*DPO) {}), 1e-3)
	batches := []data.Batch{b}
	if err := s.Refer(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	last := 0.0
	for i := range 12 {
		r, err := s.Step(t.Context(), batches)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && r.Values["margin"] <= last {
			t.Errorf("step %d: the margin is %.6f, it was %.6f", i, r.Values["margin"], last)
		}
		last = r.Values["margin"]
	}
}

func TestNoReference(t *testing.T) {
	m, b := tinyPairs(t)
	a, _ := adapt(t, m, &Full{})
	s := stepperOf(t, a, newDPO(func(o *DPO) { o.Online = true }), 1e-3)
	if _, err := s.Step(t.Context(), []data.Batch{b}); err == nil || !strings.Contains(err.Error(), "before the first step") {
		t.Errorf("weights that train are taken for their own reference: %v", err)
	}
}

func TestDPORefuses(t *testing.T) {
	for want, change := range map[string]func(o *DPO){
		"did you mean sigmoid":         func(o *DPO) { o.Losses = []string{"sigmod"} },
		"kto stands alone":             func(o *DPO) { o.Losses = []string{"kto", "sft"} },
		"want 1, one a loss, have 2":   func(o *DPO) { o.Weights = []float64{1, 2} },
		"exo_pair wants a value above": func(o *DPO) { o.Losses = []string{"exo_pair"} },
		"robust wants a value below":   func(o *DPO) { o.Losses, o.Smoothing = []string{"robust"}, 0.5 },
		"loss: want at least one":      func(o *DPO) { o.Losses = nil },
	} {
		if _, err := newDPO(change).Renderer(tune.Text{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}

func TestCollapseWarns(t *testing.T) {
	o := newDPO(func(*DPO) {})
	if w := o.Warn(map[string]float64{"drift": -0.9}); w != "" {
		t.Errorf("have %q", w)
	}
	if w := o.Warn(map[string]float64{"drift": -1.25}); !strings.Contains(w, "1.25 nats a token") {
		t.Errorf("have %q", w)
	}
}
