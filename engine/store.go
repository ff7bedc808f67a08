package engine

import (
	"fmt"

	"tunesmith/quant"
)

// Tensor lives between runs: a parameter, or a state such as a key/value cache.
type Tensor struct {
	Name  string
	Shape []int
	// Values are the single-precision values. A trained tensor and a state always have them; a frozen one may have
	// its storage instead. Whoever changes the values of a trained tensor calls Touch.
	Values []float32
	// Format and Data are a frozen tensor's storage as it stands in the file, for instance a mapping of it.
	Format quant.Format
	Data   []byte
	// Make computes the values of a frozen tensor that has neither Values nor Data, the same at every call.
	Make func() []float32
	// Release is called when the engine has made its own form of Data and reads it no more: what keeps Data resident,
	// such as a mapping of a file, may give it up until somebody reads it again. Where it is nil, Data stays in memory.
	Release func()
	// Trainable tensors change between runs.
	Trainable bool

	version uint64
}

// Size returns the number of elements.
func (t *Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Touch says that Values have changed, so that the engine packs them again.
func (t *Tensor) Touch() { t.version++ }

// Version counts the calls of Touch.
func (t *Tensor) Version() uint64 { return t.version }

// Float32s returns the values in single precision: Values where they are there, else a new slice.
func (t *Tensor) Float32s() []float32 {
	if t.Values != nil {
		return t.Values
	}
	if t.Data == nil && t.Make != nil {
		return t.Make()
	}
	out := make([]float32, t.Size())
	t.Format.Dequantize(out, t.Data)
	return out
}

// Store holds tensors by name, in the order in which they were added.
type Store struct {
	byName map[string]*Tensor
	order  []*Tensor
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{byName: map[string]*Tensor{}} }

// Add puts a tensor into the store. A name that is taken, or a size that differs from the shape, is an error.
func (s *Store) Add(t *Tensor) error {
	if _, ok := s.byName[t.Name]; ok {
		return fmt.Errorf("tensor %q is in the store already", t.Name)
	}
	if t.Values != nil && len(t.Values) != t.Size() {
		return fmt.Errorf("tensor %q: shape %v has %d elements, %d values are given", t.Name, t.Shape, t.Size(), len(t.Values))
	}
	if t.Values == nil && t.Data == nil && t.Make == nil {
		return fmt.Errorf("tensor %q has neither values nor data", t.Name)
	}
	s.byName[t.Name] = t
	s.order = append(s.order, t)
	return nil
}

// Get returns the tensor of that name.
func (s *Store) Get(name string) (*Tensor, bool) {
	t, ok := s.byName[name]
	return t, ok
}

// Remove takes a tensor out of the store, if it is there.
func (s *Store) Remove(name string) {
	t, ok := s.byName[name]
	if !ok {
		return
	}
	delete(s.byName, name)
	for i, x := range s.order {
		if x == t {
			s.order = append(s.order[:i], s.order[i+1:]...)
			return
		}
	}
}

// All returns the tensors in the order of their adding. The slice belongs to the store.
func (s *Store) All() []*Tensor { return s.order }

// Trainable returns the trained tensors in the order of their adding.
func (s *Store) Trainable() []*Tensor {
	var out []*Tensor
	for _, t := range s.order {
		if t.Trainable {
			out = append(out, t)
		}
	}
	return out
}
