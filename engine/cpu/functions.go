package cpu

import (
	"math"

	"tunesmith/graph"
)

// The element functions on blocks. A destination may be one of the sources.

func unary(f graph.Fn) elementFn {
	g := scalarFn(f)
	return func(dst, a, _, _ []float32, _ int) {
		for i, x := range a {
			dst[i] = g(x)
		}
	}
}

func scalarFn(f graph.Fn) func(x float32) float32 {
	wide := func(f func(float64) float64) func(float32) float32 {
		return func(x float32) float32 { return float32(f(float64(x))) }
	}
	switch f {
	case graph.Neg:
		return func(x float32) float32 { return -x }
	case graph.Exp:
		return wide(math.Exp)
	case graph.Log:
		return wide(math.Log)
	case graph.Sqrt:
		return wide(math.Sqrt)
	case graph.Square:
		return func(x float32) float32 { return x * x }
	case graph.Reciprocal:
		return func(x float32) float32 { return 1 / x }
	case graph.Tanh:
		return wide(math.Tanh)
	case graph.Sigmoid:
		return wide(sigmoid)
	case graph.LogSigmoid:
		return wide(func(x float64) float64 { return -softplus(-x) })
	case graph.Softplus:
		return wide(softplus)
	case graph.SiLU:
		return wide(func(x float64) float64 { return x * sigmoid(x) })
	case graph.Gelu:
		return wide(func(x float64) float64 { return x * math.Erfc(-x/math.Sqrt2) / 2 })
	case graph.GeluTanh:
		return wide(func(x float64) float64 { return x * sigmoid(2*geluInner(x)) })
	case graph.ReLU:
		return func(x float32) float32 { return max(x, 0) }
	case graph.Abs:
		return wide(math.Abs)
	case graph.Sign:
		return sign
	}
	return nil
}

func sigmoid(x float64) float64  { return 1 / (1 + math.Exp(-x)) }
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func geluInner(x float64) float64 { return math.Sqrt2 / math.SqrtPi * (x + 0.044715*x*x*x) }

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
	g := slope(f)
	return func(dst, dy, a, _ []float32, _ int) {
		for i, x := range a {
			dst[i] = dy[i] * g(x)
		}
	}
}

// slope is the derivative of scalarFn.
func slope(f graph.Fn) func(x float32) float32 {
	wide := func(f func(float64) float64) func(float32) float32 {
		return func(x float32) float32 { return float32(f(float64(x))) }
	}
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
	case graph.SiLU:
		return wide(func(x float64) float64 { y := sigmoid(x); return y * (1 + x*(1-y)) })
	case graph.Gelu:
		return wide(func(x float64) float64 {
			return math.Erfc(-x/math.Sqrt2)/2 + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
		})
	case graph.GeluTanh:
		return wide(func(x float64) float64 {
			y := sigmoid(2 * geluInner(x))
			return y + x*y*(1-y)*2*math.Sqrt2/math.SqrtPi*(1+3*0.044715*x*x)
		})
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

func affine(dst, a []float32, mul, add float32) {
	for i, x := range a {
		dst[i] = x*mul + add
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
		return loop(func(a, b float32) float32 { return a + b })
	case graph.Sub:
		return loop(func(a, b float32) float32 { return a - b })
	case graph.Mul:
		return loop(func(a, b float32) float32 { return a * b })
	case graph.Div:
		return loop(func(a, b float32) float32 { return a / b })
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

func gate(f graph.Fn) elementFn {
	g := scalarFn(f)
	return func(dst, gate, up, _ []float32, _ int) {
		for i, x := range gate {
			dst[i] = g(x) * up[i]
		}
	}
}

func gateGrad(f graph.Fn) func(dgate, dup, dy, gate, up []float32) {
	y, dy := scalarFn(f), slope(f)
	return func(dgate, dup, d, gate, up []float32) {
		for i, x := range gate {
			u, d := up[i], d[i]
			dgate[i], dup[i] = d*u*dy(x), d*y(x)
		}
	}
}

// dropout is the mask's share of a block that begins at a flat index.
func dropout(op graph.Dropout, dst, a []float32, key []int32, at int) {
	k := uint64(uint32(key[0])) | uint64(uint32(key[1]))<<32
	scale := 1 / (1 - op.Rate)
	for i, x := range a {
		if graph.DropoutKeep(k, op.Salt, uint64(at+i), op.Rate) {
			dst[i] = x * scale
		} else {
			dst[i] = 0
		}
	}
}

// accumulate adds src to dst.
func accumulate(dst, src []float32) {
	src = src[:len(dst)]
	for i, x := range src {
		dst[i] += x
	}
}
