package kernel

import "math"

// gemmPortable is the twin of table.gemm. A tile of 4 × 4 has its sums in registers.
func gemmPortable(a, b, c []float32, ars, acs, ldb, ldc, k, rows, cols, keep int) {
	if rows == 4 && cols == 4 {
		gemm4x4(a, b, c, ars, acs, ldb, ldc, k, keep)
		return
	}
	for i := range rows {
		for j := range cols {
			var s float32
			for l := range k {
				s += a[i*ars+l*acs] * b[l*ldb+j]
			}
			put(&c[i*ldc+j], s, keep)
		}
	}
}

// put is c = keep·c + s.
func put(c *float32, s float32, keep int) {
	if keep != 0 {
		s += *c
	}
	*c = s
}

func gemm4x4(a, b, c []float32, ars, acs, ldb, ldc, k, keep int) {
	var s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23, s30, s31, s32, s33 float32
	for l := range k {
		b := b[l*ldb : l*ldb+4 : l*ldb+4]
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		p := l * acs
		x := a[p]
		s00 += x * b0
		s01 += x * b1
		s02 += x * b2
		s03 += x * b3
		x = a[p+ars]
		s10 += x * b0
		s11 += x * b1
		s12 += x * b2
		s13 += x * b3
		x = a[p+2*ars]
		s20 += x * b0
		s21 += x * b1
		s22 += x * b2
		s23 += x * b3
		x = a[p+3*ars]
		s30 += x * b0
		s31 += x * b1
		s32 += x * b2
		s33 += x * b3
	}
	for i, s := range [4][4]float32{{s00, s01, s02, s03}, {s10, s11, s12, s13}, {s20, s21, s22, s23}, {s30, s31, s32, s33}} {
		for j, s := range s {
			put(&c[i*ldc+j], s, keep)
		}
	}
}

func gemmBF16Portable(a []float32, b []uint16, c []float32, ars, acs, ldb, ldc, k, rows, cols, keep int) {
	for i := range rows {
		for j := range cols {
			var s float32
			for l := range k {
				s += a[i*ars+l*acs] * fromBF16(b[l*ldb+j])
			}
			put(&c[i*ldc+j], s, keep)
		}
	}
}

// gemm16Portable returns the twin of table.gemm16 for panels of a width.
func gemm16Portable(width int) func(a []int16, sa []float32, b []int16, sb, c []float32, ars, sas, ldc, k, rows, cols, keep int) {
	return func(a []int16, sa []float32, b []int16, sb, c []float32, ars, sas, ldc, k, rows, cols, keep int) {
		for i := range rows {
			for j := range cols {
				var total float32
				for l0 := 0; l0 < k; l0 += depthBlock {
					var s int32
					for l := l0; l < min(l0+depthBlock, k); l++ {
						s += int32(a[i*ars+l]) * int32(b[l/2*2*width+2*j+l%2])
					}
					total += float32(s) * sb[l0/depthBlock*width+j] * sa[i*sas+l0/depthBlock]
				}
				put(&c[i*ldc+j], total, keep)
			}
		}
	}
}

// quantizePortable is the twin of table.quantize16 and quantize15.
func quantizePortable(q []int16, a []float32, levels float32) float32 {
	var top uint32
	for _, x := range a {
		top = max(top, math.Float32bits(x)&^(1<<31))
	}
	clear(q[:(len(a)+15)&^15])
	largest := math.Float32frombits(top)
	switch {
	case top >= 0x7f800000: // an infinity or NaN
		return float32(math.NaN())
	case largest < 1e-30:
		return 0
	}
	inverse := levels / largest
	for i, x := range a {
		q[i] = int16(math.RoundToEven(float64(x * inverse)))
	}
	return largest / levels
}

// turn16Portable is the twin of table.turn16.
func turn16Portable(dst, src []int16, stride, panels, cols, width int) {
	for p := range panels {
		for n := range width {
			for k := range cols {
				dst[(p*width+n)/2*2*width+2*k+n%2] = src[p*stride+k/2*2*width+2*n+k%2]
			}
		}
	}
}

// turn32Portable is the twin of table.turn32.
func turn32Portable(dst, src []float32, stride, panels, cols, width int) {
	for p := range panels {
		for n := range width {
			to := dst[(p*width+n)*width:][:cols]
			from := src[p*stride+n:]
			for k := range to {
				to[k] = from[k*width]
			}
		}
	}
}
