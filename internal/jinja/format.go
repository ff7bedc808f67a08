package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxWidth bounds widths and precisions in formats.
const maxWidth = 1 << 20

// spec is a format specification, of % or of str.format.
type spec struct {
	fill      string // "" is a space
	align     byte   // one of < > ^ =, 0 is the type's own
	sign      byte   // one of + - space, 0 is -
	alternate bool
	width     int
	grouping  byte // one of , _
	precision int  // -1 is none
	kind      byte
}

// pad fills a formatted value up to its width; prefix is the sign and base that "=" keeps in front.
func (f spec) pad(r *renderer, prefix, body string, align byte) string {
	if f.align != 0 {
		align = f.align
	}
	n := f.width - runeCount(prefix) - runeCount(body)
	if n <= 0 {
		return prefix + body
	}
	fill := f.fill
	if fill == "" {
		fill = " "
	}
	r.fill(n, fill)
	switch align {
	case '<':
		return prefix + body + strings.Repeat(fill, n)
	case '^':
		return strings.Repeat(fill, n/2) + prefix + body + strings.Repeat(fill, n-n/2)
	case '=':
		return prefix + strings.Repeat(fill, n) + body
	}
	return strings.Repeat(fill, n) + prefix + body
}

func (f spec) signOf(negative bool) string {
	switch {
	case negative:
		return "-"
	case f.sign == '+' || f.sign == ' ':
		return string(f.sign)
	}
	return ""
}

// thousands puts separators into a run of digits, from the right.
func thousands(digits string, sep byte, size int) string {
	if sep == 0 {
		return digits
	}
	var b strings.Builder
	for i := range len(digits) {
		if i > 0 && (len(digits)-i)%size == 0 {
			b.WriteByte(sep)
		}
		b.WriteByte(digits[i])
	}
	return b.String()
}

// integer formats an int in the base of the kind.
func (f spec) integer(r *renderer, i *big.Int) string {
	base, prefix, size := 10, "", 3
	switch f.kind {
	case 'b':
		base, prefix, size = 2, "0b", 4
	case 'o':
		base, prefix, size = 8, "0o", 4
	case 'x', 'X':
		base, prefix, size = 16, "0"+string(f.kind), 4
	}
	if !f.alternate {
		prefix = ""
	}
	digits := new(big.Int).Abs(i).Text(base)
	if f.kind == 'X' {
		digits = strings.ToUpper(digits)
	}
	if f.precision > len(digits) { // only % has a precision here
		digits = strings.Repeat("0", f.precision-len(digits)) + digits
	}
	r.charge(len(digits))
	return f.number(r, f.signOf(i.Sign() < 0)+prefix, digits, size)
}

// number pads digits; zeros that fill up take part in the grouping.
func (f spec) number(r *renderer, prefix, digits string, size int) string {
	whole, rest := digits, ""
	if i := strings.IndexFunc(digits, func(c rune) bool { return c < '0' || c > '9' }); i >= 0 && size == 3 {
		whole, rest = digits[:i], digits[i:]
	}
	if f.grouping != 0 && f.fill == "0" && f.align == '=' {
		for len(thousands(whole, f.grouping, size))+len(rest)+len(prefix) < f.width {
			whole = "0" + whole
		}
	}
	return f.pad(r, prefix, thousands(whole, f.grouping, size)+rest, '>')
}

// float formats a float. The kind is one of e f g, upper or lower case, or %; 0 is str's own form.
func (f spec) float(r *renderer, v float64) string {
	sign := f.signOf(math.Signbit(v) && !math.IsNaN(v))
	v = math.Abs(v)
	kind, precision, suffix := f.kind|0x20, f.precision, ""
	if f.kind == '%' {
		v, kind, suffix = v*100, 'f', "%"
	}
	var digits string
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		digits = floatRepr(v)
	case f.kind == 0 && precision < 0:
		digits = floatRepr(v)
	case f.kind == 0:
		digits = strconv.FormatFloat(v, 'g', max(precision, 1), 64)
		if !strings.ContainsAny(digits, ".e") {
			digits += ".0"
		}
	default:
		if precision < 0 {
			precision = 6
		}
		if kind == 'n' {
			kind = 'g'
		}
		if kind == 'g' && precision == 0 {
			precision = 1
		}
		digits = strconv.FormatFloat(v, kind, precision, 64)
		if f.alternate { // the point and the zeros after it stay
			digits = fmt.Sprintf("%#.*"+string(rune(kind)), precision, v)
		}
	}
	if 'A' <= f.kind && f.kind <= 'Z' {
		digits = strings.ToUpper(digits)
	}
	r.charge(len(digits))
	return f.number(r, sign, digits+suffix, 3)
}

