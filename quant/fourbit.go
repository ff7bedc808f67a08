package quant

import (
	"fmt"
	"math"
	"math/bits"
)

// FourBit is a tensor in bitsandbytes' 4-bit format: codes, and a scale for each block of the flattened elements.
// With double quantisation the scales are stored in 8 bits themselves.
type FourBit struct {
	Book   Book4
	Size   int       // elements
	Block  int       // elements of a block; the last may be shorter
	Codes  []byte    // two elements a byte, the first in the upper half
	Absmax []float32 // the largest absolute value of each block; nil with double quantisation
	Nested *Nested   // nil without
}

// Nested holds the scales of a FourBit in 8 bits: what they differ by from their mean.
type Nested struct {
	Blockwise
	Offset float32 // the mean
}

// NestedBlock is the number of scales that share one in double quantisation.
const NestedBlock = 256

// smallest is the least scale by which bitsandbytes divides.
const smallest = 1e-38

// QuantizeFourBit encodes the elements, which have to be finite, in blocks of 32 to 4096.
func QuantizeFourBit(book Book4, block int, x []float32) (FourBit, error) {
	if block < 32 || block > 4096 || bits.OnesCount(uint(block)) != 1 {
		return FourBit{}, fmt.Errorf("4-bit quantisation: want a block that is a power of two from 32 to 4096, have %d", block)
	}
	q := FourBit{Book: book, Size: len(x), Block: block, Codes: make([]byte, (len(x)+1)/2), Absmax: make([]float32, blocks(len(x), block))}
	for b := range q.Absmax {
		lo, hi := span(b, block, len(x))
		if hi-lo == block {
			q.Absmax[b] = book.encode(q.Codes[lo/2:hi/2], x[lo:hi])
			continue
		}
		// bitsandbytes divides in a last block that is shorter, and stores the bound that it divides by.
		scale := max(largest(x[lo:hi]), smallest)
		for i := lo; i < hi; i++ {
			q.Codes[i/2] |= book.code(x[i]/scale) << (4 * (1 - i%2))
		}
		q.Absmax[b] = scale
	}
	if len(x)%2 == 1 { // the half byte that is left holds a zero
		q.Codes[len(x)/2] |= book.code(0)
	}
	return q, nil
}

// Nest quantises the scales.
func (q FourBit) Nest() FourBit {
	if q.Nested != nil {
		return q
	}
	var sum float64
	for _, v := range q.Absmax {
		sum += float64(v)
	}
	offset := float32(0)
	if n := len(q.Absmax); n > 0 {
		offset = float32(sum / float64(n))
	}
	rest := make([]float32, len(q.Absmax))
	for i, v := range q.Absmax {
		rest[i] = v - offset
	}
	q.Nested = &Nested{QuantizeBlockwise(DynamicSigned, NestedBlock, rest), offset}
	q.Absmax = nil
	return q
}

// Scales returns the scale of each block.
func (q FourBit) Scales() []float32 {
	if q.Nested == nil {
		return q.Absmax
	}
	out := make([]float32, len(q.Nested.Codes))
	q.Nested.Dequantize(out)
	for i := range out {
		out[i] += q.Nested.Offset
	}
	return out
}

// Check reports parts that do not fit together.
func (q FourBit) Check() error {
	n := blocks(q.Size, max(q.Block, 1))
	switch {
	case q.Size < 0 || q.Block <= 0:
		return fmt.Errorf("4-bit tensor: want elements and a block, have %d in blocks of %d", q.Size, q.Block)
	case len(q.Codes) != (q.Size+1)/2:
		return fmt.Errorf("4-bit tensor: %d elements take %d bytes of codes, have %d", q.Size, (q.Size+1)/2, len(q.Codes))
	case q.Nested == nil && len(q.Absmax) != n:
		return fmt.Errorf("4-bit tensor: %d elements in blocks of %d have %d scales, have %d", q.Size, q.Block, n, len(q.Absmax))
	case q.Nested != nil && (len(q.Nested.Codes) != n || q.Nested.Block <= 0 || len(q.Nested.Absmax) != blocks(n, q.Nested.Block)):
		return fmt.Errorf("4-bit tensor: %d elements in blocks of %d have %d scales in blocks of %d, have %d with %d scales of their own",
			q.Size, q.Block, n, q.Nested.Block, len(q.Nested.Codes), len(q.Nested.Absmax))
	}
	return nil
}

