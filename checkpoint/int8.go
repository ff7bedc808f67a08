package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/quant"
)

// A weight M.weight that bitsandbytes has quantised to rows of int8 stands beside M.SCB, the largest absolute value of
// each row, and M.weight_format, 0 for rows in their order.
const (
	int8Scales = ".SCB"
	int8Order  = ".weight_format"
)

// joinInt8 puts a single tensor in the place of the parts of each int8 weight.
func (f *file) joinInt8() error {
	parts := map[string]bool{}
	for _, name := range f.names {
		module, ok := strings.CutSuffix(name, int8Scales)
		if !ok {
			continue
		}
		codes, ok := f.tensors[module+".weight"]
		if !ok || codes.Format != quant.I8 {
			continue // a tensor of that name that means something else
		}
		t, err := int8Tensor(codes, f.tensors[name])
		if order, ok := f.tensors[module+int8Order]; ok && err == nil {
			if !slices.ContainsFunc(order.Data, func(b byte) bool { return b != 0 }) {
				parts[module+int8Order] = true
			} else {
				err = fmt.Errorf("%s%s: want 0, the order of rows, have %v; save the model again with a newer bitsandbytes", module, int8Order, order.Data)
			}
		}
		if err != nil {
			return fmt.Errorf("int8 tensor %q: %w", codes.Name, err)
		}
		parts[name] = true
		f.tensors[module+".weight"] = t
	}
	for name := range parts {
		delete(f.tensors, name)
	}
	f.names = slices.DeleteFunc(f.names, func(name string) bool { return parts[name] })
	return nil
}

// int8Tensor returns a weight in 8 bits, or in F32 where its rows are no whole blocks.
func int8Tensor(codes, scales Tensor) (Tensor, error) {
	if len(codes.Shape) != 2 || scales.Format != quant.F32 || scales.Size() != codes.Shape[0] || codes.Size() == 0 {
		return Tensor{}, fmt.Errorf("want a matrix and as many scales in F32 as it has rows, have shape %v, and %v in %v",
			codes.Shape, scales.Shape, scales.Format)
	}
	q := quant.Int8Rows{Rows: codes.Shape[0], Cols: codes.Shape[1], Codes: codes.Data, Absmax: scales.Float32s()}
	t := Tensor{Name: codes.Name, Shape: codes.Shape, Format: quant.Int8}
	if q.Cols%quant.Int8.Block() == 0 {
		t.Fetch = func() ([]byte, error) {
			data, _ := q.Pack()
			return data, nil
		}
		return t, nil
	}
	t.Format = quant.F32
	t.Fetch = func() ([]byte, error) {
		values := make([]float32, len(q.Codes))
		q.Dequantize(values)
		data := make([]byte, 4*len(values))
		quant.F32.Quantize(data, values)
		return data, nil
	}
	return t, nil
}
