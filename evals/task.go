// Package evals measures a model: the score of a task with known answers, losses on held-out and on general text,
// and the comparison of two models.
package evals

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"tunesmith/chat"
	"tunesmith/generate"
	"tunesmith/internal/nearest"
	"tunesmith/tune"
)

// Question is one line of a task: a conversation, and either its answer or choices.
type Question struct {
	Messages []chat.Message `json:"messages"`
	Prompt   string         `json:"prompt"` // instead of messages: one turn of a user
	Text     string         `json:"text"`   // instead of messages: a text to be continued, without a chat template
	Answer   string         `json:"answer"` // exact match, case and outer white space aside
	Choices  []string       `json:"choices"`
	Label    *int           `json:"label"` // number of the right choice
}

// ReadTask reads a JSONL file of questions. Every bad line is reported.
func ReadTask(path string) ([]Question, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	return ParseTask(path, bytes.NewReader(b))
}

// ParseTask reads questions; name stands in errors.
func ParseTask(name string, r io.Reader) ([]Question, error) {
	var out []Question
	var errs []error
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for n := 1; lines.Scan(); n++ {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		q, err := parseQuestion(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		out = append(out, q)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	if len(out) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: holds no question", name))
	}
	return out, errors.Join(errs...)
}

func parseQuestion(text []byte) (Question, error) {
	var q Question
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return q, err
	}
	known := []string{"messages", "prompt", "text", "answer", "choices", "label"}
	for k := range keys {
		if hint := nearest.Hint(k, known); hint != "" && !contains(known, k) {
			return q, fmt.Errorf("unknown key %q%s", k, hint)
		}
	}
	if err := json.Unmarshal(text, &q); err != nil {
		return q, err
	}
	if q.Prompt != "" {
		q.Messages = append(q.Messages, chat.Message{Role: "user", Content: q.Prompt})
	}
	switch {
	case len(q.Messages) == 0 && q.Text == "":
		return q, errors.New("want messages, a prompt or a text")
	case len(q.Messages) > 0 && q.Text != "":
		return q, errors.New("want messages or a text, not both")
	case len(q.Choices) > 0 && (q.Label == nil || *q.Label < 0 || *q.Label >= len(q.Choices)):
		return q, fmt.Errorf("want a label from 0 to %d", len(q.Choices)-1)
	case len(q.Choices) == 0 && q.Answer == "":
		return q, errors.New("want an answer, or choices with a label")
	}
	return q, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Asked returns what the model is to answer or to continue.
func (q Question) Asked() string {
	if len(q.Messages) == 0 {
		return q.Text
	}
	return q.Messages[len(q.Messages)-1].Content
}

// Answer is what a model said to a question.
type Answer struct {
	Text  string
	Right bool
}

// Score is the result of a task.
type Score struct {
	Right, Total int
	Answers      []Answer // in the order of the questions
}

// Share returns the part of right answers.
func (s Score) Share() float64 {
	if s.Total == 0 {
		return 0
	}
	return float64(s.Right) / float64(s.Total)
}

// Ask lets a model answer questions greedily, in batches, and scores the answers. An answer to a question with
// choices is the choice that it begins with.
func Ask(ctx context.Context, g *generate.Generator, t tune.Text, questions []Question, maxTokens int) (Score, error) {
	const rows = 8
	s := Score{Total: len(questions)}
	for at := 0; at < len(questions); at += rows {
		part := questions[at:min(at+rows, len(questions))]
		prompts := make([][]int, len(part))
		for i, q := range part {
			if q.Text != "" {
				prompts[i] = t.Tokenizer.IDs(q.Text)
				continue
			}
			ids, err := t.Prompt(q.Messages)
			if err != nil {
				return s, fmt.Errorf("question %d: %w", at+i+1, err)
			}
			prompts[i] = ids
		}
		out, err := g.Generate(ctx, prompts, generate.Options{MaxTokens: maxTokens, Stop: t.Stops()})
		if err != nil {
			return s, err
		}
		for i, q := range part {
			text := t.Tokenizer.Decode(out[i].IDs, true)
			a := Answer{Text: text, Right: q.right(text)}
			if a.Right {
				s.Right++
			}
			s.Answers = append(s.Answers, a)
		}
	}
	return s, nil
}

func (q Question) right(text string) bool {
	have := fold(text)
	if len(q.Choices) == 0 {
		return have == fold(q.Answer)
	}
	best, length := -1, -1
	for i, c := range q.Choices {
		if f := fold(c); strings.HasPrefix(have, f) && len(f) > length {
			best, length = i, len(f)
		}
	}
	return best == *q.Label
}

// fold is the form in which answers are compared.
func fold(s string) string { return strings.ToLower(strings.TrimSpace(s)) }
