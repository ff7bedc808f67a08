// Package privacy bounds what a trained model can tell about one example or one owner of data: clipping, Gaussian
// noise, and the accountants that add up what repeated noisy releases give away.
//
// Accounting is for the Gaussian mechanism on Poisson samples: in every step each member takes part with probability
// Rate, on its own; neighbours differ by one member. Every result is an upper bound of ε at the given δ.
package privacy

import (
	"fmt"
	"math"
)

// Event is a number of equal steps: a sum of terms of norm at most C over a Poisson sample, with Gaussian noise of
// standard deviation Noise·C.
type Event struct {
	Noise float64 `json:"noise"` // noise multiplier σ
	Rate  float64 `json:"rate"`  // probability q of taking part
	Steps int     `json:"steps"`
}

func (e Event) check() error {
	if !(e.Noise >= 0 && e.Rate >= 0 && e.Rate <= 1 && e.Steps >= 0) {
		return fmt.Errorf("privacy: want noise >= 0, a rate from 0 to 1 and steps >= 0, have %+v", e)
	}
	return nil
}

// Orders returns the orders that EpsilonRDP tries: 1.1 to 10.9 in tenths, then the integers to 63.
func Orders() []float64 {
	var out []float64
	for x := 1; x < 100; x++ {
		out = append(out, 1+float64(x)/10)
	}
	for x := 12; x < 64; x++ {
		out = append(out, float64(x))
	}
	return out
}

// RDP returns the Rényi divergence of an order above 1 that an event gives away (Mironov, Talwar, Zhang 2019,
// arXiv 1908.10530).
func RDP(e Event, order float64) float64 {
	switch {
	case e.Rate == 0 || e.Steps == 0:
		return 0
	case e.Noise == 0:
		return math.Inf(1)
	case e.Rate == 1:
		return float64(e.Steps) * order / (2 * e.Noise * e.Noise)
	}
	logA := logMoment
	if order == math.Trunc(order) {
		logA = logMomentInteger
	}
	return float64(e.Steps) * logA(e.Rate, e.Noise, order) / (order - 1)
}

// logMomentInteger is ln Σ C(α, k) (1−q)^(α−k) q^k e^(k(k−1)/(2σ²)).
func logMomentInteger(q, sigma, order float64) float64 {
	sum := math.Inf(-1)
	for k := 0.0; k <= order; k++ {
		sum = logAdd(sum, logBinomial(order, k)+k*math.Log(q)+(order-k)*math.Log1p(-q)+k*(k-1)/(2*sigma*sigma))
	}
	return sum
}

// logMoment is the same expectation for any order: the binomial series on both sides of the point where the two
// densities are equal.
func logMoment(q, sigma, order float64) float64 {
	const least = -30 // terms below e^least do not count
	low, high := math.Inf(-1), math.Inf(-1)
	middle := sigma*sigma*math.Log(1/q-1) + 0.5
	coefficient := 1.0
	for i := 0.0; ; i++ {
		j := order - i
		log := math.Log(math.Abs(coefficient))
		s0 := log + i*math.Log(q) + j*math.Log1p(-q) + i*(i-1)/(2*sigma*sigma) + logHalfErfc((i-middle)/(math.Sqrt2*sigma))
		s1 := log + j*math.Log(q) + i*math.Log1p(-q) + j*(j-1)/(2*sigma*sigma) + logHalfErfc((middle-j)/(math.Sqrt2*sigma))
		if coefficient > 0 {
			low, high = logAdd(low, s0), logAdd(high, s1)
		} else {
			low, high = logSub(low, s0), logSub(high, s1)
		}
		if i > order && max(s0, s1) < least {
			return logAdd(low, high)
		}
		coefficient *= j / (i + 1)
	}
}

func logBinomial(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return a - b - c
}

// logHalfErfc is ln(erfc(x)/2), also where erfc itself is too small for a number.
func logHalfErfc(x float64) float64 {
	if x < 20 {
		return math.Log(math.Erfc(x) / 2)
	}
	r := 1 / (2 * x * x)
	return -x*x - math.Log(2*x*math.Sqrt(math.Pi)) + math.Log1p(-r*(1-3*r*(1-5*r*(1-7*r))))
}

func logAdd(a, b float64) float64 {
	a, b = max(a, b), min(a, b)
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

func logSub(a, b float64) float64 {
	if b >= a {
		return math.Inf(-1) // what is left is rounding
	}
	return a + math.Log1p(-math.Exp(b-a))
}

// EpsilonRDP returns the ε of a history at δ by the best order, and that order (conversion of Canonne, Kamath, Steinke
// 2020, arXiv 2004.00010). Without orders it takes those of Orders.
func EpsilonRDP(history []Event, delta float64, orders ...float64) (epsilon, order float64) {
	if len(orders) == 0 {
		orders = Orders()
	}
	epsilon = math.Inf(1)
	for _, a := range orders {
		var spent float64
		for _, e := range history {
			spent += RDP(e, a)
		}
		e := spent - (math.Log(delta)+math.Log(a))/(a-1) + math.Log((a-1)/a)
		if e < epsilon {
			epsilon, order = e, a
		}
	}
	return max(0, epsilon), order
}
