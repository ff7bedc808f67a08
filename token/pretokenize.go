package token

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// preTokenizer cuts text into the pieces that the model sees. It reads cuts and writes to spare (len 0), or works
// in place; it returns the new cuts and the buffer that is free. Added tokens pass through.
type preTokenizer interface {
	split(t *text, cuts, spare []cut) (now, free []cut)
}

type preSequence []preTokenizer

func (p preSequence) split(t *text, cuts, spare []cut) ([]cut, []cut) {
	for _, each := range p {
		cuts, spare = each.split(t, cuts, spare[:0])
	}
	return cuts, spare
}

// behavior says what becomes of a match.
type behavior int

const (
	removed behavior = iota
	isolated
	mergedWithPrevious
	mergedWithNext
	contiguous
)

var behaviors = []string{"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}

// matcher yields its matches in s from left to right, none overlapping another.
type matcher interface {
	matches(s string, yield func(start, end int))
}

// splitter cuts at the matches of a pattern.
type splitter struct {
	pattern  matcher
	behavior behavior
	invert   bool // swap matches and what lies between
}

func (p *splitter) split(t *text, cuts, spare []cut) ([]cut, []cut) {
	for _, c := range cuts {
		if c.id >= 0 {
			spare = append(spare, c)
			continue
		}
		spare = p.cut(spare, t.s, c)
	}
	return spare, cuts
}

func (p *splitter) cut(dst []cut, s string, c cut) []cut {
	s, base := s[c.start:c.end], c.start
	if f, ok := p.pattern.(scanner); ok && p.behavior == isolated {
		for i := 0; i < len(s); {
			j := f(s, i)
			dst = append(dst, cut{base + int32(i), base + int32(j), -1})
			i = j
		}
		return dst
	}
	before := len(dst)
	previous := false // the last part was a match
	put := func(i, j int, match bool) {
		match = match != p.invert
		part := cut{base + int32(i), base + int32(j), -1}
		join := len(dst) > before
		switch p.behavior {
		case removed:
			if match {
				return
			}
			join = false
		case isolated:
			join = false
		case contiguous:
			join = join && match == previous
		case mergedWithPrevious:
			join = join && match && !previous
		case mergedWithNext:
			join = join && !match && previous
		}
		previous = match
		if join {
			dst[len(dst)-1].end = part.end
		} else {
			dst = append(dst, part)
		}
	}
	done := 0
	p.pattern.matches(s, func(start, end int) {
		if done < start {
			put(done, start, false)
		}
		put(start, end, true)
		done = end
	})
	if done < len(s) {
		put(done, len(s), false)
	}
	full := slices.DeleteFunc(dst[before:], func(c cut) bool { return c.start == c.end })
	return dst[:before+len(full)]
}

// runeMatcher matches single characters.
type runeMatcher func(r rune) bool

func (m runeMatcher) matches(s string, yield func(start, end int)) {
	for i, r := range s {
		if m(r) {
			yield(i, i+utf8.RuneLen(r))
		}
	}
}

// numerics matches numbers, \p{N} of Unicode 17.
type numerics struct{}

func (numerics) matches(s string, yield func(start, end int)) {
	t := classTable()
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= '0' && c <= '9' {
				yield(i, i+1)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if t.of(r) == numeral || r >= 0x11DE0 && r <= 0x11DE9 || r >= 0x16FF4 && r <= 0x16FF6 {
			yield(i, i+n)
		}
		i += n
	}
}

// literal matches a string.
type literal string

func (m literal) matches(s string, yield func(start, end int)) {
	if m == "" {
		return
	}
	for i := 0; ; {
		k := strings.Index(s[i:], string(m))
		if k < 0 {
			return
		}
		yield(i+k, i+k+len(m))
		i += k + len(m)
	}
}

// whitespaceWords is \w+|[^\w\s]+.
type whitespaceWords struct{}

func (whitespaceWords) matches(s string, yield func(start, end int)) {
	const blank, word, rest = 0, 1, 2
	kind, from := blank, 0
	for i, r := range s {
		k := rest
		if isSpace(r) {
			k = blank
		} else if isWord(r) {
			k = word
		}
		if k != kind {
			if kind != blank {
				yield(from, i)
			}
			kind, from = k, i
		}
	}
	if kind != blank {
		yield(from, len(s))
	}
}

// byteLevel puts a space in front, cuts by GPT-2's pattern, and lets the model see bytes: written as characters
// of the byte alphabet, or as they are where the model works on bytes.
type byteLevel struct {
	prefix, regex bool
	raw           bool // the model works on bytes
}

func (p *byteLevel) split(t *text, cuts, spare []cut) ([]cut, []cut) {
	if p.prefix {
		cuts = prepend(t, cuts, " ")
	}
	if p.regex {
		table := classTable()
		for _, c := range cuts {
			if c.id >= 0 {
				spare = append(spare, c)
				continue
			}
			for i := c.start; i < c.end; {
				j := int32(table.gpt2(t.s[:c.end], int(i)))
				spare = append(spare, cut{i, j, -1})
				i = j
			}
		}
		cuts, spare = spare, cuts
	}
	if !p.raw {
		writeBytes(t, cuts)
	}
	return cuts, spare
}

// prepend puts the prefix before every piece of text that does not begin with it.
func prepend(t *text, cuts []cut, prefix string) []cut {
	return rewrite(t, cuts, func(e *editor, s string, c cut) {
		if !strings.HasPrefix(s, prefix) && s != "" {
			e.putString(prefix, int(c.start))
		}
		e.copy(int(c.start), int(c.end))
	})
}

// rewrite replaces each piece of text by what f writes.
func rewrite(t *text, cuts []cut, f func(e *editor, s string, c cut)) []cut {
	e := newEditor(t, len(t.s)+len(t.s)/8+8)
	for i := range cuts {
		c := &cuts[i]
		start := int32(len(e.out))
		if c.id >= 0 {
			e.copy(int(c.start), int(c.end))
		} else {
			f(e, t.s[c.start:c.end], *c)
		}
		c.start, c.end = start, int32(len(e.out))
	}
	*t = e.text()
	return cuts
}

// byteRunes is GPT-2's alphabet: a visible character for every byte.
var byteRunes, runeBytes = func() (to [256]rune, from map[rune]byte) {
	from = make(map[rune]byte, 256)
	extra := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = extra
			extra++
		}
		to[b], from[r] = r, byte(b)
	}
	return to, from
}()

