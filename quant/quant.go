// Package quant holds the formats in which numbers are stored: plain floats and integers, the block formats of ggml
// (Q8_0, Q4_0 ..., a scale and small integers per block), and those of bitsandbytes (NF4, FP4, 8-bit code books,
// int8 rows). A block format loses accuracy; MaxError says how much.
//
// A Format is self-contained: block after block, each with its scale, so a part of a tensor is a part of its bytes.
// FourBit, Blockwise and Int8Rows are bitsandbytes' own forms, which keep codes and scales apart.
//
// Layouts and rounding are those of ggml and bitsandbytes, bit for bit: what is written here is read there.
package quant

import (
	"fmt"

	"tunesmith/internal/nearest"
)

// Format says how the elements of a tensor are stored. All formats are little-endian.
type Format uint8

// The formats. The zero value is F32.
const (
	F32    Format = iota // IEEE 754 single precision
	F16                  // IEEE 754 half precision: 5 bits of exponent, 10 of fraction
	BF16                 // upper half of an F32: 8 bits of exponent, 7 of fraction
	F64                  // IEEE 754 double precision
	F8E4M3               // 4 bits of exponent, 3 of fraction, no infinity
	F8E5M2               // upper half of an F16
	I8
	I16
	I32
	I64
	U8
	U16
	U32
	U64
	Bool // one byte, 0 or 1

	Q8_0 // 32 elements: F16 scale, int8
	Q4_0 // 32 elements: F16 scale, 4 bits from −8 to 7
	Q4_1 // 32 elements: F16 scale and minimum, 4 bits from 0 to 15
	Q5_0 // 32 elements: F16 scale, 5 bits from −16 to 15
	Q5_1 // 32 elements: F16 scale and minimum, 5 bits from 0 to 31
	Q2_K // 256 elements in 16 sub-blocks of 4-bit scale and minimum, 2 bits
	Q3_K // 256 elements in 16 sub-blocks of 6-bit scale, 3 bits from −4 to 3
	Q4_K // 256 elements in 8 sub-blocks of 6-bit scale and minimum, 4 bits
	Q5_K // 256 elements in 8 sub-blocks of 6-bit scale and minimum, 5 bits
	Q6_K // 256 elements in 16 sub-blocks of 8-bit scale, 6 bits from −32 to 31

	IQ4_NL // 32 elements: F16 scale, 4-bit codes of a table
	IQ4_XS // 256 elements in 8 sub-blocks of 6-bit scale, codes of the same table
	MXFP4  // 32 elements: a power of two, 4-bit floats
	TQ1_0  // 256 elements: F16 scale, ternary digits, five in a byte
	TQ2_0  // 256 elements: F16 scale, 2 bits from −1 to 1

	IQ1_S   // 256 elements in vectors of 8, a set of 2048: 1.56 bits an element
	IQ1_M   // the same set, scales of 16 elements: 1.75 bits
	IQ2_XXS // 256 elements in vectors of 8, a set of 256 with signs: 2.06 bits
	IQ2_XS  // a set of 512: 2.31 bits
	IQ2_S   // a set of 1024: 2.56 bits
	IQ3_XXS // 256 elements in vectors of 4, a set of 256 with signs: 3.06 bits
	IQ3_S   // a set of 512: 3.44 bits
	NVFP4   // 64 elements in 4 sub-blocks of an 8-bit float as scale, 4-bit floats

	NF4 // 64 elements: F32 scale, 4-bit codes of NF4Book, the first of two in the upper half of a byte
	FP4 // the same, with FP4Book

	NF4BF16 // as NF4, its values rounded to BF16
	NF4F16  // rounded to F16
	FP4BF16
	FP4F16
	Int8 // 32 elements: F32 scale, int8

	formats // how many there are
)

// codec is a format's layout and code.
type codec struct {
	name     string
	block    int // elements of a block, 1 for plain numbers
	bytes    int // of a block
	decode   func(dst []float32, src []byte)
	encode   func(dst []byte, src []float32) // nil for what is only read
	maxError float64                         // see MaxError
}

