package judge

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

// Agreement returns the share of labels on which two agree, and Cohen's kappa: that share beyond what chance gives.
// Kappa is NaN where chance alone agrees always.
func Agreement(a, b []bool) (share, kappa float64, err error) {
	if len(a) != len(b) || len(a) == 0 {
		return 0, 0, fmt.Errorf("agreement: want two lists of the same length, have %d and %d", len(a), len(b))
	}
	var both, first, second float64
	for i := range a {
		if a[i] == b[i] {
			both++
		}
		if a[i] {
			first++
		}
		if b[i] {
			second++
		}
	}
	n := float64(len(a))
	share = both / n
	chance := first/n*second/n + (1-first/n)*(1-second/n)
	return share, (share - chance) / (1 - chance), nil
}

// WinRate returns the mean of outcomes (1, ½ for a tie, 0) and its standard error.
func WinRate(outcomes []float64) (rate, stderr float64) {
	n := float64(len(outcomes))
	for _, x := range outcomes {
		rate += x
	}
	rate /= n
	var square float64
	for _, x := range outcomes {
		square += (x - rate) * (x - rate)
	}
	return rate, math.Sqrt(square/(n-1)) / math.Sqrt(n)
}

// Interval returns the percentile bootstrap interval of the win rate that holds the share of the resampled rates, drawn
// with a seed (Efron and Tibshirani 1993).
func Interval(outcomes []float64, share float64, draws int, seed uint64) (low, high float64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	means := make([]float64, draws)
	for d := range means {
		index := make([]int, len(outcomes))
		for i := range index {
			index[i] = rng.IntN(len(outcomes))
		}
		means[d] = resampled(outcomes, index)
	}
	slices.Sort(means)
	return Percentile(means, (1-share)/2), Percentile(means, (1+share)/2)
}

func resampled(outcomes []float64, index []int) float64 {
	var sum float64
	for _, i := range index {
		sum += outcomes[i]
	}
	return sum / float64(len(index))
}

// Percentile returns the quantile q of sorted values, with linear interpolation.
func Percentile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Game is a comparison of two players and what the first got: 1, ½ or 0.
type Game struct {
	A, B   string
	Result float64
}

// BradleyTerry returns the strength of each player on a logarithmic scale of mean 0, by the MM iteration (Hunter 2004).
// A player that never lost, or never won, has no finite strength; the result is then what the iterations reached.
func BradleyTerry(games []Game) map[string]float64 {
	wins := map[string]map[string]float64{}
	add := func(a, b string, w float64) {
		if wins[a] == nil {
			wins[a] = map[string]float64{}
		}
		wins[a][b] += w
	}
	for _, g := range games {
		add(g.A, g.B, g.Result)
		add(g.B, g.A, 1-g.Result)
	}
	names := slices.Sorted(maps.Keys(wins))
	strength := make([]float64, len(names))
	for i := range strength {
		strength[i] = 1
	}
	const most, enough = 10000, 1e-15
	for range most {
		next := make([]float64, len(names))
		var logs float64
		for i, x := range names {
			var won, games float64
			for j, y := range names {
				if i != j {
					won += wins[x][y]
					games += (wins[x][y] + wins[y][x]) / (strength[i] + strength[j])
				}
			}
			next[i] = math.Max(won/games, 1e-300)
			logs += math.Log(next[i])
		}
		moved := 0.0
		for i := range next {
			next[i] /= math.Exp(logs / float64(len(next)))
			moved = math.Max(moved, math.Abs(next[i]-strength[i]))
		}
		strength = next
		if moved < enough {
			break
		}
	}
	out := map[string]float64{}
	for i, name := range names {
		out[name] = math.Log(strength[i])
	}
	return out
}

// EloScale puts a strength of BradleyTerry on the scale of Elo's ratings.
func EloScale(strength float64) float64 { return 1000 + 400/math.Ln10*strength }

// Elo returns ratings that games change one after the other by at most k, from 1000.
func Elo(games []Game, k float64) map[string]float64 {
	out := map[string]float64{}
	for _, g := range games {
		for _, name := range []string{g.A, g.B} {
			if _, ok := out[name]; !ok {
				out[name] = 1000
			}
		}
		expected := 1 / (1 + math.Pow(10, (out[g.B]-out[g.A])/400))
		out[g.A] += k * (g.Result - expected)
		out[g.B] -= k * (g.Result - expected)
	}
	return out
}

// AtEqualLength returns the win rate that is left when the answers are equally long: a logistic regression of the
// outcome on the tangent of the standardised difference in length (Dubois et al. 2024, arXiv 2404.04475, without its
// terms of the instructions). weights are the intercept and the slope, which is the length bias.
func AtEqualLength(differences, outcomes []float64) (rate float64, weights [2]float64) {
	n := float64(len(differences))
	var mean, square float64
	for _, d := range differences {
		mean += d / n
	}
	for _, d := range differences {
		square += (d - mean) * (d - mean) / n
	}
	scale := math.Sqrt(square)
	if scale == 0 {
		scale = 1
	}
	const steps, ridge = 100, 1e-12
	for range steps {
		var g, h [2]float64
		var cross float64
		for i, d := range differences {
			x := math.Tanh(d / scale)
			p := logistic(weights[0] + weights[1]*x)
			g[0] += outcomes[i] - p
			g[1] += (outcomes[i] - p) * x
			w := p * (1 - p)
			h[0], h[1], cross = h[0]+w, h[1]+w*x*x, cross+w*x
		}
		h[0], h[1] = h[0]+ridge, h[1]+ridge
		det := h[0]*h[1] - cross*cross
		weights[0] += (h[1]*g[0] - cross*g[1]) / det
		weights[1] += (h[0]*g[1] - cross*g[0]) / det
	}
	return logistic(weights[0]), weights
}
