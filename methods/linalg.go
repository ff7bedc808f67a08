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
// subspace iteration (Halko et al. 2011, arXiv 0909.4061) on wᵀ·w until the values stand still.
func principal(w []float32, out, in, rank int) (u, values, v []float64) {
	if out < in {
		v, values, u = principal(transpose(w, out), in, out, rank)
		return u, values, v
	}
	const most, still = 200, 1e-12
	p := min(rank+max(rank, 24), in)
	g := square(w, in)
	rng := rand.New(rand.NewPCG(1, 2))
	y := make([]float64, in*p)
	for i := range y {
		y[i] = rng.NormFloat64()
	}
	var old, vectors []float64
	for range most {
		orthonormalize(y, p)
		z := multiply(g, y, p)
		values, vectors = eigen(inner(y, z, p), p)
		moved := old == nil
		for r := range rank {
			moved = moved || math.Abs(values[r]-old[r]) > still*values[0]
		}
		if !moved || p == in {
			break
		}
		old, y = values, z
	}
	v = make([]float64, in*rank)
	for i := range in {
		for r := range rank {
			for k := range p {
				v[i*rank+r] += y[i*p+k] * vectors[k*p+r]
			}
		}
	}
	u, values = times(w, in, v, rank), make([]float64, rank)
	for r := range values {
		for o := range out {
			values[r] += u[o*rank+r] * u[o*rank+r]
		}
		values[r] = math.Sqrt(values[r])
		for o := range out {
			if values[r] > 0 {
				u[o*rank+r] /= values[r]
			}
		}
	}
	return u, values, v
}

// square returns wᵀ·w (in, in).
func square(w []float32, in int) []float64 {
	g := make([]float64, in*in)
	spread(in, func(lo, hi int) {
		row := make([]float64, in)
		for o := 0; o < len(w); o += in {
			for i, x := range w[o : o+in] {
				row[i] = float64(x)
			}
			for i := lo; i < hi; i++ {
				addScaled(g[i*in:(i+1)*in], row, row[i])
			}
		}
	})
	return g
}

// multiply returns g·y (n, p) of a square matrix g (n, n).
func multiply(g, y []float64, p int) []float64 {
	n := len(y) / p
	out := make([]float64, len(y))
	spread(n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for k, f := range g[i*n : (i+1)*n] {
				addScaled(out[i*p:(i+1)*p], y[k*p:(k+1)*p], f)
			}
		}
	})
	return out
}

// addScaled adds f·x to sum.
func addScaled(sum, x []float64, f float64) {
	sum = sum[:len(x)]
	for i, v := range x {
		sum[i] += f * v
	}
}

// times returns w·y (out, p) of y (in, p).
func times(w []float32, in int, y []float64, p int) []float64 {
	out := make([]float64, len(w)/in*p)
	spread(len(w)/in, func(lo, hi int) {
		for o := lo; o < hi; o++ {
			for i, f := range w[o*in : (o+1)*in] {
				addScaled(out[o*p:(o+1)*p], y[i*p:(i+1)*p], float64(f))
			}
		}
	})
	return out
}

// timesT returns wᵀ·y (in, p) of y (out, p).
func timesT(w []float32, in int, y []float64, p int) []float64 {
	return times(transpose(w, len(w)/in), len(w)/in, y, p)
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

// inner returns xᵀ·y (p, p).
func inner(x, y []float64, p int) []float64 {
	out := make([]float64, p*p)
	for i := 0; i < len(x); i += p {
		for k, f := range x[i : i+p] {
			addScaled(out[k*p:(k+1)*p], y[i:i+p], f)
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
