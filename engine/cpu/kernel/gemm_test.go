package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// product is a·b in double precision, and the sum of magnitudes that its error is measured against.
func product(a, b Matrix, m, n, k int) (c, size []float64) {
	c, size = make([]float64, m*n), make([]float64, m*n)
	for i := range m {
		for j := range n {
			for l := range k {
				x, y := float64(a.Data[i*a.Row+l*a.Col]), float64(b.Data[l*b.Row+j*b.Col])
				c[i*n+j] += x * y
				size[i*n+j] += math.Abs(x * y)
			}
		}
	}
	return c, size
}

// cuts draws a split of 0…n on multiples of step.
func cuts(t *rapid.T, n, step int) []int {
	out := []int{0}
	for out[len(out)-1] < n {
		k := rapid.IntRange(1, (n+step-1)/step).Draw(t, "cut")
		out = append(out, min(out[len(out)-1]+k*step, n))
	}
	return out
}

// eachPart calls f for every rectangle of a drawn split.
func eachPart(t *rapid.T, m, n, step int, f func(Range)) {
	ms, ns := cuts(t, m, 1), cuts(t, n, step)
	for i := range len(ms) - 1 {
		for j := range len(ns) - 1 {
			f(Range{ms[i], ms[i+1], ns[j], ns[j+1]})
		}
	}
}

func whole(m, n int) Range { return Range{0, m, 0, n} }

// checkProduct compares a result with rows of ldd to want + old, and that nothing else was written.
func checkProduct(t *rapid.T, got, old []float32, ldd, m, n int, add bool, want, size []float64, rel float64) {
	for i := range m {
		for j := range ldd {
			g, o := got[i*ldd+j], float64(old[i*ldd+j])
			if j >= n {
				if float64(g) != o {
					t.Fatalf("wrote row %d, column %d of %d", i, j, n)
				}
				continue
			}
			w, s := want[i*n+j], size[i*n+j]
			if add {
				w, s = w+o, s+math.Abs(o)
			}
			if d := math.Abs(float64(g) - w); !(d <= rel*s+1e-30) {
				t.Fatalf("(%d, %d): have %v, want %v: off by %.2g of %.2g", i, j, g, w, d, s)
			}
		}
	}
}

func sameBits(t *rapid.T, a, b []float32) {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Fatalf("element %d: %v whole, %v in parts", i, a[i], b[i])
		}
	}
}

// shape draws sizes that cross every tile, panel, block and slice.
func shape(t *rapid.T) (m, n, k int) {
	dim := rapid.OneOf(rapid.IntRange(1, 40), rapid.SampledFrom([]int{6, 14, 16, 32, 48, 64, 130}))
	depth := rapid.OneOf(rapid.IntRange(1, 80), rapid.IntRange(120, 136), rapid.SampledFrom([]int{255, 256, 257, 511, 513, 600, 2050}))
	return dim.Draw(t, "m"), dim.Draw(t, "n"), depth.Draw(t, "k")
}

func TestMatMul(t *testing.T) {
	scratch := make([]float32, MatMulScratch)
	eachLevel(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			m, n, k := shape(t)
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			add := rapid.Bool().Draw(t, "add")
			view := func(rows, cols int, transposed bool) Matrix {
				if transposed {
					return RowMajor(randoms(r, rows*cols, 1), rows).T()
				}
				return RowMajor(randoms(r, rows*cols, 1), cols)
			}
			a, b := view(m, k, rapid.Bool().Draw(t, "ta")), view(k, n, rapid.Bool().Draw(t, "tb"))
			ldd := n + rapid.IntRange(0, 3).Draw(t, "pad")
			old := randoms(r, m*ldd, 1)
			got := append([]float32(nil), old...)
			MatMul(got, ldd, a, b, k, whole(m, n), add, scratch)
			want, size := product(a, b, m, n, k)
			checkProduct(t, got, old, ldd, m, n, add, want, size, 1e-6)
			parts := append([]float32(nil), old...)
			eachPart(t, m, n, 1, func(r Range) { MatMul(parts, ldd, a, b, k, r, add, scratch) })
			sameBits(t, got, parts)
		})
	})
}

