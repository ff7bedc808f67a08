package optim

// adagrad divides by the root of the sum of squares (Duchi et al. 2011): s += g², then
// w ← w − lr/(1 + (t−1) lr_decay) · g/(√s + ε). Decay is an L2 term.
func adagrad(o Options) (rule, error) {
	eps := float32(or(o.Eps, 1e-10))
	return rule{
		buffers: func(shape []int) []buffer {
			return []buffer{{name: "sum", shape: shape, fill: float32(o.Accumulator)}}
		},
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			rate, l2 := float32(lr/(1+float64(t-1)*o.LRDecay)), float32(decay)
			return func(w, g []float32, s [][]float32) {
				sum := s[0]
				for i, x := range w {
					d := g[i] + l2*x
					sum[i] += d * d
					w[i] = x - rate*d/(sqrt(sum[i])+eps)
				}
			}
		},
	}, nil
}
