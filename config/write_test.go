package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tunesmith/config"
)

// TestTemplate holds the commented file that a person starts from.
func TestTemplate(t *testing.T) {
	schema := newSchema()
	r := schema.New()
	r.Model = "models/smollm2.gguf"
	r.Data = []source{{Path: "train.jsonl", Format: "messages", Weight: 1}}
	r.Training.Epochs = 2
	var b bytes.Buffer
	if err := schema.Template(&b, r, "training.learning_rate", "parameters.rank"); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/good/template.yaml"
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	back := load(t, b.String())
	if diff := cmp.Diff(r, back, equal); diff != "" {
		t.Errorf("read back: -want +have:\n%s", diff)
	}
}

// TestTemplateUncommented checks that every line of a template that is commented out holds a key that can stand.
func TestTemplateUncommented(t *testing.T) {
	schema := newSchema()
	var b bytes.Buffer
	if err := schema.Template(&b, schema.New()); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for l := range strings.Lines(b.String()) {
		text := strings.TrimLeft(l, " ")
		if rest, ok := strings.CutPrefix(text, "#"); ok && !strings.HasPrefix(rest, " ") || ok && strings.HasPrefix(rest, "  ") {
			l = strings.Repeat(" ", len(l)-len(text)) + rest
		}
		lines = append(lines, l)
	}
	text := strings.Join(lines, "")
	text = strings.Replace(text, `model: ""`, "model: m", 1)
	text = strings.Replace(text, `path: ""`, "path: a.jsonl", 1)
	back := load(t, text)
	want := schema.New()
	want.Model = "m"
	want.Data = []source{{Path: "a.jsonl", Format: "auto", Weight: 1}}
	want.Evaluation = &evaluation{Every: 100, Metric: "loss"}
	want.Mixture = config.Choice{Name: "multitask", Options: &weighted{Temperature: 2}}
	if diff := cmp.Diff(want, back, equal, emptyIsNil); diff != "" {
		t.Errorf("-want +have:\n%s\n%s", diff, text)
	}
}

var emptyIsNil = cmp.Options{
	cmp.Transformer("strings", func(s []string) string { return strings.Join(s, "\x00") }),
	cmp.Transformer("ints", func(s []int) [8]int { var a [8]int; copy(a[:], s); return a }),
	cmp.Transformer("patterns", func(s []pattern) [8]pattern { var a [8]pattern; copy(a[:], s); return a }),
	cmp.FilterValues(func(a, b labels) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
}

// TestRoundTrip writes random runs in full and as templates; both load to an equal value.
func TestRoundTrip(t *testing.T) {
	schema := newSchema()
	path := filepath.Join(t.TempDir(), "run.yaml")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringN(1, 20, 60), rapid.StringMatching(`[-?:,\[\]{}#&*!|>'"%@ ~\n\ta0-9_.+e]{1,8}`),
			rapid.SampledFrom([]string{"null", "true", "yes", "0x1F", "1_000", "2e-5", "~", "- a", ".inf", "a #b", "a: b", "\u2028", "\u0085", "\x7f", "\x01", "中文"}))
		positive := rapid.Float64Range(1e-300, 1e300)
		r := schema.New()
		r.Model, r.Output = text.Draw(t, "model"), rapid.OneOf(rapid.Just(""), text).Draw(t, "output")
		r.Seed = rapid.Uint64().Draw(t, "seed")
		if rapid.Bool().Draw(t, "adapted") {
			s := text.Draw(t, "adapter")
			r.Adapter = &s
		}
		r.Data = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) source {
			return source{text.Draw(t, "path"), rapid.SampledFrom([]string{"auto", "text"}).Draw(t, "format"), positive.Draw(t, "weight"), rapid.IntMin(0).Draw(t, "limit")}
		}), 1, 3).Draw(t, "data")
		r.Labels = rapid.MapOfN(text, text, 1, 3).Draw(t, "labels")
		r.Training.LearningRate = positive.Draw(t, "rate")
		r.Training.Warmup = rapid.SampledFrom([]share{{}, {part: 0.1}, {steps: 7}}).Draw(t, "warmup")
		r.Training.Autosave = time.Duration(rapid.Int64Range(1e9, 1e18).Draw(t, "autosave"))
		r.Training.Threads = rapid.Int8().Draw(t, "threads")
		if rapid.Bool().Draw(t, "limited") {
			b := config.Bytes(rapid.Int64Range(0, 1<<53).Draw(t, "memory"))
			r.Training.Memory = &b
		}
		if rapid.Bool().Draw(t, "evaluated") {
			r.Evaluation = &evaluation{Every: rapid.IntMin(1).Draw(t, "every"), Metric: "accuracy", Data: rapid.SliceOfN(text, 1, 3).Draw(t, "held out")}
		}
		if rapid.Bool().Draw(t, "thin") {
			o := r.Parameters.Options.(*lora)
			o.RankPattern = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) pattern {
				return pattern{text.Draw(t, "pattern"), rapid.IntMin(1).Draw(t, "rank")}
			}), 1, 3, func(p pattern) string { return p.Key }).Draw(t, "patterns")
			o.Start = config.Choice{Name: "gaussian", Options: &gaussian{Deviation: positive.Draw(t, "deviation")}}
		} else {
			r.Parameters = config.Choice{Name: "full", Options: &full{LastLayers: rapid.IntRange(0, 12).Draw(t, "layers")}}
		}
		for name, write := range map[string]func(*bytes.Buffer) error{
			"full":     func(b *bytes.Buffer) error { return schema.Write(b, r) },
			"template": func(b *bytes.Buffer) error { return schema.Template(b, r) },
		} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			back, err := schema.Load(path, nil)
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, b.String())
			}
			if diff := cmp.Diff(r, back.Value, equal, emptyIsNil); diff != "" {
				t.Fatalf("%s: -want +have:\n%s\n%s", name, diff, b.String())
			}
		}
	})
}

