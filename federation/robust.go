package federation

import (
	"fmt"
	"math"
	"slices"
)

// median is the median of every value by itself (Yin et al. 2018, arXiv 1803.01498).
type median struct{ stateless }

// Aggregate implements Strategy.
func (median) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	return byValue(global, updates, func(sorted []float64) float64 {
		n := len(sorted)
		return (sorted[(n-1)/2] + sorted[n/2]) / 2
	})
}

// trimmed is the mean of every value without the share at each end.
type trimmed struct {
	stateless
	share float64
}

// Aggregate implements Strategy.
func (t trimmed) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	cut := int(t.share * float64(len(updates)))
	if 2*cut >= len(updates) {
		return nil, fmt.Errorf("federation: a trimmed mean that cuts %g at each end leaves nothing of %d updates", t.share, len(updates))
	}
	return byValue(global, updates, func(sorted []float64) float64 { return plain(sorted[cut : len(sorted)-cut]) })
}

func plain(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// byValue reduces the clients' sorted values of every place.
func byValue(global []Tensor, updates []Update, reduce func(sorted []float64) float64) ([]Tensor, error) {
	if len(updates) == 0 {
		return nil, errNoUpdates
	}
	out := empty(global)
	column := make([]float64, len(updates))
	for i := range out {
		for k := range out[i].Values {
			for c, u := range updates {
				column[c] = float64(u.Tensors[i].Values[k])
			}
			slices.Sort(column)
			out[i].Values[k] = float32(reduce(column))
		}
	}
	return out, nil
}

// krum is Krum and MultiKrum (Blanchard et al. 2017, arXiv 1703.02757): an update scores the sum of the squared
// distances to its nearest neighbours, and the best are kept.
type krum struct{ malicious, keep int }

// State implements Strategy.
func (krum) State() map[string][]Tensor { return nil }

// Restore implements Strategy.
func (krum) Restore(map[string][]Tensor) error { return nil }

// Aggregate implements Strategy.
func (k krum) Aggregate(round int, global []Tensor, updates []Update) ([]Tensor, error) {
	keep := k.keep
	if keep == 0 {
		keep = len(updates) - k.malicious
	}
	best, err := nearestUpdates(updates, k.malicious, keep)
	if err != nil {
		return nil, err
	}
	return average{}.Aggregate(round, global, best)
}

// nearestUpdates returns the updates with the lowest scores, of which at most malicious may lie.
func nearestUpdates(updates []Update, malicious, keep int) ([]Update, error) {
	n := len(updates)
	neighbours := n - malicious - 2
	if neighbours < 1 || keep < 1 || keep > n {
		return nil, fmt.Errorf("federation: with %d liars, choosing %d updates needs at least %d of them, have %d", malicious, keep, max(malicious+3, keep), n)
	}
	scores := make([]float64, n)
	for a := range updates {
		var d []float64
		for b := range updates {
			if a != b {
				d = append(d, squaredDistance(updates[a].Tensors, updates[b].Tensors))
			}
		}
		slices.Sort(d)
		for _, v := range d[:neighbours] {
			scores[a] += v
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	})
	var out []Update
	for _, i := range order[:keep] {
		out = append(out, updates[i])
	}
	return out, nil
}

func squaredDistance(a, b []Tensor) float64 {
	var sum float64
	for i := range a {
		for k, v := range a[i].Values {
			d := float64(v) - float64(b[i].Values[k])
			sum += d * d
		}
	}
	return sum
}

// bulyan (El Mhamdi et al. 2018, arXiv 1802.07927) takes the θ = n − 2f best updates and of each value the mean of the
// θ − 2f nearest to the median.
type bulyan struct{ malicious int }

// State implements Strategy.
func (bulyan) State() map[string][]Tensor { return nil }

// Restore implements Strategy.
func (bulyan) Restore(map[string][]Tensor) error { return nil }

// Aggregate implements Strategy.
func (b bulyan) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	theta := len(updates) - 2*b.malicious
	beta := theta - 2*b.malicious
	if beta < 1 {
		return nil, fmt.Errorf("federation: with %d liars bulyan needs at least %d updates, have %d", b.malicious, 4*b.malicious+1, len(updates))
	}
	best, err := nearestUpdates(updates, b.malicious, theta)
	if err != nil {
		return nil, err
	}
	return byValue(global, best, func(sorted []float64) float64 {
		n := len(sorted)
		middle := (sorted[(n-1)/2] + sorted[n/2]) / 2
		near := slices.Clone(sorted)
		slices.SortStableFunc(near, func(x, y float64) int {
			switch dx, dy := math.Abs(x-middle), math.Abs(y-middle); {
			case dx < dy:
				return -1
			case dx > dy:
				return 1
			}
			return 0
		})
		return plain(near[:beta])
	})
}

// fair is q-FedAvg (Li et al. 2020, arXiv 1905.10497): a client counts by its loss to the power q.
type fair struct{ q, localRate float64 }

// State implements Strategy.
func (fair) State() map[string][]Tensor { return nil }

// Restore implements Strategy.
func (fair) Restore(map[string][]Tensor) error { return nil }

// Aggregate implements Strategy.
func (f fair) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	if len(updates) == 0 {
		return nil, errNoUpdates
	}
	l := 1 / f.localRate
	var all float64
	step := make([][]float64, len(global))
	for i := range step {
		step[i] = make([]float64, len(global[i].Values))
	}
	for _, u := range updates {
		loss := u.Loss + 1e-10
		p := math.Pow(loss, f.q)
		var square float64
		for i, t := range global {
			for k, v := range t.Values {
				d := l * (float64(v) - float64(u.Tensors[i].Values[k]))
				square += d * d
				step[i][k] += p * d
			}
		}
		all += f.q*math.Pow(loss, f.q-1)*square + l*p
	}
	out := empty(global)
	for i, t := range global {
		for k, v := range t.Values {
			out[i].Values[k] = float32(float64(v) - step[i][k]/all)
		}
	}
	return out, nil
}
