package token

import (
	"maps"
	"slices"
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

// runeTable maps runes to bytes, in pages of which equal ones are stored once.
type runeTable struct {
	page  [(unicode.MaxRune + 1) / pageSize]uint16
	value []uint8
}

func (t *runeTable) at(r rune) uint8 {
	return t.value[int(t.page[r>>pageBits])<<pageBits|int(r&(pageSize-1))]
}

// runeValues has a value for every rune.
type runeValues []uint8

func newRuneValues() runeValues { return make(runeValues, unicode.MaxRune+1) }

func (all runeValues) set(t *unicode.RangeTable, value uint8) {
	for _, r := range t.R16 {
		for x := rune(r.Lo); x <= rune(r.Hi); x += rune(r.Stride) {
			all[x] = value
		}
	}
	for _, r := range t.R32 {
		for x := rune(r.Lo); x <= rune(r.Hi); x += rune(r.Stride) {
			all[x] = value
		}
	}
}

func (all runeValues) setRange(lo, hi rune, value uint8) {
	for x := lo; x <= hi; x++ {
		all[x] = value
	}
}

// table packs the values.
func (all runeValues) table() runeTable {
	var t runeTable
	seen := map[[pageSize]uint8]uint16{}
	for p := range t.page {
		content := [pageSize]uint8(all[p*pageSize:])
		at, ok := seen[content]
		if !ok {
			at = uint16(len(t.value) / pageSize)
			t.value = append(t.value, content[:]...)
			seen[content] = at
		}
		t.page[p] = at
	}
	return t
}

// classes has the class of every rune.
type classes struct {
	table runeTable
	ascii [utf8.RuneSelf]class
}

var classTable = sync.OnceValue(func() *classes {
	all := newRuneValues()
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
		all.set(g.table, uint8(g.class))
	}
	for _, r := range unicode16 {
		all.setRange(r.lo, r.hi, uint8(r.class))
	}
	t := &classes{table: all.table()}
	for r := range t.ascii {
		t.ascii[r] = t.of(rune(r))
	}
	return t
})

func (t *classes) of(r rune) class { return class(t.table.at(r)) }

// at returns the class and the length of the character at s[i].
func (t *classes) at(s string, i int) (class, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return t.ascii[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return t.of(r), n
}

// scriptTable numbers the scripts of Unicode 9, Japanese kana counted as Han; 0 is for the space and for characters
// that were not assigned.
var scriptTable = sync.OnceValue(func() *runeTable {
	all, number := newRuneValues(), map[string]uint8{}
	for i, name := range scriptNames {
		number[name] = uint8(i + 1)
	}
	number["Hiragana"], number["Katakana"] = number["Han"], number["Han"]
	for name, n := range number {
		all.set(unicode.Scripts[name], n)
	}
	for i := 0; i < len(notScript); i += 2 {
		all.setRange(notScript[i], notScript[i+1], 0)
	}
	all.setRange(' ', ' ', 0)
	all.setRange(0x30FC, 0x30FC, number["Han"])
	all.setRange(0x589, 0x589, number["Common"])
	all.setRange(0x61C, 0x61C, number["Common"])
	all.setRange(0x953, 0x954, number["Devanagari"])
	t := all.table()
	return &t
})

var scriptNames = slices.Sorted(maps.Keys(unicode.Scripts))

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
