package quant

import (
	"encoding/base64"
	"math"
	"math/bits"
)

// The I-quants of ggml's ggml-quants.c: a code stands for a vector of 4 or 8 elements of a fixed set. They are only read.

// grid holds vectors of elements that are a few levels.
type grid struct {
	width  int // elements of a vector
	values []float32
}

// newGrid decodes the places of the elements in the list of levels.
func newGrid(width int, places string, levels ...float32) grid {
	packed, err := base64.StdEncoding.DecodeString(places)
	if err != nil {
		panic(err) // a constant
	}
	size := 2
	if len(levels) > 4 {
		size = 4
	}
	g := grid{width: width}
	for _, b := range packed {
		for at := 0; at < 8; at += size {
			g.values = append(g.values, levels[int(b)>>at&(1<<size-1)])
		}
	}
	return g
}

func (g *grid) vector(code int) []float32 { return g.values[code*g.width:][:g.width] }

var (
	iq2xxsGrid = newGrid(8, iq2xxsPlaces, 8, 25, 43)
	iq2xsGrid  = newGrid(8, iq2xsPlaces, 8, 25, 43)
	iq2sGrid   = newGrid(8, iq2sPlaces, 8, 25, 43)
	iq1sGrid   = newGrid(8, iq1sPlaces, -1, 0, 1)
	iq3xxsGrid = newGrid(4, iq3xxsPlaces, 4, 12, 20, 28, 36, 44, 52, 62)
	iq3sGrid   = newGrid(4, iq3sPlaces, 1, 3, 5, 7, 9, 11, 13, 15)
)

// evenSigns completes seven signs by an eighth that makes the number of minus signs even.
func evenSigns(seven byte) byte { return seven | byte(bits.OnesCount8(seven)&1)<<7 }

// signed writes a vector times a scale; set bits of signs turn elements negative.
func signed(y, vector []float32, scale float32, signs byte) {
	for i, v := range vector {
		v *= scale
		if signs>>i&1 != 0 {
			v = -v
		}
		y[i] = v
	}
}

// decodeIQ2XXS reads F16 scale, then for each 32 elements four codes of a byte and 32 bits: four times seven signs, and
// a 4-bit scale.
func decodeIQ2XXS(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 66 {
		d := FromF16(le.Uint16(src))
		for s := range 8 {
			part := src[2+8*s:]
			rest := le.Uint32(part[4:])
			scale := d * (0.5 + float32(rest>>28)) * 0.25
			for k := range 4 {
				signed(dst[32*s+8*k:], iq2xxsGrid.vector(int(part[k])), scale, evenSigns(byte(rest>>(7*k)&127)))
			}
		}
		dst, src = dst[256:], src[66:]
	}
}

// decodeIQ2XS reads F16 scale, 32 codes of 9 bits with 7 signs, 4-bit scales of 16 elements.
func decodeIQ2XS(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 74 {
		d := FromF16(le.Uint16(src))
		for k := range 32 {
			code := le.Uint16(src[2+2*k:])
			scale := d * (0.5 + float32(src[66+k/4]>>(k/2%2*4)&15)) * 0.25
			signed(dst[8*k:], iq2xsGrid.vector(int(code&511)), scale, evenSigns(byte(code>>9)))
		}
		dst, src = dst[256:], src[74:]
	}
}

// decodeIQ2S reads F16 scale, 32 low bytes of codes, 32 bytes of signs, two high bits of each code, 4-bit scales of 16
// elements.
func decodeIQ2S(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 82 {
		d := FromF16(le.Uint16(src))
		for k := range 32 {
			code := int(src[2+k]) | int(src[66+k/4]>>(k%4*2)&3)<<8
			scale := d * (0.5 + float32(src[74+k/4]>>(k/2%2*4)&15)) * 0.25
			signed(dst[8*k:], iq2sGrid.vector(code), scale, src[34+k])
		}
		dst, src = dst[256:], src[82:]
	}
}

