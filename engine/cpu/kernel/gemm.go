package kernel

import "fmt"

// Legend: M rows of the result, N its columns, K the depth, which is summed over. A left operand is M × K, a right
// one K × N.

const (
	depthBlock   = 128  // values along the depth that share a scale
	levels16     = 4095 // largest magnitude of a block integer: 128·4095² < 2³¹
	portableCols = 4

	depthSlice   = 256 // depth of a product of tiles: a panel's slice stays in the first cache
	depthSlice16 = 512 // the same in 16 bits, and of a piece of a panel that is turned at a time
	leftBytes    = 192 << 10
	leftRows     = 96 // rows of a left operand that are laid out anew at a time
	widest       = 32 // widest panel of all levels
)

// TileCols is the width of a panel: a split of columns of a packed operand falls on its multiples.
func TileCols() int { return active.gemmCols }

// TileRows is the height of the largest tile: a split of rows costs least on its multiples.
func TileRows() int { return active.gemmRows[len(active.gemmRows)-1] }

// rowsOf returns the height of the next tile when m rows are left.
func rowsOf(m int) int {
	r := active.gemmRows
	for i := len(r) - 1; i > 0; i-- {
		if r[i] <= m {
			return r[i]
		}
	}
	return 1
}

// reach fails where a matrix does not hold rows × cols elements; assembly would not notice. It reads none of them:
// another worker may be writing the last one.
func (m Matrix) reach(rows, cols int) {
	if rows <= 0 || cols <= 0 {
		return
	}
	if last := (rows-1)*m.Row + (cols-1)*m.Col; last >= len(m.Data) {
		panic(fmt.Sprintf("kernel: a matrix of %d × %d elements ends at %d, its slice at %d", rows, cols, last, len(m.Data)-1))
	}
}

// keepIf turns a flag into the mask that tiles take.
func keepIf(add bool) int {
	if add {
		return -1
	}
	return 0
}

// Matrix is a view of numbers: element (i, j) stands at i·Row + j·Col. A transposed view swaps the strides.
type Matrix struct {
	Data     []float32
	Row, Col int
}

// RowMajor returns the view of a matrix with rows of that length.
func RowMajor(data []float32, cols int) Matrix { return Matrix{data, cols, 1} }

// T returns the transposed view.
func (m Matrix) T() Matrix { return Matrix{m.Data, m.Col, m.Row} }

// Range is a rectangle of a result: rows M0 ≤ m < M1, columns N0 ≤ n < N1.
type Range struct{ M0, M1, N0, N1 int }

// MatMulScratch is the length of the scratch of MatMul.
const MatMulScratch = (leftRows + widest) * depthSlice

// MatMul computes a range of dst = a·b, or dst += a·b with add, where k is the depth. Neither operand is packed
// beforehand, so it serves products in which both change: MatMul(dy.T(), x) is the gradient of a weight. Slices of
// an operand whose elements do not stand in the order of the product are laid out in the scratch on the way.
func MatMul(dst []float32, ldd int, a, b Matrix, k int, r Range, add bool, scratch []float32) {
	if r.M1 <= r.M0 || r.N1 <= r.N0 {
		return
	}
	if k == 0 {
		clearRange(dst, ldd, r, add)
		return
	}
	a.reach(r.M1, k)
	b.reach(k, r.N1)
	RowMajor(dst, ldd).reach(r.M1, r.N1)
	left, right := scratch[:leftRows*depthSlice], scratch[leftRows*depthSlice:MatMulScratch]
	// For few columns a copy costs more than the far reads of an operand that stands the other way.
	lay := a.Col != 1 && r.N1-r.N0 > 4*active.gemmCols
	step := r.M1 - r.M0
	if lay {
		step = leftRows / TileRows() * TileRows()
	}
	width := active.gemmCols
	for k0 := 0; k0 < k; k0 += depthSlice {
		depth := min(depthSlice, k-k0)
		keep := keepIf(add || k0 > 0)
		for m0 := r.M0; m0 < r.M1; m0 += step {
			m1 := min(m0+step, r.M1)
			x := Matrix{a.Data[m0*a.Row+k0*a.Col:], a.Row, a.Col}
			if lay {
				layTiles(left, x, m1-m0, depth)
			}
			for n0 := r.N0; n0 < r.N1; n0 += width {
				cols := min(width, r.N1-n0)
				y := Matrix{b.Data[k0*b.Row+n0*b.Col:], b.Row, b.Col}
				if b.Col != 1 {
					y = layPanel(right, y, depth, cols)
				}
				if lay {
					laidTiles(dst[m0*ldd+n0:], ldd, left, y, m1-m0, depth, cols, keep)
				} else {
					tiles(dst[m0*ldd+n0:], ldd, x, y, m1-m0, depth, cols, keep)
				}
			}
		}
	}
}

// tiles multiplies rows of a by one panel.
func tiles(dst []float32, ldd int, a, b Matrix, m, depth, cols, keep int) {
	gemm := active.gemm
	for i := 0; i < m; {
		rows := rowsOf(m - i)
		gemm(a.Data[i*a.Row:], b.Data, dst[i*ldd:], a.Row, a.Col, b.Row, ldd, depth, rows, cols, keep)
		i += rows
	}
}

// clearRange sets a range to zero unless it is added to.
func clearRange(dst []float32, ldd int, r Range, add bool) {
	for m := r.M0; m < r.M1 && !add; m++ {
		clear(dst[m*ldd+r.N0 : m*ldd+r.N1])
	}
}

