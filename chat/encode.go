package chat

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/token"
)

// Turns says which tokens of a conversation are trained.
type Turns uint8

// The choices. A turn is an assistant's, with the token that ends it.
const (
	AllTurns Turns = iota
	LastTurn
	AllTokens
)

// Encoder is the tokenizer.
type Encoder interface {
	Encode(text string, opts ...token.Option) []token.Piece
	EOS() int
	IsSpecial(id int) bool
	Token(id int) string
}

// Example is a conversation as tokens.
type Example struct {
	Text   string
	IDs    []int
	Train  []bool
	Pieces []token.Piece // with the bytes of Text under each token
}

// Warning is a remark on a conversation that is used all the same.
type Warning string

// Encode renders a conversation and marks the tokens to train. train, where it is not nil, says per message whether
// it may be trained. A message that the template loses is an error.
func (t *Template) Encode(enc Encoder, c Conversation, turns Turns, train []bool) (Example, []Warning, error) {
	r, err := t.Render(c, false)
	if err != nil {
		return Example{}, nil, err
	}
	if err := lost(c, r.Text); err != nil {
		return Example{}, nil, err
	}
	e := Example{Text: r.Text, Pieces: enc.Encode(r.Text)}
	e.IDs, e.Train = make([]int, len(e.Pieces)), make([]bool, len(e.Pieces))
	for i, p := range e.Pieces {
		e.IDs[i], e.Train[i] = p.ID, turns == AllTokens
	}
	if turns == AllTokens {
		return e, nil, nil
	}
	var warnings []Warning
	for _, k := range chosen(c, r, turns, train) {
		last := mark(e, r.Spans[k], enc)
		if last >= 0 && !enc.IsSpecial(e.IDs[last]) && e.IDs[last] != enc.EOS() {
			warnings = append(warnings, Warning(fmt.Sprintf("answer %d does not end in a special token but in %q: the model will not learn to stop", k+1, enc.Token(e.IDs[last]))))
		}
	}
	return e, warnings, nil
}

// chosen lists the numbers of the spans that are trained.
func chosen(c Conversation, r Rendered, turns Turns, train []bool) []int {
	var answers []int // message numbers of the spans
	for i, m := range c.Messages {
		if m.Role == "assistant" {
			answers = append(answers, i)
		}
	}
	var out []int
	for k := range r.Spans {
		if turns == LastTurn && k != len(r.Spans)-1 {
			continue
		}
		if len(answers) == len(r.Spans) && len(train) == len(c.Messages) && !train[answers[k]] {
			continue
		}
		out = append(out, k)
	}
	return out
}

// mark marks the tokens of a span and returns the last one, −1 for none. White space behind the token that ends the
// turn is the template's, not the answer's.
func mark(e Example, s Span, enc Encoder) int {
	first, last := -1, -1
	for i, p := range e.Pieces {
		if p.Start < s.End && p.End > s.Start && p.End > p.Start {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return -1
	}
	end := last
	for end > first && !enc.IsSpecial(e.IDs[end]) && e.IDs[end] != enc.EOS() && blank(e.Text[e.Pieces[end].Start:e.Pieces[end].End]) {
		end--
	}
	if enc.IsSpecial(e.IDs[end]) || e.IDs[end] == enc.EOS() {
		last = end
	}
	for i := first; i <= last; i++ {
		e.Train[i] = true
	}
	return last
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// lost reports a message whose text does not appear in the rendering, or not behind those before it.
func lost(c Conversation, text string) error {
	at := 0
	for i, m := range c.Messages {
		content := strings.TrimSpace(m.Content)
		if content == "" {
			continue
		}
		n := strings.Index(text[at:], content)
		if n < 0 {
			what := "drops or changes"
			if strings.Contains(text, content) {
				what = "moves"
			}
			if m.Role == "assistant" && thought(content) {
				continue // earlier thoughts are dropped on purpose
			}
			return fmt.Errorf("chat template: it %s message %d (%s): %q does not stand in the text in its place; choose another chat_template or change the conversation",
				what, i, m.Role, clip(content))
		}
		if m.Role != "system" { // templates may put a system message into the first turn
			at += n + len(content)
		}
	}
	return nil
}

// thought reports whether an answer holds a stretch of reasoning, which templates may cut out of earlier turns.
func thought(content string) bool {
	return slices.ContainsFunc([]string{"</think>", "</thinking>"}, func(tag string) bool { return strings.Contains(content, tag) })
}

func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// Prompt returns the tokens of a conversation up to where the assistant is to answer.
func (t *Template) Prompt(enc Encoder, c Conversation) ([]int, error) {
	r, err := t.render(c, true)
	if err != nil {
		return nil, err
	}
	pieces := enc.Encode(r.Text)
	ids := make([]int, len(pieces))
	for i, p := range pieces {
		ids[i] = p.ID
	}
	return ids, nil
}

// Stops returns the ids that end an answer: EOS, and the token with which the template ends a turn.
func (t *Template) Stops(enc Encoder) []int {
	var out []int
	if enc.EOS() >= 0 {
		out = append(out, enc.EOS())
	}
	c := Conversation{Messages: []Message{{Role: "user", Content: "a"}, {Role: "assistant", Content: "b"}}}
	e, _, err := t.Encode(enc, c, LastTurn, nil)
	if err != nil {
		return out
	}
	for i := len(e.IDs) - 1; i >= 0; i-- {
		if e.Train[i] {
			if id := e.IDs[i]; enc.IsSpecial(id) && !slices.Contains(out, id) {
				out = append(out, id)
			}
			break
		}
	}
	return out
}
