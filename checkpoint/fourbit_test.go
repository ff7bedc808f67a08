package checkpoint

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/internal/golden"
	"tunesmith/quant"
)

// TestGoldenFourBit opens the 4-bit checkpoints: the tensors are those of the model that was quantised, and the one
// whose values are listed has them exactly.
func TestGoldenFourBit(t *testing.T) {
	root := golden.Dir(t, "quant")
	original, err := Open(filepath.Join(root, "tiny_llama_fp32"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeFile(t, original)
	exact := golden.Load(t, filepath.Join(root, "ckpt_logits_exact.safetensors"))
	compared := 0
	for _, dir := range golden.Cases(t, root, "model.safetensors") {
		name, ok := strings.CutPrefix(dir, "ckpt_")
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f, err := Open(filepath.Join(root, dir))
			if err != nil {
				t.Fatal(err)
			}
			defer closeFile(t, f)
			if have, want := slices.Sorted(slices.Values(f.Names())), slices.Sorted(slices.Values(original.Names())); !slices.Equal(have, want) {
				t.Fatalf("want tensors %v, have %v", want, have)
			}
			for _, tensor := range f.Names() {
				have, _ := f.Tensor(tensor)
				want, _ := original.Tensor(tensor)
				if !slices.Equal(have.Shape, want.Shape) {
					t.Errorf("%s: want shape %v, have %v", tensor, want.Shape, have.Shape)
				}
				if d := golden.RelL2(have.Float32s(), want.Float32s()); !(d < 0.15) {
					t.Errorf("%s in %v: relative error %.3g", tensor, have.Format, d)
				}
			}
			want, ok := exact[name+"/q_proj0_dequant"]
			if !ok {
				t.Fatalf("the golden lists no values of %s", name)
			}
			x, _ := f.Tensor("model.layers.0.self_attn.q_proj.weight")
			if have := x.Float32s(); !slices.Equal(have, want.F32) {
				t.Errorf("decoded values differ by up to %.3g", golden.MaxAbs(have, want.F32))
			}
			compared++
		})
	}
	if compared == 0 {
		t.Error("no checkpoint was compared")
	}
}

// fourBitParts stores values as bitsandbytes does.
func fourBitParts(t *testing.T, q quant.FourBit, dtype string, shape ...int) map[string]Tensor {
	t.Helper()
	state := map[string]any{"quant_type": q.Book.String(), "blocksize": q.Block, "dtype": dtype, "shape": shape}
	bytes := func(b []byte) Tensor { return Tensor{Shape: []int{len(b)}, Format: quant.U8, Data: b} }
	floats := func(x []float32) Tensor { return Float32Tensor("", []int{len(x)}, x) }
	entries := q.Book.Entries()
	parts := map[string]Tensor{"w": bytes(q.Codes), "w.quant_map": floats(entries[:])}
	if q.Nested == nil {
		parts["w.absmax"] = floats(q.Absmax)
	} else {
		state["nested_blocksize"], state["nested_offset"] = q.Nested.Block, q.Nested.Offset
		parts["w.absmax"] = bytes(q.Nested.Codes)
		parts["w.nested_absmax"] = floats(q.Nested.Absmax)
		parts["w.nested_quant_map"] = floats(q.Nested.Book[:])
	}
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	parts["w"+stateMark+q.Book.String()] = bytes(text)
	return parts
}

func openParts(t *testing.T, parts map[string]Tensor) (File, error) {
	t.Helper()
	var tensors []Tensor
	for name, x := range parts {
		x.Name = name
		tensors = append(tensors, x)
	}
	path := filepath.Join(t.TempDir(), "w.safetensors")
	if err := WriteSafetensors(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return Open(path)
}

func TestFourBitJoins(t *testing.T) {
	for _, c := range []struct {
		block  int
		dtype  string
		shape  []int
		nested bool
		want   quant.Format
	}{
		{64, "float32", []int{3, 128}, false, quant.NF4},
		{64, "float32", []int{3, 128}, true, quant.NF4},
		{256, "float32", []int{4, 64}, true, quant.NF4},
		{32, "float32", []int{4, 64}, false, quant.F32}, // blocks shorter than the format's
		{64, "float32", []int{64, 5}, false, quant.F32}, // blocks run on into the next row
		{64, "float32", []int{7, 9}, true, quant.F32},   // an odd number of elements
		{64, "bfloat16", []int{3, 128}, false, quant.NF4BF16},
		{64, "float16", []int{3, 128}, true, quant.NF4F16},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			n := 1
			for _, d := range c.shape {
				n *= d
			}
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(math.Sin(float64(3 * i)))
			}
			q, err := quant.QuantizeFourBit(quant.NF4Book, c.block, x)
			if err != nil {
				t.Fatal(err)
			}
			if c.nested {
				q = q.Nest()
			}
			f, err := openParts(t, fourBitParts(t, q, c.dtype, c.shape...))
			if err != nil {
				t.Fatal(err)
			}
			defer closeFile(t, f)
			w, ok := f.Tensor("w")
			if !ok || len(f.Names()) != 1 || w.Format != c.want || !slices.Equal(w.Shape, c.shape) {
				t.Fatalf("want w of %v in %v, have %v of %v in %v", c.shape, c.want, f.Names(), w.Shape, w.Format)
			}
			want := make([]float32, n)
			q.Dequantize(want)
			if f := fourBitFormats[c.dtype]; f != quant.F32 {
				b := make([]byte, 2*n)
				f.Quantize(b, want)
				f.Dequantize(want, b)
			}
			if !slices.Equal(w.Float32s(), want) {
				t.Error("other values")
			}
		})
	}
}

