package kernel

import (
	"encoding/binary"
	"math"
)

// The twins of the vector kernels in plain Go, by the same formulas.

var tablePortable = table{
	add: func(dst, a, b []float32) {
		for i := range dst {
			dst[i] = a[i] + b[i]
		}
	},
	sub: func(dst, a, b []float32) {
		for i := range dst {
			dst[i] = a[i] - b[i]
		}
	},
	mul: func(dst, a, b []float32) {
		for i := range dst {
			dst[i] = a[i] * b[i]
		}
	},
	div: func(dst, a, b []float32) {
		for i := range dst {
			dst[i] = a[i] / b[i]
		}
	},
	scale: func(dst, a []float32, s float32) {
		for i := range dst {
			dst[i] = a[i] * s
		}
	},
	axpy: func(dst, a []float32, s float32) {
		for i := range dst {
			dst[i] += a[i] * s
		}
	},
	mulAdd: func(dst, a, b []float32) {
		for i := range dst {
			dst[i] += a[i] * b[i]
		}
	},
	mulAddScaled: func(dst, a, b []float32, s float32) {
		for i := range dst {
			dst[i] += a[i] * s * b[i]
		}
	},
	mulScale: func(dst, a, w []float32, s, offset float32) {
		for i := range dst {
			dst[i] = a[i] * s * (w[i] + offset)
		}
	},
	normGrad: func(dst, dy, w, x []float32, s, offset, c float32) {
		for i := range dst {
			dst[i] = dy[i]*s*(w[i]+offset) - x[i]*c
		}
	},
	softmaxGrad: func(dst, p, dp []float32, c, s float32) {
		for i := range dst {
			dst[i] = p[i] * s * (dp[i] - c)
		}
	},
	rotate: func(lo, hi, cos, sin []float32, s float32) {
		for i, l := range lo {
			h, c, s := hi[i], cos[i], sin[i]*s
			lo[i], hi[i] = l*c-h*s, h*c+l*s
		}
	},
	adamW: func(p, m, v, g []float32, c *adamConst) {
		for i := range p {
			g := g[i] * c.gradScale
			m[i] += (g - m[i]) * c.keep1
			v[i] = v[i]*c.beta2 + g*g*c.keep2
			p[i] = p[i]*c.decay - m[i]/(sqrt(v[i])*c.root+c.eps)*c.step
		}
	},
	toBF16: func(dst []uint16, a []float32) {
		for i := range dst {
			dst[i] = toBF16(a[i])
		}
	},
	fromBF16: func(dst []float32, a []uint16) {
		for i := range dst {
			dst[i] = fromBF16(a[i])
		}
	},
	toF16: func(dst []uint16, a []float32) {
		for i := range dst {
			dst[i] = toF16(a[i])
		}
	},
	fromF16: func(dst []float32, a []uint16) {
		for i := range dst {
			dst[i] = fromF16(a[i])
		}
	},

	exp:     mapped(exp),
	sigmoid: mapped(sigmoid),
	tanh:    mapped(tanh),
	expSub: func(dst, a []float32, c, s float32) {
		for i := range dst {
			dst[i] = s * exp(a[i]-c)
		}
	},
	silu: mapped1(silu), siluGrad: grad(silu), siluGate: gate(silu), siluGateGrad: gateGrad(silu),
	gelu: mapped1(gelu), geluGrad: grad(gelu), geluGate: gate(gelu), geluGateGrad: gateGrad(gelu),
	geluTanh: mapped1(geluTanh), geluTanhGrad: grad(geluTanh), geluTanhGate: gate(geluTanh), geluTanhGateGrad: gateGrad(geluTanh),

	sum: func(a []float32) float32 {
		return lanes(len(a), func(i int) float32 { return a[i] })
	},
	sumSquares: func(a []float32) float32 {
		return lanes(len(a), func(i int) float32 { return a[i] * a[i] })
	},
	dot: func(a, b []float32) float32 {
		return lanes(len(a), func(i int) float32 { return a[i] * b[i] })
	},
	dot3: func(a, b, c []float32, offset float32) float32 {
		return lanes(len(a), func(i int) float32 { return a[i] * b[i] * (c[i] + offset) })
	},
	max: func(a []float32) float32 {
		top := float32(math.Inf(-1))
		for _, x := range a {
			if x > top {
				top = x
			}
		}
		return top
	},
	expSum: func(dst, a []float32, c float32) float32 {
		return lanes(len(a), func(i int) float32 {
			dst[i] = exp(a[i] - c)
			return dst[i]
		})
	},
	sumExp: func(a []float32, c float32) float32 {
		return lanes(len(a), func(i int) float32 { return exp(a[i] - c) })
	},

	gemm:       gemmPortable,
	gemmBF16:   gemmBF16Portable,
	gemm16:     gemm16Portable(portableCols),
	quantize16: func(q []int16, a []float32) float32 { return quantizePortable(q, a, levels16) },
	quantize15: func(q []int16, a []float32) float32 { return quantizePortable(q, a, levels15) },
	turn16:     turn16Portable,
	turn32:     turn32Portable,

	dotQ8: func(y []float32, x []int16, w []byte) {
		dotIntegers(y, x, w, 34, func(b []byte, i int) int32 { return int32(int8(b[2+i])) })
	},
	dotQ40: func(y []float32, x []int16, w []byte) {
		dotIntegers(y, x, w, 18, func(b []byte, i int) int32 { return nibble(b[2:], i) - 8 })
	},
	dotQ41: dotQ41Portable,
	dotF32: func(y, x []float32, w []byte) {
		dotFloats(y, x, w, 4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	},
	dotBF16: func(y, x []float32, w []byte) {
		dotFloats(y, x, w, 2, func(b []byte) float32 { return fromBF16(binary.LittleEndian.Uint16(b)) })
	},
	dotF16: func(y, x []float32, w []byte) {
		dotFloats(y, x, w, 2, func(b []byte) float32 { return fromF16(binary.LittleEndian.Uint16(b)) })
	},
	gemmRows: []int{1, 4},
	gemmCols: portableCols,
}

// lanes sums f(0) … f(n−1) in eight interleaved sums, which are as exact as those of a vector kernel.
func lanes(n int, f func(int) float32) float32 {
	var acc [8]float32
	for i := range n {
		acc[i%8] += f(i)
	}
	return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]))
}

