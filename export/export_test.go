package export

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/site"
	"tunesmith/token"
	"tunesmith/tune"
)

// open opens a model and its weights.
func open(t *testing.T, path string) *model.Adapted {
	t.Helper()
	m, err := model.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	a, err := m.Adapt(1)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// logits runs a model on a row of ids that its vocabulary holds.
func logits(t *testing.T, a *model.Adapted) []float32 {
	t.Helper()
	const n = 12
	backend, err := engine.Open("cpu", engine.Options{Precision: engine.FP32})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, 1, n), Positions: g.Input("positions", graph.Int, 1, n)})
		g.Output("logits", a.Logits(s, a.Hidden(s)))
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, a.Store)
	if err != nil {
		t.Fatal(err)
	}
	ids, positions := make([]int32, n), make([]int32, n)
	for i := range ids {
		ids[i], positions[i] = int32((7*i+3)%a.Config.Vocab), int32(i)
	}
	if err := p.Run(t.Context(), engine.Feeds{"ids": ids, "positions": positions}); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(p.Output("logits"))
}

// models are the golden models of the types that can be built.
func models(t *testing.T) []string {
	t.Helper()
	dir := golden.Dir(t, "models")
	var out []string
	for _, name := range golden.Cases(t, dir, "config.json") {
		var c struct {
			Type string `json:"model_type"`
			Head string `json:"head"`
		}
		golden.JSON(t, filepath.Join(dir, name, "config.json"), &c)
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
		weights, _ := filepath.Glob(filepath.Join(dir, name, "model*.safetensors"))
		if slices.Contains(model.Types(), c.Type) && c.Head == "lm" && len(weights) > 0 {
			out = append(out, filepath.Join(dir, name))
		}
	}
	return out
}

// sameWeights compares all parameters of two models.
func sameWeights(t *testing.T, want, have *model.Adapted, most func(name string, want, have []float32) float64) {
	t.Helper()
	for _, p := range want.Map().Params {
		w, err := want.Values(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		h, err := have.Values(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if d := golden.MaxAbs(h, w); !(d <= most(p.Name, w, h)) {
			t.Errorf("%s: largest difference %g", p.Name, d)
		}
	}
}

func exact(string, []float32, []float32) float64 { return 0 }

func TestGoldenDirectory(t *testing.T) {
	for _, path := range models(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			a := open(t, path)
			dir := filepath.Join(t.TempDir(), "model")
			if err := Directory(dir, a, tune.Text{}, quant.F32); err != nil {
				t.Fatal(err)
			}
			b := open(t, dir)
			sameWeights(t, a, b, exact)
			if diff := cmp.Diff(a.Config, b.Config); diff != "" {
				t.Errorf("config (-want +have):\n%s", diff)
			}
			if !slices.Equal(logits(t, a), logits(t, b)) {
				t.Error("logits differ")
			}
			for f, bound := range map[quant.Format]float64{quant.F16: 1.0 / (1 << 11), quant.BF16: 1.0 / (1 << 8)} {
				if err := Directory(dir, a, tune.Text{}, f); err != nil {
					t.Fatal(err)
				}
				sameWeights(t, a, open(t, dir), func(_ string, w, _ []float32) float64 { return bound * largest(w) })
			}
		})
	}
}

func largest(x []float32) float64 {
	var m float64
	for _, v := range x {
		m = max(m, math.Abs(float64(v)))
	}
	return m
}

