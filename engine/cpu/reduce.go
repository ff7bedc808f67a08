package cpu

import (
	"math"
	"slices"

	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// lowerReduce plans a reduction. The input is read as (outer, reduced …, inner): each worker has some of the results
// and folds all their elements in the input's order.
func (p *planner) lowerReduce(n *graph.Node, op graph.Reduce) {
	x, dst := p.use(n.In[0]), p.wanted(n, 0)
	shape := n.In[0].Shape()
	var kept, keptStride, axes, axesStride []int
	stride := 1
	for i := len(shape) - 1; i >= 0; i-- {
		if slices.Contains(op.Axes, i) {
			axes, axesStride = append(axes, shape[i]), append(axesStride, stride)
		} else {
			kept, keptStride = append(kept, shape[i]), append(keptStride, stride)
		}
		stride *= shape[i]
	}
	for _, s := range [][]int{kept, keptStride, axes, axesStride} {
		slices.Reverse(s)
	}
	kept, keptStride = joinAxes(kept, keptStride)
	axes, axesStride = joinAxes(axes, axesStride)
	count := 1
	for _, d := range axes {
		count *= d
	}
	f := folds[op.Fn]
	p.emit(&instr{node: n, in: []*value{x}, out: []*value{dst}, bind: func(*program) []phase {
		dst, x := dst.f(), x.f()
		last := len(kept) - 1
		if last >= 0 && keptStride[last] == 1 && kept[last] >= align {
			// Whole rows of results are folded at once.
			width := kept[last]
			return []phase{func(worker, workers int) {
				lo, hi := share(len(dst), align, worker, workers)
				for lo < hi {
					end := min(hi, lo/width*width+width)
					foldRows(f, dst[lo:end], x, start(kept, keptStride, lo), axes, axesStride, count)
					lo = end
				}
			}}
		}
		return []phase{func(worker, workers int) {
			lo, hi := share(len(dst), 1, worker, workers)
			for i := lo; i < hi; i++ {
				dst[i] = f.one(x, start(kept, keptStride, i), axes, axesStride, count)
			}
		}}
	}})
}

// joinAxes joins neighbouring axes that are one axis in memory.
func joinAxes(dims, strides []int) (d, s []int) {
	for i := range dims {
		if k := len(d) - 1; k >= 0 && s[k] == dims[i]*strides[i] {
			d[k] *= dims[i]
			s[k] = strides[i]
			continue
		}
		d, s = append(d, dims[i]), append(s, strides[i])
	}
	return d, s
}

// start returns the place of the element with a flat index.
func start(dims, strides []int, at int) int {
	place := 0
	for d := len(dims) - 1; d >= 0; d-- {
		place += at % dims[d] * strides[d]
		at /= dims[d]
	}
	return place
}

// fold is a reduction in double precision: step joins an element, given the largest of all where top is set. run is
// the same for elements that stand one behind the other.
type fold struct {
	run  func(x []float32) float64
	top  bool
	step func(acc, x, top float64) float64
	end  func(acc, top float64, n int) float64
	zero float64
}

var folds = [...]fold{
	graph.ReduceSum: {
		run:  kernel.Sum,
		step: func(acc, x, _ float64) float64 { return acc + x },
		end:  func(acc, _ float64, _ int) float64 { return acc },
	},
	graph.ReduceMean: {
		run:  func(x []float32) float64 { return kernel.Sum(x) / float64(len(x)) },
		step: func(acc, x, _ float64) float64 { return acc + x },
		end:  func(acc, _ float64, n int) float64 { return acc / float64(n) },
	},
	graph.ReduceMax: {
		run:  func(x []float32) float64 { return float64(kernel.Max(x)) },
		zero: math.Inf(-1),
		step: func(acc, x, _ float64) float64 { return max(acc, x) },
		end:  func(acc, _ float64, _ int) float64 { return acc },
	},
	graph.ReduceLogSumExp: {
		run:  func(x []float32) float64 { return float64(kernel.LogSumExp(x)) },
		top:  true,
		step: func(acc, x, top float64) float64 { return acc + math.Exp(x-top) },
		end:  func(acc, top float64, _ int) float64 { return top + math.Log(acc) },
	},
}

func (f fold) one(x []float32, at int, axes, strides []int, count int) float32 {
	if len(axes) == 1 && strides[0] == 1 {
		return float32(f.run(x[at : at+count]))
	}
	top := 0.0
	if f.top {
		top = math.Inf(-1)
		eachPlace(at, axes, strides, count, func(i int) { top = max(top, float64(x[i])) })
	}
	acc := f.zero
	eachPlace(at, axes, strides, count, func(i int) { acc = f.step(acc, float64(x[i]), top) })
	return float32(f.end(acc, top, count))
}

func foldRows(f fold, dst, x []float32, at int, axes, strides []int, count int) {
	acc, top := make([]float64, len(dst)), make([]float64, len(dst))
	if f.top {
		for j := range top {
			top[j] = math.Inf(-1)
		}
		eachPlace(at, axes, strides, count, func(i int) {
			for j, v := range x[i : i+len(dst)] {
				top[j] = max(top[j], float64(v))
			}
		})
	}
	for j := range acc {
		acc[j] = f.zero
	}
	eachPlace(at, axes, strides, count, func(i int) {
		for j, v := range x[i : i+len(dst)] {
			acc[j] = f.step(acc[j], float64(v), top[j])
		}
	})
	for j := range dst {
		dst[j] = float32(f.end(acc[j], top[j], count))
	}
}

// eachPlace calls f with the places of the elements of the axes, from at on.
func eachPlace(at int, axes, strides []int, count int, f func(i int)) {
	index := make([]int, len(axes))
	for range count {
		f(at)
		for d := len(axes) - 1; d >= 0; d-- {
			at += strides[d]
			if index[d]++; index[d] < axes[d] {
				break
			}
			at -= axes[d] * strides[d]
			index[d] = 0
		}
	}
}
