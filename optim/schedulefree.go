package optim

import (
	"errors"
	"math"
)

// Averager is an optimizer whose best weights are not those that it trains.
type Averager interface {
	Optimizer
	// Average writes the weights to evaluate and to save with into dst, one slice a parameter. Nothing else changes.
	Average(params []Param, dst [][]float32) error
}

// scheduleFreeAdamW needs no schedule (Defazio et al. 2024, arXiv 2405.15682). It steps a sequence z, averages it
// into x, and takes gradients at y between the two; the parameters hold y and Average gives x. With
// L = lr min(1, t/warmup), weights tʳ (max L)ᵖ and c the share of the newest weight in their sum:
//
//	d = g/(√(v/(1−β2ᵗ)) + ε) + λ y,  z ← z − L d,  x ← (1−c) x + c z,  y ← (1−β1) z + β1 x
func scheduleFreeAdamW(o Options) (rule, error) {
	beta1, beta2 := o.betas(0.9, 0.999)
	return scheduleFree(o, beta1, beta2, true)
}

// scheduleFreeSGD is the same without the second moment; β1 is called momentum.
func scheduleFreeSGD(o Options) (rule, error) {
	return scheduleFree(o, deref(o.Momentum, 0.9), 0, false)
}

func scheduleFree(o Options, beta1, beta2 float64, adaptive bool) (rule, error) {
	if !(beta1 > 0 && beta1 < 1) {
		return rule{}, errors.New("momentum (betas[0]): want a number in (0, 1): the average is found by it")
	}
	if o.WarmupSteps < 0 {
		return rule{}, errors.New("warmup_steps: want >= 0")
	}
	b2, b2c, eps := float32(beta2), float32(1-beta2), float32(or(o.Eps, 1e-8))
	back := float32(1 - 1/beta1)
	power := deref(o.WeightLRPower, 2)
	var total, top, share float64
	warm := func(t int) float64 { return min(1, float64(t)/float64(max(1, o.WarmupSteps))) }
	return rule{
		buffers: func(shape []int) []buffer {
			list := []buffer{{name: "z", shape: shape, copy: true}}
			if adaptive {
				list = append(list, buffer{name: "exp_avg_sq", shape: shape})
			}
			return list
		},
		carried: map[string]*float64{"weight_sum": &total, "lr_max": &top},
		begin: func(t int, lr float64) {
			top = max(top, lr*warm(t))
			weight := math.Pow(float64(t), o.R) * math.Pow(top, power)
			total += weight
			if share = 0; total > 0 {
				share = weight / total
			}
		},
		elements: func(t int, lr, decay float64) func(w, g []float32, s [][]float32) {
			lr *= warm(t)
			c, ofZ, ofY := float32(share), float32(lr), float32(lr*(beta1*(1-share)-1))
			l2 := float32(decay)
			bias := float32(1 - math.Pow(beta2, float64(t)))
			return func(w, g []float32, s [][]float32) {
				z := s[0]
				for i, y := range w {
					d := g[i]
					if adaptive {
						v := s[1]
						v[i] = b2*v[i] + b2c*d*d
						d /= sqrt(v[i]/bias) + eps
					}
					d += l2 * y
					w[i] = y + (z[i]-y)*c + ofY*d
					z[i] -= ofZ * d
				}
			}
		},
		average: func(dst, w []float32, s [][]float32) {
			for i, z := range s[0] {
				dst[i] = w[i] + (z-w[i])*back
			}
		},
	}, nil
}
