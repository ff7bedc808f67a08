package methods

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/objective"
	"tunesmith/optim"
	"tunesmith/site"
	"tunesmith/trainer"
	"tunesmith/tune"
)

func newRLHF(change func(o *RLHF)) *RLHF {
	m, _ := tune.Find(tune.ObjectiveAxis, "rlhf")
	o := m.New().(*RLHF)
	change(o)
	return o
}

// TestGoldenRewardRun makes whole runs of a reward model.
func TestGoldenRewardRun(t *testing.T) {
	dir, runs, all := objectiveRuns(t, "reward_run")
	for _, r := range runs {
		t.Run(r.Name, func(t *testing.T) {
			values := within(all, r.Name)
			o := newRLHF(func(o *RLHF) { o.Stage, o.Centre = "reward", r.number("center_rewards_coefficient", 0) })
			m := openModel(t, filepath.Join(dir, "tiny_rm"))
			var batches []data.Batch
			for i := range r.Micro {
				ids, mask := values[fmt.Sprintf("batch%d/input_ids", i)], values[fmt.Sprintf("batch%d/attention_mask", i)]
				side := func(k int) [3]golden.Tensor { return [3]golden.Tensor{half(ids, k), half(mask, k), half(ids, k)} }
				b := interleave(side(0), side(1))
				b.Labels, b.Margins = slices.Repeat([]float32{1}, b.Rows/2), values[fmt.Sprintf("batch%d/margin", i)].F32
				batches = append(batches, b)
			}
			names := map[string]string{"accuracy": "accuracy", "margin": "margin", "mean_reward": "mean_reward"}
			trainRun(t, r, o, whole(t, m), values, 0, batches, names)
		})
	}
}

// TestGoldenPolicyRuns makes whole runs of GRPO's losses and RLOO from the answers of the reference.
func TestGoldenPolicyRuns(t *testing.T) {
	dir, runs, all := objectiveRuns(t, "grpo_rloo_run")
	for _, r := range runs {
		t.Run(r.Trainer+"/"+r.Name, func(t *testing.T) {
			values := within(all, r.Trainer+"/"+r.Name)
			o := newRLHF(func(o *RLHF) {
				o.Stage, o.Beta, o.Kind = r.Trainer, r.number("beta", 0), r.text("loss_type", "dapo")
				o.MaxTokens = values["batch0/completion_ids"].Shape[1]
			})
			m := openModel(t, filepath.Join(dir, "tiny_llama"))
			var batches []data.Batch
			for i := range r.Micro {
				batches = append(batches, policyBatch(values, fmt.Sprintf("batch%d/", i)))
			}
			r.LR = max(r.LR, 1e-3)
			trainRun(t, r, o, whole(t, m), values, 0, batches, nil)
		})
	}
}

// policyBatch makes a batch of prompts, padded on the left, and answers.
func policyBatch(values map[string]golden.Tensor, prefix string) data.Batch {
	get := func(name string) golden.Tensor { return values[prefix+name] }
	rows, p, t := get("prompt_ids").Shape[0], get("prompt_ids").Shape[1], get("completion_ids").Shape[1]
	cols := p + t
	b := data.Batch{Rows: rows, Cols: cols, Extra: map[string]any{"advantage": get("advantages").F32}}
	n := rows * cols
	b.Segments, b.Positions, b.Targets, b.Weights = make([]int32, n), make([]int32, n), make([]int32, n), make([]float32, n)
	old, reference := make([]float32, n), make([]float32, n)
	for r := range rows {
		at := int32(0)
		for c := range cols {
			i := r*cols + c
			id, real := int32(0), int32(0)
			if c < p {
				id, real = get("prompt_ids").I32[r*p+c], get("prompt_mask").I32[r*p+c]
			} else {
				id, real = get("completion_ids").I32[r*t+c-p], get("completion_mask").I32[r*t+c-p]
			}
			b.IDs = append(b.IDs, id)
			b.Targets[i], b.Segments[i], b.Positions[i] = -1, real-1, at
			at += real
			if c >= p && real != 0 {
				b.Targets[i-1], b.Weights[i-1] = id, 1
				if ref := get("ref_per_token_logps"); ref.F32 != nil {
					reference[i-1] = ref.F32[r*t+c-p]
				}
				if sum := get("old_logps"); sum.F32 != nil && c == p { // RLOO has the sum of a row
					old[i-1] = sum.F32[r]
				}
			}
		}
	}
	sampled := float32(0)
	if get("old_logps").F32 != nil {
		sampled = 1
	}
	b.Extra["old"], b.Extra["sampled"], b.Extra["reference"] = old, []float32{sampled}, reference
	return b
}

