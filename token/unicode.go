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

// classSet is a set of classes, a bit for each.
type classSet uint16

func (set classSet) has(c class) bool { return set>>c&1 != 0 }

const (
	letters  classSet = 1<<upper | 1<<title | 1<<modifier | 1<<letterOther | 1<<lower // \p{L}
	numerals classSet = 1 << numeral                                                  // \p{N}
	plain    classSet = 1<<other | 1<<mark | 1<<punct | 1<<sign                       // [^\s\p{L}\p{N}]
)

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
		{unicode.Lu, upper},
		{unicode.Lt, title},
		{unicode.Lm, modifier},
		{unicode.Lo, letterOther},
		{unicode.Ll, lower},
		{unicode.M, mark},
		{unicode.N, numeral},
		{unicode.P, punct},
		{unicode.S, sign},
		{unicode.White_Space, space},
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

func (rs runeRanges) has(r rune) bool {
	lo, hi := 0, len(rs)/2
	for lo < hi {
		if mid := (lo + hi) / 2; rs[2*mid+1] < r {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return 2*lo < len(rs) && rs[2*lo] <= r
}

// runeLen is the length of the character that begins s.
func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}

// isSpace is Unicode's White_Space.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

// isWord is \w of Unicode's annex C (UTS 18): alphabetic, marks, decimal numbers, connectors and joiners.
func isWord(r rune) bool {
	switch c := classTable().of(r); {
	case letters.has(c), c == mark:
		return true
	case c == numeral:
		return !unicode.Is(unicode.No, r)
	}
	return unicode.In(r, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}

// isPunctuation is ASCII punctuation, symbols included, and \p{P} of Unicode 7.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		c := classTable().ascii[r]
		return c == punct || c == sign
	}
	return classTable().of(r) == punct && unicode.Is(unicode.P, r) && !notPunctuation.has(r) || r == 0x166D || r == 0x111C9
}

// isControl is what BERT drops: control and format characters but for white space, and U+FFFD.
func isControl(r rune) bool {
	switch r {
	case '\t', '\n', '\r':
		return false
	case utf8.RuneError, 0:
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co) && !notControl.has(r)
}

// isNonspacing is \p{Mn} of Unicode 7.
func isNonspacing(r rune) bool {
	return r >= 0x300 && unicode.Is(unicode.Mn, r) && !notNonspacing.has(r) || r == 0x1734
}

// isMark is \p{M} of Unicode 8.
func isMark(r rune) bool {
	return r >= 0x300 && unicode.Is(unicode.M, r) && !notMark.has(r) || r == 0x1CF2 || r == 0x1CF3
}
