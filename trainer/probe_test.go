package trainer

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/objective"
	"tunesmith/optim"
	"tunesmith/tune"
)

// nextToken is an objective on plain rows.
type nextToken struct{}

func (nextToken) Renderer(tune.Text) (data.Renderer, error) {
	return nil, errors.New("rows are made by hand")
}

func (nextToken) Loss(f tune.Forward) *graph.Node {
	h := f.Model.Hidden(f.Scope)
	logp, mean := f.Model.LogProbs(f.Scope, graph.Reshape(h, -1, h.Dim(-1)), f.Targets)
	return objective.CrossEntropy(logp, mean, f.Weights, 0)
}

// trainAll is a graft that trains the model.
type trainAll struct{}

func (trainAll) TrainBase(string) bool { return true }

func forwardStepper(t *testing.T, optimizer string, rate float64) (*Stepper, []data.Batch) {
	t.Helper()
	m, err := model.New(model.Config{
		Type: "llama", Hidden: 16, Intermediate: 24, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 8, Vocab: 32, MaxPositions: 64, NormEps: 1e-5,
		Activation: "silu", PadID: -1, BOS: -1, Windows: make([]int, 2),
		Rope: model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 64, MaxPositions: 64},
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.Adapt(1, trainAll{})
	if err != nil {
		t.Fatal(err)
	}
	backend, err := engine.Open("cpu", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	o, err := optim.New(optimizer, optim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewStepper(StepConfig{
		Model: a, Backend: backend, Objective: nextToken{}, Optimizer: o, Schedule: func(int) float64 { return rate },
		ForwardOnly: true, Seed: 5,
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]int, 24)
	for i := range ids {
		ids[i] = i * i % 32
	}
	return s, textBatches(ids, 12)
}

func snapshot(s *Stepper) [][]float32 {
	var out [][]float32
	for _, p := range s.params {
		out = append(out, slices.Clone(p.Value))
	}
	return out
}

// A step cancelled between its two passes leaves every parameter bit for bit, and steps are a function of the seed.
func TestForwardOnlyRestores(t *testing.T) {
	s, batches := forwardStepper(t, "sgd", 1e-2)
	before := snapshot(s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Step(ctx, batches); !errors.Is(err, context.Canceled) {
		t.Fatalf("want a cancelled step, have %v", err)
	}
	for k, v := range snapshot(s) {
		if !slices.Equal(v, before[k]) {
			t.Fatalf("parameter %s moved", s.params[k].Name)
		}
	}
	for range 3 {
		if _, err := s.Step(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
	}
	again, _ := forwardStepper(t, "sgd", 1e-2)
	for range 3 {
		if _, err := again.Step(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range snapshot(s) {
		if !slices.Equal(v, again.params[k].Value) {
			t.Errorf("parameter %s differs between two runs of one seed", s.params[k].Name)
		}
	}
}

// The update that the seed gives again is that of the stored direction, value by value, and the slope along the
// direction is that of the true gradient.
func TestForwardOnlyDirection(t *testing.T) {
	const rate = 1e-2
	s, batches := forwardStepper(t, "sgd", rate)
	before := snapshot(s)
	r, err := s.Step(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	var slope float64
	for k, p := range s.params {
		z := make([]float32, len(p.Value))
		direction(z, s.seed, 0, p.Name)
		for i := range z {
			if slope == 0 {
				slope = float64(p.Grad[i]) / float64(z[i])
			}
			if want := float32(slope) * z[i]; math.Abs(float64(p.Grad[i]-want)) > 1e-6*math.Abs(float64(want)) {
				t.Fatalf("%s[%d]: want gradient %g, have %g", p.Name, i, want, p.Grad[i])
			}
			if want := before[k][i] - rate*p.Grad[i]; math.Abs(float64(p.Value[i]-want)) > 1e-7 {
				t.Fatalf("%s[%d]: want %g, have %g", p.Name, i, want, p.Value[i])
			}
		}
	}
	if r.Loss <= 0 || math.IsNaN(slope) {
		t.Errorf("loss %g, slope %g", r.Loss, slope)
	}
	// The same model with a backward pass: its gradient times z is the slope.
	exact, _ := forwardStepper(t, "sgd", rate)
	exact.probe = nil
	if _, err := exact.Step(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	var want float64
	for _, p := range exact.params {
		z := make([]float32, len(p.Value))
		direction(z, s.seed, 0, p.Name)
		for i := range z {
			want += float64(p.Grad[i]) * float64(z[i])
		}
	}
	if math.Abs(slope-want) > 0.02*math.Abs(want)+1e-3 {
		t.Errorf("slope: want %g, have %g", want, slope)
	}
}

func TestForwardOnlyLearns(t *testing.T) {
	s, batches := forwardStepper(t, "adamw", 3e-3)
	first, err := s.Loss(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	for range 150 {
		if _, err := s.Step(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
	}
	last, err := s.Loss(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	if last > 0.95*first {
		t.Errorf("the loss fell from %.3f to %.3f only", first, last)
	}
	m, err := s.Memory(1, 12)
	if err != nil {
		t.Fatal(err)
	}
	s.probe = nil
	full, err := s.Memory(1, 12)
	if err != nil {
		t.Fatal(err)
	}
	if m.Total() >= full.Total() {
		t.Errorf("forward only plans %d bytes, with the backward pass %d", m.Total(), full.Total())
	}
}
