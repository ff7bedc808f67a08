package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func TestRows(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, n := range []int{1, 2, 7, 8, 9, 31, 64, 100, 576, chunk + 3} {
			at := fmt.Sprintf("n %d", n)
			x, w, dy := randoms(r, n, 2), randoms(r, n, 1), randoms(r, n, 1)

			var sum float64
			for _, v := range x {
				sum += math.Exp(float64(v))
			}
			p := make([]float32, n)
			closeTo(t, at+" Softmax", Softmax(p, x), math.Log(sum), 1e-6, 1e-6)
			closeTo(t, at+" LogSumExp", LogSumExp(x), math.Log(sum), 1e-6, 1e-6)
			var pd float64
			for i, v := range x {
				closeTo(t, at+" Softmax element", p[i], math.Exp(float64(v))/sum, 2e-6, 0)
				pd += float64(p[i]) * float64(dy[i])
			}
			dx := make([]float32, n)
			SoftmaxGrad(dx, p, dy)
			for i := range dx {
				closeTo(t, at+" SoftmaxGrad", dx[i], float64(p[i])*(float64(dy[i])-pd), 1e-6, 2e-6*float64(p[i]))
			}

			const eps, offset = 1e-5, 0.5
			var sq, dot float64
			for i, v := range x {
				sq += float64(v) * float64(v)
				dot += float64(dy[i]) * (float64(w[i]) + offset) * float64(v)
			}
			inv := 1 / math.Sqrt(sq/float64(n)+eps)
			y := make([]float32, n)
			rms := RMSNorm(y, x, w, eps, offset)
			closeTo(t, at+" RMSNorm", rms, inv, 1e-6, 0)
			closeTo(t, at+" InverseRMS", InverseRMS(x, eps), inv, 1e-6, 0)
			RMSNormGrad(dx, dy, x, w, rms, offset)
			dw := append([]float32(nil), w...)
			RMSNormWeightGrad(dw, dy, x, rms)
			for i, v := range x {
				g := (float64(w[i]) + offset) * inv
				closeTo(t, at+" RMSNorm element", y[i], float64(v)*g, 1e-6, 0)
				closeTo(t, at+" RMSNormGrad", dx[i], float64(dy[i])*g-float64(v)*inv*inv*inv*dot/float64(n), 1e-5, 1e-5)
				closeTo(t, at+" RMSNormWeightGrad", dw[i], float64(w[i])+float64(dy[i])*float64(v)*inv, 1e-6, 1e-6)
			}
		}
	})
}

func TestRotate(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, n := range []int{1, 4, 8, 32, 33, 64} {
			x := randoms(r, 2*n+3, 1)
			cos, sin := make([]float32, n), make([]float32, n)
			for i := range cos {
				cos[i], sin[i] = float32(math.Cos(float64(i))), float32(math.Sin(float64(i)))
			}
			y := append([]float32(nil), x...)
			Rotate(y, cos, sin, false)
			for i := range n {
				a, b := float64(x[i]), float64(x[i+n])
				closeTo(t, "low", y[i], a*math.Cos(float64(i))-b*math.Sin(float64(i)), 0, 1e-6)
				closeTo(t, "high", y[i+n], b*math.Cos(float64(i))+a*math.Sin(float64(i)), 0, 1e-6)
			}
			Rotate(y, cos, sin, true)
			for i := range y {
				closeTo(t, "back", y[i], float64(x[i]), 0, 1e-6)
			}
		}
	})
}

func TestAdamW(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 10))
		for _, n := range []int{1, 7, 8, 17, 100, chunk + 5} {
			p, m, v, g := randoms(r, n, 1), randoms(r, n, 1), randoms(r, n, 1), randoms(r, n, 1)
			for i := range v {
				v[i] *= v[i]
			}
			p0, m0, v0 := append([]float32(nil), p...), append([]float32(nil), m...), append([]float32(nil), v...)
			o := AdamW{LearningRate: 0.01, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, GradScale: 0.5, Step: 3}
			o.Update(p, m, v, g)
			for i := range p {
				x := float64(g[i]) * 0.5
				wm := 0.9*float64(m0[i]) + 0.1*x
				wv := 0.95*float64(v0[i]) + 0.05*x*x
				wp := float64(p0[i])*(1-0.001) - 0.01*(wm/(1-math.Pow(0.9, 3)))/(math.Sqrt(wv/(1-math.Pow(0.95, 3)))+1e-8)
				closeTo(t, "m", m[i], wm, 1e-6, 1e-6)
				closeTo(t, "v", v[i], wv, 1e-6, 1e-6)
				closeTo(t, "p", p[i], wp, 1e-6, 1e-6)
			}
		}
	})
}

