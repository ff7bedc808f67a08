package privacy

import "math"

// Norm returns the 2-norm over all values of a set of tensors.
func Norm(tensors [][]float32) float64 {
	var sum float64
	for _, t := range tensors {
		for _, v := range t {
			sum += float64(v) * float64(v)
		}
	}
	return math.Sqrt(sum)
}

// Factor returns what brings a term of the norm below the limit: min(1, limit / (norm + 1e-6)).
func Factor(norm, limit float64) float64 { return min(1, limit/(norm+1e-6)) }

// Clip scales tensors in place to a norm of at most the limit and returns their norm before.
func Clip(tensors [][]float32, limit float64) float64 {
	norm := Norm(tensors)
	if f := Factor(norm, limit); f < 1 {
		for _, t := range tensors {
			for i, v := range t {
				t[i] = float32(f * float64(v))
			}
		}
	}
	return norm
}

// Sum adds up clipped terms in double precision.
type Sum struct {
	Limit  float64
	Values [][]float64
	Terms  int
	Within int // terms that needed no clipping
}

// Add clips a term and adds it. The first one sets the shapes.
func (s *Sum) Add(tensors [][]float32) {
	if s.Values == nil {
		for _, t := range tensors {
			s.Values = append(s.Values, make([]float64, len(t)))
		}
	}
	norm := Norm(tensors)
	if norm <= s.Limit {
		s.Within++
	}
	f := Factor(norm, s.Limit)
	for i, t := range tensors {
		for k, v := range t {
			s.Values[i][k] += f * float64(v)
		}
	}
	s.Terms++
}

// Blur adds noise of standard deviation multiplier·Limit to every value.
func (s *Sum) Blur(multiplier float64, noise *Noise) {
	if multiplier == 0 {
		return
	}
	for _, t := range s.Values {
		for k := range t {
			t[k] += multiplier * s.Limit * noise.Normal()
		}
	}
}

// Adaptive moves a clipping limit towards a quantile of the norms (Andrew et al. 2021, arXiv 1905.03871): only how many
// terms stayed within the limit is used, and that count is noisy too.
type Adaptive struct {
	Limit    float64 `json:"limit"`
	Quantile float64 `json:"quantile"` // of the terms that shall stay within, such as 0.5
	Rate     float64 `json:"rate"`     // of the limit's movement, such as 0.2
	Count    float64 `json:"count"`    // standard deviation of the count's noise; members/20 is usual
}

// Multiplier returns the noise multiplier of the sum that, with the count's noise, is worth the multiplier z.
func (a Adaptive) Multiplier(z float64) float64 {
	if z == 0 || a.Count == 0 {
		return z
	}
	rest := 1/(z*z) - 1/(4*a.Count*a.Count)
	if rest <= 0 {
		return math.Inf(1)
	}
	return 1 / math.Sqrt(rest)
}

// Update moves the limit after a round with so many terms.
func (a *Adaptive) Update(within, terms int, noise *Noise) {
	share := (float64(within) + a.Count*noise.Normal()) / float64(max(1, terms))
	a.Limit *= math.Exp(-a.Rate * (share - a.Quantile))
}
