// Package plan advises before a run: which methods suit the data, the machine and the goal, what a run takes in memory
// and time, and which rules of the field the data or the run break. It knows no method by name: it tries those of the
// registry on the model and the data.
package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"tunesmith/config"
	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/internal/nearest"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// Goal is what counts most.
type Goal string

// The goals.
const (
	Quality Goal = "quality" // the best result that fits
	Memory  Goal = "memory"  // the least memory while training
	Size    Goal = "size"    // the smallest adapter
	Serving Goal = "serving" // many adapters on one base, or files that other servers load
	Device  Goal = "device"  // again and again on its user's machine
	Owners  Goal = "owners"  // data of several owners that may not be joined
)

// Goals lists the goals.
func Goals() []string {
	return []string{string(Quality), string(Memory), string(Size), string(Serving), string(Device), string(Owners)}
}

// Question is what is to be advised on.
type Question struct {
	Run     *tune.Run // model and data, and whatever else is settled already
	Model   string    // path of the base
	Goal    Goal
	Limit   int64 // bytes of memory
	Minutes float64
	Measure bool // make a few steps for the estimate of time
	General io.Reader
	// Progress, where it is set, is told what is tried.
	Progress func(what string)
}

// Candidate is a method of the parameters axis on the model and the data.
type Candidate struct {
	Method  string        `json:"method"`
	Doc     string        `json:"doc"`
	Trained int           `json:"trained_values"`
	Share   float64       `json:"trained_share"`
	Plan    engine.Memory `json:"memory"`
	Lean    bool          `json:"lean"` // with one row at a time and recomputation
	Fits    bool          `json:"fits"`
	Enough  bool          `json:"capacity"` // it can hold what the data tell
	Merges  bool          `json:"merges"`
	Files   string        `json:"adapter_files,omitempty"`
	Why     string        `json:"why,omitempty"` // it cannot be used
}

// Total is the planned memory.
func (c Candidate) Total() int64 { return c.Plan.Total() }

