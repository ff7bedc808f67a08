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
	Text    string
	IDs     []int
	Train   []bool
	Weights []float32     // factor of each token's loss; nil if all are 1
	Pieces  []token.Piece // with the bytes of Text under each token
}

// Encode renders a conversation and marks the tokens to train. train, where it is not nil, says per message whether
// it may be trained, and the messages themselves may refuse. A message that the template loses is an error.
func (t *Template) Encode(enc Encoder, c Conversation, turns Turns, train []bool) (Example, []Warning, error) {
	t = t.bind(enc)
	p, err := t.prepare(c)
	if err != nil {
		return Example{}, nil, err
	}
	res, err := p.render(p.messages, false)
	if err != nil {
		return Example{}, nil, err
	}
	warnings, err := p.lost(c, res.Text)
	if err != nil {
		return Example{}, nil, err
	}
	e := Example{Text: res.Text}
	var said []Warning
	if e.Pieces, said, err = p.encode(enc, c, res.Text, false); err != nil {
		return Example{}, nil, err
	}
	warnings = append(warnings, said...)
	e.IDs, e.Train = make([]int, len(e.Pieces)), make([]bool, len(e.Pieces))
	for i, piece := range e.Pieces {
		e.IDs[i], e.Train[i] = piece.ID, turns == AllTokens
	}
	pick := picks(c, turns, train)
	if turns == AllTokens && pick == nil {
		return e, warnings, nil
	}
	spans, err := t.spans(p, c, res)
	if err != nil {
		return Example{}, nil, err
	}
	for k, s := range spans {
		picked := pick == nil
		if !picked {
			if s.Message < 0 {
				return Example{}, nil, &Error{-1, "the {% generation %} blocks cannot be told apart by message", "train all turns, or choose a chat_template with one block for each answer"}
			}
			picked = pick[s.Message]
		}
		switch {
		case turns == AllTokens && !picked:
			mark(e, s, enc, func(i int) { e.Train[i] = false })
		case turns != AllTokens && picked:
			last := mark(e, t.closed(e.Text, s), enc, func(i int) { e.Train[i] = true })
			final := k == len(spans)-1 || spans[k+1].Message != s.Message // not a thought before the answer
			if final && last >= 0 && !enc.IsSpecial(e.IDs[last]) && e.IDs[last] != enc.EOS() {
				warnings = append(warnings, unended)
			}
		}
	}
	if pick != nil {
		e.Weights = weights(e, c, spans, enc)
	}
	return e, slices.Compact(warnings), nil
}

// picks says for each message whether its tokens are trained, nil if all answers are and count the same.
func picks(c Conversation, turns Turns, train []bool) []bool {
	answers := numbers(c, assistant)
	out := make([]bool, len(c.Messages))
	same := true
	for _, i := range answers {
		m := c.Messages[i]
		out[i] = (turns != LastTurn || i == answers[len(answers)-1]) && m.trainable() &&
			(len(train) != len(c.Messages) || train[i])
		same = same && out[i] && (m.Weight == nil || *m.Weight == 1)
	}
	if same {
		return nil
	}
	return out
}

// unended is the remark on an answer that no token ends.
const unended Warning = "an answer does not end in a special token: the model will not learn to stop; choose a chat_template that writes the end-of-turn token"

// closed extends a span over the token that ends the turn, where a {% generation %} block leaves it out.
func (t *Template) closed(text string, s Span) Span {
	end := strings.TrimSpace(t.frame().end)
	if end == "" || strings.HasSuffix(strings.TrimSpace(text[s.Start:s.End]), end) {
		return s
	}
	rest := text[s.End:]
	gap := len(rest) - len(strings.TrimLeft(rest, " \n"))
	if strings.HasPrefix(rest[gap:], end) {
		s.End += gap + len(end)
	}
	return s
}

// mark calls set for the tokens of a span and returns the last one, −1 for none. White space behind the token that
// ends the turn is the template's, not the answer's.
func mark(e Example, s Span, enc Encoder, set func(i int)) int {
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
	ends := func(i int) bool { return enc.IsSpecial(e.IDs[i]) || e.IDs[i] == enc.EOS() }
	end := last
	for end > first && !ends(end) && strings.TrimSpace(e.Text[e.Pieces[end].Start:e.Pieces[end].End]) == "" {
		end--
	}
	if ends(end) {
		last = end
	}
	for i := first; i <= last; i++ {
		set(i)
	}
	return last
}

