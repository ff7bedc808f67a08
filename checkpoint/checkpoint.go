// Package checkpoint reads and writes tensors on disk: safetensors in one file or in shards, GGUF, and the state of
// a training run. Readers map files and believe nothing: every count, offset and size is checked against the file
// before anything is allocated.
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tunesmith/quant"
)

var le = binary.LittleEndian

// Tensor is one tensor of a file. The shape is in row-major order, for GGUF too.
type Tensor struct {
	Name   string
	Shape  []int
	Format quant.Format
	Data   []byte // of a file that is read: part of its mapping, valid until the file is closed
}

// Size returns the number of elements.
func (t Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Float32s returns the values in single precision.
func (t Tensor) Float32s() []float32 {
	out := make([]float32, t.Size())
	t.Format.Dequantize(out, t.Data)
	return out
}

// FromFloat32s returns a tensor of the values in the format, which has to be writable, with rows of whole blocks.
func FromFloat32s(name string, shape []int, values []float32, f quant.Format) (Tensor, error) {
	t := Tensor{Name: name, Shape: shape, Format: f}
	if n := t.Size(); n != len(values) {
		return t, fmt.Errorf("tensor %q: shape %v has %d elements, %d values are given", name, shape, n, len(values))
	}
	if !f.Writable() {
		return t, fmt.Errorf("tensor %q: format %v can be read but not written", name, f)
	}
	if row := lastDim(shape); row%f.Block() != 0 {
		return t, fmt.Errorf("tensor %q: rows of %d are no multiple of %v's blocks of %d", name, row, f, f.Block())
	}
	t.Data = make([]byte, f.Bytes(len(values)))
	f.Quantize(t.Data, values)
	return t, nil
}

func lastDim(shape []int) int {
	if len(shape) == 0 {
		return 1
	}
	return shape[len(shape)-1]
}

// File is a set of tensors on disk.
type File interface {
	// Names lists the tensors in the order of the file.
	Names() []string
	// Tensor returns the tensor of a name.
	Tensor(name string) (Tensor, bool)
	// Metadata returns what the file says beside the tensors: texts from safetensors; from GGUF also numbers of their
	// width, bool, and slices of these.
	Metadata() map[string]any
	// Close ends the mapping. Tensors must not be used afterwards.
	Close() error
}

// Open reads a .safetensors file, a model.safetensors.index.json, a .gguf file, or a directory that holds
// model.safetensors or its index. Nothing but headers is read.
func Open(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if info.IsDir() {
		return openDir(path)
	}
	switch {
	case strings.HasSuffix(path, ".gguf"):
		return mapped(path, parseGGUF)
	case strings.HasSuffix(path, ".index.json"):
		return openIndex(path)
	case strings.HasSuffix(path, ".safetensors"):
		return mapped(path, parseSafetensors)
	case strings.HasSuffix(path, ".bin"), strings.HasSuffix(path, ".pt"), strings.HasSuffix(path, ".pth"), strings.HasSuffix(path, ".ckpt"):
		return nil, fmt.Errorf("checkpoint %s: Python pickles can run code and are not read; convert the file to safetensors", path)
	}
	return nil, fmt.Errorf("checkpoint %s: want a .safetensors or .gguf file, or a directory that holds model.safetensors", path)
}

func openDir(dir string) (File, error) {
	for _, name := range []string{"model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return Open(path)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*.gguf")); len(found) == 1 {
		return Open(found[0])
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*.bin")); len(found) > 0 {
		return nil, fmt.Errorf("checkpoint %s: holds %s only; Python pickles can run code and are not read; convert it to safetensors",
			dir, filepath.Base(found[0]))
	}
	return nil, fmt.Errorf("checkpoint %s: holds no model.safetensors, model.safetensors.index.json or single .gguf file", dir)
}

// file is the one implementation of File: tensors in one or several mappings.
type file struct {
	names   []string
	tensors map[string]Tensor
	meta    map[string]any
	unmap   []func() error
}

func (f *file) Names() []string          { return f.names }
func (f *file) Metadata() map[string]any { return f.meta }

func (f *file) Tensor(name string) (Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

func (f *file) Close() error {
	var errs []error
	for _, unmap := range f.unmap {
		errs = append(errs, unmap())
	}
	f.unmap, f.tensors, f.names = nil, nil, nil
	return errors.Join(errs...)
}

// mapped maps a file and parses it.
func mapped(path string, parse func([]byte) (*file, error)) (File, error) {
	b, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", path, err)
	}
	f, err := parse(b)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoint %s: %w", path, err), unmap())
	}
	f.unmap = append(f.unmap, unmap)
	return f, nil
}
