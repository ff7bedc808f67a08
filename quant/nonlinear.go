package quant

import "math"

// The formats of ggml's ggml-quants.c whose codes stand for entries of a table or for −1, 0 and 1. They are only read.

// iq4Values are the entries of IQ4_NL and IQ4_XS.
var iq4Values = [16]int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// fp4Values are twice the 4-bit floats of the OCP Microscaling formats (2023): a sign, two bits of exponent, one of
// fraction.
var fp4Values = [16]int8{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// lookUp decodes 32 elements: byte j holds element j in its low half and element j + 16 in its high half.
func lookUp(dst []float32, codes []byte, values *[16]int8, scale float32) {
	lo, hi, codes := dst[:16:16], dst[16:32:32], codes[:16:16]
	for i, c := range codes {
		lo[i] = scale * float32(values[c&15])
		hi[i] = scale * float32(values[c>>4])
	}
}

// decodeIQ4NL reads F16 scale, 16 bytes of codes.
func decodeIQ4NL(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 18 {
		lookUp(dst, src[2:18], &iq4Values, FromF16(le.Uint16(src)))
		dst, src = dst[32:], src[18:]
	}
}

// decodeIQ4XS reads F16 scale of the scales, the upper two bits of eight 6-bit scales, their lower four, 128 bytes of
// codes.
func decodeIQ4XS(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 136 {
		d, upper := FromF16(le.Uint16(src)), le.Uint16(src[2:])
		for s := range 8 {
			scale := int32(src[4+s/2]>>(s%2*4)&15) | int32(upper>>(2*s)&3)<<4
			lookUp(dst[32*s:], src[8+16*s:], &iq4Values, d*float32(scale-32))
		}
		dst, src = dst[256:], src[136:]
	}
}

// decodeMXFP4 reads an exponent of bias 127, 16 bytes of codes.
func decodeMXFP4(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 17 {
		lookUp(dst, src[1:17], &fp4Values, float32(math.Ldexp(0.5, int(src[0])-127)))
		dst, src = dst[32:], src[17:]
	}
}

// decodeTQ2 reads 64 bytes of four 2-bit codes, F16 scale. 32 bytes serve 128 elements, two bits for each run of 32.
func decodeTQ2(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 66 {
		d := FromF16(le.Uint16(src[64:]))
		for run := range 8 {
			y, codes := dst[32*run:][:32:32], src[run/4*32:][:32:32]
			for i, c := range codes {
				y[i] = d * float32(int32(c>>(run%4*2)&3)-1)
			}
		}
		dst, src = dst[256:], src[66:]
	}
}

// decodeTQ1 reads 52 bytes of five (the last four: of four) ternary digits, F16 scale. A byte is a fraction of 256
// whose digits in base 3 are the codes: multiplied by 3 to the k, modulo 256, its leading digit is code k. The codes
// of 32 bytes, then of 16, then of 4, are interleaved.
func decodeTQ1(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 54 {
		d := FromF16(le.Uint16(src[52:]))
		y, packed := dst[:256], src
		for _, part := range [...]struct{ bytes, digits int }{{32, 5}, {16, 5}, {4, 4}} {
			power := byte(1)
			for range part.digits {
				for i, c := range packed[:part.bytes] {
					y[i] = d * float32(int32(uint16(c*power)*3>>8)-1)
				}
				y = y[part.bytes:]
				power *= 3
			}
			packed = packed[part.bytes:]
		}
		dst, src = dst[256:], src[54:]
	}
}
