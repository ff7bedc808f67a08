package optim

import "errors"

// sgd is gradient descent with momentum (Polyak 1964; Sutskever et al. 2013): b = g in the first step, then
// b = μ b + (1−dampening) g; the step goes along b, or g + μ b with Nesterov's momentum. Decay is an L2 term.
func sgd(o Options) (rule, error) {
	mu, nesterov := float32(deref(o.Momentum, 0)), deref(o.Nesterov, false)
	damp := float32(1 - o.Dampening)
	if nesterov && (mu == 0 || o.Dampening != 0) {
		return rule{}, errors.New("nesterov: want a momentum and no dampening")
	}
	var names []string
	if mu != 0 {
		names = []string{"momentum_buffer"}
	}
	sign := float32(1)
	if o.Maximize {
		sign = -1
	}
	return rule{
		buffers: like(names...),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			rate, l2 := float32(lr), float32(decay)
			return func(w, g []float32, s [][]float32) {
				for i, x := range w {
					d := sign*g[i] + l2*x
					if mu != 0 {
						b := s[0]
						if t == 1 {
							b[i] = d
						} else {
							b[i] = mu*b[i] + damp*d
						}
						if nesterov {
							d += mu * b[i]
						} else {
							d = b[i]
						}
					}
					w[i] = x - rate*d
				}
			}
		},
	}, nil
}
