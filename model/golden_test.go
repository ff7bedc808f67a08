package model

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/site"
)

type goldenCase struct {
	Name      string `json:"name"`
	ModelType string `json:"model_type"`
	Head      string `json:"head"`
	Runs      []struct {
		Prefix     string  `json:"prefix"`
		Loss       float64 `json:"loss"`
		Aux        float64 `json:"aux_loss"`
		Coef       float64 `json:"router_aux_loss_coef"`
		Supervised int     `json:"supervised_tokens"`
	} `json:"runs"`
	Greedy []struct {
		Prompt       []int `json:"prompt"`
		Continuation []int `json:"continuation"`
	} `json:"greedy"`
	Prompts []any `json:"prompts"` // only of the real model, which has a test of its own
}

func TestGoldenModels(t *testing.T) {
	dir := golden.Dir(t, "models")
	for _, name := range golden.Cases(t, dir, "case.json") {
		t.Run(name, func(t *testing.T) {
			var c goldenCase
			golden.JSON(t, filepath.Join(dir, name, "case.json"), &c)
			if len(c.Prompts) > 0 {
				t.Skip("the real model is tested under the tag e2e")
			}
			if c.Head == "layer" {
				t.Skip("a layer alone is tested by TestGoldenSwitch")
			}
			checkCase(t, filepath.Join(dir, name), c)
		})
	}
}

func checkCase(t *testing.T, dir string, c goldenCase) {
	backend, err := engine.Open("cpu", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	values := golden.Load(t, filepath.Join(dir, "case.safetensors"))
	for _, run := range c.Runs {
		t.Run("run "+run.Prefix, func(t *testing.T) {
			r := newRun(values, run.Prefix)
			r.aux, r.coef = run.Aux, run.Coef
			r.check(t, m, backend, run.Loss, run.Supervised)
		})
	}
	t.Run("greedy", func(t *testing.T) {
		for i, g := range c.Greedy {
			ids := append([]int(nil), g.Prompt...)
			for step, want := range g.Continuation {
				if got := argmax(lastLogits(t, m, backend, ids)); got != want {
					t.Fatalf("prompt %d, token %d: want %d, have %d", i, step, want, got)
				}
				ids = append(ids, want)
			}
		}
	})
	for _, variant := range []string{"config_v4.json"} {
		path := filepath.Join(dir, variant)
		if other, err := ReadConfig(path); err == nil {
			if diff := cmp.Diff(m.Config, other); diff != "" {
				t.Errorf("%s gives another model, -want +have:\n%s", variant, diff)
			}
		}
	}
	if alt, err := Open(filepath.Join(dir, "alt")); err == nil {
		defer alt.Close()
		newRun(values, c.Runs[0].Prefix).check(t, alt, backend, c.Runs[0].Loss, c.Runs[0].Supervised)
	}
}

// run is one golden forward and backward pass.
type run struct {
	values  map[string]golden.Tensor
	b, t    int
	ids     []int32
	labels  []int32
	mask    []int32
	pos     []int32
	segment []int32

	aux, coef float64 // the loss of the experts' balance and its weight
}

func newRun(values map[string]golden.Tensor, prefix string) run {
	own := map[string]golden.Tensor{}
	for k, v := range values {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			own[rest] = v
		}
	}
	ids := own["input_ids"]
	r := run{values: own, b: ids.Shape[0], t: ids.Shape[1], ids: ids.I32, labels: own["labels"].I32}
	r.mask, r.pos, r.segment = own["attention_mask"].I32, own["position_ids"].I32, own["segment_ids"].I32
	if r.pos == nil {
		for range r.b {
			for i := range r.t {
				r.pos = append(r.pos, int32(i))
			}
		}
	}
	if r.segment == nil {
		r.segment = make([]int32, len(r.ids))
	}
	for i, m := range r.mask {
		if m == 0 {
			r.segment[i] = -1
		}
	}
	return r
}

// all trains every parameter.
type all struct{}

func (all) TrainBase(string) bool { return true }

