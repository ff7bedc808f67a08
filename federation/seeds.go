package federation

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// FedKSeed (Qin et al. 2024, arXiv 2312.06353): the directions of all steps come from a few seeds, and a step is a
// number, so that clients and server exchange one number a seed instead of parameters.
//
//	g = (L(θ + εz) − L(θ − εz)) / 2ε along the direction z of a seed,  θ ← θ − rate·g·z
//
// The sum of a seed's numbers is all that the parameters depend on, since the rate does not change.

// probeSize is ε.
const probeSize = 1e-3

// direction fills x with the direction of a seed at a tensor.
func direction(x []float32, seed, tensor int) {
	rng := rand.New(rand.NewPCG(uint64(seed), uint64(tensor)))
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
}

// along adds f times a seed's direction to tensors.
func along(tensors [][]float32, seed int, f float32) {
	var z []float32
	for i, t := range tensors {
		if cap(z) < len(t) {
			z = make([]float32, len(t))
		}
		z = z[:len(t)]
		direction(z, seed, i)
		for k := range t {
			t[k] += f * z[k]
		}
	}
}

// replay returns the parameters that numbers of all seeds lead to.
func replay(start []Tensor, scalars []float64, rate float64) []Tensor {
	out := clone(start)
	for seed, g := range scalars {
		if g != 0 {
			along(values(out), seed, float32(-rate*g))
		}
	}
	return out
}

// probe makes a step along the direction of a drawn seed and enters its number.
func (l *Learner) probe(ctx context.Context, job Job, i int, scalars []float64) (float64, error) {
	batches, err := l.loader.Next()
	if err != nil {
		return 0, err
	}
	if err := l.session.ReferLocally(ctx, batches); err != nil {
		return 0, err
	}
	seed := int(seedOf(l.session.Config.Seed, "seed", l.name, job.Round, i) % uint64(len(scalars)))
	var params [][]float32
	for _, p := range l.session.Params() {
		params = append(params, p.Value)
	}
	at := func(move float32) (float64, error) {
		along(params, seed, move)
		l.session.Changed()
		return l.session.Loss(ctx, batches)
	}
	up, err := at(probeSize)
	if err != nil {
		return 0, err
	}
	down, err := at(-2 * probeSize)
	if err != nil {
		return 0, err
	}
	g := (up - down) / (2 * probeSize)
	scalars[seed] += g
	along(params, seed, float32(probeSize-l.rate*g))
	l.session.Changed()
	return (up + down) / 2, nil
}

func encodeScalars(x []float64) []byte {
	b := make([]byte, 0, 8*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

func decodeScalars(b []byte, n int) ([]float64, bool) {
	if len(b) != 8*n {
		return nil, false
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		if math.IsNaN(out[i]) || math.IsInf(out[i], 0) {
			return nil, false
		}
	}
	return out, true
}
