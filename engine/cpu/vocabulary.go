package cpu

import (
	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// vocabulary is the matrix W (V, C) of an output head, read tile by tile: packed where it is frozen, else as it is.
type vocabulary struct {
	rows, c int
	value   *value // nil where the form is there
	form    *form
}

// vocabulary returns the operand.
func (p *planner) vocabulary(n *graph.Node) (vocabulary, error) {
	w := vocabulary{rows: n.Dim(0), c: n.Dim(1)}
	t, err := p.stores(n)
	if err != nil {
		return w, err
	}
	if t == nil || t.Trainable {
		w.value = p.use(n)
		return w, nil
	}
	w.form = p.form(t, panels)
	return w, nil
}

// leftRows are rows of the left side of several products.
type leftRows struct {
	x         []float32
	rows      int
	quantized *kernel.Quantized // in the format of the packed side, nil for single precision
}

// leftScratch is the memory that left needs.
func (w vocabulary) leftScratch(rows int) int {
	if w.form != nil && w.form.packed.Format.BothSides() {
		return roundUp(kernel.QuantizedLen(w.form.packed.Format, rows, w.c), align)
	}
	return 0
}

func (w vocabulary) left(x []float32, rows int, scratch []float32) leftRows {
	l := leftRows{x: x, rows: rows}
	if w.leftScratch(rows) > 0 {
		l.quantized = kernel.NewQuantized(w.form.packed.Format, rows, w.c, scratch)
		l.quantized.Quantize(x, w.c, 0, rows)
	}
	return l
}

// productScratch is the memory that logits and weighted need.
func (w vocabulary) productScratch(rows int) int {
	if w.value != nil {
		return kernel.MatMulScratch
	}
	return kernel.TurnedScratch(rows, w.form.packed.Format, min(vocabTile, w.rows))
}

// logits computes x·Wᵀ for the tile v0 … v1−1.
func (w vocabulary) logits(dst []float32, x leftRows, v0, v1 int, scratch []float32) {
	n := v1 - v0
	all := kernel.Range{M1: x.rows, N1: n}
	if w.value != nil {
		kernel.MatMul(dst, n, kernel.RowMajor(x.x, w.c), kernel.RowMajor(w.value.f()[v0*w.c:], w.c).T(), w.c, all, false, scratch)
		return
	}
	tile := w.form.packed.Columns(v0, v1)
	if x.quantized != nil {
		kernel.GemmQuantized(dst, n, x.quantized, tile, all, false)
		return
	}
	kernel.Gemm(dst, n, x.x, w.c, tile, all, false)
}

// weighted adds x·W for the rows v0 … v1−1 of W, which are a tile.
func (w vocabulary) weighted(dst, x []float32, rows, v0, v1 int, scratch []float32) {
	all := kernel.Range{M1: rows, N1: w.c}
	if w.value != nil {
		kernel.MatMul(dst, w.c, kernel.RowMajor(x, v1-v0), kernel.RowMajor(w.value.f()[v0*w.c:], w.c), v1-v0, all, true, scratch)
		return
	}
	kernel.GemmTurned(dst, w.c, x, v1-v0, w.form.packed.Columns(v0, v1), all, true, scratch)
}

// row reads a row of W.
func (w vocabulary) row(dst []float32, row int) {
	if w.value != nil {
		copy(dst, w.value.f()[row*w.c:])
		return
	}
	w.form.packed.Row(dst, row, 0)
}
