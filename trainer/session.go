package trainer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/runs"
	"tunesmith/site"
	"tunesmith/tune"
)

// Session is a run put together from its configuration.
type Session struct {
	*Trainer
	Config   *tune.Run
	Model    *model.Adapted
	Text     tune.Text
	Graft    any // of the parameters method
	Backend  engine.Backend
	Ledger   *data.Ledger // what was wrong with the data
	Examples *data.Store
	Held     *data.Store
	plan     engine.Memory
	mix      *Tasks // of a run that mixes tasks
	cache    string // directory for what may be computed again
}

// storeLimit is how many bytes of examples stay in memory; data that is larger moves to a temporary file.
const storeLimit = 64 << 20

// Files are the places that a configuration's names stand for.
type Files struct {
	Model   string    // path of the base
	General io.Reader // text for the general loss; nil for none
	// Records and Held, where Records is not nil, take the place of the data that the configuration names: they never
	// stand in a file.
	Records, Held []data.Record
	Cache         string // directory for what may be computed again, such as the reference; empty for none
}

// Prepare puts a run together: it opens the base, reads and renders the data, grafts the method, loads the weights
// and plans the memory of the largest batch. Nothing is written. All that is wrong with the data stands in the
// ledger, which is there with an error too.
func Prepare(ctx context.Context, c *tune.Run, f Files) (s *Session, err error) {
	s = &Session{Config: c, cache: f.Cache, Ledger: &data.Ledger{Mode: c.BadRecords}, Examples: data.NewTempStore(storeLimit), Held: data.NewTempStore(storeLimit)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	base, objective, err := s.open(f)
	if err != nil {
		return s, err
	}
	if err := s.read(ctx, objective, f); err != nil {
		return s, err
	}
	if s.Backend, err = engine.Open("cpu", engine.Options{Precision: engine.Precision(c.Precision)}); err != nil {
		return s, err
	}
	if n := head(objective); n > 0 {
		if base, err = base.WithHead(model.Head{Kind: model.SequenceHead, Labels: n}); err != nil {
			return s, err
		}
	}
	if err := s.adapt(ctx, base); err != nil {
		return s, err
	}
	rows, accumulate, repeats := c.BatchSize, c.Accumulation, 1
	sampler, samples := sampled(objective)
	if samples {
		if rows, repeats, err = sampler.Prompts(rows * accumulate); err != nil {
			return s, err
		}
		accumulate = 1
	}
	loader, err := s.loader(s.Examples, rows, accumulate, true)
	if err != nil {
		return s, err
	}
	s.Trainer = &Trainer{Loader: loader, Eval: map[string][]data.Batch{}, Schedule: s.schedule(loader, repeats)}
	if s.Stepper, err = s.stepper(objective); err != nil {
		return s, err
	}
	s.Stepper.tasks = s.mix
	if err := s.evaluations(f.General, samples); err != nil {
		return s, err
	}
	if err := s.fits(); err != nil || !samples {
		return s, err
	}
	s.Source, err = sampler.Open(s)
	return s, err
}

// open opens the base and its text, and finds the objective.
func (s *Session) open(f Files) (*model.Model, tune.Objective, error) {
	base, err := openBase(s.Config, f.Model)
	if err != nil {
		return nil, nil, err
	}
	s.Model = &model.Adapted{Model: base}
	if s.Text, err = tune.OpenText(f.Model, base.File, s.Config.ChatTemplate); err != nil {
		return nil, nil, err
	}
	objective, ok := s.Config.Objective.Options.(tune.Objective)
	if !ok {
		return nil, nil, fmt.Errorf("objective: %q cannot be trained", s.Config.Objective.Name)
	}
	return base, objective, nil
}

func openBase(c *tune.Run, path string) (*model.Model, error) {
	if c.Start == "random" {
		config, err := model.ReadConfig(path)
		if err != nil {
			return nil, err
		}
		m, err := model.New(config)
		if err != nil {
			return nil, err
		}
		m.Path = path
		return m, nil
	}
	return model.Open(path)
}

// read renders the training data and what is held out from it.
func (s *Session) read(ctx context.Context, objective tune.Objective, f Files) error {
	c := s.Config
	render, err := objective.Renderer(s.Text)
	if err != nil {
		return err
	}
	limit := s.Model.Config.MaxPositions
	if c.MaxLength > 0 {
		limit = min(limit, c.MaxLength)
	}
	o := data.LoadOptions{MaxLength: limit, Overlength: c.Overlength, SplitSeed: c.Seed}
	if f.Records != nil {
		return errors.Join(
			data.LoadRecords(ctx, f.Records, render, o, s.Ledger, s.Examples),
			data.LoadRecords(ctx, f.Held, render, o, s.Ledger, s.Held), s.Ledger.Err())
	}
	if len(c.Eval.Data) == 0 {
		o.EvalShare = c.Eval.Share
	}
	if err := data.Load(ctx, s.sources(c.Data), render, o, s.Ledger, s.Examples, s.Held); err != nil {
		return err
	}
	if len(c.Eval.Data) > 0 {
		o.EvalShare = 0
		if err := data.Load(ctx, s.sources(c.Eval.Data), render, o, s.Ledger, s.Held, nil); err != nil {
			return err
		}
	}
	if r, ok := objective.(tune.Rearranger); ok {
		for _, store := range []**data.Store{&s.Examples, &s.Held} {
			if *store, err = r.Rearrange(*store); err != nil {
				return err
			}
		}
	}
	if s.Examples.Len() == 0 {
		return errors.New("data: no example is left to train on; see the list of problems above")
	}
	return nil
}

// adapt grafts the parameters method onto the base and loads the weights.
func (s *Session) adapt(ctx context.Context, base *model.Model) error {
	method, ok := s.Config.Parameters.Options.(tune.Parameters)
	if !ok {
		return fmt.Errorf("parameters: %q cannot be trained", s.Config.Parameters.Name)
	}
	if t, ok := method.(tune.TextUser); ok && s.Config.Adapter == "" {
		if err := t.UseText(s.Text); err != nil {
			return fmt.Errorf("parameters: %w", err)
		}
	}
	graft, err := method.Graft(base.Map())
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	var more []any
	if head(s.Config.Objective.Options) > 0 {
		more = append(more, HeadGraft(base))
	}
	adapted, err := Adapt(ctx, base, graft, s.Backend, s.Config.Seed, more...)
	if err != nil {
		return err
	}
	s.Graft, s.Model = graft, adapted
	if s.Config.Adapter == "" {
		return nil
	}
	a, err := tune.OpenAdapter(s.Config.Adapter)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.Fill(adapted.Store, adapted.Sites)
}

func (s *Session) loader(store *data.Store, rows, accumulate int, train bool) (*data.Loader, error) {
	lc := s.loaderConfig(rows, accumulate, train)
	if train {
		if l, err := s.mixture(lc); l != nil || err != nil {
			return l, err
		}
	}
	return data.NewLoader(store, lc)
}

func (s *Session) loaderConfig(rows, accumulate int, train bool) data.LoaderConfig {
	c := s.Config
	lc := data.LoaderConfig{BatchSize: rows, Accumulate: accumulate, Seed: c.Seed, PadID: int32(max(s.Text.Tokenizer.Pad(), 0))}
	if train {
		lc.Packing, lc.GroupByLength, lc.Shuffle = c.Packing, c.GroupLengths, true
	} else {
		lc.GroupByLength = true
	}
	if lc.Packing != data.NoPacking {
		lc.RowLength = min(c.MaxLength, s.Model.Config.MaxPositions)
	}
	return lc
}

// schedule turns epochs into steps.
func (s *Session) schedule(l *data.Loader, repeats int) Schedule {
	c := s.Config
	steps := int(math.Ceil(c.Epochs * float64(l.Steps()*repeats)))
	if c.MaxSteps > 0 && (steps == 0 || c.MaxSteps < steps) {
		steps = c.MaxSteps
	}
	return Schedule{Steps: steps, EvalEvery: c.Eval.Every, SaveEvery: c.SaveEvery, LogEvery: c.LogEvery, Keep: c.Keep}
}

func (s *Session) stepper(objective tune.Objective) (*Stepper, error) {
	return s.StepperFor(s.Model, objective)
}

// StepperFor returns a stepper of another model with the run's optimizer and schedule.
func (s *Session) StepperFor(a *model.Adapted, objective tune.Objective) (*Stepper, error) {
	c := s.Config
	rate, err := c.Rate()
	if err != nil {
		return nil, err
	}
	course, err := optim.NewSchedule(c.Schedule, optim.ScheduleOptions{LR: rate, Total: s.Trainer.Schedule.Steps, Warmup: c.Warmup})
	if err != nil {
		return nil, err
	}
	groups, of := Groups(a, c.WeightDecay)
	o, err := optim.New(c.Optimizer, optim.Options{Groups: groups, Parallel: Parallel})
	if err != nil {
		return nil, err
	}
	return NewStepper(StepConfig{
		Model: a, Backend: s.Backend, Objective: objective, Optimizer: o, Schedule: course, Clip: c.Clip,
		Recompute: c.Recompute, ForwardOnly: c.ForwardOnly, Seed: c.Seed, Parallel: Parallel, Continues: c.Adapter != "",
		Group: func(name string) int { return of[name] },
	})
}

// evaluations prepares the held-out batches and those of the general text.
func (s *Session) evaluations(general io.Reader, samples bool) error {
	if !samples {
		held, err := s.batches(s.Held, s.Config.Eval.Most)
		if err != nil {
			return err
		}
		s.Eval[runs.Eval] = held
		if err := s.taskEvaluations(); err != nil {
			return err
		}
	}
	if head(s.programs.objective) > 0 { // a classifier does not continue text
		return nil
	}
	if s.Config.Eval.General != "" {
		f, err := os.Open(s.Config.Eval.General)
		if err != nil {
			return fmt.Errorf("eval.general: %w", err)
		}
		defer f.Close()
		general = f
	}
	if general == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(general, 1<<20))
	if err != nil {
		return fmt.Errorf("eval.general: %w", err)
	}
	s.Eval[runs.General] = textBatches(s.Text.Tokenizer.IDs(string(text)), min(256, s.Model.Config.MaxPositions))
	return nil
}

