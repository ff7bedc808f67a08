package cpu

import (
	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
	"tunesmith/graph"
)

// vocabulary is the matrix W (V, C) of an output head, read tile by tile: packed where it is frozen, else as it is.
type vocabulary struct {
	rows, c int
	value   *value // nil where the forms are there
	byRow   *form  // x·Wᵀ
	byTile  *form  // x·W, a tile of W at a time; nil where nothing asks for it
	tensor  *engine.Tensor
}

// vocabulary returns the operand. Where both is set, products with W itself are asked for too.
func (p *planner) vocabulary(n *graph.Node, both bool) (vocabulary, error) {
	w := vocabulary{rows: n.Dim(0), c: n.Dim(1)}
	t, err := p.stores(n)
	if err != nil {
		return w, err
	}
	if t == nil || t.Trainable {
		w.value = p.use(n)
		return w, nil
	}
	w.tensor, w.byRow = t, p.form(t, rightT)
	if both {
		w.byTile = p.form(t, tiles)
		if t.Values == nil {
			p.storage[t] = true
		}
	}
	return w, nil
}

// operand is rows of the left side of several products.
type leftRows struct {
	x         []float32
	rows, k   int
	quantized *kernel.Quantized // in the format of the packed side, nil for single precision
}

// leftScratch is the memory that left needs.
func (w vocabulary) leftScratch(rows, k int) int {
	if w.byRow != nil && w.byRow.packed[0].Format == kernel.Int16 {
		return roundUp(kernel.QuantizedLen(rows, k), align)
	}
	return 0
}

func (w vocabulary) left(x []float32, rows, k int, scratch []float32) leftRows {
	l := leftRows{x: x, rows: rows, k: k}
	if w.leftScratch(rows, k) > 0 {
		l.quantized = kernel.NewQuantized(rows, k, scratch)
		l.quantized.Quantize(x, k, 0, rows)
	}
	return l
}

// productScratch is the memory that logits and weighted need.
func (w vocabulary) productScratch() int {
	if w.value != nil {
		return kernel.MatMulScratch
	}
	return 0
}

// logits computes x·Wᵀ for the tile v0 … v1−1.
func (w vocabulary) logits(dst []float32, x leftRows, v0, v1 int, scratch []float32) {
	n := v1 - v0
	all := kernel.Range{M1: x.rows, N1: n}
	if w.value != nil {
		kernel.MatMul(dst, n, kernel.RowMajor(x.x, w.c), kernel.RowMajor(w.value.f()[v0*w.c:], w.c).T(), w.c, all, false, scratch)
		return
	}
	multiplyPacked(dst, n, x, w.byRow.packed[0].Columns(v0, v1), all, false)
}

// weighted adds x·W for the rows v0 … v1−1 of W, which are a tile.
func (w vocabulary) weighted(dst []float32, x leftRows, v0, v1 int, scratch []float32) {
	all := kernel.Range{M1: x.rows, N1: w.c}
	if w.value != nil {
		kernel.MatMul(dst, w.c, kernel.RowMajor(x.x, v1-v0), kernel.RowMajor(w.value.f()[v0*w.c:], w.c), v1-v0, all, true, scratch)
		return
	}
	multiplyPacked(dst, w.c, x, w.byTile.packed[v0/vocabTile], all, true)
}

func multiplyPacked(dst []float32, ldd int, x leftRows, w *kernel.Packed, r kernel.Range, add bool) {
	if x.quantized != nil {
		kernel.GemmInt16(dst, ldd, x.quantized, w, r, add)
		return
	}
	kernel.Gemm(dst, ldd, x.x, x.k, w, r, add)
}

// reader returns what reads a row.
func (w vocabulary) reader() func(dst []float32, row int) {
	if w.value != nil {
		return func(dst []float32, row int) { copy(dst, w.value.f()[row*w.c:]) }
	}
	read := reader(w.tensor)
	return func(dst []float32, row int) { read(dst, row*w.c) }
}
