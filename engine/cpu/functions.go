package cpu

import (
	"math"

	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// The element functions on blocks: vector kernels where there is one, else plain loops. A destination may be one of
// the sources.

// activations are the functions that the kernels have with their slopes and gates.
var activations = map[graph.Fn]kernel.Activation{
	graph.SiLU: kernel.SiLU, graph.Gelu: kernel.Gelu, graph.GeluTanh: kernel.GeluTanh,
}

func unary(f graph.Fn) elementFn {
	if a, ok := activations[f]; ok {
		return func(dst, x, _, _ []float32, _ int) { a.Activate(dst, x) }
	}
	switch f {
	case graph.Neg:
		return func(dst, x, _, _ []float32, _ int) { kernel.Scale(dst, x, -1) }
	case graph.Exp:
		return func(dst, x, _, _ []float32, _ int) { kernel.Exp(dst, x) }
	case graph.Square:
		return func(dst, x, _, _ []float32, _ int) { kernel.Mul(dst, x, x) }
	case graph.Tanh:
		return func(dst, x, _, _ []float32, _ int) { kernel.Tanh(dst, x) }
	case graph.Sigmoid:
		return func(dst, x, _, _ []float32, _ int) { kernel.Sigmoid(dst, x) }
	}
	g := function(f)
	return func(dst, a, _, _ []float32, _ int) {
		for i, x := range a {
			dst[i] = g(x)
		}
	}
}

// wide makes a function of single from one of double precision.
func wide(f func(float64) float64) func(float32) float32 {
	return func(x float32) float32 { return float32(f(float64(x))) }
}

// function is the functions without a kernel.
func function(f graph.Fn) func(x float32) float32 {
	switch f {
	case graph.Log:
		return wide(math.Log)
	case graph.Sqrt:
		return wide(math.Sqrt)
	case graph.Reciprocal:
		return func(x float32) float32 { return 1 / x }
	case graph.LogSigmoid:
		return wide(func(x float64) float64 { return -softplus(-x) })
	case graph.Softplus:
		return wide(softplus)
	case graph.ReLU:
		return func(x float32) float32 { return max(x, 0) }
	case graph.Abs:
		return wide(math.Abs)
	case graph.Sign:
		return sign
	}
	return nil
}

func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func sign(x float32) float32 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

func unaryGrad(f graph.Fn) elementFn {
	if a, ok := activations[f]; ok {
		return func(dst, dy, x, _ []float32, _ int) { a.Grad(dst, dy, x) }
	}
	g := slope(f)
	return func(dst, dy, a, _ []float32, _ int) {
		for i, x := range a {
			dst[i] = dy[i] * g(x)
		}
	}
}

// slope is the derivatives without a kernel.
func slope(f graph.Fn) func(x float32) float32 {
	switch f {
	case graph.Neg:
		return func(float32) float32 { return -1 }
	case graph.Exp:
		return wide(math.Exp)
	case graph.Log:
		return func(x float32) float32 { return 1 / x }
	case graph.Sqrt:
		return wide(func(x float64) float64 { return 0.5 / math.Sqrt(x) })
	case graph.Square:
		return func(x float32) float32 { return 2 * x }
	case graph.Reciprocal:
		return func(x float32) float32 { return -1 / (x * x) }
	case graph.Tanh:
		return wide(func(x float64) float64 { y := math.Tanh(x); return 1 - y*y })
	case graph.Sigmoid:
		return wide(func(x float64) float64 { y := sigmoid(x); return y * (1 - y) })
	case graph.LogSigmoid:
		return wide(func(x float64) float64 { return sigmoid(-x) })
	case graph.Softplus:
		return wide(sigmoid)
	case graph.ReLU:
		return func(x float32) float32 {
			if x > 0 {
				return 1
			}
			return 0
		}
	case graph.Abs:
		return sign
	case graph.Sign:
		return func(float32) float32 { return 0 }
	}
	return nil
}

func affine(mul, add float32) elementFn {
	if add == 0 {
		return func(dst, a, _, _ []float32, _ int) { kernel.Scale(dst, a, mul) }
	}
	return func(dst, a, _, _ []float32, _ int) {
		for i, x := range a {
			dst[i] = x*mul + add
		}
	}
}

func clamp(lo, hi float32) elementFn {
	return func(dst, a, _, _ []float32, _ int) {
		for i, x := range a {
			dst[i] = min(max(x, lo), hi)
		}
	}
}

func binary(f graph.Fn) elementFn {
	loop := func(g func(a, b float32) float32) elementFn {
		return func(dst, a, b, _ []float32, _ int) {
			b = b[:len(a)]
			for i, x := range a {
				dst[i] = g(x, b[i])
			}
		}
	}
	truth := func(b bool) float32 {
		if b {
			return 1
		}
		return 0
	}
	switch f {
	case graph.Add:
		return func(dst, a, b, _ []float32, _ int) { kernel.Add(dst, a, b) }
	case graph.Sub:
		return func(dst, a, b, _ []float32, _ int) { kernel.Sub(dst, a, b) }
	case graph.Mul:
		return func(dst, a, b, _ []float32, _ int) { kernel.Mul(dst, a, b) }
	case graph.Div:
		return func(dst, a, b, _ []float32, _ int) { kernel.Div(dst, a, b) }
	case graph.Min:
		return loop(func(a, b float32) float32 { return min(a, b) })
	case graph.Max:
		return loop(func(a, b float32) float32 { return max(a, b) })
	case graph.Less:
		return loop(func(a, b float32) float32 { return truth(a < b) })
	case graph.LessEq:
		return loop(func(a, b float32) float32 { return truth(a <= b) })
	case graph.Equal:
		return loop(func(a, b float32) float32 { return truth(a == b) })
	}
	return nil
}

func choose(dst, cond, a, b []float32, _ int) {
	for i, c := range cond {
		if c != 0 {
			dst[i] = a[i]
		} else {
			dst[i] = b[i]
		}
	}
}

func gate(f graph.Fn) elementFn {
	if a, ok := activations[f]; ok {
		return func(dst, gate, up, _ []float32, _ int) { a.Gate(dst, gate, up) }
	}
	return func(dst, gate, up, _ []float32, _ int) {
		for i, x := range gate {
			dst[i] = max(x, 0) * up[i]
		}
	}
}

func gateGrad(f graph.Fn) func(dgate, dup, dy, gate, up []float32) {
	if a, ok := activations[f]; ok {
		return a.GateGrad
	}
	return func(dgate, dup, dy, gate, up []float32) {
		for i, x := range gate {
			u, d := up[i], dy[i]
			if x <= 0 {
				dgate[i], dup[i] = 0, 0
			} else {
				dgate[i], dup[i] = d*u, d*x
			}
		}
	}
}

// dropout is the mask's share of a block that begins at a flat index: graph.DropoutKeep without its calls and
// branches.
func dropout(op graph.Dropout, dst, a []float32, key []int32, at int) {
	const step = 0x9e3779b97f4a7c15
	z := uint64(uint32(key[0])) | uint64(uint32(key[1]))<<32
	z += (uint64(op.Salt)<<40 + uint64(at)) * step
	limit := uint64(min(float64(op.Rate)*(1<<32), 1<<32-1))
	scale := 1 / (1 - op.Rate)
	for i, x := range a {
		z += step
		h := (z ^ z>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
		kept := uint32((h>>32-limit)>>63) - 1 // all bits, or none where the hash is below the limit
		dst[i] = math.Float32frombits(math.Float32bits(x)&kept) * scale
	}
}
