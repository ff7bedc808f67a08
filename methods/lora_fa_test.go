package methods

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"tunesmith/internal/golden"
	"tunesmith/optim"
	"tunesmith/trainer"
)

// oldAdam is Adam as transformers had it: eps is added to √v before the bias correction.
type oldAdam struct {
	optim.Optimizer
	lr, eps float64
	step    int
	m, v    map[string][]float64
}

func (o *oldAdam) Floats([]optim.Param) int { return 0 }

func (o *oldAdam) State() optim.State { return optim.State{} }

func (o *oldAdam) Step(params []optim.Param, _ float64) error {
	o.step++
	c1, c2 := 1-math.Pow(0.9, float64(o.step)), 1-math.Pow(0.999, float64(o.step))
	for _, p := range params {
		if o.m[p.Name] == nil {
			o.m[p.Name], o.v[p.Name] = make([]float64, len(p.Value)), make([]float64, len(p.Value))
		}
		m, v := o.m[p.Name], o.v[p.Name]
		for i, g := range p.Grad {
			g := float64(g)
			m[i], v[i] = 0.9*m[i]+0.1*g, 0.999*v[i]+0.001*g*g
			p.Value[i] -= float32(o.lr * math.Sqrt(c2) / c1 * m[i] / (math.Sqrt(v[i]) + o.eps))
		}
	}
	return nil
}

// TestGoldenLoRAFA makes the steps of PEFT's LoRA-FA: A stays, and B follows the projected gradient.
func TestGoldenLoRAFA(t *testing.T) {
	dir := golden.Dir(t, "peft")
	for _, name := range golden.Cases(t, dir, "case.json") {
		var c struct {
			Method, Base string
			Count        int `json:"trainable_count"`
			Losses       []float64
			Options      struct{ LR, Eps float64 }
		}
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &struct {
			Method *string
		}{&c.Method})
		if c.Method != "LoRA-FA" {
			continue
		}
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
		t.Run(name, func(t *testing.T) {
			values := golden.Load(t, filepath.Join(dir, name, "case.safetensors"))
			m, list := openModel(t, filepath.Join(dir, c.Base)), batches(values)
			ad := openAdapter(t, filepath.Join(dir, name, "adapter"))
			ad.Options.(*LoRA).FreezeA = true
			a, _ := adapt(t, m, ad.Options)
			if err := ad.Fill(a.Store, a.Sites); err != nil {
				t.Fatal(err)
			}
			if have, _ := trainer.Counts(a.Sites); have != c.Count {
				t.Errorf("want %d trained values, have %d", c.Count, have)
			}
			sameLogits(t, "logits", list[0], pass(t, openBackend(t), a, list[0])["logits"], values["logits"].F32)
			o := &oldAdam{lr: c.Options.LR, eps: c.Options.Eps, m: map[string][]float64{}, v: map[string][]float64{}}
			s, err := trainer.NewStepper(trainer.StepConfig{
				Model: a, Backend: openBackend(t), Objective: &Instruction{}, Optimizer: o, Schedule: func(int) float64 { return o.lr },
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range c.Losses {
				r, err := s.Step(t.Context(), list[i:i+1])
				if err != nil {
					t.Fatal(err)
				}
				nearNumber(t, fmt.Sprintf("loss of step %d", i+1), r.Loss, want, 1e-4)
				for _, x := range a.Trained() {
					if ref, ok := values[fmt.Sprintf("step%d/%s", i+1, x.Name)]; ok {
						near(t, fmt.Sprintf("%s after step %d", x.Name, i+1), x.Values, ref.F32, 1e-4)
					}
				}
			}
		})
	}
}