func (r run) check(t *testing.T, m *Model, backend engine.Backend, wantLoss float64, supervised int) {
	t.Helper()
	var params []site.Param
	var hidden int
	var routes []site.Route
	g, err := graph.Build(func(g *graph.Graph) {
		in := site.Inputs{
			IDs: g.Input("ids", graph.Int, r.b, r.t), Positions: g.Input("positions", graph.Int, r.b, r.t),
			Segments: g.Input("segments", graph.Int, r.b, r.t),
		}
		s := site.New(g, in, all{})
		h := m.hidden(s, func(x *graph.Node) {
			g.Output("hidden."+string(rune('0'+hidden)), x)
			hidden++
		})
		if m.Config.Head.Kind == SequenceHead {
			h = graph.Rows(graph.Reshape(h, r.b*r.t, m.Config.Hidden), g.Ints(LastTokens(r.ids, r.t, m.Config.PadID), r.b))
		}
		logits := m.Logits(s, h)
		g.Output("logits", logits)
		loss := r.loss(m, s, h, logits, supervised)
		if r.coef != 0 {
			aux := Balance(s.Routes())
			g.Output("aux", aux)
			loss = graph.Plus(loss, graph.Scale(aux, float32(r.coef)))
		}
		routes = s.Routes()
		for i, route := range routes {
			g.Output(fmt.Sprint("logits of router ", i), route.Logits)
			g.Output(fmt.Sprint("weights of router ", i), weights(route, m.Config.Mixture.Normalize))
		}
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
	if err := p.Run(context.Background(), engine.Feeds{"ids": r.ids, "positions": r.pos, "segments": r.segment}); err != nil {
		t.Fatal(err)
	}
	if got := float64(p.Output("loss")[0]); math.Abs(got-wantLoss) > 1e-5*math.Max(1, math.Abs(wantLoss)) {
		t.Errorf("loss: want %.7f, have %.7f", wantLoss, got)
	}
	if r.coef != 0 && math.Abs(float64(p.Output("aux")[0])-r.aux) > 1e-5*r.aux {
		t.Errorf("balance: want %.7f, have %.7f", r.aux, p.Output("aux")[0])
	}
	for i := range routes {
		r.routing(t, m, p, i)
	}
	for i := range hidden {
		name := "hidden." + string(rune('0'+i))
		if want, ok := r.values[name]; ok {
			r.near(t, name, p.Output(name), want.F32, m.Config.Hidden)
		}
	}
	width := m.Config.Vocab
	if m.Config.Head.Kind != "" {
		width = m.Config.Head.Labels
	}
	r.near(t, "logits", p.Output("logits"), r.values["logits"].F32, width)
	for name, want := range r.values {
		param, ok := strings.CutPrefix(name, "grad.")
		if !ok {
			continue
		}
		if d := golden.RelL2(p.Output("grad."+param), want.F32); !(d <= 1e-4) {
			t.Errorf("gradient of %s: relative error %.2g, want <= 1e-4", param, d)
		}
	}
}

// routing compares what router number i decided. The numbers in the file are those of layers.
func (r run) routing(t *testing.T, m *Model, p engine.Program, i int) {
	var layers []int
	for l := range m.Config.Layers {
		if _, ok := r.values[fmt.Sprint("router_logits.", l)]; ok {
			layers = append(layers, l)
		}
	}
	layer := layers[i]
	n := m.Config.Mixture.Experts
	r.near(t, fmt.Sprint("logits of the router of layer ", layer), p.Output(fmt.Sprint("logits of router ", i)), r.values[fmt.Sprint("router_logits.", layer)].F32, n)
	experts, want := r.values[fmt.Sprint("selected_experts.", layer)], r.values[fmt.Sprint("routing_weights.", layer)].F32
	have, k := p.Output(fmt.Sprint("weights of router ", i)), experts.Shape[1]
	for row := range experts.Shape[0] {
		if r.mask != nil && r.mask[row] == 0 {
			continue
		}
		for j := row * k; j < (row+1)*k; j++ {
			if w := have[row*n+int(experts.I32[j])]; math.Abs(float64(w-want[j])) > 2e-5 {
				t.Errorf("layer %d, row %d, expert %d: want weight %g, have %g", layer, row, experts.I32[j], want[j], w)
			}
		}
	}
}

// near compares rows of c values at the positions that the mask keeps, by tolerance class E3.
func (r run) near(t *testing.T, name string, got, want []float32, c int) {
	t.Helper()
	var a, b []float32
	for i := range len(want) / c {
		if r.mask == nil || len(want) < len(r.ids)*c || r.mask[i] != 0 {
			a, b = append(a, got[i*c:(i+1)*c]...), append(b, want[i*c:(i+1)*c]...)
		}
	}
	if d, rel := golden.MaxAbs(a, b), golden.RelL2(a, b); !(d <= 2e-4 && rel <= 2e-5) {
		t.Errorf("%s: largest difference %.2g, relative %.2g, want <= 2e-4 and 2e-5", name, d, rel)
	}
}

// loss builds the case's loss of the hidden states and their logits, whose form depends on the head.
func (r run) loss(m *Model, s *site.Scope, h, logits *graph.Node, supervised int) *graph.Node {
	labels := r.values["labels"]
	switch {
	case labels.F32 != nil && m.Config.Head.Problem == "multi_label_classification":
		// Binary cross-entropy: softplus(z) − y·z.
		y := s.Floats(labels.F32, logits.Shape()...)
		return graph.Mean(graph.Minus(graph.Apply(graph.Softplus, logits), graph.Times(y, logits)))
	case labels.F32 != nil:
		return graph.Mean(graph.Apply(graph.Square, graph.Minus(logits, s.Floats(labels.F32, logits.Shape()...))))
	}
	targets := labels.I32
	if m.Config.Head.Kind == "" {
		targets = r.targets()
	}
	clean, n := make([]int32, len(targets)), 0
	for i, y := range targets {
		clean[i] = max(y, -1)
		n += min(int(clean[i])+1, 1)
	}
	if supervised > 0 {
		n = supervised
	}
	logp, _ := m.LogProbs(s, graph.Reshape(h, len(clean), m.Config.Hidden), s.Ints(clean, len(clean)))
	return graph.Scale(graph.Sum(logp), -1/float32(n))
}

// targets are the labels one position on, −1 for none.
func (r run) targets() []int32 {
	out := make([]int32, len(r.ids))
	for i := range out {
		out[i] = -1
		if i%r.t != r.t-1 && r.labels[i+1] >= 0 {
			out[i] = r.labels[i+1]
		}
	}
	return out
}

func lastLogits(t *testing.T, m *Model, backend engine.Backend, ids []int) []float32 {
	t.Helper()
	n := len(ids)
	var params []site.Param
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, 1, n), Positions: g.Input("positions", graph.Int, 1, n)})
		h := m.Hidden(s)
		g.Output("logits", m.Logits(s, graph.SliceAxis(h, 1, n-1, n)))
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

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}
