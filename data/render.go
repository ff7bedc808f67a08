package data

import (
	"encoding/json"
	"fmt"
	"strings"

	"tunesmith/chat"
	"tunesmith/token"
)

// Rendering makes examples for one model: a conversation by the model's chat template, text as it stands.
type Rendering struct {
	Tokenizer chat.Encoder
	Template  *chat.Template // may be nil if no record is a conversation
	Turns     chat.Turns     // what is trained; records can only narrow it
}

// Render implements [Renderer] for the kinds that are trained token by token.
func (r Rendering) Render(rec Record) (Example, []string, error) {
	all := r.Turns == chat.AllTokens
	switch rec.Kind {
	case Chat:
		return r.conversation(rec)
	case Completion:
		e, warnings := r.plain([]stretch{{rec.Prompt.Text, all}, {rec.Answer.Text, true}}, true)
		return e, warnings, nil
	case Text:
		e, warnings := r.plain([]stretch{{rec.Text, true}}, true)
		return e, warnings, nil
	case Segmented:
		stretches := make([]stretch, len(rec.Segments))
		for i, s := range rec.Segments {
			stretches[i] = stretch{s.Text, s.Train || all}
		}
		e, warnings := r.plain(stretches, false)
		return e, warnings, nil
	}
	return Example{}, nil, bad("choose an objective for such records, or give conversations or text", "a record of kind %s is not trained token by token", rec.Kind)
}

// RenderAnswer makes an example of a prompt and one of its answers, of which the answer alone is trained. It serves
// records that compare or judge answers.
func (r Rendering) RenderAnswer(rec Record, answer Part) (Example, []string, error) {
	if rec.Prompt.IsText() != answer.IsText() {
		return Example{}, nil, mixedParts("prompt", "answer")
	}
	if answer.IsText() {
		e, warnings := r.plain([]stretch{{rec.Prompt.Text, false}, {answer.Text, true}}, true)
		return e, warnings, nil
	}
	whole := Record{Kind: Chat, Tools: rec.Tools, Train: make([]bool, len(rec.Prompt.Messages))}
	whole.Messages = append(append(whole.Messages, rec.Prompt.Messages...), answer.Messages...)
	for _, m := range answer.Messages {
		whole.Train = append(whole.Train, m.Role == assistant)
	}
	return Rendering{r.Tokenizer, r.Template, chat.AllTurns}.conversation(whole)
}

// conversation renders messages by the template.
func (r Rendering) conversation(rec Record) (Example, []string, error) {
	if r.Template == nil {
		return Example{}, nil, bad("name a chat_template", "a conversation needs a chat template, and the model has none")
	}
	c, err := Conversation(rec.Messages, rec.Tools)
	if err != nil {
		return Example{}, nil, err
	}
	out, remarks, err := r.Template.Encode(r.Tokenizer, c, r.Turns, rec.Train)
	if err != nil {
		return Example{}, nil, err
	}
	e := Example{Weight: 1, IDs: make([]int32, len(out.IDs)), Train: out.Train}
	for i, id := range out.IDs {
		e.IDs[i] = int32(id)
	}
	warnings := make([]string, len(remarks))
	for i, w := range remarks {
		warnings[i] = string(w)
	}
	return e, warnings, nil
}

// Conversation gives messages the form that chat templates take.
func Conversation(messages []Message, tools []json.RawMessage) (chat.Conversation, error) {
	c := chat.Conversation{Messages: make([]chat.Message, len(messages))}
	for i, m := range messages {
		if m.Reasoning == "" && m.ToolCalls == nil && m.ToolCallID == "" && m.Name == "" {
			c.Messages[i] = chat.Message{Role: m.Role, Content: m.Content}
			continue
		}
		b, err := json.Marshal(m)
		if err == nil {
			err = json.Unmarshal(b, &c.Messages[i])
		}
		if err != nil {
			return c, fmt.Errorf("message %d: %w", i, err)
		}
	}
	if tools != nil {
		b, err := json.Marshal(tools)
		if err != nil {
			return c, fmt.Errorf("tools: %w", err)
		}
		c.Tools = b
	}
	return c, nil
}

// stretch is a part of a text and whether it is trained.
type stretch struct {
	text  string
	train bool
}

// plain encodes text that no chat template touches. It is encoded in one go, as it is written, rather than part by
// part; a token that lies over a border goes with the stretch that its last byte belongs to, and is remarked on. A
// text that is whole gets the tokens that the tokenizer puts around one, and the token that ends it.
func (r Rendering) plain(stretches []stretch, whole bool) (Example, []string) {
	var b strings.Builder
	ends := make([]int, len(stretches))
	for i, s := range stretches {
		b.WriteString(s.text)
		ends[i] = b.Len()
	}
	text := b.String()
	var opts []token.Option
	if whole {
		opts = append(opts, token.WithSpecial())
	}
	pieces := r.Tokenizer.Encode(text, opts...)
	e := Example{Weight: 1, IDs: make([]int32, len(pieces), len(pieces)+1), Train: make([]bool, len(pieces), len(pieces)+1)}
	var warnings []string
	at, last := 0, len(stretches)-1
	for i, p := range pieces {
		for at < last && p.End > ends[at] {
			if p.Start < ends[at] && stretches[at].train != stretches[at+1].train {
				warnings = append(warnings, "one token holds the end of what is given and the start of what is trained; a space between the two belongs to the answer")
			}
			at++
		}
		e.IDs[i], e.Train[i] = int32(p.ID), stretches[at].train
	}
	if eos := r.Tokenizer.EOS(); whole && eos >= 0 {
		if n := len(e.IDs); n == 0 || e.IDs[n-1] != int32(eos) {
			e.IDs, e.Train = append(e.IDs, int32(eos)), append(e.Train, false)
		}
		e.Train[len(e.Train)-1] = stretches[last].train
	}
	return e, warnings
}
