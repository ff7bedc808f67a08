//go:build e2e

package model

import (
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tunesmith/engine"
	"tunesmith/token"
)

// TestRealGemma runs Gemma-3-270M from its GGUF file as it is: the tokenizer, the next tokens and the loss of a text.
// The numbers are those of transformers 5.24 in single precision on the same file.
func TestRealGemma(t *testing.T) {
	path, err := exec.Command("../scripts/fetch_gemma3", "../models").Output()
	if err != nil {
		t.Fatalf("scripts/fetch_gemma3: %v", err)
	}
	m, err := Open(strings.TrimSpace(string(path)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tok, err := token.FromGGUF(m.File.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	prompt := []int{2, 818, 5279, 529, 7001, 563}
	if got := append([]int{2}, tok.IDs("The capital of France is")...); !slices.Equal(got, prompt) && !slices.Equal(got[1:], prompt) {
		t.Errorf("ids: want %v, have %v", prompt, got)
	}
	backend, err := engine.Open("cpu", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	greedy := []int{506, 5279, 529, 506, 2891, 529, 7001, 236761, 1030, 563, 506, 7488, 3207, 528, 7001, 532, 506, 1855, 7488, 3207, 528, 3879, 236761, 1030}
	ids := slices.Concat(prompt, greedy)
	logits, v := allLogits(t, m, backend, ids), m.Config.Vocab
	for i, want := range greedy {
		at := len(prompt) - 1 + i
		if got := argmax(logits[at*v : (at+1)*v]); got != want {
			t.Errorf("token %d: want %d, have %d", i, want, got)
		}
	}
	var loss float64
	for i, id := range prompt[1:] {
		row := logits[i*v : (i+1)*v]
		var sum float64
		for _, z := range row {
			sum += math.Exp(float64(z) - float64(row[id]))
		}
		loss += math.Log(sum) / float64(len(prompt)-1)
	}
	if math.Abs(loss-3.986047) > 1e-4 {
		t.Errorf("loss: want 3.986047, have %.6f", loss)
	}
	last := logits[(len(prompt)-1)*v : len(prompt)*v]
	for id, want := range map[int]float64{506: 19.0915, 496: 18.5476, 9079: 18.2686, 886: 18.1130, 3224: 17.7839} {
		if math.Abs(float64(last[id])-want) > 1e-3 {
			t.Errorf("logit of token %d: want %.4f, have %.4f", id, want, last[id])
		}
	}
}
