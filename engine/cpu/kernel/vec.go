package kernel

import "math"

// chunk is how many elements one call of assembly takes at most: about 20 µs of the slowest kernel.
const chunk = 1 << 14

// The functions below compute dst element by element. Other slices have at least the length of dst and may be dst.

// Add is dst = a + b.
func Add(dst, a, b []float32) { chunks2(active.add, dst, a, b) }

// Sub is dst = a − b.
func Sub(dst, a, b []float32) { chunks2(active.sub, dst, a, b) }

// Mul is dst = a·b.
func Mul(dst, a, b []float32) { chunks2(active.mul, dst, a, b) }

// Div is dst = a/b.
func Div(dst, a, b []float32) { chunks2(active.div, dst, a, b) }

// MulAdd is dst += a·b.
func MulAdd(dst, a, b []float32) { chunks2(active.mulAdd, dst, a, b) }

// Scale is dst = s·a.
func Scale(dst, a []float32, s float32) {
	for i := 0; i < len(dst); i += chunk {
		j := min(i+chunk, len(dst))
		active.scale(dst[i:j], a[i:j], s)
	}
}

// Axpy is dst += s·a.
func Axpy(dst, a []float32, s float32) {
	for i := 0; i < len(dst); i += chunk {
		j := min(i+chunk, len(dst))
		active.axpy(dst[i:j], a[i:j], s)
	}
}

// Exp is dst = e^a, within 2 units in the last place; results below e^−87 are 0.
func Exp(dst, a []float32) { chunks1(active.exp, dst, a) }

// Sigmoid is dst = 1/(1 + e^−a).
func Sigmoid(dst, a []float32) { chunks1(active.sigmoid, dst, a) }

// Tanh is dst = tanh a.
func Tanh(dst, a []float32) { chunks1(active.tanh, dst, a) }

// ExpSub is dst = s·e^(a − c): with c the logarithm of a softmax's denominator, s times the probabilities.
func ExpSub(dst, a []float32, c, s float32) {
	for i := 0; i < len(dst); i += chunk {
		j := min(i+chunk, len(dst))
		active.expSub(dst[i:j], a[i:j], c, s)
	}
}

func chunks1(f func(dst, a []float32), dst, a []float32) {
	for i := 0; i < len(dst); i += chunk {
		j := min(i+chunk, len(dst))
		f(dst[i:j], a[i:j])
	}
}

func chunks2(f func(dst, a, b []float32), dst, a, b []float32) {
	for i := 0; i < len(dst); i += chunk {
		j := min(i+chunk, len(dst))
		f(dst[i:j], a[i:j], b[i:j])
	}
}

// Activation is a function with a slope that a gate may apply.
type Activation int

// The activations: x·σ(x), x·Φ(x), and the form of the latter by tanh.
const (
	SiLU Activation = iota
	Gelu
	GeluTanh
)

// Activate is dst = f(a).
func (f Activation) Activate(dst, a []float32) {
	chunks1([...]func(dst, a []float32){active.silu, active.gelu, active.geluTanh}[f], dst, a)
}

// Grad is dst = dy·f′(a).
func (f Activation) Grad(dst, dy, a []float32) {
	chunks2([...]func(dst, a, b []float32){active.siluGrad, active.geluGrad, active.geluTanhGrad}[f], dst, dy, a)
}

// Gate is dst = f(gate)·up.
func (f Activation) Gate(dst, gate, up []float32) {
	chunks2([...]func(dst, a, b []float32){active.siluGate, active.geluGate, active.geluTanhGate}[f], dst, gate, up)
}

// GateGrad is dgate = dy·up·f′(gate) and dup = dy·f(gate).
func (f Activation) GateGrad(dgate, dup, dy, gate, up []float32) {
	g := [...]func(dgate, dup, dy, gate, up []float32){active.siluGateGrad, active.geluGateGrad, active.geluTanhGateGrad}[f]
	for i := 0; i < len(dgate); i += chunk {
		j := min(i+chunk, len(dgate))
		g(dgate[i:j], dup[i:j], dy[i:j], gate[i:j], up[i:j])
	}
}

// ToBF16 rounds to the nearest bfloat16, ties to even.
func ToBF16(dst []uint16, a []float32) {
	whole := len(dst) &^ 15
	for i := 0; i < whole; i += chunk {
		j := min(i+chunk, whole)
		active.toBF16(dst[i:j], a[i:j])
	}
	for i := whole; i < len(dst); i++ {
		dst[i] = toBF16(a[i])
	}
}

// FromBF16 widens bfloat16.
func FromBF16(dst []float32, a []uint16) {
	whole := len(dst) &^ 15
	for i := 0; i < whole; i += chunk {
		j := min(i+chunk, whole)
		active.fromBF16(dst[i:j], a[i:j])
	}
	for i := whole; i < len(dst); i++ {
		dst[i] = fromBF16(a[i])
	}
}

// Sum returns the sum of a, in a fixed order; parts of long slices are joined in double precision.
func Sum(a []float32) float64 {
	var s float64
	for i := 0; i < len(a); i += chunk {
		s += float64(active.sum(a[i:min(i+chunk, len(a))]))
	}
	return s
}

// SumSquares returns Σ a², as Sum does.
func SumSquares(a []float32) float64 {
	var s float64
	for i := 0; i < len(a); i += chunk {
		s += float64(active.sumSquares(a[i:min(i+chunk, len(a))]))
	}
	return s
}

// Dot returns Σ a·b, as Sum does.
func Dot(a, b []float32) float64 {
	var s float64
	for i := 0; i < len(a); i += chunk {
		j := min(i+chunk, len(a))
		s += float64(active.dot(a[i:j], b[i:j]))
	}
	return s
}

// Max returns the maximum of a, −∞ where a is empty.
func Max(a []float32) float32 {
	top := float32(math.Inf(-1))
	for i := 0; i < len(a); i += chunk {
		if x := active.max(a[i:min(i+chunk, len(a))]); x > top {
			top = x
		}
	}
	return top
}
