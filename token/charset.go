package token

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"tunesmith/internal/nearest"
)

// charSet is a set of characters: of some classes, in some ranges, or for which a test holds; with neg, the others.
type charSet struct {
	classes classSet
	ranges  []rune // pairs of first and last
	tests   []func(r rune) bool
	neg     bool
	ascii   [utf8.RuneSelf]bool // filled by finish
}

// setOf is the set of one character, with fold in every case.
func setOf(r rune, fold bool) *charSet {
	return (&charSet{ranges: []rune{r, r}}).finish(fold)
}

// finish makes the set ready, with fold for both cases of its characters.
func (c *charSet) finish(fold bool) *charSet {
	if fold {
		inner := *c
		inner.neg = false
		*c = charSet{neg: c.neg, tests: []func(r rune) bool{func(r rune) bool {
			if inner.contains(r) {
				return true
			}
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				if inner.contains(f) {
					return true
				}
			}
			return false
		}}}
	}
	for r := range c.ascii {
		c.ascii[r] = c.contains(rune(r))
	}
	return c
}

func (c *charSet) contains(r rune) bool { return c.listed(r) != c.neg }

func (c *charSet) listed(r rune) bool {
	if c.classes != 0 && c.classes.has(classTable().of(r)) {
		return true
	}
	for i := 0; i < len(c.ranges); i += 2 {
		if r >= c.ranges[i] && r <= c.ranges[i+1] {
			return true
		}
	}
	for _, t := range c.tests {
		if t(r) {
			return true
		}
	}
	return false
}

