package kernel

import (
	"fmt"
	"slices"
	"unsafe"
)

// Format is how the numbers of a packed operand are kept.
type Format string

// The formats. Products are summed in single precision in all of them.
const (
	F32   Format = "f32"
	BF16  Format = "bf16"  // 16 bits of storage, single precision in the product
	Int16 Format = "int16" // 13-bit integers with one scale per 128 values along the depth, on both sides of a product
	// BF16Tiles is bfloat16 on both sides of a product.
	BF16Tiles Format = "bf16-tiles"
)

// BothSides reports whether a product in the format takes a Quantized left operand, by GemmQuantized, instead of
// single precision, by Gemm.
func (f Format) BothSides() bool { return f == Int16 || f == BF16Tiles }

// padded is the depth that a format is stored with.
func (f Format) padded(depth int) int {
	switch f {
	case Int16:
		return (depth + 15) &^ 15
	case BF16Tiles:
		return (depth + tileDepth - 1) &^ (tileDepth - 1)
	}
	return depth
}

// scales is the number of scales of a row or column.
func (f Format) scales(depth int) int {
	if f == Int16 {
		return blocksOf(depth)
	}
	return 0
}

// MixedFormat is the fastest format of the level that is at least as accurate as bfloat16. Block integers are ten
// times closer to single precision than that; they are chosen where a level multiplies them faster than floats, and
// tiles of bfloat16, several times as fast, where it has these.
func MixedFormat() Format {
	if active.mixed == "" {
		return F32
	}
	return active.mixed
}

// Packed is a right operand, K × N, cut into panels of TileCols columns, each with its depth contiguous: what a
// weight becomes once, for many products. It belongs to the level that it was packed at.
type Packed struct {
	Format      Format
	Cols, Depth int

	width  int
	f32    []float32
	bf16   []uint16
	i16    []int16
	scales []float32 // panel by panel, for each block of the depth one a column
	ragged []bool    // panels with a column whose blocks differ in scale
}

func blocksOf(depth int) int { return (depth + depthBlock - 1) / depthBlock }

// PackedLen is the length, in float32, of the memory of a packed operand.
func PackedLen(f Format, cols, depth int) int {
	n := (cols + active.gemmCols - 1) / active.gemmCols * active.gemmCols
	switch f {
	case BF16:
		return (n*depth + 1) / 2
	case Int16, BF16Tiles:
		return n*f.padded(depth)/2 + n*f.scales(depth)
	}
	return n * depth
}

// NewPacked returns an empty operand over the memory, whose length is PackedLen; nil allocates. It is fastest
// where the memory starts on a multiple of 64 bytes.
func NewPacked(f Format, cols, depth int, memory []float32) *Packed {
	n := PackedLen(f, cols, depth)
	if memory == nil {
		memory = Aligned(n)
	}
	p := &Packed{Format: f, Cols: cols, Depth: depth, width: active.gemmCols}
	switch f {
	case BF16, BF16Tiles:
		p.bf16 = halves[uint16](memory[:n])
	case Int16:
		ints := n - (cols+p.width-1)/p.width*p.width*blocksOf(depth)
		p.i16, p.scales = halves[int16](memory[:ints]), memory[ints:n]
		p.ragged = make([]bool, p.Panels())
	default:
		p.f32 = memory[:n]
	}
	return p
}

// halves views memory as numbers of 16 bits.
func halves[T int16 | uint16](memory []float32) []T {
	if len(memory) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), 2*len(memory))
}

// Aligned returns n numbers that start on a multiple of 64 bytes.
func Aligned(n int) []float32 {
	buf := make([]float32, n+15)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf)))&63) / 4
	return buf[off : off+n : off+n]
}

// Panels is the number of panels.
func (p *Packed) Panels() int { return (p.Cols + p.width - 1) / p.width }

// check fails on a wrong use that would compute nonsense: a wrong format, a range off the panels' bounds or another
// level's panels.
func (p *Packed) check(r Range, format bool) {
	if !format || p.width != active.gemmCols || r.N0%p.width != 0 || r.N1 > p.Cols || (r.N1%p.width != 0 && r.N1 != p.Cols) {
		panic(fmt.Sprintf("kernel: columns %d to %d of a %d × %d operand packed as %s in panels of %d, at level %s",
			r.N0, r.N1, p.Depth, p.Cols, p.Format, p.width, current))
	}
}

