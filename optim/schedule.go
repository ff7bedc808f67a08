package optim

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"tunesmith/internal/nearest"
)

// Schedule gives the learning rate of update step = 0, 1, 2, …. It is a pure function, so it has no state to save.
// The formulas are those of transformers: most schedules with warm-up start at exactly 0.
type Schedule func(step int) float64

// ScheduleOptions are the settings of all schedules; each reads those of its own formula. An empty field is the
// schedule's default; where zero is a setting of its own, the field is a pointer.
type ScheduleOptions struct {
	LR     float64 `yaml:"-"` // the peak
	Total  int     `yaml:"-"` // updates of the whole run
	Warmup float64 `yaml:"warmup" doc:"updates of warm-up; below 1 a share of all updates" min:"0"`

	NumCycles    *float64 `yaml:"num_cycles" doc:"waves of the cosine: 0.5 falls once; restarts count whole ones"`
	Power        float64  `yaml:"power" doc:"exponent (polynomial)"`
	LREnd        *float64 `yaml:"lr_end" doc:"last learning rate (polynomial)"`
	MinLR        float64  `yaml:"min_lr" doc:"lowest learning rate (cosine_with_min_lr, cosine_warmup_with_min_lr)"`
	MinLRRate    float64  `yaml:"min_lr_rate" doc:"the same as a share of the peak"`
	WarmupLRRate *float64 `yaml:"warmup_lr_rate" doc:"first learning rate as a share of the peak (cosine_warmup_with_min_lr)"`
	Timescale    int      `yaml:"timescale" doc:"updates until the rate has fallen to 1/√2, about (inverse_sqrt)"`
	DecaySteps   int      `yaml:"num_decay_steps" doc:"updates of the last phase (warmup_stable_decay)"`
	StableSteps  *int     `yaml:"num_stable_steps" doc:"updates at the peak; what is left where empty (warmup_stable_decay)"`
	WarmupType   string   `yaml:"warmup_type" doc:"linear, cosine or 1-sqrt (warmup_stable_decay)"`
	DecayType    string   `yaml:"decay_type" doc:"linear, cosine or 1-sqrt (warmup_stable_decay)"`
	MinLRRatio   float64  `yaml:"min_lr_ratio" doc:"first and last learning rate as a share of the peak (warmup_stable_decay)"`
}

// WarmupSteps returns the updates of warm-up: a value below 1 is a share of the total, rounded up.
func (o ScheduleOptions) WarmupSteps() int {
	if o.Warmup < 1 {
		return int(math.Ceil(float64(o.Total) * o.Warmup))
	}
	return int(o.Warmup)
}

// schedules are the builders by name; each returns the share of the peak at a step.
var schedules = map[string]func(o ScheduleOptions, warmup int) (func(step int) float64, error){
	"constant":                  constant,
	"constant_with_warmup":      constantWithWarmup,
	"linear":                    linear,
	"cosine":                    cosine,
	"cosine_with_restarts":      cosineWithRestarts,
	"cosine_with_min_lr":        cosineWithMinLR,
	"cosine_warmup_with_min_lr": cosineWarmupWithMinLR,
	"polynomial":                polynomial,
	"inverse_sqrt":              inverseSqrt,
	"warmup_stable_decay":       warmupStableDecay,
}

