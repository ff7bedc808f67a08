package objective

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"tunesmith/graph"
	"tunesmith/internal/golden"
)

type ppoRun struct {
	Name   string
	Config struct {
		Whiten    bool     `json:"whiten_rewards"`
		Estimator string   `json:"kl_estimator"`
		KL        float64  `json:"kl_coef"`
		Gamma     float64  `json:"gamma"`
		Lambda    float64  `json:"lam"`
		Clip      float32  `json:"cliprange"`
		ValueClip float32  `json:"cliprange_value"`
		ValueCoef float32  `json:"vf_coef"`
		Penalty   *float64 `json:"missing_eos_penalty"`
	}
}

// TestGoldenPPO checks the rewards, advantages and returns of every rollout, and the losses of every step.
func TestGoldenPPO(t *testing.T) {
	dir := golden.Dir(t, "objectives")
	var file struct{ Runs []ppoRun }
	golden.JSON(t, filepath.Join(dir, "ppo_run.json"), &file)
	all := golden.Load(t, filepath.Join(dir, "ppo_run.safetensors"))
	if len(file.Runs) == 0 {
		t.Fatal("no run")
	}
	for _, r := range file.Runs {
		t.Run(r.Name, func(t *testing.T) {
			n := 0
			for ; ; n++ {
				if _, ok := all[fmt.Sprintf("%s/update%d/advantages", r.Name, n)]; !ok {
					break
				}
				r.update(t, all, fmt.Sprintf("%s/update%d/", r.Name, n))
			}
			if n == 0 {
				t.Fatal("no update")
			}
			steps := 0
			for ; ; steps++ {
				if _, ok := all[fmt.Sprintf("%s/step%d/loss", r.Name, steps)]; !ok {
					break
				}
				r.step(t, all, fmt.Sprintf("%s/step%d/", r.Name, steps), fmt.Sprintf("%s/update%d/", r.Name, steps*n/r.steps(all)))
			}
			if steps == 0 {
				t.Fatal("no step")
			}
		})
	}
}

func (r ppoRun) steps(all map[string]golden.Tensor) int {
	n := 0
	for {
		if _, ok := all[fmt.Sprintf("%s/step%d/loss", r.Name, n)]; !ok {
			return n
		}
		n++
	}
}

func (r ppoRun) update(t *testing.T, all map[string]golden.Tensor, prefix string) {
	t.Helper()
	wide := func(name string) []float64 {
		var out []float64
		for _, v := range floats(all[prefix+name]) {
			out = append(out, float64(v))
		}
		return out
	}
	o := Reinforced{KL: r.Config.KL, CubicKL: r.Config.Estimator == "k3", Gamma: r.Config.Gamma, Lambda: r.Config.Lambda, WhitenReward: r.Config.Whiten}
	if r.Config.Penalty != nil {
		o.MissingEnd = 0 // the recorded scores have it already
	}
	e := Episodes{Cols: all[prefix+"values"].Shape[1], LogProbs: wide("logprobs"), Reference: wide("ref_logprobs"), Values: wide("values"), Scores: wide("scores")}
	for i, v := range all[prefix+"sequence_lengths"].I32 {
		e.Length = append(e.Length, int(v))
		e.Ended = append(e.Ended, all[prefix+"contain_eos_token"].I32[i] != 0)
	}
	for i, v := range all[prefix+"padding_mask"].I32 {
		beyond, behind := e.padding(i/e.Cols, i%e.Cols)
		if beyond != (v != 0) || behind != (all[prefix+"padding_mask_p1"].I32[i] != 0) {
			t.Fatalf("%spadding of element %d differs", prefix, i)
		}
	}
	out := o.Outcome(e)
	for name, have := range map[string][]float64{"kl": out.KL, "rewards": out.Rewards, "advantages": out.Advantages, "returns": out.Returns} {
		var narrow []float32
		for _, v := range have {
			narrow = append(narrow, float32(v))
		}
		sameAll(t, prefix+name, narrow, all[prefix+name], nil, 2e-5) // fp32 sums of the reference
	}
}