func mapped(f func(float32) float32) func(dst, a []float32) {
	return func(dst, a []float32) {
		for i := range dst {
			dst[i] = f(a[i])
		}
	}
}

// activation returns f(x) and f′(x).
type activation func(x float32) (y, slope float32)

func mapped1(f activation) func(dst, a []float32) {
	return mapped(func(x float32) float32 {
		y, _ := f(x)
		return y
	})
}

func grad(f activation) func(dst, dy, a []float32) {
	return func(dst, dy, a []float32) {
		for i := range dst {
			_, slope := f(a[i])
			dst[i] = dy[i] * slope
		}
	}
}

func gate(f activation) func(dst, gate, up []float32) {
	return func(dst, gate, up []float32) {
		for i := range dst {
			y, _ := f(gate[i])
			dst[i] = y * up[i]
		}
	}
}

func gateGrad(f activation) func(dgate, dup, dy, gate, up []float32) {
	return func(dgate, dup, dy, gate, up []float32) {
		for i := range dgate {
			y, slope := f(gate[i])
			d := dy[i]
			dgate[i], dup[i] = slope*up[i]*d, y*d
		}
	}
}

func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// exp is e^x: x/ln 2 rounded to an integer n, a polynomial of the rest, and n added to the exponent. Results below
// e^−87 are 0.
func exp(x float32) float32 {
	const magic = 3 << 22 // adding it leaves the rounded integer in the low bits
	if x < -87 {
		return 0
	}
	if x > 89 {
		x = 89
	}
	e := float32(x*math.Log2E) + magic
	n := e - magic
	r := x - n*0.693359375
	r -= n * (math.Ln2 - 0.693359375)
	p := float32(0.001381453789384656)
	p = p*r + 0.008368745320049355
	p = p*r + 0.04166839083131378
	p = p*r + 0.1666652039677075
	p = p*r + 0.49999993431891193
	p = p*(r*r) + r + 1
	return (p + p) * math.Float32frombits(math.Float32bits(e)<<23+126<<23)
}

func sigmoid(x float32) float32 { return 1 / (1 + exp(-x)) }

func tanh(x float32) float32 {
	a := abs(x)
	if a < 0.625 {
		z := x * x
		p := float32(-0.0056483076099897766)
		p = p*z + 0.020589817537417336
		p = p*z - 0.05372512346172259
		p = p*z + 0.13331274387980963
		p = p*z - 0.33333276057267225
		return p*z*x + x
	}
	return float32(math.Copysign(float64(1-2/(exp(2*a)+1)), float64(x)))
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func silu(x float32) (y, slope float32) {
	s := sigmoid(x)
	y = x * s
	return y, s + (y - y*s)
}

func geluTanh(x float32) (y, slope float32) {
	const two = 2 * math.Sqrt2 / math.SqrtPi
	z := x * x
	s := sigmoid(x * (two*0.044715*z + two))
	y = x * s
	return y, s + (y-y*s)*(two*0.044715*3*z+two)
}

// gelu is x·Φ(x) with Φ(−|x|) = e^(−x²/2)·t·P(t), t = 1/(1 + 0.35·|x|/√2).
func gelu(x float32) (y, slope float32) {
	e := exp(-x * x / 2)
	t := 1 / (1 + 0.35/math.Sqrt2*abs(x))
	p := float32(0.03840276989540058 / 2)
	for _, c := range [...]float32{
		-0.1589376505266647 / 2, 0.18148334949213527 / 2, -0.02773530247587811 / 2, 0.08704355251974139 / 2,
		0.14602879753446102 / 2, 0.15119084611085823 / 2, 0.1879013959838763 / 2, 0.19713847651737548 / 2, 0.19748377207409137 / 2,
	} {
		p = p*t + c
	}
	p *= t * e
	if x >= 0 {
		p = 1 - p
	}
	return x * p, p + x*e*float32(1/math.Sqrt2/math.SqrtPi)
}

func toBF16(x float32) uint16 {
	u := math.Float32bits(x)
	if x != x {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

func fromBF16(x uint16) float32 { return math.Float32frombits(uint32(x) << 16) }