// Estimate is what the advised run takes.
type Estimate struct {
	Steps           int     `json:"steps"`
	Tokens          int64   `json:"tokens"` // of all epochs
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`
	Seconds         float64 `json:"seconds,omitempty"`
	Bytes           int64   `json:"bytes"`
}

// Advice is the answer.
type Advice struct {
	Data       Data        `json:"data"`
	Objective  string      `json:"objective"`
	Parameters string      `json:"parameters"`
	Topology   string      `json:"topology,omitempty"`
	Reasons    []string    `json:"reasons"`
	Sets       []string    `json:"sets"` // of the run file
	Estimate   Estimate    `json:"estimate"`
	Checks     []Check     `json:"checks"`
	Candidates []Candidate `json:"candidates"`
}

// Advise tries the methods and chooses.
func Advise(ctx context.Context, q Question) (*Advice, error) {
	if !slices.Contains(Goals(), string(q.Goal)) {
		return nil, fmt.Errorf("goal: want one of %s, have %q%s", strings.Join(Goals(), ", "), q.Goal, nearest.Hint(string(q.Goal), Goals()))
	}
	if q.Progress == nil {
		q.Progress = func(string) {}
	}
	a := &Advice{}
	if err := q.objective(ctx, a); err != nil {
		return nil, err
	}
	for _, m := range tune.Methods(tune.ParametersAxis) {
		q.Progress(m.Name)
		a.Candidates = append(a.Candidates, q.candidate(ctx, a, m))
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	best, err := q.choose(a)
	if err != nil {
		return a, err
	}
	q.topology(a)
	if err := q.estimate(ctx, a, best); err != nil {
		return a, err
	}
	a.Checks = q.checks(a)
	return a, nil
}

// run returns the question's run with methods of two axes; lean saves memory.
func (q Question) run(objective, parameters string, lean bool) (*tune.Run, error) {
	c := *q.Run
	for _, x := range []struct {
		axis tune.Axis
		name string
		to   *config.Choice
	}{{tune.ObjectiveAxis, objective, &c.Objective}, {tune.ParametersAxis, parameters, &c.Parameters}} {
		if x.to.Name == x.name && x.to.Options != nil {
			continue // with the options that are settled already
		}
		m, err := tune.Find(x.axis, x.name)
		if err != nil {
			return nil, err
		}
		*x.to = config.Choice{Name: x.name, Options: m.New()}
	}
	if lean {
		c.BatchSize, c.Accumulation, c.Recompute = 1, c.BatchSize*c.Accumulation, true
	}
	c.BadRecords = data.Skip
	return &c, nil
}

// objective finds what the data can teach: the objective that takes most records, of several the one that the run names
// or that is the default.
func (q Question) objective(ctx context.Context, a *Advice) error {
	best := -1
	var errs []error
	for _, m := range tune.Methods(tune.ObjectiveAxis) {
		q.Progress(m.Name)
		d, err := q.survey(ctx, m)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
			continue
		}
		score := 4 * d.Examples
		if m.Name == q.Run.Objective.Name {
			score++
		}
		if d.Examples > 0 && score > best {
			best, a.Objective, a.Data = score, m.Name, d
		}
	}
	if best < 0 {
		return fmt.Errorf("no objective can learn from the data: %w", errors.Join(errs...))
	}
	m, err := tune.Find(tune.ObjectiveAxis, a.Objective)
	if err != nil {
		return err
	}
	a.Reasons = append(a.Reasons, fmt.Sprintf("objective %s: %s; it takes %d of %d records", m.Name, m.Doc, a.Data.Examples, a.Data.Examples+a.Data.Bad))
	return nil
}

// candidate plans a method on the model and the data.
func (q Question) candidate(ctx context.Context, a *Advice, m tune.Method) Candidate {
	c := Candidate{Method: m.Name, Doc: m.Doc, Files: m.PEFT}
	for _, lean := range []bool{false, true} {
		s, err := q.prepare(ctx, a.Objective, m.Name, lean)
		if err != nil {
			c.Why = firstLine(err)
			return c
		}
		trained, all := s.Counts()
		_, c.Merges = s.Graft.(tune.Merger)
		c.Trained, c.Share, c.Plan, c.Lean = trained, float64(trained)/float64(all), s.Plan(), lean
		if err := s.Close(); err != nil {
			c.Why = firstLine(err)
			return c
		}
		if c.Fits = c.Total() <= q.Limit; c.Fits {
			break
		}
	}
	c.Enough = a.Data.Information() <= bitsPerValue*float64(c.Trained)
	return c
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// prepare puts a run together on a part of the data.
func (q Question) prepare(ctx context.Context, objective, parameters string, lean bool) (*trainer.Session, error) {
	c, err := q.run(objective, parameters, lean)
	if err != nil {
		return nil, err
	}
	const most = 256 // records, for the plan and a few steps
	for i := range c.Data {
		c.Data = slices.Clone(c.Data)
		if c.Data[i].Limit == 0 || c.Data[i].Limit > most {
			c.Data[i].Limit = most
		}
	}
	if trained := q.coarse(parameters); trained > q.Limit {
		return nil, fmt.Errorf("the weights, gradients and moments that train alone take %d MiB", trained>>20)
	}
	return trainer.Prepare(ctx, c, trainer.Files{Model: q.Model})
}

// choose picks the method of the parameters axis.
func (q Question) choose(a *Advice) (Candidate, error) {
	var list []Candidate
	for _, c := range a.Candidates {
		if c.Why == "" && c.Fits {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		smallest := int64(math.MaxInt64)
		for _, c := range a.Candidates {
			if c.Why == "" {
				smallest = min(smallest, c.Total())
			}
		}
		return Candidate{}, fmt.Errorf("no method fits into %d MiB: the smallest plan takes %d MiB; take a smaller base, lower max_length, or try forward_only", q.Limit>>20, smallest>>20)
	}
	standard := tune.Default(tune.ParametersAxis)
	better := func(a, b Candidate) int {
		byGoal := 0
		switch q.Goal {
		case Memory, Device:
			byGoal = cmp.Compare(a.Total()>>20, b.Total()>>20)
		case Size, Owners:
			byGoal = cmp.Compare(a.Trained, b.Trained)
		case Serving:
			byGoal = -cmp.Compare(number(a.Merges && a.Files != ""), number(b.Merges && b.Files != ""))
		}
		return cmp.Or(
			-cmp.Compare(number(a.Enough), number(b.Enough)), byGoal,
			-cmp.Compare(number(a.Method == standard), number(b.Method == standard)),
			-cmp.Compare(number(a.Merges), number(b.Merges)),
			cmp.Compare(a.Total(), b.Total()), cmp.Compare(a.Method, b.Method))
	}
	best := slices.MinFunc(list, better)
	a.Parameters = best.Method
	why := fmt.Sprintf("parameters %s: %s; %d values train (%.2g %%), %d MiB are planned of %d MiB", best.Method, best.Doc, best.Trained, 100*best.Share, best.Total()>>20, q.Limit>>20)
	if best.Merges {
		why += "; it folds into the weights afterwards"
	}
	a.Reasons = append(a.Reasons, why)
	if !best.Enough {
		a.Reasons = append(a.Reasons, fmt.Sprintf("the data tell about %.0f kbit and the method holds %.0f kbit: raise its size, or expect it to miss details",
			a.Data.Information()/1000, bitsPerValue*float64(best.Trained)/1000))
	}
	a.Sets = append(a.Sets, "objective.method="+a.Objective, "parameters.method="+best.Method)
	if best.Lean {
		a.Sets = append(a.Sets, "batch_size=1", fmt.Sprintf("gradient_accumulation=%d", q.Run.BatchSize*q.Run.Accumulation), "recompute=true")
		a.Reasons = append(a.Reasons, "one row at a time with accumulation and recomputation: the usual batch does not fit")
	}
	return best, nil
}

func number(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// topology names the method for where it trains, by the goals that methods say they serve.
func (q Question) topology(a *Advice) {
	for _, m := range tune.Methods(tune.TopologyAxis) {
		if slices.Contains(m.Goals, string(q.Goal)) {
			a.Topology = m.Name
			a.Sets = append(a.Sets, "topology.method="+m.Name)
			a.Reasons = append(a.Reasons, fmt.Sprintf("topology %s: %s", m.Name, m.Doc))
		}
	}
}

// estimate measures a few steps of the advised run.
func (q Question) estimate(ctx context.Context, a *Advice, best Candidate) error {
	rows := q.Run.BatchSize * q.Run.Accumulation
	perEpoch := (a.Data.Examples + rows - 1) / rows
	steps := int(math.Ceil(q.Run.Epochs * float64(perEpoch)))
	if q.Run.MaxSteps > 0 && (steps == 0 || q.Run.MaxSteps < steps) {
		steps = q.Run.MaxSteps
	}
	a.Estimate = Estimate{Steps: steps, Tokens: int64(float64(a.Data.Tokens) * float64(steps) / float64(max(perEpoch, 1))), Bytes: best.Total()}
	if !q.Measure {
		return nil
	}
	q.Progress("a few steps")
	s, err := q.prepare(ctx, a.Objective, best.Method, best.Lean)
	if err != nil {
		return err
	}
	tokens, began := 0, time.Now()
	for i := range 3 {
		batches, err := s.Loader.Next()
		if err != nil {
			return errors.Join(err, s.Close())
		}
		r, err := s.Step(ctx, batches)
		if err != nil { // an objective that prepares more than a step; the time stays unknown
			return errors.Join(ctx.Err(), s.Close())
		}
		if i == 0 { // compiles and packs
			began = time.Now()
			continue
		}
		tokens += r.Tokens
	}
	a.Estimate.TokensPerSecond = float64(tokens) / time.Since(began).Seconds()
	a.Estimate.Seconds = float64(a.Estimate.Tokens) / a.Estimate.TokensPerSecond
	return s.Close()
}
