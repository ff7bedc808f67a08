package checkpoint

import (
	"encoding/binary"
	"fmt"

	"tunesmith/quant"
)

// The constants of GGUF, from ggml's docs/gguf.md and gguf.h.
const (
	ggufMagic      = "GGUF"
	ggufMaxDims    = 4
	ggufMaxName    = 64
	ggufMaxKey     = 65535
	ggufMaxNesting = 4
	ggufAlignment  = 32 // where general.alignment does not say otherwise
	alignmentKey   = "general.alignment"

	ggufString = 8
	ggufArray  = 9
)

// ggmlTypes are ggml's type numbers of the formats.
var ggmlTypes = map[uint32]quant.Format{
	0: quant.F32, 1: quant.F16, 2: quant.Q4_0, 3: quant.Q4_1, 6: quant.Q5_0, 7: quant.Q5_1, 8: quant.Q8_0,
	10: quant.Q2_K, 11: quant.Q3_K, 12: quant.Q4_K, 13: quant.Q5_K, 14: quant.Q6_K,
	20: quant.IQ4_NL, 23: quant.IQ4_XS, 34: quant.TQ1_0, 35: quant.TQ2_0, 39: quant.MXFP4,
	16: quant.IQ2_XXS, 17: quant.IQ2_XS, 18: quant.IQ3_XXS, 19: quant.IQ1_S, 21: quant.IQ3_S, 22: quant.IQ2_S, 29: quant.IQ1_M,
	40: quant.NVFP4,
	24: quant.I8, 25: quant.I16, 26: quant.I32, 27: quant.I64, 28: quant.F64, 30: quant.BF16,
}

// foreignTypes are the names of ggml's types that are not among the formats, for messages.
var foreignTypes = map[uint32]string{
	4: "Q4_2, removed from ggml", 5: "Q4_3, removed from ggml", 9: "Q8_1", 15: "Q8_K", 41: "Q1_0",
}

func ggmlFormat(id uint32) (quant.Format, error) {
	if f, ok := ggmlTypes[id]; ok {
		return f, nil
	}
	if name, ok := foreignTypes[id]; ok {
		return 0, fmt.Errorf("ggml type %d (%s) is not supported; convert the file to Q8_0 or F16", id, name)
	}
	return 0, fmt.Errorf("ggml type %d is unknown", id)
}

// valueType reads and writes the metadata values of one type of fixed width.
type valueType interface {
	width() int
	one(b []byte) any
	many(b []byte, n int) any
	// append appends a value or a slice of them; n is the slice's length, or -1. ok is false where v is of another type.
	append(b []byte, v any) (out []byte, n int, ok bool)
}

// valueTypes are in the order of their numbers; strings and arrays have no fixed width.
var valueTypes = []valueType{
	fixed[uint8]{},
	fixed[int8]{},
	fixed[uint16]{},
	fixed[int16]{},
	fixed[uint32]{},
	fixed[int32]{},
	fixed[float32]{},
	fixed[bool]{},
	nil, nil,
	fixed[uint64]{},
	fixed[int64]{},
	fixed[float64]{},
}

type fixed[T any] struct{}

func (fixed[T]) width() int {
	var v T
	return binary.Size(v)
}

func (fixed[T]) one(b []byte) any {
	var v T
	mustDecode(b, &v)
	return v
}

func (fixed[T]) many(b []byte, n int) any {
	list := make([]T, n)
	mustDecode(b, list)
	return list
}

func (fixed[T]) append(b []byte, v any) (out []byte, n int, ok bool) {
	n = -1
	switch v := v.(type) {
	case T:
	case []T:
		n = len(v)
	default:
		return b, n, false
	}
	out, err := binary.Append(b, le, v)
	return out, n, err == nil
}

// mustDecode fills v, whose size the caller has made sure of.
func mustDecode(b []byte, v any) {
	if _, err := binary.Decode(b, le, v); err != nil {
		panic(err)
	}
}