// head returns the length of the character at s[i] if it is in the set, else 0.
func (c *charSet) head(s string, i int) int {
	if i >= len(s) {
		return 0
	}
	if b := s[i]; b < utf8.RuneSelf {
		if c.ascii[b] {
			return 1
		}
		return 0
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	if c.contains(r) {
		return n
	}
	return 0
}

// include adds all of another set.
func (c *charSet) include(o *charSet) {
	if o.neg || len(o.tests) > 0 {
		c.tests = append(c.tests, o.contains)
		return
	}
	c.classes |= o.classes
	c.ranges = append(c.ranges, o.ranges...)
}

// class reads a class in brackets, behind the first one.
func (p *regexParser) class() (*charSet, error) {
	if p.depth++; p.depth > depthMost {
		return nil, fmt.Errorf("classes deeper than %d", depthMost)
	}
	defer func() { p.depth-- }()
	neg := p.take("^")
	var both []*charSet // what && joins
	set := &charSet{}
	for first := true; ; first = false {
		if !p.more() {
			return nil, errors.New("missing ]")
		}
		if p.src[p.at] == ']' && !first {
			p.at++
			break
		}
		if p.take("&&") {
			both = append(both, set)
			set = &charSet{}
			continue
		}
		if p.src[p.at] == '[' {
			inner, err := p.nested()
			if err != nil {
				return nil, err
			}
			set.include(inner)
			continue
		}
		item, lo, err := p.classItem()
		if err != nil {
			return nil, err
		}
		if item != nil {
			set.include(item)
			continue
		}
		hi := lo
		if rest := p.src[p.at:]; len(rest) > 1 && rest[0] == '-' && rest[1] != ']' {
			p.at++
			item, to, err := p.classItem()
			if err != nil {
				return nil, err
			}
			if item != nil || to < lo {
				return nil, fmt.Errorf("bad range in a class, from %q", lo)
			}
			hi = to
		}
		set.ranges = append(set.ranges, lo, hi)
	}
	if both != nil {
		both = append(both, set)
		set = &charSet{tests: []func(r rune) bool{func(r rune) bool {
			for _, b := range both {
				if !b.contains(r) {
					return false
				}
			}
			return true
		}}}
	}
	set.neg = neg
	return set, nil
}

// nested reads a class within a class, or one of POSIX as in [:alpha:].
func (p *regexParser) nested() (*charSet, error) {
	p.at++
	if rest := p.src[p.at:]; strings.HasPrefix(rest, ":") {
		if name, _, ok := strings.Cut(rest[1:], ":]"); ok {
			p.at += len(name) + 3
			name, neg := strings.CutPrefix(name, "^")
			if name == "punct" { // here it has the symbols too
				return &charSet{classes: 1<<punct | 1<<sign, neg: neg}, nil
			}
			return property(name, neg)
		}
	}
	return p.class()
}

// classItem reads a character or an escape within a class.
func (p *regexParser) classItem() (*charSet, rune, error) {
	if p.take(`\`) {
		return p.classEscape(true)
	}
	if !p.more() {
		return nil, 0, errors.New("missing ]")
	}
	return nil, p.next(), nil
}

// classEscape reads what stands behind a backslash: a set, or one character.
func (p *regexParser) classEscape(inClass bool) (*charSet, rune, error) {
	if !p.more() {
		return nil, 0, errors.New("backslash at the end")
	}
	switch r := p.next(); r {
	case 's', 'S':
		return &charSet{classes: 1 << space, neg: r == 'S'}, 0, nil
	case 'd', 'D':
		return &charSet{tests: []func(rune) bool{isDecimal}, neg: r == 'D'}, 0, nil
	case 'w', 'W':
		word := isRubyWord
		if inClass {
			word = isClassWord
		}
		return &charSet{tests: []func(rune) bool{word}, neg: r == 'W'}, 0, nil
	case 'h', 'H':
		return &charSet{ranges: []rune{'0', '9', 'a', 'f', 'A', 'F'}, neg: r == 'H'}, 0, nil
	case 'p', 'P':
		if !p.take("{") {
			return nil, r, nil // a plain letter
		}
		name, _, ok := strings.Cut(p.src[p.at:], "}")
		if !ok {
			return nil, 0, errors.New("missing } of a property")
		}
		p.at += len(name) + 1
		name, neg := strings.CutPrefix(name, "^")
		set, err := property(name, neg != (r == 'P'))
		return set, 0, err
	case 'x', 'u':
		return p.codePoint(r)
	case 't':
		return nil, '\t', nil
	case 'n':
		return nil, '\n', nil
	case 'r':
		return nil, '\r', nil
	case 'f':
		return nil, '\f', nil
	case 'v':
		return nil, '\v', nil
	case 'a':
		return nil, '\a', nil
	case 'e':
		return nil, 0x1B, nil
	case '0':
		return nil, 0, nil
	case 'c', 'C', 'M':
		return nil, 0, fmt.Errorf("\\%c is not supported", r)
	default:
		return nil, r, nil
	}
}

// codePoint reads \xHH, \x{H…} or \uHHHH.
func (p *regexParser) codePoint(kind rune) (*charSet, rune, error) {
	digits, ok := "", false
	if kind == 'x' && p.take("{") {
		if digits, _, ok = strings.Cut(p.src[p.at:], "}"); ok {
			p.at += len(digits) + 1
		}
	} else {
		n := map[rune]int{'x': 2, 'u': 4}[kind]
		if ok = len(p.src)-p.at >= n; ok {
			digits = p.src[p.at : p.at+n]
			p.at += n
		}
	}
	v, err := strconv.ParseUint(digits, 16, 21)
	if !ok || err != nil || !utf8.ValidRune(rune(v)) || kind == 'x' && len(digits) == 2 && v >= utf8.RuneSelf {
		return nil, 0, fmt.Errorf("\\%c: want the hexadecimal digits of a code point, have %q", kind, digits)
	}
	return nil, rune(v), nil
}

// property returns the set of a general category, a script, or a name of POSIX.
func property(name string, neg bool) (*charSet, error) {
	set := &charSet{neg: neg}
	key := strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(name))
	if classes, ok := classNames[key]; ok {
		set.classes = classes
		return set, nil
	}
	if test, ok := posixNames[key]; ok {
		set.tests = append(set.tests, test)
		return set, nil
	}
	if long, ok := categoryNames[key]; ok {
		key = long
	}
	for _, tables := range []map[string]*unicode.RangeTable{unicode.Categories, unicode.Scripts, unicode.Properties} {
		for n, t := range tables {
			if strings.ToLower(strings.ReplaceAll(n, "_", "")) == key {
				fresh := freshNames[key]
				set.tests = append(set.tests, func(r rune) bool {
					return unicode.Is(t, r) || fresh != 0 && fresh.has(classTable().of(r)) && !unicode.In(r, unicode.M, unicode.P, unicode.S)
				})
				return set, nil
			}
		}
	}
	return nil, fmt.Errorf("property %q is not known%s", name, nearest.Hint(name, scriptNames))
}

var classNames = map[string]classSet{
	"l": letters, "letter": letters, "n": numerals, "number": numerals, "m": 1 << mark, "mark": 1 << mark,
	"p": 1 << punct, "punctuation": 1 << punct, "punct": 1 << punct, "s": 1 << sign, "symbol": 1 << sign,
	"lu": 1 << upper, "uppercaseletter": 1 << upper, "ll": 1 << lower, "lowercaseletter": 1 << lower,
	"lt": 1 << title, "titlecaseletter": 1 << title, "lm": 1 << modifier, "modifierletter": 1 << modifier,
	"lo": 1 << letterOther, "otherletter": 1 << letterOther, "space": 1 << space, "whitespace": 1 << space,
}

// freshNames has the category of nearly all characters of a class that are newer than Go's tables.
var freshNames = map[string]classSet{"so": 1 << sign, "mn": 1 << mark, "po": 1 << punct}

var categoryNames = map[string]string{
	"separator": "z", "spaceseparator": "zs", "lineseparator": "zl", "paragraphseparator": "zp", "other": "c",
	"control": "cc", "cntrl": "cc", "format": "cf", "privateuse": "co", "decimalnumber": "nd", "letternumber": "nl",
	"othernumber": "no", "nonspacingmark": "mn", "spacingmark": "mc", "enclosingmark": "me",
	"connectorpunctuation": "pc", "dashpunctuation": "pd", "openpunctuation": "ps", "closepunctuation": "pe",
	"initialpunctuation": "pi", "finalpunctuation": "pf", "otherpunctuation": "po", "mathsymbol": "sm",
	"currencysymbol": "sc", "modifiersymbol": "sk", "othersymbol": "so",
}

var posixNames = map[string]func(r rune) bool{
	"digit":  isDecimal,
	"nd":     isDecimal,
	"word":   isRubyWord,
	"alpha":  isAlphabetic,
	"alnum":  func(r rune) bool { return isAlphabetic(r) || isDecimal(r) },
	"upper":  func(r rune) bool { return classTable().of(r) == upper || unicode.Is(unicode.Other_Uppercase, r) },
	"lower":  func(r rune) bool { return classTable().of(r) == lower || unicode.Is(unicode.Other_Lowercase, r) },
	"blank":  func(r rune) bool { return r == '\t' || unicode.Is(unicode.Zs, r) },
	"xdigit": func(r rune) bool { return r < utf8.RuneSelf && strings.ContainsRune("0123456789abcdefABCDEF", r) },
	"ascii":  func(r rune) bool { return r < utf8.RuneSelf },
	"any":    func(rune) bool { return true },
}

// isDecimal is \d: decimal numbers.
func isDecimal(r rune) bool {
	return classTable().of(r) == numeral && !unicode.In(r, unicode.Nl, unicode.No)
}

// isAlphabetic is the property Alphabetic of Unicode 16.
func isAlphabetic(r rune) bool {
	return r >= 0x363 && r <= 0x36F || letters.has(classTable().of(r)) || unicode.In(r, unicode.Nl, unicode.Other_Alphabetic)
}

// isRubyWord is \w of Oniguruma: alphabetic, marks, decimal numbers, connectors, and the numbers of Latin 1.
func isRubyWord(r rune) bool {
	switch r {
	case 0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE:
		return true
	}
	return isClassWord(r)
}

// isClassWord is \w within brackets, where the numbers of Latin 1 are not part of it.
func isClassWord(r rune) bool { return isWord(r) && !unicode.Is(unicode.Join_Control, r) }
