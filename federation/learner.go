package federation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tunesmith/data"
	"tunesmith/optim"
	"tunesmith/privacy"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// Machine is a model that is ready to train. Clients of a simulation share one, and use it one after the other.
type Machine struct {
	mu       sync.Mutex
	session  *trainer.Session
	settings *Settings
	start    []Tensor
	products Products
	facts    Facts
	rate     float64 // learning rate of the clients
}

// NewMachine takes a run that is put together. The digest identifies the files of its base.
func NewMachine(s *trainer.Session, settings *Settings, base string) (*Machine, error) {
	m := &Machine{session: s, settings: settings}
	for _, p := range s.Params() {
		m.start = append(m.start, Tensor{p.Name, p.Shape, slices.Clone(p.Value)})
	}
	if f, ok := s.Graft.(tune.Factored); ok {
		for _, x := range f.Factors() {
			m.products = append(m.products, Product(x))
		}
	}
	k, err := findKind(settings.Strategy)
	if err != nil {
		return nil, err
	}
	if k.products && len(m.products) == 0 {
		return nil, fmt.Errorf("strategy: %s needs a parameters method that trains products of two factors, and this one has none; take fedavg", settings.Strategy)
	}
	if c := s.Config; settings.Strategy == "scaffold" && (c.Optimizer != "sgd" || c.Schedule != "constant") {
		return nil, fmt.Errorf("strategy: scaffold corrects plain gradient steps of one rate; want optimizer: sgd and schedule: constant, have %s and %s", c.Optimizer, c.Schedule)
	}
	if m.rate, err = s.Config.Rate(); err != nil {
		return nil, err
	}
	m.facts = Facts{Base: base, Tokenizer: tokenizerDigest(s.Text), Settings: m.agreement(), Shapes: shapesOf(m.start)}
	if s.Text.Template != nil {
		m.facts.Template = s.Text.Template.Contract()
	}
	return m, nil
}

// agreement is the digest of all that has to be the same at all members.
func (m *Machine) agreement() string {
	c := m.session.Config
	var scales []float64
	for _, p := range m.products {
		scales = append(scales, p.Scale)
	}
	return digestOf([]any{m.settings, c.Parameters.Name, scales, c.Objective, m.rate, c.BatchSize, c.Accumulation, c.Optimizer, c.WeightDecay, c.Clip, c.Schedule, c.Warmup, c.MaxLength, c.Seed})
}

