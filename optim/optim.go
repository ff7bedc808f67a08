// Package optim changes parameters by their gradients: optimizers, learning-rate schedules, clipping, parameter
// groups and averages of weights.
//
// Everything works on plain slices and gives the same bits for any number of workers: an update touches elements
// that no other update touches, and sums are taken over chunks of a fixed size, added in order.
package optim

import (
	"fmt"
	"slices"

	"tunesmith/internal/nearest"
	"tunesmith/quant"
)

// Param is one trained tensor with its gradient, in row-major order.
type Param struct {
	Name  string
	Shape []int
	Value []float32
	Grad  []float32
	Group int // index into Options.Groups
}

// Group holds what parameters share. The learning rate of a step is multiplied by LRScale; WeightDecay is absolute
// (decay is lr · WeightDecay where it is decoupled, an L2 term of the gradient elsewhere).
type Group struct {
	LRScale     float64
	WeightDecay float64
}

// Optimizer updates parameters and can be stopped and continued with equal bits.
type Optimizer interface {
	// Name is the name that New knows it by.
	Name() string
	// Step updates the values of params in place. The list must be the same at every step: names, order, shapes.
	Step(params []Param, lr float64) error
	// Floats counts the 32-bit numbers that the state of params takes; only shapes are read.
	Floats(params []Param) int
	// State returns what the next step depends on. The tensors are the optimizer's own: write them before Step.
	State() State
	// Restore continues from a state, which is copied. It is checked against the parameters by the next Step.
	Restore(State) error
}

// State is an optimizer's memory between two steps.
type State struct {
	Counters map[string]int64 // "step" counts the updates; names that end in "_bits" are float64 by their bits
	Tensors  []StateTensor
}

// StateTensor is one tensor of the state, named as torch names it.
type StateTensor struct {
	Param string // the parameter it belongs to
	Name  string // such as "exp_avg"
	Shape []int
	Data  []float32
	Codes []byte // instead of Data, of a tensor in 8 bits; its scales are the tensor of the name with "_absmax" behind it
}

// Options are the settings of all optimizers; each reads those of its own formula. An empty field is the
// optimizer's default; where zero is a setting of its own, the field is a pointer.
type Options struct {
	Groups   []Group  `yaml:"-"` // one group with scale 1 and without decay where empty
	Parallel Parallel `yaml:"-"` // spreads the work; serial where nil

	Betas         []float64 `yaml:"betas" doc:"decay of the averages of the gradient and of its square"`
	Eps           float64   `yaml:"eps" doc:"added to the denominator"`
	AMSGrad       bool      `yaml:"amsgrad" doc:"divide by the largest second moment so far (adam, adamw)"`
	Momentum      *float64  `yaml:"momentum" doc:"decay of the momentum (sgd, rmsprop, muon)"`
	Dampening     float64   `yaml:"dampening" doc:"share of the gradient kept out of the momentum (sgd)"`
	Nesterov      *bool     `yaml:"nesterov" doc:"look ahead along the momentum (sgd, muon)"`
	Maximize      bool      `yaml:"maximize" doc:"ascend instead of descend (sgd)"`
	Alpha         float64   `yaml:"alpha" doc:"decay of the mean square (rmsprop)"`
	Centered      bool      `yaml:"centered" doc:"divide by the variance instead of the mean square (rmsprop)"`
	Rho           float64   `yaml:"rho" doc:"decay of the mean squares (adadelta)"`
	LRDecay       float64   `yaml:"lr_decay" doc:"lr falls by 1/(1 + t lr_decay) (adagrad)"`
	Accumulator   float64   `yaml:"initial_accumulator_value" doc:"first value of the sum of squares (adagrad)"`
	MomentumDecay *float64  `yaml:"momentum_decay" doc:"how fast the momentum reaches its value (nadam)"`
	Decoupled     bool      `yaml:"decoupled_weight_decay" doc:"decay the weight, not the gradient (nadam, radam)"`

	Eps2           float64 `yaml:"eps2" doc:"smallest root mean square of a parameter that scales the rate (adafactor)"`
	ClipThreshold  float64 `yaml:"clip_threshold" doc:"largest root mean square of an update (adafactor)"`
	DecayRate      float64 `yaml:"decay_rate" doc:"exponent of the decay of the second moment (adafactor)"`
	Beta1          float64 `yaml:"beta1" doc:"decay of the average of updates; 0 keeps none (adafactor)"`
	ScaleParameter bool    `yaml:"scale_parameter" doc:"scale lr by the parameter's root mean square (adafactor)"`
	RelativeStep   bool    `yaml:"relative_step" doc:"lr from the step number; the schedule is ignored (adafactor)"`
	WarmupInit     bool    `yaml:"warmup_init" doc:"relative steps start small (adafactor)"`

	NSCoefficients []float64 `yaml:"ns_coefficients" doc:"polynomial of the Newton-Schulz iteration (muon)"`
	NSSteps        int       `yaml:"ns_steps" doc:"steps of the Newton-Schulz iteration (muon)"`
	AdjustLR       string    `yaml:"adjust_lr_fn" doc:"original, or match_rms_adamw to use the lr of AdamW (muon)"`

	WarmupSteps   int      `yaml:"warmup_steps" doc:"warm-up inside of the optimizer (schedulefree)"`
	R             float64  `yaml:"r" doc:"power of the step number in the average's weights (schedulefree)"`
	WeightLRPower *float64 `yaml:"weight_lr_power" doc:"power of lr in the average's weights (schedulefree)"`
}