// batches lays up to most examples of a store into batches, in a fixed order.
func (s *Session) batches(store *data.Store, most int) ([]data.Batch, error) {
	if store.Len() == 0 {
		return nil, nil
	}
	l, err := s.loader(store, max(1, min(8, s.Config.BatchSize)), 1, false)
	if err != nil {
		return nil, err
	}
	return rows(l, min(most, store.Len()))
}

// rows reads batches until they hold some number of examples.
func rows(l *data.Loader, most int) ([]data.Batch, error) {
	var out []data.Batch
	for n := 0; n < most; {
		step, err := l.Next()
		if err != nil {
			return nil, err
		}
		for _, b := range step {
			n += b.Rows / max(1, b.Sequences)
			out = append(out, b)
		}
	}
	return out, nil
}

// textBatches cuts a text into rows of n tokens, each predicting its tokens from the second on.
func textBatches(ids []int, n int) []data.Batch {
	const most = 16 // rows: 4,096 tokens tell a loss well enough
	var out []data.Batch
	for at := 0; at+2 <= len(ids) && len(out) < most; at += n {
		part := ids[at:min(at+n, len(ids))]
		b := data.Batch{Rows: 1, Cols: len(part), Tokens: len(part), Supervised: len(part) - 1}
		for i, id := range part {
			b.IDs = append(b.IDs, int32(id))
			b.Positions = append(b.Positions, int32(i))
			target, weight := int32(-1), float32(0)
			if i+1 < len(part) {
				target, weight = int32(part[i+1]), 1
			}
			b.Targets, b.Weights = append(b.Targets, target), append(b.Weights, weight)
		}
		b.Segments = make([]int32, len(part))
		out = append(out, b)
	}
	return out
}

