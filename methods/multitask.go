package methods

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"tunesmith/config"
	"tunesmith/data"
	"tunesmith/internal/nearest"
	"tunesmith/tune"
)

// Multitask trains on several data sets at once, in shares that keep a large one from drowning the others.
//
//	rate = min(n, cap)^(1/temperature), share = rate / Σ rate
//
// T5 (Raffel et al. 2020, arXiv 1910.10683). Gradients that point against each other can be projected (PCGrad, Yu et
// al. 2020, 2001.06782), and losses weighed by their learned uncertainty (Kendall et al. 2018, 1705.07115). Tasks that
// need opposite answers to one question cannot be mixed away; give each an adapter of its own.
type Multitask struct {
	Temperature float64            `yaml:"temperature" doc:"1 draws tasks by their size, a large value draws all alike" above:"0"`
	Cap         int                `yaml:"cap" doc:"size above which a task counts no more; 0 is no limit" min:"0"`
	Count       string             `yaml:"count" doc:"what the size of a task is" enum:"examples,tokens"`
	Shares      map[string]float64 `yaml:"shares" doc:"shares of the rows by task, instead of those by size; all tasks together give 1"`
	Weights     map[string]float64 `yaml:"weights" doc:"factors of the losses by task; 1 where a task has none"`
	From        map[string]float64 `yaml:"from" doc:"share of the training that is over when a task joins; 0 where a task has none"`
	Stop        int                `yaml:"patience" doc:"evaluations without a better held-out loss after which a task is drawn no more; 0 is never" min:"0"`
	Weighting   string             `yaml:"weighting" doc:"factors of the losses: fixed, or learned from each task's uncertainty" enum:"fixed,uncertainty"`
	Conflicts   string             `yaml:"conflicts" doc:"gradients of tasks that point against each other: ignore, report how often, or project (PCGrad)" enum:"ignore,report,project"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.MixtureAxis, Name: "multitask",
		Doc: "draws several data sets in shares of their own, with a loss and an evaluation for each",
		New: func() any {
			return &Multitask{Temperature: 2, Count: "examples", Weighting: "fixed", Conflicts: "ignore"}
		},
	})
}

// Validate implements config.Validator.
func (o *Multitask) Validate() []config.Problem {
	var out []config.Problem
	var sum float64
	for name, s := range o.Shares {
		if sum += s; !(s >= 0 && s <= 1) {
			out = append(out, config.Problemf("shares", "%s: want a share from 0 to 1, have %g", name, s))
		}
	}
	if len(o.Shares) > 0 && math.Abs(sum-1) > 1e-6 {
		out = append(out, config.Problemf("shares", "want shares that add up to 1, have %g", sum))
	}
	for name, w := range o.Weights {
		if !(w >= 0) || math.IsInf(w, 0) {
			out = append(out, config.Problemf("weights", "%s: want a factor from 0 on, have %g", name, w))
		}
	}
	for name, f := range o.From {
		if !(f >= 0 && f < 1) {
			out = append(out, config.Problemf("from", "%s: want a part of the training from 0 to below 1, have %g", name, f))
		}
	}
	return out
}

// Parts implements tune.Mixture.
func (o *Multitask) Parts(tasks []tune.TaskSize) ([]tune.TaskPart, error) {
	names, sizes := make([]string, len(tasks)), make([]int, len(tasks))
	for i, t := range tasks {
		if names[i], sizes[i] = t.Name, t.Examples; o.Count == "tokens" {
			sizes[i] = int(t.Tokens)
		}
	}
	for key, values := range map[string]map[string]float64{"shares": o.Shares, "weights": o.Weights, "from": o.From} {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if !slices.Contains(names, name) {
				return nil, fmt.Errorf("mixture.%s: no data set has the task %q%s; the tasks are %s", key, name, nearest.Hint(name, names), strings.Join(names, ", "))
			}
		}
	}
	shares, err := data.Mixing{Temperature: o.Temperature, Cap: float64(o.Cap)}.Shares(sizes)
	if err != nil {
		return nil, fmt.Errorf("mixture: %w", err)
	}
	out := make([]tune.TaskPart, len(tasks))
	first := math.Inf(1)
	for i, name := range names {
		out[i] = tune.TaskPart{Share: shares[i], Weight: 1, From: o.From[name]}
		if len(o.Shares) > 0 {
			out[i].Share = o.Shares[name]
		}
		if w, ok := o.Weights[name]; ok {
			out[i].Weight = w
		}
		if out[i].Share > 0 {
			first = min(first, out[i].From)
		}
	}
	if first > 0 {
		return nil, fmt.Errorf("mixture.from: want a task that takes part from the start, the first joins at %g", first)
	}
	return out, nil
}

// Patience implements tune.Mixture.
func (o *Multitask) Patience() int { return o.Stop }

// Combiner implements tune.Mixture.
func (o *Multitask) Combiner(tasks []string, seed uint64) tune.Combiner {
	if o.Weighting == "fixed" && o.Conflicts == "ignore" {
		return nil
	}
	n := len(tasks)
	return &combiner{options: o, tasks: tasks, seed: seed, memory: memory{
		LogSigma: make([]float64, n), Slope: make([]float64, n), Square: make([]float64, n), Steps: make([]int, n),
		Cosines: make([]float64, n*n), Against: make([]int, n*n), Met: make([]int, n*n),
	}}
}

// combiner weighs and projects.
type combiner struct {
	options *Multitask
	tasks   []string
	seed    uint64
	memory
}

// memory is what a combiner carries over to a run that goes on.
type memory struct {
	LogSigma []float64 `json:"log_sigma"` // by task
	Slope    []float64 `json:"slope"`     // moments of its gradient, as in Adam
	Square   []float64 `json:"square"`
	Steps    []int     `json:"steps"`
	Cosines  []float64 `json:"cosines"` // sum of the cosines of two tasks' gradients
	Against  []int     `json:"against"` // steps in which they point against each other
	Met      []int     `json:"met"`     // steps that had both
}

// Factor implements tune.Combiner: a task's loss L enters as L·e^(−2s) + s, where s is the logarithm of its σ.
func (c *combiner) Factor(task int) float64 {
	if c.options.Weighting == "fixed" {
		return 1
	}
	return math.Exp(-2 * c.LogSigma[task])
}

// Separate implements tune.Combiner.
func (c *combiner) Separate() bool { return c.options.Conflicts != "ignore" }

// Combine implements tune.Combiner.
func (c *combiner) Combine(step int, tasks []int, grads [][][]float32) {
	for i := range tasks {
		for j := range i {
			cos := cosine(grads[i], grads[j])
			at := min(tasks[i], tasks[j])*len(c.tasks) + max(tasks[i], tasks[j])
			c.Cosines[at] += cos
			c.Met[at]++
			if cos < 0 {
				c.Against[at]++
			}
		}
	}
	if c.options.Conflicts != "project" {
		return
	}
	rng := rand.New(rand.NewPCG(c.seed, uint64(step)))
	order := make([][]int, len(tasks))
	for i := range order {
		order[i] = rng.Perm(len(tasks))
	}
	project(grads, order)
}

// Learn implements tune.Combiner: one step of Adam on each task's s, whose gradient is 1 − 2·L·e^(−2s).
func (c *combiner) Learn(tasks []int, losses []float64, rate float64) {
	if c.options.Weighting == "fixed" {
		return
	}
	// The logarithms are few, and of the size of 1: they may move faster than the weights of the model.
	const beta1, beta2, speed = 0.9, 0.99, 10
	for i, task := range tasks {
		_, _, slope := uncertainty(classification, losses[i], c.LogSigma[task])
		c.Steps[task]++
		c.Slope[task] = beta1*c.Slope[task] + (1-beta1)*slope
		c.Square[task] = beta2*c.Square[task] + (1-beta2)*slope*slope
		m := c.Slope[task] / (1 - math.Pow(beta1, float64(c.Steps[task])))
		v := c.Square[task] / (1 - math.Pow(beta2, float64(c.Steps[task])))
		c.LogSigma[task] -= speed * rate * m / (math.Sqrt(v) + 1e-8)
	}
}

// State implements tune.Combiner.
func (c *combiner) State() (json.RawMessage, error) { return json.Marshal(c.memory) }

// Restore implements tune.Combiner.
func (c *combiner) Restore(text json.RawMessage) error {
	var m memory
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("mixture: %w", err)
	}
	n := len(c.tasks)
	if len(m.LogSigma) != n || len(m.Slope) != n || len(m.Square) != n || len(m.Steps) != n || len(m.Cosines) != n*n || len(m.Against) != n*n || len(m.Met) != n*n {
		return fmt.Errorf("mixture: the state is that of %d tasks, want %d", len(m.LogSigma), n)
	}
	c.memory = m
	return nil
}

// Lines implements tune.Combiner.
func (c *combiner) Lines() []string {
	var out []string
	if c.options.Weighting != "fixed" {
		for i, name := range c.tasks {
			out = append(out, fmt.Sprintf("%s: σ %.3g, factor of the loss %.3g", name, math.Exp(c.LogSigma[i]), c.Factor(i)))
		}
	}
	for i := range c.tasks {
		for j := i + 1; j < len(c.tasks); j++ {
			at := i*len(c.tasks) + j
			if n := c.Met[at]; n > 0 {
				out = append(out, fmt.Sprintf("%s and %s: mean cosine of the gradients %.3f, against each other in %d of %d steps", c.tasks[i], c.tasks[j], c.Cosines[at]/float64(n), c.Against[at], n))
			}
		}
	}
	return out
}

var (
	_ tune.Mixture  = (*Multitask)(nil)
	_ tune.Combiner = (*combiner)(nil)
)
