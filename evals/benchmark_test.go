package evals

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/chat"
	"tunesmith/generate"
	"tunesmith/internal/golden"
	"tunesmith/tune"
)

// item reads a document of a golden sample as a benchmark does.
func item(t *testing.T, benchmark string, doc json.RawMessage) Item {
	t.Helper()
	b, err := FindBenchmark(benchmark)
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer // on one line
	if err := json.Compact(&line, doc); err != nil {
		t.Fatal(err)
	}
	items, err := b.parse("golden", &line, jsonLines)
	if err != nil {
		t.Fatal(err)
	}
	return items[0]
}

// chatML is the text side of a model with the template that the prompts went through.
func chatML(t *testing.T) tune.Text {
	t.Helper()
	template, ok := chat.Builtin("chatml")
	if !ok {
		t.Fatal("no built-in template chatml")
	}
	return tune.Text{Template: template}
}

// TestGoldenPrompts builds the prompts of the harness, whose examples are found in them again.
func TestGoldenPrompts(t *testing.T) {
	dev, err := filepath.Glob(filepath.Join(golden.Data(t, "mmlu"), "mmlu_dev.jsonl"))
	if err != nil || len(dev) != 1 {
		t.Fatalf("no mmlu_dev.jsonl: %v", err)
	}
	mmlu, _ := FindBenchmark("mmlu")
	gsm8k, _ := FindBenchmark("gsm8k")
	examples, err := mmlu.Read(dev[0])
	if err != nil {
		t.Fatal(err)
	}
	worked, err := gsm8k.Read(filepath.Join(golden.Data(t, "gsm8k"), "train_1000.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Concat(files(t, "prompts_"), files(t, "smollm2_mmlu")) {
		t.Run(name(path), func(t *testing.T) {
			var g harness
			golden.JSON(t, path, &g)
			style := Style{Chat: g.Settings.Chat, Turns: g.Settings.Multiturn, System: g.Settings.System}
			text := tune.Text{}
			if style.Chat {
				text = chatML(t)
			}
			for task, samples := range g.Samples {
				for i, s := range samples {
					want, after := s.argument(0)
					var have Item
					shots := 0
					switch {
					case strings.HasPrefix(task, "mmlu"):
						have = item(t, "mmlu", s.Doc)
						for _, e := range examples {
							if shots < *g.Settings.Shots && e.Group == have.Group {
								have.Shots, shots = append(have.Shots, Shot{e.Question, e.Answer}), shots+1
							}
						}
						if want := strings.TrimSpace(after); want != have.Choices[0] {
							t.Errorf("%s %d: want choice %q, have %q", task, i, want, have.Choices[0])
						}
					case task == "gsm8k_local":
						have = item(t, "gsm8k", s.Doc)
						// The examples are drawn at random: they are those that the prompt holds, in its order.
						type found struct {
							at   int
							item Item
						}
						var list []found
						for _, e := range worked {
							if at := strings.Index(want, e.Question); at >= 0 {
								list = append(list, found{at, e})
							}
						}
						slices.SortFunc(list, func(a, b found) int { return a.at - b.at })
						for _, f := range list {
							have.Shots = append(have.Shots, Shot{f.item.Question, f.item.Answer})
						}
						shots = 5
						if g.Settings.Shots != nil {
							shots = *g.Settings.Shots
						}
						if len(have.Shots) != shots {
							t.Errorf("%s %d: want %d examples, have %d", task, i, shots, len(have.Shots))
						}
					default: // gsm8k_cot's examples are fixed, and part of the prompt alone
						have = item(t, "gsm8k", s.Doc)
						parts := strings.Split(want, "\n\n")
						have.Question = strings.Replace(strings.Replace(have.Question, "Question: ", "Q: ", 1), "\nAnswer:", "\nA:", 1)
						for _, p := range parts[:len(parts)-1] {
							q, a, _ := strings.Cut(p, "\nA: ")
							have.Shots = append(have.Shots, Shot{q + "\nA:", a})
						}
					}
					text, _, err := have.Render(text, style)
					if err != nil || text != want {
						t.Errorf("%s %d: %v\nwant %q\nhave %q", task, i, err, want, text)
					}
				}
			}
		})
	}
}

func TestGoldenGenerate(t *testing.T) {
	for _, path := range files(t, "stories_generate") {
		m := goldenModel(t, name(path))
		var g harness
		golden.JSON(t, path, &g)
		for task, samples := range g.Samples {
			for i, s := range samples {
				t.Run(fmt.Sprint(task, "/", i), func(t *testing.T) {
					o, _ := json.Marshal(s.Arguments[0][1])
					var options struct {
						Until []string
						Most  int `json:"max_gen_toks"`
					}
					if err := json.Unmarshal(o, &options); err != nil {
						t.Fatal(err)
					}
					text, _ := s.argument(0)
					have, err := Continue(t.Context(), generate.New(m.Adapted, m.backend), m.text, text, true, options.Most, options.Until)
					if err != nil || have != s.Responses[0][0] {
						t.Errorf("want %q, have %q, %v", s.Responses[0][0], have, err)
					}
				})
			}
		}
	}
}

// TestGoldenTruthfulRows reads TruthfulQA.csv and finds the choices that the golden file was made with.
func TestGoldenTruthfulRows(t *testing.T) {
	b, _ := FindBenchmark("truthfulqa")
	items, err := b.Read(filepath.Join(golden.Data(t, "truthfulqa"), "TruthfulQA.csv"))
	if err != nil {
		t.Fatal(err)
	}
	byQuestion := map[string]Item{}
	for _, i := range items {
		byQuestion[i.Question] = i
	}
	for _, path := range files(t, "smollm2_truthfulqa") {
		var g harness
		golden.JSON(t, path, &g)
		for task, samples := range g.Samples {
			for k, s := range samples {
				before, _ := s.argument(0)
				question := before[strings.LastIndex(before, "\n\nQ: ")+2:]
				have, ok := byQuestion[question]
				if !ok {
					t.Fatalf("%s %d: no row for %q", task, k, question)
				}
				var chosen Chosen
				for i, l := range have.Labels {
					for j := range s.Arguments {
						if _, after := s.argument(j); strings.TrimPrefix(after, " ") == have.Choices[i] && (strings.Contains(task, "mc2") != (l == 0) || l == -1) {
							sum, _ := s.logLikelihood(t, j)
							chosen.Sums = append(chosen.Sums, sum)
							break
						}
					}
					if len(chosen.Sums) <= i {
						chosen.Sums = append(chosen.Sums, 0) // of the other of the two metrics
					}
				}
				metric := task[strings.Index(task, "mc"):][:3]
				if score := chosen.truthful(have.Labels)[metric]; math.Abs(score-s.Acc) > 1e-9 {
					t.Errorf("%s %d: want %v, have %v", task, k, s.Acc, score)
				}
			}
		}
	}
}

// TestGoldenData reads the public files that lie beside the golden folder.
func TestGoldenData(t *testing.T) {
	for _, c := range []struct {
		benchmark, folder, pattern string
	}{
		{"mmlu", "mmlu", "*.jsonl*"},
		{"cmmlu", "cmmlu", "*.jsonl*"},
		{"gsm8k", "gsm8k", "*.jsonl"},
		{"ifeval", "ifeval", "*.jsonl"},
		{"truthfulqa", "truthfulqa", "*.csv"},
		{"copa", "xcopa", "*.jsonl"},
		{"choice", "llm_foundry_eval", "arc_*.jsonl"},
	} {
		found, err := filepath.Glob(filepath.Join(golden.Data(t, c.folder), c.pattern))
		if err != nil || len(found) == 0 {
			t.Errorf("%s: no file %s", c.folder, c.pattern)
		}
		b, err := FindBenchmark(c.benchmark)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			items, err := b.Read(path)
			if err != nil || len(items) < 10 {
				t.Errorf("%s: %d items, %v", path, len(items), err)
			}
		}
	}
}

