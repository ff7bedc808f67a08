package token

import "unicode/utf8"

// span is a range of bytes of the input.
type span struct{ start, end int32 }

// text is a part of the input under change, with the place in the input that each of its bytes comes from.
type text struct {
	s     string
	at    []span // of each byte; nil: s is the input from byte base on, or offsets are not asked for
	base  int
	head  int32 // where the part begins in the input, whatever has become of its first characters
	track bool
}

// slice returns the bytes i to j, as a part that begins where t does.
func (t *text) slice(i, j int) text {
	out := *t
	out.s, out.base = t.s[i:j], t.base+i
	if t.at != nil {
		out.at = t.at[i:j]
	}
	return out
}

// part returns the bytes i to j as a part of their own.
func (t *text) part(i, j int) text {
	out := t.slice(i, j)
	out.head = int32(out.base)
	if t.at != nil && i < len(t.at) {
		out.head = t.at[i].start
	}
	return out
}

// origin returns the span in the input of byte i: that of its whole character.
func (t *text) origin(i int) span {
	if t.at != nil {
		return t.at[i]
	}
	j := i + 1
	for i > 0 && !utf8.RuneStart(t.s[i]) {
		i--
	}
	for j < len(t.s) && !utf8.RuneStart(t.s[j]) {
		j++
	}
	return span{int32(t.base + i), int32(t.base + j)}
}

// piece makes a token of the bytes i to j.
func (t *text) piece(id, i, j int) Piece {
	p := []Piece{{id, i, j}}
	if t.track {
		t.locate(p)
	}
	return p[0]
}

// locate turns offsets into t to offsets into the input.
func (t *text) locate(pieces []Piece) {
	n := len(t.s)
	for k := range pieces {
		p := &pieces[k]
		if p.Start >= p.End || p.End > n {
			p.Start, p.End = t.base+min(p.Start, n), t.base+min(p.End, n)
			continue
		}
		if t.at != nil {
			p.Start, p.End = int(t.at[p.Start].start), int(t.at[p.End-1].end)
			continue
		}
		for p.Start > 0 && !utf8.RuneStart(t.s[p.Start]) {
			p.Start--
		}
		for p.End < n && !utf8.RuneStart(t.s[p.End]) {
			p.End++
		}
		p.Start += t.base
		p.End += t.base
	}
}

// editor writes the text that replaces another one.
type editor struct {
	from *text
	out  []byte
	at   []span
}

func newEditor(from *text, size int) *editor {
	e := &editor{from: from, out: make([]byte, 0, size)}
	if from.track {
		e.at = make([]span, 0, size)
	}
	return e
}

// put writes one character that comes from a span of the input.
func (e *editor) put(r rune, from span) {
	n := len(e.out)
	e.out = utf8.AppendRune(e.out, r)
	if e.from.track {
		for range len(e.out) - n {
			e.at = append(e.at, from)
		}
	}
}

// putString writes characters that all come from byte i of the old text.
func (e *editor) putString(s string, i int) {
	e.out = append(e.out, s...)
	if e.from.track {
		from := e.from.origin(i)
		for range len(s) {
			e.at = append(e.at, from)
		}
	}
}

// replace writes characters that come from the bytes i to j of the old text.
func (e *editor) replace(s string, i, j int) {
	e.out = append(e.out, s...)
	if e.from.track {
		from := span{e.from.origin(i).start, e.from.origin(j - 1).end}
		for range len(s) {
			e.at = append(e.at, from)
		}
	}
}

// insert writes characters that stand for nothing, before byte i of the old text.
func (e *editor) insert(s string, i int) {
	e.out = append(e.out, s...)
	if e.from.track {
		at := e.from.head
		if i > 0 {
			at = e.from.origin(i - 1).end
		}
		for range len(s) {
			e.at = append(e.at, span{at, at})
		}
	}
}

// cut takes the last n bytes back.
func (e *editor) cut(n int) {
	e.out = e.out[:len(e.out)-n]
	if e.from.track {
		e.at = e.at[:len(e.at)-n]
	}
}

// copy keeps the bytes i to j of the old text.
func (e *editor) copy(i, j int) {
	e.out = append(e.out, e.from.s[i:j]...)
	if !e.from.track {
		return
	}
	if e.from.at != nil {
		e.at = append(e.at, e.from.at[i:j]...)
		return
	}
	for i < j {
		_, n := utf8.DecodeRuneInString(e.from.s[i:])
		from := span{int32(e.from.base + i), int32(e.from.base + i + n)}
		for range n {
			e.at = append(e.at, from)
		}
		i += n
	}
}

// text returns what was written.
func (e *editor) text() text {
	return text{s: string(e.out), at: e.at, base: e.from.base, head: e.from.head, track: e.from.track}
}

// change is one character of a new text: kind 0 replaces a character, kind > 0 is inserted after the last one
// and shares its place, kind < 0 replaces a character and drops as many after it. These are the alignment
// rules of the Hugging Face library's NormalizedString.
type change struct {
	r    rune
	kind int
}

// transform replaces the text by the changes.
func (t *text) transform(changes []change) {
	e := newEditor(t, len(t.s)+8)
	i := 0
	skip := func(n int) {
		for ; n > 0 && i < len(t.s); n-- {
			_, w := utf8.DecodeRuneInString(t.s[i:])
			i += w
		}
	}
	var from span
	for _, c := range changes {
		if t.track {
			switch {
			case c.kind > 0 && i == 0:
				from = span{t.head, t.head}
			case c.kind > 0:
				from = t.origin(i - 1)
			case i < len(t.s):
				from = t.origin(i)
			}
		}
		e.put(c.r, from)
		if c.kind <= 0 {
			skip(1 - c.kind)
		}
	}
	*t = e.text()
}
