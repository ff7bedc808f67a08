package optim

import "math"

// ClipNorm scales the gradients so that their p-norm over all parameters is at most max, and returns the norm
// before. The factor min(1, max/(norm + 1e-6)) is torch's, and so is what becomes of values that are no numbers:
// with an infinite gradient the finite ones become 0 and the infinite ones NaN, and one NaN makes all of them NaN;
// a caller that wants to stop looks at the norm. Sums run in fp64, so a norm beyond fp32 does not overflow.
func ClipNorm(params []Param, max, p float64, par Parallel) float64 {
	norm := Norm(params, p, par)
	Scale(params, min(1, max/(norm+1e-6)), par)
	return norm
}

// Norm returns the p-norm of all gradients together; p may be +Inf.
func Norm(params []Param, p float64, par Parallel) float64 {
	if par == nil {
		par = serial
	}
	list := spans(params)
	parts := make([]float64, len(list))
	par(len(list), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			parts[i] = powers(params[list[i].param].Grad[list[i].lo:list[i].hi], p)
		}
	})
	var total float64
	for _, v := range parts {
		if math.IsInf(p, 1) {
			total = max(total, v)
		} else {
			total += v
		}
	}
	switch {
	case math.IsInf(p, 1):
		return total
	case p == 2:
		return math.Sqrt(total)
	}
	return math.Pow(total, 1/p)
}

// powers is the sum of |x|ᵖ, or the largest |x| where p is infinite.
func powers(x []float32, p float64) float64 {
	var s float64
	switch {
	case p == 2:
		return squares(x)
	case math.IsInf(p, 1):
		for _, v := range x {
			s = max(s, math.Abs(float64(v)))
		}
	default:
		for _, v := range x {
			s += math.Pow(math.Abs(float64(v)), p)
		}
	}
	return s
}

// Scale multiplies all gradients by a factor.
func Scale(params []Param, factor float64, par Parallel) {
	if factor == 1 {
		return
	}
	f := float32(factor)
	eachGrad(params, par, func(g []float32) {
		for i := range g {
			g[i] *= f
		}
	})
}

// ClipValue cuts each element of the gradients to [−limit, limit]; NaN stays.
func ClipValue(params []Param, limit float64, par Parallel) {
	l := float32(limit)
	eachGrad(params, par, func(g []float32) {
		for i, v := range g {
			g[i] = min(max(v, -l), l)
		}
	})
}

// eachGrad runs f over all gradients, chunk by chunk.
func eachGrad(params []Param, par Parallel, f func(g []float32)) {
	if par == nil {
		par = serial
	}
	list := spans(params)
	par(len(list), func(lo, hi int) {
		for _, s := range list[lo:hi] {
			f(params[s.param].Grad[s.lo:s.hi])
		}
	})
}
