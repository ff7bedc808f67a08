package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/internal/atomicfile"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// Names of the files of a device.
const (
	runFile    = "run.yaml"
	stateFile  = "device.json"
	lockFile   = "lock"
	pendingDir = "pending"
	jobFile    = "job.bin"
	beforeFile = "before.json"
	runName    = "run"
)

// Method is a method of the topology axis whose runs are adaptations of a device.
type Method interface {
	// Device returns the settings.
	Device() *Settings
	// Sets returns the assignments that a run file for a device starts from.
	Sets() []string
}

// Device is a device's directory, open for this process alone.
type Device struct {
	Dir    string
	Config *tune.Run
	Settings
	Library
	Model string // path of the base
	State State
	lock  io.Closer
}

// State is what a device remembers of its base.
type State struct {
	Base    string      `json:"base"` // digest
	General runs.Number `json:"general,omitempty"`
}

// Init makes a device's directory for a run, whole or not at all.
func Init(dir string, c *tune.Run, model string) error {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s exists already; choose another directory", dir)
	}
	own, err := settings(c)
	if err != nil {
		return err
	}
	base, err := DigestBase(model)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := tune.Schema().Write(&text, c); err != nil {
		return err
	}
	return atomicfile.WriteDir(dir, func(tmp string) error {
		if own.KeyFile == "" {
			if _, err := openVault(filepath.Join(tmp, keyFile)); err != nil {
				return err
			}
		}
		return errors.Join(
			os.WriteFile(filepath.Join(tmp, runFile), text.Bytes(), 0o644),
			writeJSON(filepath.Join(tmp, stateFile), State{Base: base}))
	})
}

func settings(c *tune.Run) (*Settings, error) {
	m, ok := c.Topology.Options.(Method)
	if !ok {
		return nil, errors.New("the run file has no topology section for a device; make one with: tunesmith device init")
	}
	return m.Device(), nil
}

// Open opens a device. modelPath turns the name of the base in the run file into its path. A base with another content
// than the one that the device was made for is refused: its adapters would be wrong on it.
func Open(dir string, modelPath func(name string) (string, error)) (d *Device, err error) {
	d = &Device{Dir: dir, Library: Library{dir}}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("%s is no device: %w; make one with: tunesmith device init", dir, err)
	}
	if err := json.Unmarshal(text, &d.State); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	r, err := tune.Schema().Load(filepath.Join(dir, runFile), nil)
	if err != nil {
		return nil, err
	}
	d.Config = r.Value
	s, err := settings(d.Config)
	if err != nil {
		return nil, err
	}
	d.Settings = *s
	if d.Model, err = modelPath(d.Config.Model); err != nil {
		return nil, err
	}
	base, err := DigestBase(d.Model)
	if err != nil {
		return nil, err
	}
	if base != d.State.Base {
		return nil, fmt.Errorf("%s: the base %s has changed: want digest %.16s…, have %.16s…; put the old base back, or start a new device with tunesmith device init",
			dir, d.Model, d.State.Base, base)
	}
	d.lock, err = runs.Lock(filepath.Join(dir, lockFile))
	return d, err
}

// Close frees the device for other processes.
func (d *Device) Close() error { return d.lock.Close() }

// job is an adaptation: everything that its result depends on. It stays until it is done, encrypted.
type job struct {
	ID     string        `json:"id"`
	Parent int           `json:"parent"`
	New    []data.Record `json:"new"`
	Replay []data.Record `json:"replay"`
	Held   []data.Record `json:"held"`
	Time   time.Time     `json:"time"`
}

// Adaptation says what Adapt works with.
type Adaptation struct {
	Records  []data.Record // new ones; may be empty where an adaptation was deferred
	General  func() io.Reader
	Version  string
	Progress func(trainer.Progress)
	// Started, where it is set, is told what is going to happen.
	Started func(*trainer.Session, Fit)
	// Now is the clock; time.Now where it is nil.
	Now func() time.Time
}

// Result is what became of an adaptation.
type Result struct {
	Resumed    bool // it went on from where it was deferred; new records were not read
	Taken      bool
	Reason     string // of the gate
	Generation Generation
	Before     map[string]runs.Number
	After      map[string]runs.Number
	Fit        Fit
}

// Adapt makes the next generation from new records, or goes on with an adaptation that was deferred. Work that the
// settings do not allow ends with ErrDeferred; what does not fit into memory ends with ErrMemory before the first step.
func (d *Device) Adapt(ctx context.Context, a Adaptation) (r Result, err error) {
	if a.Now == nil {
		a.Now = time.Now
	}
	watched, stop, err := d.Watch(ctx, &Reader{Root: d.Root, Now: a.Now})
	if err != nil {
		return r, err
	}
	defer stop()
	defer func() {
		if cause := context.Cause(watched); err != nil && errors.Is(cause, ErrDeferred) {
			err = cause
		}
	}()
	v, err := openVault(d.keyPath())
	if err != nil {
		return r, err
	}
	j, err := d.pending(v)
	if err != nil {
		return r, err
	}
	r.Resumed = j != nil
	if j == nil {
		if j, err = d.stage(v, a); err != nil {
			return r, err
		}
	}
	if g, ok, err := d.made(j); err != nil || ok { // a process died between the last step and the end
		if err == nil {
			r.Generation, r.Taken, r.Before, r.After = g, true, g.Before, g.After
			err = d.finish(v, j, g)
		}
		return r, err
	}
	return r, d.train(watched, v, j, a, &r)
}