// Columns returns a view of the columns n0 ≤ n < n1, which begin and end at panels.
func (p *Packed) Columns(n0, n1 int) *Packed {
	p.check(Range{N0: n0, N1: n1}, true)
	end := (n1 + p.width - 1) / p.width * p.width
	v := &Packed{Format: p.Format, Cols: n1 - n0, Depth: p.Depth, width: p.width}
	switch p.Format {
	case F32:
		v.f32 = p.f32[n0*p.Depth : end*p.Depth]
	case BF16:
		v.bf16 = p.bf16[n0*p.Depth : end*p.Depth]
	case BF16Tiles:
		depth := p.Format.padded(p.Depth)
		v.bf16 = p.bf16[n0*depth : end*depth]
	case Int16:
		depth := p.Format.padded(p.Depth)
		v.i16 = p.i16[n0*depth : end*depth]
		v.scales = p.scales[n0*blocksOf(p.Depth) : end*blocksOf(p.Depth)]
		v.ragged = p.ragged[n0/p.width : end/p.width]
	}
	return v
}

// Rows reads a part of a row of a matrix, from column col on, whatever the matrix is stored as.
type Rows func(dst []float32, row, col int)

// RowsOf reads a row-major matrix with rows of ld.
func RowsOf(w []float32, ld int) Rows {
	return func(dst []float32, row, col int) { copy(dst, w[row*ld+col:]) }
}

// longestRow is how much of a row packing holds at a time: whole blocks of every quantised storage.
const longestRow = 8192

// PackScratch is the length of the scratch of Pack.
const PackScratch = longestRow + 2*depthBlock

// Pack fills the panels panel0 ≤ i < panel1 from a matrix W of Cols × Depth, for the product x·Wᵀ. GemmTurned serves
// the product with W itself.
func (p *Packed) Pack(w Rows, panel0, panel1 int, scratch []float32) {
	for i := panel0; i < panel1; i++ {
		if p.Format == Int16 {
			p.packInt16(i, w, scratch)
			continue
		}
		for j := range p.width {
			for k0 := 0; k0 < p.Depth; k0 += longestRow {
				line := scratch[:min(longestRow, p.Depth-k0)]
				if row := i*p.width + j; row < p.Cols {
					w(line, row, k0)
				} else {
					clear(line)
				}
				p.store(i, j, k0, line)
			}
		}
	}
}

// store writes the part of column j of a panel that begins at k0.
func (p *Packed) store(panel, j, k0 int, line []float32) {
	switch at := (panel*p.Format.padded(p.Depth) + k0) * p.width; p.Format {
	case F32:
		to := p.f32[at+j:]
		for l, x := range line {
			to[l*p.width] = x
		}
	case BF16:
		to := p.bf16[at+j:]
		for l, x := range line {
			to[l*p.width] = toBF16(x)
		}
	case BF16Tiles:
		to := p.bf16[at+2*j:]
		for l, x := range line {
			to[l/2*2*p.width+l%2] = toBF16(x)
		}
		for l := len(line); l < p.Format.padded(len(line)); l++ { // only the last part has such
			to[l/2*2*p.width+l%2] = 0
		}
	}
}

// steep is how many times its root mean square the largest value of a row may be for the row to have one scale. The
// rounding of such a row is at most two thirds of what bfloat16 would make of it.
const steep = 16

// packInt16 fills one panel. A row of W has one scale, by which GemmTurned can multiply its left operand, unless the
// row is so steep that its small values would suffer: then each block has its own.
func (p *Packed) packInt16(panel int, w Rows, scratch []float32) {
	line, block := scratch[:longestRow], scratch[longestRow:][:depthBlock+1]
	var q [depthBlock + 16]int16
	blocks, depth := blocksOf(p.Depth), p.Format.padded(p.Depth)
	p.ragged[panel] = false
	pairs := words(p.i16[panel*depth*p.width:][:depth*p.width])
	scales := p.scales[panel*blocks*p.width:][:blocks*p.width]
	for j := range p.width {
		row := panel*p.width + j
		if row >= p.Cols {
			for b := range blocks {
				scales[b*p.width+j] = 0
			}
			for l := range depth / 2 {
				pairs[l*p.width+j] = 0
			}
			continue
		}
		var top, squares float32
		read := func(k0 int) []float32 {
			part := line[:min(longestRow, p.Depth-k0)]
			w(part, row, k0)
			return part
		}
		whole := p.Depth <= longestRow
		for k0 := 0; k0 < p.Depth; {
			part := read(k0)
			squares += active.sumSquares(part)
			for l := 0; l < len(part); l += depthBlock {
				s := active.quantize16(q[:], part[l:min(l+depthBlock, len(part))])
				if s != s || s > top {
					top = s
				}
			}
			k0 += len(part)
		}
		top *= levels16
		even := top == top && float64(top)*float64(top)*float64(p.Depth) <= steep*steep*float64(squares)
		p.ragged[panel] = p.ragged[panel] || !even
		part := line[:0]
		for b := range blocks {
			k0 := b * depthBlock
			if whole {
				part = line[k0:p.Depth]
			} else if k0%longestRow == 0 {
				part = read(k0)
			}
			n := min(depthBlock, p.Depth-k0)
			values := part[:n]
			if even { // the largest value of the row, behind the block, makes the scale
				values = block[:n+1]
				copy(values, part[:n])
				values[n] = top
			}
			scales[b*p.width+j] = active.quantize16(q[:], values)
			if even {
				q[n] = 0
			}
			part = part[n:]
			to := pairs[k0/2*p.width+j:]
			for l, pair := range words(q[:p.Format.padded(n)]) {
				to[l*p.width] = pair
			}
		}
	}
}

