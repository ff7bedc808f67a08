// Package runs keeps what a run leaves behind: one folder with its configuration, its origin, its metrics, events
// and samples, and a report. The files are the truth; everything else can be made from them again.
//
//	run.yaml        the resolved configuration, itself runnable
//	manifest.json   what the result depends on: hashes of base, data and binary, seed, kernel level
//	metrics.jsonl   one line a logged update or evaluation
//	events.jsonl    what happened: started, saved, resumed, warned, finished, and the outcome
//	samples.jsonl   answers before and after
//	tensorboard/    the metrics once more, for TensorBoard
//	checkpoints/, adapter/, report.html
//
// A line is in the file as soon as the call that wrote it returns, so it outlives the process; it outlives the
// machine from the next Sync or Close on. A line that was cut short is dropped when the run is opened again.
package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tunesmith/internal/atomicfile"
)

// Names of the files in a run's folder.
const (
	ConfigFile   = "run.yaml"
	ManifestFile = "manifest.json"
	MetricsFile  = "metrics.jsonl"
	EventsFile   = "events.jsonl"
	SamplesFile  = "samples.jsonl"
	BoardDir     = "tensorboard"
	Checkpoints  = "checkpoints"
	AdapterDir   = "adapter"
	ReportFile   = "report.html"
	lockFile     = "lock"
)

// Errors that a caller may tell apart.
var (
	ErrExists = errors.New("the run exists")
	ErrLocked = errors.New("the run is in use")
)

// Run is a run's folder, open for writing by this process alone, and for one goroutine at a time.
type Run struct {
	dir     string
	lock    *os.File
	metrics *log
	events  *log
	samples *log
	board   *board
	step    int // of the last metric
}

// Create makes the folder root/name with its configuration and manifest, whole or not at all. A name that is
// taken is an error that wraps ErrExists.
func Create(root, name string, config []byte, m Manifest) (*Run, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name)
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s: %w; resume it, or choose another name", dir, ErrExists)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	temp, err := os.MkdirTemp(root, "."+name+".new-")
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	defer os.RemoveAll(temp) // nothing is left there once it has its name
	m.Name = name
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("runs: manifest: %w", err)
	}
	err = errors.Join(
		os.Chmod(temp, 0o755),
		os.Mkdir(filepath.Join(temp, Checkpoints), 0o755),
		atomicfile.WriteFile(filepath.Join(temp, ConfigFile), config),
		atomicfile.WriteFile(filepath.Join(temp, ManifestFile), append(manifest, '\n')))
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, taken := os.Lstat(dir); taken == nil {
			return nil, fmt.Errorf("%s: %w; resume it, or choose another name", dir, ErrExists)
		}
		return nil, fmt.Errorf("runs: %w", err)
	}
	if err := atomicfile.SyncDir(root); err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	return Open(dir)
}

// CreateNext is Create under the first free of name, name-2, name-3, ….
func CreateNext(root, name string, config []byte, m Manifest) (*Run, error) {
	for i := 1; ; i++ {
		next := name
		if i > 1 {
			next = fmt.Sprintf("%s-%d", name, i)
		}
		if r, err := Create(root, next, config, m); !errors.Is(err, ErrExists) {
			return r, err
		}
	}
}

// checkName wants a name that is one folder on every system.
func checkName(name string) error {
	bad := strings.IndexFunc(name, func(r rune) bool { return r < ' ' || strings.ContainsRune(`/\:*?"<>|`, r) })
	switch {
	case name == "" || len(name) > 100:
		return fmt.Errorf("run name: want 1 to 100 bytes, have %d", len(name))
	case bad >= 0:
		return fmt.Errorf("run name %q: want a folder name without %q", name, name[bad:bad+1])
	case strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.TrimSpace(name) != name:
		return fmt.Errorf("run name %q: want no dot at the start or end and no space around it", name)
	}
	return nil
}

// Open takes an existing run for this process: an error that wraps ErrLocked says which process has it. The lock of
// a process that died is free. Lines that were cut short are dropped.
func Open(dir string) (_ *Run, err error) {
	if _, err := os.Stat(filepath.Join(dir, ManifestFile)); err != nil {
		return nil, fmt.Errorf("%s is not a run: %w", dir, err)
	}
	r := &Run{dir: dir}
	if r.lock, err = lock(filepath.Join(dir, lockFile)); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, l := range []struct {
		to   **log
		name string
	}{{&r.metrics, MetricsFile}, {&r.events, EventsFile}, {&r.samples, SamplesFile}} {
		if *l.to, err = openLog(filepath.Join(dir, l.name)); err != nil {
			return nil, err
		}
	}
	last, err := Metrics(dir)
	if err != nil {
		return nil, err
	}
	if len(last) > 0 {
		r.step = last[len(last)-1].Step
	}
	r.board = newBoard(filepath.Join(dir, BoardDir))
	return r, nil
}

