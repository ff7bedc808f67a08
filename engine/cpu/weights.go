package cpu

import (
	"sync"
	"weak"

	"tunesmith/engine"
)

// layout is a form in which the engine keeps a stored tensor.
type layout uint8

const (
	plain layout = iota // single precision, row-major, of a tensor that has only its storage
)

// form is a stored tensor in a layout. Programs share it, and it goes with the last of them.
type form struct {
	tensor  *engine.Tensor
	layout  layout
	floats  []float32
	version uint64 // of the tensor when it was made
}

// bytes is what the form takes beside the tensor itself.
func (f *form) bytes() int64 { return int64(len(f.floats)) * 4 }

type formKey struct {
	tensor weak.Pointer[engine.Tensor]
	layout layout
}

// weights finds the forms that some program has made already.
type weights struct {
	mu    sync.Mutex
	forms map[formKey]weak.Pointer[form]
}

// get returns the tensor's form in a layout, made by make where no program has it.
func (w *weights) get(t *engine.Tensor, l layout, make func(f *form)) *form {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := formKey{weak.Make(t), l}
	if f := w.forms[key].Value(); f != nil {
		return f
	}
	f := &form{tensor: t, layout: l, version: t.Version()}
	make(f)
	if w.forms == nil {
		w.forms = map[formKey]weak.Pointer[form]{}
	}
	for k, p := range w.forms {
		if p.Value() == nil {
			delete(w.forms, k)
		}
	}
	w.forms[key] = weak.Make(f)
	return f
}

// values returns the tensor's values in single precision, kept by the returned form where the tensor has them not.
func (w *weights) values(t *engine.Tensor) ([]float32, *form) {
	if t.Values != nil {
		return t.Values, nil
	}
	f := w.get(t, plain, func(f *form) { f.floats = t.Float32s() })
	return f.floats, f
}
