package plan

import (
	"context"
	"strings"
	"testing"

	"tunesmith/config"
	"tunesmith/engine"
	"tunesmith/tune"
)

func init() {
	tune.Register(tune.Method{Axis: tune.ParametersAxis, Name: "usual", Doc: "the usual one", Default: true, New: func() any { return &struct{}{} }})
	tune.Register(tune.Method{Axis: tune.TopologyAxis, Name: "pocket", Doc: "in a pocket", Goals: []string{"device"}, New: func() any { return &struct{}{} }})
}

func question(goal Goal) Question {
	r := &tune.Run{Parameters: config.Choice{Name: "usual"}}
	r.BatchSize, r.Accumulation, r.Epochs, r.MaxLength = 4, 1, 3, 512
	return Question{Run: r, Goal: goal, Limit: 1000 << 20}
}

func candidates() []Candidate {
	mib := func(n int64) engine.Memory { return engine.Memory{Weights: n << 20} }
	return []Candidate{
		{Method: "usual", Doc: "the usual one", Trained: 1e6, Plan: mib(500), Fits: true, Enough: true, Merges: true, Files: "X"},
		{Method: "thin", Trained: 1e3, Plan: mib(300), Fits: true, Enough: true},
		{Method: "tiny", Trained: 1e2, Plan: mib(200), Fits: true},
		{Method: "whole", Trained: 1e8, Plan: mib(5000)},
		{Method: "broken", Why: "the model has no biases"},
	}
}

func TestChoose(t *testing.T) {
	for goal, want := range map[Goal]string{Quality: "usual", Memory: "thin", Size: "thin", Serving: "usual", Device: "thin", Owners: "thin"} {
		a := &Advice{Candidates: candidates(), Data: Data{Trained: 1e5}}
		best, err := question(goal).choose(a)
		if err != nil || best.Method != want || a.Parameters != want {
			t.Errorf("%s: want %s, have %s, %v", goal, want, best.Method, err)
		}
	}
	lean := &Advice{Candidates: candidates()[:1]}
	lean.Candidates[0].Lean, lean.Candidates[0].Enough = true, false
	q := question(Quality)
	if _, err := q.choose(lean); err != nil || !strings.Contains(strings.Join(lean.Sets, " "), "batch_size=1 gradient_accumulation=4 recompute=true") ||
		!strings.Contains(strings.Join(lean.Reasons, "\n"), "raise its size") {
		t.Errorf("have %+v, %v", lean, err)
	}
	none := &Advice{Candidates: candidates()[3:]}
	if _, err := q.choose(none); err == nil || !strings.Contains(err.Error(), "the smallest plan takes 5000 MiB") {
		t.Errorf("have %v", err)
	}
}

func TestTopology(t *testing.T) {
	a := &Advice{}
	question(Device).topology(a)
	if a.Topology != "pocket" || len(a.Sets) != 1 {
		t.Errorf("have %+v", a)
	}
	a = &Advice{}
	if question(Quality).topology(a); a.Topology != "" {
		t.Errorf("have %+v", a)
	}
}

func TestChecks(t *testing.T) {
	q := question(Quality)
	q.Minutes = 10
	a := &Advice{
		Data:     Data{Examples: 1000, Trained: 5000, Templated: true, Context: 2048},
		Estimate: Estimate{Steps: 100, Seconds: 1200},
	}
	broken := func() map[string]string {
		out := map[string]string{}
		for _, c := range q.checks(a) {
			if !c.OK {
				out[c.Rule] = c.Remedy
			}
		}
		return out
	}
	have := broken()
	for _, rule := range []string{"something is held out", "the task is scored", "it ends in time"} {
		if have[rule] == "" {
			t.Errorf("want the rule %q broken with a remedy, have %v", rule, have)
		}
	}
	if !strings.Contains(have["it ends in time"], "max_steps to 50") {
		t.Errorf("have %v", have["it ends in time"])
	}
	q.Run.Eval.Share, q.Run.Eval.Task, q.Minutes = 0.05, "task.jsonl", 0
	if have := broken(); len(have) != 0 {
		t.Errorf("a sound run breaks %v", have)
	}
	a.Data.Examples, a.Data.Bad, a.Data.Repeated, a.Data.Cut, a.Data.Templated, a.Estimate.Steps = 20, 3, 5, 4, false, 5
	q.Run.Epochs, q.Run.Accumulation = 50, 64
	if have := broken(); len(have) != 8 {
		t.Errorf("want 8 rules broken, have %v", have)
	}
}

func TestGoal(t *testing.T) {
	q := question("qualty")
	if _, err := Advise(context.Background(), q); err == nil || !strings.Contains(err.Error(), "did you mean quality") {
		t.Errorf("have %v", err)
	}
}
