package quant

import "math"

// The formats of ggml's ggml-quants.c whose codes stand for entries of a table or for −1, 0 and 1.

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

// nearest4 returns the first of the values nearest to a scaled element.
func nearest4(values *[16]int8, x float32) byte {
	best, least := 0, float32(math.Inf(1))
	for c, v := range values {
		if d := float32(math.Abs(float64(float32(v) - x))); d < least {
			best, least = c, d
		}
	}
	return byte(best)
}

// encodeMXFP4 chooses the exponent that brings the largest element below 8.
func encodeMXFP4(dst []byte, src []float32) {
	for len(src) >= 32 {
		x := src[:32:32]
		dst[0] = 0
		if most := largest(x); most > 0 {
			_, e := math.Frexp(float64(most)) // most < 2^e
			dst[0] = byte(max(e-3+127, 0))
		}
		inverse := float32(math.Ldexp(2, 127-int(dst[0])))
		for i := range 16 {
			dst[1+i] = nearest4(&fp4Values, x[i]*inverse) | nearest4(&fp4Values, x[i+16]*inverse)<<4
		}
		dst, src = dst[17:], src[32:]
	}
}

// ternary rounds a scaled element to 0, 1 or 2, which stand for −1, 0 and 1.
func ternary(scaled float32) byte { return byte(int(math.Round(float64(scaled))) + 1) }

func encodeTQ2(dst []byte, src []float32) {
	for len(src) >= 256 {
		x := src[:256:256]
		d := largest(x)
		id := inverse(d)
		clear(dst[:64])
		for i, v := range x {
			dst[i/128*32+i%32] |= ternary(v*id) << (i % 128 / 32 * 2)
		}
		le.PutUint16(dst[64:], ToF16(d))
		dst, src = dst[66:], src[256:]
	}
}

// encodeTQ1 packs digits so that the product of a byte and a power of 3 has the next digit on top: the number of five
// digits in base 3, as a fraction of 243, rounded up to one of 256.
func encodeTQ1(dst []byte, src []float32) {
	for len(src) >= 256 {
		x := src[:256:256]
		d := largest(x)
		id := inverse(d)
		at, to := 0, 0
		for _, part := range [...]struct{ bytes, digits int }{{32, 5}, {16, 5}, {4, 4}} {
			for b := range part.bytes {
				n := 0
				for k := range 5 {
					n *= 3
					if k < part.digits {
						n += int(ternary(x[at+k*part.bytes+b] * id))
					}
				}
				dst[to+b] = byte((n*256 + 242) / 243)
			}
			at, to = at+part.bytes*part.digits, to+part.bytes
		}
		le.PutUint16(dst[52:], ToF16(d))
		dst, src = dst[54:], src[256:]
	}
}
