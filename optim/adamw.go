package optim

import "math"

// adamW is Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101):
//
//	m = β1 m + (1−β1) g,  v = β2 v + (1−β2) g²
//	w ← w (1 − lr λ) − lr/(1−β1ᵗ) · m / (√v/√(1−β2ᵗ) + ε)
func adamW(o Options) (rule, error) { return adamRule(o, true) }

// adam is the formula of Kingma and Ba (2015, arXiv 1412.6980); its decay is an L2 term of the gradient.
func adam(o Options) (rule, error) { return adamRule(o, false) }

func adamRule(o Options, decoupled bool) (rule, error) {
	b1, b2 := o.betas(0.9, 0.999)
	eps := or(o.Eps, 1e-8)
	names := []string{"exp_avg", "exp_avg_sq"}
	if o.AMSGrad {
		names = append(names, "max_exp_avg_sq")
	}
	return rule{
		buffers: like(names...),
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			c := adamScalars{
				keep: 1,
				b1:   float32(1 - b1), b2: float32(b2), b2c: float32(1 - b2),
				eps:  float32(eps),
				step: float32(lr / (1 - math.Pow(b1, float64(t)))),
				root: float32(math.Sqrt(1 - math.Pow(b2, float64(t)))),
			}
			if decoupled {
				c.keep = float32(1 - lr*decay)
			} else {
				c.l2 = float32(decay)
			}
			return func(w, g []float32, s [][]float32) {
				if o.AMSGrad {
					amsgrad(w, g, s[0], s[1], s[2], c)
				} else {
					adamUpdate(w, g, s[0], s[1], c)
				}
			}
		},
	}, nil
}

// adamScalars are the numbers of one update of Adam.
type adamScalars struct {
	keep, l2   float32 // 1 − lr λ and 0 with decoupled decay, 1 and λ else
	b1         float32 // 1 − β1
	b2, b2c    float32 // β2 and 1 − β2
	eps        float32
	step, root float32 // lr/(1−β1ᵗ) and √(1−β2ᵗ)
}

func adamUpdate(w, g, m, v []float32, c adamScalars) {
	g, m, v = g[:len(w)], m[:len(w)], v[:len(w)]
	for i, x := range w {
		d := g[i] + c.l2*x
		m[i] += (d - m[i]) * c.b1
		v[i] = v[i]*c.b2 + d*d*c.b2c
		w[i] = x*c.keep - c.step*m[i]/(sqrt(v[i])/c.root+c.eps)
	}
}

func amsgrad(w, g, m, v, top []float32, c adamScalars) {
	g, m, v, top = g[:len(w)], m[:len(w)], v[:len(w)], top[:len(w)]
	for i, x := range w {
		d := g[i] + c.l2*x
		m[i] += (d - m[i]) * c.b1
		v[i] = v[i]*c.b2 + d*d*c.b2c
		top[i] = max(top[i], v[i])
		w[i] = x*c.keep - c.step*m[i]/(sqrt(top[i])/c.root+c.eps)
	}
}

// sqrt compiles to the single-precision instruction.
func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }
