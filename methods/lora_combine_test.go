package methods

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/export"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/tune"
)

// combinedCase is a case of golden/peft with several adapters.
type combinedCase struct {
	Base         string
	Files        any
	Combinations []struct {
		Name     string
		Adapters []string
		Weights  []float64
		Kind     string `json:"combination_type"`
		Density  float64
		Rank     int    `json:"svd_rank"`
		Sign     string `json:"majority_sign_method"`
		R        int    `json:"result_r"`
		Modules  []string
	}
}

// onModel uses updates on a model.
func onModel(t *testing.T, m *model.Model, u *Updates) *model.Adapted {
	t.Helper()
	a, _ := adapt(t, m, u)
	if err := u.Adapter().Fill(a.Store, a.Sites); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestGoldenCombined combines adapters in every way of PEFT: factors, updates and logits.
func TestGoldenCombined(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, "case.json") {
		var c combinedCase
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
		if len(c.Combinations) == 0 {
			continue
		}
		values := golden.Load(t, filepath.Join(dir, name, "case.safetensors"))
		m, backend, b := openModel(t, filepath.Join(dir, c.Base)), openBackend(t), batches(values)[0]
		for _, w := range c.Combinations {
			t.Run(name+"/"+w.Name, func(t *testing.T) {
				var list []*Updates
				for _, a := range w.Adapters {
					u, err := OpenUpdates(filepath.Join(dir, name, "adapters", a))
					if err != nil {
						t.Fatal(err)
					}
					list = append(list, u)
				}
				how := Combination{Kind: w.Kind, Rank: w.Rank, Density: w.Density, Frequency: w.Sign == "frequency"}
				how.keeps = func(module, matrix string, adapter, n int) []bool {
					mask := values[fmt.Sprintf("%s/%s/mask/%s/%s", w.Name, module, matrix, w.Adapters[adapter])]
					out := make([]bool, n)
					for i, v := range mask.F32 {
						out[i] = v != 0
					}
					for i, v := range mask.I32 {
						out[i] = v != 0
					}
					return out
				}
				u, err := Combine(list, w.Weights, how)
				if err != nil {
					t.Fatal(err)
				}
				if len(u.Modules) != len(w.Modules) {
					t.Errorf("want %d modules, have %d", len(w.Modules), len(u.Modules))
				}
				for _, f := range u.Modules {
					key := w.Name + "/" + f.Path + "/"
					delta := make([]float32, f.In()*f.Out())
					addProduct(delta, f.B, f.A, f.Rank, f.Scale)
					near(t, "update of "+f.Path, delta, values[key+"delta"].F32, 1e-5)
					if f.Rank != w.R {
						t.Errorf("%s: want rank %d, have %d", f.Path, w.R, f.Rank)
					}
					if !strings.HasSuffix(w.Kind, "svd") {
						near(t, "A of "+f.Path, f.A, values[key+"lora_A"].F32, 1e-5)
						near(t, "B of "+f.Path, f.B, values[key+"lora_B"].F32, 1e-5)
					}
				}
				sameLogits(t, "in memory", b, pass(t, backend, onModel(t, m, u), b)["logits"], values[w.Name+"/logits"].F32)
				out := filepath.Join(t.TempDir(), "adapter")
				if err := u.Save(out, ""); err != nil {
					t.Fatal(err)
				}
				a, _ := withAdapter(t, m, out)
				sameLogits(t, "from its files", b, pass(t, backend, a, b)["logits"], values[w.Name+"/logits"].F32)
			})
		}
	}
}

// TestGoldenSeveralAdapters opens a directory with an adapter and named ones below it, alone and together.
func TestGoldenSeveralAdapters(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, "case.json") {
		var c combinedCase
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
		values := golden.Load(t, filepath.Join(dir, name, "case.safetensors"))
		both, ok := values["logits/both"]
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			m, backend, b := openModel(t, filepath.Join(dir, c.Base)), openBackend(t), batches(values)[0]
			var list []*Updates
			files, _ := c.Files.([]any)
			for _, file := range files {
				path, config := filepath.Split(file.(string))
				if config != "adapter_config.json" {
					continue
				}
				path = filepath.Clean(path)
				u, err := OpenUpdates(filepath.Join(dir, name, path))
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, u)
				key := "default"
				if path != "adapter" {
					key = filepath.Base(path)
				}
				a, _ := withAdapter(t, m, u.Name)
				sameLogits(t, key, b, pass(t, backend, a, b)["logits"], values["logits/"+key].F32)
			}
			u, err := Combine(list, []float64{1, 1}, Combination{Kind: "cat"})
			if err != nil {
				t.Fatal(err)
			}
			a := onModel(t, m, u)
			sameLogits(t, "both", b, pass(t, backend, a, b)["logits"], both.F32)
			out := filepath.Join(t.TempDir(), "merged")
			if err := export.Directory(out, a, tune.Text{}, quant.F32); err != nil {
				t.Fatal(err)
			}
			merged := openModel(t, out)
			for name, want := range values {
				if param, ok := strings.CutPrefix(name, "merged/"); ok {
					have, err := merged.Values(param)
					if err != nil {
						t.Fatal(err)
					}
					near(t, param, have, want.F32, 1e-5)
				}
			}
		})
	}
}

