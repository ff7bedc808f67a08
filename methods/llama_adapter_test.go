package methods

import "testing"

func TestLlamaAdapterCount(t *testing.T) {
	checkCounts(t, []countCase{ // layers · (tokens · hidden + 1)
		{"all layers", smollm2, &LlamaAdapter{Tokens: 10}, 30 * 5761},
		{"the last layers", llama8b, &LlamaAdapter{Tokens: 10, Layers: 30}, 30 * 40961},
	})
}

func TestLlamaAdapterRefuses(t *testing.T) {
	refuses(t, small(t), &LlamaAdapter{Tokens: 2, Layers: 3}, "layers: want at most the model's 2, have 3")
}