// ScheduleNames lists the schedules that NewSchedule knows, sorted.
func ScheduleNames() []string {
	names := make([]string, 0, len(schedules))
	for name := range schedules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NewSchedule makes a schedule by its name in transformers.
func NewSchedule(name string, o ScheduleOptions) (Schedule, error) {
	build, ok := schedules[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("schedule: want one of %v, have %q%s", ScheduleNames(), name, nearest.Hint(name, ScheduleNames()))
	case !(o.LR >= 0) || math.IsInf(o.LR, 1):
		return nil, fmt.Errorf("schedule %s: learning rate: want >= 0, have %v", name, o.LR)
	case o.Total < 1:
		return nil, fmt.Errorf("schedule %s: total updates: want >= 1, have %d", name, o.Total)
	case !(o.Warmup >= 0) || o.Warmup >= 1 && o.Warmup != math.Trunc(o.Warmup):
		return nil, fmt.Errorf("schedule %s: warmup: want a count of updates, or a share below 1, have %v", name, o.Warmup)
	}
	share, err := build(o, o.WarmupSteps())
	if err != nil {
		return nil, fmt.Errorf("schedule %s: %w", name, err)
	}
	return func(step int) float64 { return o.LR * share(step) }, nil
}

// rising is the linear warm-up from 0, followed by a function of the progress, which passes 1 after the last update.
func rising(o ScheduleOptions, warmup int, then func(progress float64) float64) func(step int) float64 {
	return func(step int) float64 {
		if step < warmup {
			return float64(step) / float64(warmup)
		}
		return then(float64(step-warmup) / float64(max(1, o.Total-warmup)))
	}
}

func constant(ScheduleOptions, int) (func(int) float64, error) {
	return func(int) float64 { return 1 }, nil
}

func constantWithWarmup(o ScheduleOptions, warmup int) (func(int) float64, error) {
	return rising(o, warmup, func(float64) float64 { return 1 }), nil
}

func linear(o ScheduleOptions, warmup int) (func(int) float64, error) {
	return func(step int) float64 {
		if step < warmup {
			return float64(step) / float64(warmup)
		}
		return max(0, float64(o.Total-step)/float64(max(1, o.Total-warmup)))
	}, nil
}

// wave is ½(1 + cos(2π·cycles·progress)), lifted so that its lowest value is floor.
func wave(cycles, progress, floor float64) float64 {
	return max(0, 0.5*(1+math.Cos(math.Pi*cycles*2*progress))*(1-floor)+floor)
}

func cosine(o ScheduleOptions, warmup int) (func(int) float64, error) {
	cycles := deref(o.NumCycles, 0.5)
	return rising(o, warmup, func(p float64) float64 { return wave(cycles, p, 0) }), nil
}

func cosineWithRestarts(o ScheduleOptions, warmup int) (func(int) float64, error) {
	cycles := deref(o.NumCycles, 1)
	return rising(o, warmup, func(p float64) float64 {
		if p >= 1 {
			return 0
		}
		_, part := math.Modf(cycles * p)
		return wave(0.5, part, 0)
	}), nil
}

// floor returns the lowest share of the peak, which is given in one of two ways.
func (o ScheduleOptions) floor() (float64, error) {
	if (o.MinLR == 0) == (o.MinLRRate == 0) {
		return 0, fmt.Errorf("want one of min_lr and min_lr_rate, have %v and %v", o.MinLR, o.MinLRRate)
	}
	if o.MinLR != 0 {
		return o.MinLR / o.LR, nil
	}
	return o.MinLRRate, nil
}

func cosineWithMinLR(o ScheduleOptions, warmup int) (func(int) float64, error) {
	floor, err := o.floor()
	cycles := deref(o.NumCycles, 0.5)
	return rising(o, warmup, func(p float64) float64 { return wave(cycles, p, floor) }), err
}

// cosineWarmupWithMinLR counts its steps from 1, so that the first update already moves.
func cosineWarmupWithMinLR(o ScheduleOptions, warmup int) (func(int) float64, error) {
	floor, err := o.floor()
	cycles := deref(o.NumCycles, 0.5)
	return func(step int) float64 {
		switch {
		case step < warmup && o.WarmupLRRate == nil:
			return float64(step+1) / float64(warmup)
		case step < warmup:
			first := *o.WarmupLRRate
			return first + (1-first)*float64(step)/float64(max(1, warmup-1))
		}
		return wave(cycles, float64(step-warmup+1)/float64(max(1, o.Total-warmup)), floor)
	}, err
}

func polynomial(o ScheduleOptions, warmup int) (func(int) float64, error) {
	end, power := deref(o.LREnd, 1e-7), or(o.Power, 1)
	if end >= o.LR {
		return nil, fmt.Errorf("lr_end: want less than the learning rate %v, have %v", o.LR, end)
	}
	return rising(o, warmup, func(p float64) float64 {
		return ((o.LR-end)*math.Pow(max(0, 1-p), power) + end) / o.LR
	}), nil
}

func inverseSqrt(o ScheduleOptions, warmup int) (func(int) float64, error) {
	scale := or(o.Timescale, or(warmup, 10000))
	if scale < 1 {
		return nil, fmt.Errorf("timescale: want >= 1, have %d", scale)
	}
	return func(step int) float64 {
		if step < warmup {
			return float64(step) / float64(warmup)
		}
		return 1 / math.Sqrt(float64(step+scale-warmup)/float64(scale))
	}, nil
}

func warmupStableDecay(o ScheduleOptions, warmup int) (func(int) float64, error) {
	// The three shapes as falling functions of the progress; a warm-up runs them backwards.
	shapes := map[string]func(p float64) float64{
		"linear": func(p float64) float64 { return 1 - p },
		"cosine": func(p float64) float64 { return wave(deref(o.NumCycles, 0.5), p, 0) },
		"1-sqrt": func(p float64) float64 { return 1 - math.Sqrt(p) },
	}
	kinds := []string{"linear", "cosine", "1-sqrt"}
	for _, k := range []struct{ field, value string }{{"warmup_type", or(o.WarmupType, "linear")}, {"decay_type", or(o.DecayType, "cosine")}} {
		if shapes[k.value] == nil {
			return nil, fmt.Errorf("%s: want one of %v, have %q%s", k.field, kinds, k.value, nearest.Hint(k.value, kinds))
		}
	}
	if o.DecaySteps < 1 {
		return nil, errors.New("num_decay_steps: want >= 1; it is the length of the last phase, a tenth of all updates is usual")
	}
	stable := deref(o.StableSteps, o.Total-warmup-o.DecaySteps)
	if stable < 0 {
		return nil, fmt.Errorf("want at most %d updates of warm-up and decay together, have %d and %d", o.Total, warmup, o.DecaySteps)
	}
	up, down := shapes[or(o.WarmupType, "linear")], shapes[or(o.DecayType, "cosine")]
	if o.WarmupType == "cosine" {
		up = func(p float64) float64 { return wave(0.5, p, 0) }
	}
	return func(step int) float64 {
		share := 0.0
		switch {
		case step < warmup:
			share = up(1 - float64(step)/float64(warmup))
		case step < warmup+stable:
			share = 1
		case step < warmup+stable+o.DecaySteps:
			share = down(float64(step-warmup-stable) / float64(o.DecaySteps))
		}
		return max(0, share*(1-o.MinLRRatio)+o.MinLRRatio)
	}, nil
}
