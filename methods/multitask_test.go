package methods

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
	"tunesmith/tune"
)

// closeTo compares within 1e-12, relative above 1.
func closeTo(a, b float64) bool { return math.Abs(a-b) <= 1e-12*math.Max(1, math.Abs(b)) }

func TestGoldenMixtureShares(t *testing.T) {
	var file struct {
		Cases []struct {
			Sizes       []int
			Temperature any
			Cap         *float64
			Scale       float64
			P           []float64
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "multitask"), "mixing.json"), &file)
	checked := 0
	for _, c := range file.Cases {
		o := &Multitask{Temperature: math.Inf(1), Count: "tokens"}
		if v, ok := c.Temperature.(float64); ok {
			o.Temperature = v
		}
		if c.Cap != nil {
			o.Cap = int(*c.Cap)
			if float64(o.Cap) != *c.Cap || o.Cap == 0 {
				continue // a cap of half an example; data.Mixing takes it
			}
		}
		if c.Scale != 1 {
			continue // data.Mixing takes it
		}
		var tasks []tune.TaskSize
		for i, n := range c.Sizes {
			tasks = append(tasks, tune.TaskSize{Name: string(rune('a' + i)), Tokens: int64(n)})
		}
		parts, err := o.Parts(tasks)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range parts {
			if !closeTo(p.Share, c.P[i]) || p.Weight != 1 || p.From != 0 {
				t.Errorf("%+v: task %d has %+v", c, i, p)
			}
		}
		checked++
	}
	if checked == 0 {
		t.Error("no case is checked")
	}
}

func TestGoldenPCGrad(t *testing.T) {
	var file struct {
		Cases []struct {
			Name      string
			Grads     [][]float64
			Cosine    [][]float64
			Conflicts [][2]int
			Projected map[string]struct {
				Order     [][]int
				Grads     [][]float64
				Sum, Mean []float64
			}
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "multitask"), "pcgrad.json"), &file)
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			// The gradient lies in two parameters, so that sums over both are tested.
			cut := func() (out [][][]float64) {
				for _, g := range c.Grads {
					n := len(g) / 2
					out = append(out, [][]float64{slices.Clone(g[:n]), slices.Clone(g[n:])})
				}
				return out
			}
			grads := cut()
			conflicts := [][2]int{}
			for i := range grads {
				for j := range grads {
					if have := cosine(grads[i], grads[j]); !closeTo(have, c.Cosine[i][j]) {
						t.Errorf("cosine %d, %d: want %g, have %g", i, j, c.Cosine[i][j], have)
					}
					if j > i && dot(grads[i], grads[j]) < 0 {
						conflicts = append(conflicts, [2]int{i, j})
					}
				}
			}
			if d := cmp.Diff(c.Conflicts, conflicts); d != "" {
				t.Errorf("conflicts: -want +have:\n%s", d)
			}
			for name, p := range c.Projected {
				grads := cut()
				project(grads, p.Order)
				sum := make([]float64, len(p.Sum))
				for i, g := range grads {
					for k, v := range slices.Concat(g...) {
						sum[k] += v
						if !closeTo(v, p.Grads[i][k]) {
							t.Errorf("%s: gradient %d[%d]: want %g, have %g", name, i, k, p.Grads[i][k], v)
						}
					}
				}
				for k := range sum {
					if !closeTo(sum[k], p.Sum[k]) || !closeTo(sum[k]/float64(len(grads)), p.Mean[k]) {
						t.Errorf("%s: sum[%d]: want %g, have %g", name, k, p.Sum[k], sum[k])
					}
				}
			}
		})
	}
}

func TestGoldenUncertainty(t *testing.T) {
	var file struct {
		Cases []struct {
			Name, Kind string
			Losses, S  []float64
			Total      float64
			Terms      []float64
			GradLosses []float64  `json:"grad_losses"`
			GradS      []float64  `json:"grad_s"`
			Optimum    []*float64 `json:"optimum_s"`
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "multitask"), "uncertainty.json"), &file)
	forms := map[string]noise{"classification": classification, "regression": regression, "log_variance": logVariance}
	for _, c := range file.Cases {
		t.Run(c.Name+"/"+c.Kind, func(t *testing.T) {
			form, ok := forms[c.Kind]
			if !ok {
				t.Fatalf("unknown form %s", c.Kind)
			}
			total := 0.0
			for i, loss := range c.Losses {
				term, factor, slope := uncertainty(form, loss, c.S[i])
				total += term
				if !closeTo(term, c.Terms[i]) || !closeTo(factor, c.GradLosses[i]) || !closeTo(slope, c.GradS[i]) {
					t.Errorf("task %d: want %g, %g, %g, have %g, %g, %g", i, c.Terms[i], c.GradLosses[i], c.GradS[i], term, factor, slope)
				}
				if best := c.Optimum[i]; best != nil {
					if _, _, slope := uncertainty(form, loss, *best); math.Abs(slope) > 1e-12 {
						t.Errorf("task %d: slope %g at the optimum", i, slope)
					}
				}
			}
			if !closeTo(total, c.Total) {
				t.Errorf("want %g, have %g", c.Total, total)
			}
		})
	}
}

