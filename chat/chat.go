// Package chat turns conversations into the text and the tokens that a model was trained with: messages, chat
// templates, and which tokens are trained.
//
// A template is run as transformers runs it. Which part of its text an assistant spoke comes from {% generation %}
// blocks, or, where a template has none, from comparing renderings; both are checked against the messages. What
// would make training fail silently is reported before anything is trained: a message that the template loses, an
// answer without an end, a control token inside somebody's text.
package chat

import (
	"encoding/json"
	"fmt"
)

// Conversation is what a template renders.
type Conversation struct {
	Messages []Message
	Tools    json.RawMessage            // a list of functions, or nil
	Extra    map[string]json.RawMessage // further variables of the template, such as documents or enable_thinking
}

// Special are the names of the special tokens; an empty one is not defined in the template.
type Special struct{ BOS, EOS, Unk, Pad string }

// Span is a stretch of the rendered text, bytes Start … End−1, that an assistant's message made: what the model is to
// say behind the generation prompt, with the end of its turn.
type Span struct {
	Start, End int
	Message    int // its number in the conversation
}

// Rendered is a conversation as text.
type Rendered struct {
	Text  string
	Spans []Span // in order; a message may have several, or none
}

// Error is a conversation that a template cannot take. Reason says what is wrong and Remedy what to do.
type Error struct {
	Message int // number of the message, −1 for the whole conversation
	Reason  string
	Remedy  string
}

// Error implements error.
func (e *Error) Error() string {
	s := "chat template: "
	if e.Message >= 0 {
		s += fmt.Sprintf("message %d: ", e.Message)
	}
	return s + e.Reason + "; " + e.Remedy
}

// Warning is a remark on a conversation, or on a template, that is used all the same.
type Warning string
