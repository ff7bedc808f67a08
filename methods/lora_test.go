package methods

import (
	"strings"
	"testing"

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
	} {
		if _, err := c.options.Graft(m.Map()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, have %v", c.want, err)
		}
	}
}