func writeBytes(t *text, cuts []cut) {
	rewrite(t, cuts, func(e *editor, s string, c cut) {
		for i := range len(s) {
			e.putString(string(byteRunes[s[i]]), int(c.start)+i)
		}
	})
}

// metaspace writes spaces as a mark, and cuts before marks.
type metaspace struct {
	mark   string
	scheme string // always, first or never: where a mark is put in front
	cut    bool
}

func (p *metaspace) split(t *text, cuts, spare []cut) ([]cut, []cut) {
	cuts = rewrite(t, cuts, func(e *editor, s string, c cut) {
		from := int(c.start)
		first := s != "" && p.scheme == "first" && t.origin(from).start == 0
		if s != "" && (p.scheme == "always" || first) && s[0] != ' ' && !strings.HasPrefix(s, p.mark) {
			e.putString(p.mark, from)
		}
		for i := 0; i < len(s); {
			j := strings.IndexByte(s[i:], ' ')
			if j < 0 {
				e.copy(from+i, from+len(s))
				break
			}
			e.copy(from+i, from+i+j)
			e.putString(p.mark, from+i+j)
			i += j + 1
		}
	})
	if !p.cut {
		return cuts, spare
	}
	at := splitter{pattern: literal(p.mark), behavior: mergedWithNext}
	return at.split(t, cuts, spare)
}

// scripts cuts where the script changes. What stands before the first character of a known script is lost, as
// in the Hugging Face library.
type scripts struct{}

func (scripts) split(t *text, cuts, spare []cut) ([]cut, []cut) {
	table := scriptTable()
	for _, c := range cuts {
		if c.id >= 0 {
			spare = append(spare, c)
			continue
		}
		last, from := uint8(0), int32(-1)
		for i, r := range t.s[c.start:c.end] {
			s := table.at(r)
			if s == 0 {
				continue
			}
			if s != last {
				if from >= 0 {
					spare = append(spare, cut{from, c.start + int32(i), -1})
				}
				from = c.start + int32(i)
			}
			last = s
		}
		if from >= 0 {
			spare = append(spare, cut{from, c.end, -1})
		}
	}
	return spare, cuts
}

// fixedLength cuts pieces of so many characters.
type fixedLength int

func (n fixedLength) split(t *text, cuts, spare []cut) ([]cut, []cut) {
	for _, c := range cuts {
		if c.id >= 0 {
			spare = append(spare, c)
			continue
		}
		from, k := c.start, 0
		for i := range t.s[c.start:c.end] {
			if k == int(n) {
				spare = append(spare, cut{from, c.start + int32(i), -1})
				from, k = c.start+int32(i), 0
			}
			k++
		}
		if from < c.end {
			spare = append(spare, cut{from, c.end, -1})
		}
	}
	return spare, cuts
}