func TestFourBitRefuses(t *testing.T) {
	q, err := quant.QuantizeFourBit(quant.NF4Book, 64, make([]float32, 256))
	if err != nil {
		t.Fatal(err)
	}
	good := fourBitParts(t, q.Nest(), "float32", 2, 128)
	text := func(s string) Tensor { return Tensor{Shape: []int{len(s)}, Format: quant.U8, Data: []byte(s)} }
	state := "w" + stateMark + "nf4"
	stateOf := func(old, new string) Tensor { return text(strings.Replace(string(good[state].Data), old, new, 1)) }
	for want, change := range map[string]map[string]Tensor{
		"quant_state: invalid":         {state: text("x")},
		"quant_type":                   {state: stateOf("nf4", "int4")},
		"does not fit 128 bytes":       {state: stateOf("[2,128]", "[2,129]")},
		"shape [0 128]":                {state: stateOf("[2,128]", "[0,128]")},
		"shape [-2 -128]":              {state: stateOf("[2,128]", "[-2,-128]")},
		"shape [9223372036854775807 2": {state: stateOf("[2,128]", "[9223372036854775807,2]")},
		"1 elements take 1 bytes":      {state: stateOf("[2,128]", "[]"), "w": text("")},
		"in blocks of 0":               {state: stateOf(`"blocksize":64`, `"blocksize":0`)},
		"in blocks of -1":              {state: stateOf(`"nested_blocksize":256`, `"nested_blocksize":-1`)},
		`have "int8"`:                  {state: stateOf("float32", "int8")},
		"want codes in U8, have F32":   {"w": Float32Tensor("", []int{32}, make([]float32, 32))},
		"want the code book":           {"w.quant_map": Float32Tensor("", []int{16}, make([]float32, 16))},
		"have U8 and 2":                {"w.nested_quant_map": Float32Tensor("", []int{2}, make([]float32, 2))},
		"scales of their own":          {"w.nested_absmax": Float32Tensor("", []int{2}, make([]float32, 2))},
		"w.quant_map is missing":       {"w.quant_map": {}},
		"w.absmax is missing":          {"w.absmax": {}},
		"w.nested_absmax is missing":   {"w.nested_absmax": {}},
		"w is missing":                 {"w": {}},
	} {
		parts := maps.Clone(good)
		for name, x := range change {
			if parts[name] = x; x.Data == nil {
				delete(parts, name)
			}
		}
		if f, err := openParts(t, parts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v, %v", want, f, err)
		}
	}
}

func FuzzFourBit(f *testing.F) {
	q, err := quant.QuantizeFourBit(quant.NF4Book, 64, make([]float32, 256))
	if err != nil {
		f.Fatal(err)
	}
	entries := quant.NF4Book.Entries()
	f.Add([]byte(`{"quant_type":"nf4","blocksize":64,"dtype":"float32","shape":[2,128]}`), q.Codes, uint8(4))
	f.Add([]byte(`{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[4,64],"nested_blocksize":256,"nested_offset":0.5}`), q.Codes, uint8(1))
	f.Fuzz(func(t *testing.T, state, codes []byte, scales uint8) {
		bytes := func(b []byte) Tensor { return Tensor{Shape: []int{len(b)}, Format: quant.U8, Data: b} }
		floats := func(n int) Tensor { return Float32Tensor("", []int{n}, make([]float32, n)) }
		file := &file{
			names: []string{"w", "w.quant_map", "w.absmax", "w.nested_absmax", "w.nested_quant_map", "w" + stateMark + "nf4"},
			tensors: map[string]Tensor{
				"w": bytes(codes), "w.quant_map": Float32Tensor("", []int{16}, entries[:]), "w.absmax": bytes(make([]byte, scales)),
				"w.nested_absmax": floats(1), "w.nested_quant_map": floats(256), "w" + stateMark + "nf4": bytes(state),
			},
		}
		if file.joinFourBit() == nil {
			touch(file)
		}
	})
}