func checkWidth(f spec) {
	if f.width > maxWidth || f.precision > maxWidth {
		fail("LimitError", "a format of more than %d characters", maxWidth)
	}
}

func readInt(s string, i int) (int, int) {
	n := 0
	for ; i < len(s) && isDigit(s[i]); i++ {
		n = min(n*10+int(s[i]-'0'), maxWidth+1)
	}
	return n, i
}

// codePoint is chr(i).
func codePoint(i *big.Int) string {
	if i.Sign() < 0 || i.Cmp(big.NewInt(utf8.MaxRune)) > 0 {
		fail("OverflowError", "%%c arg not in range(0x110000)")
	}
	return string(rune(i.Int64()))
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// asciiOnly escapes what is outside ASCII.
func asciiOnly(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c < 0x80 {
			b.WriteRune(c)
		} else {
			b.WriteString(escapeRune(c))
		}
	}
	return b.String()
}

// truncate is int(f).
func truncate(f float64) any {
	switch {
	case math.IsNaN(f):
		fail("ValueError", "cannot convert float NaN to integer")
	case math.IsInf(f, 0):
		fail("OverflowError", "cannot convert float infinity to integer")
	}
	i, _ := big.NewFloat(f).Int(nil)
	return small(i)
}

// format is str.format; names and indexes in fields go through the sandbox.
func (r *renderer) format(self Value, a *arguments) Value {
	s, _ := asString(self)
	_, safe := self.(Markup)
	f := &formatter{r: r, args: a, safe: safe}
	return like(self, f.run(s, 2))
}

type formatter struct {
	r    *renderer
	args *arguments
	auto int  // the next automatic field number; -1 once fields are numbered by hand
	safe bool // escape what fields yield
}

func (f *formatter) run(s string, depth int) string {
	if depth < 0 {
		fail("ValueError", "Max string recursion exceeded")
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		if c != '{' && c != '}' {
			j := strings.IndexAny(s[i:], "{}")
			if j < 0 {
				j = len(s) - i
			}
			b.WriteString(s[i : i+j])
			i += j
			continue
		}
		if i+1 < len(s) && s[i+1] == c {
			b.WriteByte(c)
			i += 2
			continue
		}
		if c == '}' {
			fail("ValueError", "Single '}' encountered in format string")
		}
		end, level := i+1, 1
		for ; end < len(s) && level > 0; end++ {
			switch s[end] {
			case '{':
				level++
			case '}':
				level--
			}
		}
		if level > 0 {
			if i+1 == len(s) {
				fail("ValueError", "Single '{' encountered in format string")
			}
			fail("ValueError", "expected '}' before end of string")
		}
		text := f.field(s[i+1:end-1], depth)
		f.r.charge(len(text))
		b.WriteString(text)
		i = end
	}
	f.r.charge(b.Len())
	return b.String()
}

// field formats name!conversion:spec.
func (f *formatter) field(field string, depth int) string {
	name, format := field, ""
	conversion := byte(0)
	if i := strings.IndexAny(field, "!:"); i >= 0 {
		name = field[:i]
		rest := field[i:]
		if rest[0] == '!' {
			if len(rest) < 2 || len(rest) > 2 && rest[2] != ':' {
				fail("ValueError", "expected ':' after conversion specifier")
			}
			conversion, rest = rest[1], rest[2:]
		}
		format = strings.TrimPrefix(rest, ":")
	}
	v := f.lookup(name)
	format = f.run(format, depth-1)
	switch conversion {
	case 0:
	case 's':
		v = f.r.str(v)
	case 'r':
		v = f.r.repr(v)
	case 'a':
		v = asciiOnly(f.r.repr(v))
	default:
		fail("ValueError", "Unknown conversion specifier %c", conversion)
	}
	if !f.safe {
		return f.r.formatValue(v, format)
	}
	if m, ok := v.(Markup); ok {
		if format != "" {
			fail("ValueError", "Unsupported format specification for Markup.")
		}
		return string(m)
	}
	return string(f.r.escape(f.r.formatValue(v, format)))
}

// lookup finds a field: a number or name, then .attr and [item] parts.
func (f *formatter) lookup(name string) Value {
	i := strings.IndexAny(name, ".[")
	if i < 0 {
		i = len(name)
	}
	v := f.first(name[:i])
	for rest := name[i:]; rest != ""; {
		if rest[0] == '.' {
			rest = rest[1:]
			j := strings.IndexAny(rest, ".[")
			if j < 0 {
				j = len(rest)
			}
			v = f.r.getAttr(v, rest[:j])
			rest = rest[j:]
			continue
		}
		j := strings.IndexByte(rest, ']')
		if rest[0] != '[' || j < 2 {
			fail("ValueError", "Missing ']' in format string")
		}
		key := Value(rest[1:j])
		if n, err := strconv.Atoi(rest[1:j]); err == nil {
			key = n
		}
		v = f.r.getItem(v, key)
		rest = rest[j+1:]
	}
	return v
}

