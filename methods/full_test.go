package methods

import (
	"math"
	"strings"
	"testing"

	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/tune"
)

// small is a model of two layers.
func small(t *testing.T) *model.Model {
	t.Helper()
	m, err := model.New(model.Config{
		Type: "llama", Hidden: 8, Intermediate: 12, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 4, Vocab: 16, MaxPositions: 32, NormEps: 1e-5,
		Activation: "silu", Tied: true, PadID: -1, BOS: -1, Windows: make([]int, 2),
		Rope: model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 32, MaxPositions: 32},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFullChooses(t *testing.T) {
	m := small(t)
	for _, c := range []struct {
		name    string
		options Full
		want    func(name string) bool
	}{
		{"all", Full{}, func(string) bool { return true }},
		{"without embeddings", Full{FreezeEmbed: true}, func(n string) bool { return n != "model.embed_tokens.weight" }},
		{"one layer", Full{Layers: []int{1}}, func(n string) bool { return strings.Contains(n, "layers.1.") }},
		{"the last layer", Full{LastLayers: 1}, func(n string) bool { return strings.Contains(n, "layers.1.") }},
		{"by name", Full{Targets: []string{"q_proj"}}, func(n string) bool { return strings.Contains(n, "q_proj") }},
		{"all but a name", Full{Exclude: []string{"norm"}}, func(n string) bool { return n != "model.norm.weight" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			graft, err := c.options.Graft(m.Map())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range m.Map().Params {
				if have := graft.(site.Selector).TrainBase(p.Name); have != c.want(p.Name) {
					t.Errorf("%s: want %v, have %v", p.Name, c.want(p.Name), have)
				}
			}
		})
	}
}

func TestFullRates(t *testing.T) {
	m := small(t)
	graft, err := (&Full{EmbedRatio: 0.1, LayerDecay: 0.5}).Graft(m.Map())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"model.layers.1.mlp.up_proj.weight": 1, "model.layers.0.mlp.up_proj.weight": 0.5, "model.embed_tokens.weight": 0.1 * 0.25, "model.norm.weight": 1,
	} {
		if have := graft.(tune.RateScaler).RateScale(site.Param{Name: name}); math.Abs(have-want) > 1e-12 {
			t.Errorf("%s: want a rate of %g, have %g", name, want, have)
		}
	}
}

func TestFullRefuses(t *testing.T) {
	m := small(t)
	for _, c := range []struct {
		options Full
		want    string
	}{
		{Full{LastLayers: 3}, "last_layers: want at most the model's 2, have 3"},
		{Full{Layers: []int{2}}, "layers: want numbers from 0 to 1, have 2"},
		{Full{Targets: []string{"nothing"}}, "choose none"},
	} {
		if _, err := c.options.Graft(m.Map()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: want %q, have %v", c.options, c.want, err)
		}
	}
}
