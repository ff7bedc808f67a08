// Package quant holds the storage formats of tensors: floats of 16 and 32 bits and the block formats of GGUF, with
// their layout, their decoding and, for those that are written, their encoding.
package quant

import "fmt"

// Format is a storage format.
type Format uint8

// The formats. A name is that of ggml where it has one.
const (
	F32 Format = iota
	F16
	BF16
	Q8_0
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
)

// info is the layout of a format and its code.
type info struct {
	name   string
	block  int // elements of a block
	bytes  int // of a block
	decode func(dst []float32, src []byte)
	encode func(dst []byte, src []float32)
}

var formats = [...]info{
	F32:  {"F32", 1, 4, decodeF32, encodeF32},
	F16:  {"F16", 1, 2, decodeF16, encodeF16},
	BF16: {"BF16", 1, 2, decodeBF16, encodeBF16},
	Q8_0: {"Q8_0", 32, 34, decodeQ8_0, encodeQ8_0},
	Q4_0: {"Q4_0", 32, 18, decodeQ4_0, encodeQ4_0},
	Q4_1: {"Q4_1", 32, 20, decodeQ4_1, encodeQ4_1},
	Q5_0: {"Q5_0", 32, 22, decodeQ5_0, nil},
	Q5_1: {"Q5_1", 32, 24, decodeQ5_1, nil},
	Q2_K: {"Q2_K", 256, 84, decodeQ2K, nil},
	Q3_K: {"Q3_K", 256, 110, decodeQ3K, nil},
	Q4_K: {"Q4_K", 256, 144, decodeQ4K, nil},
	Q5_K: {"Q5_K", 256, 176, decodeQ5K, nil},
	Q6_K: {"Q6_K", 256, 210, decodeQ6K, nil},
}

// String returns the format's name.
func (f Format) String() string {
	if int(f) < len(formats) {
		return formats[f].name
	}
	return fmt.Sprintf("format %d", uint8(f))
}

// Parse returns the format of a name.
func Parse(name string) (Format, error) {
	for f, i := range formats {
		if i.name == name {
			return Format(f), nil
		}
	}
	return 0, fmt.Errorf("storage format: want one of %v, have %q", Formats(), name)
}

// Formats lists all formats.
func Formats() []Format {
	out := make([]Format, len(formats))
	for i := range out {
		out[i] = Format(i)
	}
	return out
}

// Block returns the number of elements of a block.
func (f Format) Block() int { return formats[f].block }

// Bytes returns the bytes that n elements take. n has to be a multiple of the block.
func (f Format) Bytes(n int) int { return n / formats[f].block * formats[f].bytes }

// Writable reports whether Quantize knows the format.
func (f Format) Writable() bool { return formats[f].encode != nil }

// Dequantize decodes len(dst) elements, a multiple of the block, from the beginning of src.
func (f Format) Dequantize(dst []float32, src []byte) {
	formats[f].decode(dst, src[:f.Bytes(len(dst))])
}

// Quantize encodes len(src) elements, a multiple of the block, to the beginning of dst.
func (f Format) Quantize(dst []byte, src []float32) {
	formats[f].encode(dst[:f.Bytes(len(src))], src)
}

// Known reports whether f is one of the formats; a file may hold tensors that are none.
func (f Format) Known() bool { return int(f) < len(formats) }
