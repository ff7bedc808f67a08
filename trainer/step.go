package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/tune"
)

// Stepper makes optimizer steps on batches: forward, backward, accumulation, clipping, update.
type Stepper struct {
	programs  programs
	params    []optim.Param
	tensors   []*engine.Tensor
	optimizer optim.Optimizer
	schedule  optim.Schedule
	clip      float64
	seed      uint64
	parallel  optim.Parallel
	sums      [][]float32   // gradients of the accumulation, one per parameter
	step      int           // optimizer steps made
	every     []optim.Param // with the frozen ones, where some are
	fresh     optim.State   // the optimizer's before its first step
	probe     *probe        // of forward-only steps; nil for gradients by the backward pass
	known     references
	tasks     *Tasks        // of a mixture; nil where the data is one
	learn     func(float64) // what a step's mixture learns from it, when it is made
	continues bool          // the reference is the model with its grafts as they were at the start

	// Correct, where it is set, changes the gradients of a step before they are clipped.
	Correct func(params []optim.Param)
}

// StepConfig is what a Stepper is made of.
type StepConfig struct {
	Model     *model.Adapted
	Backend   engine.Backend
	Objective tune.Objective
	Optimizer optim.Optimizer
	Schedule  optim.Schedule
	Group     func(name string) int // number of a parameter's optimizer group; nil for 0
	Clip      float64               // largest norm of the gradient, 0 for no limit
	Recompute bool                  // keep only the layers' inputs for the backward pass
	// ForwardOnly estimates the gradient from two forward passes instead of a backward pass.
	ForwardOnly bool
	Seed        uint64         // of the dropouts
	Continues   bool           // the grafts hold what another run has trained, which is then the reference
	Parallel    optim.Parallel // as given to the optimizer
}

// NewStepper returns a stepper that stands before the first step.
func NewStepper(c StepConfig) (*Stepper, error) {
	s := &Stepper{
		programs:  programs{model: c.Model, backend: c.Backend, objective: c.Objective, recompute: c.Recompute, cache: engine.NewCache(16), shared: map[string]bool{}, inputs: map[string]bool{}},
		tensors:   c.Model.Trained(),
		optimizer: c.Optimizer, schedule: c.Schedule, clip: c.Clip, seed: c.Seed, parallel: c.Parallel, continues: c.Continues, known: references{},
	}
	if s.parallel == nil {
		s.parallel = func(n int, f func(lo, hi int)) { f(0, n) }
	}
	if len(s.tensors) == 0 {
		return nil, errors.New("nothing trains: the method chose no parameter")
	}
	for _, t := range s.tensors {
		group := 0
		if c.Group != nil {
			group = c.Group(t.Name)
		}
		s.params = append(s.params, optim.Param{Name: t.Name, Shape: t.Shape, Value: t.Values, Group: group})
	}
	s.fresh = s.optimizer.State()
	if c.ForwardOnly {
		s.probe = newProbe(s.params)
	}
	return s, nil
}

// StepResult is what a step was.
type StepResult struct {
	Step       int     // from 1
	Loss       float64 // mean over the supervised tokens of the whole accumulation
	GradNorm   float64 // before clipping
	LR         float64
	Tokens     int // without padding
	Supervised int
	Values     map[string]float64 // metrics of the objective
}

// ErrDiverged is the loss or the gradient of a step that is no number.
var ErrDiverged = errors.New("the loss or its gradient is no finite number")

// Step makes one optimizer step on the batches of an accumulation. On an error the parameters are as before it.
func (s *Stepper) Step(ctx context.Context, batches []data.Batch) (StepResult, error) {
	r := StepResult{Step: s.step + 1}
	var total float64
	for _, b := range batches {
		total += s.programs.weight(b)
		r.Tokens += b.Tokens
		r.Supervised += b.Supervised
	}
	if total == 0 {
		return r, errors.New("no token of the step is supervised")
	}
	for i, b := range batches {
		b, err := s.refer(ctx, b)
		if err != nil {
			return r, err
		}
		batches[i] = b
	}
	if err := s.gradients(ctx, batches, total, &r); err != nil {
		return r, err
	}
	if s.Correct != nil {
		s.Correct(s.params)
	}
	limit := math.Inf(1)
	if s.clip > 0 {
		limit = s.clip
	}
	r.GradNorm = optim.Norm(s.params, 2, s.parallel)
	if !finite(r.Loss) || !finite(r.GradNorm) {
		return r, fmt.Errorf("step %d: loss %v, gradient norm %v: %w", r.Step, r.Loss, r.GradNorm, ErrDiverged)
	}
	if r.GradNorm > limit {
		optim.Scale(s.params, limit/(r.GradNorm+1e-6), s.parallel)
	}
	r.LR = s.schedule(s.step)
	if err := s.optimizer.Step(s.params, r.LR); err != nil {
		return r, err
	}
	for _, t := range s.tensors {
		t.Touch()
	}
	if s.learn != nil {
		s.learn(r.LR)
		s.learn = nil
	}
	s.step++
	return r, nil
}

