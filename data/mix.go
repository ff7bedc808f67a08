package data

import (
	"fmt"
	"math"
)

// Mixing says how often each of several tasks is drawn: in proportion to rate = min(size · Scale, Cap)^(1/Temperature),
// as T5 mixes (Raffel et al. 2020, arXiv 1910.10683). Temperature 1 is proportional to size, a large one draws all
// tasks alike; mT5's exponent α is 1/Temperature. The order of the three operations matters.
type Mixing struct {
	Temperature float64 // 0 is 1; +Inf makes the rates of all tasks that have examples equal
	Cap         float64 // the size above which a task counts no more; 0 is none
	Scale       float64 // 0 is 1
}

// Shares returns the part of the draws that each task gets. The parts add up to 1 unless all tasks are empty.
func (m Mixing) Shares(sizes []int) ([]float64, error) {
	if m.Temperature == 0 {
		m.Temperature = 1
	}
	if m.Scale == 0 {
		m.Scale = 1
	}
	if !(m.Temperature > 0) || m.Cap < 0 || !(m.Scale > 0) || math.IsNaN(m.Cap) || math.IsInf(m.Scale, 0) {
		return nil, fmt.Errorf("data: mixing wants temperature > 0, cap >= 0 and scale > 0, have %g, %g and %g", m.Temperature, m.Cap, m.Scale)
	}
	shares := make([]float64, len(sizes))
	sum := 0.0
	for i, n := range sizes {
		rate := float64(n) * m.Scale
		if m.Cap > 0 {
			rate = min(rate, m.Cap)
		}
		switch {
		case rate <= 0:
			rate = 0
		case math.IsInf(m.Temperature, 1):
			rate = 1
		default:
			rate = math.Pow(rate, 1/m.Temperature)
		}
		shares[i] = rate
		sum += rate
	}
	if sum > 0 {
		for i := range shares {
			shares[i] /= sum
		}
	}
	return shares, nil
}

// schedule draws tasks one after the other so that the counts follow the shares as closely as they can: at draw k it
// takes the task whose count is farthest behind share · (k+1), the first of those that are equally far. No draw is
// random, so any window of draws has the proportions of the whole, and a position is enough to go on.
type schedule struct {
	shares []float64
	counts []int
	draws  int
}

func newSchedule(shares []float64) *schedule {
	return &schedule{shares: shares, counts: make([]int, len(shares))}
}

func (s *schedule) next() int {
	s.draws++
	best, most := 0, math.Inf(-1)
	for i, p := range s.shares {
		// The conversion rounds the product, so that no processor fuses it with the subtraction.
		if behind := float64(p*float64(s.draws)) - float64(s.counts[i]); behind > most {
			best, most = i, behind
		}
	}
	s.counts[best]++
	return best
}