// TestJSONSchema lets the schema for editors judge the corpus: it passes what loads, and refuses what is wrong in a
// way that a schema can express.
func TestJSONSchema(t *testing.T) {
	schema := newSchema()
	resolved, err := schema.JSON("run").Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, text []byte) (bool, error) {
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			return false, nil
		}
		b, err := json.Marshal(v)
		if err != nil {
			return false, nil
		}
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		return true, resolved.Validate(v)
	}
	var full bytes.Buffer
	r := load(t, minimal)
	if err := schema.Write(&full, r); err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile("testdata/good/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"full": full.Bytes(), "template": template, "minimal": []byte(minimal),
		"method": []byte(minimal + "parameters: {method: full, last_layers: 2}\nbase: x.yaml\nevaluation:\n"),
		"single": []byte(minimal + "parameters: {targets: q_proj, layers: 3, alpha: null, rank_pattern: {a: 2}}\n"),
	} {
		if read, err := check(t, text); !read || err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	beyond := map[string]string{
		"base-circle": "files", "base-missing": "files", "base-wrong": "files", "set-values": "--set", "set-wrong": "--set",
		"required": "a base may give it", "empty": "a base may give it",
		"comments-only": "a base may give it", "validate": "Validate", "validate-two": "Validate", "duration-bound": "a bound of time",
		"custom-types": "UnmarshalText", "tag": "YAML", "integer-octal": "YAML", "duplicate": "YAML", "merge-key": "YAML",
		"duplicate-nested": "YAML", "not-utf8": "YAML", "two-documents": "YAML",
	}
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		read, err := check(t, text)
		if beyond[name] != "" || !read {
			continue
		}
		refused++
		if err == nil {
			t.Errorf("%s: want the schema to refuse it", name)
		}
	}
	if refused < 20 {
		t.Errorf("want the schema to judge at least 20 of the bad files, have %d", refused)
	}
}

// FuzzLoad feeds texts as file and as assignment: no panic, no lasting loop, and what loads can be written and read.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "testdata/good/template.yaml") {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b), "parameters.rank=4")
	}
	f.Add(minimal, `labels."a.b"={c: [1, "x"]}`)
	f.Add(minimal, `data.0={path: x, weight: 1e3}`)
	schema := newSchema()
	path := filepath.Join(f.TempDir(), "run.yaml")
	f.Fuzz(func(t *testing.T, text, set string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Skip(err)
		}
		r, err := schema.Load(path, []string{set})
		if err != nil {
			if err.Error() == "" {
				t.Fatal("want a message")
			}
			return
		}
		var b bytes.Buffer
		if err := schema.Write(&b, r.Value); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		back, err := schema.Load(path, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if diff := cmp.Diff(r.Value, back.Value, equal, emptyIsNil); diff != "" {
			t.Fatalf("-want +have:\n%s\n%s", diff, b.String())
		}
	})
}
