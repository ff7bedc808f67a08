package methods

import (
	"fmt"
	"math"
	"slices"
)

// Compress returns the update of a rank that is nearest to f, and the share of f's squared length that it keeps. The work
// is that of the factors, not of the whole update.
func (f Factors) Compress(rank int) (Factors, float64) {
	in, out, r := f.In(), f.Out(), f.Rank
	// B = Q·X and Aᵀ = P·Y with orthonormal columns, so that the update's singular values are those of X·Yᵀ.
	q, p := make([]float64, out*r), make([]float64, in*r)
	b, a := make([]float64, out*r), make([]float64, in*r)
	for i, v := range f.B {
		q[i], b[i] = float64(v), float64(v)
	}
	for k := range r {
		for i := range in {
			v := float64(f.A[k*in+i])
			p[i*r+k], a[i*r+k] = v, v
		}
	}
	orthonormalize(q, r)
	orthonormalize(p, r)
	x, y := inner(q, b, r), inner(p, a, r)
	core := make([]float64, r*r)
	for i := range r {
		for j := range r {
			for k := range r {
				core[i*r+j] += f.Scale * x[i*r+k] * y[j*r+k]
			}
		}
	}
	values, right := eigen(inner(core, core, r), r) // of coreᵀ·core: squares of the values, and right vectors
	var all, kept float64
	for _, v := range values {
		all += max(v, 0)
	}
	rank = min(rank, r)
	g := Factors{Path: f.Path, Embedding: f.Embedding, Rank: rank, Scale: 1, A: make([]float32, rank*in), B: make([]float32, out*rank)}
	left := make([]float64, r)
	for k := range rank {
		kept += max(values[k], 0)
		root := math.Sqrt(math.Sqrt(max(values[k], 0)))
		if root == 0 {
			continue
		}
		for i := range r {
			left[i] = 0
			for j := range r {
				left[i] += core[i*r+j] * right[j*r+k]
			}
		}
		for o := range out {
			var sum float64
			for i := range r {
				sum += q[o*r+i] * left[i]
			}
			g.B[o*rank+k] = float32(sum / root)
		}
		for i := range in {
			var sum float64
			for j := range r {
				sum += p[i*r+j] * right[j*r+k]
			}
			g.A[k*in+i] = float32(sum * root)
		}
	}
	if all == 0 {
		return g, 1
	}
	return g, kept / all
}

// Resize returns the adapter in another rank, and the share of the updates' squared length that it keeps.
func (u *Updates) Resize(rank int) (*Updates, float64, error) {
	if rank < 1 {
		return nil, 0, fmt.Errorf("rank: want >= 1, have %d", rank)
	}
	if err := u.Plain(); err != nil {
		return nil, 0, err
	}
	out := *u
	out.Modules = nil
	var all, kept float64
	for _, f := range u.Modules {
		g, share := f.Compress(rank)
		square := f.Dot(f)
		all, kept = all+square, kept+share*square
		out.Modules = append(out.Modules, g)
	}
	if all == 0 {
		return &out, 1, nil
	}
	return &out, kept / all, nil
}

// Scaled returns the adapter with its updates multiplied.
func (u *Updates) Scaled(factor float64) *Updates {
	out := *u
	out.Modules = slices.Clone(u.Modules)
	for i := range out.Modules {
		f := &out.Modules[i]
		f.B = slices.Clone(f.B)
		for k, v := range f.B {
			f.B[k] = float32(factor * float64(v))
		}
	}
	return &out
}
