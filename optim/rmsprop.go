package optim

// rmsprop divides by the root mean square (Tieleman and Hinton 2012): v = α v + (1−α) g², d = g/(√v + ε), where
// centered uses v − avg² with the average of g; with momentum b = μ b + d. Decay is an L2 term.
func rmsprop(o Options) (rule, error) {
	decayed := or(o.Alpha, 0.99)
	alpha, alphac, eps := float32(decayed), float32(1-decayed), float32(or(o.Eps, 1e-8))
	mu := float32(deref(o.Momentum, 0))
	names := []string{"square_avg"}
	if mu != 0 {
		names = append(names, "momentum_buffer")
	}
	if o.Centered {
		names = append(names, "grad_avg")
	}
	return rule{
		buffers: like(names...),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			rate, l2 := float32(lr), float32(decay)
			return func(w, g []float32, s [][]float32) {
				v, b, avg := s[0], s[len(s)-1], s[len(s)-1]
				if mu != 0 {
					b = s[1]
				}
				for i, x := range w {
					d := g[i] + l2*x
					v[i] = alpha*v[i] + alphac*d*d
					mean := v[i]
					if o.Centered {
						avg[i] += (d - avg[i]) * alphac
						mean = max(0, mean-avg[i]*avg[i]) // rounding may take it below zero
					}
					d /= sqrt(mean) + eps
					if mu != 0 {
						b[i] = mu*b[i] + d
						d = b[i]
					}
					w[i] = x - rate*d
				}
			}
		},
	}, nil
}
