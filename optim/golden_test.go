package optim

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"tunesmith/internal/golden"
)

// number is a JSON number, or the name of a value that JSON lacks.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	switch s := strings.Trim(string(b), `"`); s {
	case "nan":
		*n = number(math.NaN())
	case "inf":
		*n = number(math.Inf(1))
	case "-inf":
		*n = number(math.Inf(-1))
	default:
		var f float64
		if err := json.Unmarshal([]byte(s), &f); err != nil {
			return err
		}
		*n = number(f)
	}
	return nil
}

// near is tolerance class E1: |Δ| ≤ tol·max(1, |want|), with equal infinities and NaN where NaN is wanted.
func near(got, want, tol float64) bool {
	if math.IsNaN(want) || math.IsInf(want, 0) {
		return got == want || math.IsNaN(got) && math.IsNaN(want)
	}
	return math.Abs(got-want) <= tol*max(1, math.Abs(want))
}

func compare(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: want %d elements, have %d", what, len(want), len(got))
	}
	for i := range want {
		if !near(float64(got[i]), float64(want[i]), tol) {
			t.Fatalf("%s[%d]: want %v, have %v", what, i, want[i], got[i])
		}
	}
}

// ruleOf returns the name in this package of the optimizer of a case.
func ruleOf(name, source, class string) string {
	switch {
	case source == "schedulefree" && strings.Contains(name, "sgd"):
		return "schedulefree_sgd"
	case source == "schedulefree":
		return "schedulefree_adamw"
	case class == "torch.optim.Adafactor":
		return "torch_adafactor"
	case strings.HasPrefix(source, "transformers"):
		return "adafactor"
	case class != "":
		return strings.ToLower(strings.TrimPrefix(class, "torch.optim."))
	}
	for _, n := range Names() {
		if strings.HasPrefix(name, n) {
			return n
		}
	}
	return name
}

func TestGoldenSteps(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Steps int
		Dump  []int            `json:"dumped_after_steps"`
		Shape map[string][]int `json:"shapes"`
		Cases []struct {
			Name, Source, Error string
			Config              json.RawMessage
			Params              []string
			LR                  []float64 `json:"lr_per_step"`
		}
	}
	golden.JSON(t, filepath.Join(dir, "steps.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	tensors := golden.Load(t, filepath.Join(dir, "steps.safetensors"))
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Error != "" {
				t.Skipf("the library failed: %s", c.Error)
			}
			var set struct {
				Cls         string
				LR          float64
				WeightDecay float64 `json:"weight_decay"`
			}
			if err := json.Unmarshal(c.Config, &set); err != nil {
				t.Fatal(err)
			}
			var o Options
			if err := yaml.Unmarshal(settings(t, c.Config), &o); err != nil {
				t.Fatal(err)
			}
			o.Groups = []Group{{LRScale: 1, WeightDecay: set.WeightDecay}}
			opt, err := New(ruleOf(c.Name, c.Source, set.Cls), o)
			if err != nil {
				t.Fatal(err)
			}
			tol := 1e-6
			if set.Cls == "torch.optim.Muon" {
				tol = 5e-3 // torch iterates in bfloat16
			}
			var params []Param
			for _, name := range c.Params {
				init := tensors["init/"+name]
				params = append(params, Param{Name: name, Shape: file.Shape[name], Value: slices.Clone(init.F32)})
			}
			for step := 1; step <= file.Steps; step++ {
				for i, p := range params {
					params[i].Grad = slices.Clone(tensors[fmt.Sprintf("grad/step%d/%s", step, p.Name)].F32)
				}
				lr := set.LR
				if c.LR != nil {
					lr = c.LR[step-1]
				}
				if err := opt.Step(params, lr); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(file.Dump, step) {
					continue
				}
				at := fmt.Sprintf("%s/step%d/", c.Name, step)
				for _, p := range params {
					compare(t, at+"param/"+p.Name, p.Value, tensors[at+"param/"+p.Name].F32, tol)
				}
				if a, ok := opt.(Averager); ok {
					dst := make([][]float32, len(params))
					for i, p := range params {
						dst[i] = make([]float32, len(p.Value))
					}
					if err := a.Average(params, dst); err != nil {
						t.Fatal(err)
					}
					for i, p := range params {
						compare(t, at+"param_eval/"+p.Name, dst[i], tensors[at+"param_eval/"+p.Name].F32, tol)
					}
				}
				state := opt.State()
				for _, s := range state.Tensors {
					key := at + "state/" + s.Name + "/" + s.Param
					want, ok := tensors[key]
					if !ok {
						t.Errorf("no tensor %s in the file", key)
					}
					compare(t, key, s.Data, want.F32, tol)
				}
				for _, p := range params {
					if want, ok := tensors[at+"state/step/"+p.Name]; ok && float64(want.F32[0]) != float64(state.Counters["step"]) {
						t.Errorf("step: want %v, have %d", want.F32[0], state.Counters["step"])
					}
				}
			}
		})
	}
}

