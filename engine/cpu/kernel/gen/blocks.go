package main

// The kernels of this file multiply one row of a left operand by rows of a weight as it is stored: y_i = w_i·x for
// as many rows as y has, which stand one behind the other in w. They serve products of few rows, whose time is that of
// reading the weight. They take 256-bit vectors at all levels.

// storedBlocks walks the rows, and in each the blocks of 32 elements: DX is the block, BX its place in x, AX counts;
// sums are Y0 and Y1, by turns. block adds a block to a sum and moves DX and BX on.
func storedBlocks(name, x, w string, extra []param, setup func(a *asm), block func(a *asm, acc string), finish func(a *asm)) kernel {
	params := append([]param{{"y", "[]float32"}, {"x", x}, {"w", w}}, extra...)
	return kernel{name: name, params: params, emit: func(a *asm) {
		a.op("MOVQ %s, DI", a.base("y"))
		a.op("MOVQ %s, CX", a.length("y"))
		a.op("MOVQ %s, SI", a.base("x"))
		a.op("MOVQ %s, R8", a.length("x"))
		a.op("MOVQ %s, DX", a.base("w"))
		a.op("SHRQ $5, R8")
		setup(a)
		a.label("row")
		a.op("MOVQ SI, BX")
		a.op("MOVQ R8, AX")
		a.op("VXORPS Y0, Y0, Y0")
		a.op("VXORPS Y1, Y1, Y1")
		finish(a)
		a.op("SUBQ $2, AX")
		a.op("JLT single")
		a.label("pair")
		block(a, "Y0")
		block(a, "Y1")
		a.op("SUBQ $2, AX")
		a.op("JGE pair")
		a.label("single")
		a.op("ADDQ $2, AX")
		a.op("JEQ sum")
		block(a, "Y0")
		a.label("sum")
		a.op("VADDPS Y1, Y0, Y0")
		a.op("VEXTRACTF128 $1, Y0, X1")
		a.op("VADDPS X1, X0, X0")
		a.op("VHADDPS X0, X0, X0")
		a.op("VHADDPS X0, X0, X0")
		if len(extra) > 0 {
			a.op("VADDSS X15, X0, X0")
		}
		a.op("VMOVSS X0, (DI)")
		a.op("ADDQ $4, DI")
		a.op("DECQ CX")
		a.op("JNE row")
	}}
}

func nothing(*asm) {}

// blockScale spreads the half at a place of the block.
func (a *asm) blockScale(place, d string) {
	a.op("VPBROADCASTW %s, X%s", place, d[1:])
	a.op("VCVTPH2PS X%s, %s", d[1:], d)
}

// addBlock multiplies the integers of Y3 and Y4 by those of x and adds them to a sum, times the scale in Y2.
func (a *asm) addBlock(acc string, bytes int) {
	a.op("VPMADDWD (BX), Y3, Y3")
	a.op("VPMADDWD 32(BX), Y4, Y4")
	a.op("VPADDD Y4, Y3, Y3")
	a.op("VCVTDQ2PS Y3, Y3")
	a.op("VFMADD231PS Y2, Y3, %s", acc)
	a.op("ADDQ $%d, DX", bytes)
	a.op("ADDQ $64, BX")
}

// nibbles spreads 16 bytes into the low four bits, Y3, and the high ones, Y4.
func (a *asm) nibbles(place string) {
	a.op("VPMOVZXBW %s, Y3", place)
	a.op("VPSRLW $4, Y3, Y4")
	a.op("VPAND Y14, Y3, Y3")
}

// words spreads a 16-bit constant over a vector.
func (a *asm) words(n int, d string) {
	a.op("MOVL $%d, AX", n)
	a.op("VMOVD AX, X%s", d[1:])
	a.op("VPBROADCASTW X%s, %s", d[1:], d)
}

// storedKernels are for the formats of ggml that inference meets most, against a left operand of 16-bit integers,
// and for plain floats.
func storedKernels() []kernel {
	float := func(name, w string, bytes int, load func(a *asm, i int)) kernel {
		return storedBlocks(name, "[]float32", w, nil, nothing, func(a *asm, acc string) {
			for i := range 4 {
				load(a, i)
				a.op("VFMADD231PS %s, Y2, %s", at(32*i, "(BX)"), acc)
			}
			a.op("ADDQ $%d, DX", bytes)
			a.op("ADDQ $128, BX")
		}, nothing)
	}
	return []kernel{
		storedBlocks("dotQ8", "[]int16", "[]byte", nil, nothing, func(a *asm, acc string) {
			a.blockScale("(DX)", "Y2")
			a.op("VPMOVSXBW 2(DX), Y3")
			a.op("VPMOVSXBW 18(DX), Y4")
			a.addBlock(acc, 34)
		}, nothing),
		storedBlocks("dotQ40", "[]int16", "[]byte", nil, func(a *asm) {
			a.words(15, "Y14")
			a.words(8, "Y13")
		}, func(a *asm, acc string) {
			a.blockScale("(DX)", "Y2")
			a.nibbles("2(DX)")
			a.op("VPSUBW Y13, Y3, Y3")
			a.op("VPSUBW Y13, Y4, Y4")
			a.addBlock(acc, 18)
		}, nothing),
		storedBlocks("dotQ41", "[]int16", "[]byte", []param{{"sums", "[]float32"}}, func(a *asm) {
			a.words(15, "Y14")
		}, func(a *asm, acc string) {
			a.blockScale("(DX)", "Y2")
			a.blockScale("2(DX)", "Y5")
			a.op("VFMADD231SS (R9), X5, X15")
			a.op("ADDQ $4, R9")
			a.nibbles("4(DX)")
			a.addBlock(acc, 20)
		}, func(a *asm) {
			a.op("MOVQ %s, R9", a.base("sums"))
			a.op("VXORPS X15, X15, X15")
		}),
		float("dotF32", "[]byte", 128, func(a *asm, i int) {
			a.op("VMOVUPS %s, Y2", at(32*i, "(DX)"))
		}),
		float("dotBF16", "[]byte", 64, func(a *asm, i int) {
			a.op("VPMOVZXWD %s, Y2", at(16*i, "(DX)"))
			a.op("VPSLLD $16, Y2, Y2")
		}),
		float("dotF16", "[]byte", 64, func(a *asm, i int) {
			a.op("VCVTPH2PS %s, Y2", at(16*i, "(DX)"))
		}),
	}
}
