package kernel

// table is the kernels of a level. Slices of one call have the length of the first unless a comment says
// otherwise; none may overlap another in part. Results do not depend on where in a vector an element stands.
type table struct {
	add, sub, mul, div func(dst, a, b []float32)

	scale        func(dst, a []float32, s float32)                   // s·a
	axpy         func(dst, a []float32, s float32)                   // dst + s·a
	mulAdd       func(dst, a, b []float32)                           // dst + a·b
	mulAddScaled func(dst, a, b []float32, s float32)                // dst + s·a·b
	mulScale     func(dst, a, w []float32, s, offset float32)        // s·a·(w + offset)
	normGrad     func(dst, dy, w, x []float32, s, offset, c float32) // s·dy·(w + offset) − c·x
	softmaxGrad  func(dst, p, dp []float32, c, s float32)            // s·p·(dp − c)
	rotate       func(lo, hi, cos, sin []float32, s float32)         // (lo·cos − s·hi·sin, hi·cos + s·lo·sin)
	adamW        func(p, m, v, g []float32, c *adamConst)
	toBF16       func(dst []uint16, a []float32) // len(dst) is a multiple of 16
	fromBF16     func(dst []float32, a []uint16) // the same
	toF16        func(dst []uint16, a []float32) // the same; what is too large becomes the largest
	fromF16      func(dst []float32, a []uint16) // the same

	exp, sigmoid, tanh               func(dst, a []float32)
	silu, gelu, geluTanh             func(dst, a []float32)
	siluGrad, geluGrad, geluTanhGrad func(dst, dy, a []float32)    // dy·f′(a)
	siluGate, geluGate, geluTanhGate func(dst, gate, up []float32) // f(gate)·up
	siluGateGrad, geluGateGrad       func(dgate, dup, dy, gate, up []float32)
	geluTanhGateGrad                 func(dgate, dup, dy, gate, up []float32)
	expSub                           func(dst, a []float32, c, s float32) // s·e^(a − c)

	sum, sumSquares, max func(a []float32) float32 // the maximum of nothing is −∞
	dot                  func(a, b []float32) float32
	dot3                 func(a, b, c []float32, offset float32) float32 // Σ a·b·(c + offset)
	expSum               func(dst, a []float32, c float32) float32       // dst = e^(a − c), and its sum
	sumExp               func(a []float32, c float32) float32            // Σ e^(a − c)

	// gemm is c = keep·c + a·b for a tile of rows × cols, with element (i, l) of a at i·ars + l·acs and row l of b
	// at l·ldb. rows is one of gemmRows, 1 ≤ cols ≤ gemmCols, k ≥ 1; keep is 0 or −1, all bits.
	gemm func(a, b, c []float32, ars, acs, ldb, ldc, k, rows, cols, keep int)
	// gemmBF16 is the same with a right operand of bfloat16 whose rows are gemmCols long and padded.
	gemmBF16 func(a []float32, b []uint16, c []float32, ars, acs, ldb, ldc, k, rows, cols, keep int)
	// gemm16 multiplies block integers; see Quantized and Packed. k is a multiple of 16 and starts at a block.
	gemm16 func(a []int16, sa []float32, b []int16, sb, c []float32, ars, sas, ldc, k, rows, cols, keep int)
	// quantize16 rounds a block and returns its scale; it writes whole groups of 16 of q.
	quantize16 func(q []int16, a []float32) float32
	// quantize15 is the same with all the integers of 16 bits.
	quantize15 func(q []int16, a []float32) float32
	// turn16 transposes pieces of a number of panels, which lie stride integers apart: their integers at depths
	// below cols, from the beginning of src on, become the columns of one panel whose depth is all their columns. All
	// panels are width columns wide.
	turn16 func(dst, src []int16, stride, panels, cols, width int)
	// turn32 is the same for panels of single values, which have no pairs. cols is a multiple of 8 but for the
	// portable kernel.
	turn32 func(dst, src []float32, stride, panels, cols, width int)

	// The dot kernels write the products of x with rows of a weight in the bytes of its storage; see Stored. Lengths of
	// x are multiples of 32. sums are Σ x of each 32.
	dotQ8, dotQ40           func(y []float32, x []int16, w []byte)
	dotQ41                  func(y []float32, x []int16, w []byte, sums []float32)
	dotF32, dotBF16, dotF16 func(y, x []float32, w []byte)

	gemmRows []int  // heights of the tiles, ascending, the first 1
	gemmCols int    // width of the tiles and of packed panels
	mixed    Format // see MixedFormat; empty for single precision
}

// adamConst are the factors of an AdamW step, in the order in which the vector kernels read them.
type adamConst struct {
	gradScale, keep1, beta2, keep2 float32 // g·gradScale, 1−β₁, β₂, 1−β₂
	root, eps, step, decay         float32 // 1/√(1−β₂ᵗ), ε, lr/(1−β₁ᵗ), 1−lr·weight decay
}
