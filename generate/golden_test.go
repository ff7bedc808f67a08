package generate

import (
	"path/filepath"
	"slices"
	"testing"

	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/internal/golden"
	"tunesmith/model"
)

// TestGoldenGreedy continues the prompts of every case with the cache, alone and in a batch.
func TestGoldenGreedy(t *testing.T) {
	dir := golden.Dir(t, "models")
	done := 0
	for _, name := range golden.Cases(t, dir, "case.json") {
		t.Run(name, func(t *testing.T) {
			var c struct {
				Type   string `json:"model_type"`
				Head   string `json:"head"`
				Greedy []struct {
					Prompt       []int `json:"prompt"`
					Continuation []int `json:"continuation"`
				} `json:"greedy"`
			}
			golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
			if !slices.Contains(model.Types(), c.Type) || c.Head != "lm" || len(c.Greedy) == 0 {
				t.Skip("no greedy continuation of a type that is built")
			}
			m, err := model.Open(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			a, err := m.Adapt(0)
			if err != nil {
				t.Fatal(err)
			}
			backend, err := engine.Open("cpu", engine.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer backend.Close()
			g := New(a, backend)
			var prompts [][]int
			var want [][]int
			for _, p := range c.Greedy {
				if len(p.Prompt)+len(p.Continuation) > m.Config.MaxPositions {
					continue // beyond the context a cache cannot follow a scaling that depends on the length
				}
				prompts, want = append(prompts, p.Prompt), append(want, p.Continuation)
			}
			if len(prompts) == 0 {
				t.Skip("all prompts go beyond the context")
			}
			done++
			check := func(prompts, want [][]int) {
				t.Helper()
				out, err := g.Generate(t.Context(), prompts, Options{MaxTokens: len(want[0])})
				if err != nil {
					t.Fatal(err)
				}
				for i := range want {
					if !slices.Equal(out[i].IDs, want[i]) {
						t.Errorf("prompt %v: want %v, have %v", prompts[i], want[i], out[i].IDs)
					}
				}
			}
			check(prompts, want)
			for i := range prompts {
				check(prompts[i:i+1], want[i:i+1])
			}
		})
	}
	if done == 0 {
		t.Fatal("no case was run")
	}
}

func TestRefusals(t *testing.T) {
	if err := (Sampling{Temperature: -1, TopP: 2, TopK: -3}).Validate(); err == nil {
		t.Error("values out of range are taken")
	}
}
