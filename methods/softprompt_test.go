package methods

import (
	"path/filepath"
	"slices"
	"testing"

	"tunesmith/tune"
)

func TestSoftPromptCount(t *testing.T) {
	checkCounts(t, []countCase{ // tokens · hidden
		{"of SmolLM2-135M", smollm2, &SoftPrompt{Tokens: 20, Init: "random"}, 11_520},
		{"of Llama-3 8B", llama8b, &SoftPrompt{Tokens: 100, Init: "random"}, 409_600},
	})
}

func TestSoftPromptRefuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &SoftPrompt{Tokens: 3, Init: "text"}, "text: want what init text starts from, have none")
	refuses(t, m, &SoftPrompt{Tokens: 3, Init: "transfer", From: t.TempDir()}, "from: ")
	refuses(t, m, &SoftPrompt{Tokens: 40, Init: "random"}, "tokens: want fewer virtual tokens than the model's context of 32, have 40")
}

// TestPromptTransfer hands a prompt on to a longer one.
func TestPromptTransfer(t *testing.T) {
	m := small(t)
	a, graft := adapt(t, m, &SoftPrompt{Tokens: 2, Init: "random"})
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := tune.SaveAdapter(dir, graft, a.Sites, a.Store, tune.AdapterInfo{}); err != nil {
		t.Fatal(err)
	}
	b, _ := adapt(t, m, &SoftPrompt{Tokens: 3, Init: "transfer", From: dir})
	want := a.Trained()[0].Values
	want = append(slices.Clone(want), want[:8]...)
	if have := b.Trained()[0].Values; !slices.Equal(have, want) {
		t.Errorf("want the rows of the other prompt from the first again, have %v for %v", have, want)
	}
}
