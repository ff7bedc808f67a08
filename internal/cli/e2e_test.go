//go:build e2e

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
	"tunesmith/runs"
)

// binary builds the program.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tunesmith")
	if out, err := exec.Command("go", "build", "-o", path, "tunesmith/cmd/tunesmith").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// lines are the metrics of a run without the fields that measure time.
func lines(t *testing.T, dir string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, runs.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for line := range strings.Lines(string(b)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, f := range runs.TimeFields {
			delete(m, f)
		}
		out = append(out, m)
	}
	return out
}

// smallRun writes a run on the embedded base.
func smallRun(t *testing.T, steps int) string {
	t.Helper()
	dir := t.TempDir()
	var data strings.Builder
	for i := range 64 {
		fmt.Fprintf(&data, `{"messages":[{"role":"user","content":"what is %d and %d"},{"role":"assistant","content":"it is %d"}]}`+"\n", i, i+1, 2*i+1)
	}
	yaml := fmt.Sprintf("model: tinybase\ndata: [{path: %s}]\nmax_steps: %d\nepochs: 100\nsave_every: 3\nbatch_size: 4\ngradient_accumulation: 2\nparameters: {method: lora, rank: 4, dropout: 0.1}\neval: {every: 5, share: 0.1}\nprecision: mixed\nkeep_checkpoints: 2\n",
		filepath.Join(dir, "train.jsonl"), steps)
	for name, text := range map[string]string{"train.jsonl": data.String(), "run.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "run.yaml")
}

func train(t *testing.T, bin, yaml, name string, env ...string) string {
	t.Helper()
	root := filepath.Dir(yaml)
	c := exec.Command(bin, "train", yaml, "--set", "output="+root, "--set", "name="+name)
	c.Env = append(os.Environ(), env...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(root, name)
}

// TestKilledRunsResumeBitForBit kills a run at random instants, again and again, and compares every loss and the
// adapter with those of a run that nobody disturbed.
func TestKilledRunsResumeBitForBit(t *testing.T) {
	bin, yaml := binary(t), smallRun(t, 120)
	whole := train(t, bin, yaml, "whole")
	root := filepath.Dir(yaml)
	began := time.Now()
	train(t, bin, yaml, "timed")
	length := time.Since(began)
	rng := rand.New(rand.NewPCG(1, 2))
	args := []string{"train", yaml, "--set", "output=" + root, "--set", "name=killed"}
	dir := filepath.Join(root, "killed")
	kills := 0
	for range 200 {
		c := exec.Command(bin, args...)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		var err error
		wait := time.Duration(rng.Int64N(int64(length / 14)))
		if kills < 20 {
			select {
			case err = <-done:
			case <-time.After(wait):
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				<-done
				kills++
				if _, err := os.Stat(filepath.Join(dir, runs.ConfigFile)); err == nil {
					args = []string{"resume", dir}
				}
				continue
			}
		} else {
			err = <-done
		}
		if err != nil {
			t.Fatalf("after %d kills: %v\n%s", kills, err, out.String())
		}
		break
	}
	if kills < 20 {
		t.Errorf("want 20 kills, have %d: the run ended too early", kills)
	}
	if d := cmp.Diff(lines(t, whole), lines(t, dir)); d != "" {
		t.Errorf("metrics differ after %d kills (-undisturbed +killed):\n%s", kills, d)
	}
	sameFile(t, whole, dir, "adapter/adapter_model.safetensors")
}

// TestSameBitsAtAnyThreadCount: how many threads work has no influence on a bit of the result.
func TestSameBitsAtAnyThreadCount(t *testing.T) {
	bin, yaml := binary(t), smallRun(t, 20)
	one := train(t, bin, yaml, "one", "GOMAXPROCS=1")
	two := train(t, bin, yaml, "two", "GOMAXPROCS=2")
	three := train(t, bin, yaml, "three", "GOMAXPROCS=3")
	if d := cmp.Diff(lines(t, one), lines(t, two)); d != "" {
		t.Errorf("metrics of one and two threads differ:\n%s", d)
	}
	sameFile(t, one, two, "adapter/adapter_model.safetensors")
	sameFile(t, one, three, "adapter/adapter_model.safetensors")
}

func sameFile(t *testing.T, a, b, name string) {
	t.Helper()
	x, errX := os.ReadFile(filepath.Join(a, filepath.FromSlash(name)))
	y, errY := os.ReadFile(filepath.Join(b, filepath.FromSlash(name)))
	if errX != nil || errY != nil || !bytes.Equal(x, y) {
		t.Errorf("%s differs: %v, %v", name, errX, errY)
	}
}

// TestRealModelLearnsRealData tunes SmolLM2-135M-Instruct by its run file and asks that the held-out loss falls.
func TestRealModelLearnsRealData(t *testing.T) {
	data := golden.Data(t, "dolly_hhrlhf")
	path, err := exec.Command("../../scripts/fetch_smollm2", "../../models").Output()
	if err != nil {
		t.Fatalf("scripts/fetch_smollm2: %v", err)
	}
	model, err := filepath.Abs(strings.TrimSpace(string(path)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	yaml := filepath.Join(dir, "run.yaml")
	text := fmt.Sprintf("model: %s\ndata:\n  - path: %s\n    format: alpaca\n    columns: {instruction: prompt, output: response}\nbad_records: skip\nmax_length: 192\noverlength: drop\nbatch_size: 2\nmax_steps: 100\neval: {share: 0.05, most: 24, every: 50}\n",
		model, filepath.Join(data, "*.jsonl.gz"))
	if err := os.WriteFile(yaml, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	run := train(t, binary(t), yaml, "real")
	events, err := runs.Events(run)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		for _, o := range e.Outcome {
			t.Logf("%s: %.4f -> %.4f", o.Name, float64(o.Before), float64(o.After))
			if o.Name == "held-out loss" && o.After >= o.Before {
				t.Errorf("the held-out loss rose from %v to %v", o.Before, o.After)
			}
		}
	}
}