// Dir returns the run's folder.
func (r *Run) Dir() string { return r.dir }

// Name returns the run's name.
func (r *Run) Name() string { return filepath.Base(r.dir) }

// Metric appends a line to metrics.jsonl and to TensorBoard's file. Steps may not go back; see Rewind. A Time that
// is zero becomes now.
func (r *Run) Metric(m Metric) error {
	if m.Step < r.step {
		return fmt.Errorf("%s: want a step from %d on, have %d", r.metrics.path, r.step, m.Step)
	}
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	if err := r.metrics.append(m); err != nil {
		return err
	}
	r.step = m.Step
	return r.board.metric(m)
}

// Event appends a line to events.jsonl. A Time that is zero becomes now.
func (r *Run) Event(e Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	return r.events.append(e)
}

// Sample appends a line to samples.jsonl.
func (r *Run) Sample(s Sample) error { return r.samples.append(s) }

// Rewind drops metrics and samples of later steps, for a run that continues from the checkpoint of a step. After
// it, the files grow into those of a run that was never stopped, but for TimeFields.
func (r *Run) Rewind(step int) error {
	for _, l := range []*log{r.metrics, r.samples} {
		if err := l.cut(step); err != nil {
			return err
		}
	}
	r.step = min(r.step, step)
	return r.board.restart(step + 1)
}

// WriteConfig replaces run.yaml.
func (r *Run) WriteConfig(config []byte) error {
	return atomicfile.WriteFile(filepath.Join(r.dir, ConfigFile), config)
}

// WriteManifest replaces manifest.json.
func (r *Run) WriteManifest(m Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("runs: manifest: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(r.dir, ManifestFile), append(b, '\n'))
}

// Sync puts all lines to the disk. A checkpoint is preceded by it, so that no checkpoint is ahead of the metrics.
func (r *Run) Sync() error {
	var errs []error
	for _, l := range []*log{r.metrics, r.events, r.samples} {
		if l != nil {
			errs = append(errs, l.f.Sync())
		}
	}
	return errors.Join(errs...)
}

// Close syncs and frees the run for other processes.
func (r *Run) Close() error {
	errs := []error{r.Sync()}
	for _, l := range []*log{r.metrics, r.events, r.samples} {
		if l != nil {
			errs = append(errs, l.f.Close())
		}
	}
	if r.board != nil {
		errs = append(errs, r.board.close())
	}
	return errors.Join(append(errs, r.lock.Close())...)
}

// Status is how far a run has come.
type Status string

// The statuses. A run that no process has open and that has not ended was interrupted; it can be resumed.
const (
	Running     Status = "running"
	Finished    Status = "finished"
	Cancelled   Status = "cancelled"
	Failed      Status = "failed"
	Interrupted Status = "interrupted"
)

// Info is a run in a list.
type Info struct {
	Name    string    `json:"name"`
	Dir     string    `json:"dir"`
	Status  Status    `json:"status"`
	Created time.Time `json:"created"`
	Step    int       `json:"step"`
	Loss    Number    `json:"loss"`
	Outcome []Outcome `json:"outcome,omitempty"`
}

// List returns the runs under root, the newest first. A folder that cannot be read as a run is left out; its error
// is joined to the one returned beside the list.
func List(root string) ([]Info, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	var list []Info
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if _, err := os.Stat(filepath.Join(dir, ManifestFile)); err != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := Describe(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, info)
	}
	slices.SortStableFunc(list, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return list, errors.Join(errs...)
}

// Describe sums up one run.
func Describe(dir string) (Info, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return Info{}, err
	}
	metrics, err := Metrics(dir)
	if err != nil {
		return Info{}, err
	}
	events, err := Events(dir)
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: filepath.Base(dir), Dir: dir, Created: m.Created, Status: status(dir, events), Outcome: outcome(events)}
	for _, m := range metrics {
		if info.Step = m.Step; m.Split == Train {
			info.Loss = m.Loss
		}
	}
	return info, nil
}

// status follows the events: a run that has written its end is over, though its process may still have it open.
func status(dir string, events []Event) Status {
	s := Interrupted
	for _, e := range events {
		switch e.Kind {
		case EventStart, EventResume:
			s = Interrupted
		case EventFinish:
			s = Finished
		case EventCancel:
			s = Cancelled
		case EventError:
			s = Failed
		}
	}
	if s == Interrupted && locked(filepath.Join(dir, lockFile)) {
		return Running
	}
	return s
}

// outcome is the last one that the events hold.
func outcome(events []Event) []Outcome {
	for _, e := range slices.Backward(events) {
		if e.Outcome != nil {
			return e.Outcome
		}
	}
	return nil
}
