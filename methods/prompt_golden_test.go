package methods

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// peftType returns the peft_type of a case's adapter.
func peftType(t *testing.T, path string) string {
	t.Helper()
	var config tune.PEFTConfig
	golden.JSON(t, filepath.Join(path, "adapter", "adapter_config.json"), &config)
	kind, _ := tune.Key(config, "peft_type", "")
	return kind
}

// virtual reports whether adapters of a peft_type are virtual tokens.
func virtual(kind string) bool {
	return slices.Contains([]string{"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"}, kind)
}

// promptCase is a case of virtual tokens. Its trained tensors in training are those under start.
type promptCase struct {
	fixture
	InitText string `json:"init_text"`
}

// TestGoldenPrompts checks prompts and prefixes of PEFT: outputs, gradients and five steps in training, with their
// encoders; first values from texts; and the files.
func TestGoldenPrompts(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, filepath.Join("adapter", "adapter_config.json")) {
		path := filepath.Join(dir, name)
		if !virtual(peftType(t, path)) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := promptCase{fixture: fixture{dir: path}}
			golden.JSON(t, filepath.Join(path, "case.json"), &c.peftCase)
			golden.JSON(t, filepath.Join(path, "case.json"), &c)
			var base struct {
				Type string `json:"model_type"`
			}
			golden.JSON(t, filepath.Join(dir, c.Base, "config.json"), &base)
			if why, ok := later["base "+base.Type]; ok {
				t.Skip(why)
			}
			c.backend, c.model = openBackend(t), openModel(t, filepath.Join(dir, c.Base))
			c.values = golden.Load(t, filepath.Join(path, "case.safetensors"))
			c.batches = batches(c.values)
			t.Run("outputs", func(t *testing.T) {
				a, _ := withAdapter(t, c.model, c.folder("adapter"))
				c.same(t, "adapter", c.logits(t, a), "logits")
			})
			t.Run("training", c.training)
			t.Run("first values", c.first)
			t.Run("files", c.promptFiles)
		})
	}
}

// same compares logits behind the virtual tokens.
func (c promptCase) same(t *testing.T, what string, have []float32, want string) {
	t.Helper()
	b, ref := c.batches[0], c.values[want]
	rows, cols, v := ref.Shape[0], ref.Shape[1], ref.Shape[2]
	var behind []float32
	for r := range rows {
		behind = append(behind, ref.F32[(r*cols+cols-b.Cols)*v:(r+1)*cols*v]...)
	}
	sameLogits(t, what, b, have, behind)
}

// name returns the golden name of one of our trained parameters.
func (c promptCase) name(param string) string {
	if param == promptTensor {
		return "prompt_encoder.embedding.weight"
	}
	return param
}

// options are those of the case's config before training.
func (c promptCase) options(t *testing.T) tune.Parameters {
	o := openAdapter(t, c.folder("adapter")).Options
	switch o := o.(type) {
	case *Prefix:
		o.flat = false
	case *PTuning:
		o.flat = false
	}
	return o
}

