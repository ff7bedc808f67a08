package methods

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/export"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/quant"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// later names what cases of golden/peft wait for, by a property of the case. It only shrinks.
var later = map[string]string{
	"method LoRA-FA":  "TestGoldenLoRAFA has it",
	"method weighted": "TestGoldenSeveralAdapters has it",

	"option layer_replication":   "layers that share weights to come",
	"option ensure_weight_tying": "PEFT counts, saves and steps one tensor under two names",
}

type peftCase struct {
	Method    string
	Base      string
	Count     int `json:"trainable_count"`
	Trainable []struct {
		Name  string
		Shape []int
	}
	FileKeys  map[string][]int `json:"file_keys"`
	Files     any
	Optimizer struct {
		LR    float64
		Betas []float64
		Eps   float64
		Decay float64 `json:"weight_decay"`
	}
	Options struct { // of LoRA+
		LR        *float64
		Ratio     float64 `json:"loraplus_lr_ratio"`
		Embedding float64 `json:"loraplus_lr_embedding"`
		Decay     float64 `json:"loraplus_weight_decay"`
		Betas     []float64
		Eps       float64
	}
	Loss   *float64
	Losses []float64
	After  *float64 `json:"loss_batch0_after"`
	Noise  map[string]int
	Checks struct {
		Start *float64 `json:"init_vs_base_logits_max_abs"`
	}
}

// properties of a case that later may name.
func (c peftCase) properties(modelType string, config tune.PEFTConfig) []string {
	out := []string{"base " + modelType, "method " + c.Method}
	if c.Files != nil {
		out = append(out, "method weighted")
	}
	for key, v := range config {
		if text := string(v); text != "null" && text != "false" {
			out = append(out, "option "+key)
		}
	}
	return out
}

// TestGoldenPEFT checks every adapter of PEFT whose method is here: outputs, gradients, five steps, merged weights, and
// the files.
func TestGoldenPEFT(t *testing.T) {
	dir := golden.Dir(t, "peft")
	kinds := map[string]bool{}
	for _, m := range tune.Methods(tune.ParametersAxis) {
		for _, kind := range strings.Fields(m.PEFT) {
			kinds[kind] = true
		}
	}
	for _, name := range golden.Cases(t, dir, filepath.Join("adapter", "adapter_config.json")) {
		if kind := peftType(t, filepath.Join(dir, name)); kind == "" || virtual(kind) {
			continue // see TestGoldenBottleneck, TestGoldenPrompts
		}
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			var c peftCase
			golden.JSON(t, filepath.Join(path, "case.json"), &c)
			var config tune.PEFTConfig
			golden.JSON(t, filepath.Join(path, "adapter", "adapter_config.json"), &config)
			kind, _ := tune.Key(config, "peft_type", "")
			if !kinds[kind] {
				t.Skipf("peft_type %q: method to come", kind)
			}
			var base struct {
				Type string `json:"model_type"`
			}
			golden.JSON(t, filepath.Join(dir, c.Base, "config.json"), &base)
			for _, p := range c.properties(base.Type, config) {
				if why, ok := later[p]; ok {
					t.Skipf("%s: %s", p, why)
				}
			}
			f := fixture{
				peftCase: c, dir: path, backend: openBackend(t), model: openModel(t, filepath.Join(dir, c.Base)),
				values: golden.Load(t, filepath.Join(path, "case.safetensors")),
			}
			f.batches = batches(f.values)
			t.Run("outputs", f.outputs)
			t.Run("start", f.start)
			t.Run("steps", f.steps)
			t.Run("merge", f.merge)
			t.Run("files", f.files)
		})
	}
}

// fixture is a case at work.
type fixture struct {
	peftCase
	dir     string
	backend engine.Backend
	model   *model.Model
	values  map[string]golden.Tensor
	batches []data.Batch
}

// group returns the tensors of a part of the case, without its prefix.
func (f fixture) group(prefix string) map[string]golden.Tensor {
	out := map[string]golden.Tensor{}
	for name, v := range f.values {
		if rest, ok := strings.CutPrefix(name, prefix+"/"); ok {
			out[rest] = v
		}
	}
	return out
}

// folder is a folder of the case: adapter, or trained, which a converted adapter was before.
func (f fixture) folder(name string) string { return filepath.Join(f.dir, name) }

// converted reports whether the adapter is the plain form of one that started from a part of the weights.
func (f fixture) converted() bool { return exists(f.dir, "trained") }

