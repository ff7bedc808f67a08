// Package tune is what a method is: the contracts of the four axes, the registry that is the only list of methods,
// and the choices that make a run. A method registers itself; nothing here or below knows one by name.
package tune

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/internal/nearest"
	"tunesmith/site"
)

// Axis is the question that a method answers.
type Axis string

// A run takes one method per axis; the last two have a plain case.
const (
	ParametersAxis Axis = "parameters" // what moves?
	ObjectiveAxis  Axis = "objective"  // what is better?
	MixtureAxis    Axis = "mixture"    // from which data?
	TopologyAxis   Axis = "topology"   // where?
)

// Method is an entry of the registry.
type Method struct {
	Axis Axis
	Name string
	Doc  string // one sentence
	// New returns the method's options with their defaults: a pointer to a struct that is the method's section of a
	// run file and implements the axis' interface.
	New func() any
	// PEFT is the kinds of adapter files that the method reads, separated by spaces: PEFT's peft_type, adapters/ and an
	// architecture of the adapters library, or tunesmith/ and the method's name. Its options then implement PEFTReader.
	PEFT string
	// Moved says that the first step does not start from the base: virtual positions take attention before they are
	// trained.
	Moved bool
	// Sample returns options that serve on any small model, where the defaults leave a choice to be made; nil for New.
	Sample func() any
	// Rate is the learning rate that trains with the method's defaults, 0 where another axis decides.
	Rate float64
	// Goals are the advisor's goals that the method serves beyond what it does, such as "device".
	Goals []string
	// Default marks the method that a run takes where its file names none.
	Default bool
}

var registry []Method

// Register adds a method; the init function of its file calls it.
func Register(m Method) { registry = append(registry, m) }

// Methods returns the methods of an axis, sorted by name; all of them where the axis is empty.
func Methods(axis Axis) []Method {
	var out []Method
	for _, m := range registry {
		if axis == "" || m.Axis == axis {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Method) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Names returns the names of an axis' methods, sorted.
func Names(axis Axis) []string {
	var out []string
	for _, m := range Methods(axis) {
		out = append(out, m.Name)
	}
	return out
}

// Default returns the name of the method that an axis has where a run file names none, "" for none.
func Default(axis Axis) string {
	for _, m := range registry {
		if m.Axis == axis && m.Default {
			return m.Name
		}
	}
	return ""
}

// Find returns a method by axis and name.
func Find(axis Axis, name string) (Method, error) {
	for _, m := range registry {
		if m.Axis == axis && m.Name == name {
			return m, nil
		}
	}
	names := Names(axis)
	return Method{}, fmt.Errorf("%s: want one of %s, have %q%s", axis, strings.Join(names, ", "), name, nearest.Hint(name, names))
}

// Parameters is a method of the parameters axis.
type Parameters interface {
	// Graft resolves the options on the places of a model. The result implements the graft interfaces of package
	// site that the method needs and, where the theory allows, Merger.
	Graft(m *site.Map) (any, error)
}

// TextUser is a method whose start may depend on the model's tokenizer. UseText is called before Graft, for runs that do
// not open an adapter.
type TextUser interface {
	UseText(t Text) error
}

// Merger is a graft that can be folded into the model's own weights.
type Merger interface {
	// Merge changes w, the values of the model's parameter name, in place and reports whether it did. The path is that
	// of the module which uses the parameter, as for site.ParamGrafter: a weight that two modules share is merged once
	// for each, and if the results differ the modules no longer share it. value gives the values of a trained parameter.
	Merge(path, name string, w []float32, value func(param string) []float32) (bool, error)
}

// Extender is a Merger that gives the model biases that it does not have.
type Extender interface {
	Merger
	// Adds returns the names of the new biases, as a checkpoint names them.
	Adds() []string
}

// RateScaler is a graft whose parameters do not all learn at the same rate.
type RateScaler interface {
	// RateScale returns the factor of a parameter's learning rate.
	RateScale(p site.Param) float64
}

// PEFTReader is a method whose options can be read from a PEFT adapter_config.json.
type PEFTReader interface {
	ReadPEFT(c PEFTConfig) error
}

// FileNamer is a PEFTReader whose files name tensors otherwise than the parameters.
type FileNamer interface {
	// Param returns the parameter that a tensor of the file is, empty for a copy of another tensor.
	Param(tensor string) string
}

// PEFTWriter is a graft that is saved as an adapter: in PEFT's layout, in that of the adapters library where the keys
// hold its config, or in our own.
type PEFTWriter interface {
	// PEFT returns the keys of adapter_config.json that are the method's own.
	PEFT() map[string]any
}

// OriginWriter is a PEFTWriter whose adapter means something only together with more than PEFT's config has a place for.
type OriginWriter interface {
	// Origin returns the method's name and what ReadOrigin of its options reads, or "" where PEFT's config says all.
	Origin() (method string, more any)
}

// OriginReader is the options of such a method.
type OriginReader interface {
	ReadOrigin(more json.RawMessage) error
}

// PEFTTensors is a PEFTWriter whose file holds something else than the trained parameters under their own names.
type PEFTTensors interface {
	PEFTTensors(trained []site.Param, value func(param string) []float32) []checkpoint.Tensor
}

// Factored is a graft some of whose parameters act as products of two, so that they may be averaged as products.
type Factored interface {
	Factors() []Factors
}

// Factors are the names of the matrices of an update scale·B·A: A (rank, in), B (out, rank).
type Factors struct {
	A, B  string
	Scale float64
}
