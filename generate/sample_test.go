package generate

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestGreedyTakesTheLargest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logits := rapid.SliceOfN(rapid.Float32Range(-10, 10), 1, 50).Draw(t, "logits")
		got := newSampler(Sampling{}, nil, nil).pick(logits)
		for i, v := range logits {
			if v > logits[got] || v == logits[got] && i < got {
				t.Fatalf("token %d of logit %v was chosen, %d has %v", got, logits[got], i, v)
			}
		}
	})
}

// TestFilters: only tokens that pass the filters are drawn, and all of them are.
func TestFilters(t *testing.T) {
	logits := []float32{3, 2, 1, 0} // probabilities 0.644, 0.237, 0.087, 0.032
	for _, c := range []struct {
		name string
		s    Sampling
		want []bool
	}{
		{"all", Sampling{Temperature: 1}, []bool{true, true, true, true}},
		{"top-k", Sampling{Temperature: 1, TopK: 2}, []bool{true, true, false, false}},
		{"top-p", Sampling{Temperature: 1, TopP: 0.9}, []bool{true, true, true, false}},
		{"min-p", Sampling{Temperature: 1, MinP: 0.3}, []bool{true, true, false, false}},
		{"penalty", Sampling{Temperature: 0.01, RepetitionPenalty: 2}, []bool{false, true, false, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSampler(c.s, []int{0}, rand.New(rand.NewPCG(1, 1)))
			seen := make([]bool, 4)
			for range 2000 {
				s.seen = map[int]bool{0: true}
				seen[s.pick(logits)] = true
			}
			for i := range seen {
				if seen[i] != c.want[i] {
					t.Errorf("token %d: want %v, have %v", i, c.want[i], seen[i])
				}
			}
		})
	}
}

// TestSampleFollowsProbabilities draws many tokens and compares shares within four standard deviations.
func TestSampleFollowsProbabilities(t *testing.T) {
	s := newSampler(Sampling{Temperature: 1}, nil, rand.New(rand.NewPCG(5, 6)))
	want := []float64{0.6439, 0.2369, 0.0871, 0.0321}
	const n = 20000
	var counts [4]int
	for range n {
		counts[s.pick([]float32{3, 2, 1, 0})]++
	}
	for i, w := range want {
		share := float64(counts[i]) / n
		if d := share - w; d*d > 16*w*(1-w)/n {
			t.Errorf("token %d: want a share of %.4f, have %.4f", i, w, share)
		}
	}
}
