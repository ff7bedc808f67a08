package quant

import (
	"encoding/binary"
	"math"
)

var le = binary.LittleEndian

// FromF16 returns the value of an IEEE half-precision number.
func FromF16(h uint16) float32 { return halves[h] }

// halves holds every half-precision value: a look-up is faster than taking the number apart.
var halves = func() (table [1 << 16]float32) {
	for h := range table {
		sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&1023
		switch {
		case exp == 31:
			table[h] = math.Float32frombits(sign | 0x7f800000 | frac<<13)
		case exp == 0:
			v := math.Float32bits(float32(frac) / (1 << 24))
			table[h] = math.Float32frombits(sign | v)
		default:
			table[h] = math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
		}
	}
	return table
}()

// ToF16 rounds to the nearest half-precision number, ties to even; what is too large becomes infinite.
func ToF16(x float32) uint16 {
	bits := math.Float32bits(x)
	sign := uint16(bits >> 16 & 0x8000)
	exp := int(bits >> 23 & 0xff)
	frac := bits & 0x7fffff
	switch {
	case exp == 0xff:
		if frac != 0 {
			return sign | 0x7e00 | uint16(frac>>13)
		}
		return sign | 0x7c00
	case exp < 102: // below half of the smallest subnormal
		return sign
	case exp < 113: // subnormal: the value in units of 2⁻²⁴
		frac |= 0x800000
		shift := uint(126 - exp)
		return sign | uint16(roundShift(frac, shift))
	}
	h := uint32(exp-112)<<10 + roundShift(frac, 13) // a carry of the fraction raises the exponent
	if h >= 0x7c00 {
		return sign | 0x7c00
	}
	return sign | uint16(h)
}

// roundShift is x >> n, rounded to the nearest, ties to even.
func roundShift(x uint32, n uint) uint32 {
	half := uint32(1) << (n - 1)
	q, rest := x>>n, x&(1<<n-1)
	if rest > half || rest == half && q&1 == 1 {
		q++
	}
	return q
}

// FromBF16 returns the value of a bfloat16 number.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// ToBF16 rounds to the nearest bfloat16 number, ties to even.
func ToBF16(x float32) uint16 {
	bits := math.Float32bits(x)
	if bits&0x7fffffff > 0x7f800000 { // NaN stays NaN
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func decodeF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
	}
}

func encodeF32(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func decodeF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = halves[le.Uint16(src[2*i:])]
	}
}

func encodeF16(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint16(dst[2*i:], ToF16(v))
	}
}

func decodeBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = FromBF16(le.Uint16(src[2*i:]))
	}
}

func encodeBF16(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint16(dst[2*i:], ToBF16(v))
	}
}