// Dequantize decodes all elements to dst.
func (q FourBit) Dequantize(dst []float32) {
	entries := q.Book.Entries()
	for b, scale := range q.Scales() {
		lo, hi := span(b, q.Block, q.Size)
		for i := lo; i < hi; i++ {
			dst[i] = entries[q.Codes[i/2]>>(4*(1-i%2))&15] * scale
		}
	}
}

// Layout of the formats NF4 and FP4.
const (
	fourBitBlock = 64
	fourBitBytes = 4 + fourBitBlock/2
)

// Format returns the Format that holds the same values: NF4 or FP4, if the tensor has whole blocks of 64 elements or
// of a multiple.
func (q FourBit) Format() (f Format, ok bool) {
	f = NF4
	if q.Book == FP4Book {
		f = FP4
	}
	return f, q.Block%fourBitBlock == 0 && q.Size%fourBitBlock == 0
}

// Rounded returns the format of the same bytes whose values are rounded to another: to BF16 or F16, or F32 for those of
// full precision.
func (f Format) Rounded(to Format) (Format, bool) {
	switch {
	case to == F32 && (f == NF4 || f == FP4):
		return f, true
	case to == BF16 && f == NF4:
		return NF4BF16, true
	case to == F16 && f == NF4:
		return NF4F16, true
	case to == BF16 && f == FP4:
		return FP4BF16, true
	case to == F16 && f == FP4:
		return FP4F16, true
	}
	return 0, false
}

// Pack returns the tensor's bytes in its Format, which has to be there.
func (q FourBit) Pack() []byte {
	f, ok := q.Format()
	if !ok {
		panic(fmt.Sprintf("quant: %d elements in blocks of %d have no format", q.Size, q.Block))
	}
	data := make([]byte, f.Bytes(q.Size))
	scales := q.Scales()
	for b := range q.Size / fourBitBlock {
		to := data[b*fourBitBytes:][:fourBitBytes]
		le.PutUint32(to, math.Float32bits(scales[b*fourBitBlock/q.Block]))
		copy(to[4:], q.Codes[b*fourBitBlock/2:])
	}
	return data
}

func decodeNF4(dst []float32, src []byte)     { decodeFourBit(NF4Book, dst, src, nil) }
func decodeFP4(dst []float32, src []byte)     { decodeFourBit(FP4Book, dst, src, nil) }
func decodeNF4BF16(dst []float32, src []byte) { decodeFourBit(NF4Book, dst, src, toBF16) }
func decodeNF4F16(dst []float32, src []byte)  { decodeFourBit(NF4Book, dst, src, toF16) }
func decodeFP4BF16(dst []float32, src []byte) { decodeFourBit(FP4Book, dst, src, toBF16) }
func decodeFP4F16(dst []float32, src []byte)  { decodeFourBit(FP4Book, dst, src, toF16) }

func toBF16(x float32) float32 { return FromBF16(ToBF16(x)) }
func toF16(x float32) float32  { return FromF16(ToF16(x)) }

// decodeFourBit decodes blocks, with the values rounded where round is not nil.
func decodeFourBit(book Book4, dst []float32, src []byte, round func(float32) float32) {
	entries := book.Entries()
	for len(dst) >= fourBitBlock && len(src) >= fourBitBytes {
		scale := math.Float32frombits(le.Uint32(src))
		var values [16]float32
		for i, v := range entries {
			if values[i] = v * scale; round != nil {
				values[i] = round(values[i])
			}
		}
		y, codes := dst[:fourBitBlock:fourBitBlock], src[4:fourBitBytes:fourBitBytes]
		for i, c := range codes {
			y[2*i] = values[c>>4]
			y[2*i+1] = values[c&15]
		}
		dst, src = dst[fourBitBlock:], src[fourBitBytes:]
	}
}

func encodeNF4(dst []byte, src []float32) { encodeFourBit(NF4Book, dst, src) }
func encodeFP4(dst []byte, src []float32) { encodeFourBit(FP4Book, dst, src) }

func encodeFourBit(book Book4, dst []byte, src []float32) {
	for len(src) >= fourBitBlock {
		x, codes := src[:fourBitBlock], dst[4:fourBitBytes]
		le.PutUint32(dst, math.Float32bits(book.encode(codes, x)))
		dst, src = dst[fourBitBytes:], src[fourBitBlock:]
	}
}

// encode writes the codes of a whole block, of an even number of elements, and returns its scale.
func (b Book4) encode(codes []byte, x []float32) float32 {
	scale := largest(x)
	inverse := 1 / max(scale, smallest)
	for i := range codes {
		codes[i] = b.code(x[2*i]*inverse)<<4 | b.code(x[2*i+1]*inverse)
	}
	return scale
}
