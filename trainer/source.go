package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/optim"
	"tunesmith/runs"
	"tunesmith/tune"
)

// Source gives the batches of a run whose examples the model itself makes.
type Source interface {
	// Next returns the batches of the next step: the same ones until Done.
	Next(ctx context.Context) ([]data.Batch, error)
	// Done hears that the step was made, may add metrics to it, and may return an error that wraps ErrEnough.
	Done(ctx context.Context, r *StepResult) error
	// Evaluate returns the loss on what is held out as runs.Eval, and metrics as split/name.
	Evaluate(ctx context.Context) (map[string]float64, error)
	// Save adds what Restore needs to go on with the same bits.
	Save(s *checkpoint.State) error
	Restore(s checkpoint.State) error
}

// Sampled is an objective whose batches come from a source.
type Sampled interface {
	// Samples reports whether they do, with the options as they are.
	Samples() bool
	// Prompts returns how many prompts a rollout takes, given the rows of a step, and how many steps it is good for.
	Prompts(rows int) (prompts, steps int, err error)
	// Room is how many tokens an answer may add to its prompt.
	Room() int
	// Open returns the source of a session that is otherwise complete.
	Open(s *Session) (Source, error)
}

// ErrEnough ends a run early: a rule to stop has been met, and what was reached is kept.
var ErrEnough = errors.New("stopped by a rule")

// sampled returns the objective as one whose batches come from a source.
func sampled(o any) (Sampled, bool) {
	s, ok := o.(Sampled)
	return s, ok && s.Samples()
}

// next returns the batches of the next step.
func (t *Trainer) next(ctx context.Context) ([]data.Batch, error) {
	if t.Source != nil {
		return t.Source.Next(ctx)
	}
	return t.Loader.Next()
}

// done tells the source of a step; enough is set where a rule ends the run.
func (t *Trainer) done(ctx context.Context, r *StepResult) error {
	if t.Source == nil {
		return nil
	}
	err := t.Source.Done(context.WithoutCancel(ctx), r)
	if !errors.Is(err, ErrEnough) {
		return err
	}
	t.Schedule.Steps = r.Step
	return t.Run.Event(runs.Event{Step: r.Step, Kind: runs.EventWarning, Message: err.Error()})
}

// LogProbs returns the log-probability of each target of a batch at the objective's temperature, under the model, or
// under its base without the grafts, which is there as long as none of the base's own values train.
func (s *Stepper) LogProbs(ctx context.Context, b data.Batch, base bool) ([]float32, error) {
	if !base {
		return s.programs.logProbs(ctx, current, b)
	}
	if i := slices.IndexFunc(s.programs.model.Sites.Trainable(), paramOfBase); i >= 0 {
		return nil, errors.New("the reference is the model without what trains, but its own weights train: set beta and the limits of the divergence to 0, or choose a parameters method that adds to the model")
	}
	return s.programs.logProbs(ctx, reference, b)
}

// Values returns the outputs (rows, columns) of a model with a head of one label.
func (s *Stepper) Values(ctx context.Context, b data.Batch) ([]float32, error) {
	return s.programs.logProbs(ctx, outputs, b)
}

// Tensors appends the trained values and the optimizer's state to a checkpoint under a prefix.
func (s *Stepper) Tensors(prefix string, to *checkpoint.State) error {
	own := s.optimizer.State()
	for _, p := range s.params {
		to.Tensors = append(to.Tensors, checkpoint.Float32Tensor(prefix+paramPrefix+p.Name, p.Shape, p.Value))
	}
	for _, x := range own.Tensors {
		if x.Codes != nil {
			return fmt.Errorf("%s: choose an optimizer of full precision", x.Name)
		}
		to.Tensors = append(to.Tensors, checkpoint.Float32Tensor(prefix+optimPrefix+x.Name+":"+x.Param, x.Shape, x.Data))
	}
	text, err := json.Marshal(ownState{s.step, own.Counters})
	to.Meta[prefix] = text
	return err
}

type ownState struct {
	Step     int              `json:"step"`
	Counters map[string]int64 `json:"counters"`
}

// RestoreTensors reads what Tensors wrote.
func (s *Stepper) RestoreTensors(prefix string, from checkpoint.State) error {
	var at ownState
	if err := json.Unmarshal(from.Meta[prefix], &at); err != nil {
		return fmt.Errorf("checkpoint: %s: %w", prefix, err)
	}
	found := map[string]checkpoint.Tensor{}
	state := optim.State{Counters: at.Counters}
	for _, x := range from.Tensors {
		rest, ok := strings.CutPrefix(x.Name, prefix)
		if !ok {
			continue
		}
		found[rest] = x
		if name, param, ok := splitOptim(rest); ok {
			state.Tensors = append(state.Tensors, optim.StateTensor{Param: param, Name: name, Shape: x.Shape, Data: x.Float32s()})
		}
	}
	for _, p := range s.params {
		x, ok := found[paramPrefix+p.Name]
		if !ok || !slices.Equal(x.Shape, p.Shape) {
			return fmt.Errorf("checkpoint: parameter %q of shape %v is not in it", prefix+p.Name, p.Shape)
		}
		copy(p.Value, x.Float32s())
	}
	for _, t := range s.tensors {
		t.Touch()
	}
	s.step = at.Step
	return s.optimizer.Restore(state)
}

// SourcePrefix begins the names of a source's tensors in a checkpoint.
const SourcePrefix = "source:"

// evaluateSource measures by the source, and general text as text.
func (t *Trainer) evaluateSource(ctx context.Context) (map[string]float64, error) {
	out, err := t.Source.Evaluate(ctx)
	if err != nil || len(t.Eval[runs.General]) == 0 {
		return out, err
	}
	out = maps.Clone(out)
	out[runs.General], err = t.TextLoss(ctx, t.Eval[runs.General])
	return out, err
}

// head reports how many outputs the objective's model has, 0 for a vocabulary.
func head(objective any) int {
	if h, ok := objective.(tune.Header); ok {
		return h.Head()
	}
	return 0
}
