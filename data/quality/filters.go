package quality

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Measures are the quantities by which crawled text is filtered: Gopher's (Rae et al. 2021, arXiv 2112.11446, appendix A)
// and FineWeb's (Penedo et al. 2024, 2406.17557), as datatrove computes them. A ratio over nothing is -1.
type Measures struct {
	Chars          int     `json:"chars"`
	Words          int     `json:"words"`
	WordsOfLetters int     `json:"non_symbol_words"` // words that are not all punctuation
	WordLength     float64 `json:"mean_word_length"` // of those
	Hashes         float64 `json:"hash_ratio"`       // # per word
	Ellipses       float64 `json:"ellipsis_ratio"`
	BulletLines    float64 `json:"bullet_line_ratio"`
	EllipsisLines  float64 `json:"ellipsis_line_ratio"`
	Alphabetic     float64 `json:"alpha_word_ratio"`
	StopWords      int     `json:"stop_words"`

	Paragraphs     float64    `json:"dup_paragraph_fraction"`
	ParagraphChars float64    `json:"dup_paragraph_char_fraction"`
	Lines          float64    `json:"dup_line_fraction"`
	LineChars      float64    `json:"dup_line_char_fraction"`
	Top            [3]float64 `json:"top_ngrams"` // characters of the most frequent run of 2 to 4 words
	Repeated       [6]float64 `json:"dup_ngrams"` // characters of repeated runs of 5 to 10 words

	EndedLines   float64 `json:"line_end_punct_ratio"`
	ShortLines   float64 `json:"short_line_ratio"`
	RepeatedLine float64 `json:"char_dup_ratio"`
	Newlines     float64 `json:"newlines_per_word"`
}

// stopWords are Gopher's.
var stopWords = map[string]bool{"the": true, "be": true, "to": true, "of": true, "and": true, "that": true, "have": true, "with": true}

var (
	paragraphEnd = regexp.MustCompile(`\n{2,}`)
	lineEnd      = regexp.MustCompile(`\n+`)
)

// Measure computes the measures of a text whose words are separated by white space.
func Measure(text string) Measures {
	words := fields(text)
	m := Measures{Chars: utf8.RuneCountInString(text), Words: len(words)}
	letters, alphabetic, stops := 0, 0, map[string]bool{}
	for _, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return !punctuation(r) && !unicode.Is(terminal, r) }) {
			m.WordsOfLetters++
			letters += utf8.RuneCountInString(w)
		}
		if strings.ContainsFunc(w, unicode.IsLetter) {
			alphabetic++
		}
		if stopWords[w] {
			stops[w] = true
		}
	}
	m.WordLength = ratio(letters, m.WordsOfLetters)
	m.Hashes = ratio(strings.Count(text, "#"), len(words))
	m.Ellipses = ratio(strings.Count(text, "...")+strings.Count(text, "…"), len(words))
	m.Alphabetic = ratio(alphabetic, len(words))
	m.StopWords = len(stops)
	lines := splitLines(text)
	bullets, ellipses := 0, 0
	for _, l := range lines {
		if start := strings.TrimLeftFunc(l, space); strings.HasPrefix(start, "•") || strings.HasPrefix(start, "-") {
			bullets++
		}
		if end := strings.TrimRightFunc(l, space); strings.HasSuffix(end, "...") || strings.HasSuffix(end, "…") {
			ellipses++
		}
	}
	m.BulletLines, m.EllipsisLines = ratio(bullets, len(lines)), ratio(ellipses, len(lines))
	m.repetition(text, words)
	m.fineWeb(text)
	return m
}

// ratio is a / b, -1 where b is 0.
func ratio(a, b int) float64 {
	if b == 0 {
		return -1
	}
	return float64(a) / float64(b)
}

// splitLines is Python's str.splitlines.
func splitLines(text string) []string {
	var out []string
	for text != "" {
		i := strings.IndexFunc(text, func(r rune) bool {
			return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
		})
		if i < 0 {
			return append(out, text)
		}
		out = append(out, text[:i])
		_, n := utf8.DecodeRuneInString(text[i:])
		if strings.HasPrefix(text[i:], "\r\n") {
			n = 2
		}
		text = text[i+n:]
	}
	return out
}

// repeats counts the pieces that came before, and their characters.
func repeats(pieces []string) (n, chars int) {
	seen := map[string]bool{}
	for _, p := range pieces {
		if seen[p] {
			n++
			chars += utf8.RuneCountInString(p)
		}
		seen[p] = true
	}
	return n, chars
}

