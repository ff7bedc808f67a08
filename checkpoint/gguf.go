package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// parseGGUF checks a whole file, of version 2 or 3, and cuts it into tensors. What is refused is what ggml refuses:
// tensors follow one another without holes, each padded to the alignment.
func parseGGUF(b []byte) (*file, error) {
	r := ggufReader{b: b}
	f, err := r.file()
	if err != nil {
		return nil, fmt.Errorf("gguf: byte %d: %w", r.at, err)
	}
	return f, nil
}

// ggufReader reads a file from its beginning.
type ggufReader struct {
	b  []byte
	at int
}

// ggufTensor is a tensor as the file describes it.
type ggufTensor struct {
	Tensor
	size, offset uint64
}

func (r *ggufReader) file() (*file, error) {
	magic, err := r.take(uint64(len(ggufMagic)))
	if err != nil || string(magic) != ggufMagic {
		return nil, fmt.Errorf("want the file to begin with %s, have %q", ggufMagic, magic)
	}
	version, err := r.u32()
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	switch {
	case version == 2 || version == 3:
	case version == 1:
		return nil, errors.New("version 1 is not supported; convert the file with a current llama.cpp")
	case bits.ReverseBytes32(version) <= 3:
		return nil, errors.New("the file is big-endian; want a little-endian one")
	default:
		return nil, fmt.Errorf("want version 2 or 3, have %d", version)
	}
	// A tensor takes at least 24 bytes: lengths of name and dimensions, type, offset. An entry takes at least 13.
	tensors, err := r.count(24)
	if err != nil {
		return nil, fmt.Errorf("number of tensors: %w", err)
	}
	entries, err := r.count(13)
	if err != nil {
		return nil, fmt.Errorf("number of metadata entries: %w", err)
	}
	f := &file{meta: make(map[string]any, entries), tensors: make(map[string]Tensor, tensors)}
	if err := r.metadata(f.meta, entries); err != nil {
		return nil, err
	}
	list := make([]ggufTensor, 0, tensors)
	seen := make(map[string]bool, tensors)
	for range tensors {
		name, err := r.text(ggufMaxName)
		if err != nil {
			return nil, fmt.Errorf("tensor name: %w", err)
		}
		if seen[name] {
			return nil, fmt.Errorf("tensor %q stands twice", name)
		}
		seen[name] = true
		t, err := r.tensor()
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		t.Name = name
		list = append(list, t)
	}
	return f, r.place(f, list)
}

func (r *ggufReader) metadata(meta map[string]any, entries int) error {
	for range entries {
		key, err := r.text(ggufMaxKey)
		if err != nil {
			return fmt.Errorf("metadata key: %w", err)
		}
		if _, ok := meta[key]; ok {
			return fmt.Errorf("metadata key %q stands twice", key)
		}
		kind, err := r.u32()
		if err != nil {
			return fmt.Errorf("metadata %q: %w", key, err)
		}
		if meta[key], err = r.value(kind, 0); err != nil {
			return fmt.Errorf("metadata %q: %w", key, err)
		}
	}
	return nil
}

// tensor reads what follows a tensor's name.
func (r *ggufReader) tensor() (t ggufTensor, err error) {
	dims, err := r.u32()
	if err != nil {
		return t, err
	}
	if dims > ggufMaxDims {
		return t, fmt.Errorf("want at most %d dimensions, have %d", ggufMaxDims, dims)
	}
	elements, overflow := uint64(1), uint64(0)
	t.Shape = make([]int, dims)
	for i := range t.Shape {
		d, err := r.u64()
		if err != nil {
			return t, err
		}
		if d == 0 {
			return t, fmt.Errorf("dimension %d is 0", i)
		}
		var hi uint64
		hi, elements = bits.Mul64(elements, d)
		if overflow |= hi; overflow != 0 || elements > math.MaxInt {
			return t, fmt.Errorf("the number of elements overflows at dimension %d, which is %d", i, d)
		}
		t.Shape[len(t.Shape)-1-i] = int(d) // the file names the contiguous dimension first
	}
	id, err := r.u32()
	if err != nil {
		return t, err
	}
	if t.Format, err = ggmlFormat(id); err != nil {
		return t, err
	}
	if err := wholeBlocks(t.Shape, t.Format); err != nil {
		return t, err
	}
	hi, size := bits.Mul64(elements/uint64(t.Format.Block()), uint64(t.Format.Bytes(t.Format.Block())))
	if t.size = size; hi != 0 {
		return t, fmt.Errorf("the bytes of shape %v in format %v overflow", t.Shape, t.Format)
	}
	t.offset, err = r.u64()
	return t, err
}