// ppoRows are queries with answers as the reference lays them out: positions count the tokens that are no padding.
type ppoRows struct {
	data.Batch
	context, answer int
}

func newPPORows(ids golden.Tensor, context int, pad int32) ppoRows {
	rows, cols := ids.Shape[0], ids.Shape[1]
	b := data.Batch{Rows: rows, Cols: cols, IDs: slices.Clone(ids.I32), Positions: make([]int32, rows*cols), Segments: make([]int32, rows*cols), Targets: make([]int32, rows*cols), Weights: make([]float32, rows*cols)}
	for r := range rows {
		at := int32(0)
		for c := range cols {
			i := r*cols + c
			b.Targets[i] = -1
			if c >= context {
				b.Targets[i-1] = ids.I32[i]
			}
			if b.Positions[i] = at; ids.I32[i] == pad {
				b.Segments[i] = -1
			} else {
				at++
			}
		}
	}
	return ppoRows{b, context, cols - context}
}

// answers takes the columns whose outputs belong to the tokens of the answers.
func (p ppoRows) answers(wide []float32) []float32 {
	var out []float32
	for r := range p.Rows {
		out = append(out, wide[r*p.Cols+p.context-1:r*p.Cols+p.context-1+p.answer]...)
	}
	return out
}

// spread is the way back: values of the answers' tokens at their places in the rows.
func (p ppoRows) spread(narrow []float32) []float32 {
	out := make([]float32, p.Rows*p.Cols)
	for r := range p.Rows {
		copy(out[r*p.Cols+p.context-1:], narrow[r*p.answer:(r+1)*p.answer])
	}
	return out
}

// outputs runs a model on rows: log-probabilities at a temperature, or the head's single output, wherever there is one.
func outputs(t *testing.T, backend engine.Backend, a *model.Adapted, b data.Batch, temperature float64) []float32 {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{
			IDs: g.Input("ids", graph.Int, b.Rows, b.Cols), Positions: g.Input("positions", graph.Int, b.Rows, b.Cols),
			Segments: g.Input("segments", graph.Int, b.Rows, b.Cols),
		}, a.Grafts...)
		f := tune.Forward{Model: a, Scope: s, Rows: b.Rows, Cols: b.Cols}
		if a.Config.Head.Kind != "" {
			g.Output("out", graph.Reshape(a.Logits(s, a.Hidden(s)), b.Rows, b.Cols))
			return
		}
		f.Targets = g.Input("targets", graph.Int, b.Rows*b.Cols)
		g.Output("out", f.LogProbsAt(temperature))
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, a.Store)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Feeds{"ids": b.IDs, "positions": b.Positions, "segments": b.Segments}
	if a.Config.Head.Kind == "" {
		in["targets"] = b.Targets
	}
	if err := p.Run(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(p.Output("out"))
}

// TestGoldenPPORun goes through whole PPO runs from their sampled answers: all four models, the scores, the
// advantages, every step of policy and value model, and the final weights.
func TestGoldenPPORun(t *testing.T) {
	dir, runs, all := objectiveRuns(t, "ppo_run")
	for _, r := range runs {
		t.Run(r.Name, func(t *testing.T) {
			p := newPPOGolden(t, filepath.Join(dir, "ppo_models"), r, within(all, r.Name))
			updates, steps := int(r.number("updates", 0)), int(r.number("optimizer_steps", 0))
			for u := range updates {
				p.rollout(u)
				for k := range steps / updates {
					p.step(u*steps/updates + k)
				}
			}
			p.final()
		})
	}
}

type ppoGolden struct {
	t                              *testing.T
	r                              objectiveRun
	values                         map[string]golden.Tensor
	backend                        engine.Backend
	policy, reference, reward, val *model.Adapted
	steppers                       [2]*trainer.Stepper
	rows                           ppoRows
	episodes                       objective.Episodes
	outcome                        objective.Outcome
	update                         int
}

