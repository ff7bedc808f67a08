package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
			if (err == nil) != c.Valid {
				t.Fatalf("%s: want valid %v, have error %v", c.Reason, c.Valid, err)
			}
			if err != nil {
				t.Log(err)
				return
			}
			touch(f)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGoldenSafetensors reads every safetensors file of the goldens with this package and with the reader of package
// golden, and writes it again: the bytes are those of the library that wrote it.
func TestGoldenSafetensors(t *testing.T) {
	root := golden.Dir(t, ".")
	for _, path := range goldenFiles(t, root, ".safetensors") {
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			f, err := mapped(path, parseSafetensors) // as Open, but for the joining of 4-bit weights
			if err != nil {
				t.Fatal(err)
			}
			defer closeFile(t, f)
			want := golden.Load(t, path)
			if len(want) != len(f.Names()) {
				t.Errorf("want %d tensors, have %d", len(want), len(f.Names()))
			}
			var tensors []Tensor
			for _, name := range f.Names() {
				x, _ := f.Tensor(name)
				wantTensor(t, x, want[name])
				tensors = append(tensors, x)
			}
			meta := map[string]string{}
			for k, v := range f.Metadata() {
				meta[k] = v.(string)
			}
			var b bytes.Buffer
			if err := EncodeSafetensors(&b, tensors, meta); err != nil {
				t.Fatal(err)
			}
			original, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// The library writes several entries of metadata in random order.
			if len(meta) < 2 && !bytes.Equal(b.Bytes(), original) {
				t.Error("written again, the file has other bytes")
			}
		})
	}
}

// TestGoldenShards opens the directories that hold an index.
func TestGoldenShards(t *testing.T) {
	root := golden.Dir(t, ".")
	for _, path := range goldenFiles(t, root, ".safetensors.index.json") {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			f, err := Open(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			defer closeFile(t, f)
			n := 0
			for _, shard := range goldenFiles(t, filepath.Dir(path), ".safetensors") {
				if !strings.HasPrefix(filepath.Base(shard), "model-") {
					continue
				}
				for name, want := range golden.Load(t, shard) {
					x, ok := f.Tensor(name)
					if !ok {
						t.Errorf("tensor %q is missing", name)
						continue
					}
					wantTensor(t, x, want)
					n++
				}
			}
			if n == 0 || n != len(f.Names()) {
				t.Errorf("want %d tensors, have %d", n, len(f.Names()))
			}
		})
	}
}

// TestGoldenGGUF reads one model stored in several formats: each stays within its error of the F32 one.
func TestGoldenGGUF(t *testing.T) {
	files := goldenFiles(t, golden.Dir(t, "quant"), ".gguf")
	i := slices.IndexFunc(files, func(path string) bool { return filepath.Base(path) == "tiny_f32.gguf" })
	if i < 0 {
		t.Fatal("the golden holds no tiny_f32.gguf")
	}
	exact, err := Open(files[i])
	if err != nil {
		t.Fatal(err)
	}
	defer closeFile(t, exact)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer closeFile(t, f)
			if !slices.Equal(f.Names(), exact.Names()) {
				t.Fatalf("want tensors %v, have %v", exact.Names(), f.Names())
			}
			for _, name := range f.Names() {
				x, _ := f.Tensor(name)
				ref, _ := exact.Tensor(name)
				if !slices.Equal(x.Shape, ref.Shape) {
					t.Errorf("%s: want shape %v, have %v", name, ref.Shape, x.Shape)
				}
				have, want := x.Float32s(), ref.Float32s()
				for at := 0; at < len(want); at += x.Format.Block() {
					have, want := have[at:][:x.Format.Block()], want[at:][:x.Format.Block()]
					var largest float64
					for _, v := range want {
						largest = max(largest, math.Abs(float64(v)))
					}
					if d := golden.MaxAbs(have, want); !(d <= x.Format.MaxError()*largest*(1+1e-6)+1e-7) {
						t.Fatalf("%s: block at %d in %v differs by %.3g, largest %.3g", name, at, x.Format, d, largest)
					}
				}
			}
			meta := f.Metadata()
			if arch, ok := meta["general.architecture"].(string); !ok || arch != "llama" {
				t.Errorf("architecture: have %v", meta["general.architecture"])
			}
			if tokens, ok := meta["tokenizer.ggml.tokens"].([]string); !ok || len(tokens) == 0 {
				t.Errorf("tokens: have %T", meta["tokenizer.ggml.tokens"])
			}
		})
	}
}

