//go:build e2e

package model

import (
	"context"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/site"
	"tunesmith/token"
)

// realModel is the path of SmolLM2-135M-Instruct as a GGUF file, which scripts/fetch_smollm2 downloads once.
func realModel(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("../scripts/fetch_smollm2", "../models").Output()
	if err != nil {
		t.Fatalf("scripts/fetch_smollm2: %v", err)
	}
	return strings.TrimSpace(string(out))
}

type realCase struct {
	Prompts []struct {
		Text      string `json:"text"`
		IDs       []int  `json:"ids"`
		Positions []int  `json:"positions"`
		Greedy    []int  `json:"greedy_ids"`
	} `json:"prompts"`
	Text struct {
		GradNorms map[string]float64 `json:"grad_norms_fp64"`
		Check     struct {
			Loss float64 `json:"loss_fp64"`
		} `json:"fp32_vs_fp64"`
	} `json:"text"`
}

func TestGoldenRealModel(t *testing.T) {
	dir := filepath.Join(golden.Dir(t, "models"), "smollm2_real")
	var c realCase
	golden.JSON(t, filepath.Join(dir, "case.json"), &c)
	values := golden.Load(t, filepath.Join(dir, "case.safetensors"))
	backend, err := engine.Open("cpu", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	m, err := Open(realModel(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tok, err := token.FromGGUF(m.File.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range c.Prompts {
		if got := tok.IDs(p.Text); !slices.Equal(got, p.IDs) {
			t.Errorf("prompt %d: ids: want %v, have %v", i, p.IDs, got)
		}
	}
	t.Run("greedy", func(t *testing.T) {
		for i, p := range c.Prompts {
			// One pass over the prompt and the expected continuation gives every next token.
			ids := slices.Concat(p.IDs, p.Greedy)
			logits := allLogits(t, m, backend, ids)
			v := m.Config.Vocab
			for k, want := range p.Greedy {
				at := len(p.IDs) - 1 + k
				if got := argmax(logits[at*v : (at+1)*v]); got != want {
					t.Errorf("prompt %d, token %d: want %d, have %d", i, k, want, got)
					break
				}
			}
		}
	})
	t.Run("gradients", func(t *testing.T) {
		ids := values["text/ids"].I32
		r := run{b: 1, t: len(ids), ids: ids, labels: ids, segment: make([]int32, len(ids))}
		for i := range ids {
			r.pos = append(r.pos, int32(i))
		}
		program := gradients(t, m, backend, r)
		loss := float64(program.Output("loss")[0])
		if math.Abs(loss-c.Text.Check.Loss) > 1e-4 {
			t.Errorf("loss: want %.7f, have %.7f", c.Text.Check.Loss, loss)
		}
		worst := 0.0
		for name, want := range c.Text.GradNorms {
			var sum float64
			for _, g := range program.Output("grad." + name) {
				sum += float64(g) * float64(g)
			}
			d := math.Abs(math.Sqrt(sum)-want) / want
			worst = math.Max(worst, d)
			if d > 1e-4 {
				t.Errorf("gradient norm of %s: want %.7g, have %.7g", name, want, math.Sqrt(sum))
			}
		}
		t.Logf("loss %.7f (fp64 %.7f), worst gradient norm %.2g of %d", loss, c.Text.Check.Loss, worst, len(c.Text.GradNorms))
		for name, want := range values {
			if param, ok := strings.CutPrefix(name, "text/grad64."); ok {
				if d := golden.RelL2(program.Output("grad."+param), want.F32); !(d <= 1e-4) {
					t.Errorf("gradient of %s: relative error %.2g", param, d)
				}
			}
		}
	})
}

func gradients(t *testing.T, m *Model, backend engine.Backend, r run) engine.Program {
	t.Helper()
	var params []site.Param
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, r.b, r.t), Positions: g.Input("positions", graph.Int, r.b, r.t)}, all{})
		h := m.Hidden(s)
		logp, _ := m.LogProbs(s, graph.Reshape(h, r.b*r.t, m.Config.Hidden), g.Input("targets", graph.Int, r.b*r.t))
		loss := graph.Scale(graph.Sum(logp), -1/float32(r.t-1))
		g.Output("loss", loss)
		params = s.Map().Params
		var nodes []*graph.Node
		for _, p := range params {
			nodes = append(nodes, g.Param(p.Name, true, p.Shape...))
		}
		for i, d := range graph.Gradient(loss, nodes) {
			g.Output("grad."+params[i].Name, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	store := engine.NewStore()
	if err := m.Load(store, params); err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, store)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(context.Background(), engine.Feeds{"ids": r.ids, "positions": r.pos, "targets": r.targets()}); err != nil {
		t.Fatal(err)
	}
	return p
}

func allLogits(t *testing.T, m *Model, backend engine.Backend, ids []int) []float32 {
	t.Helper()
	n := len(ids)
	var params []site.Param
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, 1, n), Positions: g.Input("positions", graph.Int, 1, n)})
		g.Output("logits", m.Logits(s, m.Hidden(s)))
		params = s.Map().Params
	})
	if err != nil {
		t.Fatal(err)
	}
	store := engine.NewStore()
	if err := m.Load(store, params); err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, store)
	if err != nil {
		t.Fatal(err)
	}
	feed, pos := make([]int32, n), make([]int32, n)
	for i, id := range ids {
		feed[i], pos[i] = int32(id), int32(i)
	}
	if err := p.Run(context.Background(), engine.Feeds{"ids": feed, "positions": pos}); err != nil {
		t.Fatal(err)
	}
	return p.Output("logits")
}
