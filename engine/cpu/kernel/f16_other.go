//go:build !amd64

package kernel

func toF16s(dst []uint16, a []float32)   { toF16sPortable(dst, a) }
func fromF16s(dst []float32, a []uint16) { fromF16sPortable(dst, a) }
