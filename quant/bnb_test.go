package quant

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/internal/golden"
)

func TestGoldenCodebooks(t *testing.T) {
	nf4, fp4 := NF4Book.Entries(), FP4Book.Entries()
	books := map[string][]float32{
		"nf4": nf4[:], "fp4": fp4[:], "dynamic_signed": DynamicSigned[:], "dynamic_unsigned": DynamicUnsigned[:], "linear_signed": LinearSigned[:],
	}
	for name, want := range golden.Load(t, filepath.Join(golden.Dir(t, "quant"), "codebooks.safetensors")) {
		t.Run(name, func(t *testing.T) {
			if name == "fp8_e4m3" {
				t.Skip("no checkpoint and no optimizer uses it")
			}
			if !slices.Equal(books[name], want.F32) {
				t.Errorf("want %v, have %v", want.F32, books[name])
			}
		})
	}
}

// rounded returns the elements rounded to a dtype of torch.
func rounded(t *testing.T, x []float32, dtype string) []float32 {
	t.Helper()
	f, ok := map[string]Format{"float32": F32, "bfloat16": BF16, "float16": F16}[dtype]
	if !ok {
		t.Fatalf("dtype %q is unknown", dtype)
	}
	b := make([]byte, f.Bytes(len(x)))
	f.Quantize(b, x)
	out := make([]float32, len(x))
	f.Dequantize(out, b)
	return out
}

func book4(t *testing.T, name string) Book4 {
	t.Helper()
	for _, b := range []Book4{NF4Book, FP4Book} {
		if b.String() == name {
			return b
		}
	}
	t.Fatalf("code book %q is unknown", name)
	return 0
}

