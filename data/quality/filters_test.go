package quality

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode"
)

// raw gives the measures the names of the reference.
func (m Measures) raw(t *testing.T) map[string]float64 {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for k, v := range fields {
		switch v := v.(type) {
		case float64:
			out[k] = v
			out["fineweb_"+k] = v
		case []any:
			for i, x := range v {
				names := map[string][]string{
					"top_ngrams": {"top_2gram", "top_3gram", "top_4gram"},
					"dup_ngrams": {"dup_5gram", "dup_6gram", "dup_7gram", "dup_8gram", "dup_9gram", "dup_10gram"},
				}[k]
				out[names[i]+"_char_fraction"] = x.(float64)
			}
		}
	}
	return out
}

func TestGoldenFilters(t *testing.T) {
	var file struct {
		Stops    []string `json:"stop_words"`
		Marks    []rune   `json:"punctuation_code_points"`
		Terminal []rune   `json:"terminal_punctuation_code_points"`
		Cases    []map[string]any
	}
	read(t, "quality.json", &file)
	want := map[rune]bool{}
	for _, r := range file.Marks {
		want[r] = true
	}
	ends := map[rune]bool{}
	for _, r := range file.Terminal {
		ends[r] = true
	}
	for r := range rune(0x110000) {
		if is := punctuation(r) || unicode.Is(terminal, r); is != want[r] || unicode.Is(terminal, r) != ends[r] {
			t.Errorf("%U: want punctuation %v and terminal %v, have %v", r, want[r], ends[r], is)
		}
	}
	for _, s := range file.Stops {
		if !stopWords[s] || len(stopWords) != len(file.Stops) {
			t.Errorf("stop word %s", s)
		}
	}
	for _, c := range file.Cases {
		t.Run(c["name"].(string), func(t *testing.T) {
			m := Measure(c["text"].(string))
			have := m.raw(t)
			for k, v := range c["raw_split_at_blanks"].(map[string]any) {
				w, ok := v.(float64)
				if v == nil {
					w, ok = -1, true
				}
				if h, known := have[k]; !ok || !known || math.Abs(h-w) > 1e-12 {
					t.Errorf("%s: want %v, have %v", k, v, h)
				}
			}
			for k, v := range c {
				filter, split, ok := strings.Cut(k, "/")
				if !ok || split != "whitespace" { // spaCy's words are those of a Python library with its own exceptions
					continue
				}
				reason := map[string]func() string{
					"gopher_quality":       func() string { return m.Gopher(50) },
					"gopher_quality_min10": func() string { return m.Gopher(10) },
					"gopher_repetition":    m.Repetition,
					"fineweb_quality":      m.FineWeb,
				}[filter]()
				w, _ := v.(map[string]any)["reason"].(string)
				if _, failed := v.(map[string]any)["error"]; failed {
					continue // the library divides by zero
				}
				if reason != w {
					t.Errorf("%s: want %q, have %q", k, w, reason)
				}
			}
		})
	}
}
