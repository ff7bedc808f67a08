package config_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tunesmith/config"
)

var update = flag.Bool("update", false, "write the .want files from what the package says now")

// equal compares runs, with the unexported types of the test's schema.
var equal = cmp.AllowUnexported(run{}, training{}, share{})

// TestBad holds the exact messages for files that are wrong. Assignments for --set stand in a .set file, one a line.
func TestBad(t *testing.T) {
	t.Chdir("testdata/bad")
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("want at least 40 bad files, have %d (%v)", len(files), err)
	}
	schema := newSchema()
	for _, file := range files {
		name := strings.TrimSuffix(file, ".yaml")
		t.Run(name, func(t *testing.T) {
			_, err := schema.Load(file, sets(t, name+".set"))
			var all config.Errors
			if !errors.As(err, &all) {
				t.Fatalf("want errors, have %v", err)
			}
			if *update {
				if err := os.WriteFile(name+".want", []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".want")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), all.Error()+"\n"); diff != "" {
				t.Errorf("-want +have:\n%s", diff)
			}
		})
	}
}

func sets(t *testing.T, file string) []string {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// write puts files into a temporary folder and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, text string, sets ...string) *run {
	t.Helper()
	r, err := newSchema().Load(filepath.Join(write(t, map[string]string{"run.yaml": text}), "run.yaml"), sets)
	if err != nil {
		t.Fatal(err)
	}
	return r.Value
}

const minimal = "model: m.gguf\ndata: [{path: a.jsonl}]\n"

