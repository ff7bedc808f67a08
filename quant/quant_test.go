package quant

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/internal/golden"
)

// laterTypes are the ggml types of the goldens that are not read, and why. It only shrinks.
var laterTypes = map[string]string{
	"Q1_0": "no reference decodes it",
	"Q8_1": "intermediate result, never in files", "Q8_K": "intermediate result, never in files",
}

func TestGoldenGGUFCodecs(t *testing.T) {
	dir := golden.Dir(t, "quant")
	var list struct {
		Cases []struct {
			Type  string `json:"type"`
			Block [2]int `json:"block"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(dir, "gguf_codecs.json"), &list)
	values := golden.Load(t, filepath.Join(dir, "gguf_codecs.safetensors"))
	for _, c := range list.Cases {
		t.Run(c.Type, func(t *testing.T) {
			f, err := Parse(c.Type)
			if err != nil {
				if why, ok := laterTypes[c.Type]; ok {
					t.Skip(why)
				}
				t.Fatal(err)
			}
			if f.Block() != c.Block[0] || f.Bytes(f.Block()) != c.Block[1] {
				t.Fatalf("layout: want %v, have %d elements in %d bytes", c.Block, f.Block(), f.Bytes(f.Block()))
			}
			compared := 0
			for _, kind := range [][2]string{
				{"bytes_gguf_py", "dequant"}, {"bytes_ggml", "dequant"}, {"random_blocks", "random_blocks_dequant"},
			} {
				src, ok := values[c.Type+"/"+kind[0]]
				ref, also := values[c.Type+"/"+kind[1]]
				if !ok || !also {
					continue
				}
				compared++
				wantDecoded(t, f, kind[0], bytesOf(src), ref.F32)
				if kind[1] != "dequant" || !f.Writable() {
					continue
				}
				got := make([]byte, f.Bytes(len(values["x"].F32)))
				f.Quantize(got, values["x"].F32)
				if string(got) != string(bytesOf(src)) {
					t.Errorf("encoding differs from %s", kind[0])
				}
			}
			if compared == 0 {
				t.Errorf("the golden holds no bytes of %s", c.Type)
			}
		})
	}
}

func TestGoldenGGUFRealFile(t *testing.T) {
	dir := golden.Dir(t, "quant")
	var list struct {
		Tensors []struct {
			Name string `json:"name"`
			Type string `json:"type"`
		} `json:"tensors"`
	}
	golden.JSON(t, filepath.Join(dir, "gguf_smollm2_blocks.json"), &list)
	values := golden.Load(t, filepath.Join(dir, "gguf_smollm2_blocks.safetensors"))
	for _, c := range list.Tensors {
		t.Run(c.Name, func(t *testing.T) {
			f, err := Parse(c.Type)
			if err != nil {
				t.Fatal(err)
			}
			raw := values[c.Name+"/raw"]
			src := bytesOf(raw)
			if raw.F32 != nil {
				src = make([]byte, 4*len(raw.F32))
				F32.Quantize(src, raw.F32)
			}
			wantDecoded(t, f, "raw", src, values[c.Name+"/dequant"].F32)
		})
	}
}

func wantDecoded(t *testing.T, f Format, kind string, src []byte, want []float32) {
	t.Helper()
	if len(src) != f.Bytes(len(want)) {
		t.Fatalf("%s: want %d bytes, have %d", kind, f.Bytes(len(want)), len(src))
	}
	got := make([]float32, len(want))
	f.Dequantize(got, src)
	if d := golden.RelL2(got, want); !(d <= 1e-7) {
		t.Errorf("decoding of %s: relative error %.3g", kind, d)
	}
}

func bytesOf(t golden.Tensor) []byte {
	out := make([]byte, len(t.I32))
	for i, v := range t.I32 {
		out[i] = byte(v)
	}
	return out
}

// TestMaxError checks the stated bound on blocks of all kinds: one-sided, with outliers, small and large.
func TestMaxError(t *testing.T) {
	for _, f := range Formats() {
		if !f.Writable() {
			continue
		}
		t.Run(f.String(), rapid.MakeCheck(func(t *rapid.T) {
			scale := rapid.Float32Range(0.5, 60000).Draw(t, "scale")
			x := rapid.SliceOfN(rapid.Float32Range(-1, 1), f.Block(), f.Block()).Draw(t, "x")
			x[rapid.IntRange(0, len(x)-1).Draw(t, "at")] = rapid.SampledFrom([]float32{-1, 1}).Draw(t, "sign")
			if rapid.Bool().Draw(t, "one-sided") {
				for i := range x {
					x[i] = float32(math.Abs(float64(x[i])))
				}
			}
			var most float64
			for i := range x {
				x[i] *= scale
				most = max(most, math.Abs(float64(x[i])))
			}
			b := make([]byte, f.Bytes(len(x)))
			f.Quantize(b, x)
			y := make([]float32, len(x))
			f.Dequantize(y, b)
			for i := range x {
				if e := math.Abs(float64(x[i]) - float64(y[i])); !(e <= f.MaxError()*most*(1+1e-6)) {
					t.Fatalf("element %d: %v becomes %v, error %.5f of the largest, bound %.5f", i, x[i], y[i], e/most, f.MaxError())
				}
			}
		}))
	}
}

func TestQuantizeIsIdempotentOnZeros(t *testing.T) {
	for _, f := range Formats() {
		if !f.Writable() {
			continue
		}
		x := make([]float32, 2*f.Block())
		b := make([]byte, f.Bytes(len(x)))
		f.Quantize(b, x)
		for i := range x {
			x[i] = 1
		}
		f.Dequantize(x, b)
		for i, v := range x {
			if v != 0 {
				t.Errorf("%v: zero %d becomes %v", f, i, v)
			}
		}
	}
}

func TestParse(t *testing.T) {
	for _, f := range Formats() {
		if got, err := Parse(f.String()); err != nil || got != f {
			t.Errorf("Parse(%q) = %v, %v", f, got, err)
		}
	}
	if _, err := Parse("Q4_2"); err == nil || !strings.Contains(err.Error(), "Q4_") {
		t.Errorf("want a hint, have %v", err)
	}
	if f := Format(200); f.Known() || f.String() != "format 200" {
		t.Errorf("format 200: have %v", f)
	}
}

// TestMisuse: lengths that do not fit together are mistakes of the program, not of a file.
func TestMisuse(t *testing.T) {
	for name, call := range map[string]func(){
		"half a block":  func() { Q8_0.Dequantize(make([]float32, 16), make([]byte, 34)) },
		"short source":  func() { Q8_0.Dequantize(make([]float32, 32), make([]byte, 33)) },
		"short target":  func() { F16.Quantize(make([]byte, 3), make([]float32, 2)) },
		"only readable": func() { Q6_K.Quantize(make([]byte, 210), make([]float32, 256)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

func BenchmarkDequantize(b *testing.B) {
	for _, f := range Formats() {
		b.Run(f.String(), func(b *testing.B) {
			dst := make([]float32, 1<<15)
			src := make([]byte, f.Bytes(len(dst)))
			for i := range src {
				src[i] = byte(i*7 + i>>3)
			}
			for b.Loop() {
				f.Dequantize(dst, src)
			}
			b.ReportMetric(float64(len(dst))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Melem/s")
		})
	}
}

func BenchmarkQuantize(b *testing.B) {
	for _, f := range Formats() {
		if !f.Writable() {
			continue
		}
		b.Run(f.String(), func(b *testing.B) {
			src := make([]float32, 1<<15)
			for i := range src {
				src[i] = float32(math.Sin(float64(i)))
			}
			dst := make([]byte, f.Bytes(len(src)))
			for b.Loop() {
				f.Quantize(dst, src)
			}
			b.ReportMetric(float64(len(src))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Melem/s")
		})
	}
}

func ExampleFormat_Quantize() {
	x := make([]float32, Q8_0.Block())
	for i := range x {
		x[i] = float32(i) / 4
	}
	stored := make([]byte, Q8_0.Bytes(len(x)))
	Q8_0.Quantize(stored, x)
	Q8_0.Dequantize(x, stored)
	fmt.Printf("%d bytes, last value %.3f, error at most %.2f %%\n", len(stored), x[31], 100*Q8_0.MaxError())
	// Output: 34 bytes, last value 7.751, error at most 0.44 %
}
