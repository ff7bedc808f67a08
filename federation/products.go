package federation

import (
	"fmt"
	"math"
	"slices"
)

// Product names two parameters that act as scale·B·A: A (r, in) and B (out, r). The mean of products is not the product
// of means, so averaging A and B one by one, as FedIT does, is not exact.
type Product struct {
	A, B  string
	Scale float64
}

// Products are the products among the parameters.
type Products []Product

// factor is a product's two matrices: a (r, in), b (out, r), in double precision.
type factor struct {
	a, b          []float64
	rank, in, out int
}

func (p Product) of(tensors []Tensor) (factor, error) {
	find := func(name string) (Tensor, error) {
		i := slices.IndexFunc(tensors, func(t Tensor) bool { return t.Name == name })
		if i < 0 || len(tensors[i].Shape) != 2 {
			return Tensor{}, fmt.Errorf("federation: the update has no matrix %s", name)
		}
		return tensors[i], nil
	}
	a, err := find(p.A)
	if err != nil {
		return factor{}, err
	}
	b, err := find(p.B)
	if err != nil {
		return factor{}, err
	}
	if a.Shape[0] != b.Shape[1] {
		return factor{}, fmt.Errorf("federation: %s of shape %v and %s of shape %v make no product", p.B, b.Shape, p.A, a.Shape)
	}
	return factor{doubles(a.Values), doubles(b.Values), a.Shape[0], a.Shape[1], b.Shape[0]}, nil
}

