package kernel

import "math"

// Attention is softmax(Scale·q·kᵀ)·v for the query heads that share one head of keys and values, in blocks (Dao
// 2023): no more than a block of scores exists at a time. Query i of head h stands at i·QRow + h·Dim of q, as do
// its output and their gradients, and at h·Queries + i of lse; key j stands at j·KRow of k and v.
//
// The first Prefix keys are seen by every query. Of the others, key Prefix + j is seen by query i, whose place
// among them is First + i, where j ≤ First + i if Causal, j > First + i − Window if Window > 0, and
// QSeg[i] = KSeg[j] if segments are given. A query that sees no key has the output 0 and the lse +∞. Softcap > 0
// makes the scores Softcap·tanh(score/Softcap).
type Attention struct {
	Queries, Keys, Dim int
	Group              int // query heads
	QRow, KRow         int // distances of rows
	Prefix, First      int
	Causal             bool
	Window             int
	Softcap, Scale     float32
	QSeg, KSeg         []int32
}

const (
	queryBlock = 64
	keyBlock   = 64
	// fewQueries is how many queries are multiplied by single dot products, because a block of keys is not worth
	// laying out for them.
	fewQueries = 4
)

// ForwardScratch is the length of the scratch of Forward.
func (a *Attention) ForwardScratch() int {
	return keyBlock*a.Dim + queryBlock*keyBlock + a.Group*a.Queries
}

// reach fails where a slice is too short for its queries or keys.
func (a *Attention) reach(queries, keys [][]float32) {
	for _, x := range queries {
		RowMajor(x, a.QRow).reach(a.Queries, a.Group*a.Dim)
	}
	for _, x := range keys {
		RowMajor(x, a.KRow).reach(a.Keys, a.Dim)
	}
}

// sees reports whether a query of i0 ≤ i < i1 may see a key of j0 ≤ j < j1, and whether all see all.
func (a *Attention) sees(i0, i1, j0, j1 int) (some, all bool) {
	if j1 <= a.Prefix {
		return true, true
	}
	prefix := j0 < a.Prefix
	lo, hi := max(j0-a.Prefix, 0), j1-a.Prefix
	first, last := a.First+i0, a.First+i1-1
	some, all = true, true
	if a.Causal {
		some, all = lo <= last, hi-1 <= first
	}
	if a.Window > 0 {
		some, all = some && hi-1 > first-a.Window, all && lo > last-a.Window
	}
	if some && a.QSeg != nil {
		qlo, qhi := span(a.QSeg[i0:i1])
		klo, khi := span(a.KSeg[lo:hi])
		some, all = qlo <= khi && klo <= qhi, all && qlo == khi && klo == qhi && qlo == qhi
	}
	return some || prefix, all
}

// span returns the smallest and the largest segment.
func span(s []int32) (lo, hi int32) {
	lo, hi = s[0], s[0]
	for _, x := range s {
		lo, hi = min(lo, x), max(hi, x)
	}
	return lo, hi
}

// hide sets to −∞ the scores of keys j0 … that query i does not see, and reports whether it sees one.
func (a *Attention) hide(scores []float32, i, j0 int) bool {
	hidden := float32(math.Inf(-1))
	place := a.First + i
	lo, hi := 0, a.Keys-a.Prefix // keys behind the prefix
	if a.Causal {
		hi = min(hi, place+1)
	}
	if a.Window > 0 {
		lo = max(lo, place-a.Window+1)
	}
	any := false
	for n := range scores {
		j := j0 + n - a.Prefix
		if j >= 0 && (j < lo || j >= hi || a.QSeg != nil && a.QSeg[i] != a.KSeg[j]) {
			scores[n] = hidden
		} else {
			any = true
		}
	}
	return any
}

// layKeys lays out the keys j0 ≤ j < j1, times s, as panels whose depth is the head's dimension.
func (a *Attention) layKeys(buf, k []float32, j0, j1 int, s float32) {
	width := active.gemmCols
	for j := j0; j < j1; j += width {
		panel := buf[(j-j0)*a.Dim:]
		layPanel(panel, Matrix{k[j*a.KRow:], 1, a.KRow}, a.Dim, min(width, j1-j))
	}
	if s != 1 {
		n := (j1 - j0 + width - 1) / width * width * a.Dim
		Scale(buf[:n], buf[:n], s)
	}
}

