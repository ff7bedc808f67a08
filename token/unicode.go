package token

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// class is the part of a rune's general category that pre-tokenizer patterns ask for.
type class uint8

const (
	other       class = iota
	space             // White_Space
	upper             // Lu
	title             // Lt
	modifier          // Lm
	letterOther       // Lo
	lower             // Ll
	mark              // M
	numeral           // N
	punct             // P
	sign              // S
)

func (c class) letter() bool { return c >= upper && c <= lower }

// plain tells whether the class is in [^\s\p{L}\p{N}].
func (c class) plain() bool { return c == other || c >= mark && c != numeral }

const (
	pageBits = 7
	pageSize = 1 << pageBits
)

// classes maps runes to classes in pages, of which equal ones are stored once.
type classes struct {
	page  [(unicode.MaxRune + 1) / pageSize]uint16
	class []class
	ascii [utf8.RuneSelf]class
}

var classTable = sync.OnceValue(func() *classes {
	all := make([]class, unicode.MaxRune+1)
	set := func(t *unicode.RangeTable, c class) {
		for _, r := range t.R16 {
			for x := rune(r.Lo); x <= rune(r.Hi); x += rune(r.Stride) {
				all[x] = c
			}
		}
		for _, r := range t.R32 {
			for x := rune(r.Lo); x <= rune(r.Hi); x += rune(r.Stride) {
				all[x] = c
			}
		}
	}
	for _, g := range []struct {
		table *unicode.RangeTable
		class class
	}{
		{unicode.Lu, upper}, {unicode.Lt, title}, {unicode.Lm, modifier}, {unicode.Lo, letterOther}, {unicode.Ll, lower},
		{unicode.M, mark}, {unicode.N, numeral}, {unicode.P, punct}, {unicode.S, sign}, {unicode.White_Space, space},
	} {
		set(g.table, g.class)
	}
	for _, r := range unicode16 {
		for x := r.lo; x <= r.hi; x++ {
			all[x] = r.class
		}
	}
	t := &classes{}
	seen := map[[pageSize]class]uint16{}
	for p := range t.page {
		content := [pageSize]class(all[p*pageSize:])
		at, ok := seen[content]
		if !ok {
			at = uint16(len(t.class) / pageSize)
			t.class = append(t.class, content[:]...)
			seen[content] = at
		}
		t.page[p] = at
	}
	copy(t.ascii[:], t.class)
	return t
})

func (t *classes) of(r rune) class {
	return t.class[int(t.page[r>>pageBits])<<pageBits|int(r&(pageSize-1))]
}

// at returns the class and the length of the character at s[i].
func (t *classes) at(s string, i int) (class, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return t.ascii[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return t.of(r), n
}

// isSpace is Unicode's White_Space.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

// isNumeric is \p{N}.
func isNumeric(r rune) bool { return classTable().of(r) == numeral }

// isPunctuation is ASCII punctuation (symbols included) and \p{P}.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7F && !classTable().ascii[r].letter() && classTable().ascii[r] != numeral
	}
	return classTable().of(r) == punct
}
