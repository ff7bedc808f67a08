package main

import (
	"fmt"
	"math"
)

// depthBlock is the length of a block along the depth, which is padded to a multiple of 16.
const depthBlock = 128

// gemm16Kernel is c (+)= a·b for operands of 16-bit integers with one scale per row and block of 128 along the
// depth: row i of a at i·ars, its scales at i·sas; b a panel of pairs along the depth, its scales one row per
// block. Integers are summed within a block, floats across blocks. Without VNNI a product of pairs and its sum are two instructions.
func gemm16Kernel(name string, vnni bool) kernel {
	k := kernel{name: name, params: []param{
		{"a", "[]int16"},
		{"sa", "[]float32"},
		{"b", "[]int16"},
		{"sb", "[]float32"},
		{"c", "[]float32"},
		{"ars", "int"},
		{"sas", "int"},
		{"ldc", "int"},
		{"k", "int"},
		{"rows", "int"},
		{"cols", "int"},
		{"keep", "int"},
	}}
	k.emit = func(a *asm) {
		for _, p := range [][2]string{{"a", "SI"}, {"b", "DX"}, {"c", "DI"}, {"sa", "R9"}, {"sb", "R10"}} {
			a.op("MOVQ %s, %s", a.base(p[0]), p[1])
		}
		a.op("MOVQ %s, R8", a.arg("ars"))
		a.op("SHLQ $1, R8")
		if a.wide() {
			// Masks of the two vectors: the low and the high bits of 2^cols − 1.
			a.op("MOVQ %s, CX", a.arg("cols"))
			a.op("MOVQ $1, AX")
			a.op("SHLQ CX, AX")
			a.op("DECQ AX")
			a.op("KMOVW AX, K1")
			a.op("SHRQ $16, AX")
			a.op("KMOVW AX, K2")
		}
		a.op("MOVQ %s, AX", a.arg("rows"))
		for _, rows := range a.rows[:len(a.rows)-1] {
			a.op("CMPQ AX, $%d", rows)
			a.op("JEQ rows%d", rows)
		}
		for j := len(a.rows) - 1; j >= 0; j-- {
			if j < len(a.rows)-1 {
				a.label(fmt.Sprintf("rows%d", a.rows[j]))
			}
			a.gemm16Tile(a.rows[j], vnni)
			if j > 0 {
				a.op("JMP done")
			}
		}
		a.label("done")
	}
	return k
}

// gemm16Tile walks the blocks of the depth; AX is what is left of it.
func (a *asm) gemm16Tile(rows int, vnni bool) {
	unroll := 4
	last := 16
	if a.wide() {
		unroll, last = 2, 32
	}
	b0, b1, left, t := a.v(last-4), a.v(last-3), a.v(last-2), a.v(last-1)
	block, inner := a.newLabel("block"), a.newLabel("pairs")
	a.op("MOVQ %s, AX", a.arg("k"))
	a.label(block)
	for i := range 2 * rows {
		a.zero(a.v(i))
	}
	a.op("MOVQ $%d, CX", depthBlock)
	a.op("CMPQ AX, CX")
	a.op("CMOVQLT AX, CX")
	a.op("SUBQ CX, AX")
	a.op("SHRQ $%d, CX", map[int]int{4: 3, 2: 2}[unroll])
	a.rowPlaces(rows)
	a.op("PCALIGN $16")
	a.label(inner)
	for u := range unroll {
		a.op("VMOVUPS %s, %s", at(2*u*a.lanes*4, "(DX)"), b0)
		a.op("VMOVUPS %s, %s", at((2*u+1)*a.lanes*4, "(DX)"), b1)
		for i := range rows {
			a.op("VPBROADCASTD %s, %s", at(4*u, rowPlace[i]), left)
			a.dot16(a.v(2*i), b0, left, t, vnni)
			a.dot16(a.v(2*i+1), b1, left, t, vnni)
		}
	}
	a.op("ADDQ $%d, SI", 4*unroll)
	if rows > 9 {
		a.op("ADDQ $%d, R13", 4*unroll)
	}
	a.op("ADDQ $%d, DX", 2*unroll*a.lanes*4)
	a.op("DECQ CX")
	a.op("JNE %s", inner)

	// Scale the integers and add them to the result; the first block starts it unless keep is set.
	for i := range rows {
		a.op("VCVTDQ2PS %s, %s", a.v(2*i), a.v(2*i))
		a.op("VCVTDQ2PS %s, %s", a.v(2*i+1), a.v(2*i+1))
		a.mul(a.v(2*i), a.v(2*i), "(R10)")
		a.mul(a.v(2*i+1), a.v(2*i+1), at(a.lanes*4, "(R10)"))
	}
	keep, old, scale, mask := b0, b1, left, t
	a.op("VPBROADCASTQ %s, %s", a.arg("keep"), keep)
	masked := func(mask string) func(string, string) {
		return func(acc, place string) {
			a.loadMasked(old, place, mask)
			a.and(old, old, keep)
			a.fma(old, acc, scale)
			a.storeMasked(place, old, mask)
		}
	}
	if a.wide() {
		a.scaleRows(rows, scale, []func(acc, place string){masked("K1"), masked("K2")})
	} else {
		next, part := a.newLabel("next"), a.newLabel("part")
		full := func(acc, place string) {
			a.and(old, keep, place)
			a.fma(old, acc, scale)
			a.op("VMOVUPS %s, %s", old, place)
		}
		a.op("MOVQ %s, R13", a.arg("cols"))
		a.op("CMPQ R13, $%d", 2*a.lanes)
		a.op("JLT %s", part)
		a.scaleRows(rows, scale, []func(acc, place string){full, full})
		a.op("JMP %s", next)
		a.label(part)
		a.op("MOVQ $%d, R11", a.lanes)
		a.op("CMPQ R13, R11")
		a.op("CMOVQGT R11, R13")
		a.tailMask("R13", mask)
		a.scaleRows(rows, scale, []func(acc, place string){masked(mask), nil})
		a.op("MOVQ %s, R13", a.arg("cols"))
		a.op("SUBQ $%d, R13", a.lanes)
		a.op("JLE %s", next)
		a.tailMask("R13", mask)
		a.scaleRows(rows, scale, []func(acc, place string){nil, masked(mask)})
		a.label(next)
	}
	a.op("MOVQ $-1, %s", a.arg("keep"))
	a.op("ADDQ $%d, R10", 2*a.lanes*4)
	a.op("ADDQ $4, R9")
	a.op("TESTQ AX, AX")
	a.op("JNE %s", block)
}

