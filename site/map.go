package site

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
)

// Init fills a new parameter with its first values. The generator depends on the run's seed and the parameter's
// name alone; base gives the values of one of the model's parameters.
type Init func(dst []float32, rng *rand.Rand, base func(name string) []float32)

// Param is a parameter that a model or a method needs.
type Param struct {
	Name      string
	Shape     []int
	Trainable bool
	Base      bool // one of the model's own, read from its checkpoint
	Init      Init // of the others
}

// Size returns the number of elements.
func (p Param) Size() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// State is a tensor that runs change, such as a key/value cache.
type State struct {
	Name  string
	Shape []int
}

// KV is a place where keys and values meet.
type KV struct {
	Path           string
	Queries        int // heads of queries
	Heads, HeadDim int // of keys and values
}

// Map is all places of a model, in the order in which the model passes them.
type Map struct {
	Params    []Param
	States    []State
	Linears   []Linear
	Routers   []Router
	Experts   []Experts
	Norms     []string
	Sublayers []string
	KVs       []KV
	Output    Linear // the projection to the vocabulary
	Tied      string // module whose weight the output shares, or empty
	Embedding string
	// EmbedScale is the factor of the table's rows on their way into the model.
	EmbedScale float32
	Vocab      int
	Hidden     int
	Layers     int
	Prefix     int // virtual positions in front of every row

	index map[string]int // of Params by name
}

func newMap() *Map { return &Map{index: map[string]int{}} }

func (m *Map) declare(p Param) {
	if i, ok := m.index[p.Name]; ok {
		m.Params[i].Trainable = m.Params[i].Trainable || p.Trainable
		return
	}
	m.index[p.Name] = len(m.Params)
	m.Params = append(m.Params, p)
}

func (m *Map) state(name string, shape []int) {
	m.States = append(m.States, State{name, slices.Clone(shape)})
}

func (m *Map) linear(l Linear)      { m.Linears = append(m.Linears, l) }
func (m *Map) norm(path string)     { m.Norms = append(m.Norms, path) }
func (m *Map) sublayer(path string) { m.Sublayers = append(m.Sublayers, path) }
func (m *Map) kv(kv KV)             { m.KVs = append(m.KVs, kv) }

func (m *Map) head(l Linear, tied string) { m.Output, m.Tied = l, tied }

// Param returns the parameter of that name.
func (m *Map) Param(name string) (Param, bool) {
	i, ok := m.index[name]
	if !ok {
		return Param{}, false
	}
	return m.Params[i], true
}

// Owner returns the module, of all that have parameters, to which something of that name is added: the longest path that
// the name begins with; "" for none.
func (m *Map) Owner(name string) string {
	for at := len(name); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		for _, leaf := range []string{".weight", ".bias"} {
			if _, ok := m.index[name[:at]+leaf]; ok {
				return name[:at]
			}
		}
		if name[:at] == m.Output.Path {
			return name[:at]
		}
	}
	return ""
}

// Trainable returns the parameters that train, in order: the one definition of what counts, is saved, clipped and
// has optimizer state.
func (m *Map) Trainable() []Param {
	var out []Param
	for _, p := range m.Params {
		if p.Trainable {
			out = append(out, p)
		}
	}
	return out
}

// Generator returns the random numbers of one parameter: a function of the run's seed and the name, so that they do
// not depend on what other parameters there are.
func Generator(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