// words views pairs of integers as one.
func words(q []int16) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(q))), len(q)/2)
}

// uniform reports whether every column has one scale for its whole depth.
func (p *Packed) uniform() bool { return !slices.Contains(p.ragged, true) }

// Row reads column n of the operand, from depth k0 on: a row of W.
func (p *Packed) Row(dst []float32, n, k0 int) {
	if n < 0 || n >= p.Cols || k0 < 0 || k0+len(dst) > p.Depth {
		panic("kernel: a row beyond the operand")
	}
	panel, j := n/p.width, n%p.width
	switch p.Format {
	case F32:
		from := p.f32[(panel*p.Depth+k0)*p.width+j:]
		for i := range dst {
			dst[i] = from[i*p.width]
		}
	case BF16:
		from := p.bf16[(panel*p.Depth+k0)*p.width+j:]
		for i := range dst {
			dst[i] = fromBF16(from[i*p.width])
		}
	case BF16Tiles:
		from := p.bf16[panel*p.Format.padded(p.Depth)*p.width+2*j:]
		for i := range dst {
			k := k0 + i
			dst[i] = fromBF16(from[k/2*2*p.width+k%2])
		}
	case Int16:
		q := p.i16[panel*p.Format.padded(p.Depth)*p.width+2*j:]
		scales := p.scales[panel*blocksOf(p.Depth)*p.width+j:]
		for i := range dst {
			k := k0 + i
			dst[i] = float32(q[k/2*2*p.width+k%2]) * scales[k/depthBlock*p.width]
		}
	}
}

// Quantized is a left operand, M × K, in block integers or bfloat16.
type Quantized struct {
	Format      Format
	Rows, Depth int

	i16    []int16
	bf16   []uint16
	scales []float32
}

// QuantizedLen is the length, in float32, of the memory of a quantised operand.
func QuantizedLen(f Format, rows, depth int) int {
	if f == BF16Tiles {
		rows += tileRows - 1 // a tile that starts at the last row is read whole
	}
	return rows*f.padded(depth)/2 + rows*f.scales(depth)
}

// NewQuantized returns an empty operand over the memory, whose length is QuantizedLen; nil allocates.
func NewQuantized(f Format, rows, depth int, memory []float32) *Quantized {
	n := QuantizedLen(f, rows, depth)
	if memory == nil {
		memory = Aligned(n)
	}
	x := &Quantized{Format: f, Rows: rows, Depth: depth}
	switch f {
	case Int16:
		ints := rows * f.padded(depth) / 2
		x.i16, x.scales = halves[int16](memory[:ints]), memory[ints:n]
	case BF16Tiles:
		x.bf16 = halves[uint16](memory[:n])
	default:
		panic(fmt.Sprintf("kernel: no left operand is kept as %s", f))
	}
	return x
}

// Quantize fills the rows m0 ≤ m < m1 from a row-major matrix with rows of ldx. A block of integers that holds an
// infinity or NaN makes NaN of what it is multiplied into.
func (x *Quantized) Quantize(rows []float32, ldx, m0, m1 int) {
	depth, blocks := x.Format.padded(x.Depth), x.Format.scales(x.Depth)
	for m := m0; m < m1; m++ {
		row := rows[m*ldx:][:x.Depth]
		if x.Format == BF16Tiles {
			to := x.bf16[m*depth : (m+1)*depth]
			ToBF16(to[:x.Depth], row)
			clear(to[x.Depth:])
			continue
		}
		for b := range blocks {
			k0 := b * depthBlock
			x.scales[m*blocks+b] = active.quantize16(x.i16[m*depth+k0:(m+1)*depth], row[k0:min(k0+depthBlock, x.Depth)])
		}
	}
}
