package generate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling says how a token is chosen from the logits; the zero value takes the largest. The filters act in the
// order of transformers: repetition penalty, temperature, top-k, top-p, min-p.
type Sampling struct {
	Temperature       float64 // 0 is greedy
	TopK              int     // keep the k likeliest, 0 for all
	TopP              float64 // keep the likeliest that together reach p, 0 or 1 for all
	MinP              float64 // keep those at least p times as likely as the likeliest
	RepetitionPenalty float64 // above 1 makes tokens of the text so far less likely (Keskar et al. 2019); 0 or 1 is off
}

// Validate reports all values that are out of range.
func (s Sampling) Validate() error {
	var errs []error
	bad := func(name, want string, have any) {
		errs = append(errs, fmt.Errorf("%s: want %s, have %v", name, want, have))
	}
	if !(s.Temperature >= 0) {
		bad("temperature", ">= 0", s.Temperature)
	}
	if s.TopK < 0 {
		bad("top_k", ">= 0", s.TopK)
	}
	if !(s.TopP >= 0 && s.TopP <= 1) {
		bad("top_p", "0 … 1", s.TopP)
	}
	if !(s.MinP >= 0 && s.MinP <= 1) {
		bad("min_p", "0 … 1", s.MinP)
	}
	if !(s.RepetitionPenalty >= 0) {
		bad("repetition_penalty", ">= 0", s.RepetitionPenalty)
	}
	return errors.Join(errs...)
}

// sampler chooses the tokens of one row.
type sampler struct {
	Sampling
	rng  *rand.Rand
	seen map[int]bool // tokens of the text so far
	work []candidate
}

type candidate struct {
	id    int
	logit float64
}

func newSampler(s Sampling, prompt []int, rng *rand.Rand) *sampler {
	out := &sampler{Sampling: s, rng: rng, seen: map[int]bool{}}
	for _, id := range prompt {
		out.seen[id] = true
	}
	return out
}

// pick chooses a token; of equal logits the lowest id is the likeliest.
func (s *sampler) pick(logits []float32) int {
	id := s.choose(logits)
	s.seen[id] = true
	return id
}

func (s *sampler) choose(logits []float32) int {
	if s.Temperature == 0 {
		best, bestLogit := 0, math.Inf(-1)
		for i, v := range logits {
			if x := s.penalised(i, float64(v)); x > bestLogit {
				best, bestLogit = i, x
			}
		}
		return best
	}
	c := s.work[:0]
	for i, v := range logits {
		c = append(c, candidate{i, s.penalised(i, float64(v)) / s.Temperature})
	}
	s.work = c
	slices.SortFunc(c, func(a, b candidate) int {
		switch {
		case a.logit > b.logit:
			return -1
		case a.logit < b.logit:
			return 1
		}
		return a.id - b.id
	})
	if s.TopK > 0 && s.TopK < len(c) {
		c = c[:s.TopK]
	}
	return s.draw(c)
}

// draw keeps what top-p and min-p keep of sorted candidates and draws one.
func (s *sampler) draw(c []candidate) int {
	var total float64
	largest := c[0].logit
	for i := range c {
		c[i].logit = math.Exp(c[i].logit - largest) // from here on a weight
		total += c[i].logit
	}
	if s.TopP > 0 && s.TopP < 1 {
		sum := 0.0
		for i := range c {
			sum += c[i].logit
			if sum >= s.TopP*total {
				c, total = c[:i+1], sum
				break
			}
		}
	}
	if s.MinP > 0 {
		floor := s.MinP * c[0].logit
		n := 0
		total = 0
		for n < len(c) && c[n].logit >= floor {
			total += c[n].logit
			n++
		}
		c = c[:n]
	}
	u := s.rng.Float64() * total
	for _, x := range c {
		if u -= x.logit; u < 0 {
			return x.id
		}
	}
	return c[len(c)-1].id
}

func (s *sampler) penalised(id int, logit float64) float64 {
	if s.RepetitionPenalty == 0 || s.RepetitionPenalty == 1 || !s.seen[id] {
		return logit
	}
	if logit > 0 {
		return logit / s.RepetitionPenalty
	}
	return logit * s.RepetitionPenalty
}
