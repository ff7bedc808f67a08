package methods

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"tunesmith/site"
)

// Names of the frozen copies of a start that stands for a part of the weight: A, and B with its sign turned.
const (
	startA = "start_A"
	startB = "start_B"
)

// splits reports whether the update starts as a part of the weight, which is taken off the weight: W = (W − s·B₀·A₀) +
// s·B·A. PEFT changes the weight instead; here it stays, and −B₀·A₀ is carried along.
func (o *LoRA) splits(u *update) bool { return o.splitting() && !u.embedding }

func (o *LoRA) splitting() bool { return o.Init == "pissa" || o.Init == "olora" }

// starts are the first values of A, B and −B.
type starts struct{ a, b, minusB site.Init }

// starts returns the first values of the update of a weight (out, in), which is the parameter param.
//   - uniform: A Kaiming uniform with a = √5, B 0 (PEFT's default)
//   - gaussian: A normal with deviation 1/rank, B 0
//   - orthogonal: A and B of random directions with B·A = 0
//   - pissa: the largest singular values of W (Meng et al. 2024, arXiv 2404.02948)
//   - olora: the first columns of W by QR (Büyükakyüz 2024, arXiv 2406.01775)
//   - loftq: what the storage of the base loses
//   - random: both uniform, away from the base
func (l *lora) starts(u *update, param string, out, in int) starts {
	switch {
	case u.embedding && l.Init == "random":
		return starts{a: normal(1), b: normal(1)}
	case u.embedding:
		return starts{a: zeros, b: normal(1)}
	case l.Init == "gaussian":
		return starts{a: normal(1 / float64(u.rank)), b: zeros}
	case l.Init == "random":
		return starts{a: kaiming(in), b: kaiming(u.rank)}
	case l.Init == "orthogonal":
		return starts{a: halfSpace(u, 0, true), b: halfSpace(u, 1, false)}
	case l.Init == loftQ:
		return starts{
			a: func(dst []float32, _ *rand.Rand, base func(string) []float32) { copy(dst, u.quantised(base, param).a) },
			b: func(dst []float32, _ *rand.Rand, base func(string) []float32) { copy(dst, u.quantised(base, param).b) },
		}
	case l.splits(u):
		half := func(pick func(a, b []float32) []float32) site.Init {
			return func(dst []float32, _ *rand.Rand, base func(string) []float32) {
				if u.start == nil {
					w := base(param)
					if u.transposed {
						w = transpose(w, in)
					}
					u.start = l.split(u, w, out, in)
				}
				copy(dst, pick(u.start.a, u.start.b))
			}
		}
		return starts{
			a: half(func(a, _ []float32) []float32 { return a }),
			b: half(func(_, b []float32) []float32 { return b }),
			minusB: half(func(_, b []float32) []float32 {
				b = slices.Clone(b)
				for i := range b {
					b[i] = -b[i]
				}
				return b
			}),
		}
	}
	return starts{a: kaiming(in), b: zeros}
}

// split is a part s·b·a of a weight: a (rank, in), b (out, rank).
type split struct{ a, b []float32 }

// quantised returns the start of loftq, which is found as the weight is read into its storage.
func (u *update) quantised(base func(string) []float32, param string) *split {
	if u.start == nil {
		base(param)
	}
	return u.start
}

func (l *lora) split(u *update, w []float32, out, in int) *split {
	if l.Init != "olora" {
		return singular(w, out, in, u.rank, float64(u.scale))
	}
	b := firstColumns(w, in, u.rank)
	orthonormalize(b, u.rank)
	a := timesT(w, in, b, u.rank)
	s := &split{a: make([]float32, len(a)), b: make([]float32, len(b))}
	for i := range in {
		for r := range u.rank {
			s.a[r*in+i] = float32(a[i*u.rank+r])
		}
	}
	for i, v := range b {
		s.b[i] = float32(v)
	}
	return s
}

// halfSpace fills a matrix with random combinations of every second direction of a random rotation of the rank's space,
// which depends on the module alone. rows says that the rank is the first dimension. PEFT's deviation is 1/10.
func halfSpace(u *update, first int, rows bool) site.Init {
	return func(dst []float32, rng *rand.Rand, _ func(string) []float32) {
		h := fnv.New64a()
		h.Write([]byte(u.path))
		r := u.rank
		q, own := make([]float64, r*r), rand.New(rand.NewPCG(0, h.Sum64()))
		for i := range q {
			q[i] = own.NormFloat64()
		}
		orthonormalize(q, r)
		n := len(dst) / r
		sum := make([]float64, r)
		for i := range n {
			clear(sum)
			for k := first; k < r; k += 2 {
				z := rng.NormFloat64() / 10
				for j := range sum {
					sum[j] += z * q[j*r+k]
				}
			}
			for j, v := range sum {
				if rows {
					dst[j*n+i] = float32(v)
				} else {
					dst[i*r+j] = float32(v)
				}
			}
		}
	}
}

func (u *update) bias(out int) site.Param {
	return site.Param{Name: u.name("lora_B.bias"), Shape: []int{out}, Trainable: true, Init: zeros}
}

// kaiming is PEFT's start of a matrix of that many columns.
func kaiming(in int) site.Init { return uniform(1 / math.Sqrt(float64(in))) }

func zeros([]float32, *rand.Rand, func(string) []float32) {}

func uniform(bound float64) site.Init {
	return func(dst []float32, rng *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			dst[i] = float32((2*rng.Float64() - 1) * bound)
		}
	}
}

func normal(std float64) site.Init {
	return func(dst []float32, rng *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			dst[i] = float32(rng.NormFloat64() * std)
		}
	}
}
