package evals

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/tune"
)

// close compares two numbers by an absolute and a relative bound, NaN being equal to NaN.
func closeTo(have, want, abs, rel float64) bool {
	return have == want || math.IsNaN(have) && math.IsNaN(want) || math.Abs(have-want) <= abs+rel*math.Abs(want)
}

// harness is a file of lm-evaluation-harness.
type harness struct {
	Settings struct {
		Shots     *int   `json:"num_fewshot"`
		Chat      bool   `json:"apply_chat_template"`
		Multiturn bool   `json:"fewshot_as_multiturn"`
		System    string `json:"system_instruction"`
	} `json:"settings"`
	Results map[string]map[string]any `json:"results"`
	Samples map[string][]sample       `json:"samples"`
}

type sample struct {
	Doc       json.RawMessage `json:"doc"`
	Arguments [][]any         `json:"arguments"`
	Responses [][]any         `json:"resps"`
	Filter    string          `json:"filter"`
	Acc       float64         `json:"acc"`
	AccNorm   float64         `json:"acc_norm"`
	AccBytes  float64         `json:"acc_bytes"`
	AccMI     float64         `json:"acc_mutual_info"`
}

// argument returns the context and the continuation of a request; the options of a generation have their JSON.
func (s sample) argument(i int) (before, after string) {
	before, _ = s.Arguments[i][0].(string)
	if len(s.Arguments[i]) > 1 {
		after, _ = s.Arguments[i][1].(string)
	}
	return before, after
}

// logLikelihood returns the answer to a request.
func (s sample) logLikelihood(t *testing.T, i int) (sum float64, greedy bool) {
	t.Helper()
	list, ok := s.Responses[i][0].([]any)
	if !ok || len(list) != 2 {
		t.Fatalf("have %v", s.Responses[i])
	}
	sum, _ = list[0].(float64)
	greedy, _ = list[1].(bool)
	return sum, greedy
}

// files returns the golden files whose name begins with a prefix.
func files(t *testing.T, prefix string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(golden.Dir(t, "evals"), prefix+"*.json"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no golden file %s*: %v", prefix, err)
	}
	return found
}

func name(path string) string { return strings.TrimSuffix(filepath.Base(path), ".json") }

// opened is a model of the golden cases.
type opened struct {
	*model.Adapted
	backend engine.Backend
	text    tune.Text
}

