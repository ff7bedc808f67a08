package jinja

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// token kinds are the operator itself ("+", "(", "==") or one of these names, which error messages quote as Jinja
// words them.
const (
	tokEOF      = "end of template"
	tokData     = "template data / text"
	tokVarBegin = "begin of print statement"
	tokVarEnd   = "end of print statement"
	tokTagBegin = "begin of statement block"
	tokTagEnd   = "end of statement block"
	tokName     = "name"
	tokString   = "string"
	tokInteger  = "integer"
	tokFloat    = "float"
)

type token struct {
	kind string
	text string // of a name, a string or data
	num  Value  // of a number
	line int
}

// String describes the token in an error message.
func (t token) String() string {
	if t.kind == tokName {
		return t.text
	}
	return t.kind
}

func (t token) isName(names ...string) bool {
	if t.kind != tokName {
		return false
	}
	for _, n := range names {
		if t.text == n {
			return true
		}
	}
	return false
}

// lexer makes tokens on demand: an error in the text shows only when the parser comes to it.
type lexer struct {
	src       string
	pos       int
	line      int
	end       string  // "%}" or "}}" inside a tag, else ""
	raw       bool    // inside {% raw %}
	open      []byte  // closing brackets that are waited for
	lineStart bool    // the last match ended with a newline, or nothing was matched yet
	queue     []token // read, not yet handed out
}

// newLexer normalises newlines and drops one at the end.
func newLexer(src string) *lexer {
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	return &lexer{src: strings.TrimSuffix(src, "\n"), line: 1, lineStart: true}
}

func (l *lexer) fail(format string, args ...any) {
	panic(&Error{Kind: "TemplateSyntaxError", Message: fmt.Sprintf(format, args...), Line: l.line})
}

func (l *lexer) push(t token) {
	t.line = l.line
	l.queue = append(l.queue, t)
}

func (l *lexer) next() token {
	for len(l.queue) == 0 {
		rest := l.src[l.pos:]
		switch {
		case rest == "":
			l.push(token{kind: tokEOF})
		case l.raw:
			l.rawData(rest)
		case l.end == "":
			l.data(rest)
		default:
			l.inTag(rest)
		}
	}
	t := l.queue[0]
	l.queue = l.queue[1:]
	return t
}

// take moves over n bytes.
func (l *lexer) take(n int) {
	s := l.src[l.pos : l.pos+n]
	l.pos += n
	l.line += strings.Count(s, "\n")
	if n > 0 {
		l.lineStart = s[n-1] == '\n'
	}
}

// takeSpace moves over white space.
func (l *lexer) takeSpace() { l.take(spaces(l.src[l.pos:])) }

// spaces returns the length of the white space that s begins with.
func spaces(s string) int { return len(s) - len(strings.TrimLeftFunc(s, isSpace)) }

// data reads text up to the next tag, and the tag's begin.
func (l *lexer) data(rest string) {
	at := tagStart(rest)
	if at < 0 {
		l.push(token{kind: tokData, text: rest})
		l.take(len(rest))
		return
	}
	kind, sign := rest[at+1], signAt(rest, at+2)
	if text := l.trimBefore(rest[:at], sign, kind != '{'); text != "" {
		l.push(token{kind: tokData, text: text})
	}
	l.take(at)
	if n := matchRaw(rest[at:]); n > 0 {
		l.take(n)
		l.raw = true
		return
	}
	switch kind {
	case '#':
		l.take(2 + len(sign))
		l.comment()
	case '%':
		l.push(token{kind: tokTagBegin})
		l.take(2 + len(sign))
		l.end = "%}"
	case '{':
		l.push(token{kind: tokVarBegin})
		l.take(2 + len(sign))
		l.end = "}}"
	}
}

// tagStart finds the first "{{", "{%" or "{#".
func tagStart(s string) int {
	for i := 0; i+1 < len(s); i++ {
		j := strings.IndexByte(s[i:], '{')
		if j < 0 || i+j+1 >= len(s) {
			return -1
		}
		i += j
		if c := s[i+1]; c == '{' || c == '%' || c == '#' {
			return i
		}
	}
	return -1
}

func signAt(s string, i int) string {
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		return s[i : i+1]
	}
	return ""
}

// matchRaw returns the length of the {% raw %} tag that s begins with, 0 if there is none.
func matchRaw(s string) int {
	if s[1] != '%' {
		return 0
	}
	return wordTag(s, 2+len(signAt(s, 2)), "raw", false)
}

