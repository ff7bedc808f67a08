package quant

// The K formats of ggml's ggml-quants.c: blocks of 256 elements in sub-blocks of 16 or 32, whose scales are small
// integers themselves. Products are converted to float32 before a subtraction, because a fused multiply-add would
// round differently.

// decodeQ2K reads 16 bytes of scale (low half) and minimum (high half), 64 bytes of codes, F16 scale of the scales,
// F16 scale of the minima. 32 bytes of codes serve 128 elements, two bits for each run of 32.
func decodeQ2K(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 84 {
		scales, codes := src[:16:16], src[16:80:80]
		d, m := FromF16(le.Uint16(src[80:])), FromF16(le.Uint16(src[82:]))
		for s, scale := range scales {
			step, low := d*float32(int32(scale&15)), m*float32(int32(scale>>4))
			y, q := dst[16*s:][:16:16], codes[s/8*32+s%2*16:][:16:16]
			shift := s % 8 / 2 * 2
			for i := range y {
				y[i] = float32(step*float32(int32(q[i]>>shift&3))) - low
			}
		}
		dst, src = dst[256:], src[84:]
	}
}

// decodeQ3K reads 32 bytes of third bits (bit k for the elements of run k), 64 bytes of the lower two as in Q2_K, 12
// bytes of 6-bit scales, F16 scale of the scales.
func decodeQ3K(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 110 {
		third, codes, packed := src[:32:32], src[32:96:96], src[96:108:108]
		d := FromF16(le.Uint16(src[108:]))
		for s := range 16 {
			scale := packed[s%8] >> (s / 8 * 4) & 15
			scale |= packed[8+s%4] >> (s / 4 * 2) & 3 << 4
			step := d * float32(int32(scale)-32)
			y, q, h := dst[16*s:][:16:16], codes[s/8*32+s%2*16:][:16:16], third[s%2*16:][:16:16]
			shift, bit := s%8/2*2, s/2
			for i := range y {
				y[i] = step * float32(int32(q[i]>>shift&3|h[i]>>bit&1<<2)-4)
			}
		}
		dst, src = dst[256:], src[110:]
	}
}

// scaleMin6 returns the 6-bit scale and minimum of sub-block s of Q4_K and Q5_K. Sub-blocks 0 to 3 have a byte each
// for both; the bits of the others are low and high halves of bytes 8 to 11 and the upper bits of bytes 0 to 7.
func scaleMin6(packed []byte, s int) (scale, low float32) {
	if s < 4 {
		return float32(int32(packed[s] & 63)), float32(int32(packed[s+4] & 63))
	}
	return float32(int32(packed[s+4]&15 | packed[s-4]>>6<<4)), float32(int32(packed[s+4]>>4 | packed[s]>>6<<4))
}

// decodeQ4K reads F16 scale of the scales, F16 scale of the minima, 12 bytes of both, 128 bytes of codes: 32 bytes
// serve 64 elements, low halves first.
func decodeQ4K(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 144 {
		d, m := FromF16(le.Uint16(src)), FromF16(le.Uint16(src[2:]))
		packed, codes := src[4:16:16], src[16:144:144]
		for s := range 8 {
			scale, low := scaleMin6(packed, s)
			step, low := d*scale, m*low
			y, q := dst[32*s:][:32:32], codes[s/2*32:][:32:32]
			shift := s % 2 * 4
			for i := range y {
				y[i] = float32(step*float32(int32(q[i]>>shift&15))) - low
			}
		}
		dst, src = dst[256:], src[144:]
	}
}

// decodeQ5K reads what decodeQ4K reads, with 32 bytes of fifth bits before the codes: bit s for sub-block s.
func decodeQ5K(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 176 {
		d, m := FromF16(le.Uint16(src)), FromF16(le.Uint16(src[2:]))
		packed, fifth, codes := src[4:16:16], src[16:48:48], src[48:176:176]
		for s := range 8 {
			scale, low := scaleMin6(packed, s)
			step, low := d*scale, m*low
			y, q := dst[32*s:][:32:32], codes[s/2*32:][:32:32]
			shift := s % 2 * 4
			for i := range y {
				y[i] = float32(step*float32(int32(q[i]>>shift&15|fifth[i]>>s&1<<4))) - low
			}
		}
		dst, src = dst[256:], src[176:]
	}
}

// decodeQ6K reads 128 bytes of lower four bits, 64 bytes of upper two, 16 int8 scales, F16 scale of the scales. In
// each half of 128 elements, run k of 32 has its lower bits in byte 32·(k mod 2) and half k/2 of it, its upper bits
// at bit 2k.
func decodeQ6K(dst []float32, src []byte) {
	for len(dst) >= 256 && len(src) >= 210 {
		lower, upper, scales := src[:128:128], src[128:192:192], src[192:208:208]
		d := FromF16(le.Uint16(src[208:]))
		for s, scale := range scales {
			half, run, side := s/8, s%8/2, s%2*16
			step := d * float32(int8(scale))
			y := dst[16*s:][:16:16]
			l, u := lower[64*half+run%2*32+side:][:16:16], upper[32*half+side:][:16:16]
			for i := range y {
				y[i] = step * float32(int32(l[i]>>(run/2*4)&15|u[i]>>(2*run)&3<<4)-32)
			}
		}
		dst, src = dst[256:], src[210:]
	}
}
