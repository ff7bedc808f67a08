package checkpoint

import (
	"fmt"
	"io"
	"unicode/utf8"

	"tunesmith/internal/atomicfile"
	"tunesmith/quant"
)

// KV is one entry of a GGUF file's metadata: a value of one of the types that File.Metadata returns.
type KV struct {
	Key   string
	Value any
}

// WriteGGUF writes metadata and tensors to a file, which it replaces whole.
func WriteGGUF(path string, meta []KV, tensors []Tensor) error {
	err := atomicfile.Write(path, func(w io.Writer) error { return EncodeGGUF(w, meta, tensors) })
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return nil
}

// EncodeGGUF writes a GGUF file of version 3, with metadata and tensors in the order given.
func EncodeGGUF(w io.Writer, meta []KV, tensors []Tensor) error {
	header, align, err := ggufHeader(meta, tensors)
	if err != nil {
		return fmt.Errorf("gguf: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	padding := make([]byte, align)
	for _, t := range tensors {
		b, err := t.Bytes()
		if err != nil {
			return fmt.Errorf("gguf: %w", err)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		n := uint64(len(b))
		if _, err := w.Write(padding[:roundUp(n, align)-n]); err != nil {
			return err
		}
	}
	return nil
}

// ggufHeader returns all that stands before the data.
func ggufHeader(meta []KV, tensors []Tensor) (b []byte, align uint64, err error) {
	b = append(b, ggufMagic...)
	b = le.AppendUint32(b, 3)
	b = le.AppendUint64(b, uint64(len(tensors)))
	b = le.AppendUint64(b, uint64(len(meta)))
	keys := make(map[string]any, len(meta))
	for _, kv := range meta {
		if _, ok := keys[kv.Key]; ok || len(kv.Key) > ggufMaxKey || !utf8.ValidString(kv.Key) {
			return nil, 0, fmt.Errorf("metadata key %.80q stands twice, is longer than %d bytes or is not UTF-8", kv.Key, ggufMaxKey)
		}
		keys[kv.Key] = kv.Value
		b = appendString(b, kv.Key)
		if b, err = appendValue(b, kv.Value, 0); err != nil {
			return nil, 0, fmt.Errorf("metadata %q: %w", kv.Key, err)
		}
	}
	if align, err = alignment(keys); err != nil {
		return nil, 0, err
	}
	numbers := make(map[quant.Format]uint32, len(ggmlTypes))
	for n, f := range ggmlTypes {
		numbers[f] = n
	}
	seen := make(map[string]bool, len(tensors))
	offset := uint64(0)
	for _, t := range tensors {
		if seen[t.Name] || len(t.Name) > ggufMaxName || len(t.Shape) > ggufMaxDims {
			return nil, 0, fmt.Errorf("tensor %q of shape %v: want another name than all others, of at most %d bytes, and at most %d dimensions",
				t.Name, t.Shape, ggufMaxName, ggufMaxDims)
		}
		seen[t.Name] = true
		size, err := t.storedSize()
		if err != nil {
			return nil, 0, err
		}
		id, ok := numbers[t.Format]
		if !ok || size == 0 {
			return nil, 0, fmt.Errorf("tensor %q: shape %v in format %v has no place in GGUF", t.Name, t.Shape, t.Format)
		}
		b = appendString(b, t.Name)
		b = le.AppendUint32(b, uint32(len(t.Shape)))
		for i := range t.Shape {
			b = le.AppendUint64(b, uint64(t.Shape[len(t.Shape)-1-i]))
		}
		b = le.AppendUint32(b, id)
		b = le.AppendUint64(b, offset)
		offset += roundUp(uint64(size), align)
	}
	return append(b, make([]byte, roundUp(uint64(len(b)), align)-uint64(len(b)))...), align, nil
}

func appendString(b []byte, s string) []byte {
	return append(le.AppendUint64(b, uint64(len(s))), s...)
}

// appendValue appends the type of a value and the value.
func appendValue(b []byte, v any, depth int) ([]byte, error) {
	if s, ok := v.(string); ok {
		return appendString(le.AppendUint32(b, ggufString), s), nil
	}
	for kind, t := range valueTypes {
		if t == nil {
			continue
		}
		bytes, n, ok := t.append(nil, v)
		switch {
		case !ok:
			continue
		case n < 0:
			return append(le.AppendUint32(b, uint32(kind)), bytes...), nil
		}
		return append(appendArrayType(b, uint32(kind), n), bytes...), nil
	}
	switch list := v.(type) {
	case []string:
		b = appendArrayType(b, ggufString, len(list))
		for _, s := range list {
			b = appendString(b, s)
		}
		return b, nil
	case []any:
		if depth+1 == ggufMaxNesting {
			return nil, fmt.Errorf("arrays nest deeper than %d", ggufMaxNesting)
		}
		b = appendArrayType(b, ggufArray, len(list))
		for i, v := range list {
			element, err := appendValue(nil, v, depth+1)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			if le.Uint32(element) != ggufArray {
				return nil, fmt.Errorf("element %d: want a slice, have %T", i, v)
			}
			b = append(b, element[4:]...)
		}
		return b, nil
	}
	return nil, fmt.Errorf("want a string, bool, number of fixed width or a slice of these, have %T", v)
}

func appendArrayType(b []byte, kind uint32, n int) []byte {
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(b, ggufArray), kind), uint64(n))
}
