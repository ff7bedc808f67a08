package optim

import "math"

// lion steps along the sign of an average (Chen et al. 2023, arXiv 2302.06675), with sign 0 = 0:
//
//	w ← w (1 − lr λ) − lr · sign(β1 m + (1−β1) g),  then m = β2 m + (1−β2) g
func lion(o Options) (rule, error) {
	beta1, beta2 := o.betas(0.9, 0.99)
	b1, b1c, b2, b2c := float32(beta1), float32(1-beta1), float32(beta2), float32(1-beta2)
	return rule{
		buffers: like("exp_avg"),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			rate, keep := float32(lr), float32(1-lr*decay)
			return func(w, g []float32, s [][]float32) {
				m := s[0]
				for i, x := range w {
					w[i] = x * keep
					if d := b1*m[i] + b1c*g[i]; d != 0 {
						w[i] -= float32(math.Copysign(float64(rate), float64(d)))
					}
					m[i] = b2*m[i] + b2c*g[i]
				}
			}
		},
	}, nil
}