func TestGemm(t *testing.T) {
	scratch := make([]float32, PackScratch)
	for _, f := range []Format{F32, BF16, Int16, BF16Tiles} {
		t.Run(string(f), func(t *testing.T) {
			eachLevel(t, func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					m, n, k := shape(t)
					r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
					add := rapid.Bool().Draw(t, "add")
					ldx, ldd := k+rapid.IntRange(0, 3).Draw(t, "padx"), n+rapid.IntRange(0, 3).Draw(t, "padd")
					x := Matrix{randoms(r, m*ldx, 1), ldx, 1}
					w := RowMajor(randoms(r, n*k, 1), k)
					b := w.T()
					p := NewPacked(f, n, k, nil)
					for _, c := range [][2]int{{0, p.Panels() / 2}, {p.Panels() / 2, p.Panels()}} {
						p.Pack(RowsOf(w.Data, w.Row), c[0], c[1], scratch)
					}
					old := randoms(r, m*ldd, 1)
					got, parts := append([]float32(nil), old...), append([]float32(nil), old...)
					want, size := product(x, b, m, n, k)
					rel := 1e-6
					if f == BF16 {
						rel = 5e-3
					}
					if f.BothSides() {
						q := NewQuantized(f, m, k, nil)
						q.Quantize(x.Data, ldx, 0, m/2)
						q.Quantize(x.Data, ldx, m/2, m)
						GemmQuantized(got, ldd, q, p, whole(m, n), add)
						eachPart(t, m, n, TileCols(), func(r Range) { GemmQuantized(parts, ldd, q, p, r, add) })
						if f == Int16 {
							size, rel = roundings(x, b, m, n, k), 1
						} else {
							want, size = product(halved(x), halved(w).T(), m, n, k)
						}
					} else {
						Gemm(got, ldd, x.Data, ldx, p, whole(m, n), add)
						eachPart(t, m, n, TileCols(), func(r Range) { Gemm(parts, ldd, x.Data, ldx, p, r, add) })
					}
					checkProduct(t, got, old, ldd, m, n, add, want, size, rel)
					sameBits(t, got, parts)
				})
			})
		})
	}
}

// halved rounds a matrix to bfloat16.
func halved(m Matrix) Matrix {
	data, bits := make([]float32, len(m.Data)), make([]uint16, len(m.Data))
	ToBF16(bits, m.Data)
	FromBF16(data, bits)
	return Matrix{data, m.Row, m.Col}
}

// TestGemmTurned multiplies by W itself what was packed for its transpose, where all rows have one scale and where
// some are steep.
func TestGemmTurned(t *testing.T) {
	pack := make([]float32, PackScratch)
	eachLevel(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			m, n, k := shape(t) // dst is m × k
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			add := rapid.Bool().Draw(t, "add")
			ldx, ldd := n+rapid.IntRange(0, 3).Draw(t, "padx"), k+rapid.IntRange(0, 3).Draw(t, "padd")
			x, w := Matrix{randoms(r, m*ldx, 1), ldx, 1}, RowMajor(randoms(r, n*k, 1), k)
			held := RowMajor(make([]float32, n*k), k)
			f := rapid.SampledFrom([]Format{F32, BF16, Int16, BF16Tiles}).Draw(t, "format")
			if f == Int16 { // the only format that treats steep rows in another way
				for range rapid.IntRange(0, 2).Draw(t, "steep") {
					w.Data[r.IntN(n*k)] *= 1000
				}
			}
			p := NewPacked(f, n, k, nil)
			p.Pack(RowsOf(w.Data, k), 0, p.Panels(), pack)
			for i := range n { // compare with what is held
				p.Row(held.Data[i*k:(i+1)*k], i, 0)
			}
			scratch := make([]float32, TurnedScratch(m, f, n))
			old := randoms(r, m*ldd, 1)
			got, parts := append([]float32(nil), old...), append([]float32(nil), old...)
			GemmTurned(got, ldd, x.Data, ldx, p, whole(m, k), add, scratch)
			if f != Int16 {
				x := x
				if f.BothSides() {
					x = halved(x)
				}
				want, size := product(x, held, m, k, n)
				checkProduct(t, got, old, ldd, m, k, add, want, size, 1e-6)
			} else {
				want, _ := product(x, w, m, k, n)
				checkProduct(t, got, old, ldd, m, k, add, want, turnedRoundings(x, w, p, m), 1)
			}
			eachPart(t, m, k, TileCols(), func(r Range) { GemmTurned(parts, ldd, x.Data, ldx, p, r, add, scratch) })
			sameBits(t, got, parts)
			for i, y := range held.Data {
				bound := 0.0
				switch x := math.Abs(float64(w.Data[i])); f {
				case BF16, BF16Tiles:
					bound = x / 256
				case Int16:
					bound = 0.501 * float64(p.scaleOf(i/k, i%k))
				}
				if d := math.Abs(float64(y - w.Data[i])); d > bound {
					t.Fatalf("%v became %v", w.Data[i], y)
				}
			}
		})
	})
}