// weights returns the weight of each token: that of its message. It is nil if all are 1.
func weights(e Example, c Conversation, spans []Span, enc Encoder) []float32 {
	var out []float32
	for _, s := range spans {
		w := c.Messages[s.Message].Weight
		if w == nil || *w == 1 {
			continue
		}
		if out == nil {
			out = make([]float32, len(e.IDs))
			for i := range out {
				out[i] = 1
			}
		}
		mark(e, s, enc, func(i int) { out[i] = float32(*w) })
	}
	return out
}

// bind returns the template with the special tokens of the tokenizer, if it takes any model's: its EOS, and the BOS
// that it puts before a text.
func (t *Template) bind(enc Encoder) *Template {
	if !t.adapts {
		return t
	}
	var s Special
	if id := enc.EOS(); id >= 0 {
		s.EOS = enc.Token(id)
	}
	if p := enc.Encode("a", token.WithSpecial()); len(p) > 0 && p[0].Start == p[0].End {
		s.BOS = enc.Token(p[0].ID)
	}
	if b := t.bound.Load(); b != nil && b.special == s {
		return b
	}
	b := t.WithSpecial(s)
	t.bound.Store(b)
	return b
}

// Prompt returns the tokens of a conversation up to where the assistant is to answer.
func (t *Template) Prompt(enc Encoder, c Conversation) ([]int, error) {
	t = t.bind(enc)
	p, err := t.prepare(c)
	if err != nil {
		return nil, err
	}
	res, err := p.render(p.messages, true)
	if err != nil {
		return nil, err
	}
	pieces, _, err := p.encode(enc, c, res.Text, true)
	if err != nil {
		return nil, err
	}
	ids := make([]int, len(pieces))
	for i, piece := range pieces {
		ids[i] = piece.ID
	}
	return ids, nil
}

// Stops returns the ids that end an answer: EOS, and the token with which the template ends a turn.
func (t *Template) Stops(enc Encoder) []int {
	t = t.bind(enc)
	var out []int
	if enc.EOS() >= 0 {
		out = append(out, enc.EOS())
	}
	if id, ok := t.turnEnd(enc); ok && !slices.Contains(out, id) {
		out = append(out, id)
	}
	return out
}

// turnEnd returns the special token that ends an assistant's turn.
func (t *Template) turnEnd(enc Encoder) (int, bool) {
	for _, p := range enc.Encode(t.frame().end) {
		if p.End > p.Start && (enc.IsSpecial(p.ID) || p.ID == enc.EOS()) {
			return p.ID, true
		}
	}
	return 0, false
}

// Check renders a few small conversations and remarks on what may surprise who trains or serves with this template
// and tokenizer. It is for the start of a run; what concerns one conversation comes from Encode.
func (t *Template) Check(enc Encoder) []Warning {
	t = t.bind(enc)
	var out []Warning
	say := func(format string, args ...any) { out = append(out, Warning(fmt.Sprintf(format, args...))) }
	f := t.frame()
	if !f.ok {
		say("the template does not render a question and its answer: the answer is lost, or an error is raised; choose another chat_template")
		return out
	}
	end := strings.TrimSpace(f.end)
	switch id, ok := t.turnEnd(enc); {
	case end == "":
		out = append(out, unended)
	case !ok:
		say("%q ends a turn but is not one special token of this tokenizer: the model will hardly learn to stop; choose a chat_template whose tokens the model knows, or plain", end)
	case id != enc.EOS() && enc.EOS() >= 0:
		say("turns end with %s, the model's EOS is %s: programs that serve the model must stop at both", enc.Token(id), enc.Token(enc.EOS()))
	}
	for _, c := range []struct {
		what  string
		turns []Message
	}{
		{"a system message", []Message{{Role: "system", Content: marker(3)}, {Role: "user", Content: marker(4)}, {Role: assistant, Content: marker(5)}}},
		{"a second question", []Message{{Role: "user", Content: marker(3)}, {Role: assistant, Content: marker(4)}, {Role: "user", Content: marker(5)}, {Role: assistant, Content: marker(6)}}},
	} {
		p, err := t.prepare(Conversation{Messages: c.turns})
		if err != nil {
			continue
		}
		res, err := p.render(p.messages, false)
		if err != nil {
			say("the template refuses %s: %v", c.what, err)
			continue
		}
		at := -1
		for _, m := range c.turns {
			next := strings.Index(res.Text, m.Content)
			if next < 0 || next < at && m.Role != "user" {
				say("the template drops or moves a message of a conversation with %s; choose another chat_template", c.what)
				break
			}
			at = next
		}
	}
	return out
}
