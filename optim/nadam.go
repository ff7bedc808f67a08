package optim

import "math"

// nadam is Adam with Nesterov's momentum (Dozat 2016), whose decay grows: μ_t = β1 (1 − ½ 0.96^(tψ)). With
// d = √(v/(1−β2ᵗ)) + ε and Π the product of μ_1 … μ_t:
//
//	w ← w − lr (1−μ_t)/(1−Π) · g/d − lr μ_{t+1}/(1−Π μ_{t+1}) · m/d
func nadam(o Options) (rule, error) {
	beta1, beta2 := o.betas(0.9, 0.999)
	b1c, b2, b2c, eps := float32(1-beta1), float32(beta2), float32(1-beta2), float32(or(o.Eps, 1e-8))
	psi := deref(o.MomentumDecay, 4e-3)
	mu := func(t int) float64 { return beta1 * (1 - 0.5*math.Pow(0.96, float64(t)*psi)) }
	product := 1.0
	return rule{
		buffers: like("exp_avg", "exp_avg_sq"),
		carried: map[string]*float64{"mu_product": &product},
		begin:   func(t int, _ float64) { product *= mu(t) },
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			ofG := float32(lr * (1 - mu(t)) / (1 - product))
			ofM := float32(lr * mu(t+1) / (1 - product*mu(t+1)))
			bias := float32(1 - math.Pow(beta2, float64(t)))
			keep, l2 := o.decay(lr, decay)
			return func(w, g []float32, s [][]float32) {
				m, v := s[0], s[1]
				for i, x := range w {
					d := g[i] + l2*x
					m[i] += (d - m[i]) * b1c
					v[i] = b2*v[i] + b2c*d*d
					root := sqrt(v[i]/bias) + eps
					w[i] = x*keep - ofG*d/root - ofM*m[i]/root
				}
			}
		},
	}, nil
}

// decay returns 1 − lr λ and 0 where the decay is decoupled, else 1 and λ.
func (o Options) decay(lr, decay float64) (keep, l2 float32) {
	if o.Decoupled {
		return float32(1 - lr*decay), 0
	}
	return 1, float32(decay)
}
