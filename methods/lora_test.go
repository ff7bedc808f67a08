package methods

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/data"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// loraWith returns the options with a change.
func loraWith(change func(*LoRA)) *LoRA {
	m, err := tune.Find(tune.ParametersAxis, "lora")
	if err != nil {
		panic(err)
	}
	o := m.New().(*LoRA)
	change(o)
	return o
}

// TestLoRACounts: trained values are Σ rank · (in + out) over the targets, as the method's page says.
func TestLoRACounts(t *testing.T) {
	m := small(t)
	for _, c := range []struct {
		name    string
		options *LoRA
		want    func(path string) int // rank
	}{
		{"all linear", loraWith(func(o *LoRA) { o.Rank = 3 }), func(string) int { return 3 }},
		{"two names", loraWith(func(o *LoRA) { o.Targets = tune.Targets{"q_proj", "v_proj"} }), func(p string) int {
			if strings.HasSuffix(p, "q_proj") || strings.HasSuffix(p, "v_proj") {
				return 16
			}
			return 0
		}},
		{"patterns", loraWith(func(o *LoRA) { o.RankPattern = tune.Patterns[int]{{Key: `layers\.1\..*`, Value: 2}} }), func(p string) int {
			if strings.Contains(p, "layers.1.") {
				return 2
			}
			return 16
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			graft, err := c.options.Graft(m.Map())
			if err != nil {
				t.Fatal(err)
			}
			sites, err := m.Survey(graft)
			if err != nil {
				t.Fatal(err)
			}
			have, want := 0, 0
			for _, p := range sites.Trainable() {
				have += p.Size()
			}
			for _, l := range m.Map().Linears {
				want += c.want(l.Path) * (l.In + l.Out)
			}
			if have != want {
				t.Errorf("want %d trained values, have %d", want, have)
			}
		})
	}
}

func TestLoRARefuses(t *testing.T) {
	m := small(t)
	for _, c := range []struct {
		options *LoRA
		want    string
	}{
		{loraWith(func(o *LoRA) { o.Rank = 0 }), "rank"},
		{loraWith(func(o *LoRA) { o.Targets = tune.Targets{"q_prj"} }), "did you mean q_proj"},
		{loraWith(func(o *LoRA) { o.Exclude = tune.Targets{".*"} }), "leave none"},
		{loraWith(func(o *LoRA) { o.TrainFully = tune.Targets{"lm_haed"} }), "did you mean lm_head"},
		{loraWith(func(o *LoRA) { o.Targets = nil }), "the modules are q_proj"},
		{loraWith(func(o *LoRA) { o.Targets = tune.Targets{"(q_proj"} }), "missing closing )"},
		{loraWith(func(o *LoRA) { o.Targets = tune.Targets{"q_proj", ".*v_proj"} }), `".*v_proj" is no module`},
		{loraWith(func(o *LoRA) { o.RankPattern = tune.Patterns[int]{{Key: "(", Value: 2}} }), "rank_pattern"},
		{loraWith(func(o *LoRA) { o.RankPattern = tune.Patterns[int]{{Key: "v_proj", Value: 0}} }), "want rank >= 1"},
		{loraWith(func(o *LoRA) { o.DoRA, o.LoRABias = true, true }), "lora_bias"},
		{loraWith(func(o *LoRA) { o.Init, o.Rank = "orthogonal", 3 }), "want an even one"},
		{loraWith(func(o *LoRA) { o.Init, o.Rank = "pissa", 9 }), "at most the weight's"},
		{loraWith(func(o *LoRA) { o.TrainTokens = []int{3, 16} }), "want different ids below 16, have 16"},
		{loraWith(func(o *LoRA) { o.TrainTokens = []int{3, 3} }), "at place 1"},
		{loraWith(func(o *LoRA) { o.TrainTokens, o.TrainFully = []int{3}, tune.Targets{"embed_tokens"} }), "leave one of the two out"},
	} {
		if _, err := c.options.Graft(m.Map()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, have %v", c.want, err)
		}
	}
}

