package evals

import (
	"math"
	"strings"
	"testing"
)

func TestParseTask(t *testing.T) {
	good := `{"prompt":"a?","answer":"b"}

{"messages":[{"role":"user","content":"x"}],"choices":["no","yes"],"label":1}
`
	list, err := ParseTask("task.jsonl", strings.NewReader(good))
	if err != nil || len(list) != 2 {
		t.Fatalf("have %d questions, %v", len(list), err)
	}
	bad := strings.Join([]string{
		`{"prompt":"a?"}`,
		`{"answer":"b"}`,
		`{"prompt":"a","choices":["x"],"label":1}`,
		`{"promt":"a","answer":"b"}`,
		`{"prompt":`,
	}, "\n")
	_, err = ParseTask("task.jsonl", strings.NewReader(bad))
	if err == nil {
		t.Fatal("bad lines are taken")
	}
	for _, want := range []string{
		"task.jsonl:1: want an answer", "task.jsonl:2: want messages, a prompt or a text", "task.jsonl:3: want a label from 0 to 0",
		`task.jsonl:4: unknown key "promt", did you mean prompt?`, "task.jsonl:5:",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in:\n%v", want, err)
		}
	}
	if _, err := ParseTask("empty.jsonl", strings.NewReader("\n")); err == nil || !strings.Contains(err.Error(), "holds no question") {
		t.Errorf("have %v", err)
	}
}

func TestRight(t *testing.T) {
	one := 1
	for _, c := range []struct {
		q    Question
		text string
		want bool
	}{
		{Question{Answer: "Paris"}, " paris\n", true},
		{Question{Answer: "Paris"}, "Paris.", false},
		{Question{Choices: []string{"a", "ab"}, Label: &one}, "AB, surely", true},
		{Question{Choices: []string{"a", "ab"}, Label: &one}, "a", false},
		{Question{Choices: []string{"a", "ab"}, Label: &one}, "z", false},
	} {
		if got := c.q.right(c.text); got != c.want {
			t.Errorf("%+v, %q: want %v, have %v", c.q, c.text, c.want, got)
		}
	}
}

func TestPerplexity(t *testing.T) {
	if got := Perplexity(math.Log(7)); math.Abs(got-7) > 1e-12 {
		t.Errorf("want 7, have %v", got)
	}
}

func FuzzParseTask(f *testing.F) {
	f.Add(`{"prompt":"a?","answer":"b"}`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseTask("fuzz", strings.NewReader(text))
		if err == nil && len(list) == 0 {
			t.Error("no question and no error")
		}
	})
}
