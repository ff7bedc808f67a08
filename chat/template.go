package chat

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"tunesmith/internal/jinja"
)

// Template is a model's chat template with its special tokens. It is immutable.
type Template struct {
	source   string
	special  Special
	template *jinja.Template
	now      func() time.Time
}

// NewTemplate parses a template in the dialect of transformers.
func NewTemplate(source string, special Special) (*Template, error) {
	t, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return &Template{source: source, special: special, template: t}, nil
}

// Source returns the template's text.
func (t *Template) Source() string { return t.source }

// Contract is a hash of all that a rendering depends on beside the conversation. It is saved with an adapter, which
// only works behind the same contract.
func (t *Template) Contract() string {
	h := sha256.New()
	for _, part := range []string{t.source, t.special.BOS, t.special.EOS, t.special.Unk, t.special.Pad} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Render renders a conversation. generationPrompt adds the beginning of the assistant's next turn.
func (t *Template) Render(c Conversation, generationPrompt bool) (Rendered, error) {
	res, err := t.render(c, generationPrompt)
	if err != nil {
		return Rendered{}, err
	}
	r := Rendered{Text: res.Text}
	if t.template.HasGeneration() && res.Exact {
		for _, g := range res.Generations {
			r.Spans = append(r.Spans, Span{g.Start, g.End})
		}
		return r, nil
	}
	for i, m := range c.Messages {
		if m.Role != "assistant" {
			continue
		}
		span, err := t.span(c, i, res.Text)
		if err != nil {
			return r, err
		}
		r.Spans = append(r.Spans, span)
	}
	return r, nil
}

func (t *Template) render(c Conversation, generationPrompt bool) (jinja.Result, error) {
	if len(c.Messages) == 0 {
		return jinja.Result{}, errors.New("chat template: a conversation needs a message")
	}
	vars := map[string]jinja.Value{"add_generation_prompt": generationPrompt, "tools": nil, "documents": nil}
	messages, err := t.messages(c.Messages)
	if err != nil {
		return jinja.Result{}, err
	}
	vars["messages"] = messages
	if len(c.Tools) > 0 {
		if vars["tools"], err = jinja.FromJSON(c.Tools); err != nil {
			return jinja.Result{}, fmt.Errorf("tools: %w", err)
		}
	}
	for name, token := range map[string]string{"bos_token": t.special.BOS, "eos_token": t.special.EOS, "unk_token": t.special.Unk, "pad_token": t.special.Pad} {
		if token != "" {
			vars[name] = token
		}
	}
	for name, text := range c.Extra {
		if vars[name], err = jinja.FromJSON(text); err != nil {
			return jinja.Result{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	res, err := t.template.Render(vars, jinja.Options{Now: t.now})
	if err != nil {
		return res, fmt.Errorf("chat template: %w", err)
	}
	return res, nil
}

// messages gives the messages the form in which transformers hands them to a template: keys that are null are
// dropped, and a thought stands under both of its names.
func (t *Template) messages(list []Message) (jinja.List, error) {
	var out jinja.List
	for i, m := range list {
		text, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		v, err := jinja.FromJSON(text)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		d, ok := v.(*jinja.Dict)
		if !ok {
			return nil, fmt.Errorf("message %d: want an object, have %s", i, text)
		}
		d = d.Without(func(_ string, v jinja.Value) bool { return v == nil })
		for _, key := range []string{"reasoning_content", "thinking", "reasoning"} {
			if thought, ok := d.Get(key); ok {
				d.Set("reasoning_content", thought)
				if _, ok := d.Get("thinking"); !ok {
					d.Set("thinking", thought)
				}
				break
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// marker takes the place of an answer to find where a template puts it. Its letters are unlikely to be trimmed,
// stripped or merged.
const marker = "Xq7zMARKERz7qX"

// span finds the text of answer i in the rendering of a template that does not mark it. The answer begins where the
// rendering of the messages before it, with a generation prompt, ends, and ends where the rendering up to it ends;
// where the template renders these differently, for instance because it drops earlier thoughts, the place of a
// marker in the answer's place decides.
func (t *Template) span(c Conversation, i int, full string) (Span, error) {
	cut := c
	cut.Messages = c.Messages[:i]
	var s Span
	found := false
	if i > 0 {
		if before, err := t.render(cut, true); err == nil && strings.HasPrefix(full, before.Text) {
			s.Start, found = len(before.Text), true
		}
	}
	cut.Messages = c.Messages[:i+1]
	upTo, err := t.render(cut, false)
	if found && err == nil && strings.HasPrefix(full, upTo.Text) && len(upTo.Text) >= s.Start {
		s.End = len(upTo.Text)
		return s, nil
	}
	marked := c
	marked.Messages = append([]Message(nil), c.Messages...)
	marked.Messages[i] = Message{Role: "assistant", Content: marker}
	res, err := t.render(marked, false)
	if err != nil {
		return s, err
	}
	at := strings.Index(res.Text, marker)
	if at < 0 {
		return s, fmt.Errorf("chat template: message %d (assistant) does not appear in the text; choose another chat_template", i)
	}
	prefix, suffix := res.Text[:at], res.Text[at+len(marker):]
	if !strings.HasPrefix(full, prefix) || !strings.HasSuffix(full, suffix) || len(prefix)+len(suffix) > len(full) {
		return s, fmt.Errorf("chat template: the place of message %d (assistant) cannot be told; choose a chat_template with {%% generation %%} blocks", i)
	}
	return Span{len(prefix), t.turnEnd(full, len(full)-len(suffix))}, nil
}

// turnEnd extends the end of an answer's text over what closes the turn: a token in <…> right behind it.
func (t *Template) turnEnd(text string, end int) int {
	rest := strings.TrimLeft(text[end:], " \n")
	if t.special.EOS != "" && strings.HasPrefix(rest, t.special.EOS) {
		return len(text) - len(rest) + len(t.special.EOS)
	}
	if strings.HasPrefix(rest, "<") {
		if i := strings.IndexByte(rest, '>'); i > 0 && !strings.ContainsAny(rest[:i], " \n") {
			return len(text) - len(rest) + i + 1
		}
	}
	return end
}
