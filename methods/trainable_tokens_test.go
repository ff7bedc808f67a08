package methods

import "testing"

func TestTrainableTokensCount(t *testing.T) {
	checkCounts(t, []countCase{ // tokens · hidden
		{"of a tied table", smollm2, &TrainableTokens{Tokens: []int{3, 5}}, 1152},
		{"of an untied table", llama8b, &TrainableTokens{Tokens: []int{3}}, 4096},
	})
}

func TestTrainableTokensRefuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &TrainableTokens{}, "tokens: want ids of the tokens that train, have none")
	refuses(t, m, &TrainableTokens{Tokens: []int{16}}, "want different ids below 16, have 16")
}
