package checkpoint

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tunesmith/quant"
)

// A weight W that bitsandbytes has quantised to 4 bits is stored as several tensors: W holds the codes, W.absmax the
// scales, W.quant_map the code book, W.quant_state.bitsandbytes__nf4 (or fp4) JSON as bytes. With double quantisation
// W.absmax holds codes, of the book W.nested_quant_map and the scales W.nested_absmax.

// stateMark stands between a weight's name and that of its code book.
const stateMark = ".quant_state.bitsandbytes__"

// fourBitState is the JSON of a weight's quant_state.
type fourBitState struct {
	Book         string   `json:"quant_type"`
	Block        int      `json:"blocksize"`
	Dtype        string   `json:"dtype"`
	Shape        []int    `json:"shape"`
	NestedBlock  int      `json:"nested_blocksize"`
	NestedOffset *float64 `json:"nested_offset"`
}

// fourBitFormats are the formats that hold the decoded values exactly: bitsandbytes rounds them to the dtype of the
// weight before it was quantised.
var fourBitFormats = map[string]quant.Format{"float32": quant.F32, "bfloat16": quant.BF16, "float16": quant.F16}

// joinFourBit puts a single tensor in the place of the parts of each 4-bit weight.
func (f *file) joinFourBit() error {
	parts := map[string]bool{}
	for _, name := range f.names {
		weight, book, ok := strings.Cut(name, stateMark)
		if !ok {
			continue
		}
		t, err := f.fourBit(weight, book, parts)
		if err != nil {
			return fmt.Errorf("4-bit tensor %q: %w", weight, err)
		}
		f.tensors[weight] = t
	}
	for name := range parts {
		delete(f.tensors, name)
	}
	f.names = slices.DeleteFunc(f.names, func(name string) bool { return parts[name] })
	return nil
}

// fourBit returns a weight from its parts, whose names it adds to parts.
func (f *file) fourBit(weight, bookName string, parts map[string]bool) (Tensor, error) {
	part := func(suffix string) (Tensor, error) {
		t, ok := f.tensors[weight+suffix]
		if !ok {
			return t, fmt.Errorf("%s%s is missing", weight, suffix)
		}
		if suffix != "" {
			parts[weight+suffix] = true
		}
		return t, nil
	}
	text, err := part(stateMark + bookName)
	if err != nil {
		return Tensor{}, err
	}
	var state fourBitState
	if err := json.Unmarshal(text.Data, &state); err != nil {
		return Tensor{}, fmt.Errorf("quant_state: %w", err)
	}
	codes, err := part("")
	if err != nil {
		return Tensor{}, err
	}
	q := quant.FourBit{Block: state.Block, Codes: codes.Data, Size: 1}
	for _, d := range state.Shape {
		if d < 1 || q.Size > 2*len(q.Codes)/d {
			return Tensor{}, fmt.Errorf("shape %v does not fit %d bytes of codes", state.Shape, len(q.Codes))
		}
		q.Size *= d
	}
	if codes.Format != quant.U8 {
		return Tensor{}, fmt.Errorf("want codes in U8, have %v", codes.Format)
	}
	if q.Book, err = book4(bookName, state.Book); err != nil {
		return Tensor{}, err
	}
	entries, err := part(".quant_map")
	if err != nil {
		return Tensor{}, err
	}
	if want := q.Book.Entries(); !slices.Equal(entries.Float32s(), want[:]) {
		return Tensor{}, fmt.Errorf("quant_map: want the code book %v of %v, have %v", want, q.Book, entries.Float32s())
	}
	absmax, err := part(".absmax")
	if err != nil {
		return Tensor{}, err
	}
	if state.NestedOffset == nil {
		q.Absmax = fourBitScales(absmax, state)
	} else if q.Nested, err = nested(absmax, state, part); err != nil {
		return Tensor{}, err
	}
	if err := q.Check(); err != nil {
		return Tensor{}, err
	}
	return fourBitTensor(weight, q, state)
}

// book4 returns the code book that the name of the quant_state and its JSON agree on.
func book4(name, stated string) (quant.Book4, error) {
	for _, b := range []quant.Book4{quant.NF4Book, quant.FP4Book} {
		if name == b.String() && stated == name {
			return b, nil
		}
	}
	return 0, fmt.Errorf("quant_type: want %v or %v, have %q in the name and %q in the JSON", quant.NF4Book, quant.FP4Book, name, stated)
}

// fourBitScales returns the scales in the order of the blocks. On some processors bitsandbytes has saved them as a
// matrix of the blocks of a row by the rows.
func fourBitScales(absmax Tensor, state fourBitState) []float32 {
	scales := absmax.Float32s()
	if len(absmax.Shape) != 2 || len(state.Shape) != 2 || absmax.Shape[1] != state.Shape[0] {
		return scales
	}
	out := make([]float32, len(scales))
	across, rows := absmax.Shape[0], absmax.Shape[1]
	for i, v := range scales {
		out[i%rows*across+i/rows] = v
	}
	return out
}

func nested(codes Tensor, state fourBitState, part func(string) (Tensor, error)) (*quant.Nested, error) {
	book, err := part(".nested_quant_map")
	if err != nil {
		return nil, err
	}
	absmax, err := part(".nested_absmax")
	if err != nil {
		return nil, err
	}
	entries := book.Float32s()
	if len(entries) != len(quant.Book8{}) || codes.Format != quant.U8 {
		return nil, fmt.Errorf("double quantisation: want codes in U8 and %d entries of nested_quant_map, have %v and %d",
			len(quant.Book8{}), codes.Format, len(entries))
	}
	return &quant.Nested{
		Blockwise: quant.Blockwise{Book: (*quant.Book8)(entries), Block: state.NestedBlock, Codes: codes.Data, Absmax: absmax.Float32s()},
		Offset:    float32(*state.NestedOffset),
	}, nil
}

// fourBitTensor returns a weight in 4 bits where its blocks fit those of a format, else in the format to which its values
// are rounded.
func fourBitTensor(name string, q quant.FourBit, state fourBitState) (Tensor, error) {
	format, ok := fourBitFormats[state.Dtype]
	if !ok {
		return Tensor{}, fmt.Errorf("want dtype float32, bfloat16 or float16, have %q", state.Dtype)
	}
	t := Tensor{Name: name, Shape: state.Shape, Format: format}
	if packed, ok := q.Format(); ok && wholeBlocks(state.Shape, packed) == nil {
		t.Format, _ = packed.Rounded(format)
		t.Fetch = func() ([]byte, error) { return q.Pack(), nil }
		return t, nil
	}
	t.Fetch = func() ([]byte, error) {
		values := make([]float32, q.Size)
		q.Dequantize(values)
		b := make([]byte, format.Bytes(q.Size))
		format.Quantize(b, values)
		return b, nil
	}
	return t, nil
}