func (f fixture) logits(t *testing.T, a *model.Adapted) []float32 {
	t.Helper()
	return pass(t, f.backend, a, f.batches[0])["logits"]
}

func (f fixture) outputs(t *testing.T) {
	bare, err := f.model.Adapt(1)
	if err != nil {
		t.Fatal(err)
	}
	sameLogits(t, "base", f.batches[0], f.logits(t, bare), f.values["base_logits"].F32)
	a, _ := withAdapter(t, f.model, f.folder("adapter"))
	sameLogits(t, "adapter", f.batches[0], f.logits(t, a), f.values["logits"].F32)
	if f.converted() {
		a, _ := withAdapter(t, f.model, f.folder("trained"))
		sameLogits(t, "trained", f.batches[0], f.logits(t, a), f.values["logits"].F32)
		return
	}
	out := pass(t, f.backend, a, f.batches[0])
	if f.Loss != nil {
		nearNumber(t, "loss", float64(out["loss"][0]), *f.Loss, 1e-5)
	}
	for name, want := range f.group("grad") {
		near(t, "gradient of "+name, out["grad."+name], want.F32, 1e-4)
	}
	if f.Trainable == nil {
		return
	}
	var count int
	for _, p := range a.Sites.Trainable() {
		count += p.Size()
		if !slices.ContainsFunc(f.Trainable, func(w struct {
			Name  string
			Shape []int
		},
		) bool {
			return w.Name == p.Name && slices.Equal(w.Shape, p.Shape)
		}) {
			t.Errorf("%q of shape %v trains, PEFT does not train it", p.Name, p.Shape)
		}
	}
	if count != f.Count || len(a.Sites.Trainable()) != len(f.Trainable) {
		t.Errorf("trained: want %d values in %d tensors, have %d in %d", f.Count, len(f.Trainable), count, len(a.Sites.Trainable()))
	}
}

// start checks the state before training: with our own first values, and with those of the case.
func (f fixture) start(t *testing.T) {
	init := f.group("init")
	if len(init) == 0 {
		t.Skip("the case has no first values")
	}
	folder := "adapter"
	if f.converted() {
		folder = "trained"
	}
	a, graft := adapt(t, f.model, openAdapter(t, f.folder(folder)).Options)
	if f.Checks.Start == nil || *f.Checks.Start < 1e-4 {
		sameLogits(t, "own start", f.batches[0], f.logits(t, a), f.values["base_logits"].F32)
	}
	l, _ := graft.(*lora)
	for name, want := range f.group("init_base") {
		module, _ := tune.ModuleOf(name)
		u := l.updates[module]
		w, err := f.model.Values(name)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := f.model.Map().Param(name)
		s := l.split(u, w, p.Shape[0], p.Shape[1])
		addProduct(w, s.b, s.a, u.rank, -float64(u.scale))
		near(t, "rest of "+name, w, want.F32, 1e-5)
	}
	fill(t, a, init, func(p string) string { return p })
	want := f.values["init_logits"].F32
	if want == nil {
		want = f.values["base_logits"].F32
	}
	sameLogits(t, "start", f.batches[0], f.logits(t, a), want)
}