// TestLoRAKnownCounts compares with the counts of trained values in methods of two published shapes.
func TestLoRAKnownCounts(t *testing.T) {
	smollm := shape(t, 576, 1536, 30, 9, 3, 49152, true)
	llama8 := shape(t, 4096, 14336, 32, 32, 8, 128256, false)
	qv := tune.Targets{"q_proj", "v_proj"}
	for _, c := range []struct {
		model   *model.Model
		options *LoRA
		want    int
	}{
		{smollm, loraWith(func(o *LoRA) { o.Rank, o.Targets = 8, qv }), 460_800},
		{smollm, loraWith(func(o *LoRA) {}), 4_884_480},
		{smollm, loraWith(func(o *LoRA) { o.Rank, o.Targets, o.DoRA = 8, qv, true }), 460_800 + 23_040},
		{smollm, loraWith(func(o *LoRA) { o.Rank = 64 }), 19_537_920},
		{llama8, loraWith(func(o *LoRA) { o.Rank, o.Targets = 8, qv }), 3_407_872},
		{llama8, loraWith(func(o *LoRA) { o.Rank, o.Targets, o.DoRA = 8, qv, true }), 3_407_872 + 163_840},
		{llama8, loraWith(func(o *LoRA) { o.Targets = tune.Targets{"q_proj", "k_proj", "v_proj", "o_proj"} }), 13_631_488},
	} {
		graft, err := c.options.Graft(c.model.Map())
		if err != nil {
			t.Fatal(err)
		}
		sites, err := c.model.Survey(graft)
		if err != nil {
			t.Fatal(err)
		}
		if have, _ := trainer.Counts(sites); have != c.want {
			t.Errorf("rank %d on %v of %d layers: want %d, have %d", c.options.Rank, c.options.Targets, c.model.Config.Layers, c.want, have)
		}
	}
}

