package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func randoms(r *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * scale)
	}
	return x
}

// lengths cover empty, tails of every width, and unrolled loops.
func lengths() []int {
	var n []int
	for i := range 70 {
		n = append(n, i)
	}
	return append(n, 127, 128, 129, 576, 1000)
}

// closeTo fails where got is further than rel·|want| + abs from want.
func closeTo(t *testing.T, what string, got float32, want, rel, abs float64) {
	t.Helper()
	if d := math.Abs(float64(got) - want); !(d <= rel*math.Abs(want)+abs) && !(math.IsNaN(want) && got != got) && float64(got) != want {
		t.Fatalf("%s: have %v, want %v (off by %.3g)", what, got, want, d)
	}
}

// guarded returns a slice of n values inside a larger one, and a check that its surroundings are untouched.
func guarded(t *testing.T, values []float32) ([]float32, func()) {
	n := len(values)
	all := make([]float32, n+64)
	for i := range all {
		all[i] = 7.25
	}
	copy(all[32:], values)
	return all[32 : 32+n : 32+n], func() {
		t.Helper()
		for i, x := range all {
			if (i < 32 || i >= 32+n) && x != 7.25 {
				t.Fatalf("wrote element %d, outside of 0..%d", i-32, n)
			}
		}
	}
}

func TestElementwise(t *testing.T) {
	type op struct {
		name  string
		run   func(dst, a, b, c []float32)
		want  func(dst, a, b, c float64) float64
		rel   float64
		terms float64 // absolute error per ulp of the largest input
	}
	k := func() *table { return active }
	ops := []op{
		{"add", func(dst, a, b, c []float32) { k().add(dst, a, b) }, func(_, a, b, _ float64) float64 { return a + b }, 1e-7, 0},
		{"sub", func(dst, a, b, c []float32) { k().sub(dst, a, b) }, func(_, a, b, _ float64) float64 { return a - b }, 1e-7, 0},
		{"mul", func(dst, a, b, c []float32) { k().mul(dst, a, b) }, func(_, a, b, _ float64) float64 { return a * b }, 1e-7, 0},
		{"div", func(dst, a, b, c []float32) { k().div(dst, a, b) }, func(_, a, b, _ float64) float64 { return a / b }, 1e-7, 0},
		{"scale", func(dst, a, b, c []float32) { k().scale(dst, a, 0.3) }, func(_, a, _, _ float64) float64 { return a * float64(float32(0.3)) }, 1e-7, 0},
		{"axpy", func(dst, a, b, c []float32) { k().axpy(dst, a, 0.3) }, func(d, a, _, _ float64) float64 { return d + a*float64(float32(0.3)) }, 1e-7, 2e-6},
		{"mulAdd", func(dst, a, b, c []float32) { k().mulAdd(dst, a, b) }, func(d, a, b, _ float64) float64 { return d + a*b }, 1e-7, 1e-5},
		{"mulAddScaled", func(dst, a, b, c []float32) { k().mulAddScaled(dst, a, b, -2) }, func(d, a, b, _ float64) float64 { return d - 2*a*b }, 1e-7, 1e-5},
		{"mulScale", func(dst, a, b, c []float32) { k().mulScale(dst, a, b, 3, 1) }, func(_, a, b, _ float64) float64 { return 3 * a * (b + 1) }, 1e-6, 1e-5},
		{"normGrad", func(dst, a, b, c []float32) { k().normGrad(dst, a, b, c, 3, 1, 0.5) }, func(_, a, b, c float64) float64 { return 3*a*(b+1) - 0.5*c }, 1e-6, 3e-5},
		{"softmaxGrad", func(dst, a, b, c []float32) { k().softmaxGrad(dst, a, b, 0.5, 2) }, func(_, a, b, _ float64) float64 { return 2 * a * (b - 0.5) }, 1e-6, 1e-5},
		{"siluGrad", func(dst, a, b, c []float32) { k().siluGrad(dst, a, b) }, func(_, a, b, _ float64) float64 { return a * siluSlope(b) }, 1e-6, 1e-6},
		{"geluGrad", func(dst, a, b, c []float32) { k().geluGrad(dst, a, b) }, func(_, a, b, _ float64) float64 { return a * geluSlope(b) }, 1e-6, 2e-6},
		{"geluTanhGrad", func(dst, a, b, c []float32) { k().geluTanhGrad(dst, a, b) }, func(_, a, b, _ float64) float64 { return a * geluTanhSlope(b) }, 5e-6, 5e-6},
		{"siluGate", func(dst, a, b, c []float32) { k().siluGate(dst, a, b) }, func(_, a, b, _ float64) float64 { return a / (1 + math.Exp(-a)) * b }, 1e-6, 0},
		{"geluGate", func(dst, a, b, c []float32) { k().geluGate(dst, a, b) }, func(_, a, b, _ float64) float64 { return gelu64(a) * b }, 5e-6, 0},
		{"geluTanhGate", func(dst, a, b, c []float32) { k().geluTanhGate(dst, a, b) }, func(_, a, b, _ float64) float64 { return geluTanh64(a) * b }, 5e-6, 0},
	}
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, o := range ops {
			t.Run(o.name, func(t *testing.T) {
				for _, n := range lengths() {
					d0, a, b, c := randoms(r, n, 2), randoms(r, n, 2), randoms(r, n, 2), randoms(r, n, 2)
					dst, check := guarded(t, d0)
					o.run(dst, a, b, c)
					check()
					for i := range dst {
						closeTo(t, fmt.Sprintf("n %d, element %d", n, i), dst[i],
							o.want(float64(d0[i]), float64(a[i]), float64(b[i]), float64(c[i])), o.rel, o.terms)
					}
					// The bits of an element do not depend on its place.
					if n > 3 {
						part := append([]float32(nil), d0[3:]...)
						o.run(part, a[3:], b[3:], c[3:])
						for i := range part {
							if math.Float32bits(part[i]) != math.Float32bits(dst[i+3]) {
								t.Fatalf("n %d: element %d is %v, as element %d of a part %v", n, i+3, dst[i+3], i, part[i])
							}
						}
					}
				}
			})
		}
	})
}