// layTiles copies m rows of a into buf tile by tile, so that the rows of a tile stand side by side.
func layTiles(buf []float32, a Matrix, m, depth int) {
	for i := 0; i < m; {
		rows := rowsOf(m - i)
		to := buf[i*depth : (i+rows)*depth]
		for l := range depth {
			from := a.Data[i*a.Row+l*a.Col:]
			if a.Row == 1 {
				copy(to[l*rows:(l+1)*rows], from)
				continue
			}
			for r := range rows {
				to[l*rows+r] = from[r*a.Row]
			}
		}
		i += rows
	}
}

// laidTiles multiplies rows that layTiles has laid out by one panel.
func laidTiles(dst []float32, ldd int, left []float32, b Matrix, m, depth, cols, keep int) {
	for i := 0; i < m; {
		rows := rowsOf(m - i)
		active.gemm(left[i*depth:], b.Data, dst[i*ldd:], 1, rows, b.Row, ldd, depth, rows, cols, keep)
		i += rows
	}
}

// layPanel copies cols columns of b into buf as rows of a panel's width.
func layPanel(buf []float32, b Matrix, depth, cols int) Matrix {
	width := active.gemmCols
	for j := range cols {
		from := b.Data[j*b.Col:]
		to := buf[j:]
		if b.Row == 1 {
			for l, x := range from[:depth] {
				to[l*width] = x
			}
			continue
		}
		for l := range depth {
			to[l*width] = from[l*b.Row]
		}
	}
	return RowMajor(buf, width)
}

// Gemm computes a range of dst = x·p, or dst += x·p with add, for an operand packed as F32 or BF16; x is row-major
// with rows of ldx. Columns are split on multiples of TileCols.
func Gemm(dst []float32, ldd int, x []float32, ldx int, p *Packed, r Range, add bool) {
	if p.check(r, !p.Format.BothSides()); r.M1 <= r.M0 || r.N1 <= r.N0 {
		return
	}
	if p.Depth == 0 {
		clearRange(dst, ldd, r, add)
		return
	}
	RowMajor(x, ldx).reach(r.M1, p.Depth)
	RowMajor(dst, ldd).reach(r.M1, r.N1)
	const super = 2048
	for s0 := 0; s0 < p.Depth; s0 += super {
		s1 := min(s0+super, p.Depth)
		step := leftStep(4 * (s1 - s0))
		for m0 := r.M0; m0 < r.M1; m0 += step {
			m1 := min(m0+step, r.M1)
			for n0 := r.N0; n0 < r.N1; n0 += p.width {
				cols := min(p.width, r.N1-n0)
				for k0 := s0; k0 < s1; k0 += depthSlice {
					depth := min(depthSlice, s1-k0)
					keep := keepIf(add || k0 > 0)
					at := n0*p.Depth + k0*p.width // panels stand one behind the other
					a := Matrix{x[m0*ldx+k0:], ldx, 1}
					c := dst[m0*ldd+n0:]
					if p.Format == F32 {
						tiles(c, ldd, a, Matrix{p.f32[at:], p.width, 1}, m1-m0, depth, cols, keep)
						continue
					}
					for i := 0; i < m1-m0; {
						rows := rowsOf(m1 - m0 - i)
						active.gemmBF16(a.Data[i*ldx:], p.bf16[at:], c[i*ldd:], ldx, 1, p.width, ldd, depth, rows, cols, keep)
						i += rows
					}
				}
			}
		}
	}
}

// leftStep is how many rows of that many bytes stay in the second cache, in whole tiles.
func leftStep(rowBytes int) int {
	t := TileRows()
	return max(leftBytes/rowBytes/t*t, 2*t)
}

// GemmQuantized computes a range of dst = x·p, or dst += x·p with add, for operands of one format that holds both
// sides. Columns are split on multiples of TileCols.
func GemmQuantized(dst []float32, ldd int, x *Quantized, p *Packed, r Range, add bool) {
	if p.check(r, p.Format == x.Format); x.Depth != p.Depth {
		panic("kernel: operands of unequal depth")
	}
	if r.M1 <= r.M0 || r.N1 <= r.N0 {
		return
	}
	if p.Depth == 0 {
		clearRange(dst, ldd, r, add)
		return
	}
	if r.M1 > x.Rows {
		panic("kernel: more rows than the operand has")
	}
	RowMajor(dst, ldd).reach(r.M1, r.N1)
	if p.Format == BF16Tiles {
		gemmTiles(dst, ldd, x, p, r, add)
		return
	}
	gemmInt16(dst, ldd, x, p, r, add)
}

// gemmInt16 is GemmQuantized for block integers.
func gemmInt16(dst []float32, ldd int, x *Quantized, p *Packed, r Range, add bool) {
	depth, blocks := p.Format.padded(p.Depth), blocksOf(p.Depth)
	step := leftStep(2 * depth)
	gemm16 := active.gemm16
	for m0 := r.M0; m0 < r.M1; m0 += step {
		m1 := min(m0+step, r.M1)
		for n0 := r.N0; n0 < r.N1; n0 += p.width {
			cols := min(p.width, r.N1-n0)
			for k0 := 0; k0 < depth; k0 += depthSlice16 {
				k := min(depthSlice16, depth-k0)
				keep := keepIf(add || k0 > 0)
				b, sb := p.i16[n0*depth+k0*p.width:], p.scales[n0*blocks+k0/depthBlock*p.width:]
				for i := m0; i < m1; {
					rows := rowsOf(m1 - i)
					gemm16(x.i16[i*depth+k0:], x.scales[i*blocks+k0/depthBlock:], b, sb, dst[i*ldd+n0:], depth, blocks, ldd, k, rows, cols, keep)
					i += rows
				}
			}
		}
	}
}
