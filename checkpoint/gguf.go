package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"

	"tunesmith/quant"
)

// ggmlTypes are ggml's type numbers of the storage formats.
var ggmlTypes = map[uint32]quant.Format{
	0: quant.F32, 1: quant.F16, 2: quant.Q4_0, 3: quant.Q4_1, 6: quant.Q5_0, 7: quant.Q5_1, 8: quant.Q8_0,
	10: quant.Q2_K, 11: quant.Q3_K, 12: quant.Q4_K, 13: quant.Q5_K, 14: quant.Q6_K, 30: quant.BF16,
}

// Types of metadata values.
const (
	ggufU8 uint32 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// ggufWidths are the bytes of the values that have a fixed length.
var ggufWidths = map[uint32]int{
	ggufU8: 1, ggufI8: 1, ggufU16: 2, ggufI16: 2, ggufU32: 4, ggufI32: 4, ggufF32: 4, ggufBool: 1, ggufU64: 8, ggufI64: 8, ggufF64: 8,
}

const (
	ggufMaxDims    = 4
	ggufMaxNesting = 4
	ggufAlignment  = 32
)

// parseGGUF checks a whole file: counts against the bytes that are left, types, names, and each tensor's place.
func parseGGUF(b []byte) (*file, error) {
	r := ggufReader{b: b}
	f, err := r.parse()
	if err != nil {
		return nil, fmt.Errorf("gguf: byte %d: %w", r.at, err)
	}
	return f, nil
}

type ggufReader struct {
	b  []byte
	at int
}

type ggufInfo struct {
	Tensor
	offset uint64
}

func (r *ggufReader) parse() (*file, error) {
	if magic, err := r.take(4); err != nil || string(magic) != "GGUF" {
		return nil, errors.New("the file does not begin with GGUF")
	}
	version, err := r.u32()
	if err != nil {
		return nil, err
	}
	if version != 2 && version != 3 {
		if bits.ReverseBytes32(version) < 16 {
			return nil, errors.New("a big-endian file is not supported")
		}
		return nil, fmt.Errorf("want version 2 or 3, have %d", version)
	}
	tensors, err := r.count(24)
	if err != nil {
		return nil, fmt.Errorf("number of tensors: %w", err)
	}
	pairs, err := r.count(13)
	if err != nil {
		return nil, fmt.Errorf("number of metadata entries: %w", err)
	}
	f := &file{tensors: make(map[string]Tensor, tensors), meta: make(map[string]any, pairs)}
	if err := r.metadata(f, pairs); err != nil {
		return nil, err
	}
	infos := make([]ggufInfo, 0, tensors)
	seen := make(map[string]bool, tensors)
	for range tensors {
		info, err := r.info()
		if err != nil {
			return nil, err
		}
		if seen[info.Name] {
			return nil, fmt.Errorf("tensor %q stands twice", info.Name)
		}
		seen[info.Name] = true
		infos = append(infos, info)
	}
	return f, r.place(f, infos)
}

func (r *ggufReader) metadata(f *file, pairs int) error {
	for range pairs {
		key, err := r.text()
		if err != nil {
			return fmt.Errorf("metadata key: %w", err)
		}
		if _, ok := f.meta[key]; ok {
			return fmt.Errorf("metadata key %q stands twice", key)
		}
		kind, err := r.u32()
		if err != nil {
			return err
		}
		v, err := r.value(kind, 0)
		if err != nil {
			return fmt.Errorf("metadata %q: %w", key, err)
		}
		f.meta[key] = v
	}
	return nil
}

func (r *ggufReader) info() (ggufInfo, error) {
	var t ggufInfo
	var err error
	if t.Name, err = r.text(); err != nil {
		return t, fmt.Errorf("tensor name: %w", err)
	}
	dims, err := r.u32()
	if err != nil {
		return t, err
	}
	if dims > ggufMaxDims {
		return t, fmt.Errorf("tensor %q: want at most %d dimensions, have %d", t.Name, ggufMaxDims, dims)
	}
	n := uint64(1)
	t.Shape = make([]int, dims)
	for i := range dims {
		d, err := r.u64()
		if err != nil {
			return t, err
		}
		hi, lo := bits.Mul64(n, d)
		if hi != 0 || lo > 1<<48 {
			return t, fmt.Errorf("tensor %q: the number of elements overflows", t.Name)
		}
		n, t.Shape[dims-1-i] = lo, int(d)
	}
	kind, err := r.u32()
	if err != nil {
		return t, err
	}
	format, ok := ggmlTypes[kind]
	if !ok {
		return t, fmt.Errorf("tensor %q: ggml type %d is not supported", t.Name, kind)
	}
	t.Format = format
	if row := lastDim(t.Shape); row%format.Block() != 0 {
		return t, fmt.Errorf("tensor %q: rows of %d are no multiple of %v's blocks of %d", t.Name, row, format, format.Block())
	}
	t.offset, err = r.u64()
	return t, err
}

// place checks where each tensor lies and cuts its data out.
func (r *ggufReader) place(f *file, infos []ggufInfo) error {
	align := uint64(ggufAlignment)
	if v, ok := f.meta["general.alignment"]; ok {
		a, ok := v.(uint32)
		if !ok || a < 8 || bits.OnesCount32(a) != 1 {
			return fmt.Errorf("general.alignment: want a power of two of at least 8, have %v", v)
		}
		align = uint64(a)
	}
	start := (uint64(r.at) + align - 1) / align * align
	if len(infos) > 0 && start > uint64(len(r.b)) {
		return errors.New("the file ends before the tensors' data")
	}
	type span struct{ lo, hi uint64 }
	var spans []span
	for _, t := range infos {
		size := uint64(t.Format.Bytes(t.Size()))
		room := uint64(len(r.b)) - start
		if t.offset%align != 0 {
			return fmt.Errorf("tensor %q: offset %d is no multiple of the alignment %d", t.Name, t.offset, align)
		}
		if t.offset > room || size > room-t.offset {
			return fmt.Errorf("tensor %q: %d bytes at %d do not fit into the %d bytes of data", t.Name, size, t.offset, room)
		}
		t.Data = r.b[start+t.offset:][:size:size]
		f.tensors[t.Name] = t.Tensor
		f.names = append(f.names, t.Name)
		if size > 0 {
			spans = append(spans, span{t.offset, t.offset + size})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(int64(a.lo) - int64(b.lo)) })
	for i := 1; i < len(spans); i++ {
		if spans[i].lo < spans[i-1].hi {
			return fmt.Errorf("two tensors overlap at byte %d of the data", spans[i].lo)
		}
	}
	return nil
}

func (r *ggufReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.b)-r.at) {
		return nil, fmt.Errorf("want %d bytes, %d are left", n, len(r.b)-r.at)
	}
	b := r.b[r.at : r.at+int(n)]
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