func tokenizerDigest(t tune.Text) string {
	h := sha256.New()
	const probe = "The quick brown fox, 42 times: naïve café 你好 \n\t#!?"
	for _, id := range t.Tokenizer.IDs(probe) {
		fmt.Fprintf(h, "%d ", id)
	}
	for i := range t.Tokenizer.Size() {
		fmt.Fprintf(h, "%q", t.Tokenizer.Token(i))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Start returns the parameters before the first round.
func (m *Machine) Start() []Tensor { return clone(m.start) }

// Facts returns what the machine's owner shows when it joins.
func (m *Machine) Facts() Facts { return m.facts }

// Products returns the products among the parameters.
func (m *Machine) Products() Products { return m.products }

// put gives the parameters values. The caller holds the lock.
func (m *Machine) put(tensors []Tensor) {
	for i, p := range m.session.Params() {
		copy(p.Value, tensors[i].Values)
	}
	m.session.Changed()
}

func (m *Machine) values() []Tensor {
	out := make([]Tensor, len(m.start))
	for i, p := range m.session.Params() {
		out[i] = Tensor{p.Name, p.Shape, slices.Clone(p.Value)}
	}
	return out
}

// With gives the parameters values and lets f use the model; nobody else trains meanwhile.
func (m *Machine) With(tensors []Tensor, f func(*trainer.Session) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := sameTensors(m.start, tensors); err != nil {
		return err
	}
	m.put(tensors)
	return f(m.session)
}

// Learner does the local work of one owner of data.
type Learner struct {
	*Machine
	name    string
	secret  []byte // of the noise of private steps
	loader  *data.Loader
	store   *data.Store
	held    []data.Batch
	heldN   int
	singles []data.Batch
}

// NewLearner returns a learner on a machine with its own examples, and those that its losses are measured on.
func NewLearner(m *Machine, name string, secret []byte, examples, held *data.Store) (*Learner, error) {
	l := &Learner{Machine: m, name: name, secret: secret, store: examples, heldN: held.Len()}
	var err error
	if l.loader, err = m.session.LoaderOf(examples); err != nil {
		return nil, err
	}
	if l.held, err = m.session.BatchesOf(held, m.session.Config.Eval.Most); err != nil {
		return nil, err
	}
	if m.settings.Privacy.Level != "example" {
		return l, nil
	}
	one, err := m.session.SingleLoaderOf(examples)
	if err != nil {
		return nil, err
	}
	for range examples.Len() {
		b, err := one.Next()
		if err != nil {
			return nil, err
		}
		l.singles = append(l.singles, b...)
	}
	return l, nil
}

// Memory is what a learner keeps between rounds.
type Memory struct {
	Loader *data.State
	Optim  optim.State
	Own    []Tensor // SCAFFOLD: its control variate
	Rest   Feedback
	Books  *privacy.Accountant
}

// Job is the work of a round.
type Job struct {
	Round    int
	Global   []Tensor
	Control  []Tensor  // SCAFFOLD: the server's control variate
	Scalars  []float64 // fedkseed: what all seeds have moved so far
	Progress func(step int)
}

// Learned is the result of a job.
type Learned struct {
	Tensors []Tensor
	Control []Tensor // change of the learner's control variate
	Scalars []float64
	Report  Report
}

// Learn does a job. The memory is changed; on an error it is not to be used any more.
func (l *Learner) Learn(ctx context.Context, job Job, m *Memory) (out Learned, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, set := l.session, l.settings
	if job.Scalars != nil {
		job.Global = replay(l.start, job.Scalars, l.rate)
	}
	l.put(job.Global)
	out.Report = Report{Examples: l.store.Len(), HeldN: l.heldN}
	if err := errors.Join(s.ReferLocally(ctx, l.held), s.ReferLocally(ctx, l.singles)); err != nil {
		return out, err
	}
	if len(l.held) > 0 {
		if out.Report.Held, err = s.Loss(ctx, l.held); err != nil {
			return out, err
		}
	}
	if m.Loader != nil {
		if err := l.loader.Restore(*m.Loader); err != nil {
			return out, err
		}
	}
	if err := s.Freeze(set.frozen(job.Round, l.products)); err != nil {
		return out, err
	}
	if err := s.Begin((job.Round-1)*set.LocalSteps, m.Optim); err != nil {
		return out, err
	}
	if m.Own == nil && job.Control != nil {
		m.Own = empty(job.Global)
	}
	s.Correct = l.correction(job, m)
	defer func() { s.Correct = nil }()
	step := l.plain
	switch {
	case job.Scalars != nil:
		out.Scalars = make([]float64, len(job.Scalars))
		step = func(ctx context.Context, job Job, i int) (float64, error) { return l.probe(ctx, job, i, out.Scalars) }
	case set.Privacy.Level == "example":
		private, err := l.private(job, m, &out.Report)
		if err != nil {
			return out, err
		}
		step = private
	}
	for i := range set.LocalSteps {
		loss, err := step(ctx, job, i)
		if err != nil {
			return out, err
		}
		out.Report.Loss += loss / float64(set.LocalSteps)
		if job.Progress != nil {
			job.Progress(i + 1)
		}
	}
	out.Tensors = l.values()
	if job.Control != nil {
		out.Control = Drift(job.Global, out.Tensors, job.Control, set.LocalSteps, l.rate)
		m.Own = plus(m.Own, out.Control)
	}
	at := l.loader.State()
	m.Loader = &at
	m.Optim = optim.State{}
	if set.KeepOptimizer {
		m.Optim = copyState(s.OptimizerState())
	}
	return out, nil
}

// plain is a step of the trainer.
func (l *Learner) plain(ctx context.Context, _ Job, _ int) (float64, error) {
	batches, err := l.loader.Next()
	if err != nil {
		return 0, err
	}
	if err := l.session.ReferLocally(ctx, batches); err != nil {
		return 0, err
	}
	r, err := l.session.Step(ctx, batches)
	return r.Loss, err
}

// correction is what the strategy adds to gradients, nil for nothing.
func (l *Learner) correction(job Job, m *Memory) func([]optim.Param) {
	c := correction{control: job.Control != nil}
	if l.settings.Strategy == "fedprox" {
		c.proximal = l.settings.Mu
	}
	if c == (correction{}) {
		return nil
	}
	none := make([]float32, 0)
	return func(params []optim.Param) {
		for _, p := range params {
			i := slices.IndexFunc(job.Global, func(t Tensor) bool { return t.Name == p.Name })
			own, server := none, none
			if c.control {
				own, server = m.Own[i].Values, job.Control[i].Values
			}
			correct(p.Grad, p.Value, job.Global[i].Values, own, server, c)
		}
	}
}

// private enters the round's steps into the books and returns the step that keeps to them: a Poisson sample of the
// examples, each gradient clipped, the sum blurred.
func (l *Learner) private(job Job, m *Memory, report *Report) (func(context.Context, Job, int) (float64, error), error) {
	set := l.settings
	c := l.session.Config
	rate := min(1, float64(c.BatchSize*max(1, c.Accumulation))/float64(len(l.singles)))
	noise, err := set.noise(rate, set.Rounds*set.LocalSteps)
	if err != nil {
		return nil, err
	}
	books := set.accountant()
	if m.Books != nil {
		*books = *m.Books
	}
	if err := books.Spend(privacy.Event{Noise: noise, Rate: rate, Steps: set.LocalSteps}); err != nil {
		return nil, err
	}
	m.Books = books
	if report.Epsilon, err = books.Spent(); err != nil {
		return nil, err
	}
	return func(ctx context.Context, job Job, i int) (float64, error) {
		source := privacy.NewNoise(l.secret, fmt.Sprintf("examples %s %d %d", l.name, job.Round, i))
		var sample []data.Batch
		for _, b := range l.singles {
			if source.Uniform() < rate {
				sample = append(sample, b)
			}
		}
		r, err := l.session.StepPrivately(ctx, sample, trainer.Private{Limit: set.Privacy.Clip, Noise: noise, Expected: rate * float64(len(l.singles)), Source: source})
		return r.Loss, err
	}, nil
}

// Loss measures parameters on the learner's held-out examples, without training.
func (l *Learner) Loss(ctx context.Context, tensors []Tensor) (loss float64, n int, err error) {
	if len(l.held) == 0 {
		return 0, 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(tensors)
	loss, err = l.session.Loss(ctx, l.held)
	return loss, l.heldN, err
}

// copyState copies an optimizer's state, whose tensors change with the next step.
func copyState(s optim.State) optim.State {
	out := optim.State{Counters: map[string]int64{}}
	for k, v := range s.Counters {
		out.Counters[k] = v
	}
	for _, t := range s.Tensors {
		t.Data, t.Codes = slices.Clone(t.Data), slices.Clone(t.Codes)
		out.Tensors = append(out.Tensors, t)
	}
	return out
}

// seedOf draws a number from texts and numbers: the same everywhere, and another for each use.
func seedOf(seed uint64, parts ...any) uint64 {
	h := sha256.New()
	fmt.Fprint(h, seed)
	for _, p := range parts {
		fmt.Fprintf(h, " %q", fmt.Sprint(p))
	}
	return binary.LittleEndian.Uint64(h.Sum(nil))
}
