package methods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/checkpoint"
	"tunesmith/export"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/recipes"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// behaviourSession prepares a run of the embedded base on the given lines of data.
func behaviourSession(t *testing.T, lines []string, objective string, more ...string) *trainer.Session {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "data.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "run.yaml")
	text := "model: tinybase\ndata:\n  - path: " + path + "\nprecision: fp32\neval: {share: 0.2, every: 0}\n" + strings.Join(more, "\n") + "\nobjective:\n" + objective
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := tune.Schema().Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	base, err := recipes.Base()
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.Prepare(t.Context(), c.Value, trainer.Files{Model: base})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	m, err := runs.NewManifest("test")
	if err != nil {
		t.Fatal(err)
	}
	if s.Run, err = runs.Create(dir, "run", []byte(text), m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Run.Close() })
	return s
}

func questions(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`{"messages":[{"role":"user","content":"What is %d plus %d?"},{"role":"assistant","content":"%d"}]}`, i%9, i%7, i%9+i%7))
	}
	return out
}

// TestPolicyLearns: every way to learn from rewards makes answers that the reward likes more frequent.
func TestPolicyLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for _, stage := range []string{"grpo", "rloo", "reinforce", "ppo"} {
		t.Run(stage, func(t *testing.T) {
			s := behaviourSession(t, questions(40), "  method: rlhf\n  stage: "+stage+"\n  generations: 4\n  max_tokens: 12\n  rewards:\n    - {kind: length, at_least: 24}\n",
				"batch_size: 32", "learning_rate: 0.005", "max_steps: 14", "warmup: 0", "schedule: constant")
			var first, last float64
			s.Progress = func(p trainer.Progress) {
				if last = p.Values["reward"]; p.Step == 1 {
					first = last
				}
			}
			if err := s.Train(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("reward %.2f to %.2f", first, last)
			if last < first+0.25 {
				t.Errorf("the reward went from %.2f to %.2f", first, last)
			}
		})
	}
}

// TestRolloutResumes: a run that is stopped in the middle of a rollout goes on with the same bits.
func TestRolloutResumes(t *testing.T) {
	for _, stage := range []string{"grpo", "ppo"} {
		t.Run(stage, func(t *testing.T) {
			objective := "  method: rlhf\n  stage: " + stage + "\n  generations: 4\n  max_tokens: 6\n  passes: 2\n  beta: 0.05\n  rewards:\n    - {kind: length, at_least: 12}\n"
			session := func() *trainer.Session {
				return behaviourSession(t, questions(20), objective, "batch_size: 8", "learning_rate: 0.003", "max_steps: 5", "save_every: 3", "keep_checkpoints: 5")
			}
			whole := session()
			if err := whole.Train(t.Context()); err != nil {
				t.Fatal(err)
			}
			// Step 3 is the first of two on the second rollout.
			at := filepath.Join(whole.Run.Dir(), runs.Checkpoints, "step-000003")
			if _, err := checkpoint.LoadState(at); err != nil {
				t.Fatal(err)
			}
			again := session()
			if err := again.Restore(at); err != nil {
				t.Fatal(err)
			}
			if err := again.Train(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, x := range whole.Model.Trained() {
				if !slices.Equal(x.Values, again.Model.Trained()[i].Values) {
					t.Fatalf("%s differs after the resumed run", x.Name)
				}
			}
		})
	}
}

// TestRulesEndRuns: a limit of the divergence ends a run and keeps what it has.
func TestRulesEndRuns(t *testing.T) {
	s := behaviourSession(t, questions(20), "  method: rlhf\n  stage: rloo\n  generations: 4\n  max_tokens: 6\n  stop_kl: 0.0001\n  rewards:\n    - {kind: length, at_least: 12}\n",
		"batch_size: 8", "learning_rate: 0.02", "max_steps: 20", "warmup: 0")
	steps := 0
	s.Progress = func(p trainer.Progress) { steps = p.Step }
	if err := s.Train(t.Context()); err != nil {
		t.Fatal(err)
	}
	if steps == 0 || steps >= 20 {
		t.Errorf("the run ended at step %d", steps)
	}
	if latest, _, err := checkpoint.Latest(filepath.Join(s.Run.Dir(), runs.Checkpoints)); err != nil || latest == "" {
		t.Errorf("no checkpoint was kept: %v", err)
	}
}

// TestCancelledRollout: a run that is cancelled while it samples can go on.
func TestCancelledRollout(t *testing.T) {
	s := behaviourSession(t, questions(20), "  method: rlhf\n  stage: grpo\n  generations: 4\n  max_tokens: 6\n  rewards:\n    - {kind: length, at_least: 12}\n",
		"batch_size: 8", "max_steps: 6")
	ctx, cancel := context.WithCancel(t.Context())
	s.Progress = func(p trainer.Progress) {
		if p.Step == 2 {
			cancel()
		}
	}
	if err := s.Train(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("have %v", err)
	}
	if err := s.Train(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRewardModelIsAClassifier: it learns pairs, and is saved as a model with one label.
func TestRewardModelIsAClassifier(t *testing.T) {
	var pairs []string
	for i := range 24 {
		pairs = append(pairs, fmt.Sprintf(`{"prompt":[{"role":"user","content":"Question %d?"}],"chosen":[{"role":"assistant","content":"Yes, %d is right."}],"rejected":[{"role":"assistant","content":"No, never %d."}]}`, i, i, i))
	}
	s := behaviourSession(t, pairs, "  method: rlhf\n  stage: reward\n", "batch_size: 8", "learning_rate: 0.003", "max_steps: 12")
	if err := s.Train(t.Context()); err != nil {
		t.Fatal(err)
	}
	losses, err := s.Losses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if losses["eval/accuracy"] < 0.9 {
		t.Errorf("held-out accuracy %.2f, Brier score %.3f", losses["eval/accuracy"], losses["eval/brier"])
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := export.Directory(dir, s.Model, s.Text, quant.F32); err != nil {
		t.Fatal(err)
	}
	m, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if h := m.Config.Head; h.Kind != model.SequenceHead || h.Labels != 1 {
		t.Errorf("have head %+v", h)
	}
}

func TestRLHFRefuses(t *testing.T) {
	if _, _, err := newRLHF(func(o *RLHF) { o.Group = 3 }).Prompts(8); err == nil || !strings.Contains(err.Error(), "want a divisor of batch_size") {
		t.Errorf("have %v", err)
	}
	if _, _, err := newRLHF(func(o *RLHF) { o.Target = 6 }).Prompts(8); err == nil || !strings.Contains(err.Error(), "target_kl") {
		t.Errorf("have %v", err)
	}
	o := newRLHF(func(o *RLHF) { o.Rewards[0].Kind = "exakt" })
	if _, err := o.Renderer(tune.Text{}); err == nil || !strings.Contains(err.Error(), "did you mean exact") {
		t.Errorf("have %v", err)
	}
}

func TestRewardHackingWarns(t *testing.T) {
	o := newRLHF(func(*RLHF) {})
	for want, values := range map[string]map[string]float64{
		"": {"reward": 1}, "being cheated": {"parted": 0.4}, "is repetition": {"repetition": 0.8},
	} {
		if have := o.Warn(values); (have == "") != (want == "") || !strings.Contains(have, want) {
			t.Errorf("%v: have %q", values, have)
		}
	}
	if r := repetition([]int32{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}); r < 0.5 {
		t.Errorf("repetition is %.2f", r)
	}
}
