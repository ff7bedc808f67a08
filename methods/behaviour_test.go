package methods

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/site"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// objectiveRun is a run of golden/objectives.
type objectiveRun struct {
	Trainer string
	Name    string
	LR      float64
	Config  map[string]any
	Micro   []float64            `json:"micro_losses"`
	Log     []map[string]float64 `json:"-"`
	RawLog  []map[string]any     `json:"log"`
}

// number returns an option of the run.
func (r objectiveRun) number(key string, missing float64) float64 {
	if v, ok := r.Config[key].(float64); ok {
		return v
	}
	return missing
}

func (r objectiveRun) text(key, missing string) string {
	if v, ok := r.Config[key].(string); ok {
		return v
	}
	return missing
}

// objectiveRuns reads the runs of a file of golden/objectives with their tensors, without the run's prefix.
func objectiveRuns(t *testing.T, file string) (dir string, runs []objectiveRun, values map[string]golden.Tensor) {
	t.Helper()
	dir = golden.Dir(t, "objectives")
	var content struct{ Runs []objectiveRun }
	golden.JSON(t, filepath.Join(dir, file+".json"), &content)
	if len(content.Runs) == 0 {
		t.Fatalf("%s holds no run", file)
	}
	for i := range content.Runs {
		for _, line := range content.Runs[i].RawLog {
			numbers := map[string]float64{}
			for k, v := range line {
				if f, ok := v.(float64); ok {
					numbers[k] = f
				}
			}
			content.Runs[i].Log = append(content.Runs[i].Log, numbers)
		}
	}
	return dir, content.Runs, golden.Load(t, filepath.Join(dir, file+".safetensors"))
}

// within returns the tensors of a run without its prefix.
func within(values map[string]golden.Tensor, prefix string) map[string]golden.Tensor {
	out := map[string]golden.Tensor{}
	for name, v := range values {
		if rest, ok := strings.CutPrefix(name, prefix+"/"); ok {
			out[inFile(rest)] = v
		}
	}
	return out
}

// interleave makes a batch whose rows are taken from several tensors in turn, padded to one width.
func interleave(parts ...[3]golden.Tensor) data.Batch {
	cols := 0
	for _, p := range parts {
		cols = max(cols, p[0].Shape[1])
	}
	rows := parts[0][0].Shape[0]
	var ids, labels, mask []int32
	for r := range rows {
		for _, p := range parts {
			n := p[0].Shape[1]
			pad := make([]int32, cols-n)
			ids = append(append(ids, p[0].I32[r*n:(r+1)*n]...), pad...)
			mask = append(append(mask, p[1].I32[r*n:(r+1)*n]...), pad...)
			labels = append(append(labels, p[2].I32[r*n:(r+1)*n]...), slices.Repeat([]int32{-100}, cols-n)...)
		}
	}
	b := batchOf(rows*len(parts), cols, ids, labels, mask, nil, nil)
	b.Sequences = len(parts)
	return b
}

// labelled turns a completion mask into labels.
func labelled(ids, mask golden.Tensor) golden.Tensor {
	out := golden.Tensor{Shape: ids.Shape}
	for i, m := range mask.I32 {
		if m != 0 {
			out.I32 = append(out.I32, ids.I32[i])
		} else {
			out.I32 = append(out.I32, -100)
		}
	}
	return out
}

// half takes the first or the second half of the rows.
func half(v golden.Tensor, i int) golden.Tensor {
	n := len(v.I32) / 2
	return golden.Tensor{Shape: []int{v.Shape[0] / 2, v.Shape[1]}, I32: v.I32[i*n : (i+1)*n]}
}

// targetLogProbs returns the log-probabilities of a batch's targets under a model.
func targetLogProbs(t *testing.T, backend engine.Backend, a *model.Adapted, b data.Batch) []float32 {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		f := tune.Forward{
			Model: a, Rows: b.Rows, Cols: b.Cols, Targets: g.Input("targets", graph.Int, b.Rows*b.Cols),
			Scope: site.New(g, site.Inputs{
				IDs: g.Input("ids", graph.Int, b.Rows, b.Cols), Positions: g.Input("positions", graph.Int, b.Rows, b.Cols),
				Segments: g.Input("segments", graph.Int, b.Rows, b.Cols),
			}, a.Grafts...),
		}
		g.Output("logp", f.LogProbs())
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, a.Store)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context(), engine.Feeds{"ids": b.IDs, "positions": b.Positions, "segments": b.Segments, "targets": b.Targets}); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(p.Output("logp"))
}

// trainRun makes the steps of a run and compares the losses, the gradient norms and the metrics that names maps from
// the library's to ours; then the gradient of the first step, and the final tensors where there are some.
func trainRun(t *testing.T, r objectiveRun, o tune.Objective, fresh func() *model.Adapted, values map[string]golden.Tensor, clip float64, batches []data.Batch, names map[string]string) {
	t.Helper()
	newStepper := func(a *model.Adapted, name string, rate optim.Schedule, clip float64) *trainer.Stepper {
		opt, err := optim.New(name, optim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := trainer.NewStepper(trainer.StepConfig{Model: a, Backend: openBackend(t), Objective: o, Optimizer: opt, Schedule: rate, Clip: clip, Continues: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	rate, err := optim.NewSchedule("linear", optim.ScheduleOptions{LR: max(r.LR, r.number("lr", 0)), Total: len(r.Micro)})
	if err != nil {
		t.Fatal(err)
	}
	a := fresh()
	s := newStepper(a, "adamw", rate, clip)
	if err := s.Refer(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	var worst float64
	for i, want := range r.Micro {
		step, err := s.Step(t.Context(), []data.Batch{batches[i]})
		if err != nil {
			t.Fatal(err)
		}
		// Class E4; the first step has seen no update yet, and is held to E2.
		most, mostNorm := 1e-3, 1e-2
		if i == 0 {
			most, mostNorm = 1e-5, 1e-4
		}
		what := fmt.Sprintf("step %d: ", i+1)
		nearNumber(t, what+"loss", step.Loss, want, most)
		nearNumber(t, what+"learning rate", step.LR, r.Log[i]["learning_rate"], 1e-12)
		if norm := r.Log[i]["grad_norm"]; math.Abs(step.GradNorm-norm) > mostNorm*math.Max(norm, 1e-3) {
			t.Errorf("%sgradient norm: want %.7g, have %.7g", what, norm, step.GradNorm)
		}
		for theirs, ours := range names {
			if want, ok := r.Log[i][theirs]; ok {
				nearNumber(t, what+theirs, step.Values[ours], want, most)
			}
		}
		worst = max(worst, math.Abs(step.Loss-want))
	}
	t.Logf("largest difference of a loss %.1g", worst)
	for _, x := range a.Trained() {
		if want, ok := values["final/"+x.Name]; ok {
			near(t, "final "+x.Name, x.Values, want.F32, 1e-2)
		}
	}
	// A step of plain gradient descent with rate 1 shows the gradient.
	before := fresh()
	after := fresh()
	if _, err := newStepper(after, "sgd", func(int) float64 { return 1 }, 0).Step(t.Context(), batches[:1]); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i, x := range after.Trained() {
		want, ok := values["grad_step1/"+x.Name]
		if !ok {
			continue
		}
		seen++
		grad := slices.Clone(before.Trained()[i].Values)
		for k := range grad {
			grad[k] -= x.Values[k]
		}
		near(t, "gradient of "+x.Name, grad, want.F32, 5e-4)
	}
	if seen == 0 {
		t.Error("no gradient of the reference was compared")
	}
}
