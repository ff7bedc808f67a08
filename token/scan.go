package token

import (
	"strings"
	"unicode/utf8"
)

// scanner is a pattern that matches everywhere: it returns the end of the piece that begins at i. Written by hand,
// a scanner is several times faster than any engine of regular expressions with look-ahead.
type scanner func(s string, i int) int

func (f scanner) matches(s string, yield func(start, end int)) {
	for i := 0; i < len(s); {
		j := f(s, i)
		yield(i, j)
		i = j
	}
}

// run returns the end of the run of characters of s from i on whose class is in the set.
func (t *classes) run(s string, i int, set classSet) int {
	for i < len(s) {
		if c := s[i]; c < utf8.RuneSelf {
			if !set.has(t.ascii[c]) {
				return i
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if !set.has(t.of(r)) {
			return i
		}
		i += n
	}
	return i
}

// gpt2 is 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func (t *classes) gpt2(s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], false); n > 0 {
			return i + 1 + n
		}
	}
	j := i
	if s[i] == ' ' && i+1 < len(s) {
		j++
	}
	c, n := t.at(s, j)
	switch {
	case letters.has(c):
		return t.run(s, j+n, letters)
	case c == numeral:
		return t.run(s, j+n, numerals)
	case c != space:
		return t.run(s, j+n, plain)
	}
	return t.spaces(s, i)
}

// spaces is \s+(?!\S)|\s+: a run of white space without its last character, unless the text or the run ends there.
func (t *classes) spaces(s string, i int) int {
	last := i
	for j := i; j < len(s); {
		c, n := t.at(s, j)
		if c != space {
			if last > i {
				return last
			}
			return j
		}
		last = j
		j += n
	}
	return len(s)
}

