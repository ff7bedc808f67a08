// Package trainer is the training loop: steps, evaluations, checkpoints, and the files of the run. It is handed a
// model with its grafts, an objective and the data, and knows no method.
package trainer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/runs"
	"tunesmith/tune"
)

// Schedule of the loop, in optimizer steps; 0 is never, for LogEvery always.
type Schedule struct {
	Steps     int // of the whole run
	EvalEvery int
	SaveEvery int
	LogEvery  int
	Keep      int // newest checkpoints that stay, beside the best one; 0 keeps all
}

// Trainer makes the steps of a run.
type Trainer struct {
	*Stepper
	Loader   *data.Loader
	Source   Source                  // of the batches, where the model itself makes the examples; it draws prompts from the loader
	Eval     map[string][]data.Batch // by split: runs.Eval is held out from the task, runs.General shows forgetting
	Run      *runs.Run
	Schedule Schedule
	// Progress, where it is set, sees every step.
	Progress func(Progress)

	tokens int64 // supervised, so far
	warned bool  // by the objective
	best   best
	drift  drift
}

// Progress is where a run stands.
type Progress struct {
	StepResult
	Steps           int
	Epoch           float64
	TokensPerSecond float64
	Left            time.Duration
	Evals           map[string]float64 // losses by split and metrics by split/name, where this step evaluated
	Saved           string             // directory of the checkpoint, where this step wrote one
}

// best is the evaluation with the lowest loss.
type best struct {
	Step int     `json:"step"`
	Loss float64 `json:"loss"`
}

// position is the part of a checkpoint that is no tensor.
type position struct {
	Loader data.State       `json:"loader"`
	Optim  map[string]int64 `json:"optimizer"`
	Tokens int64            `json:"tokens"`
	Best   best             `json:"best"`
	Drift  drift            `json:"drift"`
	Tasks  *taskState       `json:"tasks,omitempty"`
}

func (t *Trainer) checkpoints() string { return filepath.Join(t.Run.Dir(), runs.Checkpoints) }

// Train makes the steps that are left. When the context ends it writes a checkpoint and returns the context's
// error. When the loss diverges it returns an error that wraps ErrDiverged; the checkpoints stay as they are.
func (t *Trainer) Train(ctx context.Context) error {
	began, first := time.Now(), t.step
	var seen int
	for t.step < t.Schedule.Steps {
		before := t.Loader.State()
		batches, err := t.next(ctx)
		if err != nil {
			return t.stopped(ctx, before, err)
		}
		r, err := t.Step(ctx, batches)
		if err != nil {
			return t.stopped(ctx, before, err)
		}
		if err := t.done(ctx, &r); err != nil {
			return err
		}
		t.tokens += int64(r.Supervised)
		seen += r.Tokens
		spent := time.Since(began)
		p := Progress{StepResult: r, Steps: t.Schedule.Steps, Epoch: t.Loader.Epoch(), TokensPerSecond: float64(seen) / spent.Seconds()}
		p.Left = time.Duration(float64(spent) / float64(t.step-first) * float64(t.Schedule.Steps-t.step))
		if err := t.after(ctx, &p); err != nil {
			return t.stopped(ctx, t.Loader.State(), err)
		}
		if t.Progress != nil {
			t.Progress(p)
		}
	}
	return nil
}

// after logs, evaluates and saves behind a step.
func (t *Trainer) after(ctx context.Context, p *Progress) error {
	if t.Source == nil { // the loss of a policy is no measure of its progress
		if err := t.drift.add(p.Loss); err != nil {
			return fmt.Errorf("step %d: %w", p.Step, err)
		}
	}
	last := p.Step == t.Schedule.Steps
	if due(p.Step, max(1, t.Schedule.LogEvery)) || last {
		err := t.Run.Metric(runs.Metric{
			Step: p.Step, Split: runs.Train, Epoch: p.Epoch, Loss: runs.Number(p.Loss), LR: runs.Number(p.LR),
			GradNorm: runs.Number(p.GradNorm), Tokens: t.tokens, TokensPerSecond: runs.Number(p.TokensPerSecond),
			Values: numbers(p.Values),
		})
		if err != nil {
			return err
		}
	}
	if err := t.watch(p.StepResult); err != nil {
		return err
	}
	improved := false
	if due(p.Step, t.Schedule.EvalEvery) || last {
		losses, err := t.Evaluate(ctx)
		if err != nil {
			return err
		}
		p.Evals = losses
		if loss, ok := losses[runs.Eval]; ok && (t.best.Step == 0 || loss < t.best.Loss) {
			t.best, improved = best{p.Step, loss}, true
		}
		if err := t.judge(losses, p.Step); err != nil {
			return err
		}
	}
	if due(p.Step, t.Schedule.SaveEvery) || improved || last {
		dir, err := t.Save(t.Loader.State())
		if err != nil {
			return err
		}
		p.Saved = dir
	}
	return nil
}