// scaleRows walks the rows of a tile: the row's scale is broadcast, then finish takes each vector to its place;
// nil leaves a vector out.
func (a *asm) scaleRows(rows int, scale string, finish []func(acc, place string)) {
	a.op("MOVQ DI, R11")
	a.op("MOVQ R9, BX")
	a.op("MOVQ %s, R12", a.arg("ldc"))
	a.op("MOVQ %s, CX", a.arg("sas"))
	for i := range rows {
		a.op("VBROADCASTSS (BX), %s", scale)
		for j, f := range finish {
			if f != nil {
				f(a.v(2*i+j), at(j*a.lanes*4, "(R11)"))
			}
		}
		if i < rows-1 {
			a.op("LEAQ (R11)(R12*4), R11")
			a.op("LEAQ (BX)(CX*4), BX")
		}
	}
}

// dot16 adds to acc the products of the pairs of b and the broadcast pair.
func (a *asm) dot16(acc, b, pair, t string, vnni bool) {
	switch {
	case vnni && a.wide():
		a.op("VPDPWSSD %s, %s, %s", b, pair, acc)
	case vnni:
		a.vexDot16(acc, pair, b)
	default:
		a.bin("VPMADDWD", t, pair, b)
		a.bin("VPADDD", acc, acc, t)
	}
}

// vexDot16 writes VPDPWSSD in its AVX-VNNI encoding, VEX.256.66.0F38.W0 52 /r, which the Go assembler lacks.
func (a *asm) vexDot16(d, x, y string) {
	n := func(r string) (i int) {
		fmt.Sscanf(r, "Y%d", &i)
		return i
	}
	rd, rx, ry := n(d), n(x), n(y)
	inverted := func(bit int) int { return 1 - bit }
	a.op("BYTE $0xc4; BYTE $%#02x; BYTE $%#02x; BYTE $0x52; BYTE $%#02x // VPDPWSSD %s, %s, %s",
		inverted(rd>>3)<<7|1<<6|inverted(ry>>3)<<5|2, (15-rx)<<3|1<<2|1, 3<<6|rd&7<<3|ry&7, y, x, d)
}