func (d *Device) keyPath() string {
	if d.KeyFile != "" {
		return d.KeyFile
	}
	return filepath.Join(d.Dir, keyFile)
}

func (d *Device) pendingPath(parts ...string) string {
	return filepath.Join(append([]string{d.Dir, pendingDir}, parts...)...)
}

// pending returns the adaptation that is under way, nil for none.
func (d *Device) pending(v *vault) (*job, error) {
	j := &job{}
	err := v.read(d.pendingPath(jobFile), j)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return j, err
}

func (d *Device) openReplay(v *vault) (*Replay, error) {
	r := NewReplay(d.ReplayMost, time.Duration(d.ReplayDays)*24*time.Hour)
	if err := v.read(filepath.Join(d.Dir, replayFile), r); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r, nil
}

// stage writes down a new adaptation.
func (d *Device) stage(v *vault, a Adaptation) (*job, error) {
	if len(a.Records) < 2 {
		return nil, fmt.Errorf("want at least 2 new records, one to learn from and one to judge by, have %d", len(a.Records))
	}
	parent, err := d.Current()
	if err != nil {
		return nil, err
	}
	j := &job{Parent: parent, Time: a.Now().UTC()}
	for _, r := range a.Records {
		r.Pos = data.Position{Record: r.Pos.Record} // the names of a person's files are not kept
		if data.HeldOut(r, d.Config.Eval.Share, d.Config.Seed) {
			j.Held = append(j.Held, r)
		} else {
			j.New = append(j.New, r)
		}
	}
	moveLast(&j.New, &j.Held)
	moveLast(&j.Held, &j.New)
	replay, err := d.openReplay(v)
	if err != nil {
		return nil, err
	}
	replay.Expire(a.Now())
	j.Replay = replay.Draw(int(d.Replay*float64(len(j.New))), d.Config.Seed+uint64(parent))
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	j.ID = hex.EncodeToString(sum[:])
	return j, atomicfile.WriteDir(d.pendingPath(), func(tmp string) error {
		return v.write(filepath.Join(tmp, jobFile), j)
	})
}

// moveLast moves the last record of one list into another that has none.
func moveLast(from, to *[]data.Record) {
	if last := len(*from) - 1; len(*to) == 0 && last >= 0 {
		*to, *from = append(*to, (*from)[last]), (*from)[:last]
	}
}

// made returns the generation that an adaptation has become.
func (d *Device) made(j *job) (Generation, bool, error) {
	list, err := d.List()
	if err != nil {
		return Generation{}, false, err
	}
	i := slices.IndexFunc(list, func(g Generation) bool { return g.Source == j.ID })
	if i < 0 {
		return Generation{}, false, nil
	}
	return list[i], true, nil
}

// train makes the steps of an adaptation and judges the result.
func (d *Device) train(ctx context.Context, v *vault, j *job, a Adaptation, r *Result) (err error) {
	c := *d.Config
	c.Adapter, c.Seed = d.Adapter(j.Parent), c.Seed+uint64(j.Parent)
	if j.Parent != 0 {
		if _, err := d.Verify(j.Parent); err != nil {
			return err
		}
	}
	// An adaptation that was deferred goes on as it was planned.
	planned, err := tune.Schema().Load(d.pendingPath(runName, runs.ConfigFile), nil)
	begun := err == nil
	if begun {
		c = *planned.Value
	}
	records := slices.Concat(j.New, j.Replay)
	prepare := func(c *tune.Run) (*trainer.Session, error) {
		return trainer.Prepare(ctx, c, trainer.Files{Model: d.Model, General: a.General(), Records: records, Held: j.Held})
	}
	s, fit, err := d.fit(&c, begun, prepare)
	if err != nil {
		return err
	}
	r.Fit = fit
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Ledger.Err(); err != nil {
		return err
	}
	resumed, err := d.openRun(s, &c)
	if err != nil {
		return err
	}
	defer s.Run.Close()
	if a.Started != nil {
		a.Started(s, fit)
	}
	if r.Before, err = d.before(ctx, s, resumed); err != nil {
		return err
	}
	s.Progress = a.Progress
	if err := s.Train(ctx); err != nil {
		return err
	}
	losses, err := s.Losses(ctx)
	if err != nil {
		return err
	}
	r.After = numbers(losses)
	if j.Parent == 0 && d.State.General == 0 {
		d.State.General = r.Before[runs.General]
		if err := writeJSON(filepath.Join(d.Dir, stateFile), d.State); err != nil {
			return err
		}
	}
	if r.Reason = d.refuse(r.Before, r.After); r.Reason != "" {
		return os.RemoveAll(d.pendingPath())
	}
	return d.take(v, j, a, s, r)
}

