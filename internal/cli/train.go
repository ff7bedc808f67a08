package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/device"
	"tunesmith/engine"
	"tunesmith/evals"
	"tunesmith/federation"
	"tunesmith/generate"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// errMemory is a run that does not fit.
var errMemory = errors.New("not enough memory")

func (a *app) train() *cobra.Command {
	var sets []string
	c := &cobra.Command{
		Use:     "train RUN.yaml",
		Short:   "Adapt a model as a run file says",
		Example: "  tunesmith train run.yaml --set parameters.rank=32",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := tune.Schema().Load(args[0], sets)
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
			_, err = a.run(c.Context(), r.Value, name)
			return err
		},
	}
	c.Flags().StringArrayVar(&sets, "set", nil, "set a key of the run file, as in parameters.rank=32; may be given again")
	return c
}

func (a *app) resume() *cobra.Command {
	return &cobra.Command{
		Use:   "resume RUN_DIRECTORY",
		Short: "Continue a run from its last whole checkpoint",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := args[0]
			r, err := tune.Schema().Load(filepath.Join(dir, runs.ConfigFile), nil)
			if err != nil {
				return err
			}
			run, err := runs.Open(dir)
			if err != nil {
				return err
			}
			defer run.Close()
			e := experiment{app: a, config: r.Value, dir: run}
			return e.run(c.Context(), true)
		},
	}
}

// run makes a run's directory and runs it.
func (a *app) run(ctx context.Context, c *tune.Run, name string) (*experiment, error) {
	if c.Name != "" {
		name = c.Name
	}
	m, err := runs.NewManifest(version())
	if err != nil {
		return nil, err
	}
	path, err := modelPath(c.Model)
	if err != nil {
		return nil, err
	}
	m.Seed, m.Precision = c.Seed, c.Precision
	if m.Base, err = hashes(path); err != nil {
		return nil, err
	}
	for _, d := range c.Data {
		path, err := data.Locate(d.Path)
		if err != nil {
			return nil, err
		}
		files, err := hashes(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a pattern is no file; reading it reports what is wrong
			return nil, err
		}
		m.Data = append(m.Data, files...)
	}
	e := &experiment{app: a, config: c, manifest: &m, name: name}
	return e, e.run(ctx, false)
}

// hashes identifies a file, or the files of a model's or a data set's directory.
func hashes(path string) ([]runs.File, error) {
	return runs.HashFiles(path, "*.safetensors", "*.gguf", "*.json", "*.jsonl")
}

// experiment is a run with the measurements before and after it.
type experiment struct {
	app      *app
	config   *tune.Run
	manifest *runs.Manifest // of a new run
	name     string
	dir      *runs.Run // of a run that goes on
	session  *trainer.Session
	task     []evals.Question
	outcome  []runs.Outcome
	score    [2]evals.Score // before and after
}

// before is what was measured before the first step; it is kept with the run, for a run that is resumed.
const beforeFile = "before.json"

func (e *experiment) run(ctx context.Context, resume bool) (err error) {
	a, c := e.app, e.config
	path, err := modelPath(c.Model)
	if err != nil {
		return err
	}
	if c.Eval.Task != "" {
		if e.task, err = evals.ReadTask(c.Eval.Task); err != nil {
			return err
		}
	}
	if _, ok := c.Topology.Options.(federation.Method); ok {
		if _, err := federated(c); err != nil {
			return err
		}
	}
	if m, ok := c.Topology.Options.(device.Method); ok {
		// A run of a device keeps the device's limits; its adaptations in generations are those of the device command.
		watched, stop, err := m.Device().Watch(ctx, &device.Reader{Root: m.Device().Root})
		if err != nil {
			return err
		}
		defer stop()
		ctx = watched
	}
	e.session, err = trainer.Prepare(ctx, c, trainer.Files{Model: path, General: general(), Cache: referenceCache()})
	a.problems(e.session.Ledger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.session.Close()) }()
	if err := e.fits(e.session.Plan()); err != nil {
		return err
	}
	if e.dir == nil {
		if err := e.create(); err != nil {
			return err
		}
		defer e.dir.Close()
	}
	e.session.Run = e.dir
	e.describe()
	p := progress{app: a}
	if err := e.session.Refer(ctx, func(n, all int) { p.note("reference of %d/%d examples", n, all) }); err != nil {
		return err
	}
	if resume {
		if err := e.restore(ctx); err != nil {
			return err
		}
	} else if err := e.begin(ctx); err != nil {
		return err
	}
	e.session.Progress = p.show
	train := e.session.Train
	if m, ok := c.Topology.Options.(federation.Method); ok {
		train = func(ctx context.Context) error { return e.federate(ctx, m.Federation()) }
	}
	if err := train(ctx); err != nil {
		return e.failed(ctx, err)
	}
	return e.finish(ctx)
}

