package methods

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/checkpoint"
	"tunesmith/export"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// TestGoldenBitFit trains the biases of every case for five steps: losses, gradients, biases and the merged model; then
// once more with zero biases added to the same model without.
func TestGoldenBitFit(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, "biases.safetensors") {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			f := fixture{dir: path, backend: openBackend(t), values: golden.Load(t, filepath.Join(path, "case.safetensors"))}
			golden.JSON(t, filepath.Join(path, "case.json"), &f.peftCase)
			f.model, f.batches = openModel(t, filepath.Join(dir, f.Base)), batches(f.values)
			a := f.biases(t, f.model, &BitFit{})
			out := filepath.Join(t.TempDir(), "merged")
			if err := export.Directory(out, a, tune.Text{}, quant.F32); err != nil {
				t.Fatal(err)
			}
			want, have := openModel(t, filepath.Join(path, "merged")), openModel(t, out)
			for _, p := range want.Map().Params {
				x, err := want.Values(p.Name)
				if err != nil {
					t.Fatal(err)
				}
				y, err := have.Values(p.Name)
				if err != nil {
					t.Fatal(err)
				}
				rel := 1e-4
				if strings.HasSuffix(p.Name, ".weight") {
					rel = 0
				}
				f.nearBias(t, p.Name+" merged", y, x, p.Name, rel)
			}
		})
	}
}

// nearBias compares biases without those whose gradient is 0 in theory: keys without rotary positions.
func (f fixture) nearBias(t *testing.T, what string, have, want []float32, name string, rel float64) {
	t.Helper()
	grad := f.values["grad/"+name].F32
	var x, y []float32
	for i := range want {
		if grad == nil || grad[i] > 1e-6 || grad[i] < -1e-6 {
			x, y = append(x, have[i]), append(y, want[i])
		}
	}
	near(t, what, x, y, rel)
}

// biases trains as the case did and returns the model behind the last step.
func (f fixture) biases(t *testing.T, m *model.Model, method tune.Parameters) *model.Adapted {
	t.Helper()
	a, _ := adapt(t, m, method)
	first := pass(t, f.backend, a, f.batches[0])
	sameLogits(t, "start", f.batches[0], first["logits"], f.values["base_logits"].F32)
	for name, want := range f.group("grad") {
		near(t, "gradient of "+name, first["grad."+name], want.F32, 1e-4)
	}
	if have, _ := trainer.Counts(a.Sites); have != f.Count {
		t.Errorf("want %d trained values, have %d", f.Count, have)
	}
	f.follow(t, a, f.plain(t, a), func(what, name string, have, want []float32) { f.nearBias(t, what, have, want, name, 1e-4) })
	sameLogits(t, "after the last step", f.batches[0], f.logits(t, a), f.values["logits_after"].F32)
	return a
}

// TestGoldenAddedBiases adds zero biases to a model without and finds what the same model with zero biases finds.
func TestGoldenAddedBiases(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, "biases.safetensors") {
		path := filepath.Join(dir, name)
		f := fixture{dir: path, backend: openBackend(t), values: golden.Load(t, filepath.Join(path, "case.safetensors"))}
		golden.JSON(t, filepath.Join(path, "case.json"), &f.peftCase)
		plain, ok := withoutBiases(t, filepath.Join(dir, f.Base))
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f.model, f.batches = openModel(t, plain), batches(f.values)
			a := f.biases(t, f.model, &BitFit{Add: tune.Targets{tune.AllLinear}})
			out := filepath.Join(t.TempDir(), "adapter")
			if err := tune.SaveAdapter(out, a.Grafts[0], a.Sites, a.Store, tune.AdapterInfo{Base: f.Base}); err != nil {
				t.Fatal(err)
			}
			again, _ := withAdapter(t, f.model, out)
			sameLogits(t, "read again", f.batches[0], f.logits(t, again), f.values["logits_after"].F32)
			merged := filepath.Join(t.TempDir(), "merged")
			if err := export.Directory(merged, a, tune.Text{}, quant.F32); err != nil {
				t.Fatal(err)
			}
			whole, err := openModel(t, merged).Adapt(1)
			if err != nil {
				t.Fatal(err)
			}
			sameLogits(t, "merged", f.batches[0], f.logits(t, whole), f.values["logits_after"].F32)
			want := golden.Load(t, filepath.Join(path, "biases.safetensors"))
			have := golden.Load(t, filepath.Join(out, "adapter_model.safetensors"))
			if !slices.Equal(sortedKeys(want), sortedKeys(have)) {
				t.Errorf("biases: want %v, have %v", sortedKeys(want), sortedKeys(have))
			}
		})
	}
}

