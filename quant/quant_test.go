package quant

import (
	"math"
	"path/filepath"
	"testing"

	"tunesmith/internal/golden"
)

func TestFloatsRoundTrip(t *testing.T) {
	for h := range 1 << 16 {
		x := FromF16(uint16(h))
		if x != x {
			if y := FromF16(ToF16(x)); y == y {
				t.Fatalf("F16 %#x: NaN becomes %v", h, y)
			}
		} else if got := ToF16(x); got != uint16(h) {
			t.Fatalf("F16 %#x: have %#x", h, got)
		}
		b := FromBF16(uint16(h))
		if b != b {
			if y := FromBF16(ToBF16(b)); y == y {
				t.Fatalf("BF16 %#x: NaN becomes %v", h, y)
			}
		} else if got := ToBF16(b); got != uint16(h) {
			t.Fatalf("BF16 %#x: have %#x", h, got)
		}
	}
}

// TestF16RoundsToNearest compares the rounding with a search among neighbours.
func TestF16RoundsToNearest(t *testing.T) {
	for h := range 0x7bff {
		lo, hi := float64(FromF16(uint16(h))), float64(FromF16(uint16(h+1)))
		mid := float32((lo + hi) / 2)
		want := uint16(h + h&1) // ties go to the even one
		if got := ToF16(mid); got != want {
			t.Fatalf("middle of %#x and the next: want %#x, have %#x", h, want, got)
		}
		if got := ToF16(math.Nextafter32(mid, 0)); got != uint16(h) {
			t.Fatalf("below the middle of %#x: have %#x", h, got)
		}
		if got := ToF16(math.Nextafter32(mid, float32(math.Inf(1)))); got != uint16(h+1) {
			t.Fatalf("above the middle of %#x: have %#x", h, got)
		}
	}
	if got := ToF16(65520); got != 0x7c00 {
		t.Errorf("65520: want infinity, have %#x", got)
	}
}

// laterTypes are the ggml types of the goldens that are not read. It only shrinks.
var laterTypes = map[string]bool{
	"Q8_1": true, "Q8_K": true, "IQ2_XXS": true, "IQ2_XS": true, "IQ3_XXS": true, "IQ1_S": true, "IQ4_NL": true, "IQ3_S": true,
	"IQ2_S": true, "IQ4_XS": true, "IQ1_M": true, "TQ1_0": true, "TQ2_0": true, "MXFP4": true, "NVFP4": true, "Q1_0": true,
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
				if laterTypes[c.Type] {
					t.Skip("type to come")
				}
				t.Fatal(err)
			}
			if f.Block() != c.Block[0] || f.Bytes(f.Block()) != c.Block[1] {
				t.Fatalf("layout: want %v, have %d elements in %d bytes", c.Block, f.Block(), f.Bytes(f.Block()))
			}
			check := func(kind, bytes, want string) {
				src, ok := values[c.Type+"/"+bytes]
				if !ok {
					return
				}
				ref := values[c.Type+"/"+want]
				if src.I32 == nil || ref.F32 == nil {
					return
				}
				got := make([]float32, len(ref.F32))
				f.Dequantize(got, raw(src))
				if d := golden.RelL2(got, ref.F32); !(d <= 1e-6) {
					t.Errorf("%s: relative error %.2g", kind, d)
				}
			}
			check("decoding", "bytes_gguf_py", "dequant")
			check("decoding of ggml's bytes", "bytes_ggml", "dequant")
			check("decoding of random blocks", "random_blocks", "random_blocks_dequant")
			want, ok := values[c.Type+"/bytes_gguf_py"]
			if x := values["x"]; ok && f.Writable() {
				got := make([]byte, f.Bytes(len(x.F32)))
				f.Quantize(got, x.F32)
				if string(got) != string(raw(want)) {
					t.Errorf("encoding differs from gguf-py's bytes")
				}
			}
		})
	}
}

func raw(t golden.Tensor) []byte {
	out := make([]byte, len(t.I32))
	for i, v := range t.I32 {
		out[i] = byte(v)
	}
	return out
}

func BenchmarkDequantize(b *testing.B) {
	for _, f := range []Format{F16, BF16, Q8_0, Q4_1, Q4_K} {
		b.Run(f.String(), func(b *testing.B) {
			dst := make([]float32, 1<<16)
			src := make([]byte, f.Bytes(len(dst)))
			for b.Loop() {
				f.Dequantize(dst, src)
			}
			b.ReportMetric(float64(len(dst))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Melem/s")
		})
	}
}