// rules are the optimizers by name.
var rules = map[string]func(Options) (rule, error){
	"adadelta":           adadelta,
	"adafactor":          adafactor,
	"adagrad":            adagrad,
	"adam":               adam,
	"adam_8bit":          eightBit(adam),
	"adamax":             adamax,
	"adamw":              adamW,
	"adamw_8bit":         eightBit(adamW),
	"lion":               lion,
	"lion_8bit":          eightBit(lion),
	"muon":               muon,
	"nadam":              nadam,
	"radam":              radam,
	"rmsprop":            rmsprop,
	"schedulefree_adamw": scheduleFreeAdamW,
	"schedulefree_sgd":   scheduleFreeSGD,
	"sgd":                sgd,
	"stable_adamw":       stableAdamW,
	"torch_adafactor":    torchAdafactor,
}

// Names lists the optimizers, sorted.
func Names() []string {
	names := make([]string, 0, len(rules))
	for name := range rules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New makes an optimizer.
func New(name string, o Options) (Optimizer, error) {
	build, ok := rules[name]
	if !ok {
		return nil, fmt.Errorf("optimizer: want one of %v, have %q%s", Names(), name, nearest.Hint(name, Names()))
	}
	for i, b := range o.Betas {
		if !(b >= 0 && b < 1) {
			return nil, fmt.Errorf("optimizer %s: betas[%d]: want a number in [0, 1), have %v", name, i, b)
		}
	}
	if o.Betas != nil && len(o.Betas) != 2 {
		return nil, fmt.Errorf("optimizer %s: betas: want two numbers, have %v", name, o.Betas)
	}
	if !(o.Eps >= 0) {
		return nil, fmt.Errorf("optimizer %s: eps: want > 0, have %v", name, o.Eps)
	}
	for _, s := range []struct {
		field string
		value float64
	}{{"momentum", deref(o.Momentum, 0)}, {"dampening", o.Dampening}, {"alpha", o.Alpha}, {"rho", o.Rho}, {"beta1", o.Beta1}} {
		if !(s.value >= 0 && s.value < 1) {
			return nil, fmt.Errorf("optimizer %s: %s: want a number in [0, 1), have %v", name, s.field, s.value)
		}
	}
	if len(o.Groups) == 0 {
		o.Groups = []Group{{LRScale: 1}}
	}
	for i, g := range o.Groups {
		if !(g.LRScale > 0) {
			return nil, fmt.Errorf("optimizer %s: group %d: lr scale: want > 0, have %v", name, i, g.LRScale)
		}
		if !(g.WeightDecay >= 0) {
			return nil, fmt.Errorf("optimizer %s: group %d: weight decay: want >= 0, have %v", name, i, g.WeightDecay)
		}
	}
	if o.Parallel == nil {
		o.Parallel = serial
	}
	r, err := build(o)
	if err != nil {
		return nil, fmt.Errorf("optimizer %s: %w", name, err)
	}
	s := &stepper{name: name, rule: r, groups: o.Groups, parallel: o.Parallel, encode: quant.Blockwise.Quantize}
	if r.average != nil {
		return averaging{s}, nil
	}
	return s, nil
}

// betas returns the two decays, or the defaults.
func (o Options) betas(b1, b2 float64) (float64, float64) {
	if len(o.Betas) == 2 {
		return o.Betas[0], o.Betas[1]
	}
	return b1, b2
}

// or returns v, or the default where v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// deref returns what p points to, or the default.
func deref[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