// halfError is the relative rounding error of an F16.
const halfError = 1.0 / (1 << 11)

// codecs is the list of the formats.
var codecs = [formats]codec{
	F32:    {"F32", 1, 4, decodeF32, encodeF32, 0},
	F16:    {"F16", 1, 2, decodeF16, encodeF16, halfError},
	BF16:   {"BF16", 1, 2, decodeBF16, encodeBF16, 1.0 / (1 << 8)},
	F64:    {"F64", 1, 8, decodeF64, encodeF64, 0},
	F8E4M3: {"F8_E4M3", 1, 1, decodeF8E4M3, nil, 0},
	F8E5M2: {"F8_E5M2", 1, 1, decodeF8E5M2, nil, 0},
	I8:     {"I8", 1, 1, decodeI8, nil, 0},
	I16:    {"I16", 1, 2, decodeI16, nil, 0},
	I32:    {"I32", 1, 4, decodeI32, nil, 0},
	I64:    {"I64", 1, 8, decodeI64, nil, 0},
	U8:     {"U8", 1, 1, decodeU8, nil, 0},
	U16:    {"U16", 1, 2, decodeU16, nil, 0},
	U32:    {"U32", 1, 4, decodeU32, nil, 0},
	U64:    {"U64", 1, 8, decodeU64, nil, 0},
	Bool:   {"BOOL", 1, 1, decodeU8, nil, 0},
	// Half a step, and the rounding of the scale where it counts most: at the largest code.
	Q8_0: {"Q8_0", 32, 34, decodeQ8_0, encodeQ8_0, 0.5/127 + halfError},
	// The sign of the scale is that of the largest element, which gets the code −8 (or −16); an element as large with
	// the other sign would need the code 8 and gets 7, a whole step less.
	Q4_0: {"Q4_0", 32, 18, decodeQ4_0, encodeQ4_0, 1.0/8 + halfError},
	Q5_0: {"Q5_0", 32, 22, decodeQ5_0, encodeQ5_0, 1.0/16 + halfError},
	// The range from minimum to maximum is up to twice the largest element; scale and minimum are both rounded.
	Q4_1: {"Q4_1", 32, 20, decodeQ4_1, encodeQ4_1, 1.0/15 + 3*halfError},
	Q5_1: {"Q5_1", 32, 24, decodeQ5_1, encodeQ5_1, 1.0/31 + 3*halfError},
	Q2_K: {"Q2_K", 256, 84, decodeQ2K, nil, 0},
	Q3_K: {"Q3_K", 256, 110, decodeQ3K, nil, 0},
	Q4_K: {"Q4_K", 256, 144, decodeQ4K, nil, 0},
	Q5_K: {"Q5_K", 256, 176, decodeQ5K, nil, 0},
	Q6_K: {"Q6_K", 256, 210, decodeQ6K, nil, 0},

	IQ4_NL: {"IQ4_NL", 32, 18, decodeIQ4NL, nil, 0},
	IQ4_XS: {"IQ4_XS", 256, 136, decodeIQ4XS, nil, 0},
	// The largest element may fall between 6, the largest value, and 8; others fall between 4 and 6 at most.
	MXFP4: {"MXFP4", 32, 17, decodeMXFP4, encodeMXFP4, 1.0 / 4},
	TQ1_0: {"TQ1_0", 256, 54, decodeTQ1, encodeTQ1, 0.5 + halfError},
	TQ2_0: {"TQ2_0", 256, 66, decodeTQ2, encodeTQ2, 0.5 + halfError},

	IQ1_S:   {"IQ1_S", 256, 50, decodeIQ1S, nil, 0},
	IQ1_M:   {"IQ1_M", 256, 56, decodeIQ1M, nil, 0},
	IQ2_XXS: {"IQ2_XXS", 256, 66, decodeIQ2XXS, nil, 0},
	IQ2_XS:  {"IQ2_XS", 256, 74, decodeIQ2XS, nil, 0},
	IQ2_S:   {"IQ2_S", 256, 82, decodeIQ2S, nil, 0},
	IQ3_XXS: {"IQ3_XXS", 256, 98, decodeIQ3XXS, nil, 0},
	IQ3_S:   {"IQ3_S", 256, 110, decodeIQ3S, nil, 0},
	NVFP4:   {"NVFP4", 64, 36, decodeNVFP4, nil, 0},

	// Half the widest gap between two entries.
	NF4: {"NF4", fourBitBlock, fourBitBytes, decodeNF4, encodeNF4, (1 - 0.6961928) / 2},
	FP4: {"FP4", fourBitBlock, fourBitBytes, decodeFP4, encodeFP4, 1.0 / 6},

	NF4BF16: {"NF4_BF16", fourBitBlock, fourBitBytes, decodeNF4BF16, encodeNF4, (1-0.6961928)/2 + 1.0/(1<<8)},
	NF4F16:  {"NF4_F16", fourBitBlock, fourBitBytes, decodeNF4F16, encodeNF4, (1-0.6961928)/2 + halfError},
	FP4BF16: {"FP4_BF16", fourBitBlock, fourBitBytes, decodeFP4BF16, encodeFP4, 1.0/6 + 1.0/(1<<8)},
	FP4F16:  {"FP4_F16", fourBitBlock, fourBitBytes, decodeFP4F16, encodeFP4, 1.0/6 + halfError},
	Int8:    {"INT8", int8Block, int8Bytes, decodeInt8, encodeInt8, 0.5/127 + 1e-7},
}

