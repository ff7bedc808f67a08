package cpu

import (
	"math"

	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// Norms over rows of C channels. With x̂ = (x − mean)·s, s = 1/√(var + ε) and g = dy·(w + offset), the gradient dx is
// s·(g − mean(g) − x̂·mean(g·x̂)); RMSNorm has no means of x and g.

func (p *planner) lowerRMSNorm(n *graph.Node, op graph.RMSNorm) {
	x, w, dst := p.use(n.In[0]), p.use(n.In[1]), p.wanted(n, 0)
	c := w.size
	p.emit(&instr{node: n, in: []*value{w}, over: []*value{x}, out: []*value{dst}, bind: func(*program) []phase {
		dst, x, w := dst.f(), x.f(), w.f()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(x)/c, 1, worker, workers)
			for r := lo; r < hi; r++ {
				kernel.RMSNorm(dst[r*c:(r+1)*c], x[r*c:(r+1)*c], w, op.Eps, op.Offset)
			}
		}}
	}})
}

func (p *planner) lowerRMSNormGrad(n *graph.Node, op graph.RMSNormGrad) {
	dy, x, w := p.use(n.In[0]), p.useRough(n.In[1]), p.use(n.In[2])
	dx, dw := p.wanted(n, 0), p.wanted(n, 1)
	c := w.size
	rows := x.size / c
	scales := p.temporary(rows)
	in := &instr{node: n, in: []*value{x, w}, over: []*value{dy}, temp: []*value{scales}}
	if dw != nil { // is summed up when dx is there
		in.in, in.over = append(in.in, dy), nil
	}
	for _, v := range []*value{dx, dw} {
		if v != nil {
			in.out = append(in.out, v)
		}
	}
	in.bind = func(*program) []phase {
		dy, x, w, scales := dy.f(), x.f(), w.f(), scales.f()
		phases := []phase{func(worker, workers int) {
			lo, hi := share(rows, 1, worker, workers)
			for r := lo; r < hi; r++ {
				scales[r] = kernel.InverseRMS(x[r*c:(r+1)*c], op.Eps)
				if dx != nil {
					kernel.RMSNormGrad(dx.f()[r*c:(r+1)*c], dy[r*c:(r+1)*c], x[r*c:(r+1)*c], w, scales[r], op.Offset)
				}
			}
		}}
		if dw != nil {
			phases = append(phases, func(worker, workers int) {
				lo, hi := share(c, align, worker, workers)
				dw := dw.f()[lo:hi]
				clear(dw)
				for r, s := range scales {
					kernel.RMSNormWeightGrad(dw, dy[r*c+lo:r*c+hi], x[r*c+lo:r*c+hi], s)
				}
			})
		}
		return phases
	}
	p.emit(in)
}

func (p *planner) lowerLayerNorm(n *graph.Node, op graph.LayerNorm) {
	x, w, dst := p.use(n.In[0]), p.use(n.In[1]), p.wanted(n, 0)
	in := &instr{node: n, in: []*value{w}, over: []*value{x}, out: []*value{dst}}
	var bias *value
	if len(n.In) > 2 {
		bias = p.use(n.In[2])
		in.in = append(in.in, bias)
	}
	c := w.size
	in.bind = func(*program) []phase {
		dst, x, w, b := dst.f(), x.f(), w.f(), make([]float32, c)
		if bias != nil {
			b = bias.f()
		}
		return []phase{func(worker, workers int) {
			lo, hi := share(len(x)/c, 1, worker, workers)
			for r := lo; r < hi; r++ {
				x, y := x[r*c:(r+1)*c], dst[r*c:(r+1)*c]
				mean, s := moments(x, op.Eps)
				for i, v := range x {
					y[i] = (v-mean)*s*w[i] + b[i]
				}
			}
		}}
	}
	p.emit(in)
}

// moments returns the mean and 1/√(var + ε).
func moments(x []float32, eps float32) (mean, s float32) {
	sum, square := 0.0, 0.0
	for _, v := range x {
		sum += float64(v)
	}
	m := sum / float64(len(x))
	for _, v := range x {
		d := float64(v) - m
		square += d * d
	}
	return float32(m), float32(1 / math.Sqrt(square/float64(len(x))+float64(eps)))
}

func (p *planner) lowerLayerNormGrad(n *graph.Node, op graph.LayerNormGrad) {
	dy, x, w := p.use(n.In[0]), p.useRough(n.In[1]), p.use(n.In[2])
	dx, dw, db := p.wanted(n, 0), p.wanted(n, 1), p.wanted(n, 2)
	c := w.size
	rows := x.size / c
	means, scales := p.temporary(rows), p.temporary(rows)
	in := &instr{node: n, in: []*value{dy, x, w}, temp: []*value{means, scales}}
	for _, v := range []*value{dx, dw, db} {
		if v != nil {
			in.out = append(in.out, v)
		}
	}
	in.bind = func(*program) []phase {
		dy, x, w, means, scales := dy.f(), x.f(), w.f(), means.f(), scales.f()
		phases := []phase{func(worker, workers int) {
			lo, hi := share(rows, 1, worker, workers)
			for r := lo; r < hi; r++ {
				dy, x := dy[r*c:(r+1)*c], x[r*c:(r+1)*c]
				mean, s := moments(x, op.Eps)
				means[r], scales[r] = mean, s
				if dx == nil {
					continue
				}
				meanG, meanGX := 0.0, 0.0
				for i, v := range x {
					g := float64(dy[i]) * float64(w[i])
					meanG += g
					meanGX += g * float64((v-mean)*s)
				}
				mg, mgx := float32(meanG/float64(c)), float32(meanGX/float64(c))
				for i, v := range x {
					dx.f()[r*c+i] = s * (dy[i]*w[i] - mg - (v-mean)*s*mgx)
				}
			}
		}}
		if dw != nil || db != nil {
			phases = append(phases, func(worker, workers int) {
				lo, hi := share(c, align, worker, workers)
				for _, v := range []*value{dw, db} {
					if v != nil {
						clear(v.f()[lo:hi])
					}
				}
				for r, s := range scales {
					for i := lo; i < hi; i++ {
						d := dy[r*c+i]
						if dw != nil {
							dw.f()[i] += d * (x[r*c+i] - means[r]) * s
						}
						if db != nil {
							db.f()[i] += d
						}
					}
				}
			})
		}
		return phases
	}
	p.emit(in)
}
