package privacy

import (
	"errors"
	"math"
	"math/bits"
	"math/cmplx"
)

// epsilonError is the error that EpsilonPRV leaves, on the safe side.
const epsilonError = 0.01

// EpsilonPRV returns the ε of a history at δ by composing the distribution of the privacy loss on a grid with Fourier
// transforms (Gopi, Lee, Wutschitz 2021, arXiv 2106.02848). It is tighter than EpsilonRDP and up to 0.01 above the truth.
func EpsilonPRV(history []Event, delta float64) (float64, error) {
	deltaError := delta / 1000
	var losses []loss
	steps := 0
	for _, e := range history {
		if err := e.check(); err != nil {
			return 0, err
		}
		if e.Steps == 0 || e.Rate == 0 {
			continue
		}
		if e.Noise == 0 {
			return math.Inf(1), nil
		}
		steps += e.Steps
		losses = append(losses, loss{e})
	}
	if steps == 0 {
		return 0, nil
	}
	reach, _ := EpsilonRDP(history, deltaError/4)
	for _, l := range losses {
		one, _ := EpsilonRDP([]Event{{l.Noise, l.Rate, 1}}, deltaError/(8*float64(steps)))
		reach = max(reach, one)
	}
	reach = max(reach, epsilonError) + 3
	mesh := epsilonError / math.Sqrt(float64(steps)/2*math.Log(12/deltaError))
	const most = 1 << 24
	if !(2*reach/mesh < most) {
		return 0, errors.New("privacy: the noise is too small for this accountant: ε is far beyond any use; take more noise or fewer steps")
	}
	n := 1 << bits.Len(uint(2*reach/mesh))
	total := make([]complex128, n)
	for i := range total {
		total[i] = 1
	}
	shift := 0.0
	for _, l := range losses {
		pmf, off := l.discretize(n, mesh)
		transform(pmf, false)
		for i, v := range pmf {
			total[i] *= power(v, l.Steps)
		}
		shift += off * float64(l.Steps)
	}
	transform(total, true)
	return max(0, solve(total, mesh, shift, delta-deltaError)) + epsilonError, nil
}

// solve finds ε with E[max(0, 1 − e^(ε−L))] = δ of the loss L, whose probabilities stand at i·mesh + shift, negative i
// from the end.
func solve(pmf []complex128, mesh, shift, delta float64) float64 {
	n := len(pmf)
	var above, weighted float64 // Σ p and Σ p·e^(−t) over the losses so far, from the largest down
	for i := n/2 - 1; i >= -n/2; i-- {
		p := max(0, real(pmf[(i+n)%n]))
		t := float64(i)*mesh + shift
		// With ε at t, δ is above − e^t·weighted; it grows as t falls.
		if above-math.Exp(t)*weighted >= delta && weighted > 0 {
			return math.Log((above - delta) / weighted)
		}
		above += p
		weighted += p * math.Exp(-t)
	}
	return 0
}

// loss is the privacy loss of one step, ln((1−q) + q·e^((2x−1)/(2σ²))) with x from the sample that holds the member.
type loss struct{ Event }

func (l loss) at(x float64) float64 {
	z := (2*x - 1) / (2 * l.Noise * l.Noise)
	if l.Rate == 1 {
		return z
	}
	return logAdd(math.Log1p(-l.Rate), math.Log(l.Rate)+z)
}

// cdf is the probability that the loss is at most t.
func (l loss) cdf(t float64) float64 {
	q, s := l.Rate, l.Noise
	rest := math.Expm1(t) + q // e^t − (1−q)
	if rest <= 0 {
		return 0
	}
	z := math.Log(rest / q)
	if t > 30 {
		z = t - math.Log(q) + math.Log1p(-(1-q)*math.Exp(-t))
	}
	x := s*s*z + 0.5
	return (1-q)*normalCDF(x/s) + q*normalCDF((x-1)/s)
}

func normalCDF(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }

// mean is the expected loss, by Simpson's rule.
func (l loss) mean() float64 {
	const n = 20000
	from, to := -12*l.Noise, 1+12*l.Noise
	h := (to - from) / n
	var sum float64
	for i := range n + 1 {
		x := from + float64(i)*h
		w := 2 + 2*float64(i%2)
		if i == 0 || i == n {
			w = 1
		}
		density := (1-l.Rate)*math.Exp(-x*x/(2*l.Noise*l.Noise)) + l.Rate*math.Exp(-(x-1)*(x-1)/(2*l.Noise*l.Noise))
		sum += w * density * l.at(x)
	}
	return sum * h / 3 / (l.Noise * math.Sqrt(2*math.Pi))
}

// discretize returns the probabilities of the loss at multiples of the mesh, and the shift that makes the mean exact.
func (l loss) discretize(n int, mesh float64) ([]complex128, float64) {
	out := make([]complex128, n)
	var sum, mean float64
	last := l.cdf((float64(-n/2) - 0.5) * mesh)
	for i := -n / 2; i < n/2; i++ {
		t := float64(i) * mesh
		next := l.cdf(t + mesh/2)
		p := max(0, next-last)
		out[(i+n)%n] = complex(p, 0)
		sum += p
		mean += p * t
		last = next
	}
	for i := range out {
		out[i] /= complex(sum, 0)
	}
	return out, l.mean() - mean/sum
}

// power is z to the n by squaring.
func power(z complex128, n int) complex128 {
	out := complex128(1)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			out *= z
		}
		z *= z
	}
	return out
}

// transform is the discrete Fourier transform in place; the length is a power of two.
func transform(x []complex128, inverse bool) {
	n := len(x)
	shift := 64 - bits.Len(uint(n-1))
	for i := range x {
		if j := int(bits.Reverse64(uint64(i)) >> shift); j > i {
			x[i], x[j] = x[j], x[i]
		}
	}
	sign := -1.0
	if inverse {
		sign = 1
	}
	roots := make([]complex128, n/2)
	for i := range roots {
		roots[i] = cmplx.Rect(1, sign*2*math.Pi*float64(i)/float64(n))
	}
	for size := 2; size <= n; size *= 2 {
		half, stride := size/2, n/size
		for at := 0; at < n; at += size {
			for k := range half {
				a, b := x[at+k], x[at+half+k]*roots[k*stride]
				x[at+k], x[at+half+k] = a+b, a-b
			}
		}
	}
	if inverse {
		for i := range x {
			x[i] /= complex(float64(n), 0)
		}
	}
}