// quantizeKernel rounds a block to integers up to levels: q = round(x·levels/max|x|), scale max/levels. A block with
// an infinity or NaN has the scale NaN, one below 1e-30 the scale 0. It writes whole groups of 16 values, zero
// beyond the end of a.
func quantizeKernel(name string, levels float32) kernel {
	return kernel{name: name, params: []param{{"q", "[]int16"}, {"a", "[]float32"}}, ret: true, emit: func(a *asm) {
		top, inv := a.v(0), a.v(0)
		v := a.v(1)
		a.op("MOVQ %s, DI", a.base("q"))
		a.op("MOVQ %s, SI", a.base("a"))
		a.op("MOVQ %s, R8", a.length("a"))
		a.zero(top)
		largest := func() {
			a.and(v, v, a.c("nosign"))
			a.bin("VPMAXSD", top, top, v) // as integers: infinities and NaN are the largest
		}
		a.op("MOVQ R8, CX")
		a.op("XORQ AX, AX")
		a.rounds("largest", a.lanes, func() {
			a.op("VMOVUPS (SI)(AX*4), %s", v)
			largest()
		})
		a.op("TESTQ CX, CX")
		a.op("JEQ join")
		a.tailMask("CX", a.maskName())
		a.loadMasked(v, "(SI)(AX*4)", a.maskName())
		largest()
		a.label("join")
		if a.wide() {
			a.op("VEXTRACTF64X4 $1, Z0, Y1")
			a.op("VPMAXSD Y1, Y0, Y0")
		}
		a.op("VEXTRACTF128 $1, Y0, X1")
		a.op("VPMAXSD X1, X0, X0")
		a.op("VPERMILPS $0x4e, X0, X1")
		a.op("VPMAXSD X1, X0, X0")
		a.op("VPERMILPS $0xb1, X0, X1")
		a.op("VPMAXSD X1, X0, X0")
		a.op("VMOVD X0, AX")
		a.op("MOVL $%#x, BX", math.Float32bits(levels))
		a.op("VMOVD BX, X1")
		a.op("VDIVSS X1, X0, X2") // scale
		a.op("VDIVSS X0, X1, X0") // its reciprocal
		a.op("CMPL AX, $%#x", bits("inf"))
		a.op("JLT finite")
		a.op("MOVL $%#x, BX", math.Float32bits(float32(math.NaN())))
		a.op("VMOVD BX, X2")
		a.op("VXORPS X0, X0, X0")
		a.label("finite")
		a.op("CMPL AX, $%#x", math.Float32bits(1e-30))
		a.op("JGE normal")
		a.op("VXORPS X0, X0, X0")
		a.op("VXORPS X2, X2, X2")
		a.label("normal")
		a.op("VMOVSS X2, ret+%d(FP)", a.size)
		a.op("VBROADCASTSS X0, %s", inv)
		a.op("MOVQ R8, CX")
		a.op("XORQ AX, AX")
		a.rounds("round", 16, func() {
			a.op("VMOVUPS (SI)(AX*4), %s", v)
			if !a.wide() {
				a.op("VMOVUPS 32(SI)(AX*4), Y2")
			}
			a.narrow16()
		})
		a.op("TESTQ CX, CX")
		a.op("JEQ done")
		if a.wide() {
			a.tailMask("CX", "K1")
			a.loadMasked(v, "(SI)(AX*4)", "K1")
		} else {
			a.zero("Y2")
			a.op("CMPQ CX, $8")
			a.op("JLE short")
			a.op("VMOVUPS (SI)(AX*4), Y1")
			a.op("SUBQ $8, CX")
			a.tailMask("CX", "Y15")
			a.loadMasked("Y2", "32(SI)(AX*4)", "Y15")
			a.op("JMP last")
			a.label("short")
			a.tailMask("CX", "Y15")
			a.loadMasked("Y1", "(SI)(AX*4)", "Y15")
			a.label("last")
		}
		a.narrow16()
		a.label("done")
	}}
}

// narrow16 rounds 16 scaled values, in Y1 and Y2 or in Z1, to 16-bit integers and stores them.
func (a *asm) narrow16() {
	if a.wide() {
		a.mul("Z1", "Z1", "Z0")
		a.op("VCVTPS2DQ Z1, Z1")
		a.op("VPMOVSDW Z1, (DI)(AX*2)")
		return
	}
	a.mul("Y1", "Y1", "Y0")
	a.mul("Y2", "Y2", "Y0")
	a.op("VCVTPS2DQ Y1, Y1")
	a.op("VCVTPS2DQ Y2, Y2")
	a.bin("VPACKSSDW", "Y1", "Y1", "Y2")
	a.op("VPERMQ $0xd8, Y1, Y1")
	a.op("VMOVDQU Y1, (DI)(AX*2)")
}