func siluSlope(x float64) float64 {
	s := 1 / (1 + math.Exp(-x))
	return s + x*s*(1-s)
}

func gelu64(x float64) float64 { return x * math.Erfc(-x/math.Sqrt2) / 2 }

func geluSlope(x float64) float64 {
	return math.Erfc(-x/math.Sqrt2)/2 + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
}

func geluTanh64(x float64) float64 {
	u := math.Sqrt(2/math.Pi) * (x + 0.044715*x*x*x)
	return x / (1 + math.Exp(-2*u)) // 1 + tanh u without cancellation
}

func geluTanhSlope(x float64) float64 {
	u, du := math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x), math.Sqrt(2/math.Pi)*(1+3*0.044715*x*x)
	s := 1 / (1 + math.Exp(-2*u))
	return s + x*s*(1-s)*2*du
}

func TestFunctions(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	var xs []float32
	for x := -110.0; x < 110; x += 0.037 {
		xs = append(xs, float32(x), float32(x/20), float32(x/2000))
	}
	xs = append(xs, 0, 1, -1, 88.7, 88.72, 89, 1000, 3e38, -3e38, inf, -inf, nan, 1e-30, -1e-30, -86.9, 0.625, -0.625)
	tests := []struct {
		name     string
		run      func(dst, a []float32)
		want     func(x float64) float64
		rel, abs float64
	}{
		{"exp", func(d, a []float32) { active.exp(d, a) }, math.Exp, 2e-7, 2e-38},
		{"sigmoid", func(d, a []float32) { active.sigmoid(d, a) }, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 4e-7, 2e-38},
		{"tanh", func(d, a []float32) { active.tanh(d, a) }, math.Tanh, 3e-7, 0},
		{"silu", func(d, a []float32) { active.silu(d, a) }, func(x float64) float64 { return x / (1 + math.Exp(-x)) }, 4e-7, 1e-36},
		{"gelu", func(d, a []float32) { active.gelu(d, a) }, gelu64, 5e-6, 1e-35},
		{"geluTanh", func(d, a []float32) { active.geluTanh(d, a) }, geluTanh64, 1e-5, 1e-35},
		{"expSub", func(d, a []float32) { active.expSub(d, a, 2, 3) }, func(x float64) float64 { return 3 * math.Exp(x-2) }, 1e-5, 5e-38},
	}
	eachLevel(t, func(t *testing.T) {
		for _, o := range tests {
			t.Run(o.name, func(t *testing.T) {
				dst := make([]float32, len(xs))
				o.run(dst, xs)
				for i, x := range xs {
					want := o.want(float64(x))
					if o.name != "exp" && o.name != "sigmoid" && o.name != "tanh" && math.IsInf(float64(x), -1) {
						continue // −∞ · 0
					}
					if w := float32(want); math.IsInf(float64(w), 0) {
						want = float64(w)
					}
					closeTo(t, fmt.Sprintf("f(%v)", x), dst[i], want, o.rel, o.abs)
				}
				if o.name == "exp" && dst[len(xs)-17] != 1 {
					t.Errorf("exp(0) = %v", dst[len(xs)-17])
				}
			})
		}
	})
}

func TestReductions(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, n := range lengths() {
			a, b, c := randoms(r, n, 2), randoms(r, n, 2), randoms(r, n, 2)
			var sum, sq, dot, dot3, se, size float64
			top := math.Inf(-1)
			for i := range a {
				x, y, z := float64(a[i]), float64(b[i]), float64(c[i])
				sum += x
				sq += x * x
				dot += x * y
				dot3 += x * y * (z + 1)
				se += math.Exp(x - 1.5)
				top = math.Max(top, x)
				size += math.Abs(x*y) * (2 + math.Abs(z))
			}
			at := fmt.Sprintf("n %d", n)
			closeTo(t, at+" sum", active.sum(a), sum, 0, 1e-7*(size+10))
			closeTo(t, at+" sumSquares", active.sumSquares(a), sq, 1e-6, 0)
			closeTo(t, at+" dot", active.dot(a, b), dot, 0, 2e-7*size)
			closeTo(t, at+" dot3", active.dot3(a, b, c, 1), dot3, 0, 3e-7*size)
			closeTo(t, at+" max", active.max(a), top, 0, 0)
			closeTo(t, at+" sumExp", active.sumExp(a, 1.5), se, 1e-6, 0)
			dst, check := guarded(t, make([]float32, n))
			closeTo(t, at+" expSum", active.expSum(dst, a, 1.5), se, 1e-6, 0)
			check()
			for i := range dst {
				closeTo(t, at+" expSum element", dst[i], math.Exp(float64(a[i])-1.5), 1e-6, 0)
			}
			if n > 0 {
				for i := range a {
					a[i] = -abs(a[i]) - 1 // zero lanes beyond the end must not count
				}
				if m := active.max(a); m > -1 {
					t.Errorf("n %d: maximum of values below −1 is %v", n, m)
				}
			}
		}
	})
}