func TestTake(t *testing.T) {
	m := goldenModel(t, "stories")
	taker := Taker{
		Ranker: NewRanker(m.Adapted, m.backend, m.text.Tokenizer, RankerOptions{Special: true}), Generator: generate.New(m.Adapted, m.backend),
		Text: m.text, Special: true,
	}
	for _, c := range []struct{ benchmark, lines, example string }{
		{"choice", `{"query":"Lily saw a","choices":["big dog","zqx"],"gold":0}`, ""},
		{"mmlu", `{"question":"One?","choices":["a","b"],"answer":"A","subject":"x_y"}`, `{"question":"Two?","choices":["a","b"],"answer":1,"subject":"x_y"}`},
		{"cmmlu", `{"question":"一？","choices":["a","b"],"answer":"B","subject":"数学"}`, ""},
		{"copa", `{"premise":"Lily was sad.","choice1":"She lost her toy.","choice2":"It is a cat.","question":"cause","label":0}`, ""},
		{"copa", `{"premise":"她很高兴。","choice1":"她笑了。","choice2":"她哭了。","question":"effect","label":0}`, ""},
		{"gsm8k", `{"question":"1+1?","answer":"it is\n#### 2"}`, ""},
		{"ifeval", `{"prompt":"Say it.","instruction_id_list":["punctuation:no_comma"],"kwargs":[{}]}`, ""},
	} {
		b, err := FindBenchmark(c.benchmark)
		if err != nil {
			t.Fatal(err)
		}
		items, err := b.parse("x", strings.NewReader(c.lines), jsonLines)
		if err != nil {
			t.Fatal(err)
		}
		items[0].Most = min(items[0].Most, 16)
		var examples []Item
		shots := 0
		if c.example != "" {
			if examples, err = b.parse("x", strings.NewReader(c.example), jsonLines); err != nil {
				t.Fatal(err)
			}
			shots = 1
		}
		out, err := taker.Take(t.Context(), b, items, examples, shots)
		if err != nil || len(out) != len(b.Metrics) || out[0].Metric != b.Metrics[0] || out[0].Items != 1 || len(out[0].Values) != 1 {
			t.Errorf("%s: have %+v, %v", c.benchmark, out, err)
		}
		if _, err := taker.Take(t.Context(), b, items, nil, 2); err == nil || !strings.Contains(err.Error(), "want 2 examples") {
			t.Errorf("%s: have %v", c.benchmark, err)
		}
	}
}

