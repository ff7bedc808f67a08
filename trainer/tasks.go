package trainer

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"tunesmith/data"
	"tunesmith/runs"
	"tunesmith/tune"
)

// Tasks are the tasks of a mixture.
type Tasks struct {
	Names    []string
	Parts    []tune.TaskPart
	Sizes    []tune.TaskSize
	patience int
	combiner tune.Combiner // nil where nothing looks at the tasks one by one

	watch []watch
}

// watch follows a task's loss on what is held out.
type watch struct {
	Best float64 `json:"best"`
	Bad  int     `json:"bad"` // evaluations since
}

// split is the name of a task's evaluation.
func (t *Tasks) split(i int) string { return runs.Eval + ":" + t.Names[i] }

// Evaluation is the evaluation of one task.
type Evaluation struct{ Name, Split string }

// Evaluations returns those of all tasks.
func (t *Tasks) Evaluations() []Evaluation {
	var out []Evaluation
	if t != nil {
		for i, name := range t.Names {
			out = append(out, Evaluation{name, t.split(i)})
		}
	}
	return out
}

// Lines tell what was found about the tasks, for people.
func (t *Tasks) Lines() []string {
	if t == nil || t.combiner == nil {
		return nil
	}
	return t.combiner.Lines()
}

// taskName names a data set that the run file gives no task: its file's name.
func taskName(path string) string {
	name := filepath.Base(path)
	for _, end := range []string{".gz", ".zst", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}

// sources names the tasks of a mixture's data sets.
func (s *Session) sources(list []tune.Data) []data.Source {
	out := tune.Sources(list)
	if _, mixed := s.Config.Mixture.Options.(tune.Mixture); mixed {
		for i := range out {
			if out[i].Task == "" {
				out[i].Task = taskName(out[i].Path)
			}
			// Slashes divide the names of metrics.
			out[i].Task = strings.ReplaceAll(out[i].Task, "/", "_")
		}
	}
	return out
}

// mixture returns the loader of a run that mixes tasks, nil for one that does not.
func (s *Session) mixture(c data.LoaderConfig) (*data.Loader, error) {
	m, ok := s.Config.Mixture.Options.(tune.Mixture)
	if !ok {
		return nil, nil
	}
	t := &Tasks{Names: s.Examples.Tasks(), patience: m.Patience()}
	if t.patience > 0 && c.GroupByLength {
		return nil, fmt.Errorf("mixture.patience: rows that are grouped by length have no course: set group_by_length: false, or patience: 0")
	}
	all := make([][]int32, len(t.Names))
	for i, name := range t.Names {
		all[i] = s.Examples.OfTask(name)
		size := tune.TaskSize{Name: name, Examples: len(all[i])}
		for _, id := range all[i] {
			size.Tokens += int64(s.Examples.Supervised(int(id)))
		}
		t.Sizes = append(t.Sizes, size)
	}
	var err error
	if t.Parts, err = m.Parts(t.Sizes); err != nil {
		return nil, err
	}
	if t.combiner = m.Combiner(t.Names, s.Config.Seed); t.combiner != nil {
		c.OneTask = true
		if s.Config.ForwardOnly {
			return nil, fmt.Errorf("mixture: forward-only steps have no loss and no gradient of each task: set weighting: fixed and conflicts: ignore")
		}
		if t.combiner.Separate() && s.Config.Accumulation < 2 {
			return nil, fmt.Errorf("mixture.conflicts: gradients of several tasks are compared within a step: want gradient_accumulation of 2 at least, have %d", s.Config.Accumulation)
		}
	}
	build := func(total float64) (*data.Loader, error) {
		var tasks []data.Task
		for i, p := range t.Parts {
			tasks = append(tasks, data.Task{
				Store: s.Examples, Share: p.Share, Weight: float32(p.Weight), Examples: all[i], From: int64(math.Round(p.From * total)),
			})
		}
		return data.NewMixture(tasks, c)
	}
	l, err := build(0)
	if err != nil {
		return nil, err
	}
	// When a task joins is known when the steps are.
	if total := float64(s.schedule(l, 1).Steps * c.Accumulate * c.BatchSize); !c.GroupByLength {
		if l, err = build(total); err != nil {
			return nil, err
		}
	}
	t.watch = make([]watch, len(t.Names))
	s.mix = t
	return l, nil
}

// taskEvaluations prepares the held-out batches of each task.
func (s *Session) taskEvaluations() error {
	if s.mix == nil {
		return nil
	}
	for i, name := range s.mix.Names {
		ids := s.Held.OfTask(name)
		if len(ids) == 0 {
			continue
		}
		c := s.loaderConfig(max(1, min(8, s.Config.BatchSize)), 1, false)
		l, err := data.NewMixture([]data.Task{{Store: s.Held, Share: 1, Weight: 1, Examples: ids}}, c)
		if err != nil {
			return err
		}
		if s.Eval[s.mix.split(i)], err = rows(l, min(s.Config.Eval.Most, len(ids))); err != nil {
			return err
		}
	}
	return nil
}

// Tasks returns the tasks of the run's mixture, nil where it has none.
func (t *Trainer) Tasks() *Tasks { return t.tasks }

// judge stops the tasks whose loss on what is held out no longer falls.
func (t *Trainer) judge(losses map[string]float64, step int) error {
	k := t.tasks
	if k == nil || k.patience == 0 {
		return nil
	}
	for i := range k.Names {
		loss, ok := losses[k.split(i)]
		w := &k.watch[i]
		if !ok || t.Loader.Stopped(i) {
			continue
		}
		if w.Best == 0 || loss < w.Best {
			*w = watch{Best: loss}
			continue
		}
		if w.Bad++; w.Bad < k.patience {
			continue
		}
		if err := t.Loader.Stop(i); err != nil {
			return err
		}
		if t.Loader.Stopped(i) {
			message := fmt.Sprintf("task %s is drawn no more: its held-out loss was best at %.4f, %d evaluations ago", k.Names[i], w.Best, w.Bad)
			if err := t.Run.Event(runs.Event{Step: step, Kind: runs.EventWarning, Message: message}); err != nil {
				return err
			}
		}
	}
	return nil
}

// taskState is what a checkpoint keeps of the tasks.
type taskState struct {
	Watch    []watch         `json:"watch"`
	Combiner json.RawMessage `json:"combiner,omitempty"`
}

func (t *Tasks) state() (*taskState, error) {
	if t == nil {
		return nil, nil
	}
	s := &taskState{Watch: t.watch}
	if t.combiner == nil {
		return s, nil
	}
	var err error
	s.Combiner, err = t.combiner.State()
	return s, err
}

func (t *Tasks) restore(s *taskState) error {
	if t == nil || s == nil {
		if (t == nil) != (s == nil) {
			return fmt.Errorf("the run has a mixture, or had one: resume with the mixture of the run")
		}
		return nil
	}
	if len(s.Watch) != len(t.Names) {
		return fmt.Errorf("the state is that of %d tasks, the run has %d", len(s.Watch), len(t.Names))
	}
	copy(t.watch, s.Watch)
	if t.combiner == nil {
		return nil
	}
	return t.combiner.Restore(s.Combiner)
}

// byTask fills the gradients of a step whose batches are each of one task.
func (s *Stepper) byTask(ctx context.Context, batches []data.Batch, total float64, r *StepResult) error {
	c := s.tasks.combiner
	var tasks []int
	groups := map[int][]data.Batch{}
	for _, b := range batches {
		task := b.Tasks[0]
		if groups[task] == nil {
			tasks = append(tasks, task)
		}
		groups[task] = append(groups[task], b)
	}
	v := newValues()
	losses := make([]float64, len(tasks))
	var grads [][][]float32
	done := 0
	for i, task := range tasks {
		var sum, weight float64
		for j, b := range groups[task] {
			to := further
			switch {
			case len(batches) == 1:
				to = alone
			case done == 0, j == 0 && c.Separate():
				to = first
			}
			part, err := s.accumulate(ctx, b, done, to, total/c.Factor(task), v)
			if err != nil {
				return err
			}
			done++
			sum += part
			weight += s.programs.weight(b)
		}
		r.Loss += sum / total
		losses[i] = sum / weight
		if c.Separate() {
			own := make([][]float32, len(s.params))
			for k, p := range s.params {
				own[k] = append([]float32(nil), p.Grad...)
			}
			grads = append(grads, own)
		}
	}
	if c.Separate() {
		c.Combine(s.step, tasks, grads)
		for k := range s.params {
			p := &s.params[k]
			copy(p.Grad, grads[0][k])
			for _, g := range grads[1:] {
				for j, x := range g[k] {
					p.Grad[j] += x
				}
			}
		}
	}
	r.Values = v.means()
	if r.Values == nil {
		r.Values = map[string]float64{}
	}
	for i, task := range tasks {
		r.Values["loss:"+s.tasks.Names[task]] = losses[i]
	}
	s.learn = func(rate float64) { c.Learn(tasks, losses, rate) }
	return nil
}