func (f *formatter) first(name string) Value {
	n, err := strconv.Atoi(name)
	switch {
	case name == "":
		if f.auto < 0 {
			fail("ValueError", "cannot switch from manual field specification to automatic field numbering")
		}
		n = f.auto
		f.auto++
	case err == nil && n >= 0:
		if f.auto > 0 {
			fail("ValueError", "cannot switch from manual field specification to automatic field numbering")
		}
		f.auto = -1
	default:
		for _, a := range f.args.named {
			if a.name == name {
				return a.value
			}
		}
		fail("KeyError", "%s", quote(name))
	}
	if n >= len(f.args.plain) {
		fail("IndexError", "Replacement index %d out of range for positional args tuple", n)
	}
	return f.args.plain[n]
}

// parseSpec reads [[fill]align][sign][#][0][width][grouping][.precision][type].
func parseSpec(s string) spec {
	whole := s
	f := spec{precision: -1}
	if c, n := utf8.DecodeRuneInString(s); n > 0 && n < len(s) && strings.IndexByte("<>^=", s[n]) >= 0 {
		f.fill, f.align, s = string(c), s[n], s[n+1:]
	} else if s != "" && strings.IndexByte("<>^=", s[0]) >= 0 {
		f.align, s = s[0], s[1:]
	}
	if s != "" && strings.IndexByte("+- ", s[0]) >= 0 {
		f.sign, s = s[0], s[1:]
	}
	if strings.HasPrefix(s, "#") {
		f.alternate, s = true, s[1:]
	}
	if strings.HasPrefix(s, "0") && f.fill == "" {
		f.fill = "0"
		if f.align == 0 {
			f.align = '='
		}
		s = s[1:]
	}
	n, i := readInt(s, 0)
	f.width, s = n, s[i:]
	if s != "" && (s[0] == ',' || s[0] == '_') {
		f.grouping, s = s[0], s[1:]
	}
	if strings.HasPrefix(s, ".") {
		n, i := readInt(s, 1)
		if i == 1 {
			fail("ValueError", "Format specifier missing precision")
		}
		f.precision, s = n, s[i:]
	}
	checkWidth(f)
	if len(s) > 1 {
		fail("ValueError", "Invalid format specifier %s", quote(whole))
	}
	if s != "" {
		f.kind = s[0]
	}
	return f
}

// formatValue is Python's format(v, spec).
func (r *renderer) formatValue(v Value, format string) string {
	if format == "" {
		return r.str(v)
	}
	unknown := func(f spec) {
		fail("ValueError", "Unknown format code %s for object of type '%s'", quote(string(rune(f.kind))), typeName(v))
	}
	if s, ok := asString(v); ok {
		f := parseSpec(format)
		if f.kind != 0 && f.kind != 's' {
			unknown(f)
		}
		if f.sign != 0 || f.alternate || f.grouping != 0 {
			fail("ValueError", "Sign, '#' and grouping are not allowed in string format specifier")
		}
		if f.align == '=' {
			if f.fill != "0" || format[0] == '=' || len(format) > 1 && format[1] == '=' {
				fail("ValueError", "'=' alignment not allowed in string format specifier")
			}
			f.align = '<'
		}
		if f.precision >= 0 {
			s = firstRunes(s, f.precision)
		}
		return f.pad(r, "", s, '<')
	}
	n := number(v)
	if n == nil {
		failType("unsupported format string passed to %s.__format__", typeName(v))
	}
	f := parseSpec(format)
	if x, ok := n.(float64); ok {
		if f.kind != 0 && strings.IndexByte("eEfFgGn%", f.kind) < 0 {
			unknown(f)
		}
		return f.float(r, x)
	}
	switch {
	case f.kind == 'c':
		return f.pad(r, "", codePoint(toBig(n)), '<')
	case f.kind == 0 || strings.IndexByte("bdoxXn", f.kind) >= 0:
		if f.precision >= 0 {
			fail("ValueError", "Precision not allowed in integer format specifier")
		}
		return f.integer(r, toBig(n))
	case strings.IndexByte("eEfFgG%", f.kind) >= 0:
		return f.float(r, toFloat(n))
	}
	unknown(f)
	return ""
}
