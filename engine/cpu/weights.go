package cpu

import (
	"slices"
	"sync"
	"weak"

	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
)

// layout is a form in which the engine keeps a stored tensor.
type layout uint8

const (
	plain  layout = iota // single precision, row-major, of a tensor that has only its storage
	rightT               // packed as the right operand of x·Wᵀ
	right                // packed as the right operand of x·W
	tiles                // packed as right, by tiles of vocabTile rows
)

// form is a stored tensor in a layout. Programs share it, and it goes with the last of them.
type form struct {
	tensor *engine.Tensor
	layout layout
	floats []float32
	packed []*kernel.Packed // one, but for tiles
	stale  bool
	seen   uint64 // version of the tensor in the form
}

// bytes is what the form takes beside the tensor itself.
func (f *form) bytes() int64 { return int64(len(f.floats)) * 4 }

type formKey struct {
	tensor weak.Pointer[engine.Tensor]
	layout layout
}

// weights finds the forms that some program has made already.
type weights struct {
	format kernel.Format
	mu     sync.Mutex
	forms  map[formKey]weak.Pointer[form]
}

// get returns the tensor's form in a layout. Its content is made by the next run. What trains is packed in single
// precision.
func (w *weights) get(t *engine.Tensor, l layout) *form {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := formKey{weak.Make(t), l}
	if f := w.forms[key].Value(); f != nil {
		return f
	}
	f := &form{tensor: t, layout: l, stale: true}
	format := w.format
	if t.Trainable {
		format = kernel.F32
	}
	switch l {
	case plain:
		f.floats = aligned(t.Size())
	case rightT:
		f.pack(format, [][2]int{{t.Shape[0], t.Shape[1]}})
	case right:
		f.pack(format, [][2]int{{t.Shape[1], t.Shape[0]}})
	case tiles:
		var sizes [][2]int
		for v := 0; v < t.Shape[0]; v += vocabTile {
			sizes = append(sizes, [2]int{t.Shape[1], min(vocabTile, t.Shape[0]-v)})
		}
		f.pack(format, sizes)
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

// pack makes empty operands of columns × depth each in one memory.
func (f *form) pack(format kernel.Format, sizes [][2]int) {
	total := 0
	for _, s := range sizes {
		total += roundUp(kernel.PackedLen(format, s[0], s[1]), align)
	}
	f.floats = aligned(total)
	memory := f.floats
	for _, s := range sizes {
		f.packed = append(f.packed, kernel.NewPacked(format, s[0], s[1], memory))
		memory = memory[roundUp(kernel.PackedLen(format, s[0], s[1]), align):]
	}
}

// fill makes a worker's share of the form from the tensor.
func (f *form) fill(worker, workers int, scratch []float32) {
	t := f.tensor
	read := reader(t)
	if f.layout == plain {
		lo, hi := share(len(f.floats), 256, worker, workers)
		read(f.floats[lo:hi], lo)
		return
	}
	cols := t.Shape[1]
	pack := func(i, lo, hi int) {
		first := i * vocabTile
		rows := func(dst []float32, row, col int) { read(dst, (first+row)*cols+col) }
		f.packed[i].Pack(rows, f.layout != rightT, lo, hi, scratch)
	}
	if len(f.packed) == 1 {
		lo, hi := share(f.packed[0].Panels(), kernel.PackAlign(), worker, workers)
		pack(0, lo, hi)
		return
	}
	lo, hi := share(len(f.packed), 1, worker, workers)
	for i := lo; i < hi; i++ {
		pack(i, 0, f.packed[i].Panels())
	}
}

// reader returns what reads elements of a tensor from a flat index on, for one worker.
func reader(t *engine.Tensor) func(dst []float32, at int) {
	if t.Values != nil {
		return func(dst []float32, at int) { copy(dst, t.Values[at:]) }
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

// packStale makes the forms whose tensor has changed, or that nobody has made yet.
func (p *program) packStale() {
	var phases []phase
	var made []*form
	scratch := make([][]float32, p.backend.Workers)
	for _, f := range p.forms {
		if f.stale || f.seen != f.tensor.Version() {
			made = append(made, f)
			phases = append(phases, func(worker, workers int) {
				if scratch[worker] == nil {
					scratch[worker] = make([]float32, kernel.PackScratch)
				}
				f.fill(worker, workers, scratch[worker])
			})
		}
	}
	if len(phases) == 0 {
		return
	}
	p.backend.pool.run(phases, nil)
	for _, f := range made {
		f.stale, f.seen = false, f.tensor.Version()
	}
}
