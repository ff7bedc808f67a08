package optim

import (
	"errors"
	"math"
)

// adafactor keeps one second moment a row and one a column instead of one an element (Shazeer and Stern 2018,
// arXiv 1804.04235), as transformers computes it: averages of g² + ε over the last axis and over the one before,
// with decay 1 − t^decay_rate; tensors of one axis keep all of them. The update
// U = g / √(row/mean(row)) / √col is divided by max(1, rms(U)/clip_threshold).
//
// The rate is lr, or with relative_step min(1e-2, 1/√t), after warmup_init's 1e-6 t; scale_parameter multiplies
// by max(eps2, rms(w)). Decay is decoupled and uses that rate. Both are off by default, as in the Trainer.
func adafactor(o Options) (rule, error) {
	if o.WarmupInit && !o.RelativeStep {
		return rule{}, errors.New("warmup_init: want relative_step with it")
	}
	eps1, eps2 := or(o.Eps, 1e-30), or(o.Eps2, 1e-3)
	return factoredRule(o, factored{
		names: [3]string{"exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq"},
		add:   eps1,
		scale: func(row, mean, col float64) float64 { return 1 / (math.Sqrt(row/mean) * math.Sqrt(col)) },
		rates: func(t int, lr, decay, rms float64) (float64, float64) {
			if o.RelativeStep {
				top := 1e-2
				if o.WarmupInit {
					top = 1e-6 * float64(t)
				}
				lr = min(top, 1/math.Sqrt(float64(t)))
			}
			if o.ScaleParameter {
				lr *= max(eps2, rms)
			}
			return lr, 1 - decay*lr
		},
	}), nil
}

// torchAdafactor is torch.optim.Adafactor, which differs: the rate is min(lr, 1/√t) · max(eps2, rms(w)), decay
// uses lr itself, and nothing is added to g²: the second moment has a lower bound instead.
func torchAdafactor(o Options) (rule, error) {
	eps1, eps2 := or(o.Eps, 0x1p-23), or(o.Eps2, 1e-3)
	return factoredRule(o, factored{
		names: [3]string{"row_var", "col_var", "variance"},
		keep:  true,
		scale: func(row, mean, col float64) float64 {
			return 1 / math.Sqrt(max(row*col/max(mean, eps1), eps1*eps1))
		},
		rates: func(t int, lr, decay, rms float64) (float64, float64) {
			return min(lr, 1/math.Sqrt(float64(t))) * max(eps2, rms), 1 - lr*decay
		},
	}), nil
}

// factored is what the two differ in.
type factored struct {
	names [3]string // of rows, columns, and of the second moment of tensors with one axis
	keep  bool      // rows and columns keep an axis of length 1
	add   float64   // to g²
	// scale is what g is multiplied by, of the moments of a row and a column and the mean over rows.
	scale func(row, mean, col float64) float64
	// rates returns the rate and 1 − its decay.
	rates func(t int, lr, decay, rms float64) (rate, keep float64)
}

func factoredRule(o Options, f factored) rule {
	clip, exponent := or(o.ClipThreshold, 1), or(o.DecayRate, -0.8)
	return rule{
		buffers: func(shape []int) []buffer {
			list := f.buffers(shape)
			if o.Beta1 != 0 {
				list = append(list, buffer{name: "exp_avg", shape: shape})
			}
			return list
		},
		tensor: func(t int, lr, decay float64) func(p Param, s [][]float32) {
			fresh := math.Pow(float64(t), exponent)
			return func(p Param, s [][]float32) {
				w, g := p.Value, p.Grad
				n := float64(len(w))
				rms := math.Sqrt(sum(o.Parallel, len(w), func(lo, hi int) float64 { return squares(w[lo:hi]) }) / n)
				rate, keep := f.rates(t, lr, decay, rms)
				scale := f.moments(p, s, fresh, o.Parallel)
				total := sum(o.Parallel, len(w), func(lo, hi int) float64 {
					var s float64
					for i := lo; i < hi; i++ {
						u := float64(g[i]) * scale(i)
						s += u * u
					}
					return s
				})
				rate /= max(1, math.Sqrt(total/n)/clip)
				each(o.Parallel, len(w), func(lo, hi int) {
					for i := lo; i < hi; i++ {
						u := rate * float64(g[i]) * scale(i)
						if o.Beta1 != 0 {
							m := s[len(s)-1]
							m[i] = float32(o.Beta1*float64(m[i]) + (1-o.Beta1)*u)
							u = float64(m[i])
						}
						w[i] = float32(float64(w[i])*keep - u)
					}
				})
			}
		},
	}
}

// buffers lists the second moments of a shape: rows lie along the axis before the last.
func (f factored) buffers(shape []int) []buffer {
	k := len(shape)
	if k < 2 {
		return []buffer{{name: f.names[2], shape: shape}}
	}
	row := append([]int{}, shape[:k-1]...)
	col := append([]int{}, shape[:k-2]...)
	if f.keep {
		row, col = append(row, 1), append(col, 1)
	}
	return []buffer{{name: f.names[0], shape: row}, {name: f.names[1], shape: append(col, shape[k-1])}}
}

// moments takes a gradient into the second moments and returns what each element of it is multiplied by.
func (f factored) moments(p Param, s [][]float32, fresh float64, par Parallel) func(i int) float64 {
	blend := func(old *float32, mean float64) { *old += float32(fresh * (mean - float64(*old))) }
	square := func(i int) float64 { return float64(p.Grad[i])*float64(p.Grad[i]) + f.add }
	k := len(p.Shape)
	if k < 2 {
		v := s[0]
		each(par, len(v), func(lo, hi int) {
			for i := lo; i < hi; i++ {
				blend(&v[i], square(i))
			}
		})
		return func(i int) float64 { return f.scale(1, 1, float64(v[i])) }
	}
	row, col := s[0], s[1]
	R, C := p.Shape[k-2], p.Shape[k-1]
	par(len(row), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			var total float64
			for i := r * C; i < (r+1)*C; i++ {
				total += square(i)
			}
			blend(&row[r], total/float64(C))
		}
	})
	par(len(col), func(lo, hi int) {
		for c := lo; c < hi; c++ {
			var total float64
			first := c/C*R*C + c%C
			for i := first; i < first+R*C; i += C {
				total += square(i)
			}
			blend(&col[c], total/float64(R))
		}
	})
	mean := make([]float64, len(row)/max(1, R))
	for r, v := range row {
		mean[r/R] += float64(v) / float64(R)
	}
	return func(i int) float64 {
		block := i / (R * C)
		return f.scale(float64(row[i/C]), mean[block], float64(col[block*C+i%C]))
	}
}