func TestCombineRefuses(t *testing.T) {
	one := func(rank, in int) *Updates {
		return &Updates{Name: "x", Modules: []Factors{{Path: "m", Rank: rank, A: make([]float32, rank*in), B: make([]float32, rank*4), Scale: 1}}}
	}
	two := []float64{1, 1}
	for _, c := range []struct {
		list []*Updates
		w    []float64
		how  Combination
		want string
	}{
		{[]*Updates{one(2, 3), one(2, 3)}, two, Combination{Kind: "tise"}, "did you mean ties"},
		{[]*Updates{one(2, 3), one(2, 3)}, two, Combination{Kind: "ties"}, "density: ties wants a share above 0"},
		{[]*Updates{one(2, 3), one(2, 3)}, two[:1], Combination{Kind: "cat"}, "with a weight each"},
		{[]*Updates{one(2, 3), one(3, 3)}, two, Combination{Kind: "linear"}, "adapters of one rank, have 2 and 3; take cat or svd"},
		{[]*Updates{one(2, 3), one(2, 5)}, two, Combination{Kind: "cat"}, "different models: 4×3 and 4×5"},
		{[]*Updates{one(2, 3), one(2, 3)}, two, Combination{Kind: "cat", Rank: 3}, "take a kind with svd"},
		{[]*Updates{one(2, 3), one(2, 3)}, []float64{1, math.NaN()}, Combination{Kind: "cat"}, "weight of x"},
	} {
		if _, err := Combine(c.list, c.w, c.how); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, have %v", c.want, err)
		}
	}
}

// randomFactors draws an update.
func randomFactors(rng *rand.Rand, out, in, rank int) Factors {
	f := Factors{Path: "m", Rank: rank, Scale: 0.5 + rng.Float64(), A: make([]float32, rank*in), B: make([]float32, out*rank)}
	for _, x := range [][]float32{f.A, f.B} {
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
	}
	return f
}

// TestCompress: what is kept of an update is what its singular values say, the rest is orthogonal to it, and a rank that
// is large enough keeps all.
func TestCompress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		out, in, rank := rapid.IntRange(1, 12).Draw(t, "out"), rapid.IntRange(1, 12).Draw(t, "in"), rapid.IntRange(1, 15).Draw(t, "rank")
		f := randomFactors(rng, out, in, rank)
		w := make([]float32, out*in)
		addProduct(w, f.B, f.A, f.Rank, f.Scale)
		to := rapid.IntRange(1, 15).Draw(t, "to")
		g, share := f.Compress(to)
		have := make([]float32, out*in)
		addProduct(have, g.B, g.A, g.Rank, g.Scale)
		if lost := golden.RelL2(have, w); math.Abs(lost*lost-(1-share)) > 1e-5 {
			t.Fatalf("it says that %g is kept, the error is %g", share, lost)
		}
		if to >= min(out, in, rank) && share < 1-1e-9 {
			t.Fatalf("rank %d of %d×%d×%d keeps only %g", to, out, rank, in, share)
		}
		if to < min(out, in, rank) {
			best := singular(w, out, in, to, 1)
			other := make([]float32, out*in)
			addProduct(other, best.b, best.a, to, 1)
			if d := golden.RelL2(have, w) - golden.RelL2(other, w); d > 1e-4 {
				t.Fatalf("error %g above the best", d)
			}
		}
		var dot float64
		for i, v := range w {
			dot += float64(v) * float64(have[i])
		}
		if d := f.Dot(g); math.Abs(d-dot) > 1e-4*math.Max(1, math.Abs(dot)) {
			t.Fatalf("product: want %g, have %g", dot, d)
		}
	})
}

func TestUpdatesKeepRanksApart(t *testing.T) {
	m := small(t)
	a, graft := adapt(t, m, loraWith(func(o *LoRA) {
		o.Rank, o.RSLoRA, o.Targets = 4, true, tune.Targets{"q_proj", "v_proj"}
		o.RankPattern = tune.Patterns[int]{{Key: `layers\.1\..*`, Value: 2}}
	}))
	rng := rand.New(rand.NewPCG(1, 2))
	for _, x := range a.Trained() {
		for i := range x.Values {
			x.Values[i] = float32(rng.NormFloat64())
		}
		x.Touch()
	}
	dir := t.TempDir()
	if err := tune.SaveAdapter(filepath.Join(dir, "a"), graft, a.Sites, a.Store, tune.AdapterInfo{Base: "b"}); err != nil {
		t.Fatal(err)
	}
	u, err := OpenUpdates(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Scaled(0.5).Save(filepath.Join(dir, "half"), ""); err != nil {
		t.Fatal(err)
	}
	half, err := OpenUpdates(filepath.Join(dir, "half"))
	if err != nil {
		t.Fatal(err)
	}
	twice, err := Combine([]*Updates{half, half}, []float64{1, 1}, Combination{Kind: "linear"})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range u.Modules {
		if d := half.Modules[i].Norm() / f.Norm(); math.Abs(d-0.5) > 1e-6 {
			t.Errorf("%s: half is %g", f.Path, d)
		}
		if want := map[bool]int{true: 2, false: 4}[strings.Contains(f.Path, "layers.1.")]; twice.Modules[i].Rank != want {
			t.Errorf("%s: want rank %d, have %d", f.Path, want, twice.Modules[i].Rank)
		}
	}
	if !slices.Equal(half.options.Targets, u.options.Targets) {
		t.Errorf("targets: want %v, have %v", u.options.Targets, half.options.Targets)
	}
}