// goldenFiles lists the files below root whose names end so, but for those that are malformed on purpose.
func goldenFiles(t *testing.T, root, suffix string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if e.IsDir() && e.Name() == "malformed" {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, suffix) {
			out = append(out, path)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("%s: %d files *%s, %v", root, len(out), suffix, err)
	}
	return out
}

func wantTensor(t *testing.T, have Tensor, want golden.Tensor) {
	t.Helper()
	if !slices.Equal(have.Shape, want.Shape) {
		t.Errorf("tensor %q: want shape %v, have %v", have.Name, want.Shape, have.Shape)
	}
	values := make([]float32, have.Size())
	if err := have.ReadInto(values); err != nil {
		t.Error(err)
	}
	for i, v := range values {
		w := float32(0)
		if want.F32 != nil {
			w = want.F32[i]
		} else {
			w = float32(want.I32[i])
		}
		if math.Float32bits(v) != math.Float32bits(w) {
			t.Fatalf("tensor %q: element %d: want %v, have %v", have.Name, i, w, v)
		}
	}
}

func closeFile(t *testing.T, f File) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// someTensors returns a tensor of each format that can be written, and of plain integers.
func someTensors(t testing.TB) []Tensor {
	t.Helper()
	tensors := []Tensor{
		{Name: "i64", Shape: []int{2}, Format: quant.I64, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255, 255, 255, 255, 127}},
		{Name: "i8", Shape: []int{1, 3}, Format: quant.I8, Data: []byte{0, 1, 255}},
	}
	values := make([]float32, 512)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	for _, f := range quant.Formats() {
		if !f.Writable() {
			continue
		}
		x, err := FromFloat32s("x."+f.String(), []int{2, 256}, values, f)
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, x)
	}
	return tensors
}

// plain returns the tensors that safetensors can hold.
func plain(tensors []Tensor) []Tensor {
	return slices.DeleteFunc(slices.Clone(tensors), func(t Tensor) bool { return t.Format.Block() > 1 })
}

// ggml returns the tensors that GGUF can hold.
func ggml(tensors []Tensor) []Tensor {
	return slices.DeleteFunc(slices.Clone(tensors), func(t Tensor) bool { return t.Format >= quant.NF4 })
}

func wantSame(t *testing.T, f File, want []Tensor) {
	t.Helper()
	if len(f.Names()) != len(want) {
		t.Errorf("want %d tensors, have %v", len(want), f.Names())
	}
	for _, w := range want {
		x, ok := f.Tensor(w.Name)
		if !ok || !slices.Equal(x.Shape, w.Shape) || x.Format != w.Format || !bytes.Equal(x.Data, w.Data) {
			t.Errorf("tensor %q: want %v of %v, have %v of %v", w.Name, w.Shape, w.Format, x.Shape, x.Format)
		}
	}
}

