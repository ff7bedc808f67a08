package cpu

import (
	"runtime/debug"
	"slices"
	"sync"
	"weak"

	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
	"tunesmith/quant"
)

// layout is a form in which the engine keeps a stored tensor.
type layout uint8

const (
	plain  layout = iota // single precision, row-major, of a tensor that has no values
	panels               // packed for x·Wᵀ; x·W and rows of W are had from it too
)

// form is a stored tensor in a layout. Programs share it, and it goes with the last of them.
type form struct {
	tensor *engine.Tensor
	layout layout
	part   int // of a tensor that is a stack of matrices: which of them
	floats []float32
	packed *kernel.Packed // of panels
	stale  bool
	seen   uint64 // version of the tensor in the form
}

// bytes is what the form takes beside the tensor itself.
func (f *form) bytes() int64 { return int64(len(f.floats)) * 4 }

type formKey struct {
	tensor weak.Pointer[engine.Tensor]
	layout layout
	part   int
}

// weights finds the forms that some program has made already.
type weights struct {
	format kernel.Format
	mu     sync.Mutex
	forms  map[formKey]weak.Pointer[form]
}

// find returns the form in a layout of a whole tensor, nil where no program has it.
func (w *weights) find(t *engine.Tensor, l layout) *form {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.forms[formKey{weak.Make(t), l, 0}].Value()
}

// get returns the form in a layout of a part of a tensor, which is all of it but for stacks of matrices. Its content is
// made by the next run.
func (w *weights) get(t *engine.Tensor, l layout, part int) *form {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := formKey{weak.Make(t), l, part}
	if f := w.forms[key].Value(); f != nil {
		return f
	}
	f := &form{tensor: t, layout: l, part: part, stale: true}
	if l == plain {
		f.floats = aligned(t.Size())
	} else {
		format, cols, depth := w.formatOf(t), t.Shape[len(t.Shape)-2], t.Shape[len(t.Shape)-1]
		f.floats = aligned(kernel.PackedLen(format, cols, depth))
		f.packed = kernel.NewPacked(format, cols, depth, f.floats)
	}
	for k, p := range w.forms {
		if p.Value() == nil {
			delete(w.forms, k)
		}
	}
	if w.forms == nil {
		w.forms = map[formKey]weak.Pointer[form]{}
	}
	w.forms[key] = weak.Make(f)
	return f
}

// formatOf is what a tensor is packed as. What trains is multiplied in single precision, and so is what has no more
// than the bits of bfloat16 where the results have to be exact.
func (w *weights) formatOf(t *engine.Tensor) kernel.Format {
	switch {
	case t.Trainable:
		return kernel.F32
	case w.format == kernel.F32 && t.Values == nil && t.Data != nil && t.Format == quant.BF16:
		return kernel.BF16
	}
	return w.format
}

// fill makes a worker's share of the form from the tensor.
func (f *form) fill(read func(dst []float32, at int), worker, workers int, scratch []float32) {
	if f.layout == plain {
		lo, hi := share(len(f.floats), 256, worker, workers)
		read(f.floats[lo:hi], lo)
		return
	}
	lo, hi := share(f.packed.Panels(), 1, worker, workers)
	packPanels(f.packed, f.part*f.packed.Cols, read, lo, hi, scratch)
}

// packPanels fills panels from what reads the tensor, whose row first is the panels' first.
func packPanels(p *kernel.Packed, first int, read func(dst []float32, at int), lo, hi int, scratch []float32) {
	p.Pack(func(dst []float32, row, col int) { read(dst, (first+row)*p.Depth+col) }, lo, hi, scratch)
}

// reader returns what reads elements of a tensor from a flat index on, for one worker.
func reader(t *engine.Tensor) func(dst []float32, at int) {
	if t.Data == nil {
		return valuesReader(t.Float32s())
	}
	if t.Values != nil {
		return valuesReader(t.Values)
	}
	block := t.Format.Block()
	var whole []float32
	return func(dst []float32, at int) {
		lo, hi := at/block*block, (at+len(dst)+block-1)/block*block
		data := t.Data[t.Format.Bytes(lo):t.Format.Bytes(hi)]
		if lo == at && hi-lo == len(dst) {
			t.Format.Dequantize(dst, data)
			return
		}
		whole = slices.Grow(whole[:0], hi-lo)[:hi-lo]
		t.Format.Dequantize(whole, data)
		copy(dst, whole[at-lo:])
	}
}

func valuesReader(values []float32) func(dst []float32, at int) {
	return func(dst []float32, at int) { copy(dst, values[at:]) }
}

// packStale makes the forms whose tensor has changed, or that nobody has made yet.
func (p *program) packStale() {
	var phases []phase
	var made []*form
	var bytes int64
	scratch := make([][]float32, p.backend.Workers)
	for _, f := range p.forms {
		if !f.stale && f.seen == f.tensor.Version() {
			continue
		}
		made = append(made, f)
		var values []float32 // made for this purpose
		if f.tensor.Values == nil && f.tensor.Data == nil {
			phases = append(phases, func(worker, _ int) {
				if worker == 0 {
					values = f.tensor.Float32s()
				}
			})
		}
		phases = append(phases, func(worker, workers int) {
			if scratch[worker] == nil {
				scratch[worker] = make([]float32, kernel.PackScratch)
			}
			read := valuesReader(values)
			if values == nil {
				read = reader(f.tensor)
			}
			f.fill(read, worker, workers, scratch[worker])
		}, func(worker, _ int) {
			if worker == 0 {
				values = nil
			}
		})
		if f.stale {
			bytes += f.bytes()
		}
	}
	if len(phases) == 0 {
		return
	}
	p.backend.pool.run(phases, nil)
	for _, f := range made {
		f.stale, f.seen = false, f.tensor.Version()
		p.release(f.tensor)
	}
	if bytes > muchMemory {
		debug.FreeOSMemory()
	}
}

// muchMemory is how many new bytes are worth giving back to the system what was needed to make them.
const muchMemory = 64 << 20

// release gives up the pages of a tensor's file, unless the program reads them at every run.
func (p *program) release(t *engine.Tensor) {
	if t.Release != nil && !p.storage[t] {
		t.Release()
	}
}
