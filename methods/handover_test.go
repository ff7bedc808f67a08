//go:build e2e

package methods

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/export"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/quant"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// handed is what the adapters learn, and what logits are compared on.
var handed = []string{
	"The lighthouse keeper wrote down every ship that passed, its flag, its course and the hour.",
	"To bake bread, mix flour, water, salt and yeast, wait until the dough has doubled, and heat the oven well.",
	"Q: Which of the two rivers is longer? A: The first one, by about 120 kilometres.",
	"for i := range rows { sum += rows[i] } // 3 + 4 = 7",
}

// TestHandOver writes what scripts/check_peft.py compares with PEFT and transformers: a real model as a directory,
// adapters that were trained on it for a few steps, the merged models, and the logits that they have here. The folder is
// the value of TUNESMITH_HANDOVER.
func TestHandOver(t *testing.T) {
	out := os.Getenv("TUNESMITH_HANDOVER")
	if out == "" {
		t.Skip("scripts/check_peft.py runs this test")
	}
	source := openModel(t, os.Getenv("TUNESMITH_SMOLLM2"))
	text, err := tune.OpenText(source.Path, source.File, "")
	if err != nil {
		t.Fatal(err)
	}
	bare, err := source.Adapt(1)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(out, "base")
	if err := export.Directory(base, bare, text, quant.F32); err != nil {
		t.Fatal(err)
	}
	m := openModel(t, base)
	var ids [][]int
	for _, s := range handed {
		ids = append(ids, text.Tokenizer.IDs(s))
	}
	writeLogits(t, filepath.Join(out, "base.safetensors"), m, nil, ids)
	for name, o := range map[string]*LoRA{
		"plain": loraWith(func(o *LoRA) {}),
		"every": loraWith(func(o *LoRA) {
			o.Rank, o.RSLoRA, o.DoRA, o.TrainTokens = 4, true, true, []int{17, 300}
			o.RankPattern = tune.Patterns[int]{{Key: "v_proj", Value: 8}}
			o.TrainFully = tune.Targets{"model.norm"}
		}),
		"pissa":     loraWith(func(o *LoRA) { o.Rank, o.Init, o.Targets = 4, "pissa", tune.Targets{"q_proj", "v_proj"} }),
		"embedding": loraWith(func(o *LoRA) { o.Targets = tune.Targets{"embed_tokens", "v_proj"} }),
	} {
		t.Run(name, func(t *testing.T) { handOver(t, filepath.Join(out, name), m, o, text, ids) })
	}
}

func handOver(t *testing.T, dir string, m *model.Model, o *LoRA, text tune.Text, ids [][]int) {
	a, graft := adapt(t, m, o)
	optimizer, err := optim.New("adamw", optim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: a, Backend: openBackend(t), Objective: &Instruction{}, Optimizer: optimizer,
		Schedule: func(int) float64 { return 1e-3 }, Clip: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := rows(ids)
	var first, last float64
	for i := range 5 {
		r, err := s.Step(t.Context(), []data.Batch{b})
		if err != nil {
			t.Fatal(err)
		}
		if last = r.Loss; i == 0 {
			first = r.Loss
		}
	}
	if last >= first {
		t.Errorf("the loss went from %g to %g", first, last)
	}
	// Trained further than five steps would: the comparison should not be one of small numbers.
	rng := rand.New(rand.NewPCG(7, 8))
	for _, x := range a.Trained() {
		if strings.HasSuffix(x.Name, "lora_B.weight") {
			for i := range x.Values {
				x.Values[i] += float32(rng.NormFloat64() * 0.01)
			}
			x.Touch()
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	writeLogits(t, filepath.Join(dir, "logits.safetensors"), m, a, ids)
	if err := tune.SaveAdapter(filepath.Join(dir, "adapter"), graft, a.Sites, a.Store, tune.AdapterInfo{Base: m.Path}); err != nil {
		t.Fatal(err)
	}
	if err := export.Directory(filepath.Join(dir, "merged"), a, text, quant.F32); err != nil {
		t.Fatal(err)
	}
	if err := export.GGUF(filepath.Join(dir, "merged.gguf"), a, text, quant.F32); err != nil {
		t.Fatal(err)
	}
}

// rows lays sequences into one batch.
func rows(ids [][]int) data.Batch {
	cols := 0
	for _, s := range ids {
		cols = max(cols, len(s))
	}
	n := len(ids) * cols
	x, labels, mask := make([]int32, n), make([]int32, n), make([]int32, n)
	for r, s := range ids {
		for i := range cols {
			labels[r*cols+i] = -100
			if i < len(s) {
				x[r*cols+i], labels[r*cols+i], mask[r*cols+i] = int32(s[i]), int32(s[i]), 1
			}
		}
	}
	return batchOf(len(ids), cols, x, labels, mask, nil, nil)
}

// writeLogits writes the ids of each text and the logits at its positions.
func writeLogits(t *testing.T, path string, m *model.Model, a *model.Adapted, ids [][]int) {
	t.Helper()
	if a == nil {
		var err error
		if a, err = m.Adapt(1); err != nil {
			t.Fatal(err)
		}
	}
	b := rows(ids)
	logits := keep(b.Segments, pass(t, openBackend(t), a, b)["logits"])
	var tensors []checkpoint.Tensor
	v := m.Config.Vocab
	for i, s := range ids {
		n := len(s)
		row := make([]float32, n)
		for k, id := range s {
			row[k] = float32(id)
		}
		name := string(rune('0' + i))
		tensors = append(tensors, checkpoint.Float32Tensor("ids."+name, []int{n}, row),
			checkpoint.Float32Tensor("logits."+name, []int{n, v}, slices.Clone(logits[:n*v])))
		logits = logits[n*v:]
	}
	if err := checkpoint.WriteSafetensors(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
}
