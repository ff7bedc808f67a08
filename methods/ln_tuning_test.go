package methods

import (
	"testing"

	"tunesmith/tune"
)

func TestLNTuningCount(t *testing.T) {
	checkCounts(t, []countCase{ // (2 · layers + 1) · hidden
		{"of SmolLM2-135M", smollm2, &LNTuning{}, 35_136},
		{"of Llama-3 8B", llama8b, &LNTuning{}, 266_240},
		{"the last norm", smollm2, &LNTuning{Targets: tune.Targets{"norm"}}, 576},
	})
}

func TestLNTuningRefuses(t *testing.T) {
	refuses(t, small(t), &LNTuning{Targets: tune.Targets{"q_proj"}}, "targets: [q_proj] without [] chooses none of the model's 5 norms")
}
