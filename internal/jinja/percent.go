package jinja

import (
	"strings"
)

// percent is s % arg.
func (r *renderer) percent(self Value, s string, arg Value) Value {
	_, safe := self.(Markup)
	args := []Value{arg}
	one := true
	if t, ok := arg.(Tuple); ok {
		args, one = t, false
	}
	used := 0
	next := func() Value {
		if used >= len(args) {
			failType("not enough arguments for format string")
		}
		used++
		return args[used-1]
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '%' {
			j := strings.IndexByte(s[i:], '%')
			if j < 0 {
				j = len(s) - i
			}
			b.WriteString(s[i : i+j])
			i += j
			continue
		}
		if strings.HasPrefix(s[i:], "%%") {
			b.WriteByte('%')
			i += 2
			continue
		}
		f, key, end := percentSpec(s, i+1, next)
		i = end
		var v Value
		if key != "" {
			r.refuseUndefined(arg)
			d, ok := arg.(*Dict)
			if !ok {
				failType("format requires a mapping")
			}
			if v, ok = r.find(d, key[1:]); !ok {
				fail("KeyError", "%s", quote(key[1:]))
			}
		} else {
			v = next()
		}
		text := r.percentValue(f, v, safe)
		r.charge(len(text))
		b.WriteString(text)
	}
	_, isDict := arg.(*Dict)
	_, isList := arg.(List)
	_, isUndefined := arg.(*Undefined)
	if used < len(args) && (!one || !isDict && !isList && !isUndefined) {
		failType("not all arguments converted during string formatting")
	}
	r.charge(b.Len())
	return like(self, b.String())
}

// percentSpec reads a conversion after its %. The key keeps its opening parenthesis, so that an empty one is seen.
func percentSpec(s string, i int, next func() Value) (f spec, key string, end int) {
	f.precision = -1
	if i < len(s) && s[i] == '(' {
		depth := 0
		j := i
		for ; j < len(s); j++ {
			if s[j] == '(' {
				depth++
			} else if s[j] == ')' {
				if depth--; depth == 0 {
					break
				}
			}
		}
		if j >= len(s) {
			fail("ValueError", "incomplete format key")
		}
		key, i = s[i:j], j+1
	}
	for ; i < len(s) && strings.IndexByte("#0- +", s[i]) >= 0; i++ {
		switch s[i] {
		case '#':
			f.alternate = true
		case '0':
			f.fill = "0"
		case '-':
			f.align = '<'
		case '+':
			f.sign = '+'
		case ' ':
			if f.sign == 0 {
				f.sign = ' '
			}
		}
	}
	star := func() (int, bool) {
		if i < len(s) && s[i] == '*' {
			i++
			n, ok := number(next()).(int)
			if !ok {
				failType("* wants int")
			}
			return n, true
		}
		n, j := readInt(s, i)
		ok := j > i
		i = j
		return n, ok
	}
	if n, ok := star(); ok {
		f.width = n
		if n < 0 {
			f.width, f.align = -n, '<'
		}
	}
	if i < len(s) && s[i] == '.' {
		i++
		f.precision, _ = star()
		f.precision = max(f.precision, 0)
	}
	checkWidth(f)
	for i < len(s) && strings.IndexByte("hlL", s[i]) >= 0 {
		i++
	}
	if i >= len(s) {
		fail("ValueError", "incomplete format")
	}
	f.kind = s[i]
	if f.align == '<' {
		f.fill = ""
	}
	return f, key, i + 1
}

func (r *renderer) percentValue(f spec, v Value, safe bool) string {
	var text string
	switch f.kind {
	case 's', 'r', 'a':
		if text = r.str(v); f.kind != 's' {
			text = r.repr(v)
		}
		if f.kind == 'a' {
			text = asciiOnly(text)
		}
		if safe {
			if _, already := v.(Markup); !already || f.kind != 's' {
				text = string(r.escape(text))
			}
		}
	case 'c':
		if n := toBig(number(v)); n != nil {
			text = codePoint(n)
		} else if s, ok := asString(v); ok && runeCount(s) == 1 {
			text = s
		} else {
			failType("%%c requires int or char")
		}
	case 'd', 'i', 'u', 'o', 'x', 'X':
		n := number(v)
		if x, ok := n.(float64); ok && strings.IndexByte("diu", f.kind) >= 0 {
			n = truncate(x)
		}
		i := toBig(n)
		if i == nil {
			if strings.IndexByte("diu", f.kind) >= 0 {
				r.refuseUndefined(v)
				failType("%%%c format: a real number is required, not %s", f.kind, typeName(v))
			}
			failType("%%%c format: an integer is required, not %s", f.kind, typeName(v))
		}
		return f.zeroFilled().integer(r, i)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		n := number(v)
		if n == nil {
			r.refuseUndefined(v)
			failType("must be real number, not %s", typeName(v))
		}
		return f.zeroFilled().float(r, toFloat(n))
	default:
		fail("ValueError", "unsupported format character %s", quote(string(rune(f.kind))))
	}
	if f.precision >= 0 && f.kind != 'c' {
		text = firstRunes(text, f.precision)
	}
	f.fill = ""
	return f.pad(r, "", text, '>')
}

func (f spec) zeroFilled() spec {
	if f.fill == "0" && f.align == 0 {
		f.align = '='
	}
	return f
}
