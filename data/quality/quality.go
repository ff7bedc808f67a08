// Package quality judges texts: how alike two are, whether one holds pieces of another, which scripts it is written
// in, what private data stands in it, whether it was decoded wrongly, and the measures by which crawled text is
// filtered. It knows nothing of records or files; package data asks it.
//
// Each measure follows a published tool exactly, so that numbers compare: datasketch and datatrove for near-duplicates,
// datatrove's Gopher and FineWeb filters for text, ftfy's aim for wrongly decoded text.
package quality

import (
	"strings"
	"unicode"
)

// Words cuts a text into the tokens that near-duplicates are found by: it is lowered, each Han character is a token of
// its own, and so is each longest run of other letters, marks and digits. Everything else separates.
func Words(text string) []string {
	text = strings.ToLower(text)
	var out []string
	start := -1
	flush := func(end int) {
		if start >= 0 {
			out = append(out, text[start:end])
			start = -1
		}
	}
	for i, r := range text {
		switch {
		case unicode.Is(unicode.Han, r):
			flush(i)
			out = append(out, string(r))
		case unicode.In(r, unicode.L, unicode.M, unicode.N):
			if start < 0 {
				start = i
			}
		default:
			flush(i)
		}
	}
	flush(len(text))
	return out
}

// Shingles returns each run of n words, joined by blanks, once, in the order of their first coming. A text of fewer
// words is one shingle.
func Shingles(words []string, n int) []string {
	switch {
	case len(words) == 0:
		return nil
	case len(words) < n:
		return []string{strings.Join(words, " ")}
	}
	seen := make(map[string]bool, len(words))
	var out []string
	for i := range len(words) - n + 1 {
		s := strings.Join(words[i:i+n], " ")
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// BareWords cuts a text as contamination is looked for: it is lowered, characters of punctuation and symbols are
// deleted, and white space separates.
func BareWords(text string) []string {
	return strings.FieldsFunc(strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.P, unicode.S) {
			return -1
		}
		return r
	}, strings.ToLower(text)), space)
}

// space reports what Python's str.split takes for white space.
func space(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

// fields is Python's str.split.
func fields(text string) []string { return strings.FieldsFunc(text, space) }
