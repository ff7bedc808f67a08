package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/quant"
)

var storedFormats = []quant.Format{quant.F32, quant.BF16, quant.F16, quant.Q8_0, quant.Q4_0, quant.Q4_1}

func TestStored(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, f := range storedFormats {
			t.Run(f.String(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					m, n, k := rapid.IntRange(1, 5).Draw(t, "m"), rapid.IntRange(1, 150).Draw(t, "n"), 32*rapid.IntRange(1, 7).Draw(t, "blocks")
					r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
					add := rapid.Bool().Draw(t, "add")
					w := &Stored{Cols: n, Depth: k, Format: f, Data: make([]byte, f.Bytes(n*k))}
					values := randoms(r, n*k, 1)
					f.Quantize(w.Data, values)
					f.Dequantize(values, w.Data)
					x := RowMajor(randoms(r, m*k, 1), k)
					left := w.NewStoredLeft(x.Data, m, make([]float32, StoredLeftLen(m, k)))
					ldd := n + rapid.IntRange(0, 3).Draw(t, "pad")
					old := randoms(r, m*ldd, 1)
					got, parts := append([]float32(nil), old...), append([]float32(nil), old...)
					w.Gemv(got, ldd, left, 0, n, add)
					want, size := product(x, RowMajor(values, k).T(), m, n, k)
					for i := range m {
						var top float64
						for _, v := range x.Data[i*k : (i+1)*k] {
							top = max(top, math.Abs(float64(v)))
						}
						for j := range n {
							var weights float64
							for _, v := range values[j*k : (j+1)*k] {
								weights += math.Abs(float64(v))
							}
							// Q4_1's sum of products and its minimum cancel, so that their roundings stand beside the result's.
							size[i*n+j] = 1e-6*(size[i*n+j]+4*top*weights) + top/65534*1.01*weights
						}
					}
					checkProduct(t, got, old, ldd, m, n, add, want, size, 1)
					from := 0
					for _, to := range cuts(t, n, 1)[1:] {
						w.Gemv(parts, ldd, left, from, to, add)
						from = to
					}
					sameBits(t, got, parts)
				})
			})
		}
	})
}

func TestStoredIsNotFinite(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, f := range storedFormats {
			for _, bad := range []float64{math.NaN(), math.Inf(1)} {
				x, y := make([]float32, 64), make([]float32, 2)
				w := &Stored{Cols: 2, Depth: 64, Format: f, Data: make([]byte, f.Bytes(128))}
				values := make([]float32, 128)
				for i := range values {
					values[i] = 1
				}
				f.Quantize(w.Data, values)
				x[3] = float32(bad)
				w.Gemv(y, 2, w.NewStoredLeft(x, 1, make([]float32, StoredLeftLen(1, 64))), 0, 2, false)
				if !math.IsNaN(float64(y[0])) && !math.IsInf(float64(y[0]), 0) {
					t.Errorf("%v: a product with %v is %v", f, bad, y[0])
				}
			}
		}
	})
}

// BenchmarkStored measures products of one row with the vocabulary of a 135 M model.
func BenchmarkStored(b *testing.B) {
	const n, k = 49152, 576
	for _, f := range storedFormats {
		for _, m := range []int{1, 8} {
			b.Run(fmt.Sprintf("%v/%dx%dx%d", f, m, k, n), func(b *testing.B) {
				w := &Stored{Cols: n, Depth: k, Format: f, Data: make([]byte, f.Bytes(n*k))}
				for i := range w.Data { // pages of its own, and small numbers in every format
					w.Data[i] = byte(0x30 + i%8)
				}
				x, y := make([]float32, m*k), make([]float32, m*n)
				memory := make([]float32, StoredLeftLen(m, k))
				rate(b, float64(len(w.Data)), "GB/s", func() { w.Gemv(y, n, w.NewStoredLeft(x, m, memory), 0, n, false) })
			})
		}
	}
}