func TestGoldenGGUF(t *testing.T) {
	written := 0
	for _, path := range models(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			a := open(t, path)
			file := filepath.Join(t.TempDir(), "model.gguf")
			if err := GGUF(file, a, tune.Text{}, quant.F32); err != nil {
				if _, there := os.Stat(file); !strings.Contains(err.Error(), "GGUF has no") || !errors.Is(there, os.ErrNotExist) {
					t.Error(err)
				}
				t.Skip(err)
			}
			written++
			b := open(t, file)
			sameWeights(t, a, b, func(name string, w, have []float32) float64 {
				if strings.HasPrefix(a.Config.Type, "gemma") && strings.HasSuffix(name, "norm.weight") {
					return largest(w) / (1 << 22) // the file holds 1 + w
				}
				return exact(name, w, have)
			})
			if have, want := logits(t, b), logits(t, a); golden.MaxAbs(have, want) > 2e-5*math.Max(1, largest(want)) {
				t.Errorf("logits differ by %g", golden.MaxAbs(have, want))
			}
			for _, f := range []quant.Format{quant.F16, quant.BF16, quant.Q8_0, quant.Q5_1, quant.Q5_0, quant.Q4_1, quant.Q4_0} {
				if err := GGUF(file, a, tune.Text{}, f); err != nil {
					t.Fatal(err)
				}
				again := open(t, file)
				bound := max(f.MaxError(), quant.F16.MaxError())
				sameWeights(t, a, again, func(_ string, w, _ []float32) float64 { return bound * largest(w) })
				if have := again.Config; have.Tied != a.Config.Tied || have.Vocab != a.Config.Vocab {
					t.Errorf("%v: another config: %+v", f, have)
				}
				again.Close()
			}
			if a.File.Close(); t.Failed() {
				return
			}
			// A GGUF file becomes a directory with the same weights again.
			dir := filepath.Join(t.TempDir(), "model")
			if err := Directory(dir, b, tune.Text{}, quant.F32); err != nil {
				if b.Config.Rope.Divisors == nil {
					t.Error(err)
				}
				return
			}
			c := open(t, dir)
			sameWeights(t, b, c, exact)
			if have, want := logits(t, c), logits(t, b); golden.MaxAbs(have, want) > 2e-5*math.Max(1, largest(want)) {
				t.Errorf("logits of the directory differ by %g", golden.MaxAbs(have, want))
			}
		})
	}
	if written == 0 {
		t.Error("no model could be written")
	}
}

// TestGoldenLlamaCpp writes the directory beside the files of llama.cpp's own converter, and compares with them:
// the tensors byte for byte, the tokenizer key by key.
func TestGoldenLlamaCpp(t *testing.T) {
	dir := golden.Dir(t, "quant")
	source := filepath.Join(dir, "gguf_tiny_hf")
	a := open(t, source)
	text, err := tune.OpenText(source, a.File, "")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "tiny_*.gguf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file in %s: %v", dir, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			f := main(want)
			out := filepath.Join(t.TempDir(), "out.gguf")
			if err := GGUF(out, a, text, f); err != nil {
				t.Fatal(err)
			}
			have, err := checkpoint.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer have.Close()
			for _, name := range want.Names() {
				w, _ := want.Tensor(name)
				h, ok := have.Tensor(name)
				if !ok || !slices.Equal(w.Shape, h.Shape) {
					t.Errorf("%s: want shape %v, have %v", name, w.Shape, h.Shape)
					continue
				}
				if w.Format == h.Format && !slices.Equal(w.Data, h.Data) {
					t.Errorf("%s: other bytes", name)
				}
			}
			for key, w := range want.Metadata() {
				if h, ok := have.Metadata()[key]; ok && !cmp.Equal(w, h) {
					t.Errorf("%s: want %.200v, have %.200v", key, w, h)
				} else if !ok && !strings.HasPrefix(key, "general.") {
					t.Logf("%s: %.80v is not written", key, w)
				}
			}
			tok, err := token.FromGGUF(have.Metadata())
			if err != nil {
				t.Fatal(err)
			}
			sameIDs(t, text.Tokenizer, tok)
			b := open(t, out)
			again := filepath.Join(t.TempDir(), "again")
			from, err := tune.OpenText(out, b.File, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := Directory(again, b, from, quant.BF16); err != nil {
				t.Fatal(err)
			}
			tok, err = token.Open(again)
			if err != nil {
				t.Fatal(err)
			}
			sameIDs(t, text.Tokenizer, tok)
			if tok.BOS() != text.Tokenizer.BOS() || tok.EOS() != text.Tokenizer.EOS() {
				t.Errorf("special tokens: want %d and %d, have %d and %d", text.Tokenizer.BOS(), text.Tokenizer.EOS(), tok.BOS(), tok.EOS())
			}
		})
	}
}

// main returns the format of a file's matrices.
func main(f checkpoint.File) quant.Format {
	t, _ := f.Tensor("blk.0.ffn_down.weight")
	return t.Format
}

func sameIDs(t *testing.T, want, have *token.Tokenizer) {
	t.Helper()
	for _, text := range []string{"", "Hello, world! 123 4567", " two  spaces\n\n\ttabs", "naïve café 他她 — “quoted” 🙂", "<|bos|>x<|eos|>", "don't I'll WE'VE"} {
		if w, h := want.IDs(text), have.IDs(text); !slices.Equal(w, h) {
			t.Errorf("%q: want %v, have %v", text, w, h)
		}
	}
}