func (c promptCase) training(t *testing.T) {
	if len(c.Losses) == 0 {
		t.Skip("the case has no steps")
	}
	a, graft := adapt(t, c.model, c.options(t))
	start := c.group("start")
	if len(start) == 0 { // started from a text, in its file
		a, graft = withAdapter(t, c.model, c.folder("adapter"))
	} else {
		fill(t, a, start, c.name)
		var have []string
		for _, p := range a.Sites.Trainable() {
			have = append(have, fmt.Sprint(c.name(p.Name), p.Shape))
		}
		var want []string
		for _, p := range c.Trainable {
			want = append(want, fmt.Sprint(p.Name, p.Shape))
		}
		if slices.Sort(have); !slices.Equal(have, sorted(want)) {
			t.Errorf("trained: want %v, have %v", want, have)
		}
	}
	out := pass(t, c.backend, a, c.batches[0])
	c.same(t, "start", out["logits"], "logits")
	for _, p := range a.Sites.Trainable() {
		want, ok := c.values["grad/"+c.name(p.Name)]
		if !ok {
			want, ok = c.values["grad/"+p.Name]
		}
		if !ok {
			t.Errorf("no golden gradient of %q", p.Name)
		}
		near(t, "gradient of "+p.Name, out["grad."+p.Name], want.F32, 1e-4)
	}
	s := c.stepper(t, a)
	for i, want := range c.Losses {
		r, err := s.Step(t.Context(), c.batches[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		nearNumber(t, fmt.Sprintf("loss of step %d", i+1), r.Loss, want, 1e-4)
		for _, x := range a.Trained() {
			if want, ok := c.values[fmt.Sprintf("step%d/%s", i+1, c.name(x.Name))]; ok {
				have, ref := withoutNoise(x.Values, want.F32, out["grad."+x.Name])
				near(t, fmt.Sprintf("%s after step %d", x.Name, i+1), have, ref, 1e-4)
			}
		}
	}
	if want, ok := c.values["step5_file/"+promptTensor]; ok {
		dir := filepath.Join(t.TempDir(), "after")
		if err := tune.SaveAdapter(dir, graft, a.Sites, a.Store, tune.AdapterInfo{Base: c.Base}); err != nil {
			t.Fatal(err)
		}
		have := golden.Load(t, filepath.Join(dir, "adapter_model.safetensors"))
		near(t, "file after the last step", have[promptTensor].F32, want.F32, 1e-4)
		again, _ := withAdapter(t, c.model, dir)
		before := keep(c.batches[0].Segments, c.logits(t, a))
		if d := golden.MaxAbs(keep(c.batches[0].Segments, c.logits(t, again)), before); d > 1e-4 {
			t.Errorf("without its encoder the prompt gives other logits, by %g", d)
		}
	}
	if c.After != nil {
		loss, err := s.Loss(t.Context(), c.batches[:1])
		if err != nil {
			t.Fatal(err)
		}
		nearNumber(t, "loss afterwards", loss, *c.After, 1e-4)
	}
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func (c promptCase) stepper(t *testing.T, a *model.Adapted) *trainer.Stepper {
	t.Helper()
	rate, betas, eps := c.Optimizer.LR, c.Optimizer.Betas, c.Optimizer.Eps
	if rate == 0 { // cases from a text do not say what all the others do
		rate, betas, eps = 1e-3, []float64{0.9, 0.999}, 1e-8
	}
	o, err := optim.New("adamw", optim.Options{Betas: betas, Eps: eps})
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: a, Backend: c.backend, Objective: &Instruction{}, Optimizer: o, Schedule: func(int) float64 { return rate },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// first checks starts that are no random numbers.
func (c promptCase) first(t *testing.T) {
	o := c.options(t)
	start := func(o tune.Parameters) *model.Adapted {
		graft, err := o.Graft(c.model.Map())
		if err != nil {
			t.Fatal(err)
		}
		a, err := trainer.Adapt(t.Context(), c.model, graft, c.backend, 1)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	hard, fromText := c.values["hard_prompt_ids"]
	_, zero := c.values["zero_prefix_logits"]
	switch p, ok := o.(*Prefix); {
	case ok && fromText:
		p.Init, p.Text = "text", "of the case"
		for _, id := range hard.I32 {
			p.words.ids = append(p.words.ids, int(id))
		}
		c.same(t, "prefix of a text", c.logits(t, start(p)), "hard_prompt_logits")
	case ok && zero:
		c.same(t, "prefix of zeros", c.logits(t, start(p)), "zero_prefix_logits")
	case c.InitText != "":
		p := o.(*SoftPrompt)
		for word := range strings.FieldsSeq(c.InitText) {
			var id int
			if _, err := fmt.Sscanf(word, "w%d", &id); err != nil {
				t.Fatal(err)
			}
			p.words.ids = append(p.words.ids, id)
		}
		have, _ := start(p).Store.Get(promptTensor)
		near(t, "prompt of a text", have.Values, c.values["init/"+promptTensor].F32, 0)
	default:
		t.Skip("the case starts at random")
	}
}

func (c promptCase) promptFiles(t *testing.T) {
	a, graft := withAdapter(t, c.model, c.folder("adapter"))
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := tune.SaveAdapter(dir, graft, a.Sites, a.Store, tune.AdapterInfo{Base: c.Base}); err != nil {
		t.Fatal(err)
	}
	c.compareConfig(t, dir)
	want := golden.Load(t, filepath.Join(c.dir, "adapter", "adapter_model.safetensors"))
	have := golden.Load(t, filepath.Join(dir, "adapter_model.safetensors"))
	for name, w := range want {
		if h, ok := have[name]; !ok || !slices.Equal(h.Shape, w.Shape) || !slices.Equal(h.F32, w.F32) {
			t.Errorf("%s: want the tensor of the file that was read, have shape %v", name, h.Shape)
		}
	}
	if len(have) != len(want) {
		t.Errorf("want %v, have %v", sortedKeys(want), sortedKeys(have))
	}
}