func TestGoldenFourBit(t *testing.T) {
	dir := golden.Dir(t, "quant")
	var list struct {
		Cases []struct {
			Key         string `json:"key"`
			Input       string `json:"input"`
			Book        string `json:"quant_type"`
			Block       int    `json:"blocksize"`
			Nested      bool   `json:"nested"`
			NestedBlock int    `json:"nested_blocksize"`
			Dtype       string `json:"dtype"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(dir, "bnb_4bit.json"), &list)
	values := golden.Load(t, filepath.Join(dir, "bnb_4bit.safetensors"))
	for _, c := range list.Cases {
		t.Run(c.Key, func(t *testing.T) {
			x := rounded(t, values[c.Input+"/x"].F32, c.Dtype)
			q, err := QuantizeFourBit(book4(t, c.Book), c.Block, x)
			if err != nil {
				t.Fatal(err)
			}
			// What the library stored, decoded here.
			stored := FourBit{Book: q.Book, Size: len(x), Block: c.Block, Codes: bytesOf(values[c.Key+"/packed"])}
			absmax := values[c.Key+"/absmax"]
			if c.Nested {
				stored.Nested = &Nested{
					Blockwise: Blockwise{DynamicSigned, c.NestedBlock, bytesOf(absmax), values[c.Key+"/nested_absmax"].F32},
					Offset:    values[c.Key+"/offset"].F32[0],
				}
			} else {
				stored.Absmax = absmax.F32
			}
			if err := stored.Check(); err != nil {
				t.Fatal(err)
			}
			if want, ok := values[c.Key+"/dequant"]; ok {
				have := make([]float32, len(x))
				stored.Dequantize(have)
				if have = rounded(t, have, c.Dtype); !slices.Equal(have, want.F32) {
					t.Errorf("decoding: largest difference %.3g", golden.MaxAbs(have, want.F32))
				}
			}
			if f, ok := stored.Format(); ok {
				have, want := make([]float32, len(x)), make([]float32, len(x))
				f.Dequantize(have, stored.Pack())
				if stored.Dequantize(want); !slices.Equal(have, want) {
					t.Errorf("%v: other values", f)
				}
			} else if c.Block%64 == 0 && len(x)%64 == 0 {
				t.Error("not packed")
			}
			// What is encoded here.
			if !slices.Equal(q.Codes, stored.Codes) {
				t.Error("encoding: other codes")
			}
			if !c.Nested {
				if !slices.Equal(q.Absmax, stored.Absmax) {
					t.Errorf("scales: want %v, have %v", stored.Absmax, q.Absmax)
				}
				return
			}
			// torch sums the mean in another order, and the library looks codes up in a table: scales differ by that
			// rounding, and may differ by one code.
			q = q.Nest()
			if d := math.Abs(float64(q.Nested.Offset - stored.Nested.Offset)); !(d <= 1e-6*math.Abs(float64(stored.Nested.Offset))) {
				t.Errorf("mean of scales: want %v, have %v", stored.Nested.Offset, q.Nested.Offset)
			}
			for i, code := range q.Nested.Codes {
				if d := int(code) - int(stored.Nested.Codes[i]); d < -1 || d > 1 {
					t.Errorf("scale %d: want code %d, have %d", i, stored.Nested.Codes[i], code)
				}
			}
			if d := golden.RelL2(q.Scales(), stored.Scales()); !(d <= 1e-3) {
				t.Errorf("scales: relative difference %.3g", d)
			}
		})
	}
}

func TestGoldenBlockwise(t *testing.T) {
	dir := golden.Dir(t, "quant")
	var list struct {
		Cases []struct {
			Key   string `json:"key"`
			Book  string `json:"map"`
			Block int    `json:"blocksize"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(dir, "bnb_8bit_blockwise.json"), &list)
	values := golden.Load(t, filepath.Join(dir, "bnb_8bit_blockwise.safetensors"))
	books := map[string]*Book8{"dynamic_signed": DynamicSigned, "dynamic_unsigned": DynamicUnsigned, "linear": LinearSigned}
	for _, c := range list.Cases {
		t.Run(c.Key, func(t *testing.T) {
			x, want := values[c.Key+"/x"].F32, values[c.Key+"/dequant"].F32
			stored := Blockwise{books[c.Book], c.Block, bytesOf(values[c.Key+"/codes"]), values[c.Key+"/absmax"].F32}
			have := make([]float32, len(x))
			stored.Dequantize(have)
			if !slices.Equal(have, want) {
				t.Errorf("decoding: largest difference %.3g", golden.MaxAbs(have, want))
			}
			q := QuantizeBlockwise(books[c.Book], c.Block, x)
			if !slices.Equal(q.Absmax, stored.Absmax) {
				t.Errorf("scales: want %v, have %v", stored.Absmax, q.Absmax)
			}
			q.Dequantize(have)
			for i, v := range x {
				// The library's search is not exact: this one is as near or nearer.
				scale := float64(q.Absmax[i/c.Block])
				mine, its := math.Abs(float64(have[i])-float64(v)), math.Abs(float64(want[i])-float64(v))
				if mine > its+1e-6*scale || its > mine+3e-5*scale {
					t.Errorf("element %d, %v: want %v, have %v", i, v, want[i], have[i])
				}
			}
		})
	}
}

func TestGoldenInt8Rows(t *testing.T) {
	dir := golden.Dir(t, "quant")
	var list struct {
		Cases []struct {
			Key string `json:"key"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(dir, "bnb_int8.json"), &list)
	values := golden.Load(t, filepath.Join(dir, "bnb_int8.safetensors"))
	for _, c := range list.Cases {
		t.Run(c.Key, func(t *testing.T) {
			if key, ok := strings.CutPrefix(c.Key, "linear/"); ok {
				_, dtype, _ := strings.Cut(key, "_")
				testInt8Linear(t, values, values[c.Key+"/y"].F32, dtype)
				return
			}
			parts := strings.Split(c.Key, "_")
			n := len(parts)
			x := values[strings.Join(parts[:n-2], "_")+"/x"]
			threshold := map[string]float32{"t0": 0, "t6": 6}[parts[n-1]]
			q := QuantizeInt8Rows(rounded(t, x.F32, parts[n-2]), x.Shape[1], threshold)
			wantInt8Rows(t, q, values[c.Key+"/q"], values[c.Key+"/stats"])
			if want := values[c.Key+"/outlier_cols"].Ints(); !slices.Equal(q.Outliers, want) {
				t.Errorf("outliers: want %v, have %v", want, q.Outliers)
			}
		})
	}
	weight := values["linear/weight"]
	wantInt8Rows(t, QuantizeInt8Rows(rounded(t, weight.F32, "float16"), weight.Shape[1], 0), values["linear/weight_q"], values["linear/weight_scb"])
}

func wantInt8Rows(t *testing.T, q Int8Rows, codes, stats golden.Tensor) {
	t.Helper()
	bad := 0
	for i, want := range codes.I32 {
		if int32(int8(q.Codes[i])) != want {
			bad++
		}
	}
	if bad > 0 || len(q.Codes) != len(codes.I32) {
		t.Errorf("%d of %d codes differ from %d", bad, len(q.Codes), len(codes.I32))
	}
	if !slices.Equal(q.Absmax, stats.F32) {
		t.Errorf("scales: want %v, have %v", stats.F32, q.Absmax)
	}
}

// testInt8Linear computes the layer's output from the decoded weight.
func testInt8Linear(t *testing.T, values map[string]golden.Tensor, want []float32, dtype string) {
	t.Helper()
	weight, x, bias := values["linear/weight"], values["linear/x"], values["linear/bias"]
	in, out := weight.Shape[1], weight.Shape[0]
	w := make([]float32, len(weight.F32))
	QuantizeInt8Rows(rounded(t, weight.F32, "float16"), in, 0).Dequantize(w)
	xs, bs := rounded(t, x.F32, dtype), rounded(t, bias.F32, dtype)
	tolerance := map[string]float64{"float32": 2e-6, "float16": 4e-3, "bfloat16": 7e-2}[dtype]
	for i, y := range want {
		row, o := xs[i/out*in:][:in], i%out
		sum := float64(bs[o])
		for k, v := range row {
			sum += float64(v) * float64(w[o*in+k])
		}
		if d := math.Abs(sum - float64(y)); !(d <= tolerance*max(1, math.Abs(sum))) {
			t.Errorf("output %d: want %v, have %v", i, y, sum)
		}
	}
}

// TestFourBitFormats compares the formats with the codec of the same block.
func TestFourBitFormats(t *testing.T) {
	x := make([]float32, 4*fourBitBlock)
	for i := range x {
		x[i] = float32(math.Sin(float64(i*i))) * float32(i/fourBitBlock) // the first block is zero
	}
	for f, book := range map[Format]Book4{NF4: NF4Book, FP4: FP4Book} {
		q, err := QuantizeFourBit(book, fourBitBlock, x)
		if err != nil {
			t.Fatal(err)
		}
		packed, ok := q.Format()
		have := make([]byte, f.Bytes(len(x)))
		if f.Quantize(have, x); !ok || packed != f || !slices.Equal(have, q.Pack()) {
			t.Errorf("%v: other bytes than the codec's", f)
		}
		// What was decoded is encoded to the same bytes.
		y := make([]float32, len(x))
		f.Dequantize(y, have)
		again := make([]byte, len(have))
		if f.Quantize(again, y); !slices.Equal(again, have) {
			t.Errorf("%v: not idempotent", f)
		}
	}
	for _, block := range []int{-64, 0, 16, 48, 8192} {
		if _, err := QuantizeFourBit(NF4Book, block, x); err == nil {
			t.Errorf("block %d was accepted", block)
		}
	}
}

func TestFourBitCheck(t *testing.T) {
	good, err := QuantizeFourBit(NF4Book, 64, make([]float32, 100))
	if err != nil {
		t.Fatal(err)
	}
	nested := good.Nest()
	if err := nested.Nest().Check(); err != nil {
		t.Error(err)
	}
	for name, damage := range map[string]func(q *FourBit){
		"size":          func(q *FourBit) { q.Size = 99999 },
		"negative size": func(q *FourBit) { q.Size = -1 },
		"block":         func(q *FourBit) { q.Block = 0 },
		"codes":         func(q *FourBit) { q.Codes = q.Codes[1:] },
		"scales":        func(q *FourBit) { q.Absmax, q.Nested = nil, nil },
		"nested codes":  func(q *FourBit) { q.Nested = &Nested{Blockwise: Blockwise{Block: 256, Absmax: []float32{1}}} },
		"nested block": func(q *FourBit) {
			q.Nested = &Nested{Blockwise: Blockwise{Codes: make([]byte, 2), Absmax: []float32{1}}}
		},
	} {
		q := good
		if damage(&q); q.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestBook8FindsTheNearest compares the search with all entries.
func TestBook8FindsTheNearest(t *testing.T) {
	for name, book := range map[string]*Book8{"signed": DynamicSigned, "unsigned": DynamicUnsigned, "linear": LinearSigned} {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			x := rapid.OneOf(rapid.Float32Range(-1.5, 1.5), rapid.Float32Range(-1e-5, 1e-5), rapid.SampledFrom(book[:])).Draw(t, "x")
			distance := func(code int) float64 { return math.Abs(float64(book[code]) - float64(x)) }
			have := int(book.code(x))
			for code := range book {
				if distance(code) < distance(have) {
					t.Fatalf("%v: code %d is nearer than %d", x, code, have)
				}
			}
		}))
	}
}
