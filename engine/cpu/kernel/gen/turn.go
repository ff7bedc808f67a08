package main

import "fmt"

// The kernels of this file transpose panels, for the product with W of panels that were packed for its transpose.
// They take 256-bit vectors at all levels, since a block of 8 × 8 is what fits both widths of panels.

// turnKernel walks the blocks of 8 × 8 elements: SI is the panel, DX the block in it, R13 the block in dst, R11 the
// bytes of a row, R10 three times that. body transposes a block of rows of 32 bytes; next are the rows in a block.
func turnKernel(name, kind string, rows int, setup, body func(a *asm)) kernel {
	return kernel{name: name, params: []param{
		{"dst", kind}, {"src", kind}, {"stride", "int"}, {"panels", "int"}, {"cols", "int"}, {"width", "int"},
	}, emit: func(a *asm) {
		shift := map[string]int{"[]int16": 1, "[]float32": 2}[kind]
		a.op("MOVQ %s, DI", a.base("dst"))
		a.op("MOVQ %s, SI", a.base("src"))
		a.op("MOVQ %s, R8", a.arg("stride"))
		a.op("SHLQ $%d, R8", shift)
		a.op("MOVQ %s, R9", a.arg("panels"))
		a.op("MOVQ %s, R11", a.arg("width"))
		a.op("SHLQ $2, R11")
		a.op("LEAQ (R11)(R11*2), R10")
		setup(a)
		a.label("panel")
		a.op("MOVQ SI, BX")
		a.op("MOVQ DI, R12")
		a.op("MOVQ %s, CX", a.arg("cols"))
		a.op("SHRQ $3, CX")
		a.label("depth")
		a.op("MOVQ BX, DX")
		a.op("MOVQ R12, R13")
		a.op("MOVQ %s, AX", a.arg("width"))
		a.op("SHRQ $3, AX")
		a.label("columns")
		body(a)
		a.op("ADDQ $32, DX")
		a.op("LEAQ (R13)(R11*%d), R13", rows)
		a.op("DECQ AX")
		a.op("JNE columns")
		a.op("LEAQ (BX)(R11*%d), BX", rows)
		a.op("ADDQ $32, R12")
		a.op("DECQ CX")
		a.op("JNE depth")
		a.op("ADDQ R8, SI")
		a.op("MOVQ %s, AX", a.arg("width"))
		if shift == 1 {
			a.op("SHRQ $1, AX") // pairs
		}
		a.op("IMULQ R11, AX")
		a.op("ADDQ AX, DI")
		a.op("DECQ R9")
		a.op("JNE panel")
	}}
}

// turnPlaces are four rows from a pointer on.
func turnPlaces(pointer string) []string {
	return []string{"(" + pointer + ")", "(" + pointer + ")(R11*1)", "(" + pointer + ")(R11*2)", "(" + pointer + ")(R10*1)"}
}

func ymm(i int) string { return fmt.Sprint("Y", i) }

// turn16Kernel transposes panels of pairs; see table.turn16. A block of 8 × 8 integers is 4 × 4 pairs of pairs:
// within each the two middle integers change places, then pairs of pairs do.
func turn16Kernel() kernel {
	return turnKernel("turn16", "[]int16", 4, func(a *asm) {
		a.op("MOVQ $0x0706030205040100, AX")
		a.op("VMOVQ AX, X15")
		a.op("MOVQ $0x0f0e0b0a0d0c0908, AX")
		a.op("VPINSRQ $1, AX, X15, X15")
		a.op("VINSERTI128 $1, X15, Y15, Y15")
	}, func(a *asm) {
		for i, from := range turnPlaces("DX") {
			a.op("VMOVDQU %s, %s", from, ymm(i))
			a.op("VPSHUFB Y15, %s, %s", ymm(i), ymm(i))
		}
		for i := range 2 {
			a.bin("VPUNPCKLQDQ", ymm(4+i), ymm(2*i), ymm(2*i+1))
			a.bin("VPUNPCKHQDQ", ymm(6+i), ymm(2*i), ymm(2*i+1))
		}
		for i, to := range turnPlaces("R13") {
			a.crossHalves("Y8", 4+2*(i%2), 5+2*(i%2), i >= 2)
			a.op("VMOVDQU Y8, %s", to)
		}
	})
}

// crossHalves writes to d the low halves of x and y, or with high the high ones.
func (a *asm) crossHalves(d string, x, y int, high bool) {
	half := "$0x20"
	if high {
		half = "$0x31"
	}
	a.op("VPERM2F128 %s, %s, %s, %s", half, ymm(y), ymm(x), d)
}

// turn32Kernel transposes panels of single values; see table.turn32.
func turn32Kernel() kernel {
	return turnKernel("turn32", "[]float32", 8, func(*asm) {}, func(a *asm) {
		a.op("LEAQ (DX)(R11*4), DX")
		for i, from := range turnPlaces("DX") {
			a.op("VMOVUPS %s, %s", from, ymm(4+i))
		}
		a.op("SUBQ R11, DX")
		a.op("SUBQ R10, DX")
		for i, from := range turnPlaces("DX") {
			a.op("VMOVUPS %s, %s", from, ymm(i))
		}
		for i := range 4 { // pairs of rows: columns 0 1 and 2 3 of each half
			a.bin("VUNPCKLPS", ymm(8+2*i), ymm(2*i), ymm(2*i+1))
			a.bin("VUNPCKHPS", ymm(9+2*i), ymm(2*i), ymm(2*i+1))
		}
		for i := range 2 { // four rows: one column of each half
			for j := range 2 {
				x, y := 8+4*i+j, 10+4*i+j
				a.op("VSHUFPS $0x44, %s, %s, %s", ymm(y), ymm(x), ymm(4*i+2*j))
				a.op("VSHUFPS $0xee, %s, %s, %s", ymm(y), ymm(x), ymm(4*i+2*j+1))
			}
		}
		a.op("MOVQ R13, R15")
		for _, high := range []bool{false, true} {
			for i, to := range turnPlaces("R15") {
				a.crossHalves("Y8", i, 4+i, high)
				a.op("VMOVUPS Y8, %s", to)
			}
			a.op("LEAQ (R15)(R11*4), R15")
		}
	})
}