// decodeIQ3XXS reads F16 scale, 64 codes of a byte, and for each 32 elements four times seven signs and a 4-bit scale.
func decodeIQ3XXS(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 98 {
		d := FromF16(le.Uint16(src))
		for s := range 8 {
			rest := le.Uint32(src[66+4*s:])
			scale := d * (0.5 + float32(rest>>28)) * 0.5
			for k := range 8 {
				signs := evenSigns(byte(rest >> (k / 2 * 7) & 127))
				signed(dst[32*s+4*k:], iq3xxsGrid.vector(int(src[2+8*s+k])), scale, signs>>(k%2*4))
			}
		}
		dst, src = dst[256:], src[98:]
	}
}

// decodeIQ3S reads F16 scale, 64 low bytes of codes, a high bit of each, 32 bytes of signs, 4-bit scales of 32 elements.
func decodeIQ3S(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 110 {
		d := FromF16(le.Uint16(src))
		for k := range 64 {
			code := int(src[2+k]) | int(src[66+k/8]>>(k%8)&1)<<8
			scale := d * float32(1+2*int(src[106+k/16]>>(k/8%2*4)&15))
			signed(dst[4*k:], iq3sGrid.vector(code), scale, src[74+k/2]>>(k%2*4))
		}
		dst, src = dst[256:], src[110:]
	}
}

// iq1Shift is added to each element of IQ1_S and IQ1_M, or taken off.
const iq1Shift = 0.125

func shifted(y []float32, code int, scale float32, down bool) {
	shift := float32(iq1Shift)
	if down {
		shift = -shift
	}
	for i, v := range iq1sGrid.vector(code) {
		y[i] = scale * (v + shift)
	}
}

// decodeIQ1S reads F16 scale, 32 low bytes of codes, and for each 32 elements four times three high bits, a 3-bit scale
// and the sign of the shift.
func decodeIQ1S(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 50 {
		d := FromF16(le.Uint16(src))
		for k := range 32 {
			high := le.Uint16(src[34+k/4*2:])
			code := int(src[2+k]) | int(high>>(k%4*3)&7)<<8
			shifted(dst[8*k:], code, d*float32(2*(high>>12&7)+1), high>>15 != 0)
		}
		dst, src = dst[256:], src[50:]
	}
}

// decodeIQ1M reads 32 low bytes of codes, 4 bits for each of three high bits and the sign of the shift, and four times
// 16 bits: 3-bit scales of 16 elements, and a quarter of the F16 scale.
func decodeIQ1M(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 56 {
		var half uint16
		for i := range 4 {
			half |= le.Uint16(src[48+2*i:]) >> 12 << (4 * i)
		}
		d := FromF16(half)
		for k := range 32 {
			high := src[32+k/2] >> (k % 2 * 4)
			code := int(src[k]) | int(high&7)<<8
			scale := le.Uint16(src[48+k/8*2:]) >> (k / 2 % 4 * 3) & 7
			shifted(dst[8*k:], code, d*float32(2*scale+1), high&8 != 0)
		}
		dst, src = dst[256:], src[56:]
	}
}

// decodeNVFP4 reads four scales without sign of 4 bits of exponent and 3 of fraction, then 8 bytes of codes for each 16
// elements: byte j holds element j in its low half and element j + 8 in its high half.
func decodeNVFP4(dst []float32, src []byte) {
	for len(dst) >= 64 && len(src) >= 36 {
		for s := range 4 {
			scale := unsignedF8(src[s]) / 2 // the values are twice those of the format
			y := dst[16*s:][:16:16]
			for i, c := range src[4+8*s:][:8] {
				y[i] = scale * float32(fp4Values[c&15])
				y[i+8] = scale * float32(fp4Values[c>>4])
			}
		}
		dst, src = dst[64:], src[36:]
	}
}

// unsignedF8 decodes a scale of NVFP4. The top bit is no sign, and the code of NaN counts as 0.
func unsignedF8(c byte) float32 {
	exponent, fraction := int(c>>3&15), float64(c&7)
	switch {
	case c == 0x7f:
		return 0
	case exponent == 0:
		return float32(math.Ldexp(fraction, -9))
	}
	return float32(math.Ldexp(1+fraction/8, exponent-7))
}
