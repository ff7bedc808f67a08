package trainer

import (
	"context"

	"tunesmith/data"
	"tunesmith/optim"
	"tunesmith/site"
)

// probe makes gradients without a backward pass, by simultaneous perturbation (MeZO, Malladi et al. 2023, arXiv
// 2305.17333): along a random direction z the slope is
//
//	g ≈ (L(θ + ε·z) − L(θ − ε·z)) / 2ε,  and the gradient g·z
//
// The direction is a function of the run's seed, the step and the parameter's name. The parameters are kept apart
// while they are displaced, so that a step that is cancelled leaves them bit for bit.
type probe struct {
	z, kept [][]float32
}

// epsilon is the displacement along the direction.
const epsilon = 1e-3

func newProbe(params []optim.Param) *probe {
	p := &probe{}
	for _, x := range params {
		p.z = append(p.z, make([]float32, len(x.Value)))
		p.kept = append(p.kept, make([]float32, len(x.Value)))
	}
	return p
}

// floats is the size of the directions and of the copies.
func (p *probe) floats() int {
	n := 0
	if p != nil {
		for _, z := range p.z {
			n += 2 * len(z)
		}
	}
	return n
}

// estimate fills the gradients of a step and returns the mean of the two losses.
func (s *Stepper) estimate(ctx context.Context, batches []data.Batch) (float64, error) {
	p := s.probe
	for k, x := range s.params {
		copy(p.kept[k], x.Value)
		direction(p.z[k], s.seed, s.step, x.Name)
	}
	defer s.displace(0)
	s.displace(epsilon)
	up, err := s.Loss(ctx, batches)
	if err != nil {
		return 0, err
	}
	s.displace(-epsilon)
	down, err := s.Loss(ctx, batches)
	if err != nil {
		return 0, err
	}
	slope := float32((up - down) / (2 * epsilon))
	for k := range s.params {
		for i := range p.z[k] {
			p.z[k][i] *= slope
		}
		s.params[k].Grad = p.z[k]
	}
	return (up + down) / 2, nil
}

// direction fills z with normal deviates.
func direction(z []float32, seed uint64, step int, name string) {
	rng := site.Generator(seed^uint64(step)*0x9e3779b97f4a7c15, name)
	for i := range z {
		z[i] = float32(rng.NormFloat64())
	}
}

// displace puts the parameters at a distance along the direction from where they stand; 0 puts them back.
func (s *Stepper) displace(by float32) {
	p := s.probe
	for k, x := range s.params {
		s.parallel(len(x.Value), func(lo, hi int) {
			if by == 0 {
				copy(x.Value[lo:hi], p.kept[k][lo:hi])
				return
			}
			for i := lo; i < hi; i++ {
				x.Value[i] = p.kept[k][i] + by*p.z[k][i]
			}
		})
	}
	for _, t := range s.tensors {
		t.Touch()
	}
}