// steps trains with the optimizer of the case.
func (f fixture) steps(t *testing.T) {
	if len(f.Losses) == 0 {
		t.Skip("the case has no steps")
	}
	a, _ := withAdapter(t, f.model, f.folder("adapter"))
	if f.converted() {
		a, _ = withAdapter(t, f.model, f.folder("trained"))
		fill(t, a, f.group("init"), func(p string) string { return p })
	}
	first := pass(t, f.backend, a, f.batches[0])
	rate, decay, betas, eps := f.Optimizer.LR, f.Optimizer.Decay, f.Optimizer.Betas, f.Optimizer.Eps
	if p := f.Options; p.LR != nil {
		rate, decay, betas, eps = *p.LR, p.Decay, p.Betas, p.Eps
		a.Grafts[0].(*lora).RateRatio, a.Grafts[0].(*lora).EmbedRatio = p.Ratio, p.Embedding/rate
	}
	groups, of := trainer.Groups(a, decay)
	o, err := optim.New("adamw", optim.Options{Betas: betas, Eps: eps, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: a, Backend: f.backend, Objective: &Instruction{}, Optimizer: o,
		Schedule: func(int) float64 { return rate }, Group: func(name string) int { return of[name] },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.follow(t, a, s, func(what, name string, have, want []float32) {
		have, want = withoutNoise(have, want, first["grad."+name])
		near(t, what, have, want, 1e-4)
	})
	if f.After != nil {
		loss, err := s.Loss(t.Context(), f.batches[:1])
		if err != nil {
			t.Fatal(err)
		}
		nearNumber(t, "loss afterwards", loss, *f.After, 1e-4)
	}
}

// plain returns a stepper with the optimizer of the case, all parameters alike.
func (f fixture) plain(t *testing.T, a *model.Adapted) *trainer.Stepper {
	t.Helper()
	o, err := optim.New("adamw", optim.Options{Betas: f.Optimizer.Betas, Eps: f.Optimizer.Eps})
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: a, Backend: f.backend, Objective: &Instruction{}, Optimizer: o, Schedule: func(int) float64 { return f.Optimizer.LR },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// follow makes the steps of the case: their losses are compared here, the tensors after each step by check.
func (f fixture) follow(t *testing.T, a *model.Adapted, s *trainer.Stepper, check func(what, name string, have, want []float32)) {
	t.Helper()
	for i, want := range f.Losses {
		r, err := s.Step(t.Context(), f.batches[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		nearNumber(t, fmt.Sprintf("loss of step %d", i+1), r.Loss, want, 1e-4)
		for name, want := range f.group(fmt.Sprintf("step%d", i+1)) {
			x, ok := a.Store.Get(name)
			if !ok {
				t.Errorf("no tensor %q", name)
				continue
			}
			check(fmt.Sprintf("%s after step %d", name, i+1), name, x.Values, want.F32)
		}
	}
}

// withoutNoise leaves out where the gradient is so small that Adam's step has a random sign.
func withoutNoise(have, want, grad []float32) (a, b []float32) {
	for i, g := range grad {
		if g == 0 || g > 1e-6 || g < -1e-6 {
			a, b = append(a, have[i]), append(b, want[i])
		}
	}
	return a, b
}

// merge compares the merged weights, and the logits of the merged model, written and opened again.
func (f fixture) merge(t *testing.T) {
	merged := f.group("merged")
	if len(merged) == 0 {
		t.Skip("the case has no merged weights")
	}
	a, _ := withAdapter(t, f.model, f.folder("adapter"))
	dir := filepath.Join(t.TempDir(), "merged")
	if err := export.Directory(dir, a, tune.Text{}, quant.F32); err != nil {
		t.Fatal(err)
	}
	m := openModel(t, dir)
	unstack(merged, m)
	for _, p := range m.Map().Params {
		have, err := m.Values(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := merged[p.Name]; ok {
			near(t, p.Name, have, want.F32, 1e-5)
			delete(merged, p.Name)
		} else if base, err := f.model.Values(p.Name); err == nil && !slices.Equal(have, base) {
			t.Errorf("%s: want the base's values", p.Name)
		}
	}
	for name := range merged {
		if !m.Config.Tied || name != "lm_head.weight" {
			t.Errorf("%s is not in the merged model", name)
		}
	}
	bare, err := m.Adapt(1)
	if err != nil {
		t.Fatal(err)
	}
	sameLogits(t, "merged", f.batches[0], f.logits(t, bare), f.values["merged_logits"].F32)
}

// unstack replaces the tensors of all experts of a layer by those that the model has.
func unstack(merged map[string]golden.Tensor, m *model.Model) {
	var stacks []string
	for _, e := range m.Map().Experts {
		all, ok := merged[e.Stack]
		if !ok || e.Stacked {
			continue
		}
		stacks = append(stacks, e.Stack)
		for i := range e.Count {
			at := (i*e.StackRows + e.First) * e.In
			merged[e.Param(i)] = golden.Tensor{Shape: []int{e.Out, e.In}, F32: all.F32[at : at+e.Out*e.In]}
		}
	}
	for _, name := range stacks {
		delete(merged, name)
	}
}

// files writes the adapter, compares it with PEFT's and opens it again.
func (f fixture) files(t *testing.T) {
	folder := "adapter"
	if f.converted() {
		folder = "trained"
	}
	a, graft := withAdapter(t, f.model, f.folder(folder))
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := tune.SaveAdapter(dir, graft, a.Sites, a.Store, tune.AdapterInfo{Base: f.Base}); err != nil {
		t.Fatal(err)
	}
	again, other := withAdapter(t, f.model, dir)
	sameLogits(t, "read again", f.batches[0], f.logits(t, again), f.values["logits"].F32)
	f.compareConfig(t, dir)
	l, thin := graft.(*lora)
	if thin && !slices.Equal(sortedKeys(l.updates), sortedKeys(other.(*lora).updates)) {
		t.Errorf("modules: want %v, have %v", sortedKeys(l.updates), sortedKeys(other.(*lora).updates))
	}
	want := golden.Load(t, filepath.Join(f.dir, "adapter", "adapter_model.safetensors"))
	have := golden.Load(t, filepath.Join(dir, "adapter_model.safetensors"))
	if !f.converted() && thin && l.splitting() {
		return // PEFT's file stands on a changed base, ours on the base itself
	}
	for name, w := range want {
		h, ok := have[name]
		delete(have, name)
		switch {
		case !ok && strings.HasSuffix(name, ".base_layer.weight"):
			// PEFT saves the base's embedding along, even where it is the base's own.
		case !ok || !slices.Equal(h.Shape, w.Shape):
			t.Errorf("%s: want shape %v, have %v", name, w.Shape, h.Shape)
		case !f.converted() && !slices.Equal(h.F32, w.F32):
			t.Errorf("%s: values differ from the file that was read", name)
		}
	}
	if len(have) > 0 {
		t.Errorf("PEFT does not write %v", sortedKeys(have))
	}
	if f.converted() {
		f.sameProducts(t, dir)
	}
}

// sameProducts compares the updates of two adapters whose factors differ by the signs of singular vectors.
func (f fixture) sameProducts(t *testing.T, dir string) {
	delta := func(dir string) map[string][]float32 {
		a, graft := withAdapter(t, f.model, dir)
		out := map[string][]float32{}
		for path, u := range graft.(*lora).updates {
			p, _ := f.model.Map().Param(path + ".weight")
			w := make([]float32, p.Size())
			x, y, rank := graft.(*lora).values(u, func(name string) []float32 { v, _ := a.Store.Get(name); return v.Values })
			addProduct(w, y, x, rank, float64(u.scale))
			out[path] = w
		}
		return out
	}
	want, have := delta(f.folder("adapter")), delta(dir)
	for path, w := range want {
		near(t, "update of "+path, have[path], w, 1e-4)
	}
}

// compareConfig compares what our adapter_config.json says with PEFT's, key by key. Keys that we leave out have PEFT's
// default; targets are compared by what they choose.
func (f fixture) compareConfig(t *testing.T, dir string) {
	var want, have map[string]any
	golden.JSON(t, filepath.Join(f.dir, "adapter", "adapter_config.json"), &want)
	text, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &have); err != nil {
		t.Fatal(err)
	}
	if indented, _ := json.MarshalIndent(have, "", "  "); !bytes.Equal(append(indented, '\n'), text) {
		t.Errorf("adapter_config.json is not written with an indent of 2 and sorted keys")
	}
	if _, ok := have["target_modules"].([]any); !ok && want["target_modules"] != nil && want["peft_type"] != "ADAPTION_PROMPT" { // which has one name
		t.Errorf("target_modules: want a list, have %v", have["target_modules"])
	}
	started := want["init_lora_weights"] // ours is the plain form, on the base itself
	for key, w := range want {
		h, ok := have[key]
		switch key {
		case "target_modules":
			continue
		case "auto_mapping", "task_type":
			if want["task_type"] == nil {
				continue // PEFT was not told what the model does
			}
		case "r", "lora_alpha", "rank_pattern", "alpha_pattern", "init_lora_weights":
			if started == "pissa" || started == "olora" {
				continue
			}
		}
		w, h = plain(w), plain(h)
		if !ok && w != nil && w != false && fmt.Sprint(w) != fmt.Sprint(defaults[key]) {
			t.Errorf("%s: want %v, the file does not say", key, w)
		}
		if ok && fmt.Sprint(h) != fmt.Sprint(w) {
			t.Errorf("%s: want %v, have %v", key, w, h)
		}
	}
}

// defaults are values of keys that PEFT writes and that mean nothing for plain use.
var defaults = map[string]any{
	"eps": 6e-5, "module_dropout": 0, "num_cayley_neumann_terms": 5, "rank_dropout": 0, "n_frequency_pattern": map[string]any{},
	"target_parameters": []any{}, "loftq_config": map[string]any{}, "megatron_core": "megatron.core", "qalora_group_size": 16,
}

// plain sorts a list, which is a set in PEFT, and takes the ids out of a map with one module.
func plain(v any) any {
	switch v := v.(type) {
	case []any:
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	case map[string]any:
		if ids, ok := v["embed_tokens"]; ok && len(v) == 1 {
			return plain(ids)
		}
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
