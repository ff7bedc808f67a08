package data

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a JSON value.
const maxDepth = 200

// number is a JSON number as it is written, so that no digit is lost.
type number string

// float is the value of the number; the parser has checked that it fits.
func (n number) float() float64 {
	f, _ := strconv.ParseFloat(string(n), 64)
	return f
}

// object is a JSON object with its keys in the order of the file, which templates show.
type object struct {
	keys   []string
	values []any
}

// get returns the value of a key; ok is false when the key is absent.
func (o *object) get(key string) (value any, ok bool) {
	for i, k := range o.keys {
		if k == key {
			return o.values[i], true
		}
	}
	return nil, false
}

// has reports whether a key is present with a value other than null.
func (o *object) has(key string) bool {
	v, ok := o.get(key)
	return ok && v != nil
}

func (o *object) set(key string, value any) {
	o.keys = append(o.keys, key)
	o.values = append(o.values, value)
}

// typeName names the type of a JSON value in messages.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "text"
	case number:
		return "number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	}
	return "an object"
}

// syntaxError is where and why a text is not strict JSON.
type syntaxError struct {
	offset int
	reason string
	remedy string
	eof    bool // the text ends inside the value
}

// Error implements error.
func (e *syntaxError) Error() string { return e.reason }

// jsonParser reads one value of strict JSON (RFC 8259): keys once, no NaN, no raw control characters, valid UTF-8.
// It differs from encoding/json in keeping the order of keys, in refusing what that package accepts in silence, and
// in saying what is wrong in a way that helps to mend the file.
type jsonParser struct {
	s        string
	i        int
	key      string // the last key read, for messages
	warnings []string
}

// parseJSON reads a text that holds one value and nothing else. The values are made of pieces of s.
func parseJSON(s string) (value any, warnings []string, err error) {
	p := jsonParser{s: s}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*syntaxError)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	p.space()
	value = p.value(0)
	p.space()
	if p.i < len(s) {
		p.fail("write one value a line", "data after the first JSON value")
	}
	return value, p.warnings, nil
}

func (p *jsonParser) fail(remedy, format string, args ...any) {
	panic(&syntaxError{offset: p.i, reason: fmt.Sprintf(format, args...), remedy: remedy})
}

// end fails because the text is over.
func (p *jsonParser) end() {
	panic(&syntaxError{offset: len(p.s), reason: "ends inside a value", remedy: "close the value", eof: true})
}

