package kernel

import "unsafe"

// Products by tiles: bfloat16 on both sides, single precision in the sums. A tile register of AMX holds 16 rows of 64
// bytes. One product takes two tiles of the left operand and two of a panel, and adds to four of the result:
//
//	            16 columns   16 columns
//	          ┌────────────┬────────────┐
//	          │   b₀, 16   │     b₁     │  pairs along the depth, so 32 values of depth a round
//	┌─────────┼────────────┼────────────┤
//	│ a₀, 16  │   a₀·b₀    │   a₀·b₁    │
//	│  rows   │            │            │
//	├─────────┼────────────┼────────────┤
//	│   a₁    │   a₁·b₀    │   a₁·b₁    │
//	└─────────┴────────────┴────────────┘
//
// The left operand is read as its rows stand; a panel holds pairs of rows side by side, as the block integers' do.

const (
	tileRows  = 32 // rows of the result of one product
	tileDepth = 32 // values along the depth of one round
)

// gemmTiles is GemmQuantized for operands in bfloat16.
func gemmTiles(dst []float32, ldd int, x *Quantized, p *Packed, r Range, add bool) {
	depth := p.Format.padded(p.Depth)
	step := max(leftBytes/(2*depth)/tileRows*tileRows, tileRows)
	for m0 := r.M0; m0 < r.M1; m0 += step {
		m1 := min(m0+step, r.M1)
		for n0 := r.N0; n0 < r.N1; n0 += p.width {
			for k0 := 0; k0 < depth; k0 += depthSlice16 {
				b := p.bf16[n0*depth+k0*p.width:][:min(depthSlice16, depth-k0)*p.width]
				tilePanel(dst[m0*ldd+n0:], ldd, x.bf16[m0*depth+k0:], depth, b, m1-m0, min(p.width, r.N1-n0), add || k0 > 0)
			}
		}
	}
}

// turnedTiles is GemmTurned for operands in bfloat16.
func (p *Packed) turnedTiles(dst []float32, ldd int, x []float32, ldx int, r Range, add bool, panel []uint16, scratch []float32) {
	rows := r.M1 - r.M0
	q := NewQuantized(BF16Tiles, rows, p.Cols, scratch[:QuantizedLen(BF16Tiles, rows, p.Cols)])
	q.Quantize(x[r.M0*ldx:], ldx, 0, rows)
	depth, stride := p.Format.padded(p.Cols), p.Format.padded(p.Depth)*p.width
	for n0 := r.N0; n0 < r.N1; n0 += p.width {
		for k0 := 0; k0 < depth; k0 += depthSlice16 {
			k := min(depthSlice16, depth-k0)
			panels := min((k+p.width-1)/p.width, p.Panels()-k0/p.width)
			active.turn16(signed(panel), signed(p.bf16[k0*stride/p.width+n0*p.width:]), stride, panels, min(p.width, p.Format.padded(p.Depth)-n0), p.width)
			if end := panels * p.width; end < k {
				clear(panel[end*p.width : k*p.width])
			}
			tilePanel(dst[r.M0*ldd+n0:], ldd, q.bf16[k0:], depth, panel[:k*p.width], rows, min(p.width, r.N1-n0), add || k0 > 0)
		}
	}
}

// signed views words as integers, for what only moves them.
func signed(a []uint16) []int16 {
	return unsafe.Slice((*int16)(unsafe.Pointer(unsafe.SliceData(a))), len(a))
}

// tilePanel multiplies rows of a, lda apart, by one piece of a panel. Tiles that the result does not fill are computed
// aside.
func tilePanel(c []float32, ldc int, a []uint16, lda int, b []uint16, rows, cols int, keep bool) {
	width := active.gemmCols
	k, whole := len(b)/width, 0
	if cols == width {
		whole = rows / tileRows
	}
	if whole > 0 {
		tileProducts(a, b, c, lda, 2*width, ldc, k, whole, keepIf(keep))
	}
	for m := whole * tileRows; m < rows; m += tileRows {
		tileEdge(c[m*ldc:], ldc, a[m*lda:], lda, b, min(tileRows, rows-m), cols, keep)
	}
}

func tileEdge(c []float32, ldc int, a []uint16, lda int, b []uint16, rows, cols int, keep bool) {
	var edge [tileRows * widest]float32
	width := active.gemmCols
	for i := 0; i < rows && keep; i++ {
		copy(edge[i*width:][:cols], c[i*ldc:])
	}
	tileProducts(a, b, edge[:], lda, 2*width, width, len(b)/width, 1, keepIf(keep))
	for i := range rows {
		copy(c[i*ldc:][:cols], edge[i*width:])
	}
}

// tileProductsPortable computes n tiles of c = keep·c + a·b, one below the other; keep is 0 or −1, all bits. Row i of
// a starts at i·lda, pair i of rows of b at i·ldb, and ldb is twice the width of a panel.
func tileProductsPortable(a, b []uint16, c []float32, lda, ldb, ldc, k, n, keep int) {
	for i := range n * tileRows {
		for j := range ldb / 2 {
			var s float32
			for l := 0; l < k; l += 2 {
				s += fromBF16(a[i*lda+l]) * fromBF16(b[l/2*ldb+2*j])
				s += fromBF16(a[i*lda+l+1]) * fromBF16(b[l/2*ldb+2*j+1])
			}
			put(&c[i*ldc+j], s, keep)
		}
	}
}