func TestBF16(t *testing.T) {
	inf := float32(math.Inf(1))
	x := []float32{0, 1, -1, 1.00390625, 1.01171875, 3.3895314e38, 3.4e38, inf, -inf, float32(math.NaN()), math.Float32frombits(0x7f800001), 1e-40, 0.1, -0.3}
	want := []uint16{0, 0x3f80, 0xbf80, 0x3f80, 0x3f82, 0x7f7f, 0x7f80, 0x7f80, 0xff80, 0x7fc0, 0x7fc0, 1, 0x3dcd, 0xbe9a}
	for len(x) < 100 {
		x, want = append(x, x[:14]...), append(want, want[:14]...)
	}
	eachLevel(t, func(t *testing.T) {
		got, back := make([]uint16, len(x)), make([]float32, len(x))
		ToBF16(got, x)
		FromBF16(back, got)
		for i := range x {
			if got[i] != want[i] {
				t.Errorf("%v (%x) became %#x, want %#x", x[i], math.Float32bits(x[i]), got[i], want[i])
			}
			if math.Float32bits(back[i]) != uint32(got[i])<<16 {
				t.Errorf("%#x became %x", got[i], math.Float32bits(back[i]))
			}
		}
	})
}

// TestChunks covers the exported forms over more than one chunk, in place.
func TestChunks(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		n := 2*chunk + 5
		r := rand.New(rand.NewPCG(11, 12))
		a, b := randoms(r, n, 1), randoms(r, n, 1)
		for name, c := range map[string]struct {
			run  func(d []float32)
			want func(i int, d float64) float64
		}{
			"Add":      {func(d []float32) { Add(d, d, b) }, func(i int, d float64) float64 { return d + float64(b[i]) }},
			"Sub":      {func(d []float32) { Sub(d, d, b) }, func(i int, d float64) float64 { return d - float64(b[i]) }},
			"Mul":      {func(d []float32) { Mul(d, d, b) }, func(i int, d float64) float64 { return d * float64(b[i]) }},
			"Div":      {func(d []float32) { Div(d, d, b) }, func(i int, d float64) float64 { return d / float64(b[i]) }},
			"MulAdd":   {func(d []float32) { MulAdd(d, b, b) }, func(i int, d float64) float64 { return d + float64(b[i])*float64(b[i]) }},
			"Scale":    {func(d []float32) { Scale(d, d, 2) }, func(i int, d float64) float64 { return 2 * d }},
			"Axpy":     {func(d []float32) { Axpy(d, b, 2) }, func(i int, d float64) float64 { return d + 2*float64(b[i]) }},
			"Exp":      {func(d []float32) { Exp(d, d) }, func(i int, d float64) float64 { return math.Exp(d) }},
			"ExpSub":   {func(d []float32) { ExpSub(d, d, 1, 2) }, func(i int, d float64) float64 { return 2 * math.Exp(d-1) }},
			"Sigmoid":  {func(d []float32) { Sigmoid(d, d) }, func(i int, d float64) float64 { return 1 / (1 + math.Exp(-d)) }},
			"Tanh":     {func(d []float32) { Tanh(d, d) }, func(i int, d float64) float64 { return math.Tanh(d) }},
			"SiLU":     {func(d []float32) { SiLU.Activate(d, d) }, func(i int, d float64) float64 { return d / (1 + math.Exp(-d)) }},
			"SiLUGrad": {func(d []float32) { SiLU.Grad(d, b, d) }, func(i int, d float64) float64 { return float64(b[i]) * siluSlope(d) }},
			"Gelu":     {func(d []float32) { Gelu.Gate(d, d, b) }, func(i int, d float64) float64 { return gelu64(d) * float64(b[i]) }},
			"GeluTanh": {func(d []float32) { GeluTanh.Gate(d, d, b) }, func(i int, d float64) float64 { return geluTanh64(d) * float64(b[i]) }},
		} {
			d := append([]float32(nil), a...)
			c.run(d)
			for i := range d {
				closeTo(t, fmt.Sprintf("%s element %d", name, i), d[i], c.want(i, float64(a[i])), 5e-6, 1e-6)
			}
		}
		for name, f := range map[string]struct {
			act  Activation
			f, d func(float64) float64
		}{
			"SiLU":     {SiLU, func(x float64) float64 { return x / (1 + math.Exp(-x)) }, siluSlope},
			"Gelu":     {Gelu, gelu64, geluSlope},
			"GeluTanh": {GeluTanh, geluTanh64, geluTanhSlope},
		} {
			dg, du := make([]float32, n), make([]float32, n)
			f.act.GateGrad(dg, du, b, a, b)
			for i := range dg {
				closeTo(t, name+" dgate", dg[i], float64(b[i])*float64(b[i])*f.d(float64(a[i])), 5e-6, 2e-6)
				closeTo(t, name+" dup", du[i], float64(b[i])*f.f(float64(a[i])), 5e-6, 1e-6)
			}
		}
		var sum, sq, dot, top float64
		for i := range a {
			sum, sq, dot = sum+float64(a[i]), sq+float64(a[i])*float64(a[i]), dot+float64(a[i])*float64(b[i])
			top = max(top, float64(a[i]))
		}
		for name, c := range map[string][2]float64{"Sum": {Sum(a), sum}, "SumSquares": {SumSquares(a), sq}, "Dot": {Dot(a, b), dot}, "Max": {float64(Max(a)), top}} {
			closeTo(t, name, float32(c[0]), c[1], 1e-6, 1e-2)
		}
	})
}