// watch lets the objective look at a step and notes its warning, the first of a run.
func (t *Trainer) watch(r StepResult) error {
	w, ok := t.programs.objective.(tune.Watcher)
	if !ok || t.warned {
		return nil
	}
	message := w.Warn(r.Values)
	if message == "" {
		return nil
	}
	t.warned = true
	slog.Warn(message, "step", r.Step)
	return t.Run.Event(runs.Event{Step: r.Step, Kind: runs.EventWarning, Message: message})
}

func due(step, every int) bool { return every > 0 && step%every == 0 }

// Losses returns the mean loss of every evaluation split, and the objective's metrics on what is held out as
// split/name. General text is measured as text, whatever the objective.
func (t *Trainer) Losses(ctx context.Context) (map[string]float64, error) {
	if t.Source != nil {
		return t.evaluateSource(ctx)
	}
	out := map[string]float64{}
	for split, batches := range t.Eval {
		if len(batches) == 0 {
			continue
		}
		var err error
		if split == runs.General {
			out[split], err = t.TextLoss(ctx, batches)
		} else {
			var metrics map[string]float64
			out[split], metrics, err = t.Measure(ctx, batches)
			for name, v := range metrics {
				out[split+"/"+name] = v
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Evaluate returns the losses and writes them to the run's metrics.
func (t *Trainer) Evaluate(ctx context.Context) (map[string]float64, error) {
	losses, err := t.Losses(ctx)
	if err != nil {
		return nil, err
	}
	for _, split := range slices.Sorted(maps.Keys(losses)) {
		if strings.Contains(split, "/") {
			continue
		}
		values := map[string]float64{}
		for name, v := range losses {
			if rest, ok := strings.CutPrefix(name, split+"/"); ok {
				values[rest] = v
			}
		}
		err := t.Run.Metric(runs.Metric{Step: t.step, Split: split, Epoch: t.Loader.Epoch(), Loss: runs.Number(losses[split]), Tokens: t.tokens, Values: numbers(values)})
		if err != nil {
			return nil, err
		}
	}
	return losses, nil
}

// numbers gives metrics the form of the files.
func numbers(values map[string]float64) map[string]runs.Number {
	if len(values) == 0 {
		return nil
	}
	out := map[string]runs.Number{}
	for name, v := range values {
		out[name] = runs.Number(v)
	}
	return out
}

// stopped saves what a cancelled run has reached; other errors pass.
func (t *Trainer) stopped(ctx context.Context, at data.State, err error) error {
	if ctx.Err() == nil || t.step == 0 {
		return err
	}
	dir, saveErr := t.Save(at)
	if saveErr != nil {
		return errors.Join(err, saveErr)
	}
	event := runs.Event{Step: t.step, Kind: runs.EventCancel, Message: "stopped; the state is saved in " + filepath.Base(dir)}
	return errors.Join(ctx.Err(), t.Run.Event(event))
}

// drift watches for a loss that runs away: a smoothed loss far above the lowest for many steps on end.
type drift struct {
	Smooth float64 `json:"smooth"`
	Lowest float64 `json:"lowest"`
	Bad    int     `json:"bad"`
}

// Limits of drift: the smoothed loss (about the last ten steps) may stand above twice the lowest plus one for 25
// steps.
const (
	driftSmoothing = 0.9
	driftSteps     = 25
)

func (d *drift) add(loss float64) error {
	if d.Smooth == 0 {
		d.Smooth, d.Lowest = loss, loss
	}
	d.Smooth = driftSmoothing*d.Smooth + (1-driftSmoothing)*loss
	d.Lowest = math.Min(d.Lowest, d.Smooth)
	if d.Smooth <= 2*d.Lowest+1 {
		d.Bad = 0
		return nil
	}
	if d.Bad++; d.Bad < driftSteps {
		return nil
	}
	return fmt.Errorf("the loss has risen from %.3g to %.3g: %w", d.Lowest, d.Smooth, ErrDiverged)
}

// Save writes a checkpoint of the step that the trainer has reached, with the data's position.
func (t *Trainer) Save(at data.State) (string, error) {
	if err := t.Run.Sync(); err != nil {
		return "", err
	}
	s, err := t.state(at)
	if err != nil {
		return "", err
	}
	dir, err := checkpoint.SaveState(t.checkpoints(), s)
	if err != nil {
		return "", err
	}
	if err := t.Run.Event(runs.Event{Step: t.step, Kind: runs.EventCheckpoint, Message: filepath.Base(dir)}); err != nil {
		return "", err
	}
	if t.Schedule.Keep > 0 {
		return dir, checkpoint.Prune(t.checkpoints(), t.Schedule.Keep, t.best.Step)
	}
	return dir, nil
}
