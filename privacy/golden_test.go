package privacy

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/internal/golden"
)

type goldenCase struct {
	History []struct {
		Noise float64 `json:"noise_multiplier"`
		Rate  float64 `json:"sample_rate"`
		Steps int     `json:"steps"`
	} `json:"history"`
	Delta   float64  `json:"delta"`
	RDP     float64  `json:"opacus_rdp_eps"`
	Order   float64  `json:"opacus_rdp_alpha"`
	Integer float64  `json:"opacus_rdp_eps_integer_2_63"`
	PRV     *float64 `json:"opacus_prv_eps"`
	PLD     *float64 `json:"dp_accounting_pld_eps"`
	At      struct {
		Orders []float64 `json:"alphas"`
		RDP    []float64 `json:"rdp"`
	} `json:"rdp_at_alpha"`
}

type goldenEpsilons struct {
	Orders      []float64    `json:"default_alphas"`
	Cases       []goldenCase `json:"cases"`
	Calibration []struct {
		Target  float64  `json:"target_epsilon"`
		Delta   float64  `json:"delta"`
		Rate    float64  `json:"sample_rate"`
		Steps   int      `json:"steps"`
		By      Kind     `json:"accountant"`
		Noise   *float64 `json:"noise_multiplier"`
		Failure string   `json:"error"`
	} `json:"calibration"`
}

func near(t *testing.T, what string, have, want, most float64) {
	t.Helper()
	if d := math.Abs(have - want); !(d <= most) {
		t.Errorf("%s: want %.10g, have %.10g", what, want, have)
	}
}

func TestGoldenEpsilon(t *testing.T) {
	var g goldenEpsilons
	golden.JSON(t, filepath.Join(golden.Dir(t, "privacy"), "epsilon.json"), &g)
	if !slices.EqualFunc(Orders(), g.Orders, func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }) {
		t.Errorf("orders: want %v, have %v", g.Orders, Orders())
	}
	integers := make([]float64, 0, 62)
	for a := 2; a < 64; a++ {
		integers = append(integers, float64(a))
	}
	for i, c := range g.Cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var h []Event
			for _, e := range c.History {
				h = append(h, Event{e.Noise, e.Rate, e.Steps})
			}
			for k, order := range c.At.Orders {
				var have float64
				for _, e := range h {
					have += RDP(e, order)
				}
				near(t, fmt.Sprintf("RDP of order %g", order), have, c.At.RDP[k], 1e-9+1e-6*math.Abs(c.At.RDP[k]))
			}
			epsilon, order := EpsilonRDP(h, c.Delta)
			near(t, "ε by RDP", epsilon, c.RDP, 1e-4)
			near(t, "order", order, c.Order, 1e-9)
			epsilon, _ = EpsilonRDP(h, c.Delta, integers...)
			near(t, "ε by integer orders", epsilon, c.Integer, 1e-4)
			prv, err := EpsilonPRV(h, c.Delta)
			if err != nil {
				t.Fatal(err)
			}
			if c.PRV != nil {
				near(t, "ε by PRV", prv, *c.PRV, 0.02**c.PRV)
			}
			if c.PLD != nil && prv < *c.PLD {
				t.Errorf("ε by PRV: want a bound of %g, have %g", *c.PLD, prv)
			}
			if !(prv <= c.RDP+epsilonError) {
				t.Errorf("ε by PRV: want at most that by RDP %g, have %g", c.RDP, prv)
			}
		})
	}
}

func TestGoldenCalibration(t *testing.T) {
	var g goldenEpsilons
	golden.JSON(t, filepath.Join(golden.Dir(t, "privacy"), "epsilon.json"), &g)
	for i, c := range g.Calibration {
		t.Run(fmt.Sprintf("%d_%s", i, c.By), func(t *testing.T) {
			if c.Noise == nil {
				t.Skipf("the library failed: %s", c.Failure)
			}
			if testing.Short() && c.By == ByPRV {
				t.Skip("composes dozens of distributions")
			}
			noise, err := Calibrate(c.By, c.Target, c.Delta, c.Rate, c.Steps)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "noise", noise, *c.Noise, 1e-2**c.Noise)
			if e, err := Epsilon(c.By, []Event{{noise, c.Rate, c.Steps}}, c.Delta); err != nil || e > c.Target {
				t.Errorf("want ε at most %g, have %g, %v", c.Target, e, err)
			}
		})
	}
}

func TestGoldenClip(t *testing.T) {
	dir := golden.Dir(t, "privacy")
	tensors := golden.Load(t, filepath.Join(dir, "per_sample_clip.safetensors"))
	var g struct {
		Runs []struct {
			Index   int       `json:"index"`
			Limit   float64   `json:"max_grad_norm"`
			Factors []float64 `json:"clip_factor"`
		} `json:"runs"`
	}
	golden.JSON(t, filepath.Join(dir, "per_sample_clip.json"), &g)
	const prefix = "grad_sample/"
	var names []string
	for name := range tensors {
		if p, ok := strings.CutPrefix(name, prefix); ok {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	norms := tensors["per_example_norm"].F32
	example := func(i int) [][]float32 {
		var out [][]float32
		for _, p := range names {
			all := tensors[prefix+p]
			n := len(all.F32) / all.Shape[0]
			out = append(out, slices.Clone(all.F32[i*n:(i+1)*n]))
		}
		return out
	}
	for _, run := range g.Runs {
		t.Run(fmt.Sprint(run.Index), func(t *testing.T) {
			sum := Sum{Limit: run.Limit}
			for i, norm := range norms {
				grads := example(i)
				near(t, "norm", Norm(grads), float64(norm), 1e-5*float64(norm))
				near(t, "factor", Factor(Norm(grads), run.Limit), run.Factors[i], 1e-6)
				sum.Add(grads)
				if Clip(grads, run.Limit); Norm(grads) > run.Limit*(1+1e-6) {
					t.Errorf("want a norm of at most %g, have %g", run.Limit, Norm(grads))
				}
			}
			for k, p := range names {
				want := tensors[fmt.Sprintf("clip%d/summed_grad/%s", run.Index, p)].F32
				scaled := tensors[fmt.Sprintf("clip%d/grad_after_scale/%s", run.Index, p)].F32
				after := tensors[fmt.Sprintf("clip%d/param_after_sgd_lr0.5/%s", run.Index, p)].F32
				start := tensors["param/"+p].F32
				var have, mean, moved []float32
				for i, v := range sum.Values[k] {
					have = append(have, float32(v))
					mean = append(mean, float32(v/float64(sum.Terms)))
					moved = append(moved, float32(float64(start[i])-0.5*v/float64(sum.Terms)))
				}
				for what, pair := range map[string][2][]float32{"sum": {have, want}, "mean": {mean, scaled}, "step": {moved, after}} {
					if d := golden.RelL2(pair[0], pair[1]); !(d <= 1e-5) {
						t.Errorf("%s of %s: relative error %g", what, p, d)
					}
				}
			}
		})
	}
}
