// Package chat turns conversations into the text and the tokens that a model was trained with: messages, chat
// templates, and which tokens are trained. A template that loses a message, or that leaves an answer without an end,
// is reported before anything is trained on it.
package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Message is one turn. Keys beyond these, such as tool calls, reach the template as they stand in the JSON.
type Message struct {
	Role    string
	Content string // empty where the content is no text
	raw     json.RawMessage
}

// UnmarshalJSON reads a message and keeps all its keys.
func (m *Message) UnmarshalJSON(b []byte) error {
	var v struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	m.Role, m.Content, m.raw = v.Role, "", bytes.Clone(b)
	if len(v.Content) > 0 {
		// Content may be a list of parts, which only the template reads.
		_ = json.Unmarshal(v.Content, &m.Content)
	}
	return nil
}

// MarshalJSON writes a message with all the keys that it was read with.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.raw != nil {
		return m.raw, nil
	}
	return json.Marshal(struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}{m.Role, m.Content})
}

// Conversation is what a template renders.
type Conversation struct {
	Messages []Message
	Tools    json.RawMessage            // a list of functions, or nil
	Extra    map[string]json.RawMessage // further variables of the template
}

// Special are the names of the special tokens; an empty one is not defined in the template.
type Special struct{ BOS, EOS, Unk, Pad string }

// Span is a stretch of the rendered text that an assistant's message made: bytes Start … End−1.
type Span struct{ Start, End int }

// Rendered is a conversation as text.
type Rendered struct {
	Text  string
	Spans []Span // one per assistant message, in order
}