// withoutBiases writes a model of zero biases as one that has none.
func withoutBiases(t *testing.T, dir string) (string, bool) {
	t.Helper()
	var config map[string]any
	golden.JSON(t, filepath.Join(dir, "config.json"), &config)
	if config["attention_bias"] != true || config["mlp_bias"] != true {
		return "", false
	}
	config["attention_bias"], config["mlp_bias"] = false, false
	var tensors []checkpoint.Tensor
	for name, v := range golden.Load(t, filepath.Join(dir, "model.safetensors")) {
		if !strings.HasSuffix(name, ".bias") {
			tensors = append(tensors, checkpoint.Float32Tensor(name, v.Shape, v.F32))
		} else if slices.ContainsFunc(v.F32, func(x float32) bool { return x != 0 }) {
			return "", false
		}
	}
	out := t.TempDir()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(out, "config.json"), text, 0o666),
		checkpoint.WriteSafetensors(filepath.Join(out, "model.safetensors"), tensors, nil),
	); err != nil {
		t.Fatal(err)
	}
	return out, true
}

// TestMergedBiases merges biases of some projections: the others of their block get zeros, and no other block a bias.
func TestMergedBiases(t *testing.T) {
	c := small(t).Config
	c.Rope = model.Rope{
		Type: "default", Theta: 10000, Factor: 1, Original: 32, MaxPositions: 32, LowFreq: 1, HighFreq: 4, BetaFast: 32, BetaSlow: 1, Truncate: true,
	}
	m, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := adapt(t, m, &BitFit{Add: tune.Targets{"v_proj"}})
	for _, x := range a.Trained() {
		for i := range x.Values {
			x.Values[i] = float32(i + 1)
		}
		x.Touch()
	}
	dir := filepath.Join(t.TempDir(), "merged")
	if err := export.Directory(dir, a, tune.Text{}, quant.F32); err != nil {
		t.Fatal(err)
	}
	whole := openModel(t, dir)
	v, err := whole.Values("model.layers.1.self_attn.v_proj.bias")
	if err != nil || v[0] != 1 {
		t.Errorf("want the trained bias, have %v, %v", v, err)
	}
	q, err := whole.Values("model.layers.1.self_attn.q_proj.bias")
	if err != nil || slices.ContainsFunc(q, func(x float32) bool { return x != 0 }) {
		t.Errorf("want zeros, have %v, %v", q, err)
	}
	if _, ok := whole.Map().Param("model.layers.1.mlp.up_proj.bias"); ok {
		t.Error("want no bias in the feed-forward")
	}
}

func TestBitFitCount(t *testing.T) {
	checkCounts(t, []countCase{
		{"added to all projections", smollm2, &BitFit{Add: tune.Targets{tune.AllLinear}}, 155_520},
		{"added to values", llama8b, &BitFit{Add: tune.Targets{"v_proj"}}, 32_768},
		{"added to queries and up", smollm2, &BitFit{Add: tune.Targets{"q_proj", "up_proj"}}, 63_360},
		{"norms", smollm2, &BitFit{Norms: true}, 35_136},
	})
}

func TestBitFitRefuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &BitFit{}, "biases: this model has none; add zero ones with add_biases")
	refuses(t, m, &BitFit{Biases: tune.Targets{"q_proj"}}, "biases: [q_proj] has none in this model")
	refuses(t, m, &BitFit{Add: tune.Targets{"q_prj"}}, `add_biases: "q_prj" is no module of this model, did you mean q_proj?`)
}