func (e *experiment) create() error {
	var text bytes.Buffer
	if err := tune.Schema().Write(&text, e.config); err != nil {
		return err
	}
	e.manifest.Engine = e.session.Backend.Name()
	var err error
	if e.config.Name != "" {
		e.dir, err = runs.Create(e.config.Output, e.name, text.Bytes(), *e.manifest)
	} else {
		e.dir, err = runs.CreateNext(e.config.Output, e.name, text.Bytes(), *e.manifest)
	}
	return err
}

// describe says what is going to happen.
func (e *experiment) describe() {
	s := e.session
	trained, all := s.Counts()
	plan := s.Plan()
	e.app.say("run %s: %s of %s values train, on %d examples for %d steps, on %s", e.dir.Dir(), thousands(trained), thousands(all),
		s.Examples.Len(), s.Trainer.Schedule.Steps, s.Backend.Name())
	e.app.tasks(s.Tasks(), s.Trainer.Loader.Passes())
	if s.Text.Template != nil {
		for _, w := range s.Text.Template.Check(s.Text.Tokenizer) {
			e.app.say("warning: %v", w)
		}
	}
	e.app.say("memory: %s planned (weights %s, trained %s, activations %s, workspace %s)", size(plan.Total()), size(plan.Weights),
		size(plan.Trainable), size(plan.Activations), size(plan.Workspace))
}

// begin measures before the first step.
func (e *experiment) begin(ctx context.Context) error {
	if err := e.dir.Event(runs.Event{Kind: runs.EventStart}); err != nil {
		return err
	}
	losses, err := e.session.Evaluate(ctx)
	if err != nil {
		return err
	}
	if e.score[0], err = e.ask(ctx); err != nil {
		return err
	}
	return writeJSON(filepath.Join(e.dir.Dir(), beforeFile), before{losses, e.score[0]})
}

type before struct {
	Losses map[string]float64
	Score  evals.Score
}

// ask lets the model as it stands answer the task.
func (e *experiment) ask(ctx context.Context) (evals.Score, error) {
	if len(e.task) == 0 {
		return evals.Score{}, nil
	}
	longest := 16
	for _, q := range e.task {
		longest = max(longest, 2*len(e.session.Text.Tokenizer.IDs(q.Answer))+4)
	}
	g := generate.New(e.session.Model, e.session.Backend)
	return evals.Ask(ctx, g, e.session.Text, e.task, longest)
}

// restore goes to the last whole checkpoint, or to the start where there is none.
func (e *experiment) restore(ctx context.Context) error {
	dir, step, err := checkpoint.Latest(filepath.Join(e.dir.Dir(), runs.Checkpoints))
	if err != nil {
		return err
	}
	if dir == "" {
		if err := e.dir.Rewind(-1); err != nil {
			return err
		}
		return e.begin(ctx)
	}
	if err := e.session.Restore(dir); err != nil {
		return err
	}
	e.app.say("resumed at step %d", step)
	return e.dir.Event(runs.Event{Step: step, Kind: runs.EventResume})
}

// failed keeps what a run that stops has reached, with advice.
func (e *experiment) failed(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) {
		e.app.say("stopped; continue with: tunesmith resume %s", e.dir.Dir())
		if cause := context.Cause(ctx); errors.Is(cause, device.ErrDeferred) {
			return cause
		}
		return err
	}
	kind := runs.Event{Kind: runs.EventError, Message: err.Error()}
	if errors.Is(err, trainer.ErrDiverged) {
		err = fmt.Errorf("%w; lower learning_rate, raise warmup, or look for bad records; the checkpoints in %s are intact",
			err, filepath.Join(e.dir.Dir(), runs.Checkpoints))
	}
	return errors.Join(err, e.dir.Event(kind))
}

// finish measures after the last step, saves the result and writes the report.
func (e *experiment) finish(ctx context.Context) error {
	var was before
	if err := readJSON(filepath.Join(e.dir.Dir(), beforeFile), &was); err != nil {
		return err
	}
	e.score[0] = was.Score
	var err error
	if e.score[1], err = e.ask(ctx); err != nil {
		return err
	}
	losses, err := e.session.Losses(ctx)
	if err != nil {
		return err
	}
	e.compare(was.Losses, losses)
	for i, q := range e.task[:min(len(e.task), e.config.Eval.Samples)] {
		prompt := q.Asked()
		sample := runs.Sample{Step: e.session.Trainer.Schedule.Steps, Prompt: prompt, Want: q.Answer, Before: e.score[0].Answers[i].Text, After: e.score[1].Answers[i].Text}
		if err := e.dir.Sample(sample); err != nil {
			return err
		}
	}
	saved, err := e.save()
	if err != nil {
		return err
	}
	err = errors.Join(
		e.dir.Event(runs.Event{Step: e.session.Trainer.Schedule.Steps, Kind: runs.EventOutcome, Outcome: e.outcome}),
		e.dir.Event(runs.Event{Step: e.session.Trainer.Schedule.Steps, Kind: runs.EventFinish}),
		runs.Report(e.dir.Dir(), e.app.lang))
	if err != nil {
		return err
	}
	return e.show(saved)
}

