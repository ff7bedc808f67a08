package quant

import "math"

// The blocks of 32 elements of ggml. d and m are half-precision; in the 4-bit and 5-bit formats the low nibbles of
// the bytes are elements 0 … 15 and the high ones 16 … 31.

// Q8_0: d, 32 × int8; y = q·d.
func decodeQ8_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		d := halves[le.Uint16(src)]
		q, y := src[2:34], dst[:32]
		for i := range y {
			y[i] = d * float32(int8(q[i]))
		}
		dst, src = dst[32:], src[34:]
	}
}

func encodeQ8_0(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[34:], src[32:] {
		var most float32
		for _, v := range src[:32] {
			most = max(most, abs(v))
		}
		d := most / 127
		var inverse float32
		if d != 0 {
			inverse = 1 / d
		}
		le.PutUint16(dst, ToF16(d))
		for i, v := range src[:32] {
			dst[2+i] = byte(int8(math.RoundToEven(float64(v * inverse))))
		}
	}
}

// Q4_0: d, 16 bytes; y = (q − 8)·d.
func decodeQ4_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		d := halves[le.Uint16(src)]
		q, y := src[2:18], dst[:32]
		for i, b := range q {
			y[i] = d * float32(int(b&15)-8)
			y[i+16] = d * float32(int(b>>4)-8)
		}
		dst, src = dst[32:], src[18:]
	}
}

func encodeQ4_0(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[18:], src[32:] {
		var most, signed float32 // the value of largest magnitude maps to −8
		for _, v := range src[:32] {
			if a := abs(v); a > most {
				most, signed = a, v
			}
		}
		d := signed / -8
		var inverse float32
		if d != 0 {
			inverse = 1 / d
		}
		le.PutUint16(dst, ToF16(d))
		for i := range 16 {
			lo := min(15, int(src[i]*inverse+8.5))
			hi := min(15, int(src[i+16]*inverse+8.5))
			dst[2+i] = byte(lo | hi<<4)
		}
	}
}

// Q4_1: d, m, 16 bytes; y = q·d + m.
func decodeQ4_1(dst []float32, src []byte) {
	for len(dst) > 0 {
		d, m := halves[le.Uint16(src)], halves[le.Uint16(src[2:])]
		q, y := src[4:20], dst[:32]
		for i, b := range q {
			y[i] = d*float32(b&15) + m
			y[i+16] = d*float32(b>>4) + m
		}
		dst, src = dst[32:], src[20:]
	}
}

func encodeQ4_1(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[20:], src[32:] {
		lo, hi := src[0], src[0]
		for _, v := range src[:32] {
			lo, hi = min(lo, v), max(hi, v)
		}
		d := (hi - lo) / 15
		var inverse float32
		if d != 0 {
			inverse = 1 / d
		}
		le.PutUint16(dst, ToF16(d))
		le.PutUint16(dst[2:], ToF16(lo))
		for i := range 16 {
			a := min(15, int((src[i]-lo)*inverse+0.5))
			b := min(15, int((src[i+16]-lo)*inverse+0.5))
			dst[4+i] = byte(a | b<<4)
		}
	}
}

// Q5_0: d, 32 fifth bits, 16 bytes; y = (q − 16)·d.
func decodeQ5_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		d, high := halves[le.Uint16(src)], le.Uint32(src[2:])
		for i, b := range src[6:22] {
			dst[i] = d * float32(int(b&15|byte(high>>i<<4&16))-16)
			dst[i+16] = d * float32(int(b>>4|byte(high>>(i+16)<<4&16))-16)
		}
		dst, src = dst[32:], src[22:]
	}
}

// Q5_1: d, m, 32 fifth bits, 16 bytes; y = q·d + m.
func decodeQ5_1(dst []float32, src []byte) {
	for len(dst) > 0 {
		d, m, high := halves[le.Uint16(src)], halves[le.Uint16(src[2:])], le.Uint32(src[4:])
		for i, b := range src[8:24] {
			dst[i] = d*float32(b&15|byte(high>>i<<4&16)) + m
			dst[i+16] = d*float32(b>>4|byte(high>>(i+16)<<4&16)) + m
		}
		dst, src = dst[32:], src[24:]
	}
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }
