package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/runs"
)

// metrics are a run's metrics without the times.
func metrics(t *testing.T, dir string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, runs.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for line := range strings.Lines(string(b)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		for _, f := range runs.TimeFields {
			delete(m, f)
		}
		out = append(out, m)
	}
	return out
}

// TestMixtureRuns trains three tasks at once, with all that looks at them one by one, and resumes in the middle: every
// loss and every weight are those of the run that went through.
func TestMixtureRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("trains three runs")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	for i, n := range []int{60, 24, 12} {
		var b strings.Builder
		for k := range n {
			answer := []string{fmt.Sprint(k + 1), fmt.Sprint(k - 1), "never"}[i]
			fmt.Fprintf(&b, `{"messages":[{"role":"user","content":"%s %d"},{"role":"assistant","content":"%s"}]}`+"\n", []string{"after", "before", "when"}[i], k, answer)
		}
		if err := os.WriteFile(fmt.Sprintf("task%d.jsonl", i), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := `model: tinybase
data: [{path: task0.jsonl, task: after}, {path: task1.jsonl, task: before}, {path: task2.jsonl}]
mixture: {method: multitask, temperature: 2, weights: {after: 0.5}, patience: 1, weighting: uncertainty, conflicts: project}
parameters: {method: lora, rank: 4, dropout: 0.1}
batch_size: 2
gradient_accumulation: 3
learning_rate: 0.02
schedule: constant
warmup: 0
save_every: 4
eval: {every: 2, share: 0.2}
output: runs
`
	write := func(steps int) {
		if err := os.WriteFile("run.yaml", fmt.Appendf([]byte(config), "max_steps: %d\nepochs: 100\n", steps), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(8)
	code, out := program("train", "run.yaml", "--set", "name=whole")
	if code != 0 {
		t.Fatal(out)
	}
	for _, want := range []string{"│ after  │", "passes an epoch", "held-out loss of task2", "σ", "mean cosine of the gradients"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
	write(5)
	if code, out := program("train", "run.yaml", "--set", "name=cut"); code != 0 {
		t.Fatal(out)
	}
	path := filepath.Join("runs", "cut", runs.ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// As if the run had been killed behind its checkpoint of step 4.
	if err := os.RemoveAll(filepath.Join("runs", "cut", runs.Checkpoints, "step-000005")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "max_steps: 5", "max_steps: 8", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out = program("resume", filepath.Join("runs", "cut"))
	if code != 0 || !strings.Contains(out, "resumed at step") {
		t.Fatal(out)
	}
	if d := cmp.Diff(metrics(t, "runs/whole"), metrics(t, "runs/cut")); d != "" {
		t.Errorf("-whole +resumed:\n%s", d)
	}
	a, errA := os.ReadFile("runs/whole/adapter/adapter_model.safetensors")
	b, errB := os.ReadFile("runs/cut/adapter/adapter_model.safetensors")
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("adapters differ: %v, %v", errA, errB)
	}
	stopped := false
	events, err := runs.Events("runs/whole")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		stopped = stopped || strings.Contains(e.Message, "is drawn no more")
	}
	if !stopped {
		t.Error("no task stopped, at a rate that spoils the held-out loss")
	}
	for want, set := range map[string]string{
		"want gradient_accumulation of 2": "gradient_accumulation=1",
		"did you mean after":              "mixture.weights={aftr: 1}",
		"group_by_length":                 "group_by_length=true",
		"weighting: fixed":                "forward_only=true",
	} {
		if code, out := program("train", "run.yaml", "--set", set); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%s: want %q, have %d:\n%s", set, want, code, out)
		}
	}
}
