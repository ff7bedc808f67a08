package optim

import "math"

// adamax is Adam by the infinity norm (Kingma and Ba 2015, section 7.1): u = max(β2 u, |g| + ε),
// w ← w − lr/(1−β1ᵗ) · m/u. Decay is an L2 term.
func adamax(o Options) (rule, error) {
	beta1, beta2 := o.betas(0.9, 0.999)
	b1c, b2, eps := float32(1-beta1), float32(beta2), float32(or(o.Eps, 1e-8))
	return rule{
		buffers: like("exp_avg", "exp_inf"),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			rate, l2 := float32(lr/(1-math.Pow(beta1, float64(t)))), float32(decay)
			return func(w, g []float32, s [][]float32) {
				m, u := s[0], s[1]
				for i, x := range w {
					d := g[i] + l2*x
					m[i] += (d - m[i]) * b1c
					u[i] = max(b2*u[i], float32(math.Abs(float64(d)))+eps)
					w[i] = x - rate*m[i]/u[i]
				}
			}
		},
	}, nil
}
