package optim

import "math"

// radam is Adam that waits until the variance of its second moment is known (Liu et al. 2020, arXiv 1908.03265).
// With ρ∞ = 2/(1−β2) − 1 and ρ = ρ∞ − 2tβ2ᵗ/(1−β2ᵗ) it steps by lr m̂ while ρ ≤ 5, then by
// lr m̂ r √(1−β2ᵗ)/(√v + ε) with r = √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ)).
func radam(o Options) (rule, error) {
	beta1, beta2 := o.betas(0.9, 0.999)
	b1c, b2, b2c, eps := float32(1-beta1), float32(beta2), float32(1-beta2), float32(or(o.Eps, 1e-8))
	return rule{
		buffers: like("exp_avg", "exp_avg_sq"),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			power := math.Pow(beta2, float64(t))
			top := 2/(1-beta2) - 1
			rho := top - 2*float64(t)*power/(1-power)
			rate := lr / (1 - math.Pow(beta1, float64(t)))
			known := rho > 5
			if known {
				rate *= math.Sqrt((1 - power) * (rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho))
			}
			step := float32(rate)
			keep, l2 := o.decay(lr, decay)
			return func(w, g []float32, s [][]float32) {
				m, v := s[0], s[1]
				for i, x := range w {
					d := g[i] + l2*x
					m[i] += (d - m[i]) * b1c
					v[i] = b2*v[i] + b2c*d*d
					u := step * m[i]
					if known {
						u /= sqrt(v[i]) + eps
					}
					w[i] = x*keep - u
				}
			}
		},
	}, nil
}