func (p *Packed) scaleOf(n, k int) float32 {
	return p.scales[n/p.width*blocksOf(p.Depth)*p.width+k/depthBlock*p.width+n%p.width]
}

// turnedRoundings bounds the error of x·W: per block of rows of W half a step of each weight times the left
// operand, and half a step of the scaled left operand times the integers.
func turnedRoundings(x, w Matrix, p *Packed, m int) []float64 {
	n, k := p.Cols, p.Depth
	bound := make([]float64, m*k)
	for i := range m {
		for j := range k {
			for l0 := 0; l0 < n; l0 += depthBlock {
				var top, qs, e, xy float64
				for l := l0; l < min(l0+depthBlock, n); l++ {
					s, a, b := float64(p.scaleOf(l, j)), math.Abs(float64(x.Data[i*x.Row+l])), math.Abs(float64(w.Data[l*w.Row+j]))
					top = max(top, a*s)
					if s > 0 {
						qs += b/s + 0.5
					}
					e += a * s / 2
					xy += a * b
				}
				bound[i*k+j] += (e+top/8190*qs)*1.001 + 2e-6*xy
			}
			bound[i*k+j] += 1e-6
		}
	}
	return bound
}

// TestTurnWide turns panels of 32 columns, as the levels of 512 bits have them, by the kernels of this machine.
func TestTurnWide(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		const panels, depth, cols = 3, 48, 16
		for _, width := range []int{16, 32} {
			src := make([]int16, panels*depth*width)
			for i := range src {
				src[i] = int16(i)
			}
			have, want := make([]int16, panels*width*width), make([]int16, panels*width*width)
			active.turn16(have, src[2*width*8:], depth*width, panels, cols, width)
			turn16Portable(want, src[2*width*8:], depth*width, panels, cols, width)
			if !slices.Equal(have, want) {
				t.Errorf("width %d: have %v, want %v", width, have, want)
			}
			floats := make([]float32, len(src))
			for i := range floats {
				floats[i] = float32(i)
			}
			turned, right := make([]float32, panels*width*width), make([]float32, panels*width*width)
			active.turn32(turned, floats[8*width:], depth*width, panels, cols, width)
			turn32Portable(right, floats[8*width:], depth*width, panels, cols, width)
			if !slices.Equal(turned, right) {
				t.Errorf("width %d: have %v, want %v", width, turned, right)
			}
		}
	})
}

// roundings bounds the error of a product in block integers: per block of the depth half a step of each operand
// times the other's magnitudes, and a little for the sums in single precision.
func roundings(a, b Matrix, m, n, k int) []float64 {
	bound := make([]float64, m*n)
	for i := range m {
		for j := range n {
			for k0 := 0; k0 < k; k0 += depthBlock {
				var x, y, xs, ys, xy float64
				for l := k0; l < min(k0+depthBlock, k); l++ {
					p, q := math.Abs(float64(a.Data[i*a.Row+l*a.Col])), math.Abs(float64(b.Data[l*b.Row+j*b.Col]))
					x, y, xs, ys, xy = max(x, p), max(y, q), xs+p, ys+q, xy+p*q
				}
				bound[i*n+j] += (x*ys+y*xs)/8190*1.001 + depthBlock*x*y/8190/8190 + 1e-6*xy
			}
			bound[i*n+j] += 1e-6
		}
	}
	return bound
}