// Plan returns the planned memory of the largest training batch.
func (s *Session) Plan() engine.Memory { return s.plan }

// fits plans the largest batch. The plan is exact, so a run that starts does not run out of memory later.
func (s *Session) fits() error {
	longest := s.Examples.Widest()
	if o, ok := sampled(s.programs.objective); ok {
		longest = min(longest+o.Room(), s.Model.Config.MaxPositions)
	}
	if n, context := s.Model.Sites.Prefix, s.Model.Config.MaxPositions; longest+n > context {
		return fmt.Errorf("max_length: want at most %d, since %d virtual tokens take a part of the context of %d; have an example of %d", context-n, n, context, longest)
	}
	if s.Config.Packing != data.NoPacking {
		longest = min(s.Config.MaxLength, s.Model.Config.MaxPositions)
	}
	cols := (longest + 31) / 32 * 32
	sequences := max(1, s.Examples.Sequences())
	plan, err := s.memory(data.Batch{Rows: s.Config.BatchSize * sequences, Cols: cols, Sequences: sequences})
	if err != nil {
		return err
	}
	// The evaluations have programs of their own, in the same memory.
	for split, batches := range s.Eval {
		kind := forward
		if split == runs.General {
			kind = language
		}
		for _, b := range batches {
			p, err := s.programs.get(kind, b)
			if err != nil {
				return err
			}
			m := p.Memory()
			plan.Activations, plan.Workspace = max(plan.Activations, m.Activations), max(plan.Workspace, m.Workspace)
		}
	}
	plan.Trainable += s.OptimizerBytes()
	s.plan = plan
	return nil
}

// Close frees the threads and the files.
func (s *Session) Close() error {
	var errs []error
	if s.Backend != nil {
		errs = append(errs, s.Backend.Close())
	}
	if s.Model != nil && s.Model.Model != nil {
		errs = append(errs, s.Model.Close())
	}
	return errors.Join(append(errs, s.Examples.Close(), s.Held.Close())...)
}

// Counts returns how many values train, and how many there are.
func (s *Session) Counts() (trained, all int) { return Counts(s.Model.Sites) }

// Counts returns how many values of the parameters train, and how many there are.
func Counts(m *site.Map) (trained, all int) {
	for _, p := range m.Params {
		all += p.Size()
		if p.Trainable {
			trained += p.Size()
		}
	}
	return trained, all
}