// wordTag matches white space, word, white space and the end of a block tag from s[i] and returns where they end, or
// 0. After endraw a newline that follows the tag is trimmed, as after every block tag; {% raw %} keeps it.
func wordTag(s string, i int, word string, trim bool) int {
	i += spaces(s[i:])
	if !strings.HasPrefix(s[i:], word) {
		return 0
	}
	i += len(word)
	i += spaces(s[i:])
	switch {
	case strings.HasPrefix(s[i:], "-%}"):
		i += 3
		i += spaces(s[i:])
	case trim && strings.HasPrefix(s[i:], "+%}"):
		i += 3
	case strings.HasPrefix(s[i:], "%}"):
		i += 2
		if trim && strings.HasPrefix(s[i:], "\n") {
			i++
		}
	default:
		return 0
	}
	return i
}

// trimBefore applies the sign of a tag, or lstrip_blocks, to the text before it.
func (l *lexer) trimBefore(text, sign string, block bool) string {
	if sign == "-" {
		return strings.TrimRightFunc(text, isSpace)
	}
	if sign == "+" || !block {
		return text
	}
	line := strings.LastIndexByte(text, '\n') + 1
	if line == 0 && !l.lineStart {
		return text
	}
	if strings.TrimLeftFunc(text[line:], isSpace) == "" {
		return text[:line]
	}
	return text
}

func (l *lexer) comment() {
	rest := l.src[l.pos:]
	if rest == "" {
		return
	}
	i := strings.Index(rest, "#}")
	if i < 0 {
		l.fail("Missing end of comment tag")
	}
	minus := i > 0 && rest[i-1] == '-'
	plus := i > 0 && rest[i-1] == '+'
	l.take(i + 2)
	if minus {
		l.takeSpace()
	} else if !plus && strings.HasPrefix(l.src[l.pos:], "\n") {
		l.take(1)
	}
}

// rawData reads the text of a raw block and its end.
func (l *lexer) rawData(rest string) {
	for from := 0; ; {
		i := strings.Index(rest[from:], "{%")
		if i < 0 {
			l.fail("Missing end of raw directive")
		}
		i += from
		sign := signAt(rest, i+2)
		if n := wordTag(rest, i+2+len(sign), "endraw", true); n > 0 {
			if text := l.trimBefore(rest[:i], sign, true); text != "" {
				l.push(token{kind: tokData, text: text})
			}
			l.take(n)
			l.raw = false
			return
		}
		from = i + 2
	}
}

// operators, longest first.
var operators = []string{
	"**", "//", "==", "!=", ">=", "<=",
	"+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
}

// inTag reads the next token of a tag, or its end.
func (l *lexer) inTag(rest string) {
	if len(l.open) == 0 && l.tagEnd(rest) {
		return
	}
	if n := spaces(rest); n > 0 {
		l.take(n)
		return
	}
	if t, n := l.number(rest); n > 0 {
		l.push(t)
		l.take(n)
		return
	}
	if n := len(rest) - len(strings.TrimLeftFunc(rest, isNameRune)); n > 0 {
		if !isIdentifier(rest[:n]) {
			l.fail("Invalid character in identifier")
		}
		l.push(token{kind: tokName, text: rest[:n]})
		l.take(n)
		return
	}
	if n := quoted(rest); n > 0 {
		l.push(token{kind: tokString, text: l.unescape(rest[1 : n-1])})
		l.take(n)
		return
	}
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			l.bracket(op)
			l.push(token{kind: op})
			l.take(len(op))
			return
		}
	}
	c, _ := utf8.DecodeRuneInString(rest)
	l.fail("unexpected char %s at %d", quote(string(c)), utf8.RuneCountInString(l.src[:l.pos]))
}

func (l *lexer) tagEnd(rest string) bool {
	kind := tokTagEnd
	if l.end == "}}" {
		kind = tokVarEnd
	}
	n := len(l.end)
	minus := strings.HasPrefix(rest, "-"+l.end)
	plus := l.end == "%}" && strings.HasPrefix(rest, "+%}")
	if minus || plus {
		n++
	} else if !strings.HasPrefix(rest, l.end) {
		return false
	}
	l.push(token{kind: kind})
	l.take(n)
	if minus {
		l.takeSpace()
	} else if !plus && l.end == "%}" && strings.HasPrefix(l.src[l.pos:], "\n") {
		l.take(1)
	}
	l.end = ""
	return true
}

// bracket keeps the balance, so that "}}" inside a dict does not end a print statement.
func (l *lexer) bracket(op string) {
	switch op {
	case "(":
		l.open = append(l.open, ')')
	case "[":
		l.open = append(l.open, ']')
	case "{":
		l.open = append(l.open, '}')
	case ")", "]", "}":
		if len(l.open) == 0 {
			l.fail("unexpected '%s'", op)
		}
		want := l.open[len(l.open)-1]
		if op[0] != want {
			l.fail("unexpected '%s', expected '%c'", op, want)
		}
		l.open = l.open[:len(l.open)-1]
	}
}