// compare makes the table before → after.
func (e *experiment) compare(was, now map[string]float64) {
	if len(e.task) > 0 {
		e.outcome = append(e.outcome, runs.Outcome{Name: "task score", Before: runs.Number(e.score[0].Share()), After: runs.Number(e.score[1].Share()), Better: "up", Unit: "%"})
	}
	for _, row := range []struct{ name, split string }{{"held-out loss", runs.Eval}, {"general loss", runs.General}} {
		if b, ok := was[row.split]; ok {
			e.outcome = append(e.outcome, runs.Outcome{Name: row.name, Before: runs.Number(b), After: runs.Number(now[row.split]), Better: "down"})
		}
	}
	for _, t := range e.session.Tasks().Evaluations() {
		if b, ok := was[t.Split]; ok {
			e.outcome = append(e.outcome, runs.Outcome{Name: "held-out loss of " + t.Name, Before: runs.Number(b), After: runs.Number(now[t.Split]), Better: "down"})
		}
	}
	for _, m := range e.session.Measures() {
		key := runs.Eval + "/" + m.Name
		if b, ok := was[key]; ok {
			o := runs.Outcome{Name: "held-out " + m.Title, Before: runs.Number(b), After: runs.Number(now[key]), Better: m.Better}
			if m.Share {
				o.Unit = "%"
			}
			e.outcome = append(e.outcome, o)
		}
	}
}

// referenceCache is the folder for the log-probabilities of reference models, empty where the system names none.
func referenceCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "tunesmith", "reference")
}

// save writes the adapter, or the whole model where the method has no adapter file.
func (e *experiment) save() (string, error) {
	s := e.session
	contract := ""
	if s.Text.Template != nil {
		contract = s.Text.Template.Contract()
	}
	if _, ok := s.Graft.(tune.PEFTWriter); ok && s.Model.Config.Head.Kind == "" {
		dir := filepath.Join(e.dir.Dir(), runs.AdapterDir)
		return dir, tune.SaveAdapter(dir, s.Graft, s.Model.Sites, s.Model.Store, tune.AdapterInfo{Base: e.config.Model, Contract: contract, Version: version()})
	}
	dir := filepath.Join(e.dir.Dir(), "model")
	return dir, saveModel(dir, s.Model, s.Text, "F32")
}

func (e *experiment) show(saved string) error {
	a := e.app
	if a.json {
		out := map[string]any{"run": e.dir.Dir(), "saved": saved, "outcome": e.outcome}
		if len(e.task) > 0 {
			out["p_value"] = chance(e.score[0], e.score[1])
		}
		if lines := e.session.Tasks().Lines(); lines != nil {
			out["tasks"] = lines
		}
		return a.result(out)
	}
	var rows [][]string
	for _, o := range e.outcome {
		format := "%.4f"
		scale := runs.Number(1)
		if o.Unit == "%" {
			format, scale = "%.1f %%", 100
		}
		rows = append(rows, []string{o.Name, fmt.Sprintf(format, float64(o.Before*scale)), fmt.Sprintf(format, float64(o.After*scale))})
	}
	a.say("%s", a.grid([]string{"", "before", "after"}, rows))
	if len(e.task) > 0 {
		a.say("task score, 95 %% interval: %s before, %s after; a difference as large by chance: p = %.2g", interval(e.score[0]), interval(e.score[1]), chance(e.score[0], e.score[1]))
	}
	for _, line := range e.session.Tasks().Lines() {
		a.say("%s", line)
	}
	a.say("saved  %s\nreport %s", saved, filepath.Join(e.dir.Dir(), runs.ReportFile))
	return nil
}

// problems shows what was wrong with the data.
func (a *app) problems(l *data.Ledger) {
	if l == nil {
		return
	}
	const most = 10
	list := l.Problems()
	for _, p := range list[:min(len(list), most)] {
		a.say("%v", p.Error())
	}
	if more := len(list) - most; more > 0 {
		a.say("and %d more; see all with: tunesmith data preview RUN.yaml --problems", more)
	}
}

// fits refuses a plan that this machine's memory, or the limit of a device, cannot hold, and says what would help.
func (e *experiment) fits(plan engine.Memory) error {
	free, err := availableMemory()
	if m, ok := e.config.Topology.Options.(device.Method); ok {
		free, err = int64(m.Device().Limit().Bytes), nil
	}
	if err != nil || plan.Total() <= free {
		return nil
	}
	return fmt.Errorf("%w: the plan needs %s, %s are free; lower batch_size or max_length, raise gradient_accumulation instead, or set recompute: true",
		errMemory, size(plan.Total()), size(free))
}
