package judge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// server is an OpenAI-compatible server that misbehaves in turn before it answers. It prefers the shorter response.
type server struct {
	*httptest.Server
	asked atomic.Int64
	bad   []func(w http.ResponseWriter)
}

func newServer(t *testing.T, bad ...func(w http.ResponseWriter)) *server {
	t.Helper()
	s := &server{bad: bad}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(s.asked.Add(1)) - 1
		if n < len(s.bad) {
			s.bad[n](w)
			return
		}
		var q Request
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
		one, two := -0.1, -2.4
		if len(part("response_1")) > len(part("response_2")) {
			one, two = two, one
		}
		fmt.Fprintf(w, `{"choices":[{"message":{"content":"1"},"logprobs":{"content":[{"top_logprobs":[{"token":"1","logprob":%g},{"token":" 2","logprob":%g},{"token":"x","logprob":-9}]}]}}],"usage":{"prompt_tokens":100,"completion_tokens":1}}`, one, two)
	}))
	t.Cleanup(s.Close)
	return s
}

func status(code int, header ...string) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func cut(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		c.Close()
	}
}

func slow(w http.ResponseWriter) { time.Sleep(300 * time.Millisecond); fmt.Fprint(w, "{}") }

// TestMisbehavingServer: the judge gets its verdict from a server that is busy, fails, is slow, talks nonsense and cuts the
// connection.
func TestMisbehavingServer(t *testing.T) {
	s := newServer(t, status(429, "Retry-After", "0"), status(500), cut, slow,
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"choices":`) },
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"choices":[]}`) }, status(503))
	e := &Endpoint{URL: s.URL + "/v1", Tries: 9, Wait: time.Millisecond, Timeout: 100 * time.Millisecond}
	v, err := (&Comparer{Asker: e, Model: "m", Rubric: "r"}).Compare(t.Context(), "question", "short", "much longer answer")
	if err != nil {
		t.Fatal(err)
	}
	if v.Hard != "A" || !v.Consistent || v.Bias != 0 {
		t.Errorf("have %+v", v)
	}
}

func TestEndpointGivesUp(t *testing.T) {
	s := newServer(t, status(500), status(500), status(500))
	_, err := (&Endpoint{URL: s.URL, Tries: 3, Wait: time.Millisecond}).Ask(t.Context(), Request{})
	if err == nil || !strings.Contains(err.Error(), "3 attempts failed") {
		t.Errorf("have %v", err)
	}
	s = newServer(t, status(401))
	_, err = (&Endpoint{URL: s.URL, Tries: 3, Wait: time.Millisecond}).Ask(t.Context(), Request{})
	if err == nil || !strings.Contains(err.Error(), "check the address, the key") || s.asked.Load() != 1 {
		t.Errorf("after %d requests: %v", s.asked.Load(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Endpoint{URL: s.URL}).Ask(ctx, Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
}

// TestLedger: what was asked is not asked again, also after a crash that cut the last line short, and the budget holds.
func TestLedger(t *testing.T) {
	s := newServer(t)
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	open := func(budget float64) *Recorded {
		l, err := OpenLedger(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return &Recorded{Asker: &Endpoint{URL: s.URL}, Ledger: l, Price: Price{In: 10, Out: 30}, Budget: budget}
	}
	ask := func(r *Recorded, n int) error {
		_, err := (&Comparer{Asker: r, Model: "m"}).Compare(t.Context(), fmt.Sprint("question ", n), "a", "bb")
		return err
	}
	r := open(0)
	if err := errors.Join(ask(r, 1), ask(r, 1), ask(r, 2)); err != nil {
		t.Fatal(err)
	}
	if n := s.asked.Load(); n != 4 || r.Ledger.Len() != 4 {
		t.Errorf("%d requests for two pairs, %d in the ledger", n, r.Ledger.Len())
	}
	if want := 4 * (10*100 + 30*1) / 1e6; r.Ledger.Spent() != want {
		t.Errorf("want a cost of %g, have %g", want, r.Ledger.Spent())
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"key":"half a li`)
	f.Close()
	again := open(0.001)
	if err := errors.Join(ask(again, 1), ask(again, 2)); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) || s.asked.Load() != 4 {
		t.Error("a run that asks nothing new has changed the ledger, or has asked")
	}
	if err := ask(again, 3); !errors.Is(err, ErrBudget) || s.asked.Load() != 4 {
		t.Errorf("have %v after %d requests", err, s.asked.Load())
	}
	if err := os.WriteFile(path, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(path); err == nil || !strings.Contains(err.Error(), "ledger.jsonl:1:") {
		t.Errorf("have %v", err)
	}
}

func TestVerdictsOfText(t *testing.T) {
	for text, want := range map[string]float64{"1": 1, " 2.": 0, "The first errs.\n[[2]]": 0, "[[1]] or [[TIE]]": 0.5} {
		if p, err := readVerdict(text); err != nil || p != want {
			t.Errorf("%q: want %g, have %g, %v", text, want, p, err)
		}
	}
	for _, text := range []string{"", "I cannot judge this.", "[[3]]"} {
		if _, err := readVerdict(text); !errors.Is(err, ErrNoVerdict) {
			t.Errorf("%q: have %v", text, err)
		}
	}
	if _, err := readMarks(map[string]float64{"Sorry": -0.1}); !errors.Is(err, ErrNoVerdict) {
		t.Errorf("have %v", err)
	}
}

func TestRevise(t *testing.T) {
	n := 0
	a := asker(func(q Request) (Reply, error) {
		n++
		return Reply{Text: []string{"too long", "short"}[n-1]}, nil
	})
	critique, revised, err := Revise(t.Context(), a, "m", "be brief", "p", "a long answer")
	if err != nil || critique != "too long" || revised != "short" {
		t.Errorf("have %q, %q, %v", critique, revised, err)
	}
}

type asker func(q Request) (Reply, error)

func (a asker) Ask(_ context.Context, q Request) (Reply, error) { return a(q) }

func TestRubrics(t *testing.T) {
	for _, name := range Rubrics() {
		if text, err := OpenRubric(name); err != nil || len(text) < 100 {
			t.Errorf("%s: %.40q, %v", name, text, err)
		}
	}
	if _, err := OpenRubric("helpfull"); err == nil || !strings.Contains(err.Error(), "did you mean helpful") {
		t.Errorf("have %v", err)
	}
}

func FuzzCompletion(f *testing.F) {
	f.Add([]byte(`{"choices":[{"message":{"content":"1"},"logprobs":{"content":[{"top_logprobs":[{"token":"1","logprob":-1}]}]}}]}`))
	f.Add([]byte(`{"choices":[{"message":{"refusal":"no"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := readCompletion(text); err == nil && len(r.Top) > 0 {
			_, _ = readMarks(r.Top)
		}
	})
}
