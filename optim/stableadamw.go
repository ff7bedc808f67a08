package optim

import "math"

// stableAdamW is AdamW that slows down where the second moment lags behind (Wortsman et al. 2023, arXiv 2304.13013,
// algorithm 2). The betas are debiased, β̂ = β (1−β^(t−1))/(1−βᵗ), and each tensor's rate, that of its decay
// included, is lr / max(1, rms(g/√max(v, ε²))).
func stableAdamW(o Options) (rule, error) {
	beta1, beta2 := o.betas(0.9, 0.99)
	eps := float32(or(o.Eps, 1e-8))
	debiased := func(b float64, t int) float64 {
		return b * (1 - math.Pow(b, float64(t-1))) / (1 - math.Pow(b, float64(t)))
	}
	return rule{
		buffers: like("exp_avg", "exp_avg_sq"),
		tensor: func(t int, lr, decay float64) func(p Param, s [][]float32) {
			b1c, beta := float32(1-debiased(beta1, t)), debiased(beta2, t)
			b2, b2c := float32(beta), float32(1-beta)
			return func(p Param, s [][]float32) {
				w, g, m, v := p.Value, p.Grad, s[0], s[1]
				total := sum(o.Parallel, len(w), func(lo, hi int) float64 {
					var s float64
					for i := lo; i < hi; i++ {
						m[i] += (g[i] - m[i]) * b1c
						v[i] = b2*v[i] + b2c*g[i]*g[i]
						s += float64(g[i]) * float64(g[i]) / float64(max(v[i], eps*eps))
					}
					return s
				})
				rate := lr / max(1, math.Sqrt(total/float64(len(w))))
				step, keep := float32(rate), float32(1-rate*decay)
				each(o.Parallel, len(w), func(lo, hi int) {
					for i := lo; i < hi; i++ {
						w[i] = w[i]*keep - step*m[i]/(sqrt(v[i])+eps)
					}
				})
			}
		},
	}, nil
}
