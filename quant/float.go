package quant

import (
	"encoding/binary"
	"math"
)

var le = binary.LittleEndian

// FromF16 converts a half-precision float; the result is exact, and a NaN keeps its payload.
func FromF16(h uint16) float32 {
	const rebias = 1 << 112 // moves the exponent from bias 15 to bias 127, of normal and subnormal numbers alike
	b := math.Float32bits(math.Float32frombits(uint32(h&0x7fff)<<13) * rebias)
	if h&0x7c00 == 0x7c00 {
		b |= 0x7f800000
	}
	return math.Float32frombits(b | uint32(h&0x8000)<<16)
}

// ToF16 converts to half precision, rounding to nearest even. What is too large becomes infinite; a NaN becomes
// quiet and keeps the upper bits of its payload.
func ToF16(f float32) uint16 {
	const (
		infinite = 0x7f800000
		overflow = 0x477ff000 // 65520, half-way between the largest F16 and the next power of two
		normal   = 0x38800000 // 2^-14, the smallest normal F16
	)
	b := math.Float32bits(f)
	sign := uint16(b>>16) & 0x8000
	b &= 0x7fffffff
	switch {
	case b > infinite:
		return sign | 0x7e00 | uint16(b>>13)&0x3ff
	case b >= overflow:
		return sign | 0x7c00
	case b < normal:
		// The last place of 0.5 in single precision is 2^-24, the step of the subnormal F16: the sum is rounded to it.
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-math.Float32bits(0.5))
	}
	b += 0xfff + b>>13&1
	return sign | uint16((b-(127-15)<<23)>>13)
}

// FromBF16 converts a bfloat16; the result is exact.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToBF16 converts to bfloat16, rounding to nearest even. A NaN becomes quiet and keeps the upper bits of its
// payload.
func ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// fromF8E4M3 converts an 8-bit float of bias 7, whose only values beyond the finite ones are NaN.
func fromF8E4M3(v byte) float32 {
	const rebias = 1 << 120
	b := math.Float32bits(math.Float32frombits(uint32(v&0x7f)<<20) * rebias)
	if v&0x7f == 0x7f {
		b = 0x7fc00000
	}
	return math.Float32frombits(b | uint32(v&0x80)<<24)
}

func decodeF32(dst []float32, src []byte) {
	for len(dst) >= 4 && len(src) >= 16 {
		d, s := dst[:4:4], src[:16:16]
		d[0] = math.Float32frombits(le.Uint32(s[0:]))
		d[1] = math.Float32frombits(le.Uint32(s[4:]))
		d[2] = math.Float32frombits(le.Uint32(s[8:]))
		d[3] = math.Float32frombits(le.Uint32(s[12:]))
		dst, src = dst[4:], src[16:]
	}
	for i := range dst {
		dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
	}
}

func encodeF32(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func decodeF64(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(math.Float64frombits(le.Uint64(src[8*i:])))
	}
}

func encodeF64(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint64(dst[8*i:], math.Float64bits(float64(v)))
	}
}

func decodeF16(dst []float32, src []byte) {
	for len(dst) >= 4 && len(src) >= 8 {
		d, w := dst[:4:4], le.Uint64(src)
		d[0] = FromF16(uint16(w))
		d[1] = FromF16(uint16(w >> 16))
		d[2] = FromF16(uint16(w >> 32))
		d[3] = FromF16(uint16(w >> 48))
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		dst[i] = FromF16(le.Uint16(src[2*i:]))
	}
}

func encodeF16(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint16(dst[2*i:], ToF16(v))
	}
}

func decodeBF16(dst []float32, src []byte) {
	for len(dst) >= 4 && len(src) >= 8 {
		d, w := dst[:4:4], le.Uint64(src)
		d[0] = math.Float32frombits(uint32(w) << 16)
		d[1] = math.Float32frombits(uint32(w) & 0xffff0000)
		d[2] = math.Float32frombits(uint32(w>>32) << 16)
		d[3] = math.Float32frombits(uint32(w>>32) & 0xffff0000)
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		dst[i] = FromBF16(le.Uint16(src[2*i:]))
	}
}

func encodeBF16(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint16(dst[2*i:], ToBF16(v))
	}
}

func decodeF8E4M3(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = fromF8E4M3(src[i])
	}
}

func decodeF8E5M2(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = FromF16(uint16(src[i]) << 8)
	}
}

func decodeI8(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int8(src[i]))
	}
}

func decodeU8(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(src[i])
	}
}

func decodeI16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int16(le.Uint16(src[2*i:])))
	}
}

func decodeU16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(le.Uint16(src[2*i:]))
	}
}

func decodeI32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int32(le.Uint32(src[4*i:])))
	}
}

func decodeU32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(le.Uint32(src[4*i:]))
	}
}

func decodeI64(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int64(le.Uint64(src[8*i:])))
	}
}

func decodeU64(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(le.Uint64(src[8*i:]))
	}
}