// digits returns the length of a run of digits that single underscores may divide.
func digits(s string, ok func(byte) bool) int {
	n := 0
	for n < len(s) && (ok(s[n]) || s[n] == '_' && n > 0 && s[n-1] != '_' && n+1 < len(s) && ok(s[n+1])) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// number matches a float, unless a dot stands before it, or an integer.
func (l *lexer) number(s string) (token, int) {
	if !isDigit(s[0]) {
		return token{}, 0
	}
	n := digits(s, isDigit)
	if l.pos == 0 || l.src[l.pos-1] != '.' {
		end := n
		if end+1 < len(s) && s[end] == '.' && isDigit(s[end+1]) {
			end += 1 + digits(s[end+1:], isDigit)
		}
		if end < len(s) && s[end]|0x20 == 'e' {
			e := end + 1 + len(signAt(s, end+1))
			if e < len(s) && isDigit(s[e]) {
				end = e + digits(s[e:], isDigit)
			}
		}
		if end > n {
			// Out of range is infinity, as in Python.
			f, _ := strconv.ParseFloat(strings.ReplaceAll(s[:end], "_", ""), 64)
			return token{kind: tokFloat, num: f}, end
		}
	}
	if s[0] == '0' {
		n = l.zero(s)
	}
	if n > 4300 {
		panic(&Error{Kind: "ValueError", Message: "Exceeds the limit (4300 digits) for integer string conversion", Line: l.line})
	}
	i, ok := new(big.Int).SetString(s[:n], 0)
	if !ok {
		l.fail("invalid number %s", s[:n])
	}
	return token{kind: tokInteger, num: small(i)}, n
}

// zero returns the length of an integer that begins with 0: 0b1, 0o7, 0xf or zeros alone.
func (l *lexer) zero(s string) int {
	if len(s) > 2 {
		var ok func(byte) bool
		switch s[1] | 0x20 {
		case 'b':
			ok = func(c byte) bool { return c == '0' || c == '1' }
		case 'o':
			ok = func(c byte) bool { return '0' <= c && c <= '7' }
		case 'x':
			ok = isHex
		}
		if ok != nil {
			skip := 2
			if s[2] == '_' {
				skip = 3
			}
			if n := digits(s[skip:], ok); n > 0 {
				return skip + n
			}
		}
	}
	return digits(s, func(c byte) bool { return c == '0' })
}

func isNameRune(c rune) bool {
	return c == '_' || unicode.IsLetter(c) || unicode.IsNumber(c) || unicode.In(c, unicode.Mn, unicode.Mc, unicode.Pc) || c == '·'
}

// isIdentifier is Python's str.isidentifier.
func isIdentifier(s string) bool {
	for i, c := range s {
		start := c == '_' || unicode.IsLetter(c) || unicode.Is(unicode.Nl, c)
		if !start && (i == 0 || !unicode.In(c, unicode.Mn, unicode.Mc, unicode.Nd, unicode.Pc) && c != '·') {
			return false
		}
	}
	return s != ""
}

// quoted returns the length of the string literal at the start of s, 0 if there is none.
func quoted(s string) int {
	if s[0] != '\'' && s[0] != '"' {
		return 0
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i + 1
		}
	}
	return 0
}

var escapes = map[byte]byte{
	'\\': '\\', '\'': '\'', '"': '"', 'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

// unescape reads Python's unicode_escape. A backslash before a character outside ASCII yields that character's own
// escape as text, because Jinja escapes it first.
func (l *lexer) unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			i++
			continue
		}
		c := s[i+1]
		switch {
		case escapes[c] != 0:
			b.WriteByte(escapes[c])
			i += 2
		case c == '\n':
			i += 2
		case c == 'x' || c == 'u' || c == 'U':
			n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			r, ok := hexRune(s[i+2:], n)
			if !ok {
				l.fail(`truncated \%c%s escape`, c, strings.Repeat("X", n))
			}
			if r > unicode.MaxRune {
				l.fail("illegal Unicode character")
			}
			b.WriteRune(rune(r))
			i += 2 + n
		case c == 'N':
			l.fail(`the escape \N{...} is not supported; write the character itself`)
		case '0' <= c && c <= '7':
			n := 1
			for n < 3 && i+1+n < len(s) && '0' <= s[i+1+n] && s[i+1+n] <= '7' {
				n++
			}
			v, _ := strconv.ParseUint(s[i+1:i+1+n], 8, 32)
			b.WriteRune(rune(v))
			i += 1 + n
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s[i+1:])
			b.WriteString(escapeRune(r))
			i += 1 + n
		default:
			b.WriteString(s[i : i+2])
			i += 2
		}
	}
	return b.String()
}

func hexRune(s string, n int) (uint64, bool) {
	if len(s) < n {
		return 0, false
	}
	v, err := strconv.ParseUint(s[:n], 16, 64)
	return v, err == nil
}