// count reads a number of things that take at least width bytes each and checks that the file can hold them.
func (r *ggufReader) count(width uint64) (int, error) {
	n, err := r.u64()
	if err != nil {
		return 0, err
	}
	if left := uint64(len(r.b) - r.at); n > left/width {
		return 0, fmt.Errorf("%d do not fit into the %d bytes that are left", n, left)
	}
	return int(n), nil
}

func (r *ggufReader) text() (string, error) {
	n, err := r.u64()
	if err != nil {
		return "", err
	}
	b, err := r.take(n)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("text is not UTF-8")
	}
	return string(b), nil
}

// value reads a metadata value. Arrays become slices of their element type; arrays of arrays become []any.
func (r *ggufReader) value(kind uint32, depth int) (any, error) {
	switch kind {
	case ggufString:
		return r.text()
	case ggufArray:
		return r.array(depth)
	}
	width, ok := ggufWidths[kind]
	if !ok {
		return nil, fmt.Errorf("value type %d is unknown", kind)
	}
	b, err := r.take(uint64(width))
	if err != nil {
		return nil, err
	}
	switch kind {
	case ggufU8:
		return b[0], nil
	case ggufI8:
		return int8(b[0]), nil
	case ggufU16:
		return le.Uint16(b), nil
	case ggufI16:
		return int16(le.Uint16(b)), nil
	case ggufU32:
		return le.Uint32(b), nil
	case ggufI32:
		return int32(le.Uint32(b)), nil
	case ggufF32:
		return math.Float32frombits(le.Uint32(b)), nil
	case ggufU64:
		return le.Uint64(b), nil
	case ggufI64:
		return int64(le.Uint64(b)), nil
	case ggufF64:
		return math.Float64frombits(le.Uint64(b)), nil
	}
	if b[0] > 1 {
		return nil, fmt.Errorf("a bool is 0 or 1, have %d", b[0])
	}
	return b[0] == 1, nil
}

func (r *ggufReader) array(depth int) (any, error) {
	if depth >= ggufMaxNesting {
		return nil, fmt.Errorf("arrays nest deeper than %d", ggufMaxNesting)
	}
	kind, err := r.u32()
	if err != nil {
		return nil, err
	}
	width := uint64(8) // a text's or array's length
	if kind == ggufArray {
		width = 12
	} else if w, ok := ggufWidths[kind]; ok {
		width = uint64(w)
	} else if kind != ggufString {
		return nil, fmt.Errorf("element type %d is unknown", kind)
	}
	n, err := r.count(width)
	if err != nil {
		return nil, err
	}
	switch kind {
	case ggufString:
		return elements[string](r, kind, n, depth)
	case ggufI32:
		return elements[int32](r, kind, n, depth)
	case ggufU32:
		return elements[uint32](r, kind, n, depth)
	case ggufF32:
		return elements[float32](r, kind, n, depth)
	case ggufU8:
		return elements[uint8](r, kind, n, depth)
	case ggufI8:
		return elements[int8](r, kind, n, depth)
	case ggufU16:
		return elements[uint16](r, kind, n, depth)
	case ggufI16:
		return elements[int16](r, kind, n, depth)
	case ggufBool:
		return elements[bool](r, kind, n, depth)
	case ggufU64:
		return elements[uint64](r, kind, n, depth)
	case ggufI64:
		return elements[int64](r, kind, n, depth)
	case ggufF64:
		return elements[float64](r, kind, n, depth)
	}
	return elements[any](r, kind, n, depth)
}

func elements[T any](r *ggufReader, kind uint32, n, depth int) ([]T, error) {
	out := make([]T, n)
	for i := range out {
		v, err := r.value(kind, depth+1)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		out[i] = v.(T)
	}
	return out, nil
}
