// Package checkpoint reads and writes tensors on disk: safetensors in one file or in shards, GGUF, and the state of
// a training run. Readers map files and believe nothing: every count, offset and size is checked against the file
// before anything is allocated. Writers are deterministic, and replace a file whole or not at all.
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

var le = binary.LittleEndian

// File is a set of tensors on disk. It is safe for concurrent use, but for Close.
type File interface {
	// Names lists the tensors in the order of the file.
	Names() []string
	// Tensor returns the tensor of a name.
	Tensor(name string) (Tensor, bool)
	// Metadata returns what the file says beside the tensors. Safetensors hold texts. GGUF also holds bool and numbers
	// of any width, and slices of one of these types; an array of arrays is []any.
	Metadata() map[string]any
	// Close ends the mapping. The data of tensors must not be used afterwards.
	Close() error
}

// Names of the files in the directory of a Hugging Face model or a PEFT adapter.
const (
	modelFile   = "model.safetensors"
	indexFile   = "model.safetensors.index.json"
	adapterFile = "adapter_model.safetensors"
)

// Open reads a .safetensors file, a .safetensors.index.json, a .gguf file, or a directory that holds the weights of a
// model or an adapter. Nothing but headers is read. A weight that bitsandbytes has stored in 4 or 8 bits, in several
// tensors, appears as the one tensor that they stand for, without Data: see Tensor.Bytes.
//
// The file must not be cut while it is open: reading what a mapping has lost ends the program.
func Open(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if info.IsDir() {
		return openDir(path)
	}
	var f *file
	switch {
	case strings.HasSuffix(path, ".gguf"):
		f, err = mapped(path, parseGGUF)
	case strings.HasSuffix(path, ".safetensors.index.json"):
		f, err = openIndex(path)
	case strings.HasSuffix(path, ".safetensors"):
		f, err = mapped(path, parseSafetensors)
	case isPickle(path):
		err = errors.New(pickleAdvice)
	default:
		err = fmt.Errorf("want a .safetensors or .gguf file, or a directory that holds %s", modelFile)
	}
	if err == nil {
		if err = errors.Join(f.joinFourBit(), f.joinInt8()); err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return f, nil
}

const pickleAdvice = "pickles of Python can run code and are not read; convert the file to safetensors where it comes from"

func isPickle(path string) bool {
	return slices.Contains([]string{".bin", ".pt", ".pth", ".ckpt", ".pkl"}, filepath.Ext(path))
}

// openDir opens the one set of weights in a directory: that of the usual name, else the only one there is.
func openDir(dir string) (File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var weights, pickles []string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == modelFile, name == indexFile, name == adapterFile:
			weights = append(weights, name)
		case isPickle(name):
			pickles = append(pickles, name)
		}
	}
	for _, name := range []string{modelFile, indexFile, adapterFile} {
		if slices.Contains(weights, name) {
			return Open(filepath.Join(dir, name))
		}
	}
	for _, suffix := range []string{".safetensors.index.json", ".safetensors", ".gguf"} {
		var found []string
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), suffix) {
				found = append(found, e.Name())
			}
		}
		if len(found) == 1 {
			return Open(filepath.Join(dir, found[0]))
		}
		if len(found) > 1 {
			return nil, fmt.Errorf("checkpoint %s: holds %s; name the one to open", dir, strings.Join(found, ", "))
		}
	}
	if len(pickles) > 0 {
		return nil, fmt.Errorf("checkpoint %s: holds only %s; %s", dir, strings.Join(pickles, ", "), pickleAdvice)
	}
	return nil, fmt.Errorf("checkpoint %s: holds no %s, %s or .gguf file", dir, modelFile, indexFile)
}

// file is the one implementation of File: tensors in one or several mappings.
type file struct {
	names   []string
	tensors map[string]Tensor
	meta    map[string]any
	unmap   []func() error
}

func (f *file) Names() []string          { return slices.Clone(f.names) }
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

// Release gives up the memory that holds the bytes of a file's tensor, until somebody reads them again.
func Release(f File, name string) {
	if f, ok := f.(*file); ok {
		if t := f.tensors[name]; len(t.Data) > 0 {
			dropPages(t.Data)
		}
	}
}

// mapped maps a file and parses it.
func mapped(path string, parse func([]byte) (*file, error)) (*file, error) {
	b, unmap, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	f, err := parse(b)
	if err != nil {
		return nil, errors.Join(err, unmap())
	}
	f.unmap = append(f.unmap, unmap)
	return f, nil
}