func doubles(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// Stack returns factors of the exact weighted sum of the updates' products (FLoRA, Wang et al. 2024, arXiv 2409.05976):
// the rows of A times the weight one below the other, the columns of B side by side. The rank is the sum of the ranks,
// which may differ.
func (p Product) stack(updates []Update, weights []float64) (factor, error) {
	var s factor
	var parts []factor
	for _, u := range updates {
		f, err := p.of(u.Tensors)
		if err != nil {
			return factor{}, fmt.Errorf("%w (client %s)", err, u.Client)
		}
		if len(parts) > 0 && (f.in != s.in || f.out != s.out) {
			return factor{}, fmt.Errorf("federation: client %s: %s and %s make a %d×%d matrix, those of others %d×%d", u.Client, p.B, p.A, f.out, f.in, s.out, s.in)
		}
		s.in, s.out = f.in, f.out
		s.rank += f.rank
		parts = append(parts, f)
	}
	s.b = make([]float64, s.out*s.rank)
	at := 0
	for i, f := range parts {
		for _, v := range f.a {
			s.a = append(s.a, weights[i]*v)
		}
		for o := range s.out {
			copy(s.b[o*s.rank+at:], f.b[o*f.rank:(o+1)*f.rank])
		}
		at += f.rank
	}
	return s, nil
}

// Stack returns the stacked factors of all products, as tensors under the parameters' names.
func (ps Products) Stack(updates []Update) ([]Tensor, error) {
	w, err := weights(updates)
	if err != nil {
		return nil, err
	}
	var out []Tensor
	for _, p := range ps {
		f, err := p.stack(updates, w)
		if err != nil {
			return nil, err
		}
		out = append(out, tensor(p.A, f.rank, f.in, f.a), tensor(p.B, f.out, f.rank, f.b))
	}
	return out, nil
}

func tensor(name string, rows, cols int, values []float64) Tensor {
	t := Tensor{Name: name, Shape: []int{rows, cols}, Values: make([]float32, len(values))}
	for i, v := range values {
		t.Values[i] = float32(v)
	}
	return t
}

// truncate returns the best approximation of rank r: QR of both factors, singular values of the small core between.
func (f factor) truncate(r int) factor {
	at := transposed(f.a, f.rank) // (in, R)
	rb := orthogonalize(f.b, f.rank)
	ra := orthogonalize(at, f.rank)
	n := f.rank
	core := make([]float64, n*n) // rb·raᵀ
	for i := range n {
		for j := range n {
			for k := range n {
				core[i*n+j] += rb[i*n+k] * ra[j*n+k]
			}
		}
	}
	u, s, v := singular(core, n)
	out := factor{rank: r, in: f.in, out: f.out, a: make([]float64, r*f.in), b: make([]float64, f.out*r)}
	for k := range min(r, n) {
		for i := range f.in {
			for j := range n {
				out.a[k*f.in+i] += at[i*n+j] * v[j*n+k]
			}
		}
		for o := range f.out {
			for j := range n {
				out.b[o*r+k] += f.b[o*n+j] * u[j*n+k] * s[k]
			}
		}
	}
	return out
}

// transposed returns the transpose of x, which has so many rows.
func transposed(x []float64, rows int) []float64 {
	cols := len(x) / rows
	out := make([]float64, len(x))
	for i := range rows {
		for k := range cols {
			out[k*rows+i] = x[i*cols+k]
		}
	}
	return out
}

// orthogonalize replaces x (m, n) by a matrix of orthonormal or zero columns and returns the triangle R (n, n) with
// x = q·R: Gram-Schmidt, twice over. A column that depends on those before becomes zero.
func orthogonalize(x []float64, n int) []float64 {
	r := make([]float64, n*n)
	m := len(x) / n
	for k := range n {
		var before float64
		for i := range m {
			before += x[i*n+k] * x[i*n+k]
		}
		for range 2 {
			for j := range k {
				var dot float64
				for i := range m {
					dot += x[i*n+j] * x[i*n+k]
				}
				r[j*n+k] += dot
				for i := range m {
					x[i*n+k] -= dot * x[i*n+j]
				}
			}
		}
		var square float64
		for i := range m {
			square += x[i*n+k] * x[i*n+k]
		}
		norm := math.Sqrt(square)
		f := 0.0
		if square > 1e-26*before {
			r[k*n+k], f = norm, 1/norm
		}
		for i := range m {
			x[i*n+k] *= f
		}
	}
	return r
}

// singular returns the singular values of x (n, n), largest first, with x = u·s·vᵀ, by Hestenes' one-sided rotations.
func singular(x []float64, n int) (u, s, v []float64) {
	const sweeps, small = 60, 1e-15
	u, v = slices.Clone(x), make([]float64, n*n)
	for i := range n {
		v[i*n+i] = 1
	}
	for range sweeps {
		turned := false
		for p := range n {
			for q := p + 1; q < n; q++ {
				var pp, qq, pq float64
				for i := range n {
					pp += u[i*n+p] * u[i*n+p]
					qq += u[i*n+q] * u[i*n+q]
					pq += u[i*n+p] * u[i*n+q]
				}
				if math.Abs(pq) <= small*math.Sqrt(pp*qq) {
					continue
				}
				turned = true
				theta := (qq - pp) / (2 * pq)
				t := sign(theta) / (math.Abs(theta) + math.Sqrt(theta*theta+1))
				if theta == 0 {
					t = 1
				}
				c := 1 / math.Sqrt(t*t+1)
				turn(u, n, p, q, c, c*t)
				turn(v, n, p, q, c, c*t)
			}
		}
		if !turned {
			break
		}
	}
	s = make([]float64, n)
	order := make([]int, n)
	for k := range n {
		order[k] = k
		for i := range n {
			s[k] += u[i*n+k] * u[i*n+k]
		}
		s[k] = math.Sqrt(s[k])
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case s[a] > s[b]:
			return -1
		case s[a] < s[b]:
			return 1
		}
		return 0
	})
	us, ss, vs := make([]float64, n*n), make([]float64, n), make([]float64, n*n)
	for to, from := range order {
		ss[to] = s[from]
		for i := range n {
			if s[from] > 0 {
				us[i*n+to] = u[i*n+from] / s[from]
			}
			vs[i*n+to] = v[i*n+from]
		}
	}
	return us, ss, vs
}

// turn rotates the columns p and q of x.
func turn(x []float64, n, p, q int, c, s float64) {
	for i := range len(x) / n {
		a, b := x[i*n+p], x[i*n+q]
		x[i*n+p], x[i*n+q] = c*a-s*b, s*a+c*b
	}
}

// products is FlexLoRA (Bai et al. 2024, arXiv 2402.11505): the exact mean of the products, then the best factors of
// the global rank. Parameters that are no factors are averaged.
type products struct{ list Products }

// State implements Strategy.
func (products) State() map[string][]Tensor { return nil }

// Restore implements Strategy.
func (products) Restore(map[string][]Tensor) error { return nil }

