package methods

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tunesmith/trainer"
	"tunesmith/tune"
)

// judgeServer prefers by a function of the two responses, and misbehaves at its first requests.
func judgeServer(t *testing.T, first func(one, two string) bool) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			w.WriteHeader(http.StatusTooManyRequests)
			return
		case 2:
			fmt.Fprint(w, `{"choices":[{"mess`)
			return
		}
		var q struct{ Messages []struct{ Content string } }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text := q.Messages[len(q.Messages)-1].Content
		part := func(tag string) string {
			_, rest, _ := strings.Cut(text, "<"+tag+">\n")
			inner, _, _ := strings.Cut(rest, "\n</"+tag+">")
			return inner
		}
		one, two := -0.05, -3.0
		if !first(part("response_1"), part("response_2")) {
			one, two = two, one
		}
		fmt.Fprintf(w, `{"choices":[{"message":{"content":""},"logprobs":{"content":[{"top_logprobs":[{"token":"1","logprob":%g},{"token":"2","logprob":%g}]}]}}],"usage":{"prompt_tokens":10,"completion_tokens":1}}`, one, two)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1", asked
}

// TestJudgeShortens: a judge that likes short answers makes answers shorter, and the same run again asks nothing and
// ends with the same bits.
func TestJudgeShortens(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	url, asked := judgeServer(t, func(one, two string) bool { return len(one) < len(two) })
	ledger := filepath.Join(t.TempDir(), "ledger.jsonl")
	run := func() (before, after float64, values []float32) {
		s := behaviourSession(t, questions(40), "  method: rlaif\n  judge: "+url+"\n  ledger: "+ledger+"\n  max_tokens: 24\n",
			"batch_size: 16", "learning_rate: 0.002", "max_steps: 4", "warmup: 0", "schedule: constant")
		losses, err := s.Losses(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before = losses["eval/length"]
		if err := s.Train(t.Context()); err != nil {
			t.Fatal(err)
		}
		if losses, err = s.Losses(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, x := range s.Model.Trained() {
			values = append(values, x.Values...)
		}
		return before, losses["eval/length"], values
	}
	before, after, values := run()
	t.Logf("mean length %.1f to %.1f after %d requests", before, after, asked.Load())
	if after >= before {
		t.Errorf("the answers' mean length went from %.1f to %.1f tokens", before, after)
	}
	n := asked.Load()
	_, _, again := run()
	if asked.Load() != n {
		t.Errorf("the run again asked %d times", asked.Load()-n)
	}
	for i := range values {
		if values[i] != again[i] {
			t.Fatal("the run again ended with other bits")
		}
	}
}

// TestJudgeOfPosition: a judge that always says the first decides nothing, and the run says so.
func TestJudgeOfPosition(t *testing.T) {
	url, _ := judgeServer(t, func(_, _ string) bool { return true })
	s := behaviourSession(t, questions(12), "  method: rlaif\n  judge: "+url+"\n  ledger: "+filepath.Join(t.TempDir(), "l.jsonl")+"\n  max_tokens: 4\n", "batch_size: 2", "max_steps: 2")
	if err := s.Train(t.Context()); err == nil || !strings.Contains(err.Error(), "decided on no pair") {
		t.Errorf("have %v", err)
	}
}

// TestModelJudgesItself: a model in this process is asked as a server is.
func TestModelJudgesItself(t *testing.T) {
	s := behaviourSession(t, questions(12), "  method: rlaif\n  least_certainty: 0\n  consistent_only: false\n  max_tokens: 6\n  ledger: "+filepath.Join(t.TempDir(), "l.jsonl")+"\n", "batch_size: 4", "max_steps: 2")
	steps := 0
	s.Progress = func(p trainer.Progress) { steps = p.Step }
	if err := s.Train(t.Context()); err != nil || steps != 2 {
		t.Errorf("%d steps, %v", steps, err)
	}
}

func TestRLAIFRefuses(t *testing.T) {
	m, _ := tune.Find(tune.ObjectiveAxis, "rlaif")
	for want, change := range map[string]func(o *RLAIF){
		"want self, or an address": func(o *RLAIF) { o.Judge = "gpt" },
		"did you mean helpful":     func(o *RLAIF) { o.Rubric = "helpfull" },
	} {
		o := m.New().(*RLAIF)
		change(o)
		if _, err := o.Renderer(tune.Text{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
	if w := m.New().(*RLAIF).Warn(map[string]float64{"judge/bias": 0.8}); !strings.Contains(w, "stronger judge") {
		t.Errorf("have %q", w)
	}
}