func TestQuantize(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachLevel(t, func(t *testing.T) {
		for _, c := range []struct {
			name  string
			x     []float32
			scale float32
		}{
			{"zero", []float32{0, 0}, 0},
			{"smallest", []float32{1e-40, -1e-39}, 0},
			{"one", []float32{1, -0.5}, 1. / 4095},
			{"large", []float32{3e38, -3e38}, 3e38 / 4095},
			{"infinity", []float32{1, inf}, nan},
			{"NaN", []float32{nan, 1}, nan},
		} {
			q := NewQuantized(Int16, 1, len(c.x), nil)
			q.Quantize(c.x, len(c.x), 0, 1)
			if got := q.scales[0]; got != c.scale && !(got != got && c.scale != c.scale) {
				t.Errorf("%s: scale %v, want %v", c.name, got, c.scale)
			}
			for i, x := range c.x {
				if x == x && c.scale == c.scale && math.Abs(float64(x)-float64(q.i16[i])*float64(c.scale)) > 0.501*float64(c.scale)+1e-30 {
					t.Errorf("%s: %v became %v", c.name, x, float32(q.i16[i])*c.scale)
				}
			}
		}
		// The largest integers of a whole block do not overflow.
		x := make([]float32, depthBlock)
		for i := range x {
			x[i] = -1
		}
		q, p, y := NewQuantized(Int16, 1, depthBlock, nil), NewPacked(Int16, 1, depthBlock, nil), make([]float32, 1)
		q.Quantize(x, depthBlock, 0, 1)
		p.Pack(RowsOf(x, depthBlock), 0, 1, make([]float32, PackScratch))
		if GemmQuantized(y, 1, q, p, whole(1, 1), false); math.Abs(float64(y[0])-depthBlock) > 1e-4 {
			t.Errorf("sum of %d ones is %v", depthBlock, y[0])
		}
		// NaN comes through.
		x[5] = nan
		q.Quantize(x, depthBlock, 0, 1)
		if GemmQuantized(y, 1, q, p, whole(1, 1), false); y[0] == y[0] {
			t.Errorf("a product with NaN is %v", y[0])
		}
	})
}

// TestMisuse makes calls that would read or write out of bounds; each must fail before assembly runs.
func TestMisuse(t *testing.T) {
	v := func(n int) []float32 { return make([]float32, n) }
	eachLevel(t, func(t *testing.T) {
		n := 2 * TileCols()
		p, p16, q := NewPacked(F32, n, 8, nil), NewPacked(Int16, n, 8, nil), NewQuantized(Int16, 2, 8, nil)
		a := &Attention{Queries: 2, Keys: 2, Dim: 4, Group: 1, QRow: 4, KRow: 4, Scale: 1}
		for name, f := range map[string]func(){
			"off the panels' bounds": func() { Gemm(v(4*n), n, v(16), 8, p, Range{0, 1, 1, n}, false) },
			"wrong format":           func() { Gemm(v(4*n), n, v(16), 8, p16, whole(1, n), false) },
			"short result":           func() { Gemm(v(n-1), n, v(16), 8, p, whole(1, n), false) },
			"short left operand":     func() { Gemm(v(4*n), n, v(15), 8, p, whole(2, n), false) },
			"too many rows":          func() { GemmQuantized(v(4*n), n, q, p16, whole(3, n), false) },
			"short operand a":        func() { MatMul(v(4), 2, RowMajor(v(3), 2), RowMajor(v(4), 2), 2, whole(2, 2), false, v(MatMulScratch)) },
			"short operand b": func() {
				MatMul(v(4), 2, RowMajor(v(4), 2), RowMajor(v(3), 2).T(), 2, whole(2, 2), false, v(MatMulScratch))
			},
			"short matrix": func() { MatMul(v(3), 2, RowMajor(v(4), 2), RowMajor(v(4), 2), 2, whole(2, 2), false, v(MatMulScratch)) },
			"short keys":   func() { a.Forward(v(8), v(2), v(8), v(7), v(8), 0, 2, v(a.ForwardScratch())) },
			"short gradient": func() {
				a.Backward(v(8), v(8), v(7), v(8), v(8), v(8), v(8), v(8), v(2), v(a.BackwardScratch()))
			},
			"short operand of a sum": func() { Add(v(8), v(8), v(7)) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: accepted", name)
					}
				}()
				f()
			}()
		}
	})
}