// byKeys multiplies rows of x by keys that layKeys has laid out: one row of keyBlock products per row.
func (a *Attention) byKeys(dst, x, keys []float32, m, n int) {
	width := active.gemmCols
	for j := 0; j < n; j += width {
		tiles(dst[j:], keyBlock, Matrix{x, a.QRow, 1}, Matrix{keys[j*a.Dim:], width, 1}, m, a.Dim, min(width, n-j), 0)
	}
}

// scores computes the scores of m queries from i0 on and n keys from j0 on.
func (a *Attention) scores(dst, q, k, keys []float32, m, n, j0 int) {
	if a.Queries <= fewQueries {
		for i := range m {
			x := q[i*a.QRow:][:a.Dim]
			for j := range n {
				dst[i*keyBlock+j] = active.dot(x, k[(j0+j)*a.KRow:][:a.Dim]) * a.Scale
			}
		}
	} else {
		a.byKeys(dst, q, keys, m, n)
	}
	if a.Softcap > 0 {
		for i := range m {
			row := dst[i*keyBlock:][:n]
			active.scale(row, row, 1/a.Softcap)
			active.tanh(row, row)
			active.scale(row, row, a.Softcap)
		}
	}
}

// Forward computes the outputs of the queries q0 ≤ i < q1 of all heads, and the logarithm of the softmax's
// denominator of each. Until the end lse holds the highest score so far.
func (a *Attention) Forward(o, lse, q, k, v []float32, q0, q1 int, scratch []float32) {
	a.reach([][]float32{o, q}, [][]float32{k, v})
	keys, scratch := scratch[:keyBlock*a.Dim], scratch[keyBlock*a.Dim:]
	s, sums := scratch[:queryBlock*keyBlock], scratch[queryBlock*keyBlock:][:a.Group*a.Queries]
	for i := q0; i < q1; i++ {
		clear(o[i*a.QRow:][:a.Group*a.Dim])
		for h := range a.Group {
			lse[h*a.Queries+i], sums[h*a.Queries+i] = float32(math.Inf(-1)), 0
		}
	}
	for j0 := 0; j0 < a.Keys; j0 += keyBlock {
		j1 := min(j0+keyBlock, a.Keys)
		laid := a.Queries <= fewQueries
		for i0 := q0; i0 < q1; i0 += queryBlock {
			i1 := min(i0+queryBlock, q1)
			some, all := a.sees(i0, i1, j0, j1)
			if !some {
				continue
			}
			if !laid {
				a.layKeys(keys, k, j0, j1, a.Scale)
				laid = true
			}
			for h := range a.Group {
				at := i0*a.QRow + h*a.Dim
				a.scores(s, q[at:], k, keys, i1-i0, j1-j0, j0)
				for i := i0; i < i1; i++ {
					n := h*a.Queries + i
					a.soften(s[(i-i0)*keyBlock:][:j1-j0], o[i*a.QRow+h*a.Dim:][:a.Dim], &lse[n], &sums[n], all, i, j0)
				}
				a.byRows(o[at:], a.QRow, RowMajor(s, keyBlock), v[j0*a.KRow:], a.KRow, i1-i0, j1-j0)
			}
		}
	}
	for i := q0; i < q1; i++ {
		for h := range a.Group {
			n := h*a.Queries + i
			if sums[n] == 0 {
				lse[n] = float32(math.Inf(1))
				continue
			}
			row := o[i*a.QRow+h*a.Dim:][:a.Dim]
			active.scale(row, row, 1/sums[n])
			lse[n] += float32(math.Log(float64(sums[n])))
		}
	}
}

// soften turns a row of scores into terms e^(score − top) after the blocks before: where the top rises, the sum
// and the output are scaled down. A block without a visible key changes no bit.
func (a *Attention) soften(s, o []float32, top, sum *float32, all bool, i, j0 int) {
	if !all && !a.hide(s, i, j0) {
		clear(s)
		return
	}
	high := active.max(s)
	if high > *top {
		down := exp(*top - high)
		active.scale(o, o, down)
		*sum *= down
		*top = high
	}
	*sum += active.expSum(s, s, *top)
}

