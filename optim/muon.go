package optim

import (
	"fmt"
	"math"

	"tunesmith/internal/nearest"
)

// muon orthogonalises the momentum of a matrix (Jordan et al. 2024, as in torch.optim.Muon, in fp32):
// m = μ m + (1−μ) g, u = (1−μ) g + μ m with Nesterov's momentum and m without, X = u/‖u‖ transposed where it is
// tall, then five times X ← aX + (bM + cM²) X with M = XXᵀ, which drives all singular values towards 1.
//
//	w ← w (1 − lr λ) − lr √max(1, rows/columns) X          original
//	w ← w (1 − lr λ) − lr 0.2 √max(rows, columns) X        match_rms_adamw (Moonlight, arXiv 2502.16982)
//
// Parameters that are no matrices, such as norms and biases, are updated by AdamW with the same rate.
func muon(o Options) (rule, error) {
	mu, nesterov := float32(deref(o.Momentum, 0.95)), deref(o.Nesterov, true)
	coefficients := [3]float32{3.4445, -4.775, 2.0315}
	if o.NSCoefficients != nil {
		if len(o.NSCoefficients) != 3 {
			return rule{}, fmt.Errorf("ns_coefficients: want three numbers, have %v", o.NSCoefficients)
		}
		for i, v := range o.NSCoefficients {
			coefficients[i] = float32(v)
		}
	}
	steps, eps := or(o.NSSteps, 5), or(o.Eps, 1e-7)
	var adjust func(rows, cols float64) float64
	switch name := or(o.AdjustLR, "original"); name {
	case "original":
		adjust = func(r, c float64) float64 { return math.Sqrt(max(1, r/c)) }
	case "match_rms_adamw":
		adjust = func(r, c float64) float64 { return 0.2 * math.Sqrt(max(r, c)) }
	default:
		known := []string{"original", "match_rms_adamw"}
		return rule{}, fmt.Errorf("adjust_lr_fn: want one of %v, have %q%s", known, name, nearest.Hint(name, known))
	}
	rest, err := adamW(Options{Betas: o.Betas})
	if err != nil {
		return rule{}, err
	}
	return rule{
		buffers: func(shape []int) []buffer {
			if len(shape) != 2 {
				return rest.buffers(shape)
			}
			return []buffer{{name: "momentum_buffer", shape: shape}}
		},
		tensor: func(t int, lr, decay float64) func(p Param, s [][]float32) {
			adam := rest.elements(t, lr, decay)
			return func(p Param, s [][]float32) {
				w, g := p.Value, p.Grad
				if len(p.Shape) != 2 {
					adam(w, g, s)
					return
				}
				rows, cols, m := p.Shape[0], p.Shape[1], s[0]
				u := make([]float32, len(g))
				for i, d := range g {
					m[i] += (d - m[i]) * (1 - mu)
					u[i] = m[i]
					if nesterov {
						u[i] = d + (m[i]-d)*mu
					}
				}
				norm := math.Sqrt(sum(o.Parallel, len(u), func(lo, hi int) float64 { return squares(u[lo:hi]) }))
				scale := float32(1 / max(norm, eps))
				for i := range u {
					u[i] *= scale
				}
				x, a, b := u, rows, cols
				if rows > cols {
					x, a, b = transpose(u, rows, cols), cols, rows
				}
				for range steps {
					x = newtonSchulz(x, a, b, coefficients, o.Parallel)
				}
				if rows > cols {
					x = transpose(x, a, b)
				}
				rate, keep := float32(lr*adjust(float64(rows), float64(cols))), float32(1-lr*decay)
				for i := range w {
					w[i] = w[i]*keep - rate*x[i]
				}
			}
		},
	}, nil
}

// newtonSchulz returns aX + (bM + cM²) X with M = XXᵀ, for X of n rows and k columns.
func newtonSchulz(x []float32, n, k int, c [3]float32, par Parallel) []float32 {
	m := make([]float32, n*n)
	par(n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for j := range n {
				var s float32
				xi, xj := x[i*k:(i+1)*k], x[j*k:(j+1)*k]
				for l, v := range xi {
					s += v * xj[l]
				}
				m[i*n+j] = s
			}
		}
	})
	poly := make([]float32, n*n)
	addProduct(poly, m, m, c[2], n, n, par)
	for i, v := range m {
		poly[i] += c[1] * v
	}
	out := make([]float32, n*k)
	for i, v := range x {
		out[i] = c[0] * v
	}
	addProduct(out, poly, x, 1, n, k, par)
	return out
}

// addProduct adds f·A·B to out, for A of n by n and B of n by k.
func addProduct(out, a, b []float32, f float32, n, k int, par Parallel) {
	par(n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row := out[i*k : (i+1)*k]
			for j := range n {
				v := f * a[i*n+j]
				for l, w := range b[j*k : (j+1)*k] {
					row[l] += v * w
				}
			}
		}
	})
}

func transpose(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	for r := range rows {
		for c := range cols {
			out[c*rows+r] = x[r*cols+c]
		}
	}
	return out
}