// Aggregate implements Strategy.
func (p products) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	w, err := weights(updates)
	if err != nil {
		return nil, err
	}
	done := map[string]Tensor{}
	for _, x := range p.list {
		own, err := x.of(global)
		if err != nil {
			return nil, err
		}
		stacked, err := x.stack(updates, w)
		if err != nil {
			return nil, err
		}
		if stacked.in != own.in || stacked.out != own.out {
			return nil, fmt.Errorf("federation: the updates of %s make a %d×%d matrix, want %d×%d", x.A, stacked.out, stacked.in, own.out, own.in)
		}
		f := stacked.truncate(own.rank)
		done[x.A], done[x.B] = tensor(x.A, f.rank, f.in, f.a), tensor(x.B, f.out, f.rank, f.b)
	}
	out := empty(global)
	for i, t := range global {
		if d, ok := done[t.Name]; ok {
			out[i] = d
			continue
		}
		for k := range t.Values {
			var sum float64
			for c, u := range updates {
				sum += w[c] * float64(u.Tensors[i].Values[k])
			}
			out[i].Values[k] = float32(sum)
		}
	}
	return out, nil
}

// Cut returns the parameters for a client whose parameters have the shapes given: of a product of higher rank its first
// and largest parts.
func (ps Products) Cut(global, shapes []Tensor) ([]Tensor, error) {
	out := clone(global)
	for i := range out {
		if len(shapes) != len(out) || shapes[i].Name != out[i].Name {
			return nil, fmt.Errorf("federation: the client's parameters are not those of the run")
		}
		g, want := out[i], shapes[i].Shape
		if slices.Equal(g.Shape, want) {
			continue
		}
		isA := slices.ContainsFunc(ps, func(p Product) bool { return p.A == g.Name })
		isB := slices.ContainsFunc(ps, func(p Product) bool { return p.B == g.Name })
		switch {
		case isA && len(want) == 2 && want[1] == g.Shape[1] && want[0] < g.Shape[0]:
			out[i].Values = g.Values[:want[0]*want[1]]
		case isB && len(want) == 2 && want[0] == g.Shape[0] && want[1] < g.Shape[1]:
			cut := make([]float32, 0, want[0]*want[1])
			for o := range want[0] {
				cut = append(cut, g.Values[o*g.Shape[1]:o*g.Shape[1]+want[1]]...)
			}
			out[i].Values = cut
		default:
			return nil, fmt.Errorf("federation: parameter %s: want shape %v or a lower rank, have %v", g.Name, g.Shape, want)
		}
		out[i].Shape = slices.Clone(want)
	}
	return out, nil
}

// Mismatch returns ‖Σ p·B·A − (Σ p·B)(Σ p·A)‖ / ‖Σ p·B·A‖ over all products: how far averaging the factors one by one is
// from the mean that is meant.
func (ps Products) Mismatch(updates []Update) (float64, error) {
	w, err := weights(updates)
	if err != nil {
		return 0, err
	}
	var off, all float64
	for _, p := range ps {
		exact, err := p.stack(updates, w)
		if err != nil {
			return 0, err
		}
		r := exact.rank / len(updates)
		one := factor{rank: r, in: exact.in, out: exact.out, a: make([]float64, r*exact.in), b: make([]float64, exact.out*r)}
		for c, u := range updates {
			f, err := p.of(u.Tensors)
			if err != nil {
				return 0, err
			}
			if f.rank != r {
				return 0, fmt.Errorf("federation: client %s has rank %d, others %d: their factors have no mean", u.Client, f.rank, r)
			}
			for i, v := range f.a {
				one.a[i] += w[c] * v
			}
			for i, v := range f.b {
				one.b[i] -= w[c] * v
			}
		}
		all += exact.squaredNorm()
		off += exact.beside(one).squaredNorm()
	}
	if all == 0 {
		return 0, nil
	}
	return math.Sqrt(max(0, off) / all), nil
}

// beside returns the factors of the sum of two products.
func (f factor) beside(g factor) factor {
	out := factor{rank: f.rank + g.rank, in: f.in, out: f.out, a: append(slices.Clone(f.a), g.a...)}
	for o := range f.out {
		out.b = append(out.b, f.b[o*f.rank:(o+1)*f.rank]...)
		out.b = append(out.b, g.b[o*g.rank:(o+1)*g.rank]...)
	}
	return out
}

// squaredNorm is ‖B·A‖², the trace of (BᵀB)(AAᵀ).
func (f factor) squaredNorm() float64 {
	var sum float64
	for i := range f.rank {
		for j := range f.rank {
			var b, a float64
			for o := range f.out {
				b += f.b[o*f.rank+i] * f.b[o*f.rank+j]
			}
			for k := range f.in {
				a += f.a[i*f.in+k] * f.a[j*f.in+k]
			}
			sum += b * a
		}
	}
	return sum
}
