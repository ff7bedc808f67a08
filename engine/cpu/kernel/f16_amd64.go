package kernel

// The conversions of F16C, which every processor with AVX2 has. Lengths are multiples of 8.

//go:noescape
func toF16AVX2(dst []uint16, a []float32)

//go:noescape
func fromF16AVX2(dst []float32, a []uint16)

func toF16s(dst []uint16, a []float32) {
	if current == Portable {
		toF16sPortable(dst, a)
	} else {
		toF16AVX2(dst, a)
	}
}

func fromF16s(dst []float32, a []uint16) {
	if current == Portable {
		fromF16sPortable(dst, a)
	} else {
		fromF16AVX2(dst, a)
	}
}
