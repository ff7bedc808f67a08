package methods

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tunesmith/internal/golden"
	"tunesmith/tune"
)

// TestGoldenBottleneck checks every bottleneck adapter of the adapters library: outputs, gradients, first values, five
// steps, and the files.
func TestGoldenBottleneck(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, filepath.Join("adapter", "adapter.safetensors")) {
		path := filepath.Join(dir, name)
		var config struct {
			Config struct {
				Architecture string
				Gating       bool `json:"use_gating"`
			}
		}
		golden.JSON(t, filepath.Join(path, "adapter", "adapter_config.json"), &config)
		if config.Config.Architecture != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if config.Config.Gating {
				if _, err := tune.OpenAdapter(filepath.Join(path, "adapter")); err == nil {
					t.Error("a gate reads what is not written yet: want an error")
				}
				return
			}
			f := fixture{dir: path, backend: openBackend(t), values: golden.Load(t, filepath.Join(path, "case.safetensors"))}
			golden.JSON(t, filepath.Join(path, "case.json"), &f.peftCase)
			f.model, f.batches = openModel(t, filepath.Join(dir, f.Base)), batches(f.values)
			t.Run("outputs", f.outputs)
			t.Run("start", f.firstValues)
			t.Run("steps", f.plainSteps)
			t.Run("files", f.hubFiles)
		})
	}
}

// firstValues checks the state before training: our first values where they start from the base, and those of the case.
func (f fixture) firstValues(t *testing.T) {
	a, _ := adapt(t, f.model, openAdapter(t, f.folder("adapter")).Options)
	if f.Checks.Start != nil && *f.Checks.Start == 0 {
		sameLogits(t, "own start", f.batches[0], f.logits(t, a), f.values["base_logits"].F32)
	}
	fill(t, a, f.group("init"), func(p string) string { return p })
	sameLogits(t, "start", f.batches[0], f.logits(t, a), f.values["init_logits"].F32)
}

// plainSteps trains with the optimizer of the case, all parameters alike.
func (f fixture) plainSteps(t *testing.T) {
	a, _ := withAdapter(t, f.model, f.folder("adapter"))
	first := pass(t, f.backend, a, f.batches[0])
	s := f.plain(t, a)
	f.follow(t, a, s, func(what, name string, have, want []float32) {
		have, want = withoutNoise(have, want, first["grad."+name])
		near(t, what, have, want, 2e-4)
	})
	loss, err := s.Loss(t.Context(), f.batches[:1])
	if err != nil {
		t.Fatal(err)
	}
	nearNumber(t, "loss afterwards", loss, *f.After, 1e-4)
}

func (f fixture) hubFiles(t *testing.T) {
	a, graft := withAdapter(t, f.model, f.folder("adapter"))
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := tune.SaveAdapter(dir, graft, a.Sites, a.Store, tune.AdapterInfo{Base: f.Base, Type: f.model.Config.Type}); err != nil {
		t.Fatal(err)
	}
	again, _ := withAdapter(t, f.model, dir)
	sameLogits(t, "read again", f.batches[0], f.logits(t, again), f.values["logits"].F32)
	want, have := map[string]any{}, map[string]any{}
	golden.JSON(t, filepath.Join(f.dir, "adapter", "adapter_config.json"), &want)
	golden.JSON(t, filepath.Join(dir, "adapter_config.json"), &have)
	for key, h := range have {
		if inner, ok := h.(map[string]any); ok {
			for key, h := range inner {
				if w := want["config"].(map[string]any)[key]; !reflect.DeepEqual(h, w) {
					t.Errorf("config.%s: want %v, have %v", key, w, h)
				}
			}
		} else if !reflect.DeepEqual(h, want[key]) {
			t.Errorf("%s: want %v, have %v", key, want[key], h)
		}
	}
	tensors := golden.Load(t, filepath.Join(f.dir, "adapter", "adapter.safetensors"))
	mine := golden.Load(t, filepath.Join(dir, "adapter.safetensors"))
	if !slices.Equal(sortedKeys(tensors), sortedKeys(mine)) {
		t.Errorf("tensors: want %v, have %v", sortedKeys(tensors), sortedKeys(mine))
	}
	for name, w := range tensors {
		if !slices.Equal(w.F32, mine[name].F32) {
			t.Errorf("%s: values differ from the file that was read", name)
		}
	}
}

// TestGoldenStack puts adapters behind each other, each on what the one before has made.
func TestGoldenStack(t *testing.T) {
	dir := golden.Dir(t, "peft")
	path := filepath.Join(dir, "adapter_compositions")
	f := fixture{dir: path, backend: openBackend(t), values: golden.Load(t, filepath.Join(path, "case.safetensors"))}
	golden.JSON(t, filepath.Join(path, "case.json"), &f.peftCase)
	f.model, f.batches = openModel(t, filepath.Join(dir, f.Base)), batches(f.values)
	for name, want := range f.group("logits") {
		letters, stack := strings.CutPrefix(name, "stack_")
		if !stack && len(name) > 1 {
			continue // averages, batches of several adapters, and fusion
		}
		t.Run(name, func(t *testing.T) {
			var grafts []any
			var parts []*tune.Adapter
			for _, letter := range letters {
				ad := openAdapter(t, f.folder("adapter_"+string(letter)))
				graft, err := ad.Options.Graft(f.model.Map())
				if err != nil {
					t.Fatal(err)
				}
				grafts, parts = append(grafts, graft), append(parts, ad)
			}
			a, err := f.model.Adapt(1, grafts...)
			if err != nil {
				t.Fatal(err)
			}
			for i, ad := range parts {
				alone, err := f.model.Survey(grafts[i])
				if err != nil {
					t.Fatal(err)
				}
				if err := ad.Fill(a.Store, alone); err != nil {
					t.Fatal(err)
				}
			}
			sameLogits(t, name, f.batches[0], f.logits(t, a), want.F32)
		})
	}
}