// openRun opens the adaptation's run and goes to its last checkpoint, if there is one.
func (d *Device) openRun(s *trainer.Session, c *tune.Run) (resumed bool, err error) {
	dir := d.pendingPath(runName)
	if s.Run, err = runs.Open(dir); errors.Is(err, fs.ErrNotExist) {
		var text bytes.Buffer
		if err := tune.Schema().Write(&text, c); err != nil {
			return false, err
		}
		s.Run, err = runs.Create(d.pendingPath(), runName, text.Bytes(), runs.Manifest{Seed: c.Seed, Precision: c.Precision, Engine: s.Backend.Name()})
	}
	if err != nil {
		return false, err
	}
	at, _, err := checkpoint.Latest(filepath.Join(dir, runs.Checkpoints))
	if err != nil {
		return false, err
	}
	if at == "" {
		return false, s.Run.Rewind(-1)
	}
	return true, s.Restore(at)
}

// before returns the losses before the first step, which were written down before it.
func (d *Device) before(ctx context.Context, s *trainer.Session, resumed bool) (map[string]runs.Number, error) {
	path := d.pendingPath(beforeFile)
	var out map[string]runs.Number
	if resumed {
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &out)
		}
		return out, err
	}
	losses, err := s.Evaluate(ctx)
	if err != nil {
		return nil, err
	}
	return numbers(losses), writeJSON(path, numbers(losses))
}

func numbers(losses map[string]float64) map[string]runs.Number {
	out := map[string]runs.Number{}
	for k, v := range losses {
		out[k] = runs.Number(v)
	}
	return out
}

// refuse is the gate: it returns why a result is not taken, empty where it is.
func (d *Device) refuse(before, after map[string]runs.Number) string {
	gain := float64(before[runs.Eval] - after[runs.Eval])
	if !(gain > d.MinGain) {
		return fmt.Sprintf("the loss on new held-out data went from %.4f to %.4f, want a fall of more than %g", float64(before[runs.Eval]), float64(after[runs.Eval]), d.MinGain)
	}
	standard := d.State.General
	if standard == 0 {
		standard = before[runs.General]
	}
	if rise := float64(after[runs.General] - standard); !(rise <= d.MaxForget) {
		return fmt.Sprintf("the general loss is %.4f, %.4f above the base's, want at most %g", float64(after[runs.General]), rise, d.MaxForget)
	}
	return ""
}

// take makes a generation of the result.
func (d *Device) take(v *vault, j *job, a Adaptation, s *trainer.Session, r *Result) error {
	contract := ""
	if s.Text.Template != nil {
		contract = s.Text.Template.Contract()
	}
	g := Generation{
		Parent: j.Parent, Base: d.State.Base, Contract: contract, Source: j.ID, Records: len(j.New), Created: a.Now().UTC().Truncate(time.Second),
		Before: r.Before, After: r.After,
	}
	g, err := d.Add(g, func(dir string) error {
		return tune.SaveAdapter(dir, s.Graft, s.Model.Sites, s.Model.Store, tune.AdapterInfo{Base: d.Config.Model, Contract: contract, Version: a.Version})
	})
	if err != nil {
		return err
	}
	r.Generation, r.Taken = g, true
	return d.finish(v, j, g)
}

// finish puts a generation into use, remembers its records and clears up. It may be done again after a death.
func (d *Device) finish(v *vault, j *job, g Generation) error {
	if err := d.Switch(g.Number); err != nil {
		return err
	}
	replay, err := d.openReplay(v)
	if err != nil {
		return err
	}
	replay.Add(j.ID, j.New, j.Time)
	if err := v.write(filepath.Join(d.Dir, replayFile), replay); err != nil {
		return err
	}
	return errors.Join(d.Prune(d.Keep), os.RemoveAll(d.pendingPath()))
}

// Status is how a device stands.
type Status struct {
	Current     int          `json:"current"`
	Generations []Generation `json:"generations"`
	Pending     bool         `json:"pending"`
	Replay      int          `json:"replay"` // records in the buffer
	Limit       string       `json:"memory_limit"`
	Allowed     string       `json:"allowed"` // "now", or why not
}

// Status returns how the device stands.
func (d *Device) Status() (s Status, err error) {
	if s.Current, err = d.Current(); err != nil {
		return s, err
	}
	if s.Generations, err = d.List(); err != nil {
		return s, err
	}
	v, err := openVault(d.keyPath())
	if err != nil {
		return s, err
	}
	j, err := d.pending(v)
	if err != nil {
		return s, err
	}
	replay, err := d.openReplay(v)
	if err != nil {
		return s, err
	}
	s.Pending, s.Replay, s.Limit, s.Allowed = j != nil, len(replay.Kept), d.Limit().String(), "now"
	if err := d.Check((&Reader{Root: d.Root}).Read(), 0); err != nil {
		s.Allowed = strings.TrimPrefix(err.Error(), ErrDeferred.Error()+": ")
	}
	return s, nil
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, append(text, '\n'))
}