func TestScratch(t *testing.T) {
	c := model.Config{
		Type: "llama", Hidden: 32, Intermediate: 48, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, Vocab: 50, MaxPositions: 64,
		NormEps: 1e-5, Activation: "silu", Tied: true, PadID: -1, BOS: -1, Windows: []int{0, 0},
	}
	c.Rope = model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 64, MaxPositions: 64, LowFreq: 1, HighFreq: 4, BetaFast: 32, BetaSlow: 1, Truncate: true}
	m, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.Adapt(3)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := Directory(dir, a, tune.Text{}, quant.F32); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	if diff := cmp.Diff(c, b.Config); diff != "" {
		t.Errorf("config (-want +have):\n%s", diff)
	}
	// What is drawn is packed, what a file holds is read as it stands: the sums differ in their order.
	want, have := logits(t, a), logits(t, b)
	for i, w := range want {
		if d := math.Abs(float64(w - have[i])); !(d < 1e-5) {
			t.Fatalf("logit %d: want %v, have %v", i, w, have[i])
		}
	}
}

// shy is a graft that cannot be folded in.
type shy struct{}

// broken fails as it is folded in.
type broken struct{}

func (broken) Merge(path, _ string, _ []float32, _ func(string) []float32) (bool, error) {
	return false, errors.New("cannot merge " + path)
}

// setting puts itself into every weight.
type setting float64

func (v setting) Merge(_, _ string, w []float32, _ func(string) []float32) (bool, error) {
	w[0] = float32(v)
	return true, nil
}

func TestRefusals(t *testing.T) {
	dir := golden.Dir(t, "quant")
	a := open(t, filepath.Join(dir, "gguf_tiny_hf"))
	out := t.TempDir()
	for want, f := range map[string]func() error{
		"hand over its adapter": func() error {
			b := *a
			b.Grafts = []any{shy{}}
			return Directory(filepath.Join(out, "a"), &b, tune.Text{}, quant.F32)
		},
		"cannot merge model.embed_tokens.weight": func() error {
			b := *a
			b.Grafts = []any{broken{}}
			return GGUF(filepath.Join(out, "b.gguf"), &b, tune.Text{}, quant.F32)
		},
		"cannot merge lm_head.weight": func() error {
			b := *a
			b.Grafts = []any{broken{}}
			return Directory(filepath.Join(out, "c"), &b, tune.Text{}, quant.F32)
		},
		"beyond the range of F16": func() error {
			b := *a
			b.Grafts = []any{setting(1e5)}
			return Directory(filepath.Join(out, "f"), &b, tune.Text{}, quant.F16)
		},
		"has diverged": func() error {
			b := *a
			b.Grafts = []any{setting(math.Inf(1))}
			return GGUF(filepath.Join(out, "g.gguf"), &b, tune.Text{}, quant.Q8_0)
		},
		"F32, F16 or BF16, not Q4_0": func() error { return Directory(filepath.Join(out, "d"), a, tune.Text{}, quant.Q4_0) },
		"not Q6_K":                   func() error { return GGUF(filepath.Join(out, "e.gguf"), a, tune.Text{}, quant.Q6_K) },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v", want, err)
		}
	}
	left, err := os.ReadDir(out)
	if err != nil || len(left) > 0 {
		t.Errorf("a refused export leaves %v, %v", left, err)
	}
}

// TestGoldenLoss: what a format loses is nothing for the widest, and within its bound for others.
func TestGoldenLoss(t *testing.T) {
	a := open(t, filepath.Join(golden.Dir(t, "quant"), "tiny_llama_fp32"))
	last := -1.0
	for _, f := range []quant.Format{quant.F32, quant.F16, quant.BF16, quant.Q8_0, quant.Q5_1, quant.Q4_0} {
		r, err := Loss(a, f, true)
		if err != nil {
			t.Fatal(err)
		}
		if r.All <= last || r.Most < r.All || (r.Worst == "") != (r.All == 0) {
			t.Errorf("%v: have %+v after %g", f, r, last)
		}
		if f == quant.F32 && r.All != 0 || r.All > 4*f.MaxError() { // the bound is a share of the largest of a block, not of its length
			t.Errorf("%v loses %g", f, r.All)
		}
		last = r.All
	}
}
