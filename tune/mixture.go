package tune

import "encoding/json"

// Mixture is a method of the mixture axis. Where a run has none, its data sets are one.
type Mixture interface {
	// Parts returns how each task takes part.
	Parts(tasks []TaskSize) ([]TaskPart, error)
	// Patience is after how many evaluations without a better loss on what is held out a task is drawn no more; 0 is
	// never.
	Patience() int
	// Combiner returns what looks at the tasks of a step one by one, nil where nothing does.
	Combiner(tasks []string, seed uint64) Combiner
}

// TaskSize is a task and how much of it there is.
type TaskSize struct {
	Name     string
	Examples int
	Tokens   int64 // supervised
}

// TaskPart is how a task takes part.
type TaskPart struct {
	Share  float64 // of the rows; those of all tasks add up to 1
	Weight float64 // factor of the loss
	From   float64 // share of the training that is over when the task joins
}

// Combiner sees the losses, and if it asks for them the gradients, of each task of a step. Every batch is then of one
// task.
type Combiner interface {
	// Factor returns the factor of a task's loss in the next step, beside its weight.
	Factor(task int) float64
	// Separate reports whether Combine is to see each task's own gradients, which take memory for each.
	Separate() bool
	// Combine may change the gradients of the tasks of a step, by task and parameter, before they are summed.
	Combine(step int, tasks []int, grads [][][]float32)
	// Learn sees the mean losses of the tasks of a step that was made, and its learning rate.
	Learn(tasks []int, losses []float64, rate float64)
	// State and Restore carry what is remembered over from one run to the next.
	State() (json.RawMessage, error)
	Restore(json.RawMessage) error
	// Lines tell what was found, for people.
	Lines() []string
}
