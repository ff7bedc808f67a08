package checkpoint

import (
	"bytes"
	"fmt"
	"io"
	"math"

	"tunesmith/quant"
)

// KV is one entry of a GGUF file's metadata: text, bool, a number of fixed width, or a slice of these.
type KV struct {
	Key   string
	Value any
}

// EncodeGGUF writes a GGUF file of version 3, with metadata and tensors in the order given.
func EncodeGGUF(w io.Writer, meta []KV, tensors []Tensor) error {
	var b bytes.Buffer
	b.WriteString("GGUF")
	put(&b, uint32(3))
	put(&b, uint64(len(tensors)))
	put(&b, uint64(len(meta)))
	for _, kv := range meta {
		putText(&b, kv.Key)
		if err := putValue(&b, kv.Value, true); err != nil {
			return fmt.Errorf("gguf: metadata %q: %w", kv.Key, err)
		}
	}
	numbers := map[quant.Format]uint32{}
	for n, f := range ggmlTypes {
		numbers[f] = n
	}
	at := 0
	for _, t := range tensors {
		kind, ok := numbers[t.Format]
		if !ok || len(t.Shape) > ggufMaxDims || len(t.Data) != t.Format.Bytes(t.Size()) {
			return fmt.Errorf("gguf: tensor %q of shape %v in %v with %d bytes cannot be written", t.Name, t.Shape, t.Format, len(t.Data))
		}
		putText(&b, t.Name)
		put(&b, uint32(len(t.Shape)))
		for i := range t.Shape {
			put(&b, uint64(t.Shape[len(t.Shape)-1-i]))
		}
		put(&b, kind)
		put(&b, uint64(at))
		at += aligned(len(t.Data))
	}
	pad(&b, aligned(b.Len())-b.Len())
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	for _, t := range tensors {
		if _, err := w.Write(t.Data); err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, aligned(len(t.Data))-len(t.Data))); err != nil {
			return err
		}
	}
	return nil
}

func aligned(n int) int { return (n + ggufAlignment - 1) / ggufAlignment * ggufAlignment }

func pad(b *bytes.Buffer, n int) { b.Write(make([]byte, n)) }

func put[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64](b *bytes.Buffer, v T) {
	var buf [8]byte
	le.PutUint64(buf[:], uint64(v))
	switch any(v).(type) {
	case uint8, int8:
		b.Write(buf[:1])
	case uint16, int16:
		b.Write(buf[:2])
	case uint32, int32:
		b.Write(buf[:4])
	default:
		b.Write(buf[:8])
	}
}

func putText(b *bytes.Buffer, s string) {
	put(b, uint64(len(s)))
	b.WriteString(s)
}

// putValue writes a value, with its type in front where typed.
func putValue(b *bytes.Buffer, v any, typed bool) error {
	kind := func(k uint32) {
		if typed {
			put(b, k)
		}
	}
	switch v := v.(type) {
	case uint8:
		kind(ggufU8)
		put(b, v)
	case int8:
		kind(ggufI8)
		put(b, v)
	case uint16:
		kind(ggufU16)
		put(b, v)
	case int16:
		kind(ggufI16)
		put(b, v)
	case uint32:
		kind(ggufU32)
		put(b, v)
	case int32:
		kind(ggufI32)
		put(b, v)
	case uint64:
		kind(ggufU64)
		put(b, v)
	case int64:
		kind(ggufI64)
		put(b, v)
	case float32:
		kind(ggufF32)
		put(b, math.Float32bits(v))
	case float64:
		kind(ggufF64)
		put(b, math.Float64bits(v))
	case bool:
		kind(ggufBool)
		if v {
			put(b, uint8(1))
		} else {
			put(b, uint8(0))
		}
	case string:
		kind(ggufString)
		putText(b, v)
	case []string:
		return putArray(b, ggufString, v)
	case []int32:
		return putArray(b, ggufI32, v)
	case []uint32:
		return putArray(b, ggufU32, v)
	case []float32:
		return putArray(b, ggufF32, v)
	default:
		return fmt.Errorf("a value of type %T cannot be written", v)
	}
	return nil
}

func putArray[T any](b *bytes.Buffer, kind uint32, list []T) error {
	put(b, ggufArray)
	put(b, kind)
	put(b, uint64(len(list)))
	for _, v := range list {
		if err := putValue(b, v, false); err != nil {
			return err
		}
	}
	return nil
}