// BenchmarkElementwise reports elements per second of what stays in the second cache.
func BenchmarkElementwise(b *testing.B) {
	const n = chunk
	r := rand.New(rand.NewPCG(1, 1))
	x, y, z, d := randoms(r, n, 1), randoms(r, n, 1), randoms(r, n, 1), make([]float32, n)
	h := make([]uint16, n)
	o := AdamW{LearningRate: 1e-9, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, GradScale: 1, Step: 3}
	w := append([]float32(nil), x...)
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"Add", func() { Add(d, x, y) }},
		{"Axpy", func() { Axpy(d, x, 1e-9) }},
		{"Exp", func() { Exp(d, x) }},
		{"Tanh", func() { Tanh(d, x) }},
		{"SiLU", func() { SiLU.Activate(d, x) }},
		{"SiLUGate", func() { SiLU.Gate(d, x, y) }},
		{"SiLUGateGrad", func() { SiLU.GateGrad(d, z, y, x, y) }},
		{"GeluGate", func() { Gelu.Gate(d, x, y) }},
		{"GeluTanhGate", func() { GeluTanh.Gate(d, x, y) }},
		{"Softmax", func() { Softmax(d, x) }},
		{"LogSumExp", func() { LogSumExp(x) }},
		{"RMSNorm576", func() {
			for i := 0; i+576 <= n; i += 576 {
				RMSNorm(d[i:], x[i:i+576], y, 1e-5, 0)
			}
		}},
		{"RMSNormGrad576", func() {
			for i := 0; i+576 <= n; i += 576 {
				RMSNormGrad(d[i:], y[i:], x[i:i+576], y, 1, 0)
			}
		}},
		{"Rotate64", func() {
			for i := 0; i < n; i += 64 {
				Rotate(d[i:i+64], x[:32], y[:32], false)
			}
		}},
		{"Dot", func() { Dot(x, y) }},
		{"SumSquares", func() { SumSquares(x) }},
		{"AdamW", func() { o.Update(w, d, z, y) }},
		{"ToBF16", func() { ToBF16(h, x) }},
		{"FromBF16", func() { FromBF16(d, h) }},
		{"Quantize", func() { NewQuantized(Int16, n/1024, 1024, d).Quantize(x, 1024, 0, n/1024) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			clear(z)
			rate(b, n, "Gelem/s", c.run)
		})
	}
}
