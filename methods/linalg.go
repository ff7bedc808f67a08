package methods

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
)

// Linear algebra of the starts that look at the weights. Matrices are row-major; tall ones (n, p) hold p columns in
// double precision. Work is cut by rows of the result, so the bits do not depend on the number of threads.

// principal returns the largest rank singular values of w (out, in) and their vectors u (out, rank), v (in, rank), by
// subspace iteration (Halko et al. 2011, arXiv 0909.4061) until the values stand still.
func principal(w []float32, out, in, rank int) (u, values, v []float64) {
	const most, still = 200, 1e-13
	p := min(rank+max(rank, 24), out, in)
	rng := rand.New(rand.NewPCG(1, 2))
	y := make([]float64, out*p)
	for i := range y {
		y[i] = rng.NormFloat64()
	}
	var q, t, vectors []float64
	var old []float64
	for range most {
		q = timesT(w, in, y, p) // (in, p)
		orthonormalize(q, p)
		t = times(w, in, q, p) // (out, p)
		values, vectors = eigen(gram(t, p), p)
		moved := old == nil
		for r := range rank {
			moved = moved || math.Abs(values[r]-old[r]) > still*values[0]
		}
		if !moved || p == min(out, in) {
			break
		}
		old, y = values, t
	}
	u, v = make([]float64, out*rank), make([]float64, in*rank)
	for r := range rank {
		values[r] = math.Sqrt(max(values[r], 0))
	}
	mix := func(dst, src []float64, scale func(r int) float64) {
		for i := range len(dst) / rank {
			for r := range rank {
				var sum float64
				for k := range p {
					sum += src[i*p+k] * vectors[k*p+r]
				}
				dst[i*rank+r] = sum * scale(r)
			}
		}
	}
	mix(v, q, func(int) float64 { return 1 })
	mix(u, t, func(r int) float64 {
		if values[r] == 0 {
			return 0
		}
		return 1 / values[r]
	})
	return u, values[:rank], v
}

// times returns w·y (out, p) of y (in, p).
func times(w []float32, in int, y []float64, p int) []float64 {
	out := make([]float64, len(w)/in*p)
	spread(len(w)/in, func(lo, hi int) {
		for o := lo; o < hi; o++ {
			sum := out[o*p : (o+1)*p]
			for i, f := range w[o*in : (o+1)*in] {
				for k, v := range y[i*p : (i+1)*p] {
					sum[k] += float64(f) * v
				}
			}
		}
	})
	return out
}

// timesT returns wᵀ·y (in, p) of y (out, p).
func timesT(w []float32, in int, y []float64, p int) []float64 {
	out := make([]float64, in*p)
	spread(in, func(lo, hi int) {
		for o := range len(w) / in {
			row := y[o*p : (o+1)*p]
			for i := lo; i < hi; i++ {
				f, sum := float64(w[o*in+i]), out[i*p:(i+1)*p]
				for k, v := range row {
					sum[k] += f * v
				}
			}
		}
	})
	return out
}

// spread runs f over parts of 0 … n−1 on all processors.
func spread(n int, f func(lo, hi int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() { f(k*n/workers, (k+1)*n/workers) })
	}
	wg.Wait()
}

// firstColumns returns the first p columns of w (…, in).
func firstColumns(w []float32, in, p int) []float64 {
	out := make([]float64, 0, len(w)/in*p)
	for o := 0; o < len(w); o += in {
		for _, v := range w[o : o+p] {
			out = append(out, float64(v))
		}
	}
	return out
}

// gram returns tᵀ·t (p, p).
func gram(t []float64, p int) []float64 {
	out := make([]float64, p*p)
	for i := 0; i < len(t); i += p {
		row := t[i : i+p]
		for a, f := range row {
			for b, v := range row {
				out[a*p+b] += f * v
			}
		}
	}
	return out
}

// orthonormalize makes the p columns of x orthonormal, by Gram-Schmidt twice over (Kahan: twice is enough). A column
// that depends on those before it becomes 0.
func orthonormalize(x []float64, p int) {
	n := len(x) / p
	for k := range p {
		var before float64
		for pass := range 3 {
			if pass > 0 {
				for j := range k {
					var dot float64
					for i := range n {
						dot += x[i*p+j] * x[i*p+k]
					}
					for i := range n {
						x[i*p+k] -= dot * x[i*p+j]
					}
				}
			}
			var square float64
			for i := range n {
				square += x[i*p+k] * x[i*p+k]
			}
			if pass == 0 {
				before = square
				continue
			}
			f := 0.0
			if square > 1e-28*before {
				f = 1 / math.Sqrt(square)
			}
			for i := range n {
				x[i*p+k] *= f
			}
		}
	}
}

// eigen returns the eigenvalues of the symmetric matrix g (p, p), largest first, and their vectors as columns, by
// Jacobi's rotations.
func eigen(g []float64, p int) (values, vectors []float64) {
	const sweeps = 60
	v := make([]float64, p*p)
	for i := range p {
		v[i*p+i] = 1
	}
	for range sweeps {
		var off, all float64
		for i := range p {
			for j := range p {
				all += g[i*p+j] * g[i*p+j]
				if i != j {
					off += g[i*p+j] * g[i*p+j]
				}
			}
		}
		if off <= 1e-30*all {
			break
		}
		for i := range p {
			for j := i + 1; j < p; j++ {
				rotate(g, v, p, i, j)
			}
		}
	}
	order := make([]int, p)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if g[a*p+a] > g[b*p+b] {
			return -1
		}
		if g[a*p+a] < g[b*p+b] {
			return 1
		}
		return 0
	})
	values, vectors = make([]float64, p), make([]float64, p*p)
	for to, from := range order {
		values[to] = g[from*p+from]
		for i := range p {
			vectors[i*p+to] = v[i*p+from]
		}
	}
	return values, vectors
}

// rotate makes g[i, j] zero by a rotation in the plane of i and j, and turns the columns of v along.
func rotate(g, v []float64, p, i, j int) {
	off := g[i*p+j]
	if off == 0 {
		return
	}
	theta := (g[j*p+j] - g[i*p+i]) / (2 * off)
	t := 1 / (math.Abs(theta) + math.Sqrt(theta*theta+1))
	if theta < 0 {
		t = -t
	}
	c := 1 / math.Sqrt(t*t+1)
	s := t * c
	for k := range p {
		a, b := g[k*p+i], g[k*p+j]
		g[k*p+i], g[k*p+j] = c*a-s*b, s*a+c*b
	}
	for k := range p {
		a, b := g[i*p+k], g[j*p+k]
		g[i*p+k], g[j*p+k] = c*a-s*b, s*a+c*b
	}
	for k := range p {
		a, b := v[k*p+i], v[k*p+j]
		v[k*p+i], v[k*p+j] = c*a-s*b, s*a+c*b
	}
}
