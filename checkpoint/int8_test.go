package checkpoint

import (
	"slices"
	"strings"
	"testing"

	"tunesmith/quant"
)

func int8Parts(cols int, order byte) (map[string]Tensor, []float32) {
	x := make([]float32, 3*cols)
	for i := range x {
		x[i] = float32(i%7) - 2.5
	}
	q := quant.QuantizeInt8Rows(x, cols, 0)
	q.Dequantize(x)
	return map[string]Tensor{
		"m.weight":        {Name: "m.weight", Shape: []int{3, cols}, Format: quant.I8, Data: q.Codes},
		"m.SCB":           Float32Tensor("m.SCB", []int{3}, q.Absmax),
		"m.weight_format": {Name: "m.weight_format", Shape: []int{}, Format: quant.U8, Data: []byte{order}},
	}, x
}

func TestInt8Joins(t *testing.T) {
	for cols, format := range map[int]quant.Format{64: quant.Int8, 20: quant.F32} {
		parts, want := int8Parts(cols, 0)
		f, err := openParts(t, parts)
		if err != nil {
			t.Fatal(err)
		}
		w, ok := f.Tensor("m.weight")
		if !ok || len(f.Names()) != 1 || w.Format != format {
			t.Fatalf("want m.weight in %v, have %v, %v", format, f.Names(), w.Format)
		}
		if !slices.Equal(w.Float32s(), want) {
			t.Errorf("%d columns: other values", cols)
		}
		closeFile(t, f)
	}
}

func TestInt8Refuses(t *testing.T) {
	parts, _ := int8Parts(64, 1)
	if _, err := openParts(t, parts); err == nil || !strings.Contains(err.Error(), "weight_format: want 0") {
		t.Errorf("have %v", err)
	}
	parts, _ = int8Parts(64, 0)
	parts["m.SCB"] = Float32Tensor("m.SCB", []int{2}, make([]float32, 2))
	if _, err := openParts(t, parts); err == nil || !strings.Contains(err.Error(), "as many scales") {
		t.Errorf("have %v", err)
	}
}