func (p *jsonParser) space() {
	for p.i < len(p.s) && isSpace(p.s[p.i]) {
		p.i++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func (p *jsonParser) value(depth int) any {
	if depth > maxDepth {
		p.fail("flatten the record", "nested too deeply (more than %d levels)", maxDepth)
	}
	if p.i == len(p.s) {
		p.end()
	}
	switch c := p.s[p.i]; {
	case c == '"':
		return p.str()
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == '\'':
		p.fail("write double quotes", "single quotes are not JSON")
	case c == ',' || c == ']' || c == '}':
		p.fail("remove the comma before it or add the value", "value expected before %q", c)
	}
	return p.word()
}

func (p *jsonParser) word() any {
	end := p.i
	for end < len(p.s) && (p.s[end] >= 'a' && p.s[end] <= 'z' || p.s[end] >= 'A' && p.s[end] <= 'Z') {
		end++
	}
	word := p.s[p.i:end]
	var value any
	switch word {
	case "true":
		value = true
	case "false":
		value = false
	case "null":
	case "NaN", "Infinity", "inf", "nan":
		p.fail("write null or a number", "%s is not JSON", word)
	case "True", "False", "None":
		p.fail("write true, false or null", "%s is Python, not JSON", word)
	case "":
		p.checkUTF8(p.i, min(p.i+utf8.UTFMax, len(p.s)))
		r, _ := utf8.DecodeRuneInString(p.s[p.i:])
		p.fail("texts need double quotes", "a value cannot begin with %q", r)
	default:
		if strings.HasPrefix("true", word) || strings.HasPrefix("false", word) || strings.HasPrefix("null", word) {
			if end == len(p.s) {
				p.end()
			}
		}
		p.fail("texts need double quotes", "%s is not a JSON value", clip(word, 20))
	}
	p.i = end
	return value
}

func (p *jsonParser) object(depth int) any {
	p.i++
	o := &object{}
	for {
		p.space()
		if p.i == len(p.s) {
			p.end()
		}
		switch c := p.s[p.i]; {
		case c == '}' && len(o.keys) == 0:
			p.i++
			return o
		case c == '}':
			p.fail("remove the comma", "key expected after ','")
		case c != '"':
			p.fail("write keys in double quotes", "keys need double quotes")
		}
		at := p.i
		key := p.str()
		if _, twice := o.get(key); twice {
			p.i = at
			p.fail("remove one; most readers keep the last", "key '%s' appears twice", clip(key, 40))
		}
		if len(o.keys) >= maxKeys {
			p.fail("use fewer columns", "object has more than %d keys", maxKeys)
		}
		p.space()
		if p.i == len(p.s) {
			p.end()
		}
		if p.s[p.i] != ':' {
			p.fail("write \"key\": value", "':' expected after key '%s'", clip(key, 40))
		}
		p.i++
		p.space()
		p.key = key
		o.set(key, p.value(depth+1))
		p.space()
		if p.i == len(p.s) {
			p.end()
		}
		switch p.s[p.i] {
		case ',':
			p.i++
		case '}':
			p.i++
			return o
		default:
			p.fail("check the quotes and commas before it", "',' or '}' expected after the value of '%s'", clip(key, 40))
		}
	}
}

// maxKeys bounds the keys of one object, whose search is linear.
const maxKeys = 4096

func (p *jsonParser) array(depth int) any {
	p.i++
	list := []any{}
	for {
		p.space()
		if p.i == len(p.s) {
			p.end()
		}
		if p.s[p.i] == ']' {
			if len(list) > 0 {
				p.fail("remove the comma", "value expected after ','")
			}
			p.i++
			return list
		}
		list = append(list, p.value(depth+1))
		p.space()
		if p.i == len(p.s) {
			p.end()
		}
		switch p.s[p.i] {
		case ',':
			p.i++
		case ']':
			p.i++
			return list
		default:
			p.fail("check the quotes and commas before it", "',' or ']' expected")
		}
	}
}

func (p *jsonParser) number() any {
	start := p.i
	digits := func() {
		n := p.i
		for p.i < len(p.s) && '0' <= p.s[p.i] && p.s[p.i] <= '9' {
			p.i++
		}
		if p.i == n {
			if p.i == len(p.s) {
				p.end()
			}
			if strings.HasPrefix(p.s[p.i:], "Infinity") {
				p.fail("write null or a number", "-Infinity is not JSON")
			}
			p.fail("", "digit expected in a number, have %q", p.s[p.i])
		}
	}
	if p.s[p.i] == '-' {
		p.i++
	}
	if p.i < len(p.s) && p.s[p.i] == '0' {
		p.i++
		if p.i < len(p.s) && '0' <= p.s[p.i] && p.s[p.i] <= '9' {
			p.fail("remove the zero or write text in double quotes", "number with a leading zero")
		}
	} else {
		digits()
	}
	if p.i < len(p.s) && p.s[p.i] == '.' {
		p.i++
		digits()
	}
	if p.i < len(p.s) && (p.s[p.i] == 'e' || p.s[p.i] == 'E') {
		p.i++
		if p.i < len(p.s) && (p.s[p.i] == '+' || p.s[p.i] == '-') {
			p.i++
		}
		digits()
	}
	text := p.s[start:p.i]
	if _, err := strconv.ParseFloat(text, 64); err != nil {
		p.i = start
		p.fail("write a smaller number", "%s: %s does not fit a float", clip(p.key, 40), clip(text, 30))
	}
	return number(text)
}

func (p *jsonParser) str() string {
	p.i++
	start := p.i
	for {
		// The plain stretch up to the next quote, escape or control character; most strings end here.
		n := p.i
		for n < len(p.s) && p.s[n] != '"' && p.s[n] != '\\' && p.s[n] >= 0x20 {
			n++
		}
		p.checkUTF8(p.i, n)
		p.i = n
		if n == len(p.s) {
			p.endInString()
		}
		switch c := p.s[n]; {
		case c == '"':
			p.i++
			return p.s[start:n]
		case c == '\\':
			return p.escaped(start)
		default:
			p.control(c)
		}
	}
}

// escaped reads the rest of a string that holds an escape at p.i.
func (p *jsonParser) escaped(start int) string {
	b := append(make([]byte, 0, p.i-start+64), p.s[start:p.i]...)
	for {
		n := p.i
		for n < len(p.s) && p.s[n] != '"' && p.s[n] != '\\' && p.s[n] >= 0x20 {
			n++
		}
		p.checkUTF8(p.i, n)
		b = append(b, p.s[p.i:n]...)
		p.i = n
		if n == len(p.s) {
			p.endInString()
		}
		switch c := p.s[n]; {
		case c == '"':
			p.i++
			return string(b)
		case c != '\\':
			p.control(c)
		}
		if n+1 == len(p.s) {
			p.endInString()
		}
		p.i += 2
		switch c := p.s[n+1]; c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			b = utf8.AppendRune(b, p.codePoint())
		default:
			p.i = n
			p.fail("write \\\\ for a backslash", "unknown escape %q", p.s[n:n+2])
		}
	}
}

// codePoint reads the digits after \u, and the second half of a surrogate pair. Half a pair becomes U+FFFD.
func (p *jsonParser) codePoint() rune {
	r := p.hex4()
	if !utf16.IsSurrogate(r) {
		return r
	}
	if strings.HasPrefix(p.s[p.i:], `\u`) {
		at := p.i
		p.i += 2
		if both := utf16.DecodeRune(r, p.hex4()); both != utf8.RuneError {
			return both
		}
		p.i = at
	}
	p.warnings = append(p.warnings, fmt.Sprintf(`\u%04x is half of a surrogate pair: replaced by U+FFFD`, r))
	return utf8.RuneError
}

func (p *jsonParser) hex4() rune {
	if p.i+4 > len(p.s) {
		p.endInString()
	}
	v, err := strconv.ParseUint(p.s[p.i:p.i+4], 16, 16)
	if err != nil || p.s[p.i] == '+' {
		p.fail(`write \u and four digits of base 16`, "%q is not a code point", p.s[p.i:p.i+4])
	}
	p.i += 4
	return rune(v)
}

func (p *jsonParser) endInString() {
	panic(&syntaxError{offset: len(p.s), reason: "ends inside a string", remedy: `write \n for a line end inside a string, or close the quotes`, eof: true})
}

func (p *jsonParser) control(c byte) {
	if c == '\n' || c == '\r' {
		p.fail(`write \n for a line end`, "line end inside a string")
	}
	p.fail(fmt.Sprintf(`write \u%04x, or remove it`, c), "control character 0x%02X inside a string must be escaped", c)
}

func (p *jsonParser) checkUTF8(from, to int) {
	if at := invalidUTF8(p.s[from:to]); at >= 0 {
		p.i = from + at
		p.fail("convert the file to UTF-8", "byte 0x%02X is not UTF-8 (Latin-1 file?)", p.s[p.i])
	}
}

// invalidUTF8 returns the offset of the first byte that is not part of a valid UTF-8 sequence, or -1.
func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// appendJSON writes a value as compact JSON, with the keys in their order.
func appendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case number:
		return append(b, v...)
	case string:
		return appendQuoted(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, e)
		}
		return append(b, ']')
	case *object:
		b = append(b, '{')
		for i, k := range v.keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, k), ':')
			b = appendJSON(b, v.values[i])
		}
		return append(b, '}')
	}
	panic(fmt.Sprintf("data: %T is not a JSON value", v))
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < 0x20:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// clip shortens s for a message, at a character's edge.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// lineOf returns the line and column, from 1, of an offset in a text that begins at the given line.
func lineOf(text []byte, offset, line int) (int, int) {
	offset = min(offset, len(text))
	head := text[:offset]
	return line + bytes.Count(head, []byte{'\n'}), offset - bytes.LastIndexByte(head, '\n')
}
