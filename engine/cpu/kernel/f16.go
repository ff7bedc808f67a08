package kernel

import "math"

// F16 views memory as numbers of half precision: 5 bits of exponent, 10 of fraction.
func F16(memory []float32) []uint16 { return halves[uint16](memory) }

// ToF16 rounds to the nearest half, ties to even. What is too large for one becomes the largest.
func ToF16(dst []uint16, a []float32) {
	n := len(dst) &^ 15
	for i := 0; i < n; i += chunk {
		j := min(i+chunk, n)
		active.toF16(dst[i:j], a[i:j])
	}
	for i := n; i < len(dst); i++ {
		dst[i] = toF16(a[i])
	}
}

// FromF16 widens halves.
func FromF16(dst []float32, a []uint16) {
	n := len(dst) &^ 15
	for i := 0; i < n; i += chunk {
		j := min(i+chunk, n)
		active.fromF16(dst[i:j], a[i:j])
	}
	for i := n; i < len(dst); i++ {
		dst[i] = fromF16(a[i])
	}
}

func toF16(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	b &^= 1 << 31
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00 // NaN
	case b >= 0x477fe000: // 65504
		return sign | 0x7bff
	case b < 0x38800000: // 2⁻¹⁴: multiples of 2⁻²⁴
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(b))*(1<<24)))
	}
	b += 0xfff + b>>13&1
	return sign | uint16((b-0x38000000)>>13)
}

func fromF16(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&0x3ff)
	switch exponent {
	case 0:
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)/(1<<24)))
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