func TestBenchmarkErrors(t *testing.T) {
	if _, err := FindBenchmark("mmul"); err == nil || !strings.Contains(err.Error(), "did you mean mmlu") {
		t.Errorf("have %v", err)
	}
	for _, c := range []struct{ benchmark, line, want string }{
		{"mmlu", `{"question":"a","choices":["x","y"],"answer":"F"}`, "f:1: want a right choice from 0 to 1"},
		{"mmlu", `{`, "f:1: "},
		{"gsm8k", `{"question":"a","answer":"7"}`, "#### and a number"},
		{"ifeval", `{"prompt":"p","instruction_id_list":["x"],"kwargs":[{}]}`, "want one of IFEval's 25"},
		{"choice", `{"query":"a","choices":["x"],"gold":0}`, "at least two choices"},
		{"copa", `{"premise":"a"}`, "want a premise"},
		{"choice", ``, "holds no question"},
	} {
		b, err := FindBenchmark(c.benchmark)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.parse("f", strings.NewReader(c.line), jsonLines); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, have %v", c.benchmark, c.want, err)
		}
	}
}

func FuzzBenchmark(f *testing.F) {
	f.Add(0, `{"query":"q","choices":["a","b"],"gold":1}`)
	f.Add(2, `{"premise":"","choice1":"","choice2":"b","question":"cause","label":5}`)
	f.Add(6, `{"Question":"q","Best Answer":"b","Correct Answers":"a","Incorrect Answers":"c"}`)
	f.Fuzz(func(t *testing.T, which int, text string) {
		list := Benchmarks()
		b := list[((which%len(list))+len(list))%len(list)]
		items, err := b.parse("f", strings.NewReader(text), jsonLines)
		if err == nil && len(items) == 0 {
			t.Error("no item and no error")
		}
		for _, i := range items {
			if i.Judge == nil && len(i.Choices) < 2 {
				t.Errorf("%+v", i)
			}
		}
	})
}
