package token

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// splitter cuts a text into pieces, in order; pieces that are left out are gone.
type splitter func(text string, emit func(lo, hi int))

// gpt2Pattern cuts text as GPT-2 does.
const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// isSpace is \s of Oniguruma and PCRE under Unicode.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

// bySplit returns a splitter for matches of a pattern with one of the behaviours of the tokenizers library.
func bySplit(find func(text string, match func(lo, hi int)), behavior string, invert bool) (splitter, error) {
	switch behavior {
	case "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous":
	default:
		return nil, fmt.Errorf("split behavior %q is not supported", behavior)
	}
	return func(text string, emit func(lo, hi int)) {
		var parts []part
		at := 0
		find(text, func(lo, hi int) {
			if lo > at {
				parts = append(parts, part{at, lo, invert})
			}
			if hi > lo {
				parts = append(parts, part{lo, hi, !invert})
			}
			at = max(at, hi)
		})
		if at < len(text) {
			parts = append(parts, part{at, len(text), invert})
		}
		arrange(parts, behavior, emit)
	}, nil
}

// part is a stretch of text that is a match or lies between two.
type part struct {
	lo, hi int
	match  bool
}

func arrange(parts []part, behavior string, emit func(lo, hi int)) {
	for i := 0; i < len(parts); i++ {
		p := parts[i]
		switch behavior {
		case "Removed":
			if !p.match {
				emit(p.lo, p.hi)
			}
		case "MergedWithPrevious":
			if !p.match && i+1 < len(parts) && parts[i+1].match {
				i++
			}
			emit(p.lo, parts[i].hi)
		case "MergedWithNext":
			if p.match && i+1 < len(parts) && !parts[i+1].match {
				i++
			}
			emit(p.lo, parts[i].hi)
		case "Contiguous":
			for i+1 < len(parts) && parts[i+1].match == p.match {
				i++
			}
			emit(p.lo, parts[i].hi)
		default:
			emit(p.lo, p.hi)
		}
	}
}

// scanners are patterns that have a scanner of their own, which is several times faster than the general engine.
var scanners = map[string]func(s string) int{gpt2Pattern: gpt2Next}

// byPattern finds the matches of a pattern.
func byPattern(pattern string) (func(text string, match func(lo, hi int)), error) {
	if next, ok := scanners[pattern]; ok {
		return func(text string, match func(lo, hi int)) {
			for at := 0; at < len(text); {
				n := next(text[at:])
				match(at, at+n)
				at += n
			}
		}, nil
	}
	re, err := regexp2.Compile(pattern, regexp2.Unicode)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return func(text string, match func(lo, hi int)) {
		// The engine has no time limit, so it cannot fail on a match.
		found, _ := re.FindAllStringIndex(text, -1)
		for _, m := range found {
			match(m[0], m[1])
		}
	}, nil
}

// gpt2Next returns the length of the first match of gpt2Pattern, which matches at every place.
func gpt2Next(s string) int {
	if s[0] == '\'' {
		for _, c := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
			if strings.HasPrefix(s, c) {
				return len(c)
			}
		}
	}
	skip := 0
	if s[0] == ' ' {
		skip = 1
	}
	if skip < len(s) {
		r, _ := utf8.DecodeRuneInString(s[skip:])
		for _, class := range []func(rune) bool{unicode.IsLetter, unicode.IsNumber, isOther} {
			if class(r) {
				return skip + while(s[skip:], class)
			}
		}
	}
	// White space: all of it at the end of the text, else all but the last character where there are several.
	n := while(s, isSpace)
	if n < len(s) {
		if _, last := utf8.DecodeLastRuneInString(s[:n]); n > last {
			n -= last
		}
	}
	return n
}

func isOther(r rune) bool { return !isSpace(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r) }

// while returns the length of the longest start of s whose characters are of the class.
func while(s string, class func(rune) bool) int {
	for i, r := range s {
		if !class(r) {
			return i
		}
	}
	return len(s)
}

// byClass finds runs of characters of a class, or single ones.
func byClass(class func(rune) bool, single bool) func(text string, match func(lo, hi int)) {
	return func(text string, match func(lo, hi int)) {
		for at := 0; at < len(text); {
			r, n := utf8.DecodeRuneInString(text[at:])
			switch {
			case !class(r):
			case single:
				match(at, at+n)
			default:
				n = while(text[at:], class)
				match(at, at+n)
			}
			at += n
		}
	}
}

// isPunctuation is the library's: ASCII punctuation and symbols, and Unicode's category P.
func isPunctuation(r rune) bool {
	return r < 128 && (r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~') || unicode.IsPunct(r)
}

// isNumeric is Rust's char::is_numeric: Unicode's categories Nd, Nl and No.
func isNumeric(r rune) bool { return unicode.IsNumber(r) }

// byText finds the occurrences of a text.
func byText(what string) func(text string, match func(lo, hi int)) {
	return func(text string, match func(lo, hi int)) {
		for at := 0; what != "" && at < len(text); {
			i := strings.Index(text[at:], what)
			if i < 0 {
				return
			}
			match(at+i, at+i+len(what))
			at += i + len(what)
		}
	}
}