// place checks where each tensor lies and cuts its data out.
func (r *ggufReader) place(f *file, list []ggufTensor) error {
	align, err := alignment(f.meta)
	if err != nil {
		return err
	}
	start := roundUp(uint64(r.at), align)
	if start > uint64(len(r.b)) {
		if len(list) > 0 {
			return fmt.Errorf("the data begin at byte %d, the file ends at byte %d", start, len(r.b))
		}
		start = uint64(len(r.b))
	}
	body := r.b[start:]
	for _, t := range list {
		f.names = append(f.names, t.Name)
	}
	slices.SortStableFunc(list, func(a, b ggufTensor) int { return cmp.Compare(a.offset, b.offset) })
	at := uint64(0)
	for _, t := range list {
		if t.offset%align != 0 {
			return fmt.Errorf("tensor %q: offset %d is no multiple of the alignment %d", t.Name, t.offset, align)
		}
		if t.offset != at {
			return fmt.Errorf("tensor %q: want offset %d, where the one before ends, have %d", t.Name, at, t.offset)
		}
		if t.offset > uint64(len(body)) || t.size > uint64(len(body))-t.offset {
			return fmt.Errorf("tensor %q: its %d bytes at offset %d run beyond the %d bytes of data", t.Name, t.size, t.offset, len(body))
		}
		t.Data = body[t.offset:][:t.size:t.size]
		f.tensors[t.Name] = t.Tensor
		at = roundUp(t.offset+t.size, align)
	}
	if uint64(len(body)) > at {
		return fmt.Errorf("the tensors end at byte %d of the data, the file at byte %d", at, len(body))
	}
	return nil
}

// alignment returns the alignment that the metadata ask for.
func alignment(meta map[string]any) (uint64, error) {
	v, ok := meta[alignmentKey]
	if !ok {
		return ggufAlignment, nil
	}
	a, ok := v.(uint32)
	if !ok || a < 8 || bits.OnesCount32(a) != 1 {
		return 0, fmt.Errorf("%s: want a power of two of at least 8 as uint32, have %v of type %T", alignmentKey, v, v)
	}
	return uint64(a), nil
}

func roundUp(n, align uint64) uint64 { return (n + align - 1) &^ (align - 1) }

// value reads a metadata value. Arrays become slices of their element type, arrays of arrays []any.
func (r *ggufReader) value(kind uint32, depth int) (any, error) {
	switch {
	case kind == ggufString:
		b, err := r.string(math.MaxInt)
		return string(b), err
	case kind == ggufArray:
		return r.array(depth)
	case kind >= uint32(len(valueTypes)):
		return nil, fmt.Errorf("value type %d is unknown", kind)
	}
	t := valueTypes[kind]
	b, err := r.take(uint64(t.width()))
	if err != nil {
		return nil, err
	}
	return t.one(b), checkBools(t, b)
}

func (r *ggufReader) array(depth int) (any, error) {
	if depth == ggufMaxNesting {
		return nil, fmt.Errorf("arrays nest deeper than %d", ggufMaxNesting)
	}
	kind, err := r.u32()
	if err != nil {
		return nil, err
	}
	switch {
	case kind == ggufString:
		n, err := r.count(8)
		if err != nil {
			return nil, err
		}
		list := make([]string, n)
		for i := range list {
			b, err := r.string(math.MaxInt)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			list[i] = string(b)
		}
		return list, nil
	case kind == ggufArray:
		n, err := r.count(12)
		if err != nil {
			return nil, err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = r.array(depth + 1); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return list, nil
	case kind >= uint32(len(valueTypes)):
		return nil, fmt.Errorf("element type %d is unknown", kind)
	}
	t := valueTypes[kind]
	n, err := r.count(uint64(t.width()))
	if err != nil {
		return nil, err
	}
	b, err := r.take(uint64(n * t.width()))
	if err != nil {
		return nil, err
	}
	return t.many(b, n), checkBools(t, b)
}

// checkBools refuses bytes that are no bool.
func checkBools(t valueType, b []byte) error {
	if _, ok := t.(fixed[bool]); !ok {
		return nil
	}
	for _, v := range b {
		if v > 1 {
			return fmt.Errorf("a bool is 0 or 1, have %d", v)
		}
	}
	return nil
}

// take returns the next n bytes.
func (r *ggufReader) take(n uint64) ([]byte, error) {
	if left := uint64(len(r.b) - r.at); n > left {
		return nil, fmt.Errorf("want %d more bytes, the file has %d", n, left)
	}
	b := r.b[r.at:][:n]
	r.at += int(n)
	return b, nil
}

func (r *ggufReader) u32() (uint32, error) {
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return le.Uint32(b), nil
}

func (r *ggufReader) u64() (uint64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return le.Uint64(b), nil
}

// count reads the number of things that take at least width bytes each, and checks that the file can hold them.
func (r *ggufReader) count(width uint64) (int, error) {
	n, err := r.u64()
	if err != nil {
		return 0, err
	}
	if left := uint64(len(r.b) - r.at); n > left/width {
		return 0, fmt.Errorf("%d of at least %d bytes do not fit into the %d that are left", n, width, left)
	}
	return int(n), nil
}

// string reads the bytes of a string. Values need not be UTF-8: vocabularies hold tokens that are parts of a
// character.
func (r *ggufReader) string(limit uint64) ([]byte, error) {
	n, err := r.u64()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("want at most %d bytes, have %d", limit, n)
	}
	return r.take(n)
}

// text reads a name or key, which is UTF-8.
func (r *ggufReader) text(limit uint64) (string, error) {
	b, err := r.string(limit)
	if err == nil && !utf8.Valid(b) {
		err = fmt.Errorf("%q is not UTF-8", b)
	}
	return string(b), err
}