// gradients fills the gradients and the loss of a step.
func (s *Stepper) gradients(ctx context.Context, batches []data.Batch, total float64, r *StepResult) (err error) {
	if s.probe != nil {
		r.Loss, err = s.estimate(ctx, batches)
		return err
	}
	if s.tasks != nil && s.tasks.combiner != nil {
		return s.byTask(ctx, batches, total, r)
	}
	v := newValues()
	for i, b := range batches {
		to := further
		switch {
		case len(batches) == 1:
			to = alone
		case i == 0:
			to = first
		}
		sum, err := s.accumulate(ctx, b, i, to, total, v)
		if err != nil {
			return err
		}
		r.Loss += sum / total
	}
	r.Values = v.means()
	return nil
}

// place says where a batch's gradients go.
type place uint8

const (
	alone   place = iota // they stay in the program's memory
	first                // they begin a sum
	further              // they are added to the sum
)

// accumulate runs batch i of a step and adds its gradients, already divided by the total weight. The gradients of a
// single batch stay in the program's memory; those of several are summed apart, since the program runs again.
func (s *Stepper) accumulate(ctx context.Context, b data.Batch, i int, to place, total float64, v values) (sum float64, err error) {
	program, err := s.programs.get(backward, b)
	if err != nil {
		return 0, err
	}
	in := s.programs.feeds(b)
	in["scale"] = []float32{float32(1 / total)}
	key := s.seed ^ uint64(s.step)*0x9e3779b97f4a7c15 + uint64(i)
	in["dropout"] = []int32{int32(key), int32(key >> 32)}
	if err := program.Run(ctx, in); err != nil {
		return 0, err
	}
	if to != alone && s.sums == nil {
		s.sums = make([][]float32, len(s.params))
		for k, p := range s.params {
			s.sums[k] = make([]float32, len(p.Value))
		}
	}
	for k := range s.params {
		p := &s.params[k]
		grad := program.Output("grad." + p.Name)
		if to == alone {
			p.Grad = grad
			continue
		}
		p.Grad = s.sums[k]
		if to == first {
			copy(p.Grad, grad)
			continue
		}
		for j, g := range grad {
			p.Grad[j] += g
		}
	}
	v.add(&s.programs, program, s.programs.weight(b))
	return float64(program.Output("sum")[0]), nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Loss returns the mean loss of batches, without dropout and without a step.
func (s *Stepper) Loss(ctx context.Context, batches []data.Batch) (float64, error) {
	loss, _, err := s.Measure(ctx, batches)
	return loss, err
}

// Measure is Loss with the objective's metrics.
func (s *Stepper) Measure(ctx context.Context, batches []data.Batch) (loss float64, metrics map[string]float64, err error) {
	var sum, total float64
	v := newValues()
	for i, b := range batches {
		if b, err = s.refer(ctx, b); err != nil {
			return 0, nil, err
		}
		batches[i] = b
		part, err := s.programs.loss(ctx, b, v)
		if err != nil {
			return 0, nil, err
		}
		sum += part
		total += s.programs.weight(b)
	}
	if total == 0 {
		return 0, nil, errors.New("no token is supervised")
	}
	return sum / total, v.means(), nil
}

// TextLoss returns the mean loss of batches as text, whatever the objective.
func (s *Stepper) TextLoss(ctx context.Context, batches []data.Batch) (float64, error) {
	var sum, total float64
	for _, b := range batches {
		program, err := s.programs.get(language, b)
		if err != nil {
			return 0, err
		}
		if err := program.Run(ctx, tokens(b)); err != nil {
			return 0, err
		}
		sum += float64(program.Output("sum")[0])
		total += weight(b)
	}
	if total == 0 {
		return 0, errors.New("the text has no token to predict")
	}
	return sum / total, nil
}

// Memory returns the memory of the pass over a batch of the shape, known before it runs.
func (s *Stepper) Memory(rows, cols int) (engine.Memory, error) {
	return s.memory(data.Batch{Rows: rows, Cols: cols})
}

func (s *Stepper) memory(b data.Batch) (engine.Memory, error) {
	kind := backward
	if s.probe != nil {
		kind = forward
	}
	p, err := s.programs.get(kind, b)
	if err != nil {
		return engine.Memory{}, err
	}
	return p.Memory(), nil
}

// OptimizerBytes returns what the optimizer's state takes, and the directions and copies of forward-only steps.
func (s *Stepper) OptimizerBytes() int64 {
	return 4 * int64(s.optimizer.Floats(s.params)+s.probe.floats())
}