// parts gives triples of share, weight and start their names.
func parts(values ...float64) (out []tune.TaskPart) {
	for v := range slices.Chunk(values, 3) {
		out = append(out, tune.TaskPart{Share: v[0], Weight: v[1], From: v[2]})
	}
	return out
}

func TestMultitaskParts(t *testing.T) {
	tasks := []tune.TaskSize{{Name: "big", Examples: 900, Tokens: 900}, {Name: "small", Examples: 100, Tokens: 3600}}
	for _, c := range []struct {
		o    Multitask
		want []tune.TaskPart
	}{
		{Multitask{Temperature: 1, Count: "examples"}, parts(0.9, 1, 0, 0.1, 1, 0)},
		{Multitask{Temperature: 2, Count: "examples"}, parts(0.75, 1, 0, 0.25, 1, 0)},
		{Multitask{Temperature: 1, Count: "examples", Cap: 100}, parts(0.5, 1, 0, 0.5, 1, 0)},
		{Multitask{Temperature: 1, Count: "tokens"}, parts(0.2, 1, 0, 0.8, 1, 0)},
		{
			Multitask{Temperature: 1, Shares: map[string]float64{"big": 0.3, "small": 0.7}, Weights: map[string]float64{"small": 2}, From: map[string]float64{"small": 0.5}},
			parts(0.3, 1, 0, 0.7, 2, 0.5),
		},
	} {
		have, err := c.o.Parts(tasks)
		if d := cmp.Diff(c.want, have); d != "" || err != nil {
			t.Errorf("%+v: %v\n%s", c.o, err, d)
		}
	}
	for want, o := range map[string]Multitask{
		`no data set has the task "smal", did you mean small?`: {Temperature: 1, Weights: map[string]float64{"smal": 2}},
		"takes part from the start":                            {Temperature: 1, From: map[string]float64{"small": 0.5, "big": 0.1}},
		"temperature":                                          {Temperature: -1},
	} {
		if _, err := o.Parts(tasks); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
	bad := Multitask{Shares: map[string]float64{"a": 2}, Weights: map[string]float64{"a": -1}, From: map[string]float64{"a": 1}}
	if problems := bad.Validate(); len(problems) != 4 {
		t.Errorf("want 4 problems, have %v", problems)
	}
}

func TestUncertaintyFindsItsOptimum(t *testing.T) {
	o := &Multitask{Weighting: "uncertainty", Conflicts: "ignore"}
	c := o.Combiner([]string{"easy", "hard"}, 1)
	for range 3000 {
		c.Learn([]int{0, 1}, []float64{0.1, 3}, 1e-3)
	}
	for i, loss := range []float64{0.1, 3} {
		if want := 1 / (2 * loss); math.Abs(c.Factor(i)-want) > 0.02*want {
			t.Errorf("factor of a loss of %g: want %g, have %g", loss, want, c.Factor(i))
		}
	}
	state, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	again := o.Combiner([]string{"easy", "hard"}, 1)
	if err := again.Restore(state); err != nil || again.Factor(1) != c.Factor(1) {
		t.Errorf("restored: %v, %g and %g", err, again.Factor(1), c.Factor(1))
	}
	if err := o.Combiner([]string{"one"}, 1).Restore(state); err == nil {
		t.Error("want an error for the state of other tasks")
	}
}

func TestCombinerReportsConflicts(t *testing.T) {
	for _, mode := range []string{"report", "project"} {
		c := (&Multitask{Weighting: "fixed", Conflicts: mode}).Combiner([]string{"a", "b"}, 1)
		grads := [][][]float32{{{1, 0}}, {{-1, 1}}}
		c.Combine(0, []int{1, 0}, grads)
		if lines := c.Lines(); len(lines) != 1 || !strings.Contains(lines[0], "a and b: mean cosine of the gradients -0.707, against each other in 1 of 1 steps") {
			t.Errorf("have %q", lines)
		}
		want := [][][]float32{{{1, 0}}, {{-1, 1}}}
		if mode == "project" {
			want = [][][]float32{{{0.5, 0.5}}, {{0, 1}}}
		}
		if d := cmp.Diff(want, grads); d != "" || !c.Separate() || c.Factor(0) != 1 {
			t.Errorf("%s: -want +have:\n%s", mode, d)
		}
	}
	if (&Multitask{Weighting: "fixed", Conflicts: "ignore"}).Combiner([]string{"a"}, 1) != nil {
		t.Error("want nothing where nothing looks at the tasks")
	}
}