// Formats lists all formats.
func Formats() []Format {
	out := make([]Format, formats)
	for i := range out {
		out[i] = Format(i)
	}
	return out
}

// Parse returns the format of that name.
func Parse(name string) (Format, error) {
	var names []string
	for f, c := range codecs {
		if c.name == name {
			return Format(f), nil
		}
		names = append(names, c.name)
	}
	return 0, fmt.Errorf("storage format %q is unknown%s", name, nearest.Hint(name, names))
}

// String returns the format's name, as safetensors and ggml write it.
func (f Format) String() string {
	if !f.Known() {
		return fmt.Sprintf("format %d", uint8(f))
	}
	return codecs[f].name
}

// Known reports whether f is one of the formats.
func (f Format) Known() bool { return f < formats }

// Block returns the number of elements of a block, 1 for plain numbers.
func (f Format) Block() int { return codecs[f].block }

// Bytes returns the bytes that n elements take. n has to be a multiple of the block.
func (f Format) Bytes(n int) int { return n / codecs[f].block * codecs[f].bytes }

// Writable reports whether Quantize knows the format.
func (f Format) Writable() bool { return codecs[f].encode != nil }

// MaxError bounds |x − x̂| after Quantize and Dequantize of a Writable format, as a share of the largest |x| in the
// block. It holds where neither element nor scale falls below the normal range of the format's 16-bit floats.
func (f Format) MaxError() float64 { return codecs[f].maxError }

// Dequantize decodes len(dst) elements, a multiple of the block, from the beginning of src. The values are exact,
// but for F64 and for integers beyond 2^24, which are rounded to nearest even. It panics if src is too short.
func (f Format) Dequantize(dst []float32, src []byte) {
	f.checkBlocks(len(dst))
	codecs[f].decode(dst, src[:f.Bytes(len(dst))])
}

// Quantize encodes len(src) elements, a multiple of the block, to the beginning of dst. Elements of block formats
// have to be finite: what a block with NaN or infinity becomes is not defined. It panics if dst is too short or the
// format is not Writable.
func (f Format) Quantize(dst []byte, src []float32) {
	f.checkBlocks(len(src))
	if !f.Writable() {
		panic(fmt.Sprintf("quant: format %v can be read but not written", f))
	}
	codecs[f].encode(dst[:f.Bytes(len(src))], src)
}

func (f Format) checkBlocks(n int) {
	if block := codecs[f].block; n%block != 0 {
		panic(fmt.Sprintf("quant: %d elements are no multiple of the blocks of %d of format %v", n, block, f))
	}
}
