package methods

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tunesmith/checkpoint"
	"tunesmith/export"
	"tunesmith/internal/golden"
	"tunesmith/quant"
	"tunesmith/site"
	"tunesmith/tune"
)

// stackedBase writes the model of a directory with one tensor for all experts of a layer.
func stackedBase(t *testing.T, from string) string {
	t.Helper()
	m := openModel(t, from)
	dir := t.TempDir()
	config, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
		t.Fatal(err)
	}
	stacks, shapes := map[string][]float32{}, map[string][]int{}
	part := map[string]bool{}
	for _, e := range m.Map().Experts {
		if stacks[e.Stack] == nil {
			stacks[e.Stack], shapes[e.Stack] = make([]float32, e.Count*e.StackRows*e.In), []int{e.Count, e.StackRows, e.In}
		}
		for i := range e.Count {
			v, err := m.Values(e.Param(i))
			if err != nil {
				t.Fatal(err)
			}
			copy(stacks[e.Stack][(i*e.StackRows+e.First)*e.In:], v)
			part[e.Param(i)] = true
		}
	}
	var tensors []checkpoint.Tensor
	for name, v := range stacks {
		tensors = append(tensors, checkpoint.Float32Tensor(name, shapes[name], v))
	}
	for _, p := range m.Map().Params {
		if !part[p.Name] {
			v, err := m.Values(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.Replace(p.Name, ".block_sparse_moe.", ".mlp.", 1)
			tensors = append(tensors, checkpoint.Float32Tensor(name, p.Shape, v))
		}
	}
	if _, err := checkpoint.WriteSharded(dir, tensors, map[string]string{"format": "pt"}, 1<<30); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestGoldenStackedExperts uses PEFT's adapters of experts on the same base in its other form on disk: logits, merged
// weights and the merged model.
func TestGoldenStackedExperts(t *testing.T) {
	dir := golden.Dir(t, "peft")
	done := 0
	for _, name := range golden.Cases(t, dir, filepath.Join("adapter", "adapter_config.json")) {
		var c peftCase
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
		text, err := os.ReadFile(filepath.Join(dir, name, "adapter", "adapter_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "mlp.experts.") {
			continue
		}
		done++
		t.Run(name, func(t *testing.T) {
			base := openModel(t, stackedBase(t, filepath.Join(dir, c.Base)))
			f := fixture{
				peftCase: c, dir: filepath.Join(dir, name), backend: openBackend(t), model: base,
				values: golden.Load(t, filepath.Join(dir, name, "case.safetensors")),
			}
			f.batches = batches(f.values)
			a, _ := withAdapter(t, base, f.folder("adapter"))
			sameLogits(t, "adapter", f.batches[0], f.logits(t, a), f.values["logits"].F32)
			out := filepath.Join(t.TempDir(), "merged")
			if err := export.Directory(out, a, tune.Text{}, quant.F32); err != nil {
				t.Fatal(err)
			}
			merged := openModel(t, out)
			for name, want := range f.group("merged") {
				have, err := merged.Values(name)
				if err != nil {
					t.Fatal(err)
				}
				near(t, name, have, want.F32, 1e-5)
			}
			bare, err := merged.Adapt(1)
			if err != nil {
				t.Fatal(err)
			}
			sameLogits(t, "merged", f.batches[0], f.logits(t, bare), f.values["merged_logits"].F32)
		})
	}
	if done == 0 {
		t.Error("no adapter of stacked experts")
	}
}

// TestLoRAExpertsRefuses: what an expert's update cannot have is an error that says so.
func TestLoRAExpertsRefuses(t *testing.T) {
	m := &site.Map{Hidden: 32, Experts: []site.Experts{
		{Path: "l.0.mlp.experts", Name: "w1", In: 8, Out: 6, Count: 3, Stack: "l.0.mlp.experts.gate_up_proj", StackRows: 12},
	}}
	for _, c := range []struct {
		lora LoRA
		want string
	}{
		{LoRA{Rank: 2, Alpha: 2, Targets: tune.Targets{"w1"}, DoRA: true}, "neither dora"},
		{LoRA{Rank: 2, Alpha: 2, Targets: tune.Targets{"w1"}, RankPattern: tune.Patterns[int]{{Key: "1.w1", Value: 4}}}, "one rank"},
		{LoRA{Rank: 2, Alpha: 2, Targets: tune.Targets{"w1"}, TargetParameters: tune.Targets{"mlp.experts.gate_proj"}}, "gate_up_proj"},
		{LoRA{Rank: 2, Alpha: 2, Targets: tune.Targets{"w1"}, TargetParameters: tune.Targets{"gate_up_proj"}, DoRA: true}, "dora"},
	} {
		if _, err := c.lora.Graft(m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: want an error with %q, have %v", c.lora, c.want, err)
		}
	}
}