// byRows is dst += x·y for m × k elements of x and k rows of y, Dim columns.
func (a *Attention) byRows(dst []float32, ldd int, x Matrix, y []float32, ldy, m, k int) {
	width := active.gemmCols
	for n := 0; n < a.Dim; n += width {
		tiles(dst[n:], ldd, x, Matrix{y[n:], ldy, 1}, m, k, min(width, a.Dim-n), -1)
	}
}

// BackwardScratch is the length of the scratch of Backward.
func (a *Attention) BackwardScratch() int {
	n := 2*keyBlock*a.Dim + 2*queryBlock*keyBlock + a.Group*a.Queries
	if a.Softcap > 0 {
		n += queryBlock * keyBlock
	}
	return n
}

// Backward computes the gradients of queries, keys and values from that of the output, do. Blocks of keys, heads
// and blocks of queries are added up in this order. For more parts than heads of keys, call it per query head with
// Group 1 and add up the gradients of the keys and values.
func (a *Attention) Backward(dq, dk, dv, do, q, k, v, o, lse, scratch []float32) {
	a.reach([][]float32{dq, do, q, o}, [][]float32{dk, dv, k, v})
	part := func(n int) []float32 {
		p := scratch[:n]
		scratch = scratch[n:]
		return p
	}
	keys, values := part(keyBlock*a.Dim), part(keyBlock*a.Dim)
	p, ds, delta := part(queryBlock*keyBlock), part(queryBlock*keyBlock), part(a.Group*a.Queries)
	slope := scratch
	for i := range a.Queries {
		clear(dq[i*a.QRow:][:a.Group*a.Dim])
		for h := range a.Group {
			at := i*a.QRow + h*a.Dim
			delta[h*a.Queries+i] = active.dot(do[at:at+a.Dim], o[at:at+a.Dim])
		}
	}
	for j0 := 0; j0 < a.Keys; j0 += keyBlock {
		j1 := min(j0+keyBlock, a.Keys)
		n := j1 - j0
		for j := j0; j < j1; j++ {
			clear(dk[j*a.KRow:][:a.Dim])
			clear(dv[j*a.KRow:][:a.Dim])
		}
		a.layKeys(keys, k, j0, j1, a.Scale)
		a.layKeys(values, v, j0, j1, 1)
		for h := range a.Group {
			for i0 := 0; i0 < a.Queries; i0 += queryBlock {
				i1 := min(i0+queryBlock, a.Queries)
				m := i1 - i0
				some, all := a.sees(i0, i1, j0, j1)
				if !some {
					continue
				}
				at := i0*a.QRow + h*a.Dim
				a.scores(p, q[at:], k, keys, m, n, j0)
				a.byKeys(ds, do[at:], values, m, n)
				for i := i0; i < i1; i++ {
					row := (i - i0) * keyBlock
					p, ds, slope := p[row:][:n], ds[row:][:n], slope
					if a.Softcap > 0 { // 1 − tanh², by the score before it is hidden
						slope = slope[row:][:n]
						for j, x := range p {
							slope[j] = 1 - x*x/(a.Softcap*a.Softcap)
						}
					}
					if !all {
						a.hide(p, i, j0)
					}
					active.expSub(p, p, lse[h*a.Queries+i], 1)
					active.softmaxGrad(ds, p, ds, delta[h*a.Queries+i], a.Scale)
					if a.Softcap > 0 {
						active.mul(ds, ds, slope)
					}
				}
				pBlock, dsBlock := RowMajor(p, keyBlock), RowMajor(ds, keyBlock)
				a.byRows(dv[j0*a.KRow:], a.KRow, pBlock.T(), do[at:], a.QRow, n, m)
				a.byRows(dk[j0*a.KRow:], a.KRow, dsBlock.T(), q[at:], a.QRow, n, m)
				a.byRows(dq[at:], a.QRow, dsBlock, k[j0*a.KRow:], a.KRow, m, n)
			}
		}
	}
}
