package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is Python's str(v).
func (r *renderer) str(v Value) string {
	switch v := v.(type) {
	case string:
		return v
	case Markup:
		return string(v)
	case *Undefined:
		return ""
	}
	return r.repr(v)
}

// repr is Python's repr(v).
func (r *renderer) repr(v Value) string {
	var b strings.Builder
	r.writeRepr(&b, v)
	return b.String()
}

func (r *renderer) writeRepr(b *strings.Builder, v Value) {
	r.step(1)
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		b.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case int:
		b.WriteString(strconv.Itoa(v))
	case *big.Int:
		r.step(v.BitLen() * v.BitLen() >> 16)
		b.WriteString(v.String())
	case float64:
		b.WriteString(floatRepr(v))
	case string:
		r.charge(len(v))
		b.WriteString(quote(v))
	case Markup:
		r.charge(len(v))
		b.WriteString("Markup(" + quote(string(v)) + ")")
	case bytesValue:
		r.charge(len(v))
		b.WriteString(bytesRepr(string(v)))
	case List:
		r.writeOnce(b, v, "[...]", func() { r.writeItems(b, "[", v, "]") })
	case Tuple:
		end := ")"
		if len(v) == 1 {
			end = ",)"
		}
		r.writeOnce(b, v, "(...)", func() { r.writeItems(b, "(", v, end) })
	case *group:
		r.writeItems(b, "(", v.tuple(), ")")
	case *Dict:
		r.writeDict(b, v)
	case *Undefined:
		b.WriteString("Undefined")
	case *rangeValue:
		if v.step == 1 {
			fmt.Fprintf(b, "range(%d, %d)", v.start, v.stop)
		} else {
			fmt.Fprintf(b, "range(%d, %d, %d)", v.start, v.stop, v.step)
		}
	case *view:
		b.WriteString(v.kind + "(")
		items := make([]Value, v.d.Len())
		for i := range items {
			items[i] = v.at(i)
		}
		r.writeItems(b, "[", items, "])")
	case *namespace:
		b.WriteString("<Namespace ")
		r.writeDict(b, v.attrs)
		b.WriteString(">")
	case *macro:
		if v.def.anonymous {
			b.WriteString("<Macro anonymous>")
		} else {
			b.WriteString("<Macro " + quote(v.def.name) + ">")
		}
	case *loop:
		fmt.Fprintf(b, "<LoopContext %d/%d>", v.index0+1, v.size())
	case *templateRef:
		b.WriteString("<TemplateReference None>")
	case *function:
		b.WriteString("<" + v.typeName() + " " + v.name + ">")
	default:
		b.WriteString("<" + typeName(v) + ">")
	}
}

func (r *renderer) writeItems(b *strings.Builder, open string, items []Value, end string) {
	r.enter()
	b.WriteString(open)
	for i, v := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		r.writeRepr(b, v)
	}
	b.WriteString(end)
	r.depth--
}

// writeOnce writes a container, or a mark if it is being written already: a namespace can hold itself.
func (r *renderer) writeOnce(b *strings.Builder, v Value, mark string, write func()) {
	n, _ := r.length(v)
	r.step(len(r.printing) >> 3)
	for _, p := range r.printing {
		if n > 0 && same(p, v) {
			b.WriteString(mark)
			return
		}
	}
	r.printing = append(r.printing, v)
	write()
	r.printing = r.printing[:len(r.printing)-1]
}

func (r *renderer) writeDict(b *strings.Builder, d *Dict) {
	r.writeOnce(b, d, "{...}", func() { r.writePairs(b, d) })
}

func (r *renderer) writePairs(b *strings.Builder, d *Dict) {
	r.enter()
	b.WriteByte('{')
	for i, k := range d.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		r.writeRepr(b, k)
		b.WriteString(": ")
		r.writeRepr(b, d.values[i])
	}
	b.WriteByte('}')
	r.depth--
}

// floatRepr is Python's repr of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.ContainsRune(s, '.') {
		s += ".0"
	}
	return s
}

// quote is Python's repr of a string.
func quote(s string) string {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	var b strings.Builder
	b.WriteByte(q)
	for _, c := range s {
		switch {
		case c == rune(q) || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case printable(c):
			b.WriteRune(c)
		default:
			b.WriteString(escapeRune(c))
		}
	}
	b.WriteByte(q)
	return b.String()
}

func printable(c rune) bool { return c == ' ' || unicode.IsPrint(c) }

// escapeRune writes a character as Python escapes it.
func escapeRune(c rune) string {
	switch {
	case c == '\n':
		return `\n`
	case c == '\r':
		return `\r`
	case c == '\t':
		return `\t`
	case c < 0x100:
		return fmt.Sprintf(`\x%02x`, c)
	case c < 0x10000:
		return fmt.Sprintf(`\u%04x`, c)
	}
	return fmt.Sprintf(`\U%08x`, c)
}

func bytesRepr(s string) string {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	b := []byte{'b', q}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == q || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = append(b, escapeRune(rune(c))...)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, q))
}

// isSpace is Python's str.isspace for one character.
func isSpace(c rune) bool { return unicode.IsSpace(c) || 0x1c <= c && c <= 0x1f }

// escape is markupsafe's: text becomes Markup, Markup stays.
func (r *renderer) escape(v Value) Markup {
	if m, ok := v.(Markup); ok {
		return m
	}
	s := htmlEscaper.Replace(r.str(v))
	r.charge(len(s))
	return Markup(s)
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;")

func runeCount(s string) int { return utf8.RuneCountInString(s) }