func newPPOGolden(t *testing.T, dir string, r objectiveRun, values map[string]golden.Tensor) *ppoGolden {
	open := func(name string, p tune.Parameters) *model.Adapted {
		m := openModel(t, filepath.Join(dir, name))
		if p == nil {
			a, err := m.Adapt(1)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		a, _ := adapt(t, m, p)
		return a
	}
	g := &ppoGolden{
		t: t, r: r, values: values, backend: openBackend(t), policy: open("policy", &Full{}), reference: open("ref", nil),
		reward: open("reward", nil), val: open("value", &Full{}),
	}
	if w, ok := values["policy_lm_head_weight"]; ok { // so that stop tokens occur
		x, _ := g.policy.Store.Get("lm_head.weight")
		copy(x.Values, w.F32)
		x.Touch()
	}
	ppo := objective.PPO{Clip: float32(r.number("cliprange", 0.2)), ValueClip: float32(r.number("cliprange_value", 0.2))}
	for i, o := range []tune.Objective{ppoPolicy{ppo, r.number("temperature", 0) + 1e-7}, ppoValue{ppo, r.number("vf_coef", 0.1)}} {
		opt, err := optim.New("adamw", optim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a := []*model.Adapted{g.policy, g.val}[i]
		g.steppers[i], err = trainer.NewStepper(trainer.StepConfig{
			Model: a, Backend: g.backend, Objective: o, Optimizer: opt, Schedule: func(int) float64 { return r.number("lr", 0) },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g *ppoGolden) get(name string) golden.Tensor {
	v, ok := g.values[fmt.Sprintf("update%d/%s", g.update, name)]
	if !ok {
		g.t.Fatalf("no tensor %s of update %d", name, g.update)
	}
	return v
}

// same compares the answers' tokens where the mask is 0; later updates stand on trained weights.
func (g *ppoGolden) same(what string, have []float32, want golden.Tensor, mask []int32) {
	g.t.Helper()
	most := 2e-5
	if g.update > 0 {
		most = 2e-2
	}
	for i, w := range want.F32 {
		if mask != nil && mask[i] != 0 {
			continue
		}
		if d := math.Abs(float64(have[i] - w)); !(d <= most*math.Max(1, math.Abs(float64(w)))) {
			g.t.Errorf("update %d, %s, element %d: want %.7f, have %.7f", g.update, what, i, w, have[i])
			return
		}
	}
}

func (g *ppoGolden) rollout(u int) {
	g.update = u
	pad := int32(g.r.number("pad_token_id", 0))
	context := g.get("queries").Shape[1]
	g.rows = newPPORows(g.get("query_responses"), context, pad)
	beyond, behind := g.get("padding_mask").I32, g.get("padding_mask_p1").I32
	heat := g.r.number("temperature", 0) + 1e-7
	old := g.rows.answers(outputs(g.t, g.backend, g.policy, g.rows.Batch, heat))
	reference := g.rows.answers(outputs(g.t, g.backend, g.reference, g.rows.Batch, heat))
	values := g.rows.answers(outputs(g.t, g.backend, g.val, g.rows.Batch, 1))
	g.same("log-probabilities", old, g.get("logprobs"), beyond)
	g.same("reference", reference, g.get("ref_logprobs"), beyond)
	g.same("values", values, g.get("values"), behind)
	e := objective.Episodes{Cols: g.rows.answer, LogProbs: doubles(old), Reference: doubles(reference), Values: doubles(values)}
	e.Length, e.Ended, e.Scores = g.scores(pad, context)
	o := objective.Reinforced{
		KL: g.r.number("kl_coef", 0), CubicKL: g.r.text("kl_estimator", "k1") == "k3", Gamma: g.r.number("gamma", 1), Lambda: g.r.number("lam", 1),
		WhitenReward: g.r.Config["whiten_rewards"] == true, MissingEnd: g.r.number("missing_eos_penalty", 0),
	}
	g.episodes, g.outcome = e, o.Outcome(e)
	g.same("scores", singles(g.outcome.Scores), g.get("scores"), nil)
	g.same("rewards", singles(g.outcome.Rewards), g.get("rewards"), behind)
	g.same("returns", singles(g.outcome.Returns), g.get("returns"), behind)
	if u == 0 {
		g.same("advantages", singles(g.outcome.Advantages), g.get("advantages"), beyond)
	}
}

// scores cuts the answers behind their stop tokens and lets the reward model read them.
func (g *ppoGolden) scores(pad int32, context int) (lengths []int, ended []bool, scores []float64) {
	cut := g.get("query_responses")
	cut = golden.Tensor{Shape: cut.Shape, I32: slices.Clone(cut.I32)}
	stop, eos := int32(g.r.number("stop_token_id", -1)), int32(g.r.number("eos_token_id", -1))
	cols := cut.Shape[1]
	for r := range cut.Shape[0] {
		row := cut.I32[r*cols+context : (r+1)*cols]
		if at := slices.Index(row, stop); stop >= 0 && at >= 0 {
			for i := at + 1; i < len(row); i++ {
				row[i] = pad
			}
		}
		if !slices.Equal(row, g.get("postprocessed_responses").I32[r*g.rows.answer:(r+1)*g.rows.answer]) {
			g.t.Fatalf("update %d: answer %d is cut elsewhere", g.update, r)
		}
		n := slices.Index(row, pad)
		if n < 0 {
			n = len(row)
		}
		lengths = append(lengths, n-1)
		ended = append(ended, slices.Contains(row, eos))
	}
	b := newPPORows(cut, context, pad)
	out := outputs(g.t, g.backend, g.reward, b.Batch, 1)
	for r, n := range lengths {
		scores = append(scores, float64(out[r*cols+context+n]))
	}
	return lengths, ended, scores
}

func doubles(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func singles(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

// step makes one step of both models on the rows that the reference drew.
func (g *ppoGolden) step(i int) {
	prefix := fmt.Sprintf("step%d/", i)
	picked := g.values[prefix+"micro_batch_inds"].I32
	policy, value := g.minibatch(picked)
	for k, want := range []string{"pg_loss", "vf_loss"} {
		s, err := g.steppers[k].Step(g.t.Context(), []data.Batch{[]data.Batch{policy, value}[k]})
		if err != nil {
			g.t.Fatal(err)
		}
		have := s.Loss
		if k == 1 {
			have /= g.r.number("vf_coef", 0.1)
		}
		most := 1e-3
		if i == 0 {
			most = 2e-5
		}
		ref := float64(g.values[prefix+want].F32[0])
		if d := math.Abs(have - ref); !(d <= most*math.Max(1, math.Abs(ref))) {
			g.t.Errorf("step %d, %s: want %.7f, have %.7f", i, want, ref, have)
		}
	}
}

func (g *ppoGolden) minibatch(picked []int32) (policy, value data.Batch) {
	take := func(narrow []float32) []float32 {
		wide := g.rows.spread(narrow)
		var out []float32
		for _, r := range picked {
			out = append(out, wide[int(r)*g.rows.Cols:(int(r)+1)*g.rows.Cols]...)
		}
		return out
	}
	weights := func(mask []int32) []float32 {
		w := make([]float32, len(mask))
		for i, m := range mask {
			w[i] = float32(1 - m)
		}
		out := take(w)
		var sum float32
		for _, x := range out {
			sum += x
		}
		for i := range out {
			out[i] /= sum
		}
		return out
	}
	b := data.Batch{Rows: len(picked), Cols: g.rows.Cols}
	for _, r := range picked {
		lo, hi := int(r)*g.rows.Cols, (int(r)+1)*g.rows.Cols
		b.IDs, b.Positions, b.Segments = append(b.IDs, g.rows.IDs[lo:hi]...), append(b.Positions, g.rows.Positions[lo:hi]...), append(b.Segments, g.rows.Segments[lo:hi]...)
		b.Targets, b.Weights = append(b.Targets, g.rows.Targets[lo:hi]...), append(b.Weights, g.rows.Weights[lo:hi]...)
	}
	policy, value = b, b
	policy.Extra = map[string]any{
		"old": take(singles(g.episodes.LogProbs)), "advantage": take(singles(g.outcome.Advantages)), "weight": weights(g.get("padding_mask").I32),
	}
	value.Extra = map[string]any{
		"value": take(singles(g.episodes.Values)), "return": take(singles(g.outcome.Returns)), "value weight": weights(g.get("padding_mask_p1").I32),
	}
	return policy, value
}

func (g *ppoGolden) final() {
	seen := 0
	for name, want := range g.values {
		rest, ok := strings.CutPrefix(name, "final/")
		if !ok {
			continue
		}
		a := g.policy
		tensor, ok := strings.CutPrefix(rest, "policy.")
		if !ok {
			a, tensor = g.val, strings.TrimPrefix(rest, "value_model.")
		}
		x, ok := a.Store.Get(tensor)
		if !ok {
			g.t.Fatalf("no tensor %q", tensor)
		}
		near(g.t, rest, x.Values, want.F32, 1e-2)
		seen++
	}
	if seen == 0 {
		g.t.Error("no final tensor was compared")
	}
}
