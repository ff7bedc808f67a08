package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// best runs a benchmark and returns the shortest processor time of a run, in seconds.
func best(b *testing.B, run func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	least := time.Hour
	for b.Loop() {
		at := threadTime()
		run()
		least = min(least, threadTime()-at)
	}
	return least.Seconds()
}

// rate reports how often something was done in the shortest time, in thousands of millions a second.
func rate(b *testing.B, count float64, unit string, run func()) {
	b.ReportMetric(count/best(b, run)/1e9, unit)
}

// BenchmarkClock counts the processor's cycles: additions of which each waits for the last.
func BenchmarkClock(b *testing.B) {
	sum, step := 1, len(b.Name())
	rate(b, 1<<20, "GHz", func() {
		for range 1 << 17 {
			sum += step
			sum ^= step
			sum += step
			sum ^= step
			sum += step
			sum ^= step
			sum += step
			sum ^= step
		}
	})
	runtime.KeepAlive(sum)
}

// benchShapes are M × K × N of a 135 M model, tokens × in × out.
var benchShapes = [][3]int{{1024, 576, 1536}, {1024, 1536, 576}, {1024, 576, 576}, {256, 576, 1536}, {1024, 576, 16384}, {8, 576, 1536}}

// benchFormats are those that have kernels of their own at the level.
func benchFormats() []Format {
	if active.mixed == BF16Tiles {
		return []Format{F32, BF16, Int16, BF16Tiles}
	}
	return []Format{F32, BF16, Int16}
}

// BenchmarkGemm measures x·Wᵀ and dy·W of packed weights, the rounding of the left operand included.
func BenchmarkGemm(b *testing.B) {
	for _, f := range benchFormats() {
		for _, s := range benchShapes {
			m, k, n := s[0], s[1], s[2]
			r := rand.New(rand.NewPCG(1, 1))
			x, w, y := randoms(r, m*k, 1), randoms(r, n*k, 1), make([]float32, m*n)
			p := NewPacked(f, n, k, nil)
			p.Pack(RowsOf(w, k), 0, p.Panels(), make([]float32, PackScratch))
			flops := 2 * float64(m) * float64(n) * float64(k)
			b.Run(fmt.Sprintf("%s/forward/%dx%dx%d", f, m, k, n), func(b *testing.B) {
				if !f.BothSides() {
					rate(b, flops, "GFLOPS", func() { Gemm(y, n, x, k, p, whole(m, n), false) })
					return
				}
				q := NewQuantized(f, m, k, nil)
				rate(b, flops, "GFLOPS", func() {
					q.Quantize(x, k, 0, m)
					GemmQuantized(y, n, q, p, whole(m, n), false)
				})
			})
			b.Run(fmt.Sprintf("%s/turned/%dx%dx%d", f, m, n, k), func(b *testing.B) {
				scratch := make([]float32, TurnedScratch(m, f, n))
				rate(b, flops, "GFLOPS", func() { GemmTurned(x, k, y, n, p, whole(m, k), false, scratch) })
			})
		}
	}
}

// BenchmarkPack measures what packing a weight takes.
func BenchmarkPack(b *testing.B) {
	const n, k = 1536, 576
	w, scratch := randoms(rand.New(rand.NewPCG(1, 1)), n*k, 1), make([]float32, PackScratch)
	for _, f := range benchFormats() {
		b.Run(string(f), func(b *testing.B) {
			p := NewPacked(f, n, k, nil)
			rate(b, n*k, "Gelem/s", func() { p.Pack(RowsOf(w, k), 0, p.Panels(), scratch) })
		})
	}
}

// BenchmarkMatMul measures products without packing: x·Wᵀ, dy·W and dyᵀ·x, also the thin ones of an adapter.
func BenchmarkMatMul(b *testing.B) {
	scratch := make([]float32, MatMulScratch)
	for _, s := range [][3]int{{1024, 576, 1536}, {1024, 576, 16}, {1024, 16, 576}} {
		m, k, n := s[0], s[1], s[2]
		r := rand.New(rand.NewPCG(1, 1))
		x, w, y := RowMajor(randoms(r, m*k, 1), k), RowMajor(randoms(r, n*k, 1), k), RowMajor(make([]float32, m*n), n)
		for _, c := range []struct {
			name string
			run  func()
		}{
			{"forward", func() { MatMul(y.Data, n, x, w.T(), k, whole(m, n), false, scratch) }},
			{"input", func() { MatMul(x.Data, k, y, w, n, whole(m, k), false, scratch) }},
			{"weight", func() { MatMul(w.Data, k, y.T(), x, m, whole(n, k), false, scratch) }},
		} {
			b.Run(fmt.Sprintf("%s/%dx%dx%d", c.name, m, k, n), func(b *testing.B) {
				rate(b, 2*float64(m)*float64(n)*float64(k), "GFLOPS", c.run)
			})
		}
	}
}
