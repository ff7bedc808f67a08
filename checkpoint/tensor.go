package checkpoint

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"tunesmith/quant"
)

// Tensor is one tensor of a file.
type Tensor struct {
	Name   string
	Shape  []int // in row-major order, for GGUF too
	Format quant.Format
	// Data are the stored bytes. Of a file that was opened they are part of its mapping: they must not be changed, and
	// not be read once the file is closed.
	Data []byte
	// Fetch makes the bytes where Data is nil: of a tensor that is written, so that a model of any size passes through
	// little memory, or of one that a file holds in parts. A writer calls it once, in its order.
	Fetch func() ([]byte, error)
}

// Size returns the number of elements.
func (t Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes returns Data, or what Fetch makes.
func (t Tensor) Bytes() ([]byte, error) {
	if t.Data != nil || t.Fetch == nil {
		return t.Data, nil
	}
	b, err := t.Fetch()
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return b, t.checkBytes(b)
}

// Float32s returns the values of a tensor of a file in single precision, in new memory.
func (t Tensor) Float32s() []float32 {
	out := make([]float32, t.Size())
	if err := t.ReadInto(out); err != nil {
		panic(err) // a file's tensors are checked when it is opened
	}
	return out
}

// ReadInto writes the values in single precision to dst, which has to be of the tensor's size.
func (t Tensor) ReadInto(dst []float32) error {
	if n := t.Size(); n != len(dst) {
		return fmt.Errorf("tensor %q: shape %v has %d elements, want %d", t.Name, t.Shape, n, len(dst))
	}
	b, err := t.Bytes()
	if err != nil {
		return err
	}
	t.Format.Dequantize(dst, b)
	return nil
}

// FromFloat32s returns a tensor of the values in a format, which has to be writable, with rows of whole blocks.
func FromFloat32s(name string, shape []int, values []float32, f quant.Format) (Tensor, error) {
	t := Tensor{Name: name, Shape: shape, Format: f}
	if n := t.Size(); n != len(values) {
		return t, fmt.Errorf("tensor %q: shape %v has %d elements, %d values are given", name, shape, n, len(values))
	}
	if !f.Writable() {
		return t, fmt.Errorf("tensor %q: format %v can be read but not written", name, f)
	}
	if err := wholeBlocks(shape, f); err != nil {
		return t, fmt.Errorf("tensor %q: %w", name, err)
	}
	t.Data = make([]byte, f.Bytes(len(values)))
	f.Quantize(t.Data, values)
	return t, nil
}

// Float32Tensor returns a tensor of F32 that holds the values bit for bit. On little-endian machines it shares their
// memory, so they must not change until it is written.
func Float32Tensor(name string, shape []int, values []float32) Tensor {
	t := Tensor{Name: name, Shape: shape, Format: quant.F32, Data: []byte{}}
	switch {
	case len(values) == 0:
	case binary.NativeEndian.Uint16([]byte{1, 0}) == 1:
		t.Data = unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), 4*len(values))
	default:
		t.Data = make([]byte, 4*len(values))
		quant.F32.Quantize(t.Data, values)
	}
	return t
}

// wholeBlocks checks that blocks do not run from one row into the next.
func wholeBlocks(shape []int, f quant.Format) error {
	row := 1
	if len(shape) > 0 {
		row = shape[len(shape)-1]
	}
	if row%f.Block() != 0 {
		return fmt.Errorf("rows of %d elements are no multiple of the blocks of %d of format %v", row, f.Block(), f)
	}
	return nil
}

// storedSize returns the bytes that a tensor takes, after the checks that every writer needs.
func (t Tensor) storedSize() (int, error) {
	if !utf8.ValidString(t.Name) {
		return 0, fmt.Errorf("tensor name %q is not UTF-8", t.Name)
	}
	if !t.Format.Known() {
		return 0, fmt.Errorf("tensor %q: %v is unknown", t.Name, t.Format)
	}
	for _, d := range t.Shape {
		if d < 0 {
			return 0, fmt.Errorf("tensor %q: shape %v has a negative dimension", t.Name, t.Shape)
		}
	}
	if err := wholeBlocks(t.Shape, t.Format); err != nil {
		return 0, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if t.Data != nil || t.Fetch == nil {
		if err := t.checkBytes(t.Data); err != nil {
			return 0, err
		}
	}
	return t.Format.Bytes(t.Size()), nil
}

func (t Tensor) checkBytes(b []byte) error {
	if size := t.Format.Bytes(t.Size()); len(b) != size {
		return fmt.Errorf("tensor %q: shape %v in format %v takes %d bytes, have %d", t.Name, t.Shape, t.Format, size, len(b))
	}
	return nil
}