// repetition computes Gopher's measures of repetition.
func (m *Measures) repetition(text string, words []string) {
	m.Top, m.Repeated = [3]float64{-1, -1, -1}, [6]float64{-1, -1, -1, -1, -1, -1}
	if text == "" {
		m.Paragraphs, m.ParagraphChars, m.Lines, m.LineChars = -1, -1, -1, -1
		return
	}
	paragraphs := paragraphEnd.Split(strings.TrimFunc(text, space), -1)
	n, chars := repeats(paragraphs)
	m.Paragraphs, m.ParagraphChars = ratio(n, len(paragraphs)), ratio(chars, m.Chars)
	lines := lineEnd.Split(text, -1)
	n, chars = repeats(lines)
	m.Lines, m.LineChars = ratio(n, len(lines)), ratio(chars, m.Chars)
	for i := range m.Top {
		if size := i + 2; len(words) >= size {
			m.Top[i] = ratio(topChars(words, size), m.Chars)
		}
	}
	for i := range m.Repeated {
		m.Repeated[i] = ratio(repeatedChars(words, i+5), m.Chars)
	}
}

// topChars returns the characters of the most frequent run of n words, the first seen of several, times its count.
func topChars(words []string, n int) int {
	counts := map[string]int{}
	top, most := "", 0
	var order []string
	for i := range len(words) - n + 1 {
		g := strings.Join(words[i:i+n], " ")
		if counts[g] == 0 {
			order = append(order, g)
		}
		counts[g]++
	}
	for _, g := range order {
		if counts[g] > most {
			top, most = g, counts[g]
		}
	}
	return utf8.RuneCountInString(top) * most
}

// repeatedChars returns the characters of the runs of n words that came before; a run that is counted is passed over.
func repeatedChars(words []string, n int) int {
	seen := map[string]bool{}
	chars := 0
	for i := 0; i+n <= len(words); {
		g := strings.Join(words[i:i+n], "")
		if seen[g] {
			chars += utf8.RuneCountInString(g)
			i += n
			continue
		}
		seen[g] = true
		i++
	}
	return chars
}

// fineWeb computes FineWeb's measures of lines.
func (m *Measures) fineWeb(text string) {
	var lines []string
	ended, short := 0, 0
	for l := range strings.SplitSeq(text, "\n") {
		if strings.TrimFunc(l, space) == "" {
			continue
		}
		lines = append(lines, l)
		if last, _ := utf8.DecodeLastRuneInString(l); unicode.Is(terminal, last) {
			ended++
		}
		if utf8.RuneCountInString(l) <= 30 {
			short++
		}
	}
	newlines := strings.Count(text, "\n")
	_, chars := repeats(lines)
	m.EndedLines, m.ShortLines = ratio(ended, len(lines)), ratio(short, len(lines))
	m.RepeatedLine, m.Newlines = ratio(chars, m.Chars-newlines), ratio(newlines, m.Words)
}

// Gopher returns why Gopher's quality rules drop the text, "" where they keep it. Short answers are no fault of
// instruction data: least is the number of words that is asked for, 50 for documents.
func (m Measures) Gopher(least int) string {
	switch {
	case m.WordsOfLetters < least:
		return "gopher_short_doc"
	case m.WordsOfLetters > 100_000:
		return "gopher_long_doc"
	case m.WordLength < 3:
		return "gopher_below_avg_threshold"
	case m.WordLength > 10:
		return "gopher_above_avg_threshold"
	case m.Hashes > 0.1:
		return "gopher_too_many_hashes"
	case m.Ellipses > 0.1:
		return "gopher_too_many_ellipsis"
	case m.BulletLines > 0.9:
		return "gopher_too_many_bullets"
	case m.EllipsisLines > 0.3:
		return "gopher_too_many_end_ellipsis"
	case m.Alphabetic < 0.8:
		return "gopher_below_alpha_threshold"
	case m.StopWords < 2:
		return "gopher_enough_stop_words" // datatrove's name for too few
	}
	return ""
}

// Repetition returns why Gopher's rules on repetition drop the text, "" where they keep it.
func (m Measures) Repetition() string {
	switch {
	case m.Chars == 0:
		return "empty"
	case m.Paragraphs > 0.3:
		return "dup_para_frac"
	case m.ParagraphChars > 0.2:
		return "dup_para_char_frac"
	case m.Lines > 0.3:
		return "dup_line_frac"
	case m.LineChars > 0.2:
		return "dup_line_char_frac"
	}
	for i, most := range []float64{0.20, 0.18, 0.16} {
		if m.Top[i] > most {
			return "top_" + string(rune('2'+i)) + "_gram"
		}
	}
	for i, most := range []float64{0.15, 0.14, 0.13, 0.12, 0.11, 0.10} {
		if m.Repeated[i] > most {
			return "duplicated_" + []string{"5", "6", "7", "8", "9", "10"}[i] + "_n_grams"
		}
	}
	return ""
}

// FineWeb returns why FineWeb's rules drop the text, "" where they keep it.
func (m Measures) FineWeb() string {
	switch {
	case m.EndedLines < 0:
		return "empty"
	case m.EndedLines < 0.12:
		return "line_punct_ratio"
	case m.ShortLines > 0.67:
		return "short_line_ratio"
	case m.RepeatedLine > 0.01:
		return "char_dup_ratio"
	case m.Newlines > 0.3:
		return "list_ratio"
	}
	return ""
}
