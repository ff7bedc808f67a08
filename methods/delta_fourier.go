package methods

import (
	"math"
	"math/rand/v2"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// fourierScale is PEFT's default strength.
const fourierScale = 150

// fourier is W + s·Re F⁻¹(S), S zero but for coefficients c at random places (u, v) (Gao et al. 2024, arXiv 2405.03003):
//
//	s/(out·in) · Σ c·cos 2π(o·u/out + i·v/in) = s/(out·in) · Σ c·(cos a·cos b − sin a·sin b)
//
// so the change is a product of two frozen matrices of cosines and sines with the coefficients between.
type fourier struct{}

// places returns the frequencies of a module.
func (fourier) places(d *delta, at site.Linear) (u, v []int) {
	for _, p := range newTorchRandom(d.Seed).permutation(at.Out*at.In, d.Frequencies) {
		u, v = append(u, p/at.In), append(v, p%at.In)
	}
	return u, v
}

func (fourier) tensors(d *delta, _ site.Linear) []site.Param {
	return []site.Param{{Name: "fourierft_spectrum", Shape: []int{d.Frequencies}, Init: zeros}}
}

// waves fills rows of cosines, then of sines of the frequencies f over n places.
func waves(f func() []int, n int) site.Init {
	return func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		list := f()
		for k, freq := range list {
			for i := range n {
				sin, cos := math.Sincos(2 * math.Pi * float64(freq*i%n) / float64(n))
				dst[k*n+i], dst[(len(list)+k)*n+i] = float32(cos), float32(-sin)
			}
		}
	}
}

func (v fourier) graft(s *site.Scope, d *delta, at site.Linear, x, y *graph.Node, p []*graph.Node) *graph.Node {
	n := d.Frequencies
	rows := func() []int { u, _ := v.places(d, at); return u }
	columns := func() []int { _, v := v.places(d, at); return v }
	name := tune.PEFTPrefix + at.Path + ".waves_"
	in := s.Declare(site.Param{Name: name + "in", Shape: []int{2 * n, at.In}, Init: waves(columns, at.In)})
	out := s.Declare(site.Param{Name: name + "out", Shape: []int{2 * n, at.Out}, Init: waves(rows, at.Out)})
	// Both tables hold −sin, so the product of sines has the sign + and takes it from the coefficients.
	c := graph.Join(0, p[0], graph.Scale(p[0], -1))
	dy := graph.ProjectT(graph.Times(graph.Project(x, in), c), out)
	return graph.Plus(y, graph.Scale(dy, float32(d.strength()/float64(at.Out*at.In))))
}

func (o *Delta) strength() float64 {
	if o.Alpha > 0 {
		return o.Alpha
	}
	return fourierScale
}

func (v fourier) merge(d *delta, at site.Linear, w []float32, p [][]float32, _ func(string) []float32) error {
	us, vs := v.places(d, at)
	f := d.strength() / float64(at.Out*at.In)
	cos := func(n int) (list [][2]float64) {
		for i := range n {
			s, c := math.Sincos(2 * math.Pi * float64(i) / float64(n))
			list = append(list, [2]float64{c, s})
		}
		return list
	}
	out, in := cos(at.Out), cos(at.In)
	sum := make([]float64, at.In)
	for o := range at.Out {
		clear(sum)
		for k, c := range p[0] {
			a := out[o*us[k]%at.Out]
			for i := range sum {
				b := in[i*vs[k]%at.In]
				sum[i] += float64(c) * (a[0]*b[0] - a[1]*b[1])
			}
		}
		for i, x := range sum {
			w[o*at.In+i] = float32(float64(w[o*at.In+i]) + f*x)
		}
	}
	return nil
}

func (fourier) read(o *Delta, r *peftKeys) {
	o.Frequencies, o.Alpha = key(r, "n_frequency", 1000), key(r, "scaling", float64(fourierScale))
	o.Seed = key(r, "random_loc_seed", uint64(777))
}

func (fourier) write(o *Delta, c map[string]any) {
	c["n_frequency"], c["scaling"], c["random_loc_seed"], c["bias"] = o.Frequencies, o.strength(), o.Seed, "none"
}

// torchRandom is torch's generator of random numbers for processors, the Mersenne twister MT19937 (Matsumoto and
// Nishimura 1998).
type torchRandom struct {
	state [624]uint32
	next  int
}

func newTorchRandom(seed uint64) *torchRandom {
	g := &torchRandom{next: 624}
	g.state[0] = uint32(seed)
	for i := 1; i < len(g.state); i++ {
		g.state[i] = 1812433253*(g.state[i-1]^g.state[i-1]>>30) + uint32(i)
	}
	return g
}

func (g *torchRandom) uint32() uint32 {
	const n, m = 624, 397
	if g.next == n {
		for i := range g.state {
			y := g.state[i]&0x80000000 | g.state[(i+1)%n]&0x7fffffff
			g.state[i] = g.state[(i+m)%n] ^ y>>1 ^ (y&1)*0x9908b0df
		}
		g.next = 0
	}
	y := g.state[g.next]
	g.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// float32 returns a number in [0, 1) of 24 bits.
func (g *torchRandom) float32() float32 { return float32(g.uint32()&(1<<24-1)) / (1 << 24) }

// permutation returns the first numbers of a random permutation of 0 … n−1.
func (g *torchRandom) permutation(n, first int) []int {
	moved := map[int]int{} // what stands at a place that was exchanged
	at := func(i int) int {
		if v, ok := moved[i]; ok {
			return v
		}
		return i
	}
	out := make([]int, min(n, first))
	for i := range out {
		j := i
		if i < n-1 {
			j += int(g.uint32() % uint32(n-i))
		}
		out[i], moved[j] = at(j), at(i)
	}
	return out
}
