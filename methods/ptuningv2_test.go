package methods

import "testing"

func TestPTuningCount(t *testing.T) {
	checkCounts(t, []countCase{
		{"deep", smollm2, &PTuning{Tokens: 100, Depth: "all", Encoder: "none", Init: "zero"}, 1_152_000},
		{"deep with an encoder", llama8b, &PTuning{Tokens: 20, Depth: "all", Encoder: "mlp"}, 34_165_248},
		{"v1 by an mlp", smollm2, &PTuning{Tokens: 20, Depth: "input", Encoder: "mlp"}, 1_008_576},
		{"v1 by an lstm", smollm2, &PTuning{Tokens: 20, Depth: "input", Encoder: "lstm", Layers: 2}, 15_293_376},
	})
}

func TestPTuningRefuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &PTuning{Tokens: 3, Depth: "all", Encoder: "lstm", Layers: 1}, "encoder: want none or mlp with depth all")
	refuses(t, m, &PTuning{Tokens: 3, Depth: "all", Encoder: "none", Init: "text"}, "text: want what init text starts from")
}