func TestOpenDirectory(t *testing.T) {
	x := []Tensor{Float32Tensor("x", []int{1}, []float32{1})}
	weights := func(name string) func(string) error {
		return func(dir string) error { return WriteSafetensors(filepath.Join(dir, name), x, nil) }
	}
	gguf := func(dir string) error { return WriteGGUF(filepath.Join(dir, "m.gguf"), nil, x) }
	other := func(name string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600) }
	}
	for name, c := range map[string]struct {
		fill []func(string) error
		want string // in the error
	}{
		"model":             {[]func(string) error{weights("model.safetensors"), other("optimizer.pt")}, ""},
		"adapter":           {[]func(string) error{weights("adapter_model.safetensors")}, ""},
		"another name":      {[]func(string) error{weights("w.safetensors")}, ""},
		"gguf":              {[]func(string) error{gguf, other("README.md")}, ""},
		"model before gguf": {[]func(string) error{gguf, weights("model.safetensors")}, ""},
		"two names":         {[]func(string) error{weights("a.safetensors"), weights("b.safetensors")}, "a.safetensors, b.safetensors"},
		"pickle":            {[]func(string) error{other("pytorch_model.bin")}, "convert"},
		"nothing":           {nil, "holds no model.safetensors"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, fill := range c.fill {
				if err := fill(dir); err != nil {
					t.Fatal(err)
				}
			}
			f, err := Open(dir)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("want an error with %q, have %v", c.want, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantSame(t, f, x)
			closeFile(t, f)
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{
		"pytorch_model.bin": "convert", "x.ckpt": "convert", "notes.txt": "want a .safetensors or .gguf file",
		"empty.safetensors": "at least 8 bytes", "empty.gguf": "begin with GGUF",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: want an error with %q, have %v", name, want, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none.gguf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: have %v", err)
	}
}

func TestFetch(t *testing.T) {
	x, err := FromFloat32s("x", []int{2, 32}, make([]float32, 64), quant.F16)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	late := Tensor{Name: "x", Shape: x.Shape, Format: x.Format, Fetch: func() ([]byte, error) { calls++; return x.Data, nil }}
	stop := errors.New("stop")
	for kind, encode := range map[string]func(io.Writer, ...Tensor) error{
		"safetensors": func(w io.Writer, x ...Tensor) error { return EncodeSafetensors(w, x, nil) },
		"gguf":        func(w io.Writer, x ...Tensor) error { return EncodeGGUF(w, nil, x) },
	} {
		var now, later bytes.Buffer
		calls = 0
		if err := errors.Join(encode(&now, x), encode(&later, late)); err != nil || calls != 1 || !bytes.Equal(now.Bytes(), later.Bytes()) {
			t.Errorf("%s: %d calls, error %v", kind, calls, err)
		}
		if err := encode(io.Discard, Tensor{Name: "x", Shape: []int{1}, Fetch: func() ([]byte, error) { return nil, stop }}); !errors.Is(err, stop) {
			t.Errorf("%s: want the error of Fetch, have %v", kind, err)
		}
		short := func() ([]byte, error) { return make([]byte, 3), nil }
		if err := encode(io.Discard, Tensor{Name: "x", Shape: []int{1}, Fetch: short}); err == nil || !strings.Contains(err.Error(), "takes 4 bytes, have 3") {
			t.Errorf("%s: want an error of size, have %v", kind, err)
		}
	}
}

func TestFromFloat32sRefuses(t *testing.T) {
	for _, c := range []struct {
		shape  []int
		values int
		format quant.Format
		want   string
	}{
		{[]int{2, 3}, 5, quant.F32, "has 6 elements, 5 values"},
		{[]int{2, 33}, 66, quant.Q8_0, "rows of 33"},
		{[]int{256}, 256, quant.Q4_K, "not written"},
	} {
		if _, err := FromFloat32s("x", c.shape, make([]float32, c.values), c.format); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error with %q, have %v", c.want, err)
		}
	}
	x := Float32Tensor("x", []int{2}, []float32{1, 2})
	if err := x.ReadInto(make([]float32, 3)); err == nil {
		t.Error("a slice of another size was filled")
	}
}

// touch reads everything of a file that a parser accepted.
func touch(f File) {
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		t.Float32s()
	}
}

// TestRelease reads a tensor again whose memory was given up.
func TestRelease(t *testing.T) {
	values := make([]float32, 100_000)
	for i := range values {
		values[i] = float32(i)
	}
	x, err := FromFloat32s("a", []int{100, 1000}, values, quant.F32)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := WriteSafetensors(path, []Tensor{x}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFile(t, f)
	for range 2 {
		x, _ := f.Tensor("a")
		if !slices.Equal(x.Float32s(), values) {
			t.Fatal("the values have changed")
		}
		Release(f, "a")
		Release(f, "no tensor of that name")
	}
}
