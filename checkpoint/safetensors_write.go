package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"tunesmith/internal/atomicfile"
)

// WriteSafetensors writes tensors to a file, which it replaces whole, in the order of EncodeSafetensors. PEFT and
// transformers want the metadata {"format": "pt"}.
func WriteSafetensors(path string, tensors []Tensor, meta map[string]string) error {
	err := atomicfile.Write(path, func(w io.Writer) error { return EncodeSafetensors(w, tensors, meta) })
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return nil
}

// EncodeSafetensors writes tensors as the reference writer does, byte for byte: the widest formats first, then by
// name. Block formats have no place in safetensors.
func EncodeSafetensors(w io.Writer, tensors []Tensor, meta map[string]string) error {
	tensors = slices.SortedFunc(slices.Values(tensors), func(a, b Tensor) int {
		return cmp.Or(
			cmp.Compare(slices.Index(safetensorsOrder, a.Format), slices.Index(safetensorsOrder, b.Format)),
			cmp.Compare(a.Name, b.Name))
	})
	header, err := safetensorsHeader(tensors, meta)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, t := range tensors {
		b, err := t.Bytes()
		if err != nil {
			return fmt.Errorf("safetensors: %w", err)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// safetensorsHeader returns what stands before the data: the length and the JSON, padded so that the data begin at a
// multiple of 8.
func safetensorsHeader(tensors []Tensor, meta map[string]string) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 8))
	text := json.NewEncoder(b)
	text.SetEscapeHTML(false)
	put := func(v any) error {
		if err := text.Encode(v); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // the encoder ends with a newline
		return nil
	}
	separator := byte('{')
	member := func(name string, v any) error {
		b.WriteByte(separator)
		separator = ','
		if err := put(name); err != nil {
			return err
		}
		b.WriteByte(':')
		return put(v)
	}
	for key, v := range meta {
		if !utf8.ValidString(key) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("metadata %q: %q: want UTF-8", key, v)
		}
	}
	if len(meta) > 0 {
		if err := member(metadataKey, meta); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{metadataKey: true}
	at := 0
	for _, t := range tensors {
		size, err := t.storedSize()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(safetensorsOrder, t.Format) {
			return nil, fmt.Errorf("tensor %q: want one of the formats %v, have %v", t.Name, safetensorsOrder, t.Format)
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor name %q is taken", t.Name)
		}
		seen[t.Name] = true
		shape := t.Shape
		if shape == nil {
			shape = []int{} // a scalar, not null
		}
		err = member(t.Name, struct {
			Dtype   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{t.Format.String(), shape, [2]int{at, at + size}})
		if err != nil {
			return nil, err
		}
		at += size
	}
	if separator == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	le.PutUint64(b.Bytes(), uint64(b.Len()-8))
	return b.Bytes(), nil
}
