package kernel

import "golang.org/x/sys/cpu"

var (
	tableAVX2VNNI, tableAVX512VNNI = tableAVX2, tableAVX512
	tableAMX                       table
)

func init() {
	tableAVX2VNNI.gemm16 = gemm16VNNIAVX2
	tableAVX512VNNI.gemm16 = gemm16VNNIAVX512
	// Without VNNI 512-bit units multiply pairs no faster than floats; 256-bit ones do, by about 1.5.
	tableAVX2.mixed, tableAVX2VNNI.mixed, tableAVX512VNNI.mixed = Int16, Int16, Int16
	// Tiles of AMX do about six times what VNNI does.
	tableAMX = tableAVX512VNNI
	tableAMX.mixed = BF16Tiles
}

// tables returns the kernels of a level, nil where the processor lacks it.
func tables(l Level) *table {
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasFMA && x.HasBMI2
	avx512 := avx2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL
	switch {
	case l == Portable:
		return &tablePortable
	case l == AVX2 && avx2:
		return &tableAVX2
	case l == AVX2VNNI && avx2 && x.HasAVXVNNI:
		return &tableAVX2VNNI
	case l == AVX512 && avx512:
		return &tableAVX512
	case l == AVX512VNNI && avx512 && x.HasAVX512VNNI:
		return &tableAVX512VNNI
	case l == AMX && avx512 && hasTiles:
		return &tableAMX
	}
	return nil
}
