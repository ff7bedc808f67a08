package token

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Normalizers that edit characters one by one.

// lowercase maps each character to small letters by itself; the final sigma has no rule.
type lowercase struct{}

func (lowercase) normalize(t *text) {
	if strings.IndexFunc(t.s, func(r rune) bool { return toLower(r) != r }) < 0 {
		return
	}
	e := newEditor(t, len(t.s)+8)
	for i, r := range t.s {
		switch lower := toLower(r); {
		case r == 'İ':
			e.putString("i\u0307", i)
		case lower == r:
			e.copy(i, i+utf8.RuneLen(r))
		default:
			e.putString(string(lower), i)
		}
	}
	*t = e.text()
}

// toLower is the simple mapping of Unicode 17.
func toLower(r rune) rune {
	switch {
	case r == 0xA7CB:
		return 0x264
	case r == 0xA7DC:
		return 0x19B
	case r == 0x1C89, r == 0xA7CC, r == 0xA7CE, r == 0xA7D2, r == 0xA7D4, r == 0xA7DA:
		return r + 1
	case r >= 0x10D50 && r <= 0x10D65:
		return r + 0x20
	case r >= 0x16EA0 && r <= 0x16EB8:
		return r + 0x1B
	}
	return unicode.ToLower(r)
}

// keep drops the characters that it does not hold for.
type keep func(r rune) bool

func (n keep) normalize(t *text) {
	drop := func(r rune) bool { return !n(r) }
	if strings.IndexFunc(t.s, drop) < 0 {
		return
	}
	e := newEditor(t, len(t.s))
	for i, r := range t.s {
		if n(r) {
			e.copy(i, i+utf8.RuneLen(r))
		}
	}
	*t = e.text()
}

// mapRunes replaces characters.
type mapRunes func(r rune) rune

func (n mapRunes) normalize(t *text) {
	if strings.IndexFunc(t.s, func(r rune) bool { return n(r) != r }) < 0 {
		return
	}
	e := newEditor(t, len(t.s))
	for i, r := range t.s {
		e.putString(string(n(r)), i)
	}
	*t = e.text()
}

// strip cuts white space at the ends off.
type strip struct{ left, right bool }

func (n strip) normalize(t *text) {
	i, j := 0, len(t.s)
	if n.left {
		i = j - len(strings.TrimLeftFunc(t.s, isSpace))
	}
	if n.right {
		j = i + len(strings.TrimRightFunc(t.s[i:], isSpace))
	}
	*t = t.slice(i, j)
}

// prefix puts a string before a text that is not empty.
type prefix string

func (n prefix) normalize(t *text) {
	if t.s == "" || n == "" {
		return
	}
	e := newEditor(t, len(t.s)+len(n))
	e.putString(string(n), 0)
	e.copy(0, len(t.s))
	*t = e.text()
}

// replace writes content in place of each match, with the span of the match's last character.
type replace struct {
	pattern matcher
	content string
}

func (n *replace) normalize(t *text) {
	var e *editor
	done := 0
	n.pattern.matches(t.s, func(start, end int) {
		if e == nil {
			e = newEditor(t, len(t.s)+len(t.s)/4+8)
		}
		e.copy(done, start)
		if end > 0 {
			e.putString(n.content, end-1)
		} else {
			e.insert(n.content, 0)
		}
		done = end
	})
	if e == nil {
		return
	}
	e.copy(done, len(t.s))
	*t = e.text()
}

// aroundHan puts spaces around Chinese characters.
type aroundHan struct{}

func (aroundHan) normalize(t *text) {
	if strings.IndexFunc(t.s, isHan) < 0 {
		return
	}
	e := newEditor(t, len(t.s)+len(t.s)/2)
	for i, r := range t.s {
		if isHan(r) {
			e.putString(" "+string(r)+" ", i)
		} else {
			e.copy(i, i+utf8.RuneLen(r))
		}
	}
	*t = e.text()
}

// isHan holds for the blocks that BERT takes for Chinese characters.
func isHan(r rune) bool {
	return r >= 0x4E00 && r <= 0x9FFF || r >= 0x3400 && r <= 0x4DBF || r >= 0xF900 && r <= 0xFAFF ||
		r >= 0x20000 && r <= 0x2A6DF || r >= 0x2A700 && r <= 0x2B81F || r >= 0x2B920 && r <= 0x2CEAF ||
		r >= 0x2F800 && r <= 0x2FA1F
}

// nmtControl and nmtSpace are what sentencepiece's nmt rules drop and turn into spaces.
func nmtControl(r rune) bool {
	return r >= 1 && r <= 8 || r == 0xB || r >= 0xE && r <= 0x1F || r == 0x7F || r == 0x8F || r == 0x9F
}

func nmtSpace(r rune) rune {
	switch {
	case r == 9, r == 0xA, r == 0xC, r == 0xD, r == 0x1680, r >= 0x200B && r <= 0x200F, r == 0x2028, r == 0x2029,
		r == 0x2581, r == 0xFEFF, r == 0xFFFD:
		return ' '
	}
	return r
}

// byteAlphabet writes every byte as a character of the byte alphabet.
type byteAlphabet struct{}

func (byteAlphabet) normalize(t *text) {
	if t.s != "" {
		writeBytes(t, []cut{{0, int32(len(t.s)), -1}})
	}
}
