package chat

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/internal/jinja"
	"tunesmith/token"
)

// A control token is a special token that the template writes. Text of a message that spells one stays text: it is
// marked with two private characters before rendering, found again behind it, and encoded without special tokens.
const (
	markBegin = "\U000f0000"
	markEnd   = "\U000f0001"
)

// encode turns the rendered text into tokens.
func (p *prepared) encode(enc Encoder, c Conversation, text string, prompt bool) ([]token.Piece, []Warning, error) {
	pieces := enc.Encode(text)
	var spelled []string // special tokens that stand in a message
	for _, piece := range pieces {
		s := text[piece.Start:piece.End]
		if s != "" && enc.IsSpecial(piece.ID) && !slices.Contains(spelled, s) &&
			(holds(p.messages, s) || holds(p.vars["tools"], s) || holds(p.vars["documents"], s)) {
			spelled = append(spelled, s)
		}
	}
	if spelled == nil {
		return pieces, nil, nil
	}
	literal, err := p.literal(text, spelled, prompt)
	if err != nil {
		return nil, nil, err
	}
	if literal == nil { // the template leaves the place out, or writes the token itself
		return pieces, nil, nil
	}
	inside := func(piece token.Piece) bool {
		return slices.ContainsFunc(literal, func(s Span) bool { return piece.Start < s.End && piece.End > s.Start })
	}
	// Between two tokens of the template's the text is encoded again.
	var out []token.Piece
	for i := 0; i < len(pieces); {
		if enc.IsSpecial(pieces[i].ID) && !inside(pieces[i]) {
			out = append(out, pieces[i])
			i++
			continue
		}
		j, again := i, false
		for ; j < len(pieces) && (!enc.IsSpecial(pieces[j].ID) || inside(pieces[j])); j++ {
			again = again || enc.IsSpecial(pieces[j].ID)
		}
		if !again {
			out = append(out, pieces[i:j]...)
		} else {
			start := pieces[i].Start
			for _, piece := range enc.Encode(text[start:pieces[j-1].End], token.WithoutParsingSpecial()) {
				out = append(out, token.Piece{ID: piece.ID, Start: start + piece.Start, End: start + piece.End})
			}
		}
		i = j
	}
	w := Warning(fmt.Sprintf("a message spells the special token %s: it is encoded as plain text", strings.Join(spelled, ", ")))
	return out, []Warning{w}, nil
}

// holds reports whether a text inside v contains s.
func holds(v jinja.Value, s string) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, s)
	case jinja.List:
		return slices.ContainsFunc(v, func(x jinja.Value) bool { return holds(x, s) })
	case *jinja.Dict:
		return slices.ContainsFunc(v.Keys(), func(k string) bool { return holds(get(v, k), s) })
	}
	return false
}

// rewrite replaces the texts inside v, but not the keys.
func rewrite(v jinja.Value, f func(string) string) jinja.Value {
	switch v := v.(type) {
	case string:
		return f(v)
	case jinja.List:
		out := make(jinja.List, len(v))
		for i, x := range v {
			out[i] = rewrite(x, f)
		}
		return out
	case *jinja.Dict:
		out := v.Clone()
		for _, k := range v.Keys() {
			out.Set(k, rewrite(get(v, k), f))
		}
		return out
	}
	return v
}

// literal returns the stretches of text in which messages spell special tokens.
func (p *prepared) literal(text string, spelled []string, prompt bool) ([]Span, error) {
	slices.SortFunc(spelled, func(a, b string) int { return len(b) - len(a) })
	pairs := []string{markBegin, "", markEnd, ""}
	for _, s := range spelled {
		pairs = append(pairs, s, markBegin+s+markEnd)
	}
	replace := strings.NewReplacer(pairs...).Replace
	q := *p
	q.vars = map[string]jinja.Value{}
	for k, v := range p.vars {
		q.vars[k] = v
	}
	for _, k := range []string{"tools", "documents"} {
		q.vars[k] = rewrite(p.vars[k], replace)
	}
	res, err := q.render(rewrite(p.messages, replace).(jinja.List), prompt)
	if err != nil {
		return nil, err
	}
	var spans []Span
	var b strings.Builder
	for i, part := range strings.Split(res.Text, markBegin) {
		inner, rest, found := strings.Cut(part, markEnd)
		if i > 0 && found {
			spans = append(spans, Span{b.Len(), b.Len() + len(inner), -1})
		}
		b.WriteString(inner)
		b.WriteString(strings.ReplaceAll(rest, markEnd, ""))
	}
	if b.String() != text {
		return nil, &Error{
			-1, fmt.Sprintf("a message spells the special token %s where the template acts on its text", strings.Join(spelled, ", ")),
			"remove the token from the message",
		}
	}
	return spans, nil
}
