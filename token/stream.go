package token

import (
	"strings"
	"unicode/utf8"
)

// Stream decodes ids one by one.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	ids         []int  // the window: ids whose text is out, as context, and those that wait
	out         int    // number of ids of the window whose text is out
	prefix      string // the text of those
}

// heldMost bounds the ids that wait for a code point to be complete.
const heldMost = 64

// Stream returns a decoder for ids that come one after another, as in generation.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream { return &Stream{t: t, skipSpecial: skipSpecial} }

// Push takes the next id and returns the text that is complete with it, possibly none: a code point is never
// split. The pieces and what Flush returns make up the text of all ids, but for one case: a run of byte tokens
// (<0x00> to <0xFF>) that was out as valid UTF-8 stays so when later ids make the whole run invalid.
func (s *Stream) Push(id int) string {
	s.ids = append(s.ids, id)
	text := s.t.Decode(s.ids, s.skipSpecial)
	if len(text) <= len(s.prefix) || strings.HasSuffix(text, string(utf8.RuneError)) && len(s.ids)-s.out < heldMost {
		return ""
	}
	return s.release(text)
}

// Flush returns the text that still waits: what is incomplete reads as U+FFFD.
func (s *Stream) Flush() string {
	text := s.t.Decode(s.ids, s.skipSpecial)
	if len(text) <= len(s.prefix) {
		return ""
	}
	return s.release(text)
}

// release returns what text has beyond the prefix, and makes the ids that waited the new context.
func (s *Stream) release(text string) string {
	fresh, ok := strings.CutPrefix(text, s.prefix)
	waiting := s.ids[s.out:]
	if !ok {
		fresh = s.t.Decode(waiting, s.skipSpecial)
	}
	context := s.t.Decode(waiting, s.skipSpecial)
	if context == "" && len(s.ids) < heldMost { // too little to tell the head of the text from its middle
		waiting, context = s.ids, text
	}
	s.ids = append(s.ids[:0], waiting...)
	s.out, s.prefix = len(s.ids), context
	return fresh
}