func shape(t testing.TB, hidden, inner, layers, heads, groups, vocab int, tied bool) *model.Model {
	t.Helper()
	m, err := model.New(model.Config{
		Type: "llama", Hidden: hidden, Intermediate: inner, Layers: layers, Heads: heads, KVHeads: groups, HeadDim: hidden / heads, Vocab: vocab,
		MaxPositions: 64, NormEps: 1e-5, Activation: "silu", Tied: tied, PadID: -1, BOS: -1, Windows: make([]int, layers),
		Rope: model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 64, MaxPositions: 64},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLoRAClosedForm merges W = [[1 2 2] [0 3 4]] with A = [[1 0 −1]], B = [[½] [−1]], s = 2, worked out by hand.
func TestLoRAClosedForm(t *testing.T) {
	values := map[string][]float32{
		"base_model.model.m.lora_A.weight": {1, 0, -1}, "base_model.model.m.lora_B.weight": {.5, -1},
		"base_model.model.m.lora_magnitude_vector": {3, 5},
	}
	value := func(name string) []float32 { return values[name] }
	for _, c := range []struct {
		dora bool
		want []float32
	}{
		{false, []float32{2, 2, 1, -2, 3, 6}},
		{true, []float32{2, 2, 1, -10. / 7, 15. / 7, 30. / 7}}, // lengths 3 and 7
	} {
		l := &lora{LoRA: LoRA{DoRA: c.dora}, updates: map[string]*update{"m": {path: "m", rank: 1, scale: 2}}}
		w := []float32{1, 2, 2, 0, 3, 4}
		if changed, err := l.Merge("m.weight", "m.weight", w, value); err != nil || !changed {
			t.Fatal(changed, err)
		}
		if golden.MaxAbs(w, c.want) > 1e-6 {
			t.Errorf("dora %v: want %v, have %v", c.dora, c.want, w)
		}
	}
}

// TestLoRAStarts: every start but random leaves the model as it is, also with dora and on all modules there are, and
// the first step changes B alone where B is 0.
func TestLoRAStarts(t *testing.T) {
	m, backend := small(t), openBackend(t)
	b := randomBatch(3, 9, 16)
	bare, err := m.Adapt(1)
	if err != nil {
		t.Fatal(err)
	}
	want := pass(t, backend, bare, b)["logits"]
	for _, init := range []string{"uniform", "gaussian", "orthogonal", "pissa", "olora", "random"} {
		for _, dora := range []bool{false, true} {
			a, _ := adapt(t, m, loraWith(func(o *LoRA) {
				o.Init, o.DoRA, o.Rank, o.TrainTokens = init, dora, 4, []int{2, 5}
				o.Targets = tune.Targets{"q_proj", "v_proj", "down_proj", "embed_tokens", "lm_head"}
			}))
			out := pass(t, backend, a, b)
			d := golden.MaxAbs(out["logits"], want)
			if (d < 1e-5) != (init != "random") {
				t.Errorf("%s, dora %v: logits are off by %g", init, dora, d)
			}
			grad := golden.MaxAbs(out["grad.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], make([]float32, 4*8))
			if zero := init == "uniform" || init == "gaussian"; (grad == 0) != zero {
				t.Errorf("%s, dora %v: largest gradient of A is %g", init, dora, grad)
			}
		}
	}
}

// randomBatch is a batch of random tokens of a vocabulary.
func randomBatch(rows, cols, vocab int) data.Batch {
	rng := rand.New(rand.NewPCG(5, 6))
	ids := make([]int32, rows*cols)
	for i := range ids {
		ids[i] = int32(rng.IntN(vocab))
	}
	return batchOf(rows, cols, ids, ids, nil, nil, nil)
}

// TestLoRAGradients compares the gradients of every kind of trained tensor with differences of the loss. DoRA's lengths
// pass no gradient through the norm, so only its own vector can be compared.
func TestLoRAGradients(t *testing.T) {
	m, backend := small(t), openBackend(t)
	b := randomBatch(2, 8, 16)
	for _, c := range []struct {
		name    string
		options *LoRA
	}{
		{"plain", loraWith(func(o *LoRA) {
			o.Rank, o.Init, o.Targets = 2, "random", tune.Targets{"k_proj", "embed_tokens", "lm_head"}
		})},
		{"bias", loraWith(func(o *LoRA) {
			o.Rank, o.Init, o.LoRABias, o.Targets = 2, "random", true, tune.Targets{"up_proj", "lm_head"}
		})},
		{"tokens", loraWith(func(o *LoRA) {
			o.Rank, o.Init, o.TrainTokens, o.Targets = 2, "random", []int{1, int(b.IDs[3])}, tune.Targets{"v_proj"}
		})},
		{"whole", loraWith(func(o *LoRA) {
			o.Rank, o.Init, o.TrainFully, o.Targets = 2, "random", tune.Targets{"lm_head", "norm"}, tune.Targets{"v_proj"}
		})},
		{"pissa", loraWith(func(o *LoRA) { o.Rank, o.Init, o.Targets = 2, "pissa", tune.Targets{"o_proj"} })},
		{"dora", loraWith(func(o *LoRA) {
			o.Rank, o.Init, o.DoRA, o.Targets = 2, "random", true, tune.Targets{"q_proj", "embed_tokens", "lm_head"}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := adapt(t, m, c.options)
			out := pass(t, backend, a, b)
			for _, x := range a.Trained() {
				if c.options.DoRA && !strings.HasSuffix(x.Name, magnitude) {
					continue
				}
				grad := out["grad."+x.Name]
				at, most := 0, 0.0 // the largest element, where rounding matters least
				for i, g := range grad {
					if g := math.Abs(float64(g)); g > most {
						at, most = i, g
					}
				}
				if most == 0 {
					t.Errorf("%s has no gradient", x.Name)
					continue
				}
				loss := func(h float32) float64 {
					was := x.Values[at]
					x.Values[at] = was + h
					x.Touch()
					defer func() { x.Values[at] = was; x.Touch() }()
					return float64(pass(t, backend, a, b)["loss"][0])
				}
				const h = 1e-2
				have := (8*(loss(h)-loss(-h)) - (loss(2*h) - loss(-2*h))) / (12 * h)
				if d := math.Abs(have - float64(grad[at])); d > 2e-3*most+1e-4 {
					t.Errorf("%s[%d]: gradient %.6f, by differences %.6f", x.Name, at, grad[at], have)
				}
			}
		})
	}
}

// TestLoRAConfigs reads options as PEFT writes them, with PEFT's own behaviour at the edges where it is sound.
func TestLoRAConfigs(t *testing.T) {
	m := shape(t, 8, 12, 2, 2, 1, 16, false)
	for _, c := range []struct {
		config  string
		modules int // that get an update; 0 for an error
		want    string
	}{
		{`{}`, 4, ""},
		{`{"target_modules": ["q_proj", "nope"]}`, 0, `"nope" is no module`},
		{`{"target_modules": ["proj"]}`, 0, `"proj" is no module`},
		{`{"target_modules": ["0.self_attn.q_proj"]}`, 1, ""},
		{`{"target_modules": "all-linear"}`, 14, ""},
		{`{"target_modules": "all-linear", "exclude_modules": ["q_proj", "mlp.up_proj"]}`, 10, ""},
		{`{"target_modules": ["input_layernorm"]}`, 0, "is no module"},
		{`{"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}`, 0, "leave none"},
		{`{"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}`, 2, ""},
		{`{"layers_to_transform": 1}`, 2, ""},
		{`{"layers_to_transform": [7]}`, 0, "leave none"},
		{`{"r": 0}`, 0, "want rank >= 1"},
		{`{"r": 30, "lora_alpha": -4}`, 4, ""},
		{`{"r": 1000000000}`, 0, "at most 4 times the model's width 8"},
		{`{"lora_alpha": 2.5}`, 4, ""},
		{`{"r": "8"}`, 0, "r: want int"},
		{`{"lora_dropout": 1.5}`, 0, "lora_dropout"},
		{`{"bias": "some"}`, 0, "bias: want none, all or lora_only"},
		{`{"init_lora_weights": "nope"}`, 0, "init_lora_weights"},
		{`{"init_lora_weights": "pissa_niter_16", "r": 4}`, 4, ""},
		{`{"init_lora_weights": "orthogonal", "r": 3}`, 0, "even"},
		{`{"rank_pattern": {"nope": 4}}`, 4, ""},
		{`{"rank_pattern": {"v_proj": 0}}`, 0, "want rank >= 1"},
		{`{"use_qalora": true}`, 0, "use_qalora"},
		{`{"use_dora": true, "lora_bias": true}`, 0, "lora_bias"},
		{`{"trainable_token_indices": [5000]}`, 0, "5000"},
		{`{"trainable_token_indices": {"lm_head": [5]}}`, 0, "trainable_token_indices"},
		{`{"layer_replication": [[0, 2]]}`, 0, "layer_replication"},
		{`{"target_parameters": []}`, 4, ""},
		{`{"task_type": null, "future_option": 3}`, 4, ""},
	} {
		var config tune.PEFTConfig
		if err := json.Unmarshal([]byte(c.config), &config); err != nil {
			t.Fatal(err)
		}
		var o LoRA
		var graft any
		err := o.ReadPEFT(config)
		if err == nil {
			graft, err = o.Graft(m.Map())
		}
		switch {
		case c.modules == 0 && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: want an error with %q, have %v", c.config, c.want, err)
		case c.modules > 0 && err != nil:
			t.Errorf("%s: %v", c.config, err)
		case c.modules > 0 && len(graft.(*lora).updates) != c.modules:
			t.Errorf("%s: want %d modules, have %v", c.config, c.modules, sortedKeys(graft.(*lora).updates))
		}
	}
}

// FuzzPEFTConfig: no text makes reading an adapter_config.json panic or ask for more than the model's size.
func FuzzPEFTConfig(f *testing.F) {
	for _, text := range []string{
		`{"peft_type": "LORA"}`, `{"peft_type": "LORA", "r": 4, "target_modules": ".*proj", "rank_pattern": {"q_proj": 2}}`,
		`{"peft_type": "LORA", "target_modules": ["lm_head", "embed_tokens"], "use_dora": true, "bias": "all"}`,
		`{"peft_type": "LORA", "modules_to_save": ["norm"], "trainable_token_indices": {"embed_tokens": [1]}}`,
		`{"peft_type": "LORA", "init_lora_weights": "olora", "alpha_pattern": {"^v": 1e300}, "layers_to_transform": [0, 1]}`,
	} {
		f.Add([]byte(text))
	}
	m := shape(f, 8, 12, 2, 2, 1, 16, false)
	f.Fuzz(func(t *testing.T, text []byte) {
		_, o, err := tune.ParsePEFT(text)
		if err != nil {
			return
		}
		graft, err := o.Graft(m.Map())
		if err != nil {
			return
		}
		if _, err := m.Adapt(1, graft); err != nil {
			t.Skip(err)
		}
		if _, err := json.Marshal(graft.(tune.PEFTWriter).PEFT()); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

// TestPrincipal finds the singular values of matrices that are made from them, also where more are asked for than the
// block that is iterated holds.
func TestPrincipal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		out, in := rapid.IntRange(1, 90).Draw(t, "out"), rapid.IntRange(1, 90).Draw(t, "in")
		n := min(out, in)
		rank := rapid.IntRange(1, min(n, 12)).Draw(t, "rank")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		x, y := make([]float64, out*n), make([]float64, in*n)
		for _, m := range [][]float64{x, y} {
			for i := range m {
				m[i] = rng.NormFloat64()
			}
			orthonormalize(m, n)
		}
		values, w := make([]float64, n), make([]float32, out*in)
		for k := range values {
			values[k] = 10 * math.Pow(0.9, float64(k))
			for o := range out {
				for i := range in {
					w[o*in+i] += float32(values[k] * x[o*n+k] * y[i*n+k])
				}
			}
		}
		u, have, v := principal(w, out, in, rank)
		for r := range rank {
			if math.Abs(have[r]-values[r]) > 1e-5*values[0] {
				t.Fatalf("value %d: want %g, have %g", r, values[r], have[r])
			}
			for o := range out {
				var sum float64
				for i := range in {
					sum += float64(w[o*in+i]) * v[i*rank+r]
				}
				if math.Abs(sum-have[r]*u[o*rank+r]) > 1e-5*values[0] {
					t.Fatalf("W·v is not σ·u for value %d: %g and %g", r, sum, have[r]*u[o*rank+r])
				}
			}
		}
	})
}