func TestValues(t *testing.T) {
	r := load(t, `
model: 12
adapter: ~
seed: 1_000
data:
  - path: &p a.jsonl
    format: text
  - {path: *p, weight: 2.5, limit: 1e3}
parameters:
  rank: 0x10
  alpha: 1_6.5e0
  targets: q_proj
  layers: 3
  rank_pattern: {z: 4, "a.b": 2}
  start: {kind: gaussian}
training:
  learning_rate: 2e-5
  warmup: 100
  memory: 1.5GiB
  autosave: 1m30s
  betas: .5
  packing: TRUE
  max_steps: 8.0
evaluation:
labels:
  note: |
    two
    lines
  b: yes
output: 'it''s'
`)
	want := newRun()
	want.Model, want.Seed, want.Output = "12", 1000, "it's"
	want.Data = []source{{Path: "a.jsonl", Format: "text", Weight: 1}, {Path: "a.jsonl", Format: "auto", Weight: 2.5, Limit: 1000}}
	alpha, memory := 16.5, config.Bytes(3<<29)
	want.Parameters.Options = &lora{
		Rank: 16, Alpha: &alpha, Targets: []string{"q_proj"}, Layers: []int{3}, RankPattern: []pattern{{"z", 4}, {"a.b", 2}},
		Start: config.Choice{Name: "gaussian", Options: &gaussian{Deviation: 0.02}},
	}
	want.Objective.Options = &instruction{TrainOn: "assistant"}
	want.Training.Warmup = share{steps: 100}
	want.Training.Memory = &memory
	want.Training.Autosave = 90 * time.Second
	want.Training.Betas = []float64{0.5}
	want.Training.Packing = true
	want.Training.MaxSteps = 8
	want.Evaluation = &evaluation{Every: 100, Metric: "loss"}
	want.Labels = labels{"note": "two\nlines\n", "b": "yes"}
	if diff := cmp.Diff(want, r, equal); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

// TestLayers checks that a key comes from --set, else the file, else its base, else the defaults.
func TestLayers(t *testing.T) {
	dir := write(t, map[string]string{
		"run.yaml":         "base: shared/team.yaml\nparameters: {rank: 16, targets: [k_proj]}\ntraining: {epochs: 5}\n",
		"shared/team.yaml": "base: root.yaml\nparameters: {method: lora, rank: 4, alpha: 9, targets: [q_proj, v_proj]}\ntraining: {batch_size: 2}\n",
		"shared/root.yaml": minimal + "training: {epochs: 1, batch_size: 1, max_length: 99}\nlabels: {a: x, b: y}\n",
	})
	path := filepath.Join(dir, "run.yaml")
	r, err := newSchema().Load(path, []string{"training.max_length=77", "labels.b=z", `labels."c.d"=a # b`, "data.0.weight=3", "training.max_length=78"})
	if err != nil {
		t.Fatal(err)
	}
	o := r.Value.Parameters.Options.(*lora)
	have := []any{o.Rank, *o.Alpha, o.Targets, r.Value.Training.Epochs, r.Value.Training.BatchSize, r.Value.Training.MaxLength, r.Value.Labels, r.Value.Data[0]}
	want := []any{16, 9.0, []string{"k_proj"}, 5.0, 2, 78, labels{"a": "x", "b": "z", "c.d": "a # b"}, source{Path: "a.jsonl", Format: "auto", Weight: 3}}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	files := []string{path, filepath.Join(dir, "shared", "team.yaml"), filepath.Join(dir, "shared", "root.yaml")}
	if diff := cmp.Diff(files, r.Files); diff != "" {
		t.Errorf("files: -want +have:\n%s", diff)
	}
	for path, want := range map[string]string{
		"parameters.rank":     files[0] + ":2:20",
		"parameters.alpha":    files[1] + ":2:44",
		"training.max_length": "--set training.max_length=78",
		"training.precision":  "",
	} {
		if have := r.Origin(path); have != want {
			t.Errorf("origin of %s: want %q, have %q", path, want, have)
		}
	}
	if have, want := r.Errorf("parameters.targets.0", "no module %s", "k_proj").Error(), files[0]+":2:34: parameters.targets.0: no module k_proj"; have != want {
		t.Errorf("want %q, have %q", want, have)
	}
	if have, want := r.Errorf("output", "no room").Error(), files[0]+":1:1: output: no room"; have != want {
		t.Errorf("want %q, have %q", want, have)
	}
}

// TestChangeOfChoice checks that another method starts from its own defaults, in whatever order --set names the keys.
func TestChangeOfChoice(t *testing.T) {
	text := minimal + "parameters: {method: lora, rank: 32}\n"
	if diff := cmp.Diff(&full{LastLayers: 2}, load(t, text, "parameters.last_layers=2", "parameters.method=full").Parameters.Options); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	if o := load(t, text, "parameters.method=lora").Parameters.Options.(*lora); o.Rank != 32 {
		t.Errorf("the same method again: want rank 32, have %d", o.Rank)
	}
}

func TestSetOnly(t *testing.T) {
	r, err := newSchema().Load("", []string{"model=m", `data=[{path: "x y"}]`, "adapter=null", "evaluation.every=5", "output="})
	if err != nil {
		t.Fatal(err)
	}
	if v := r.Value; v.Data[0].Path != "x y" || v.Adapter != nil || v.Evaluation.Every != 5 || v.Output != "" {
		t.Errorf("have %+v", v)
	}
}

// TestLimits checks that large and deep files are refused before they cost time.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"brackets": {strings.Repeat("[", 200_000), "want at most 20000 YAML tokens"},
		"flow":     {"a: " + strings.Repeat("[", 10_000), "want at most 32 levels"},
		"dashes":   {strings.Repeat("- ", 9_000) + "x", "want at most 32 levels"},
		"keys":     {strings.Repeat("a: 1\n", 7_000), "want at most 20000 YAML tokens"},
		"bytes":    {"a: " + strings.Repeat("x", 1<<20), "want at most 1048576 bytes of YAML"},
		"anchors":  {"a: " + strings.Repeat("&a ", 9_000) + "1", "not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(write(t, map[string]string{"run.yaml": c.text}), "run.yaml")
			if _, err := newSchema().Load(path, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, have %v", c.want, err)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := newSchema().Load("nowhere.yaml", nil)
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "nowhere.yaml: file does not exist" {
		t.Errorf("have %v", err)
	}
}

func TestOptions(t *testing.T) {
	options := newSchema().Options()
	byPath := map[string]config.Option{}
	for _, o := range options {
		byPath[o.Path] = o
		if o.Doc == "" || o.Type == "" {
			t.Errorf("%s: want a doc and a type, have %+v", o.Path, o)
		}
	}
	for _, want := range []config.Option{
		{Path: "seed", Type: "integer", Default: "42", Doc: "start of every random number"},
		{Path: "parameters.method", Type: "text", Default: "lora", Enum: []string{"full", "lora"}, Doc: "full: trains the model's own weights; lora: adds thin trainable matrices"},
		{Path: "parameters.rank", Choice: "parameters.method", Variant: "lora", Type: "integer", Default: "8", Doc: "rank of the update", Min: ">= 1"},
		{Path: "parameters.dropout", Choice: "parameters.method", Variant: "lora", Type: "number", Default: "0", Doc: "share of inputs dropped in training", Min: ">= 0", Max: "< 1"},
		{Path: "parameters.start.deviation", Choice: "parameters.start.kind", Variant: "gaussian", Type: "number", Default: "0.02", Doc: "standard deviation", Min: "> 0"},
		{Path: "data.N.format", Type: "text", Default: "auto", Doc: "how a record is written", Enum: []string{"auto", "messages", "alpaca", "sharegpt", "text"}},
		{Path: "data", Type: "list of sections", Doc: "training data", Required: true, Section: true},
		{Path: "training.warmup", Type: "share below 1, or number of steps", Default: "0.03", Doc: "rise of the step size at the start"},
		{Path: "evaluation.every", Type: "integer", Default: "100", Doc: "steps between evaluations", Min: ">= 1"},
	} {
		if diff := cmp.Diff(want, byPath[want.Path]); diff != "" {
			t.Errorf("%s: -want +have:\n%s", want.Path, diff)
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]config.Bytes{"0": 0, "4096": 4096, "512MiB": 512 << 20, "2GB": 2e9, "1.5 KiB": 1536, "3B": 3, "1e3": 1000} {
		var b, again config.Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: want %d, have %d (%v)", text, want, b, err)
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%s: written as %s, read back as %d (%v)", text, b, again, err)
		}
	}
	for _, text := range []string{"", "GB", "-1", "1e30", "9EiB", "1 2"} {
		var b config.Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: want an error, have %d", text, b)
		}
	}
}

// TestTagMistakes checks that a program with senseless tags stops at once.
func TestTagMistakes(t *testing.T) {
	type noDoc struct {
		A int `yaml:"a"`
	}
	type badBound struct {
		A int `yaml:"a" doc:"x" min:"one"`
	}
	type noVariants struct {
		A config.Choice `yaml:"a" doc:"x" choice:"k"`
	}
	type taken struct {
		A int `yaml:"a" doc:"x"`
		B int `yaml:"a" doc:"x"`
	}
	type badType struct {
		A chan int `yaml:"a" doc:"x"`
	}
	type itself struct {
		A []itself `yaml:"a" doc:"x"`
	}
	for name, build := range map[string]func(){
		"no doc":      func() { config.NewSchema(func() *noDoc { return nil }, nil) },
		"bad bound":   func() { config.NewSchema(func() *badBound { return nil }, nil) },
		"no variants": func() { config.NewSchema(func() *noVariants { return nil }, nil) },
		"taken":       func() { config.NewSchema(func() *taken { return nil }, nil) },
		"type":        func() { config.NewSchema(func() *badType { return nil }, nil) },
		"itself":      func() { config.NewSchema(func() *itself { return nil }, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("want a panic")
				}
			}()
			build()
		})
	}
}
