package methods

import (
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// TestVirtualTokens compares the ways in which virtual tokens meet rows: alone, packed behind each other, and with the
// layers recomputed.
func TestVirtualTokens(t *testing.T) {
	m, backend := small(t), openBackend(t)
	for name, o := range map[string]tune.Parameters{
		"prompt":     &SoftPrompt{Tokens: 3, Init: "vocabulary", words: words{bos: -1}},
		"prefix":     &Prefix{Tokens: 3, Init: "vocabulary", words: words{bos: -1}},
		"projection": &Prefix{Tokens: 3, Projection: 5},
		"lstm":       &PTuning{Tokens: 3, Depth: "input", Encoder: "lstm", Layers: 1, Width: 4},
	} {
		t.Run(name, func(t *testing.T) {
			graft, err := o.Graft(m.Map())
			if err != nil {
				t.Fatal(err)
			}
			a, err := trainer.Adapt(t.Context(), m, graft, backend, 1)
			if err != nil {
				t.Fatal(err)
			}
			one := batchOf(2, 4, []int32{3, 4, 5, 6, 9, 8, 7, 2}, []int32{-100, 4, 5, 6, -100, 8, 7, 2}, nil, nil, nil)
			packed := batchOf(1, 8, one.IDs, []int32{-100, 4, 5, 6, -100, 8, 7, 2}, nil, []int32{0, 1, 2, 3, 0, 1, 2, 3}, []int32{0, 0, 0, 0, 1, 1, 1, 1})
			x, y := pass(t, backend, a, one), pass(t, backend, a, packed)
			for key, want := range x {
				near(t, key+" of packed rows", y[key], want, 1e-5)
			}
			again := recomputed(t, backend, a, one)
			for key, want := range again {
				near(t, key+" with layers recomputed", want, x[key], 1e-5)
			}
		})
	}
}

// recomputed returns the gradients of a step that keeps only the layers' inputs.
func recomputed(t *testing.T, backend engine.Backend, a *model.Adapted, b data.Batch) map[string][]float32 {
	t.Helper()
	return passWith(t, backend, a, b, func(in *site.Inputs) { in.Recompute = true })
}

func TestPrefixCount(t *testing.T) {
	checkCounts(t, []countCase{ // tokens · 2 · layers · width of the keys
		{"of SmolLM2-135M", smollm2, &Prefix{Tokens: 20, Init: "zero"}, 230_400},
		{"of Llama-3 8B", llama8b, &Prefix{Tokens: 100, Init: "zero"}, 6_553_600},
		{"with a projection", smollm2, &Prefix{Tokens: 20, Projection: 512}, 6_012_416},
		{"with a projection as wide as the keys", smollm2, &Prefix{Tokens: 20, Projection: 192}, 2_264_256},
	})
}

func TestPrefixRefuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &Prefix{Tokens: 3, Init: "text"}, "text: want what init text starts from, have none")
	refuses(t, m, &Prefix{Tokens: 32, Init: "zero"}, "tokens: want fewer virtual tokens than the model's context of 32, have 32")
}
