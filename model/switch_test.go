package model

import (
	"path/filepath"
	"strings"
	"testing"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/site"
)

type switchCase struct {
	Head   string
	Config struct {
		Experts    int     `json:"num_experts"`
		Width      int     `json:"d_ff"`
		Capacity   int     `json:"expert_capacity"`
		Bias       bool    `json:"router_bias"`
		Activation string  `json:"dense_act_fn"`
		Z          float32 `json:"router_z_loss_coef"`
		Aux        float32 `json:"router_aux_loss_coef"`
	}
	Z    float64 `json:"z_loss"`
	Aux  float64 `json:"aux_loss"`
	Loss float64
}

// TestGoldenSwitch runs the layers that stand alone: result, losses, where rows go, and all gradients.
func TestGoldenSwitch(t *testing.T) {
	dir := golden.Dir(t, "models")
	for _, name := range golden.Cases(t, dir, "case.json") {
		var kind struct{ Head string }
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &kind)
		if kind.Head != "layer" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var c switchCase
			golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
			c.check(t, filepath.Join(dir, name))
		})
	}
}

func (c switchCase) check(t *testing.T, dir string) {
	file, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	values := golden.Load(t, filepath.Join(dir, "case.safetensors"))
	x := values["x"]
	var params []site.Param
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{}, all{})
		in := g.Param("x", true, x.Shape...)
		layer := Switch{c.Config.Experts, c.Config.Width, c.Config.Capacity, c.Config.Bias, c.Config.Activation}
		y := layer.Build(s, in)
		r := s.Routes()[0]
		z, aux := RouterZ(s.Routes()), SequenceBalance(r, x.Shape[1])
		loss := graph.Sum(graph.Times(y, g.Floats(values["upstream"].F32, x.Shape...)))
		loss = graph.Plus(loss, graph.Plus(graph.Scale(z, c.Config.Z), graph.Scale(aux, c.Config.Aux)))
		params = append(s.Map().Params, site.Param{Name: "x", Shape: x.Shape})
		var nodes []*graph.Node
		for _, p := range params {
			nodes = append(nodes, g.Param(p.Name, true, p.Shape...))
		}
		g.Output("out", y)
		g.Output("router_logits", r.Logits)
		g.Output("chosen", r.Chosen)
		g.Output("z", z)
		g.Output("aux", aux)
		g.Output("loss", loss)
		for i, d := range graph.Gradient(loss, nodes) {
			g.Output("grad."+params[i].Name, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	store := engine.NewStore()
	for _, p := range params {
		v := x.F32
		if p.Name != "x" {
			w, ok := file.Tensor(p.Name)
			if !ok {
				t.Fatalf("no tensor %q", p.Name)
			}
			v = w.Float32s()
		}
		if err := store.Add(&engine.Tensor{Name: p.Name, Shape: p.Shape, Values: v, Trainable: true}); err != nil {
			t.Fatal(err)
		}
	}
	backend, err := engine.Open("cpu", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	p, err := backend.Compile(g, store)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"z": c.Z, "aux": c.Aux, "loss": c.Loss} {
		if have := float64(p.Output(name)[0]); !(max(have-want, want-have) <= 1e-5*max(1, want, -want)) {
			t.Errorf("%s: want %g, have %g", name, want, have)
		}
	}
	for i, e := range values["expert_index"].I32 {
		if chosen := p.Output("chosen")[i*c.Config.Experts:][:c.Config.Experts]; values["dropped"].I32[i] == 0 && chosen[e] != 1 {
			t.Errorf("row %d: want expert %d, have %v", i, e, chosen)
		}
	}
	for name, want := range values {
		if name == "out" || name == "router_logits" || strings.HasPrefix(name, "grad.") {
			if d := golden.RelL2(p.Output(name), want.F32); !(d <= 1e-5) {
				t.Errorf("%s: relative error %.2g, want <= 1e-5", name, d)
			}
		}
	}
}
