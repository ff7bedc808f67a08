package methods

import (
	"testing"

	"tunesmith/tune"
)

func TestIA3Count(t *testing.T) {
	o := &IA3{Targets: tune.Targets{"k_proj", "v_proj", "down_proj"}, FeedForward: tune.Targets{"down_proj"}}
	checkCounts(t, []countCase{ // layers · (2 · width of the keys + feed-forward)
		{"of SmolLM2-135M", smollm2, o, 57_600},
		{"of Llama-3 8B", llama8b, o, 524_288},
	})
}

func TestIA3Refuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &IA3{}, "targets: want all-linear or names of modules, have none")
	refuses(t, m, &IA3{Targets: tune.Targets{"embed_tokens"}}, "targets: want projections, have the embedding or the output")
}