// settings returns a case's configuration without null values, which mean the default, and with lists of scalars
// that this package names apart.
func settings(t *testing.T, raw json.RawMessage) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range m {
		if v == nil {
			delete(m, k)
		}
	}
	if pair, ok := m["eps"].([]any); ok {
		m["eps"], m["eps2"] = pair[0], pair[1]
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenClip(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Order []string `json:"tensor_order"`
		Cases []struct {
			Key, Input, Kind, Error string
			P                       string  `json:"norm_type"`
			Max                     float64 `json:"max_norm"`
			Limit                   float64 `json:"clip_value"`
			Total                   *number `json:"total_norm"`
		}
	}
	golden.JSON(t, filepath.Join(dir, "clip.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	tensors := golden.Load(t, filepath.Join(dir, "clip.safetensors"))
	for _, c := range file.Cases {
		t.Run(c.Key, func(t *testing.T) {
			var params []Param
			finite := true
			for _, name := range file.Order {
				g := tensors[c.Input+"/grad/"+name]
				for _, v := range g.F32 {
					finite = finite && !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
				}
				params = append(params, Param{Name: name, Shape: g.Shape, Value: make([]float32, g.Len()), Grad: slices.Clone(g.F32)})
			}
			check := func() {
				t.Helper()
				for _, p := range params {
					compare(t, p.Name, p.Grad, tensors[c.Key+"/clipped/"+p.Name].F32, 1e-6)
				}
			}
			if c.Kind == "value" {
				ClipValue(params, c.Limit, nil)
				check()
				return
			}
			var p number
			if err := p.UnmarshalJSON([]byte(c.P)); err != nil {
				t.Fatal(err)
			}
			norm := ClipNorm(params, c.Max, float64(p), nil)
			overflow := finite && (c.Error != "" || math.IsInf(float64(*c.Total), 0))
			if overflow { // torch's fp32 sum overflows; the true norm is the largest element times a norm near 1
				var top, s float64
				for _, q := range params {
					for _, v := range tensors[c.Input+"/grad/"+q.Name].F32 {
						top = max(top, math.Abs(float64(v)))
					}
				}
				for _, q := range params {
					for _, v := range tensors[c.Input+"/grad/"+q.Name].F32 {
						s += math.Pow(math.Abs(float64(v))/top, float64(p))
					}
				}
				want := top * math.Pow(s, 1/float64(p))
				if math.Abs(norm-want) > 1e-12*want {
					t.Errorf("norm: want %v, have %v", want, norm)
				}
				if after := Norm(params, float64(p), nil); math.Abs(after-c.Max) > 1e-6*c.Max {
					t.Errorf("norm after clipping: want %v, have %v", c.Max, after)
				}
				return
			}
			if c.Error != "" {
				if !math.IsNaN(norm) && !math.IsInf(norm, 0) {
					t.Errorf("want a norm that is no number, have %v", norm)
				}
				return
			}
			if !near(norm, float64(*c.Total), 1e-6) {
				t.Errorf("norm: want %v, have %v", *c.Total, norm)
			}
			check()
		})
	}
}

func TestGoldenSchedules(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Cases []struct {
			Scheduler, Error string
			LR               float64 `json:"base_lr"`
			Total            int     `json:"total_steps"`
			Warmup           float64 `json:"warmup_setting"`
			WarmupSteps      int     `json:"warmup_steps"`
			Kwargs           json.RawMessage
			Want             []float64 `json:"lr"`
		}
	}
	golden.JSON(t, filepath.Join(dir, "schedules.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range file.Cases {
		t.Run(fmt.Sprintf("%s/%d/%v/%s", c.Scheduler, c.Total, c.Warmup, c.Kwargs), func(t *testing.T) {
			var o ScheduleOptions
			if err := yaml.Unmarshal(settings(t, c.Kwargs), &o); err != nil {
				t.Fatal(err)
			}
			o.LR, o.Total, o.Warmup = c.LR, c.Total, c.Warmup
			s, err := NewSchedule(c.Scheduler, o)
			if c.Error != "" {
				if err == nil {
					t.Fatalf("want an error (%s)", c.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := o.WarmupSteps(); got != c.WarmupSteps {
				t.Errorf("warm-up: want %d, have %d", c.WarmupSteps, got)
			}
			for i, want := range c.Want {
				if got := s(i); math.Abs(got-want) > 1e-12*c.LR {
					t.Fatalf("lr[%d]: want %v, have %v", i, want, got)
				}
			}
		})
	}
}

func TestGoldenDecayGroups(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Cases []struct {
			Model, Error string
			Parameters   []struct {
				Name  string
				Decay bool
			}
		}
	}
	golden.JSON(t, filepath.Join(dir, "decay_groups.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range file.Cases {
		t.Run(c.Model, func(t *testing.T) {
			for _, p := range c.Parameters {
				if got := Decays(p.Name); got != p.Decay {
					t.Errorf("%s: want %v, have %v", p.Name, p.Decay, got)
				}
			}
		})
	}
}

func TestGoldenLayerwiseLR(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Cases []struct {
			LR, Decay float64
			Layers    int `json:"num_layers"`
			Groups    []struct {
				Name  string
				Depth int
				LR    float64
			}
		}
	}
	golden.JSON(t, filepath.Join(dir, "layerwise_lr.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	for i, c := range file.Cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var names []string
			for _, g := range c.Groups {
				names = append(names, g.Name)
			}
			groups, index := Grouping{LayerDecay: c.Decay, Layers: c.Layers}.Assign(names)
			for i, g := range c.Groups {
				if got := Depth(g.Name, c.Layers); got != g.Depth {
					t.Errorf("%s: want depth %d, have %d", g.Name, g.Depth, got)
				}
				if got := c.LR * groups[index[i]].LRScale; math.Abs(got-g.LR) > 1e-12*g.LR {
					t.Errorf("%s: want lr %v, have %v", g.Name, g.LR, got)
				}
			}
		})
	}
}

func TestGoldenMetricSchedules(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Cases []struct {
			Scheduler, Error string
			LR               float64 `json:"base_lr"`
			Kwargs           json.RawMessage
			Metrics          []float64
			Want             []float64 `json:"lr_after_metric"`
		} `json:"metric_driven"`
	}
	golden.JSON(t, filepath.Join(dir, "schedules.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range file.Cases {
		t.Run(fmt.Sprintf("%s/%s", c.Scheduler, c.Kwargs), func(t *testing.T) {
			var o MetricOptions
			if err := yaml.Unmarshal(settings(t, c.Kwargs), &o); err != nil {
				t.Fatal(err)
			}
			o.LR = c.LR
			s, err := NewMetricSchedule(c.Scheduler, o)
			if c.Error != "" {
				if err == nil {
					t.Fatalf("want an error (%s)", c.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range c.Metrics {
				if i == len(c.Metrics)/2 { // the state survives a stop
					b, err := json.Marshal(s)
					if err != nil {
						t.Fatal(err)
					}
					s, _ = NewMetricSchedule(c.Scheduler, o)
					if err := json.Unmarshal(b, s); err != nil {
						t.Fatal(err)
					}
				}
				if got := s.Observe(m); math.Abs(got-c.Want[i]) > 1e-12*c.Want[i] || got != s.LR() {
					t.Fatalf("lr after metric %d: want %v, have %v", i, c.Want[i], got)
				}
			}
		})
	}
}

func TestGoldenEMA(t *testing.T) {
	dir := golden.Dir(t, "optim")
	var file struct {
		Dump  []int `json:"updates_dumped"`
		Cases []struct {
			Name  string
			Decay float64
		}
	}
	golden.JSON(t, filepath.Join(dir, "ema.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	tensors := golden.Load(t, filepath.Join(dir, "ema.safetensors"))
	kinds := map[string]string{"torch_ema": "ema", "warm_ema": "ema_warmup", "debiased_ema": "ema_debiased", "swa": "swa"}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			prefix := c.Name
			if i := strings.LastIndex(c.Name, "_"); i >= 0 {
				prefix = c.Name[:i]
			}
			a, err := NewWeightAverage(kinds[prefix], c.Decay, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				var params []Param
				for _, name := range slices.Sorted(maps.Keys(tensors)) {
					if p, ok := strings.CutPrefix(name, fmt.Sprintf("weights/step%d/", i)); ok {
						params = append(params, Param{Name: p, Shape: tensors[name].Shape, Value: tensors[name].F32})
					}
				}
				if params == nil {
					break
				}
				if err := a.Update(params); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(file.Dump, i) {
					continue
				}
				dst := make([][]float32, len(params))
				for j, p := range params {
					dst[j] = make([]float32, len(p.Value))
				}
				if err := a.Average(params, dst); err != nil {
					t.Fatal(err)
				}
				for j, p := range params {
					key := fmt.Sprintf("%s/update%d/%s", c.Name, i, p.Name)
					compare(t, key, dst[j], tensors[key].F32, 1e-6)
				}
			}
		})
	}
}
