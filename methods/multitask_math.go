package methods

import "math"

// float is an element of a gradient.
type float interface{ float32 | float64 }

// dot is the inner product of two gradients that are given by parameter.
func dot[T float](a, b [][]T) float64 {
	var sum float64
	for k := range a {
		for i, x := range a[k] {
			sum += float64(x) * float64(b[k][i])
		}
	}
	return sum
}

// cosine is the cosine of the angle between two gradients, 0 where one is zero.
func cosine[T float](a, b [][]T) float64 {
	aa, bb := dot(a, a), dot(b, b)
	if aa == 0 || bb == 0 {
		return 0
	}
	return dot(a, b) / (math.Sqrt(aa) * math.Sqrt(bb))
}

// project takes from each gradient, in place, what points against another: PCGrad. Gradient i meets the others in the
// order of order[i], itself as it has become, the others as they were.
func project[T float](grads [][][]T, order [][]int) {
	was := make([][][]T, len(grads))
	for i, g := range grads {
		was[i] = make([][]T, len(g))
		for k, v := range g {
			was[i][k] = append([]T(nil), v...)
		}
	}
	for i, g := range grads {
		for _, j := range order[i] {
			if j == i {
				continue
			}
			along := dot(g, was[j])
			if along >= 0 {
				continue
			}
			f := along / dot(was[j], was[j])
			for k, v := range g {
				for n := range v {
					v[n] = T(float64(v[n]) - float64(f*float64(was[j][k][n])))
				}
			}
		}
	}
}

// noise is the form in which a loss is weighed by its uncertainty.
type noise uint8

const (
	classification noise = iota // L·e^(−2s) + s, s = ln σ
	regression                  // ½·L·e^(−2s) + s, s = ln σ
	logVariance                 // L·e^(−s) + s/2, s = ln σ²
)

// uncertainty returns the weighed loss, its derivative by the loss, which is the loss' factor, and that by s.
func uncertainty(form noise, loss, s float64) (term, factor, slope float64) {
	switch form {
	case regression:
		factor = math.Exp(-2*s) / 2
		return factor*loss + s, factor, 1 - 2*factor*loss
	case logVariance:
		factor = math.Exp(-s)
		return factor*loss + s/2, factor, 0.5 - factor*loss
	}
	factor = math.Exp(-2 * s)
	return factor*loss + s, factor, 1 - 2*factor*loss
}
