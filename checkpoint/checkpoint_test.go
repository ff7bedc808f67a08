package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
	"tunesmith/quant"
)

func TestGoldenMalformed(t *testing.T) {
	dir := filepath.Join(golden.Dir(t, "quant"), "malformed")
	var list struct {
		Cases []struct {
			File   string `json:"file"`
			Valid  bool   `json:"valid"`
			Reason string `json:"reason"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(dir, "cases.json"), &list)
	if len(list.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range list.Cases {
		t.Run(c.File, func(t *testing.T) {
			f, err := Open(filepath.Join(dir, c.File))
			if err == nil {
				f.Close()
			}
			if (err == nil) != c.Valid {
				t.Errorf("%s: want valid %v, have %v", c.Reason, c.Valid, err)
			}
		})
	}
}

func TestGoldenFiles(t *testing.T) {
	root := golden.Dir(t, "models")
	for _, name := range golden.Cases(t, root, "model.safetensors.index.json") {
		t.Run(name, func(t *testing.T) {
			f, err := Open(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			shards, _ := filepath.Glob(filepath.Join(root, name, "model-*.safetensors"))
			n := 0
			for _, s := range shards {
				for tensor, want := range golden.Load(t, s) {
					got, ok := f.Tensor(tensor)
					if !ok || !slices.Equal(got.Shape, want.Shape) || !slices.Equal(got.Float32s(), want.F32) {
						t.Errorf("tensor %q differs", tensor)
					}
					n++
				}
			}
			if n != len(f.Names()) {
				t.Errorf("want %d tensors, have %d", n, len(f.Names()))
			}
		})
	}
}

func tensors(t *testing.T) []Tensor {
	t.Helper()
	var out []Tensor
	for i, f := range []quant.Format{quant.F32, quant.F16, quant.BF16} {
		x, err := FromFloat32s(f.String(), []int{3, i + 1}, []float32{1, -2, 3, 4, 5, 6, 7, 8, 9}[:3*(i+1)], f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

func TestSafetensorsRoundTrip(t *testing.T) {
	want := tensors(t)
	var b bytes.Buffer
	if err := EncodeSafetensors(&b, want, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	f, err := parseSafetensors(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	same(t, f, want)
	if f.meta["format"] != "pt" {
		t.Errorf("metadata: have %v", f.meta)
	}
}

func TestGGUFRoundTrip(t *testing.T) {
	want := tensors(t)
	meta := []KV{{"general.architecture", "llama"}, {"a.u32", uint32(7)}, {"a.f", float32(0.5)}, {"a.yes", true},
		{"a.texts", []string{"x", "中"}}, {"a.ints", []int32{-1, 2}}, {"a.i64", int64(-9)}}
	var b bytes.Buffer
	if err := EncodeGGUF(&b, meta, want); err != nil {
		t.Fatal(err)
	}
	f, err := parseGGUF(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	same(t, f, want)
	for _, kv := range meta {
		if d := cmp.Diff(kv.Value, f.meta[kv.Key]); d != "" {
			t.Errorf("%s: %s", kv.Key, d)
		}
	}
}

func same(t *testing.T, f *file, want []Tensor) {
	t.Helper()
	for _, w := range want {
		got, ok := f.Tensor(w.Name)
		if !ok || !slices.Equal(got.Shape, w.Shape) || got.Format != w.Format || !bytes.Equal(got.Data, w.Data) {
			t.Errorf("tensor %q: want %v %v, have %v %v", w.Name, w.Format, w.Shape, got.Format, got.Shape)
		}
	}
}

func TestPicklesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pytorch_model.bin")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "safetensors") {
		t.Errorf("have %v", err)
	}
}

func seeds(f *testing.F) []Tensor {
	x, err := FromFloat32s("a", []int{2, 2}, []float32{1, 2, 3, 4}, quant.F32)
	if err != nil {
		f.Fatal(err)
	}
	return []Tensor{x}
}

func FuzzSafetensors(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeSafetensors(&b, seeds(f), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) { touch(parseSafetensors(in)) })
}

func FuzzGGUF(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeGGUF(&b, []KV{{"a", []string{"x"}}, {"b", uint32(1)}}, seeds(f)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) { touch(parseGGUF(in)) })
}

// touch reads everything of a file that a parser accepted.
func touch(f *file, err error) {
	if err != nil {
		return
	}
	for _, name := range f.Names() {
		if t, _ := f.Tensor(name); t.Format.Known() {
			t.Float32s()
		}
	}
}
