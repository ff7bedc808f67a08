package methods

import (
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// laterRuns names what runs of golden/trajectories wait for, by a property of the run. It only shrinks.
var laterRuns = map[string]string{
	"normalise micro_mean": "the wrong mean of means, for contrast",
}

type trajectory struct {
	Config struct {
		Optimizer    string
		LR           float64
		Scheduler    string
		Warmup       float64 `json:"warmup_steps"`
		Total        int     `json:"total_steps"`
		MaxNorm      float64 `json:"max_grad_norm"`
		Decay        float64 `json:"weight_decay"`
		Eps          float64
		Betas        []float64
		Momentum     *float64
		MicroBatches int `json:"micro_batches_per_step"`
		Normalise    string
	}
	Trained [][2]any
	PEFT    *struct {
		Tokens  int `json:"num_virtual_tokens"`
		Width   int `json:"token_dim"`
		R       int
		Alpha   float64 `json:"lora_alpha"`
		Target  []string
		UseDoRA bool `json:"use_dora"`
		RSLoRA  bool `json:"use_rslora"`
	}
	Epsilon float64
	Packed  *float64  `json:"max_abs_loss_diff_to_full"`
	BF16    []float64 `json:"abs_loss_diff_to_fp32"`
	Log     []struct {
		Step       int
		Loss       float64
		GradNorm   float64 `json:"grad_norm"`
		LR         float64
		Supervised int `json:"supervised_after_shift"`
	}
}

func (r trajectory) properties() []string {
	out := []string{"normalise " + r.Config.Normalise}
	return out
}

// biases reports whether only biases train.
func (r trajectory) biases() bool {
	for _, x := range r.Trained {
		if !strings.HasSuffix(fmt.Sprint(x[0]), ".bias") {
			return false
		}
	}
	return true
}

func (r trajectory) method() tune.Parameters {
	switch {
	case r.biases():
		return &BitFit{Add: tune.Targets{tune.AllLinear}}
	case r.PEFT == nil:
		return &Full{}
	case r.PEFT.Tokens > 0 && strings.HasSuffix(fmt.Sprint(r.Trained[0][1]), fmt.Sprintf(" %d]", r.PEFT.Width)):
		return &SoftPrompt{Tokens: r.PEFT.Tokens, Init: "random"}
	case r.PEFT.Tokens > 0:
		return &Prefix{Tokens: r.PEFT.Tokens, Init: "random"}
	}
	known := []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
	return &LoRA{
		Rank: r.PEFT.R, Alpha: r.PEFT.Alpha, DoRA: r.PEFT.UseDoRA, RSLoRA: r.PEFT.RSLoRA, Bias: "none", Init: "uniform",
		Targets: slices.DeleteFunc(slices.Clone(r.PEFT.Target), func(n string) bool { return !slices.Contains(known, n) }),
	}
}

// TestGoldenTrajectories makes the twenty steps of every run: loss, rate and gradient norm at each, the trained tensors
// where the run has them.
func TestGoldenTrajectories(t *testing.T) {
	dir := golden.Dir(t, "trajectories")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no runs in %s: %v", dir, err)
	}
	padded := golden.Load(t, filepath.Join(dir, "batches.safetensors"))
	packed := golden.Load(t, filepath.Join(dir, "packed_batches.safetensors"))
	runs := map[string]trajectory{}
	for _, file := range files {
		var r trajectory
		golden.JSON(t, file, &r)
		runs[file] = r
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			r := runs[file]
			for _, p := range r.properties() {
				if why, ok := laterRuns[p]; ok {
					t.Skipf("%s: %s", p, why)
				}
			}
			batches := padded
			if r.Packed != nil {
				batches = packed
			}
			m := openModel(t, filepath.Join(dir, "base"))
			if r.BF16 == nil {
				r.check(t, m, batches, golden.Load(t, filepath.Join(dir, name+".safetensors")))
				return
			}
			for _, exact := range runs {
				if exact.BF16 == nil && exact.Packed == nil && reflect.DeepEqual(exact.Config, r.Config) {
					exact.checkMixed(t, m, batches, slices.Max(r.BF16))
					return
				}
			}
			t.Errorf("no run has the same options in single precision")
		})
	}
}

func (r trajectory) check(t *testing.T, m *model.Model, batches, values map[string]golden.Tensor) {
	a, _ := adapt(t, m, r.method())
	plain := map[string]golden.Tensor{}
	for name, v := range values {
		plain[inFile(name)] = v
	}
	if _, ok := plain["init/"+a.Trained()[0].Name]; ok {
		fill(t, a, plain, func(p string) string { return "init/" + p })
	}
	first := r.step(t, batches, 0)
	grads := pass(t, openBackend(t), a, first[0])
	s := r.stepper(t, a, engine.FP32)
	var worst struct{ loss, norm, tensor float64 }
	for i, want := range r.Log {
		step, err := s.Step(t.Context(), r.step(t, batches, i))
		if err != nil {
			t.Fatal(err)
		}
		if step.Step != want.Step || step.Supervised != want.Supervised {
			t.Errorf("step %d: want %d supervised tokens, have %d in step %d", want.Step, want.Supervised, step.Supervised, step.Step)
		}
		// Class E4; the first step has seen no update yet, and is held to E2.
		mostLoss, mostNorm, mostTensor := 1e-3, 1e-2, 1e-2
		if want.Step == 1 {
			mostLoss, mostNorm, mostTensor = 1e-5, 1e-4, 1e-4
		}
		worst.loss = max(worst.loss, math.Abs(step.Loss-want.Loss))
		worst.norm = max(worst.norm, math.Abs(step.GradNorm-want.GradNorm)/want.GradNorm)
		nearNumber(t, fmt.Sprintf("learning rate of step %d", want.Step), step.LR, want.LR, 1e-12)
		if d := math.Abs(step.Loss - want.Loss); !(d <= mostLoss) {
			t.Errorf("loss of step %d: want %.7f, have %.7f", want.Step, want.Loss, step.Loss)
		}
		if d := math.Abs(step.GradNorm - want.GradNorm); !(d <= mostNorm*want.GradNorm) {
			t.Errorf("gradient norm of step %d: want %.7f, have %.7f", want.Step, want.GradNorm, step.GradNorm)
		}
		for _, x := range a.Trained() {
			ref, ok := plain[fmt.Sprintf("step%d/%s", want.Step, x.Name)]
			if !ok {
				continue
			}
			have, values := x.Values, ref.F32
			if want.Step == 1 {
				have, values = withoutNoise(have, values, grads["grad."+x.Name])
			}
			near(t, fmt.Sprintf("%s after step %d", x.Name, want.Step), have, values, mostTensor)
			worst.tensor = max(worst.tensor, golden.RelL2(x.Values, ref.F32))
		}
	}
	t.Logf("largest differences: loss %.1g, gradient norm %.1g, tensor %.1g", worst.loss, worst.norm, worst.tensor)
	if len(first) == 1 && r.Epsilon == 0 {
		for _, x := range a.Trained() {
			if ref, ok := plain["grad_step1/"+x.Name]; ok {
				near(t, "gradient of "+x.Name, grads["grad."+x.Name], ref.F32, 1e-4)
			}
		}
	}
	if len(a.Trained()) != len(r.Trained) {
		t.Errorf("want %d trained tensors, have %d", len(r.Trained), len(a.Trained()))
	}
}

func (r trajectory) stepper(t *testing.T, a *model.Adapted, p engine.Precision) *trainer.Stepper {
	t.Helper()
	c := r.Config
	course, err := optim.NewSchedule(c.Scheduler, optim.ScheduleOptions{LR: c.LR, Total: c.Total, Warmup: c.Warmup})
	if err != nil {
		t.Fatal(err)
	}
	o, err := optim.New(c.Optimizer, optim.Options{Betas: c.Betas, Eps: c.Eps, Momentum: c.Momentum, Groups: []optim.Group{{LRScale: 1, WeightDecay: c.Decay}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: a, Backend: openBackend(t, p), Optimizer: o, Schedule: course, Clip: c.MaxNorm,
		Objective: &Instruction{Smoothing: r.Epsilon},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkMixed is the contract of mixed precision over a whole run: its losses are nearer to those of single precision
// than the losses of bf16 are.
func (r trajectory) checkMixed(t *testing.T, m *model.Model, batches map[string]golden.Tensor, most float64) {
	a, _ := adapt(t, m, r.method())
	s := r.stepper(t, a, engine.Mixed)
	var worst float64
	for i, want := range r.Log {
		step, err := s.Step(t.Context(), r.step(t, batches, i))
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, math.Abs(step.Loss-want.Loss))
	}
	t.Logf("largest difference of the loss %.2g, that of bf16 is %.2g", worst, most)
	if !(worst <= most) {
		t.Errorf("mixed precision is off by %.2g, bf16 by %.2g", worst, most)
	}
}

// inFile returns the name that a parameter of PEFT has in a file, from the one it has in memory.
func inFile(name string) string {
	name = strings.Replace(name, ".default", "", 1)
	name = strings.Replace(name, "prompt_encoder.embedding.weight", promptTensor, 1)
	return strings.Replace(name, "lora_magnitude_vector.weight", "lora_magnitude_vector", 1)
}

// step returns the batches of step i, from 0.
func (r trajectory) step(t *testing.T, values map[string]golden.Tensor, i int) []data.Batch {
	t.Helper()
	one := func(prefix string) data.Batch {
		get := func(name string) []int32 { return values[prefix+name].I32 }
		ids, ok := values[prefix+"input_ids"]
		if !ok {
			t.Fatalf("no batch %s", prefix)
		}
		return batchOf(ids.Shape[0], ids.Shape[1], ids.I32, get("labels"), get("attention_mask"), get("position_ids"), get("seg"))
	}
	if r.Config.MicroBatches == 1 {
		return []data.Batch{one(fmt.Sprintf("batch%d/", i))}
	}
	var out []data.Batch
	for k := range r.Config.MicroBatches {
		out = append(out, one(fmt.Sprintf("accum%d/micro%d/", i, k)))
	}
	return out
}