// contraction returns the length of s, t, re, ve, m, ll or d at the head of s, 0 for none. With fold, case is
// ignored, also that of the long s (U+017F).
func contraction(s string, fold bool) int {
	if s == "" {
		return 0
	}
	if fold && strings.HasPrefix(s, "\u017f") {
		return len("\u017f")
	}
	lower := func(c byte) byte {
		if fold && c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	a := lower(s[0])
	switch a {
	case 's', 't', 'm', 'd':
		return 1
	}
	if len(s) > 1 {
		b := lower(s[1])
		if (a == 'r' || a == 'v') && b == 'e' || a == 'l' && b == 'l' {
			return 2
		}
	}
	return 0
}

// cl100k returns the scanner for
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// Llama 3 has it with three digits, Qwen 2 with one.
func (t *classes) cl100k(digits int) scanner {
	return func(s string, i int) int {
		if s[i] == '\'' {
			if n := contraction(s[i+1:], true); n > 0 {
				return i + 1 + n
			}
		}
		c, n := t.at(s, i)
		if letters.has(c) {
			return t.run(s, i+n, letters)
		}
		if c == numeral {
			return t.numbers(s, i, digits)
		}
		if s[i] != '\r' && s[i] != '\n' && i+n < len(s) {
			if d, m := t.at(s, i+n); letters.has(d) {
				return t.run(s, i+n+m, letters)
			} else if s[i] == ' ' && plain.has(d) {
				return newlines(s, t.run(s, i+n+m, plain), false)
			}
		}
		if c != space {
			return newlines(s, t.run(s, i+n, plain), false)
		}
		return t.lines(s, i)
	}
}

// o200k returns the scanner for the pattern of GPT-4o, which cuts before a capital inside a word:
//
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|
//	\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// Mistral's Tekken has it with one digit and without contractions.
func (t *classes) o200k(digits int, contractions bool) scanner {
	return func(s string, i int) int {
		c, n := t.at(s, i)
		if c == numeral {
			return t.numbers(s, i, digits)
		}
		lead := !letters.has(c) && s[i] != '\r' && s[i] != '\n'
		end := 0
		for _, small := range []bool{true, false} {
			if lead && end == 0 {
				end = t.caseWord(s, i+n, small)
			}
			if end == 0 {
				end = t.caseWord(s, i, small)
			}
		}
		switch {
		case end > 0:
			if contractions && end < len(s) && s[end] == '\'' {
				if m := contraction(s[end+1:], true); m > 0 {
					end += 1 + m
				}
			}
			return end
		case c != space:
			return newlines(s, t.run(s, i+n, plain), true)
		case s[i] == ' ' && i+1 < len(s):
			if d, m := t.at(s, i+1); plain.has(d) {
				return newlines(s, t.run(s, i+1+m, plain), true)
			}
		}
		return t.lines(s, i)
	}
}

// caseWord returns the end of a word in mixed case at i, or 0: capitals, then at least one small letter where
// small is set, with letters that have no case and marks counted as both.
func (t *classes) caseWord(s string, i int, small bool) int {
	const (
		uppers = 1<<upper | 1<<title | 1<<modifier | 1<<letterOther | 1<<mark
		lowers = 1<<lower | 1<<modifier | 1<<letterOther | 1<<mark
	)
	j, lastLower := i, 0
	for j < len(s) {
		c, n := t.at(s, j)
		if !classSet(uppers).has(c) {
			break
		}
		j += n
		if classSet(lowers).has(c) {
			lastLower = j
		}
	}
	end := t.run(s, j, lowers)
	switch {
	case end > j, !small && j > i:
		return end
	case small:
		return lastLower
	}
	return 0
}

// numbers is \p{N}{1,most}.
func (t *classes) numbers(s string, i, most int) int {
	for ; most > 0 && i < len(s); most-- {
		c, n := t.at(s, i)
		if c != numeral {
			break
		}
		i += n
	}
	return i
}

// newlines is [\r\n]*, or [\r\n/]* with slash.
func newlines(s string, i int, slash bool) int {
	for i < len(s) && (s[i] == '\r' || s[i] == '\n' || slash && s[i] == '/') {
		i++
	}
	return i
}

// lines is \s*[\r\n]+|\s+(?!\S)|\s+ where s[i] is white space.
func (t *classes) lines(s string, i int) int {
	line := 0
	for j := i; j < len(s); {
		c, n := t.at(s, j)
		if c != space {
			break
		}
		if s[j] == '\r' || s[j] == '\n' {
			line = j + 1
		}
		j += n
	}
	if line > 0 {
		return line
	}
	return t.spaces(s, i)
}

// finderAt is a pattern that does not match everywhere: find returns the end of the match that begins at i, or i.
type finderAt struct {
	find  func(s string, i int) int
	begin func(c byte) bool // whether a match can begin with an ASCII character
}

func (f finderAt) matches(s string, yield func(start, end int)) {
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf && !f.begin(s[i]) {
			i++
			continue
		}
		if j := f.find(s, i); j > i {
			yield(i, j)
			i = j
		} else {
			i += runeLen(s[i:])
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// threes is \p{N}{1,3}
func (t *classes) threes(s string, i int) int { return t.numbers(s, i, 3) }

// kana is DeepSeek's pattern for Chinese and Japanese, [一-龥぀-ゟ゠-ヿ]+
func kana(s string, i int) int {
	for i < len(s) && s[i] >= utf8.RuneSelf {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !(r >= 0x4E00 && r <= 0x9FA5 || r >= 0x3040 && r <= 0x30FF) {
			break
		}
		i += n
	}
	return i
}

// deepSeek is DeepSeek's pattern for words and punctuation:
//
//	[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
//	 ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func (t *classes) deepSeek(s string, i int) int {
	const (
		word  = letters | 1<<mark
		marks = 1<<punct | 1<<sign
	)
	c, n := t.at(s, i)
	behind := other
	if i+n < len(s) {
		behind, _ = t.at(s, i+n)
	}
	switch {
	case s[i] < utf8.RuneSelf && classSet(marks).has(c) && i+1 < len(s) && isASCIILetter(s[i+1]):
		for i++; i < len(s) && isASCIILetter(s[i]); i++ {
		}
		return i
	case word.has(c):
		return t.run(s, i, word)
	case classSet(marks).has(c):
		return newlines(s, t.run(s, i, marks), false)
	case s[i] != '\r' && s[i] != '\n' && word.has(behind):
		return t.run(s, i+n, word)
	case s[i] == ' ' && classSet(marks).has(behind):
		return newlines(s, t.run(s, i+n, marks), false)
	case c == space:
		return t.lines(s, i)
	}
	return i
}

func isASCIILetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