func (r ppoRun) step(t *testing.T, all map[string]golden.Tensor, prefix, update string) {
	t.Helper()
	get := func(name string) golden.Tensor { return all[prefix+name] }
	shape := get("new_logprobs").Shape
	pick := func(name string) golden.Tensor { // rows of the rollout that the step is made of
		v := all[update+name]
		out := golden.Tensor{Shape: shape}
		for _, i := range get("micro_batch_inds").I32 {
			out.F32 = append(out.F32, floats(v)[int(i)*shape[1]:(int(i)+1)*shape[1]]...)
		}
		return out
	}
	weights := func(name string) []float32 {
		mask := pick(name).F32
		var n float32
		for i := range mask {
			mask[i] = 1 - mask[i]
			n += mask[i]
		}
		for i := range mask {
			mask[i] /= n
		}
		return mask
	}
	o := PPO{Clip: r.Config.Clip, ValueClip: r.Config.ValueClip}
	values := map[string]golden.Tensor{
		"new": get("new_logprobs"), "old": pick("logprobs"), "advantage": get("mb_advantage"), "value": get("vpred"), "was": pick("values"),
		"return": get("mb_return"),
	}
	loss, out := evaluate(t, values, func(b *bench) *graph.Node {
		policy := o.Policy(b.trained("new"), b.given("old"), b.given("advantage"), b.Floats(weights("padding_mask"), shape...))
		value := o.Value(b.trained("value"), b.given("was"), b.given("return"), b.Floats(weights("padding_mask_p1"), shape...))
		b.Output("policy", policy)
		b.Output("value loss", value)
		return graph.Plus(policy, graph.Scale(value, r.Config.ValueCoef))
	})
	sameLoss(t, prefix+"policy", float64(out["policy"][0]), float64(get("pg_loss").F32[0]), bound)
	sameLoss(t, prefix+"value", float64(out["value loss"][0]), float64(get("vf_loss").F32[0]), bound)
	sameLoss(t, prefix+"loss", loss, float64(get("loss").F32[0]), bound)
	for i, w := range weights("padding_mask") { // what is padding has no gradient at all
		if w == 0 && out["grad new"][i] != 0 {
			t.Errorf("%spadded element %d has gradient %g", prefix, i, out["grad new"][i])
		}
	}
}

// TestClipTable: the table of methods' clipping by hand.
func TestClipTable(t *testing.T) {
	for _, c := range []struct{ advantage, logRatio, want float64 }{
		{1, 0.3, -1.2}, {1, -0.3, -0.7408182207}, {-1, 0.3, 1.3498588076}, {-1, -0.3, 0.8}, {1, 0, -1},
	} {
		one := func(v float64) golden.Tensor { return golden.Tensor{Shape: []int{1, 1}, F32: []float32{float32(v)}} }
		values := map[string]golden.Tensor{"new": one(c.logRatio), "old": one(0), "a": one(c.advantage), "w": one(1)}
		have, _ := evaluate(t, values, func(b *bench) *graph.Node {
			return PPO{Clip: 0.2}.Policy(b.trained("new"), b.given("old"), b.given("a"), b.given("w"))
		})
		sameLoss(t, fmt.Sprintf("advantage %g, log-ratio %g", c.advantage, c.logRatio), have, c.want, 1e-6)
	}
	one := func(v float32) golden.Tensor { return golden.Tensor{Shape: []int{1, 1}, F32: []float32{v}} }
	values := map[string]golden.Tensor{"v": one(0.9), "old": one(0.4), "r": one(1), "w": one(1)}
	have, _ := evaluate(t, values, func(b *bench) *graph.Node {
		return PPO{ValueClip: 0.2}.Value(b.trained("v"), b.given("old"), b.given("r"), b.given("w"))
	})
	sameLoss(t, "clipped value", have, 0.08, 1e-6)
}

// TestAdvantageIsWhatIsLeft: without discount the advantage is the sum of the rewards to come minus the value.
func TestAdvantageIsWhatIsLeft(t *testing.T) {
	e := Episodes{
		Cols: 4, LogProbs: []float64{-1, -2, -1.5, -0.5}, Reference: []float64{-1.2, -1.9, -1.5, -0.9}, Values: []float64{0.1, 0.2, -0.3, 0.4},
		Scores: []float64{2}, Length: []int{3}, Ended: []bool{true},
	}
	out := Reinforced{KL: 0.1, Gamma: 1, Lambda: 1}.Outcome(e)
	left := 0.0
	for c := 3; c >= 0; c-- {
		left += out.Rewards[c]
		if math.Abs(out.Returns[c]-left) > 1e-12 {
			t.Errorf("return of column %d: want %g, have %g", c, left, out.Returns[c])
		}
	}
}

func TestAdaptKL(t *testing.T) {
	for divergence, want := range map[float64]float64{9: 0.201024, 3: 0.198976} {
		if have := AdaptKL(0.2, divergence, 6, 256, 10000); math.Abs(have-want) > 1e-12 {
			t.Errorf("divergence %g: want %g, have %g", divergence, want, have)
		}
	}
}
