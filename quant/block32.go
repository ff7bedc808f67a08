package quant

import "math"

// The formats with blocks of 32, from ggml's ggml-quants.c. In the 4- and 5-bit formats, byte j of a block holds
// element j in its low half and element j + 16 in its high half. Products are converted to float32 before an
// addition, because a fused multiply-add would round differently.

func decodeQ8_0(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 34 {
		d := FromF16(le.Uint16(src))
		y, q := dst[:32:32], src[2:34:34]
		for i := range y {
			y[i] = d * float32(int8(q[i]))
		}
		dst, src = dst[32:], src[34:]
	}
}

func encodeQ8_0(dst []byte, src []float32) {
	for len(src) >= 32 {
		x := src[:32:32]
		d := largest(x) / 127
		id := inverse(d)
		le.PutUint16(dst, ToF16(d))
		for i, v := range x {
			dst[2+i] = byte(int8(math.RoundToEven(float64(v * id))))
		}
		dst, src = dst[34:], src[32:]
	}
}

func decodeQ4_0(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 18 {
		d := FromF16(le.Uint16(src))
		lo, hi, q := dst[:16:16], dst[16:32:32], src[2:18:18]
		for i := range lo {
			lo[i] = d * float32(int32(q[i]&15)-8)
			hi[i] = d * float32(int32(q[i]>>4)-8)
		}
		dst, src = dst[32:], src[18:]
	}
}

func encodeQ4_0(dst []byte, src []float32) {
	for len(src) >= 32 {
		x := src[:32:32]
		d := extreme(x) / -8
		id := inverse(d)
		le.PutUint16(dst, ToF16(d))
		for i := range 16 {
			dst[2+i] = code(x[i]*id, 8.5, 15) | code(x[i+16]*id, 8.5, 15)<<4
		}
		dst, src = dst[18:], src[32:]
	}
}

func decodeQ4_1(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 20 {
		d, m := FromF16(le.Uint16(src)), FromF16(le.Uint16(src[2:]))
		lo, hi, q := dst[:16:16], dst[16:32:32], src[4:20:20]
		for i := range lo {
			lo[i] = float32(d*float32(int32(q[i]&15))) + m
			hi[i] = float32(d*float32(int32(q[i]>>4))) + m
		}
		dst, src = dst[32:], src[20:]
	}
}

func encodeQ4_1(dst []byte, src []float32) {
	for len(src) >= 32 {
		x := src[:32:32]
		lowest, highest := bounds(x)
		d := (highest - lowest) / 15
		id := inverse(d)
		le.PutUint16(dst, ToF16(d))
		le.PutUint16(dst[2:], ToF16(lowest))
		for i := range 16 {
			dst[4+i] = code((x[i]-lowest)*id, 0.5, 15) | code((x[i+16]-lowest)*id, 0.5, 15)<<4
		}
		dst, src = dst[20:], src[32:]
	}
}

func decodeQ5_0(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 22 {
		d, fifth := FromF16(le.Uint16(src)), le.Uint32(src[2:])
		lo, hi, q := dst[:16:16], dst[16:32:32], src[6:22:22]
		for i := range lo {
			lo[i] = d * float32(int32(uint32(q[i]&15)|fifth>>i&1<<4)-16)
			hi[i] = d * float32(int32(uint32(q[i]>>4)|fifth>>(i+16)&1<<4)-16)
		}
		dst, src = dst[32:], src[22:]
	}
}

func encodeQ5_0(dst []byte, src []float32) {
	for len(src) >= 32 {
		x := src[:32:32]
		d := extreme(x) / -16
		id := inverse(d)
		le.PutUint16(dst, ToF16(d))
		var fifth uint32
		for i := range 16 {
			a, b := code(x[i]*id, 16.5, 31), code(x[i+16]*id, 16.5, 31)
			dst[6+i] = a&15 | b<<4
			fifth |= uint32(a>>4)<<i | uint32(b>>4)<<(i+16)
		}
		le.PutUint32(dst[2:], fifth)
		dst, src = dst[22:], src[32:]
	}
}

func decodeQ5_1(dst []float32, src []byte) {
	for len(dst) >= 32 && len(src) >= 24 {
		d, m, fifth := FromF16(le.Uint16(src)), FromF16(le.Uint16(src[2:])), le.Uint32(src[4:])
		lo, hi, q := dst[:16:16], dst[16:32:32], src[8:24:24]
		for i := range lo {
			lo[i] = float32(d*float32(int32(uint32(q[i]&15)|fifth>>i&1<<4))) + m
			hi[i] = float32(d*float32(int32(uint32(q[i]>>4)|fifth>>(i+16)&1<<4))) + m
		}
		dst, src = dst[32:], src[24:]
	}
}

func encodeQ5_1(dst []byte, src []float32) {
	for len(src) >= 32 {
		x := src[:32:32]
		lowest, highest := bounds(x)
		d := (highest - lowest) / 31
		id := inverse(d)
		le.PutUint16(dst, ToF16(d))
		le.PutUint16(dst[2:], ToF16(lowest))
		var fifth uint32
		for i := range 16 {
			a, b := code((x[i]-lowest)*id, 0.5, 31), code((x[i+16]-lowest)*id, 0.5, 31)
			dst[8+i] = a&15 | b<<4
			fifth |= uint32(a>>4)<<i | uint32(b>>4)<<(i+16)
		}
		le.PutUint32(dst[4:], fifth)
		dst, src = dst[24:], src[32:]
	}
}

// code shifts a scaled element to the range of the codes, half a step up, and cuts it.
func code(scaled, shift float32, most byte) byte {
	return min(most, byte(max(0, int32(float32(scaled)+shift))))
}

func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// largest returns the largest absolute value.
func largest(x []float32) float32 {
	var most float32
	for _, v := range x {
		most = max(most, max(v, -v))
	}
	return most
}

// extreme returns the element of largest absolute value, the first of several, with its sign.
func extreme(x []float32) float32 {
	var most, value float32
	for _, v := range x {
		if a := max(v, -v); a > most {
			most, value = a, v
		}
	}
	return value
}

func bounds(x []float32) (lowest, highest float32) {
	lowest, highest = x[0], x[0]
	for _, v := range x {
		lowest, highest = min(lowest, v), max(highest, v)
	}
	return lowest, highest
}
