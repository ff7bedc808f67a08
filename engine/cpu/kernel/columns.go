package kernel

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
