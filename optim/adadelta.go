package optim

// adadelta measures a step by earlier steps (Zeiler 2012, arXiv 1212.5701): v = ρ v + (1−ρ) g²,
// d = √(u+ε)/√(v+ε) · g, u = ρ u + (1−ρ) d², w ← w − lr d. Decay is an L2 term.
func adadelta(o Options) (rule, error) {
	decayed := or(o.Rho, 0.9)
	rho, rhoc, eps := float32(decayed), float32(1-decayed), float32(or(o.Eps, 1e-6))
	return rule{
		buffers: like("square_avg", "acc_delta"),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			rate, l2 := float32(lr), float32(decay)
			return func(w, g []float32, s [][]float32) {
				v, u := s[0], s[1]
				for i, x := range w {
					d := g[i] + l2*x
					v[i] = rho*v[i] + rhoc*d*d
					d *= sqrt(u[i]+eps) / sqrt(v[i]+eps)
					u[i] = rho*u[i] + rhoc*d*d
					w[i] = x - rate*d
				}
			}
		},
	}, nil
}
