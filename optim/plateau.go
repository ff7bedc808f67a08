package optim

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"tunesmith/internal/nearest"
)

// MetricSchedule is a learning rate that follows a metric instead of the step. Its JSON form is its state.
type MetricSchedule interface {
	// LR is the rate for the next update.
	LR() float64
	// Observe takes one evaluation in and returns the rate from now on. A metric that is no finite number counts as
	// one that is not better.
	Observe(metric float64) float64
	json.Marshaler
	json.Unmarshaler
}

// MetricOptions are the settings of the schedules that follow a metric. An empty field is the schedule's default;
// where zero is a setting of its own, the field is a pointer.
type MetricOptions struct {
	LR float64 `yaml:"-"` // the first rate

	Mode          string   `yaml:"mode" doc:"min where a smaller metric is better, max where a larger is"`
	Factor        float64  `yaml:"factor" doc:"what the rate is multiplied by"`
	Patience      *int     `yaml:"patience" doc:"evaluations without a better metric that are borne"`
	Threshold     *float64 `yaml:"threshold" doc:"smallest change that counts as better"`
	ThresholdMode string   `yaml:"threshold_mode" doc:"rel or abs"`
	Cooldown      int      `yaml:"cooldown" doc:"evaluations to wait after the rate fell"`
	MinLR         *float64 `yaml:"min_lr" doc:"lowest rate"`

	Warmup     int     `yaml:"warmup" doc:"evaluations to wait after the rate rose (greedy)"`
	MaxLR      float64 `yaml:"max_lr" doc:"highest rate (greedy)"`
	Smooth     bool    `yaml:"smooth" doc:"look at the mean of the last evaluations (greedy)"`
	WindowSize int     `yaml:"window_size" doc:"evaluations in that mean (greedy)"`
	ResetStart *int    `yaml:"reset_start" doc:"falls at the lowest rate after which all starts again (greedy)"`
}

var metricSchedules = map[string]func(MetricOptions) MetricSchedule{
	"reduce_lr_on_plateau": newPlateau,
	"greedy":               newGreedy,
}

// NewMetricSchedule makes reduce_lr_on_plateau (torch) or greedy (transformers).
func NewMetricSchedule(name string, o MetricOptions) (MetricSchedule, error) {
	build, ok := metricSchedules[name]
	known := slices.Sorted(maps.Keys(metricSchedules))
	switch {
	case !ok:
		return nil, fmt.Errorf("schedule: want one of %v, have %q%s", known, name, nearest.Hint(name, known))
	case !(o.Factor >= 0 && o.Factor < 1):
		return nil, fmt.Errorf("schedule %s: factor: want a number in (0, 1), have %v", name, o.Factor)
	case o.Mode != "" && o.Mode != "min" && o.Mode != "max":
		return nil, fmt.Errorf("schedule %s: mode: want min or max, have %q", name, o.Mode)
	case o.ThresholdMode != "" && o.ThresholdMode != "rel" && o.ThresholdMode != "abs":
		return nil, fmt.Errorf("schedule %s: threshold_mode: want rel or abs, have %q", name, o.ThresholdMode)
	case o.WindowSize < 0:
		return nil, fmt.Errorf("schedule %s: window_size: want >= 1, have %d", name, o.WindowSize)
	}
	return build(o), nil
}

// smallest is the least change of a rate that is made.
const smallest = 1e-8

// better compares a metric with the best one so far.
func better(metric, best float64, mode, kind string, threshold float64) bool {
	if kind == "rel" {
		threshold *= best
	}
	if mode == "max" {
		return metric > best+threshold
	}
	return metric < best-threshold
}

// metricState is what a schedule of this kind remembers.
type metricState struct {
	LR                          float64
	Best                        *float64 `json:",omitempty"` // none yet where nil
	Bad, Good, Cooldown, Warmup int
	UntilReset                  int       `json:",omitempty"`
	Window                      []float64 `json:",omitempty"`
	Sum                         float64   `json:",omitempty"`
}

// plateau multiplies the rate by a factor where the metric has not become better for some evaluations.
type plateau struct {
	o MetricOptions
	s metricState
}

func newPlateau(o MetricOptions) MetricSchedule {
	o.Factor, o.Mode, o.ThresholdMode = or(o.Factor, 0.1), or(o.Mode, "min"), or(o.ThresholdMode, "rel")
	return &plateau{o, metricState{LR: o.LR}}
}

func (p *plateau) LR() float64                  { return p.s.LR }
func (p *plateau) MarshalJSON() ([]byte, error) { return json.Marshal(p.s) }
func (p *plateau) UnmarshalJSON(b []byte) error { return p.s.restore(b) }

func (p *plateau) Observe(metric float64) float64 {
	s := &p.s
	if s.improves(metric, p.o, 1e-4) {
		s.Best, s.Bad = &metric, 0
	} else {
		s.Bad++
	}
	if s.Cooldown > 0 {
		s.Cooldown, s.Bad = s.Cooldown-1, 0
	}
	if s.Bad > deref(p.o.Patience, 10) {
		s.fall(p.o.Factor, deref(p.o.MinLR, 0))
		s.Cooldown, s.Bad = p.o.Cooldown, 0
	}
	return s.LR
}

// restore replaces the state as a whole; an error leaves it.
func (m *metricState) restore(b []byte) error {
	var fresh metricState
	if err := json.Unmarshal(b, &fresh); err != nil {
		return fmt.Errorf("state of a schedule: %w", err)
	}
	*m = fresh
	return nil
}

// improves tells whether a metric is better than the best so far.
func (m *metricState) improves(metric float64, o MetricOptions, threshold float64) bool {
	if math.IsNaN(metric) || math.IsInf(metric, 0) {
		return false
	}
	return m.Best == nil || better(metric, *m.Best, o.Mode, o.ThresholdMode, deref(o.Threshold, threshold))
}

// fall lowers the rate, where that changes it.
func (m *metricState) fall(factor, lowest float64) {
	if lower := max(m.LR*factor, lowest); m.LR-lower > smallest {
		m.LR = lower
	}
}
