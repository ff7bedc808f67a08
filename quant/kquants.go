package quant

// The super-blocks of 256 elements of ggml's k-quants, after the layouts of ggml-quants.c: sub-blocks of 16 or 32
// elements have small integer scales (and minimums) under one half-precision scale d (and dmin).

// Q2_K: 16 bytes of 4-bit scale and minimum, 64 bytes of 2-bit values, d, dmin; sub-blocks of 16.
func decodeQ2K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[84:] {
		scales, q := src[:16], src[16:80]
		d, dmin := halves[le.Uint16(src[80:])], halves[le.Uint16(src[82:])]
		for i := range 256 {
			s := scales[i/16]
			v := q[i/128*32+i%32] >> (i % 128 / 32 * 2) & 3
			dst[i] = d*float32(s&15)*float32(v) - dmin*float32(s>>4)
		}
	}
}

// Q3_K: 32 bytes of third bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales, d; sub-blocks of 16.
func decodeQ3K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[110:] {
		high, q, packed := src[:32], src[32:96], src[96:108]
		d := halves[le.Uint16(src[108:])]
		var scales [16]int
		for i := range scales {
			lo := packed[i%8] >> (i / 8 * 4) & 15
			hi := packed[8+i%4] >> (i / 4 * 2) & 3
			scales[i] = int(lo|hi<<4) - 32
		}
		for i := range 256 {
			v := int(q[i/128*32+i%32] >> (i % 128 / 32 * 2) & 3)
			if high[i%32]>>(i/32)&1 == 0 {
				v -= 4
			}
			dst[i] = d * float32(scales[i/16]) * float32(v)
		}
	}
}

// scaleMin unpacks the 6-bit scale and minimum of sub-block j from the 12 bytes of Q4_K and Q5_K.
func scaleMin(j int, s []byte) (scale, minimum byte) {
	if j < 4 {
		return s[j] & 63, s[j+4] & 63
	}
	return s[j+4]&15 | s[j-4]>>6<<4, s[j+4]>>4 | s[j]>>6<<4
}

// Q4_K: d, dmin, 12 bytes of scales, 128 bytes of 4-bit values; sub-blocks of 32.
func decodeQ4K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[144:] {
		d, dmin := halves[le.Uint16(src)], halves[le.Uint16(src[2:])]
		scales, q := src[4:16], src[16:144]
		for j := range 8 {
			sc, m := scaleMin(j, scales)
			f, off := d*float32(sc), dmin*float32(m)
			y, b := dst[32*j:32*j+32], q[j/2*32:j/2*32+32]
			shift := j % 2 * 4
			for i := range y {
				y[i] = f*float32(b[i]>>shift&15) - off
			}
		}
	}
}

// Q5_K: d, dmin, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes of 4-bit values; sub-blocks of 32.
func decodeQ5K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[176:] {
		d, dmin := halves[le.Uint16(src)], halves[le.Uint16(src[2:])]
		scales, high, q := src[4:16], src[16:48], src[48:176]
		for j := range 8 {
			sc, m := scaleMin(j, scales)
			f, off := d*float32(sc), dmin*float32(m)
			y, b := dst[32*j:32*j+32], q[j/2*32:j/2*32+32]
			shift := j % 2 * 4
			for i := range y {
				y[i] = f*float32(b[i]>>shift&15|high[i]>>j&1<<4) - off
			}
		}
	}
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of high pairs, 16 int8 scales, d; sub-blocks of 16.
func decodeQ6K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[210:] {
		low, high, scales := src[:128], src[128:192], src[192:208]
		d := halves[le.Uint16(src[208:])]
		for i := range 256 {
			half, in := i/128, i%128
			lo := low[half*64+in%64] >> (in / 64 * 4) & 15
			hi := high[half*32+in%32] >> (in / 32 * 2) & 3
			dst[i] = d * float32(int8(scales[i/16])) * float32(int(lo|hi<<4)-32)
		}
	}
}
