package kernel

import "slices"

// ones are the scales of a turned panel.
var ones = slices.Repeat([]float32{1}, depthSlice16/depthBlock*widest)

// TurnedScratch is the length of the scratch of GemmTurned for that many rows and an operand of that many columns.
func TurnedScratch(rows int, f Format, cols int) int {
	n := depthSlice16 * widest / 2 // a piece of a turned panel
	switch f {
	case BF16:
		n += n
	case Int16:
		n += QuantizedLen(Int16, rows, cols) + Int16.padded(cols) + depthBlock + 16
	case BF16Tiles:
		n += QuantizedLen(BF16Tiles, rows, cols)
	}
	return n
}

// GemmTurned computes a range of dst = x·W, or dst += x·W with add, for the W whose rows p was packed from for x·Wᵀ.
// Rows of x have p.Cols values, those of dst p.Depth, and columns are split on multiples of TileCols. Panels of W are
// turned on the way, which costs little beside the product.
//
// With block integers the scale of a row of W goes to the values of x that are multiplied into it, before these
// become integers; where p has scales that differ along a row, once for every block of columns.
func GemmTurned(dst []float32, ldd int, x []float32, ldx int, p *Packed, r Range, add bool, scratch []float32) {
	if r.M1 <= r.M0 || r.N1 <= r.N0 {
		return
	}
	if p.width != active.gemmCols || r.N0%p.width != 0 || r.N1 > p.Depth || r.N1%p.width != 0 && r.N1 != p.Depth {
		panic("kernel: a turned product of another level or bounds than the operand's")
	}
	if p.Cols == 0 {
		clearRange(dst, ldd, r, add)
		return
	}
	RowMajor(x, ldx).reach(r.M1, p.Cols)
	RowMajor(dst, ldd).reach(r.M1, r.N1)
	panel, scratch := scratch[:depthSlice16*widest/2], scratch[depthSlice16*widest/2:]
	switch p.Format {
	case Int16:
		p.turnedInt16(dst, ldd, x, ldx, r, add, halves[int16](panel), scratch)
		return
	case BF16Tiles:
		p.turnedTiles(dst, ldd, x, ldx, r, add, halves[uint16](panel), scratch)
		return
	}
	for n0 := r.N0; n0 < r.N1; n0 += p.width {
		cols := min(p.width, r.N1-n0)
		for k0 := 0; k0 < p.Cols; k0 += depthSlice {
			k := min(depthSlice, p.Cols-k0)
			p.turnFloats(panel, n0, k0, k, scratch)
			a := Matrix{x[r.M0*ldx+k0:], ldx, 1}
			tiles(dst[r.M0*ldd+n0:], ldd, a, Matrix{panel, p.width, 1}, r.M1-r.M0, k, cols, keepIf(add || k0 > 0))
		}
	}
}

// turnFloats turns the columns k0 … k0 + k − 1 of panels of floats at the depths from n0 on.
func (p *Packed) turnFloats(panel []float32, n0, k0, k int, wide []float32) {
	panels, depths := (k+p.width-1)/p.width, min(p.width, p.Depth-n0)
	at, stride := k0*p.Depth+n0*p.width, p.Depth*p.width
	src := p.f32
	if p.Format == BF16 {
		for i := range panels {
			active.fromBF16(wide[i*p.width*p.width:][:depths*p.width], p.bf16[at+i*stride:][:depths*p.width])
		}
		src, at, stride = wide, 0, p.width*p.width
	}
	whole := depths
	if active != &tablePortable {
		whole = depths &^ 7
	}
	if whole > 0 {
		active.turn32(panel, src[at:], stride, panels, whole, p.width)
	}
	if whole < depths {
		turn32Portable(panel[whole:], src[at+whole*p.width:], stride, panels, depths-whole, p.width)
	}
}

func (p *Packed) turnedInt16(dst []float32, ldd int, x []float32, ldx int, r Range, add bool, panel []int16, scratch []float32) {
	rows := r.M1 - r.M0
	cut := func(n int) []float32 {
		part := scratch[:n]
		scratch = scratch[n:]
		return part
	}
	q := NewQuantized(Int16, rows, p.Cols, cut(QuantizedLen(Int16, rows, p.Cols)))
	line, block := cut(p.Cols), cut(depthBlock)
	depth, blocks, stride := Int16.padded(p.Cols), blocksOf(p.Cols), Int16.padded(p.Depth)*p.width
	uniform := p.uniform()
	for c0, c1 := r.N0, 0; c0 < r.N1; c0 = c1 {
		if c1 = r.N1; !uniform {
			c1 = min(c1, (c0/depthBlock+1)*depthBlock)
		}
		p.columnScales(line, c0/depthBlock)
		q.quantizeScaled(x[r.M0*ldx:], ldx, line, block)
		for n0 := c0; n0 < c1; n0 += p.width {
			cols := min(p.width, c1-n0)
			for k0 := 0; k0 < depth; k0 += depthSlice16 {
				k := min(depthSlice16, depth-k0)
				panels := min((k+p.width-1)/p.width, p.Panels()-k0/p.width) // x is zero beyond them
				active.turn16(panel, p.i16[k0*stride/p.width+n0*p.width:], stride, panels, min(p.width, Int16.padded(p.Depth)-n0), p.width)
				keep := keepIf(add || k0 > 0)
				for i := 0; i < rows; {
					n := rowsOf(rows - i)
					active.gemm16(q.i16[i*depth+k0:], q.scales[i*blocks+k0/depthBlock:], panel, ones, dst[(r.M0+i)*ldd+n0:], depth, blocks, ldd, k, n, cols, keep)
					i += n
				}
			}
		}
	}
}

// columnScales reads the scales of a block of the depth.
func (p *Packed) columnScales(dst []float32, block int) {
	for i := range p.Panels() {
		n := i * p.width
		copy(dst[n:min(n+p.width, p.Cols)], p.scales[(i*blocksOf(p.Depth)+block)*p.width:])
	}
}

// quantizeScaled fills all rows from those of a matrix times the scales of its columns.
func (x *Quantized) quantizeScaled(rows []float32, ldx int, scales, block []float32) {
	depth, blocks := Int16.padded(x.Depth), blocksOf(x.Depth)
	for m := range x.Rows {
		for b := range blocks {
			k0 := b * depthBlock
			k1 := min(k0+depthBlock, x.Depth)
			scaled := block[:k1-k0]
			active.mul(scaled, rows[m*ldx+k0:m*ldx+k1], scales[k0:k1])
			x.scales[m*blocks+b] = active.quantize16(x.i16[m*depth+k0:(m+1)*depth], scaled)
		}
	}
}
