package kernel

import (
	"fmt"
	"unsafe"
)

// Format is how the numbers of a packed operand are kept.
type Format string

// The formats. Products are summed in single precision in all of them.
const (
	F32   Format = "f32"
	BF16  Format = "bf16"  // 16 bits of storage, single precision in the product
	Int16 Format = "int16" // 13-bit integers with one scale per 128 values along the depth, on both sides of a product
)

// MixedFormat is the fastest format of the level that is at least as accurate as bfloat16. Block integers are ten
// times closer to single precision than that; they are chosen where a level multiplies them faster than floats.
func MixedFormat() Format {
	if active.fast16 {
		return Int16
	}
	return F32
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
	scales []float32
}

// padded is the depth that block integers are stored with.
func padded(depth int) int { return (depth + 15) &^ 15 }

func blocksOf(depth int) int { return (depth + depthBlock - 1) / depthBlock }

// PackedLen is the length, in float32, of the memory of a packed operand.
func PackedLen(f Format, cols, depth int) int {
	n := (cols + active.gemmCols - 1) / active.gemmCols * active.gemmCols
	switch f {
	case BF16:
		return (n*depth + 1) / 2
	case Int16:
		return n*padded(depth)/2 + n*blocksOf(depth)
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
	case BF16:
		p.bf16 = halves[uint16](memory[:n])
	case Int16:
		ints := n - (cols+p.width-1)/p.width*p.width*blocksOf(depth)
		p.i16, p.scales = halves[int16](memory[:ints]), memory[ints:n]
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

// check fails on a wrong use that would compute nonsense: a range off the panels' bounds or another level's panels.
func (p *Packed) check(r Range, f Format, want bool) {
	if (p.Format == f) != want || p.width != active.gemmCols || r.N0%p.width != 0 || r.N1 > p.Cols || (r.N1%p.width != 0 && r.N1 != p.Cols) {
		panic(fmt.Sprintf("kernel: columns %d to %d of a %d × %d operand packed as %s in panels of %d, at level %s",
			r.N0, r.N1, p.Depth, p.Cols, p.Format, p.width, current))
	}
}

// Columns returns a view of the columns n0 ≤ n < n1, which begin and end at panels.
func (p *Packed) Columns(n0, n1 int) *Packed {
	p.check(Range{N0: n0, N1: n1}, p.Format, true)
	end := (n1 + p.width - 1) / p.width * p.width
	v := &Packed{Format: p.Format, Cols: n1 - n0, Depth: p.Depth, width: p.width}
	switch p.Format {
	case F32:
		v.f32 = p.f32[n0*p.Depth : end*p.Depth]
	case BF16:
		v.bf16 = p.bf16[n0*p.Depth : end*p.Depth]
	case Int16:
		v.i16 = p.i16[n0*padded(p.Depth) : end*padded(p.Depth)]
		v.scales = p.scales[n0*blocksOf(p.Depth) : end*blocksOf(p.Depth)]
	}
	return v
}

// Rows reads a part of a row of a matrix, from column col on, whatever the matrix is stored as.
type Rows func(dst []float32, row, col int)

// RowsOf reads a row-major matrix with rows of ld.
func RowsOf(w []float32, ld int) Rows {
	return func(dst []float32, row, col int) { copy(dst, w[row*ld+col:]) }
}

// group is how many columns of a matrix are read at a time for its transposed form: the longest block of the
// quantised storages.
const group = 256

// PackScratch is the length of the scratch of Pack.
const PackScratch = group*depthBlock + group

// PackAlign is the number of panels on whose multiples a split of Pack costs least.
func PackAlign() int { return group / active.gemmCols }

// Pack fills the panels panel0 ≤ i < panel1 from a matrix W. Without trans W is Cols × Depth, and the product is
// x·Wᵀ; with trans W is Depth × Cols, and the product is dy·W.
func (p *Packed) Pack(w Rows, trans bool, panel0, panel1 int, scratch []float32) {
	block, line := scratch[:group*depthBlock], scratch[group*depthBlock:PackScratch]
	q := make([]int16, depthBlock)
	step := 1
	if trans {
		step = PackAlign()
	}
	for i0 := panel0; i0 < panel1; i0 += step {
		i1 := min(i0+step, panel1)
		n0 := i0 * p.width
		cols := min(i1*p.width, p.Cols) - n0
		for k0 := 0; k0 < p.Depth; k0 += depthBlock {
			depth := min(depthBlock, p.Depth-k0)
			// block is one row of depthBlock values per column.
			for j := range cols {
				if !trans {
					w(block[j*depthBlock:][:depth], n0+j, k0)
				}
			}
			for l := range depth {
				if !trans {
					break
				}
				w(line[:cols], k0+l, n0)
				for j, x := range line[:cols] {
					block[j*depthBlock+l] = x
				}
			}
			clear(block[cols*depthBlock : (i1-i0)*p.width*depthBlock])
			for i := i0; i < i1; i++ {
				p.store(i, k0, depth, block[(i-i0)*p.width*depthBlock:], q)
			}
		}
	}
}

// store writes a block of one panel; q is working memory.
func (p *Packed) store(panel, k0, depth int, block []float32, q []int16) {
	n := p.width
	switch p.Format {
	case F32:
		to := p.f32[(panel*p.Depth+k0)*n:][:depth*n]
		for j := range n {
			for l, x := range block[j*depthBlock:][:depth] {
				to[l*n+j] = x
			}
		}
	case BF16:
		to := p.bf16[(panel*p.Depth+k0)*n:][:depth*n]
		for j := range n {
			for l, x := range block[j*depthBlock:][:depth] {
				to[l*n+j] = toBF16(x)
			}
		}
	case Int16:
		to := p.i16[(panel*padded(p.Depth)+k0)*n:][:padded(depth)*n]
		scales := p.scales[(panel*blocksOf(p.Depth)+k0/depthBlock)*n:]
		for j := range n {
			scales[j] = active.quantize16(q, block[j*depthBlock:][:depth])
			for l := 0; l < padded(depth); l += 2 {
				to[l*n+2*j], to[l*n+2*j+1] = q[l], q[l+1]
			}
		}
	}
}

// Quantized is a left operand, M × K, in block integers.
type Quantized struct {
	Rows, Depth int

	q      []int16
	scales []float32
}

// QuantizedLen is the length, in float32, of the memory of a quantised operand.
func QuantizedLen(rows, depth int) int { return rows*padded(depth)/2 + rows*blocksOf(depth) }

// NewQuantized returns an empty operand over the memory, whose length is QuantizedLen; nil allocates.
func NewQuantized(rows, depth int, memory []float32) *Quantized {
	n := QuantizedLen(rows, depth)
	if memory == nil {
		memory = Aligned(n)
	}
	ints := rows * padded(depth) / 2
	return &Quantized{Rows: rows, Depth: depth, q: halves[int16](memory[:ints]), scales: memory[ints:n]}
}

// Quantize fills the rows m0 ≤ m < m1 from a row-major matrix with rows of ldx. A block that holds an infinity or
// NaN makes NaN of what it is multiplied into.
func (x *Quantized) Quantize(rows []float32, ldx, m0, m1 int) {
	depth, blocks := padded(x.Depth), blocksOf(x.Depth)
	for m := m0; m < m1; m++ {
		row := rows[m*ldx:][:x.Depth]
		for b := range blocks {
			k0 := b * depthBlock
			x.scales[m*blocks+b] = active.quantize16(x.q[m*depth+k0:(m+1)*depth], row[k0:min(k0+depthBlock, x.Depth)])
		}
	}
}
