package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/optim"
	"tunesmith/privacy"
	"tunesmith/tune"
)

// Params returns the trained parameters, frozen ones among them. Values are the model's own memory: who changes them
// calls Changed.
func (s *Stepper) Params() []optim.Param {
	if s.every != nil {
		return s.every
	}
	return s.params
}

// Changed tells the engine that values of parameters were changed from outside.
func (s *Stepper) Changed() {
	for _, t := range s.tensors {
		t.Touch()
	}
}

// Freeze leaves parameters as they are in the steps that follow; nil trains all of them again. The optimizer begins anew.
func (s *Stepper) Freeze(frozen func(name string) bool) error {
	all := s.Params()
	var left []optim.Param
	for _, p := range all {
		if frozen == nil || !frozen(p.Name) {
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		return errors.New("nothing trains: every parameter is frozen")
	}
	s.every, s.params, s.sums = all, left, nil
	return s.Begin(s.step, optim.State{})
}

// Begin sets the number of steps that are behind, which the schedule and the dropouts depend on, and the optimizer's
// state; an empty one begins anew.
func (s *Stepper) Begin(step int, o optim.State) error {
	if o.Counters == nil {
		o = s.fresh
	}
	if err := s.optimizer.Restore(o); err != nil {
		return err
	}
	s.step = step
	return nil
}

// OptimizerState returns what Begin goes on from. Its tensors change with the next step.
func (s *Stepper) OptimizerState() optim.State { return s.optimizer.State() }

// Private says how StepPrivately protects each example.
type Private struct {
	Limit    float64 // largest norm of an example's gradient
	Noise    float64 // noise multiplier
	Expected float64 // examples of a step, on average
	Source   *privacy.Noise
}

// StepPrivately makes a step that no single example moves by much (DP-SGD, Abadi et al. 2016, arXiv 1607.00133): the
// gradient of each batch, which holds one example, is clipped, and the sum is blurred. There may be no batch at all.
func (s *Stepper) StepPrivately(ctx context.Context, examples []data.Batch, p Private) (StepResult, error) {
	r := StepResult{Step: s.step + 1, LR: s.schedule(s.step)}
	sum := privacy.Sum{Limit: p.Limit}
	for _, param := range s.params {
		sum.Values = append(sum.Values, make([]float64, len(param.Value)))
	}
	grads := make([][]float32, len(s.params))
	for _, b := range examples {
		total := s.programs.weight(b)
		if total == 0 {
			continue
		}
		loss, err := s.accumulate(ctx, b, 0, 1, total, newValues())
		if err != nil {
			return r, err
		}
		for i, param := range s.params {
			grads[i] = param.Grad
		}
		if norm := privacy.Norm(grads); !finite(loss) || !finite(norm) {
			return r, fmt.Errorf("step %d: loss %v, gradient norm %v: %w", r.Step, loss/total, norm, ErrDiverged)
		}
		sum.Add(grads)
		r.Loss += loss / total
		r.Tokens, r.Supervised = r.Tokens+b.Tokens, r.Supervised+b.Supervised
	}
	r.Loss /= float64(max(1, sum.Terms))
	sum.Blur(p.Noise, p.Source)
	for i := range s.params {
		g := make([]float32, len(sum.Values[i]))
		for k, v := range sum.Values[i] {
			g[k] = float32(v / p.Expected)
		}
		s.params[i].Grad = g
	}
	r.GradNorm = optim.Norm(s.params, 2, s.parallel)
	if err := s.optimizer.Step(s.params, r.LR); err != nil {
		return r, err
	}
	s.Changed()
	s.step++
	return r, nil
}

// ReferLocally gives batches their reference, if the objective has one, at any time: it is the base with its grafts off,
// whatever they have become. Without such a base there is an error.
func (s *Stepper) ReferLocally(ctx context.Context, batches []data.Batch) error {
	needed, _ := s.refers()
	if !needed {
		return nil
	}
	for _, p := range s.programs.model.Sites.Trainable() {
		if p.Base || s.continues {
			return errors.New("the objective compares with the base, which is gone once its own values train or an adapter is gone on from; take a method that leaves the base alone")
		}
	}
	return s.Refer(ctx, batches)
}

// LoaderOf returns a loader of examples with the run's settings.
func (s *Session) LoaderOf(examples *data.Store) (*data.Loader, error) {
	return s.loader(examples, s.Config.BatchSize, s.Config.Accumulation, true)
}

// SingleLoaderOf returns a loader that gives the examples one by one, in their order.
func (s *Session) SingleLoaderOf(examples *data.Store) (*data.Loader, error) {
	return data.NewLoader(examples, data.LoaderConfig{BatchSize: 1, Seed: s.Config.Seed, PadID: int32(max(s.Text.Tokenizer.Pad(), 0))})
}

// BatchesOf lays up to most examples into batches for an evaluation.
func (s *Session) BatchesOf(examples *data.Store, most int) ([]data.Batch, error) {
	return s.batches(examples, most)
}

// PrepareModel puts a run together without its data: what leads others, and trains nothing itself, needs no more.
func PrepareModel(ctx context.Context, c *tune.Run, f Files) (s *Session, err error) {
	s = &Session{Config: c, Ledger: &data.Ledger{}, Examples: data.NewStore("", math.MaxInt), Held: data.NewStore("", math.MaxInt)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	base, objective, err := s.open(f)
	if err != nil {
		return s, err
	}
	if s.Backend, err = engine.Open("cpu", engine.Options{Precision: engine.Precision(c.Precision)}); err != nil {
		return s, err
	}
	if err := s.adapt(ctx, base); err != nil {
		return s, err
	}
	s.Trainer = &Trainer{Eval: map[string][]data.Batch{}, Schedule: Schedule{Steps: max(1, c.MaxSteps)}}
	s.Stepper, err = s.stepper(objective)
	return s, err
}
