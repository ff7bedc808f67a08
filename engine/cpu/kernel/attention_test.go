package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// attention64 is Attention by its definition in double precision: outputs, logarithms of the denominators, and the
// gradients for do.
func attention64(a *Attention, q, k, v, do []float32) (o, lse, dq, dk, dv []float64) {
	o, dq = make([]float64, len(q)), make([]float64, len(q))
	dk, dv = make([]float64, len(k)), make([]float64, len(k))
	lse = make([]float64, a.Group*a.Queries)
	for h := range a.Group {
		for i := range a.Queries {
			at := i*a.QRow + h*a.Dim
			p, raw := make([]float64, a.Keys), make([]float64, a.Keys)
			var sum float64
			for j := range a.Keys {
				n, place := j-a.Prefix, a.First+i
				if n >= 0 && (a.Causal && n > place || a.Window > 0 && n <= place-a.Window || a.QSeg != nil && a.QSeg[i] != a.KSeg[n]) {
					continue
				}
				for d := range a.Dim {
					raw[j] += float64(q[at+d]) * float64(k[j*a.KRow+d]) * float64(a.Scale)
				}
				if a.Softcap > 0 {
					raw[j] = float64(a.Softcap) * math.Tanh(raw[j]/float64(a.Softcap))
				}
				p[j] = math.Exp(raw[j])
				sum += p[j]
			}
			lse[h*a.Queries+i] = math.Log(sum)
			if sum == 0 {
				lse[h*a.Queries+i] = math.Inf(1)
				continue
			}
			var delta float64
			dp := make([]float64, a.Keys)
			for j := range p {
				p[j] /= sum
				for d := range a.Dim {
					o[at+d] += p[j] * float64(v[j*a.KRow+d])
					dp[j] += float64(do[at+d]) * float64(v[j*a.KRow+d])
					dv[j*a.KRow+d] += p[j] * float64(do[at+d])
				}
				delta += p[j] * dp[j]
			}
			for j := range p {
				ds := p[j] * (dp[j] - delta) * float64(a.Scale)
				if a.Softcap > 0 {
					t := raw[j] / float64(a.Softcap)
					ds *= 1 - t*t
				}
				for d := range a.Dim {
					dq[at+d] += ds * float64(k[j*a.KRow+d])
					dk[j*a.KRow+d] += ds * float64(q[at+d])
				}
			}
		}
	}
	return o, lse, dq, dk, dv
}

// drawAttention draws masks and sizes that cross blocks.
func drawAttention(t *rapid.T) *Attention {
	a := &Attention{
		Queries: rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(60, 150)).Draw(t, "queries"),
		Dim:     rapid.SampledFrom([]int{1, 3, 8, 16, 24, 64, 80}).Draw(t, "dim"),
		Group:   rapid.IntRange(1, 3).Draw(t, "group"),
		Prefix:  rapid.SampledFrom([]int{0, 0, 3, 70}).Draw(t, "prefix"),
		First:   rapid.SampledFrom([]int{0, 0, 5, 100}).Draw(t, "first"),
		Causal:  rapid.Bool().Draw(t, "causal"),
		Window:  rapid.SampledFrom([]int{0, 0, 1, 7, 70}).Draw(t, "window"),
		Softcap: rapid.SampledFrom([]float32{0, 0, 2}).Draw(t, "softcap"),
		Scale:   rapid.SampledFrom([]float32{0.125, 0.3}).Draw(t, "scale"),
	}
	a.Keys = a.Prefix + a.First + a.Queries
	a.QRow, a.KRow = a.Group*a.Dim+rapid.IntRange(0, 2).Draw(t, "qpad"), a.Dim+rapid.IntRange(0, 5).Draw(t, "kpad")
	if rapid.Bool().Draw(t, "segments") {
		a.KSeg = make([]int32, a.First+a.Queries)
		segment := int32(0)
		for i := range a.KSeg {
			if rapid.IntRange(0, 30).Draw(t, "next") == 0 {
				segment++
			}
			a.KSeg[i] = segment
		}
		a.QSeg = append([]int32(nil), a.KSeg[a.First:]...)
		a.QSeg[0] = 99 // sees no key but the prefix
	}
	return a
}

