package quality

import (
	"crypto/sha1"
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/zeebo/xxh3"
)

// Permutation is a family of hash functions that are numbered by two factors a and b.
type Permutation uint8

const (
	// Affine mixes the 32-bit hash and takes (a·h + b) mod 2³², as datasketch 2 does.
	Affine Permutation = iota
	// Mersenne takes ((a·h + b) mod 2⁶⁴ mod (2⁶¹ − 1)) and its low 32 bits, as datasketch 1 and datatrove at a
	// precision of 32 bits do.
	Mersenne
	// WideMersenne is Mersenne without the cut to 32 bits: datatrove at a precision of 64 bits.
	WideMersenne
)

const mersenne61 = 1<<61 - 1

// MinHash turns sets of shingles into signatures (Broder 1997): how many places of two signatures agree estimates the
// Jaccard index of the sets.
type MinHash struct {
	Permutation Permutation
	A, B        []uint64
}

// NewMinHash returns a MinHash of n places. Its factors are a function of the seed.
func NewMinHash(n int, seed uint64) *MinHash {
	rng := rand.New(rand.NewPCG(seed, 0x6d696e68617368))
	m := &MinHash{A: make([]uint64, n), B: make([]uint64, n)}
	for i := range n {
		m.A[i], m.B[i] = uint64(rng.Uint32()|1), uint64(rng.Uint32())
	}
	return m
}

// Signature returns the minimum of every permutation over the hashes. Of an empty set all places hold the largest
// value, so that empty sets resemble each other: leave them out.
func (m *MinHash) Signature(hashes []uint64) []uint64 {
	sig := make([]uint64, len(m.A))
	for i := range sig {
		sig[i] = math.MaxUint32
		if m.Permutation == WideMersenne {
			sig[i] = math.MaxUint64
		}
	}
	for _, h := range hashes {
		if m.Permutation == Affine {
			x := uint32(h)
			x ^= x >> 16
			x *= 0x85ebca6b
			x ^= x >> 13
			x *= 0xc2b2ae35
			x ^= x >> 16
			for i, a := range m.A {
				sig[i] = min(sig[i], uint64(uint32(a)*x+uint32(m.B[i])))
			}
			continue
		}
		for i, a := range m.A {
			v := (a*h + m.B[i]) % mersenne61
			if m.Permutation == Mersenne {
				v &= math.MaxUint32
			}
			sig[i] = min(sig[i], v)
		}
	}
	return sig
}

// Hash32 is the hash of a shingle in datasketch's form: the first four bytes of its SHA-1, little-endian.
func Hash32(s string) uint64 {
	sum := sha1.Sum([]byte(s))
	return uint64(binary.LittleEndian.Uint32(sum[:]))
}

// Hashes applies a hash to all shingles.
func Hashes(shingles []string, hash func(string) uint64) []uint64 {
	out := make([]uint64, len(shingles))
	for i, s := range shingles {
		out[i] = hash(s)
	}
	return out
}

// Agreement returns the share of places in which two signatures agree, an estimate of the Jaccard index.
func Agreement(a, b []uint64) float64 {
	n := 0
	for i := range a {
		if a[i] == b[i] {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

// Jaccard returns the size of the intersection over that of the union.
func Jaccard(a, b []string) float64 {
	in := make(map[string]bool, len(a))
	for _, s := range a {
		in[s] = true
	}
	both := 0
	for _, s := range b {
		if in[s] {
			both++
		}
	}
	if union := len(a) + len(b) - both; union > 0 {
		return float64(both) / float64(union)
	}
	return 0
}

// Collision returns the probability that texts of a Jaccard index share at least one of b bands of r places.
func Collision(jaccard float64, b, r int) float64 {
	return 1 - math.Pow(1-math.Pow(jaccard, float64(r)), float64(b))
}

// Bands chooses bands and rows for signatures of n places so that false positives below a threshold and false negatives
// above it, weighed alike, are fewest; the integrals are datasketch's midpoint sums.
func Bands(threshold float64, n int) (b, r int) {
	const step = 0.001
	least := math.Inf(1)
	for bands := 1; bands <= n; bands++ {
		for rows := 1; rows <= n/bands; rows++ {
			var wrong float64
			for x := 0.0; x < threshold; x += step {
				wrong += Collision(x+step/2, bands, rows) * step
			}
			for x := threshold; x < 1; x += step {
				wrong += (1 - Collision(x+step/2, bands, rows)) * step
			}
			if wrong < least {
				least, b, r = wrong, bands, rows
			}
		}
	}
	return b, r
}

// Index finds signatures that share a band with a given one (locality-sensitive hashing).
type Index struct {
	bands, rows int
	sigs        map[int][]uint64
	buckets     []map[uint64][]int
}

// NewIndex returns an empty index of b bands of r places.
func NewIndex(b, r int) *Index {
	x := &Index{bands: b, rows: r, sigs: map[int][]uint64{}, buckets: make([]map[uint64][]int, b)}
	for i := range x.buckets {
		x.buckets[i] = map[uint64][]int{}
	}
	return x
}

// key is the hash of a band; Near looks at the places themselves.
func (x *Index) key(sig []uint64, band int) uint64 {
	var b [8]byte
	h := uint64(band)
	for _, v := range sig[band*x.rows : (band+1)*x.rows] {
		binary.LittleEndian.PutUint64(b[:], v)
		h = xxh3.HashSeed(b[:], bits.RotateLeft64(h, 7))
	}
	return h
}

// Add enters a signature under a number.
func (x *Index) Add(id int, sig []uint64) {
	x.sigs[id] = sig
	for band := range x.bands {
		k := x.key(sig, band)
		x.buckets[band][k] = append(x.buckets[band][k], id)
	}
}

// Near returns the numbers of the signatures that share a band with sig, each once, in the order of the bands.
func (x *Index) Near(sig []uint64) []int {
	var out []int
	seen := map[int]bool{}
	for band := range x.bands {
		for _, id := range x.buckets[band][x.key(sig, band)] {
			if !seen[id] && equalBand(x.sigs[id], sig, band*x.rows, x.rows) {
				seen[id] = true
				out = append(out, id)
			}
		}
	}
	return out
}

// Signature returns the signature that was entered under a number.
func (x *Index) Signature(id int) []uint64 { return x.sigs[id] }

func equalBand(a, b []uint64, at, n int) bool {
	for i := at; i < at+n; i++ {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Clusters joins pairs of numbers below n to groups of two and more, each sorted, in the order of their first number.
func Clusters(n int, pairs [][2]int) [][]int {
	root := make([]int, n)
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			root[i] = root[root[i]]
			i = root[i]
		}
		return i
	}
	for _, p := range pairs {
		a, b := find(p[0]), find(p[1])
		root[max(a, b)] = min(a, b)
	}
	groups := make([][]int, n)
	for i := range n {
		groups[find(i)] = append(groups[find(i)], i)
	}
	var out [][]int
	for _, g := range groups {
		if len(g) > 1 {
			out = append(out, g)
		}
	}
	return out
}