func openModel(t *testing.T, path string) opened {
	t.Helper()
	m, err := model.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	text, err := tune.OpenText(path, m.File, "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.Adapt(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := engine.Open("cpu", engine.Options{Precision: engine.FP32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return opened{a, b, text}
}

// goldenModel returns the model that a file was made with. SmolLM2 is not part of the golden folder: its place is
// TUNESMITH_SMOLLM2.
func goldenModel(t *testing.T, file string) opened {
	t.Helper()
	if strings.HasPrefix(file, "stories") {
		return openModel(t, filepath.Join(golden.Dir(t, "evals"), "stories260k_hf"))
	}
	path := os.Getenv("TUNESMITH_SMOLLM2")
	if path == "" {
		t.Skip("GOLDEN SKIPPED: TUNESMITH_SMOLLM2 names no SmolLM2-135M-Instruct GGUF file")
	}
	return openModel(t, path)
}

func TestGoldenAggregation(t *testing.T) {
	for _, path := range files(t, "aggregation") {
		var g struct {
			Mean []struct {
				Values       []float64
				Mean         float64
				Stderr       *float64
				SampleStddev *float64 `json:"sample_stddev"`
			} `json:"mean_stderr"`
			Weighted struct {
				Items      [][2]float64
				Perplexity float64 `json:"weighted_perplexity"`
				Bits       float64 `json:"bits_per_byte"`
			}
			F1 struct {
				Items   [][2]int
				F1, MCC float64
			} `json:"f1_mcc"`
			Pooled struct {
				Stderrs    []float64
				Sizes      []int
				Pooled     float64
				Weighted   float64 `json:"aggregate_weighted"`
				Unweighted float64 `json:"aggregate_unweighted"`
			} `json:"pooled_stderr"`
		}
		golden.JSON(t, path, &g)
		for i, c := range g.Mean {
			t.Run(fmt.Sprintf("%s/mean/%d", name(path), i), func(t *testing.T) {
				mean, stderr := Mean(c.Values)
				if !closeTo(mean, c.Mean, 1e-12, 0) || c.Stderr != nil && !closeTo(stderr, *c.Stderr, 1e-12, 0) || c.Stderr == nil && !math.IsNaN(stderr) {
					t.Errorf("want %v ± %v, have %v ± %v", c.Mean, c.Stderr, mean, stderr)
				}
			})
		}
		t.Run(name(path)+"/weighted", func(t *testing.T) {
			var l Likelihood
			for _, x := range g.Weighted.Items {
				l = l.Add(Likelihood{x[0], int(x[1]), int(x[1])})
			}
			if !closeTo(l.WordPerplexity(), g.Weighted.Perplexity, 0, 1e-12) || !closeTo(l.BytePerplexity(), g.Weighted.Perplexity, 0, 1e-12) ||
				!closeTo(l.BitsPerByte(), g.Weighted.Bits, 0, 1e-12) {
				t.Errorf("want %+v, have %v", g.Weighted, l)
			}
		})
		t.Run(name(path)+"/f1", func(t *testing.T) {
			var truth, predicted []int
			for _, x := range g.F1.Items {
				truth, predicted = append(truth, x[0]), append(predicted, x[1])
			}
			if have := F1(truth, predicted); !closeTo(have, g.F1.F1, 1e-12, 0) {
				t.Errorf("F1: want %v, have %v", g.F1.F1, have)
			}
			if have := MCC(truth, predicted); !closeTo(have, g.F1.MCC, 1e-12, 0) {
				t.Errorf("MCC: want %v, have %v", g.F1.MCC, have)
			}
		})
		t.Run(name(path)+"/pooled", func(t *testing.T) {
			p := g.Pooled
			if have := PooledError(p.Stderrs, p.Sizes); !closeTo(have, p.Pooled, 1e-12, 0) {
				t.Errorf("want %v, have %v", p.Pooled, have)
			}
			scores := []float64{0.5, 0.25, 0.75}
			if have := Aggregate(scores, p.Sizes, true); !closeTo(have, p.Weighted, 1e-12, 0) {
				t.Errorf("want %v, have %v", p.Weighted, have)
			}
			if have := Aggregate(scores, p.Sizes, false); !closeTo(have, p.Unweighted, 1e-12, 0) {
				t.Errorf("want %v, have %v", p.Unweighted, have)
			}
		})
	}
}

func TestGoldenFilters(t *testing.T) {
	for _, path := range files(t, "gsm8k_filters") {
		var g struct {
			Rows []struct {
				Response, Gold, Strict, Flexible string
				Cot                              string  `json:"cot_strict"`
				StrictMatch                      float64 `json:"strict_match"`
				FlexibleMatch                    float64 `json:"flexible_match"`
				CotMatch                         float64 `json:"cot_strict_match"`
			}
			Exact []struct {
				Prediction, Reference string
				Options               struct {
					Case        bool     `json:"ignore_case"`
					Punctuation bool     `json:"ignore_punctuation"`
					Numbers     bool     `json:"ignore_numbers"`
					Regexes     []string `json:"regexes_to_ignore"`
				}
				Match float64 `json:"exact_match"`
			} `json:"exact_match"`
			Majority []struct{ Responses, Majority []string } `json:"majority_vote"`
		}
		golden.JSON(t, path, &g)
		for i, r := range g.Rows {
			t.Run(fmt.Sprintf("%s/row/%d", name(path), i), func(t *testing.T) {
				for _, c := range []struct {
					e     Extraction
					want  string
					match float64
				}{{GSM8KStrict, r.Strict, r.StrictMatch}, {GSM8KFlexible, r.Flexible, r.FlexibleMatch}, {GSM8KReasoned, r.Cot, r.CotMatch}} {
					have := c.e.Extract(r.Response)
					equal, err := GSM8KMatch.Equal(have, r.Gold)
					if err != nil || have != c.want || equal != (c.match == 1) {
						t.Errorf("%q: want %q (%v), have %q (%v), %v", r.Response, c.want, c.match, have, equal, err)
					}
				}
			})
		}
		for i, c := range g.Exact {
			t.Run(fmt.Sprintf("%s/exact/%d", name(path), i), func(t *testing.T) {
				m := Match{Ignore: c.Options.Regexes, IgnoreCase: c.Options.Case, IgnorePunctuation: c.Options.Punctuation, IgnoreNumbers: c.Options.Numbers}
				if equal, err := m.Equal(c.Prediction, c.Reference); err != nil || equal != (c.Match == 1) {
					t.Errorf("%q, %q: want %v, have %v, %v", c.Prediction, c.Reference, c.Match, equal, err)
				}
			})
		}
		for i, c := range g.Majority {
			t.Run(fmt.Sprintf("%s/majority/%d", name(path), i), func(t *testing.T) {
				if have := Majority(c.Responses); have != c.Majority[0] {
					t.Errorf("want %q, have %q", c.Majority[0], have)
				}
			})
		}
	}
}

func TestGoldenTruthfulFormula(t *testing.T) {
	for _, path := range files(t, "truthfulqa_formula") {
		var g struct {
			Rows []struct {
				LogLikelihoods []float64 `json:"loglikelihoods"`
				Labels         []int
				MC1            float64
				MC2            float64 `json:"mc2_numpy"`
			}
		}
		golden.JSON(t, path, &g)
		for i, r := range g.Rows {
			t.Run(fmt.Sprint(name(path), "/", i), func(t *testing.T) {
				c := Chosen{Sums: r.LogLikelihoods, Choice: Choice{Labels: r.Labels}}
				if have := c.Accuracy(); have != r.MC1 {
					t.Errorf("mc1: want %v, have %v", r.MC1, have)
				}
				if have := c.Truthful(); !closeTo(have, r.MC2, 1e-12, 0) {
					t.Errorf("mc2: want %v, have %v", r.MC2, have)
				}
			})
		}
	}
}

// choiceOf rebuilds the choice of a sample from its requests.
func choiceOf(t *testing.T, s sample) (c Choice, bare bool) {
	t.Helper()
	var doc struct {
		Gold, Answer *int
		Choices      []string
		MC1          *struct {
			Labels []int
		} `json:"mc1_targets"`
		MC2 *struct {
			Labels []int
		} `json:"mc2_targets"`
	}
	if err := json.Unmarshal(s.Doc, &doc); err != nil {
		t.Fatal(err)
	}
	n := len(s.Arguments)
	if before, _ := s.argument(n - 1); before == "" {
		n, bare = n/2, true
	}
	for i := range n {
		before, after := s.argument(i)
		c.Context, c.Answers = before, append(c.Answers, after)
	}
	switch {
	case doc.Gold != nil:
		c.Gold = *doc.Gold
	case doc.Answer != nil:
		c.Gold = *doc.Answer
	case doc.MC2 != nil && len(doc.MC2.Labels) == n:
		c.Labels = doc.MC2.Labels
	}
	return c, bare
}

// TestGoldenChoices scores the multiple-choice questions of every file that has some.
func TestGoldenChoices(t *testing.T) {
	for _, prefix := range []string{"stories_mc", "smollm2_"} {
		for _, path := range files(t, prefix) {
			t.Run(name(path), func(t *testing.T) {
				m := goldenModel(t, name(path))
				special := !strings.Contains(name(path), "nobos")
				var g harness
				golden.JSON(t, path, &g)
				s := NewRanker(m.Adapted, m.backend, m.text.Tokenizer, RankerOptions{Special: special, Length: 2048})
				abs := 1e-3
				if strings.HasPrefix(name(path), "stories") {
					abs = 1e-4
				}
				for task, samples := range g.Samples {
					t.Run(task, func(t *testing.T) { checkChoices(t, s, task, samples, g.Results[task], abs) })
				}
			})
		}
	}
}

func checkChoices(t *testing.T, s *Ranker, task string, samples []sample, results map[string]any, abs float64) {
	scores := map[string][]float64{}
	if testing.Short() {
		samples = samples[:min(3, len(samples))]
	}
	for i, x := range samples {
		c, bare := choiceOf(t, x)
		have, err := s.Choose(t.Context(), c, bare)
		if err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
		narrow := false // two answers are so near that rounding decides
		for k := range x.Arguments {
			want, _ := x.logLikelihood(t, k)
			sum := 0.0
			if k < len(have.Sums) {
				sum = have.Sums[k]
			} else {
				sum = have.Bare[k-len(have.Sums)]
			}
			if !closeTo(sum, want, abs, 1e-5) {
				t.Errorf("question %d, request %d: want %v, have %v", i, k, want, sum)
			}
			for l := range k {
				if other, _ := x.logLikelihood(t, l); math.Abs(other-want) < 2*abs {
					narrow = true
				}
			}
		}
		if strings.Contains(task, "mc2") {
			scores["acc"] = append(scores["acc"], have.Truthful())
			if !closeTo(have.Truthful(), x.Acc, 1e-3, 0) {
				t.Errorf("question %d: want mc2 %v, have %v", i, x.Acc, have.Truthful())
			}
			continue
		}
		for _, k := range []struct {
			name       string
			have, want float64
		}{
			{"acc", have.Accuracy(), x.Acc},
			{"acc_norm", have.PerCharacter(), x.AccNorm},
			{"acc_bytes", have.PerByte(), x.AccBytes},
		} {
			if _, ok := results[k.name+",none"]; !ok {
				continue
			}
			scores[k.name] = append(scores[k.name], k.have)
			if k.have != k.want && !narrow {
				t.Errorf("question %d: want %s %v, have %v", i, k.name, k.want, k.have)
			}
		}
		if bare {
			scores["acc_mutual_info"] = append(scores["acc_mutual_info"], have.MutualInformation())
			if have.MutualInformation() != x.AccMI && !narrow {
				t.Errorf("question %d: want acc_mutual_info %v, have %v", i, x.AccMI, have.MutualInformation())
			}
		}
	}
	if testing.Short() {
		return
	}
	for metric, values := range scores {
		mean, stderr := Mean(values)
		want, _ := results[metric+",none"].(float64)
		wantErr, _ := results[metric+"_stderr,none"].(float64)
		if !closeTo(mean, want, 1e-3, 0) || !closeTo(stderr, wantErr, 1e-3, 0) {
			t.Errorf("%s: want %v ± %v, have %v ± %v", metric, want, wantErr, mean, stderr)
		}
	}
}

func TestGoldenRolling(t *testing.T) {
	for _, path := range files(t, "stories_rolling") {
		t.Run(name(path), func(t *testing.T) {
			m := goldenModel(t, name(path))
			var g harness
			golden.JSON(t, path, &g)
			length := 0
			if _, err := fmt.Sscanf(name(path), "stories_rolling_%d", &length); err != nil {
				t.Fatal(err)
			}
			s := NewRanker(m.Adapted, m.backend, m.text.Tokenizer, RankerOptions{Special: !strings.Contains(name(path), "nobos"), Length: length})
			for task, samples := range g.Samples {
				var all Likelihood
				for i, x := range samples {
					text, _ := x.argument(0)
					l, err := s.Text(t.Context(), text)
					if err != nil {
						t.Fatal(err)
					}
					want, ok := x.Responses[0][0].(float64)
					if !ok || !closeTo(l.Sum, want, 1e-3, 1e-5) {
						t.Errorf("document %d: want %v, have %v", i, x.Responses[0], l.Sum)
					}
					all = all.Add(l)
				}
				for metric, have := range map[string]float64{
					"word_perplexity": all.WordPerplexity(), "byte_perplexity": all.BytePerplexity(), "bits_per_byte": all.BitsPerByte(),
				} {
					if want, _ := g.Results[task][metric+",none"].(float64); !closeTo(have, want, 0, 1e-5) {
						t.Errorf("%s: want %v, have %v", metric, want, have)
					}
				}
			}
		})
	}
}

func TestIntervals(t *testing.T) {
	// Wilson's interval of 8 of 10 is 0.490 to 0.943 (Brown, Cai, DasGupta 2001).
	low, high := Interval(8, 10)
	if math.Abs(low-0.4902) > 1e-3 || math.Abs(high-0.9433) > 1e-3 {
		t.Errorf("have %v to %v", low, high)
	}
	if low, high := Interval(0, 0); low != 0 || high != 1 {
		t.Errorf("nothing is known: have %v to %v", low, high)
	}
	if p := McNemar(9, 1); math.Abs(p-0.021484375) > 1e-12 {
		t.Errorf("want 22/1024, have %v", p)
	}
	if McNemar(3, 3) != 1 || McNemar(0, 0) != 1 {
		t.Error("no difference is no surprise")
	}
}

func TestRankerRefuses(t *testing.T) {
	for _, c := range []Choice{{Answers: []string{"a"}}, {Answers: []string{"a", "b"}, Gold: 2}, {Answers: []string{"a", "b"}, Labels: []int{1}}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if _, err := (Match{Ignore: []string{"("}}).Equal("a", "b"); err == nil || errors.Unwrap(err) == nil {
		t.Errorf("have %v", err)
	}
	if diff := cmp.Diff("2", Majority([]string{"1", "2", "2"})); diff != "" {
		t.Error(diff)
	}
}