func TestAttention(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a := drawAttention(t)
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			nq, nk := a.Queries*a.QRow, a.Keys*a.KRow
			q, k, v, do := randoms(r, nq, 1), randoms(r, nk, 1), randoms(r, nk, 1), randoms(r, nq, 1)
			o, lse := randoms(r, nq, 1), randoms(r, a.Group*a.Queries, 1)
			scratch := make([]float32, a.ForwardScratch())
			a.Forward(o, lse, q, k, v, 0, a.Queries, scratch)
			wo, wl, wq, wk, wv := attention64(a, q, k, v, do)
			near := func(name string, got []float32, want []float64, rows, row, cols int) {
				for i := range rows {
					for c := range cols {
						g, w := float64(got[i*row+c]), want[i*row+c]
						if g != w && !(math.Abs(g-w) <= 2e-5*(1+math.Abs(w))) {
							t.Fatalf("%s row %d column %d: have %v, want %v", name, i, c, g, w)
						}
					}
				}
			}
			near("lse", lse, wl, a.Group, a.Queries, a.Queries)
			near("o", o, wo, a.Queries, a.QRow, a.Group*a.Dim)

			po, pl := append([]float32(nil), o...), append([]float32(nil), lse...)
			ms := cuts(t, a.Queries, 1)
			for i := range len(ms) - 1 {
				a.Forward(po, pl, q, k, v, ms[i], ms[i+1], scratch)
			}
			sameBits(t, o, po)
			sameBits(t, lse, pl)

			dq, dk, dv := randoms(r, nq, 1), randoms(r, nk, 1), randoms(r, nk, 1)
			a.Backward(dq, dk, dv, do, q, k, v, o, lse, make([]float32, a.BackwardScratch()))
			near("dq", dq, wq, a.Queries, a.QRow, a.Group*a.Dim)
			near("dk", dk, wk, a.Keys, a.KRow, a.Dim)
			near("dv", dv, wv, a.Keys, a.KRow, a.Dim)
		})
	})
}

// TestAttentionNaN keeps a broken model from looking well.
func TestAttentionNaN(t *testing.T) {
	nan := float32(math.NaN())
	eachLevel(t, func(t *testing.T) {
		for _, n := range []int{1, 10} {
			a := &Attention{Queries: n, Keys: n, Dim: 2, Group: 1, QRow: 2, KRow: 2, Causal: true, Scale: 1}
			q, o, lse := make([]float32, 2*n), make([]float32, 2*n), make([]float32, n)
			for i := range q {
				q[i] = nan
			}
			a.Forward(o, lse, q, make([]float32, 2*n), make([]float32, 2*n), 0, n, make([]float32, a.ForwardScratch()))
			for i, x := range append(o, lse...) {
				if x == x {
					t.Errorf("%d queries of NaN: result %d is %v", n, i, x)
				}
			}
		}
	})
}

// BenchmarkAttention counts the operations of the causal half, 2 products forward and 5 backward.
func BenchmarkAttention(b *testing.B) {
	for _, n := range []int{256, 2048} {
		a := &Attention{Queries: n, Keys: n, Dim: 64, Group: 3, QRow: 576, KRow: 192, Causal: true, Scale: 0.125}
		r := rand.New(rand.NewPCG(1, 1))
		q, k, v, do := randoms(r, n*576, 1), randoms(r, n*192, 1), randoms(r, n*192, 1), randoms(r, n*576, 1)
		o, lse := make([]float32, n*576), make([]float32, 3*n)
		dq, dk, dv := make([]float32, n*576), make([]float32, n*192), make([]float32, n*192)
		scratch := make([]float32, a.BackwardScratch()+a.ForwardScratch())
		flops := float64(a.Group) * float64(n) * float64(n+1) / 2 * 64 * 2
		b.Run(fmt.Sprintf("forward/%d", n), func(b *testing.B) {
			rate(b, 2*flops, "GFLOPS", func() { a.Forward(o, lse, q, k, v, 0, n, scratch) })
		})
		b.Run(fmt.Sprintf("backward/%d", n), func(b *testing.B) {
			rate(b, 5*flops, "GFLOPS", func() { a.Backward(dq, dk, dv, do, q, k, v, o, lse, scratch) })
		})
	}
}
