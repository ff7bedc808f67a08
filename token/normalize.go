package token

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes a text and keeps where each byte comes from.
type normalizer func(aligned) aligned

// byForm is one of Unicode's normal forms, with the decomposition that it starts from. A character of the result
// covers one character of the original, as in the tokenizers library: composing takes that of the first part, and
// what a decomposition adds takes that of the character before it.
func byForm(f, decomposition norm.Form) normalizer {
	return func(a aligned) aligned {
		if f.IsNormalString(a.text) {
			return a
		}
		var b builder
		for at := 0; at < len(a.text); {
			n := f.NextBoundaryInString(a.text[at:], true)
			if n <= 0 {
				n = len(a.text) - at
			}
			segment(&b, a, at, at+n, f, decomposition)
			at += n
		}
		return b.done(a)
	}
}

// decomposed is a character of a decomposition; added says that it is not the first of its original.
type decomposed struct {
	r     rune
	class uint8
	added bool
	used  bool
}

// segment normalises bytes lo … hi, which do not interact with what lies around them.
func segment(b *builder, a aligned, lo, hi int, f, decomposition norm.Form) {
	text := a.text[lo:hi]
	result := f.String(text)
	if result == text {
		for i, r := range text {
			b.add(a, string(r), lo+i, lo+i+utf8.RuneLen(r))
		}
		return
	}
	var parts []decomposed
	for _, r := range text {
		for i, d := range []rune(decomposition.String(string(r))) {
			parts = append(parts, decomposed{r: d, class: norm.NFD.PropertiesString(string(d)).CCC(), added: i > 0})
		}
	}
	sortMarks(parts)
	at := lo // the original's character that the next one takes
	last := lo
	for _, r := range result {
		change := 0
		for i, d := range []rune(decomposition.String(string(r))) {
			if i > 0 {
				change--
			}
			for k := range parts {
				if !parts[k].used && parts[k].r == d {
					parts[k].used = true
					if parts[k].added {
						change++
					}
					break
				}
			}
		}
		if change > 0 {
			_, n := utf8.DecodeRuneInString(a.text[last:])
			b.add(a, string(r), last, last+n)
			continue
		}
		if at >= hi {
			at = last
		}
		_, n := utf8.DecodeRuneInString(a.text[at:])
		b.add(a, string(r), at, at+n)
		last = at
		for range 1 - change {
			if at < hi {
				_, n := utf8.DecodeRuneInString(a.text[at:])
				last = at
				at += n
			}
		}
	}
}

// sortMarks puts each run of combining marks into canonical order.
func sortMarks(parts []decomposed) {
	for i := 1; i < len(parts); i++ {
		for j := i; j > 0 && parts[j].class != 0 && parts[j-1].class > parts[j].class; j-- {
			parts[j], parts[j-1] = parts[j-1], parts[j]
		}
	}
}

// lowercase changes each character by its full lower-case mapping.
func lowercase(a aligned) aligned {
	if strings.IndexFunc(a.text, func(r rune) bool { return unicode.ToLower(r) != r || r == 'İ' }) < 0 {
		return a
	}
	var b builder
	for at, r := range a.text {
		low := string(unicode.ToLower(r))
		if r == 'İ' {
			low = "i̇"
		}
		b.add(a, low, at, at+utf8.RuneLen(r))
	}
	return b.done(a)
}

// builder collects a changed text.
type builder struct {
	text     strings.Builder
	from, to []int
}

// add appends text that stands for bytes lo … hi of a.
func (b *builder) add(a aligned, text string, lo, hi int) {
	start, end := a.span(lo, hi)
	b.text.WriteString(text)
	for range len(text) {
		b.from, b.to = append(b.from, start-a.offset), append(b.to, end-a.offset)
	}
}

func (b *builder) done(a aligned) aligned {
	return aligned{text: b.text.String(), offset: a.offset, from: b.from, to: b.to}
}
