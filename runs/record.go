package runs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"time"
)

// Number is a float64 whose JSON form also knows "nan", "inf" and "-inf".
type Number float64

// MarshalJSON writes the shortest form that reads back to the same bits.
func (n Number) MarshalJSON() ([]byte, error) {
	switch f := float64(n); {
	case math.IsNaN(f):
		return []byte(`"nan"`), nil
	case math.IsInf(f, 1):
		return []byte(`"inf"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-inf"`), nil
	default:
		return json.Marshal(f)
	}
}

// UnmarshalJSON reads a number or one of the three words.
func (n *Number) UnmarshalJSON(b []byte) error {
	switch string(bytes.TrimSpace(b)) {
	case `"nan"`:
		*n = Number(math.NaN())
	case `"inf"`:
		*n = Number(math.Inf(1))
	case `"-inf"`:
		*n = Number(math.Inf(-1))
	default:
		return json.Unmarshal(b, (*float64)(n))
	}
	return nil
}

func (n Number) finite() bool { return !math.IsNaN(float64(n)) && !math.IsInf(float64(n), 0) }

// The splits of the data that a metric may come from; an evaluation set of another name is a split too.
const (
	Train   = "train"
	Eval    = "eval"    // held out from the task's data
	General = "general" // text that the task does not teach: what is forgotten shows here
)

// Metric is a line of metrics.jsonl: one update, or one evaluation after it.
type Metric struct {
	Step     int               `json:"step"` // updates made
	Split    string            `json:"split"`
	Epoch    float64           `json:"epoch,omitempty"`
	Loss     Number            `json:"loss"` // mean over supervised tokens
	LR       Number            `json:"learning_rate,omitempty"`
	GradNorm Number            `json:"grad_norm,omitempty"` // before clipping
	Tokens   int64             `json:"tokens,omitempty"`    // supervised tokens so far
	Values   map[string]Number `json:"values,omitempty"`    // what a method adds

	Time            time.Time `json:"time"`
	TokensPerSecond Number    `json:"tokens_per_second,omitempty"`
}

// TimeFields are the fields of a metric that differ between two runs of the same bits.
var TimeFields = []string{"time", "tokens_per_second"}

// The kinds of events that this package looks at; there may be others.
const (
	EventStart      = "start"
	EventResume     = "resume"
	EventCheckpoint = "checkpoint"
	EventWarning    = "warning"
	EventOutcome    = "outcome"
	EventFinish     = "finish"
	EventCancel     = "cancel"
	EventError      = "error"
)

// Event is a line of events.jsonl.
type Event struct {
	Time    time.Time `json:"time"`
	Step    int       `json:"step"`
	Kind    string    `json:"kind"`
	Message string    `json:"message,omitempty"`
	Outcome []Outcome `json:"outcome,omitempty"` // of kind outcome
}

// Outcome is a row of the table before → after.
type Outcome struct {
	Name   string `json:"name"`
	Before Number `json:"before"`
	After  Number `json:"after"`
	Better string `json:"better"`         // "up" or "down": the direction in which a value is better
	Unit   string `json:"unit,omitempty"` // "%" where the values are shares to be shown in percent
}

// gain is how much better After is, relative to Before; it is NaN where that is undefined.
func (o Outcome) gain() float64 {
	d := float64(o.After-o.Before) / math.Abs(float64(o.Before))
	if o.Unit == "%" { // a share: the difference counts, not the ratio
		d = float64(o.After - o.Before)
	}
	if o.Better == "down" {
		return -d
	}
	return d
}

// Sample is a line of samples.jsonl: one answer before and after.
type Sample struct {
	Step   int    `json:"step"`
	Prompt string `json:"prompt"`
	Want   string `json:"want,omitempty"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Metrics reads metrics.jsonl. As all readers of lines it takes a missing file for an empty one, leaves out a last
// line that is cut short, and names the line that it cannot read.
func Metrics(dir string) ([]Metric, error) { return read[Metric](filepath.Join(dir, MetricsFile)) }

// Events reads events.jsonl.
func Events(dir string) ([]Event, error) { return read[Event](filepath.Join(dir, EventsFile)) }

// Samples reads samples.jsonl.
func Samples(dir string) ([]Sample, error) { return read[Sample](filepath.Join(dir, SamplesFile)) }

func read[T any](path string) ([]T, error) {
	var out []T
	_, err := scan(path, func(n int, _ int64, line []byte) error {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		out = append(out, v)
		return nil
	})
	return out, err
}
