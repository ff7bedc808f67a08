package judge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRules(t *testing.T) {
	schema := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(schema, []byte(`{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		rule   Rule
		answer string
		want   float64
	}{
		{"exact", Rule{Kind: "exact"}, " Paris\n", 1},
		{"not exact", Rule{Kind: "exact"}, "Paris.", 0},
		{"exact by a pattern", Rule{Kind: "exact", Pattern: `answer: (\w+)`}, "I think so. answer: paris", 1},
		{"pattern misses", Rule{Kind: "exact", Pattern: `answer: (\w+)`}, "paris", 0},
		{"contains", Rule{Kind: "contains"}, "It is Paris.", 1},
		{"regex", Rule{Kind: "regex", Pattern: `^\d+$`}, "42", 1},
		{"length", Rule{Kind: "length", Least: 2, Most: 3}, "巴黎", 1},
		{"too long", Rule{Kind: "length", Most: 3}, "four", 0},
		{"json", Rule{Kind: "json"}, `{"a":[1]}`, 1},
		{"no json", Rule{Kind: "json"}, `{"a":`, 0},
		{"schema", Rule{Kind: "json", Schema: schema}, `{"n":3}`, 1},
		{"against the schema", Rule{Kind: "json", Schema: schema}, `{"n":"3"}`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewScorer([]Rule{c.rule})
			if err != nil {
				t.Fatal(err)
			}
			v, err := s.Score(t.Context(), Case{Answer: c.answer, Expected: "Paris"})
			if err != nil || v[0] != c.want {
				t.Errorf("want %g, have %v, %v", c.want, v, err)
			}
		})
	}
	s, _ := NewScorer([]Rule{{Kind: "number"}})
	if v, err := s.Score(t.Context(), Case{Answer: "so it is 1,234.50 in all", Expected: "1234.5"}); err != nil || v[0] != 1 {
		t.Errorf("have %v, %v", v, err)
	}
}

func TestRulesRefuse(t *testing.T) {
	for want, r := range map[string]Rule{
		"did you mean exact":   {Kind: "exat"},
		"want a pattern":       {Kind: "regex"},
		"pattern: error":       {Kind: "regex", Pattern: "("},
		"at_most >= at_least":  {Kind: "length", Least: 3, Most: 2},
		"want a command":       {Kind: "command"},
		"begins with http://":  {Kind: "http", URL: "ftp://x"},
		"schema: open missing": {Kind: "json", Schema: "missing"},
	} {
		if err := CheckRules([]Rule{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}

// TestCommandIsHeld: a command sees the case and nothing of the environment, and cannot take more time than it has.
func TestCommandIsHeld(t *testing.T) {
	t.Setenv("SECRET", "s")
	score := func(command string, seconds float64) (float64, error) {
		s, err := NewScorer([]Rule{{Kind: "command", Command: command, Seconds: seconds, Memory: 512}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Score(t.Context(), Case{Answer: "abc", Expected: "abc"})
		if err != nil {
			return 0, err
		}
		return v[0], nil
	}
	if v, err := score(`grep -q '"answer":"abc"' && echo 0.75`, 10); err != nil || v != 0.75 {
		t.Errorf("have %v, %v", v, err)
	}
	if v, err := score(`test -z "$SECRET" && echo 1`, 10); err != nil || v != 1 {
		t.Errorf("the environment is seen: %v, %v", v, err)
	}
	if v, err := score("exit 3", 10); err != nil || v != 0 {
		t.Errorf("have %v, %v", v, err)
	}
	began := time.Now()
	if v, err := score("sleep 60 & sleep 60", 0.3); err != nil || v != 0 || time.Since(began) > 20*time.Second {
		t.Errorf("have %v, %v after %v", v, err, time.Since(began))
	}
	if _, err := score("echo nothing", 10); err == nil || !strings.Contains(err.Error(), "want a number") {
		t.Errorf("have %v", err)
	}
	if _, err := score("echo nan", 10); err == nil || !strings.Contains(err.Error(), "want a finite number") {
		t.Errorf("have %v", err)
	}
}

func TestEndpointReward(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		body, _ := io.ReadAll(r.Body)
		switch {
		case n == 1:
			w.WriteHeader(http.StatusBadGateway)
		case strings.Contains(string(body), `"answer":"bad"`):
			fmt.Fprint(w, `{"score":1}`)
		default:
			fmt.Fprint(w, `{"reward":0.5}`)
		}
	}))
	defer s.Close()
	scorer, err := NewScorer([]Rule{{Kind: "http", URL: s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := scorer.Score(t.Context(), Case{Answer: "x"}); err != nil || v[0] != 0.5 {
		t.Errorf("have %v, %v", v, err)
	}
	if _, err := scorer.Score(t.Context(), Case{Answer: "bad"}); err == nil || !strings.Contains(err.Error(), `want {"reward": number}`) {
		t.Errorf("have %v", err)
	}
}
