package jinja

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

func sorted(s string) []rune {
	r := []rune(s)
	slices.Sort(r)
	return r
}

// textArg returns a string argument or fails in Python's words.
func textArg(v Value) string {
	s, ok := asString(v)
	if !ok {
		failType("must be str, not %s", typeName(v))
	}
	return s
}

// stringMethods are those of str. On Markup most give Markup back; markupMethods holds what it does otherwise.
var stringMethods, markupMethods map[string]*method

func init() {
	same := func(f func(string) string) func(*renderer, []Value) Value {
		return func(r *renderer, a []Value) Value {
			s, _ := asString(a[0])
			r.charge(len(s))
			return like(a[0], f(s))
		}
	}
	test := func(f func(string) bool) func(*renderer, []Value) Value {
		return func(r *renderer, a []Value) Value {
			s, _ := asString(a[0])
			r.scan(s)
			return f(s)
		}
	}
	stringMethods = methods(map[string]func(r *renderer, a []Value) Value{
		"lower":      same(lower),
		"upper":      same(upper),
		"title":      same(title),
		"capitalize": same(capitalize),
		"casefold":   same(casefold),
		"swapcase":   same(swapcase),

		"isalnum":      test(func(s string) bool { return all(s, isAlnum) }),
		"isalpha":      test(func(s string) bool { return all(s, unicode.IsLetter) }),
		"isascii":      test(isASCII),
		"isdecimal":    test(func(s string) bool { return all(s, isDecimal) }),
		"isdigit":      test(func(s string) bool { return all(s, isDigitRune) }),
		"isnumeric":    test(func(s string) bool { return all(s, isNumeric) }),
		"isidentifier": test(isIdentifier),
		"islower":      test(func(s string) bool { return allCased(s, isLower) }),
		"isupper":      test(func(s string) bool { return allCased(s, isUpper) }),
		"istitle":      test(isTitle),
		"isspace":      test(func(s string) bool { return all(s, isSpace) }),
		"isprintable":  test(func(s string) bool { return s == "" || all(s, printable) }),

		"strip chars?":  strip(true, true),
		"lstrip chars?": strip(true, false),
		"rstrip chars?": strip(false, true),
		"removeprefix prefix": func(r *renderer, a []Value) Value {
			return like(a[0], strings.TrimPrefix(r.str(a[0]), textArg(a[1])))
		},
		"removesuffix suffix": func(r *renderer, a []Value) Value {
			return like(a[0], strings.TrimSuffix(r.str(a[0]), textArg(a[1])))
		},
		"startswith prefix start? end?": affix(strings.HasPrefix),
		"endswith suffix start? end?":   affix(strings.HasSuffix),

		"split sep? maxsplit?":  split(false),
		"rsplit sep? maxsplit?": split(true),
		"splitlines keepends?": func(r *renderer, a []Value) Value {
			lines := splitLines(r.str(a[0]), toInt(or(a[1], 0)) != 0)
			return r.texts(a[0], lines)
		},
		"partition sep":  partition(false),
		"rpartition sep": partition(true),
		"join iterable":  joinMethod,
		"replace old new count?": func(r *renderer, a []Value) Value {
			s, old, with := r.str(a[0]), textArg(a[1]), a[2]
			if _, safe := a[0].(Markup); safe {
				with = r.escape(with)
			}
			return like(a[0], r.replace(s, old, textArg(with), toInt(or(a[3], -1))))
		},

		"find sub start? end?":   find(false, false),
		"rfind sub start? end?":  find(true, false),
		"index sub start? end?":  find(false, true),
		"rindex sub start? end?": find(true, true),
		"count sub start? end?": func(r *renderer, a []Value) Value {
			s, ok := r.part(r.str(a[0]), a[2], a[3])
			if !ok {
				return 0
			}
			return strings.Count(s, textArg(a[1]))
		},

		"center width fillchar?": pad(func(n int) int { return -1 }),
		"ljust width fillchar?":  pad(func(int) int { return 0 }),
		"rjust width fillchar?":  pad(func(n int) int { return n }),
		"zfill width":            zfill,
		"expandtabs tabsize?":    expandTabs,

		"encode encoding? errors?": func(r *renderer, a []Value) Value { return bytesValue(r.str(a[0])) },
		"format_map mapping": func(r *renderer, a []Value) Value {
			d, ok := a[1].(*Dict)
			if !ok {
				failType("format_map() needs a dict, not '%s'", typeName(a[1]))
			}
			args := &arguments{}
			for i, k := range d.keys {
				args.named = append(args.named, named{r.str(k), d.values[i]})
			}
			return r.format(a[0], args)
		},
		"translate table": translate,
	})
	stringMethods["format"] = &method{free("format", func(r *renderer, a *arguments) Value {
		return r.format(a.plain[0], &arguments{plain: a.plain[1:], named: a.named})
	})}
	markupMethods = methods(map[string]func(r *renderer, a []Value) Value{
		"unescape":  func(r *renderer, a []Value) Value { return unescapeHTML(r.str(a[0])) },
		"striptags": func(r *renderer, a []Value) Value { return stripTags(r.str(a[0])) },
	})
}

// texts makes a list of strings of the type of v.
func (r *renderer) texts(v Value, parts []string) Value {
	r.chargeItems(len(parts))
	out := make(List, len(parts))
	for i, p := range parts {
		out[i] = like(v, p)
	}
	return out
}

func strip(left, right bool) func(*renderer, []Value) Value {
	return func(r *renderer, a []Value) Value {
		return like(a[0], r.strip(r.str(a[0]), or(a[1], nil), left, right))
	}
}

// strip trims white space, or the characters of chars.
func (r *renderer) strip(s string, chars Value, left, right bool) string {
	in := isSpace
	if chars != nil {
		set, ok := asString(chars)
		if !ok {
			failType("strip arg must be None or str")
		}
		r.step(len(set) * (1 + len(s)>>6) >> 4)
		in = func(c rune) bool { return strings.ContainsRune(set, c) }
	}
	if left {
		s = strings.TrimLeftFunc(s, in)
	}
	if right {
		s = strings.TrimRightFunc(s, in)
	}
	return s
}

// part is s[start:end] for the methods that take such bounds; false if start is beyond the end.
func (r *renderer) part(s string, start, end Value) (string, bool) {
	if !given(start) {
		return s, true
	}
	n := runeCount(s)
	if i, ok := number(start).(int); ok && i > n {
		return "", false
	}
	return r.str(r.slice(s, start, or(end, nil), nil)), true
}

func affix(has func(s, part string) bool) func(*renderer, []Value) Value {
	return func(r *renderer, a []Value) Value {
		s, ok := r.part(r.str(a[0]), a[2], a[3])
		options := []Value{a[1]}
		if t, isTuple := a[1].(Tuple); isTuple {
			options = t
		}
		for _, o := range options {
			part, isText := asString(o)
			if !isText {
				failType("startswith first arg must be str or a tuple of str, not %s", typeName(o))
			}
			if ok && has(s, part) {
				return true
			}
		}
		return false
	}
}

func find(last, must bool) func(*renderer, []Value) Value {
	return func(r *renderer, a []Value) Value {
		whole := r.str(a[0])
		r.scan(whole)
		s, ok := r.part(whole, a[2], a[3])
		i := -1
		if ok {
			if last {
				i = strings.LastIndex(s, textArg(a[1]))
			} else {
				i = strings.Index(s, textArg(a[1]))
			}
		}
		if i < 0 {
			if must {
				fail("ValueError", "substring not found")
			}
			return -1
		}
		before := 0
		if given(a[2]) {
			before, _, _ = sliceBounds(runeCount(whole), a[2], or(a[3], nil), nil)
		}
		return before + runeCount(s[:i])
	}
}

func split(right bool) func(*renderer, []Value) Value {
	return func(r *renderer, a []Value) Value {
		s := r.str(a[0])
		r.scan(s)
		n := toInt(or(a[2], -1))
		sep := or(a[1], nil)
		if sep == nil {
			return r.texts(a[0], splitSpace(s, n, right))
		}
		by := textArg(sep)
		if by == "" {
			fail("ValueError", "empty separator")
		}
		r.chargeItems(strings.Count(s, by))
		if n < 0 {
			return r.texts(a[0], strings.Split(s, by))
		}
		if !right {
			return r.texts(a[0], strings.SplitN(s, by, min(n, len(s)+1)+1))
		}
		var parts []string
		for ; n > 0; n-- {
			i := strings.LastIndex(s, by)
			if i < 0 {
				break
			}
			parts = append(parts, s[i+len(by):])
			s = s[:i]
		}
		parts = append(parts, s)
		slices.Reverse(parts)
		return r.texts(a[0], parts)
	}
}

// splitSpace splits at runs of white space, at most n times if n is not negative.
func splitSpace(s string, n int, right bool) []string {
	var parts []string
	if right {
		for s = strings.TrimRightFunc(s, isSpace); s != ""; n-- {
			i := strings.LastIndexFunc(s, isSpace)
			if n == 0 || i < 0 {
				parts = append(parts, s)
				break
			}
			_, w := utf8.DecodeRuneInString(s[i:])
			parts = append(parts, s[i+w:])
			s = strings.TrimRightFunc(s[:i], isSpace)
		}
		slices.Reverse(parts)
		return parts
	}
	for s = strings.TrimLeftFunc(s, isSpace); s != ""; n-- {
		i := strings.IndexFunc(s, isSpace)
		if n == 0 || i < 0 {
			return append(parts, s)
		}
		parts = append(parts, s[:i])
		s = strings.TrimLeftFunc(s[i:], isSpace)
	}
	return parts
}

// splitLines splits at every line boundary that Python knows.
func splitLines(s string, keep bool) []string {
	var lines []string
	start := 0
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if !strings.ContainsRune("\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029", c) || c == utf8.RuneError {
			i += n
			continue
		}
		end := i
		i += n
		if c == '\r' && i < len(s) && s[i] == '\n' {
			i++
		}
		if keep {
			end = i
		}
		lines = append(lines, s[start:end])
		start = i
	}
	if start < len(s) {
		lines = append(lines, s[start:])
	}
	return lines
}

func partition(last bool) func(*renderer, []Value) Value {
	return func(r *renderer, a []Value) Value {
		s, sep := r.str(a[0]), textArg(a[1])
		if sep == "" {
			fail("ValueError", "empty separator")
		}
		r.scan(s)
		parts := [3]string{s, "", ""}
		i := strings.Index(s, sep)
		if last {
			i = strings.LastIndex(s, sep)
			parts = [3]string{"", "", s}
		}
		if i >= 0 {
			parts = [3]string{s[:i], sep, s[i+len(sep):]}
		}
		return Tuple{like(a[0], parts[0]), like(a[0], parts[1]), like(a[0], parts[2])}
	}
}

func joinMethod(r *renderer, a []Value) Value {
	_, safe := a[0].(Markup)
	var parts []string
	for i, v := range r.collect(a[1]) {
		if safe {
			v = r.escape(v)
		}
		s, ok := asString(v)
		if !ok {
			failType("sequence item %d: expected str instance, %s found", i, typeName(v))
		}
		parts = append(parts, s)
	}
	return like(a[0], r.joinTexts(parts, r.str(a[0])))
}

func (r *renderer) joinTexts(parts []string, sep string) string {
	n := len(sep) * max(len(parts)-1, 0)
	for _, p := range parts {
		n += len(p)
	}
	r.charge(n)
	return strings.Join(parts, sep)
}

func (r *renderer) replace(s, old, with string, n int) string {
	r.scan(s)
	count := strings.Count(s, old)
	if n >= 0 && n < count {
		count = n
	}
	r.charge(len(s))
	if len(with) > 0 && count > r.limits.Bytes/len(with) {
		r.charge(r.limits.Bytes + 1)
	}
	r.charge(count * len(with))
	return strings.Replace(s, old, with, n)
}

// pad makes a method that fills up to a width; left gives how many of n fill characters go left, -1 to centre.
func pad(left func(n int) int) func(*renderer, []Value) Value {
	return func(r *renderer, a []Value) Value {
		s, fill := r.str(a[0]), textArg(or(a[2], " "))
		if runeCount(fill) != 1 {
			failType("The fill character must be exactly one character long")
		}
		if _, safe := a[0].(Markup); safe {
			fill = string(r.escape(fill))
		}
		width := toInt(a[1])
		n := width - runeCount(s)
		if n <= 0 {
			return a[0]
		}
		k := left(n)
		if k < 0 {
			k = n/2 + n&width&1
		}
		r.fill(n, fill)
		return like(a[0], strings.Repeat(fill, k)+s+strings.Repeat(fill, n-k))
	}
}

// fill accounts for n fill characters.
func (r *renderer) fill(n int, fill string) {
	if n > r.limits.Bytes {
		n = r.limits.Bytes + 1
	}
	r.charge(n * len(fill))
}

func zfill(r *renderer, a []Value) Value {
	s := r.str(a[0])
	n := toInt(a[1]) - runeCount(s)
	if n <= 0 {
		return a[0]
	}
	r.fill(n, "0")
	sign := signAt(s, 0)
	return like(a[0], sign+strings.Repeat("0", n)+s[len(sign):])
}

func expandTabs(r *renderer, a []Value) Value {
	size := toInt(or(a[1], 8))
	var b strings.Builder
	column := 0
	for _, c := range r.str(a[0]) {
		switch c {
		case '\t':
			n := 0
			if size > 0 {
				n = size - column%size
			}
			r.fill(n, " ")
			b.WriteString(strings.Repeat(" ", n))
			column += n
			continue
		case '\n', '\r':
			column = -1
		}
		b.WriteRune(c)
		column++
	}
	r.charge(b.Len())
	return like(a[0], b.String())
}

// translate maps characters by a dict from code points to code points, strings or None.
func translate(r *renderer, a []Value) Value {
	d, ok := a[1].(*Dict)
	if !ok {
		failType("'%s' object is not subscriptable", typeName(a[1]))
	}
	var b strings.Builder
	for _, c := range r.str(a[0]) {
		v, ok := r.find(d, int(c))
		if !ok {
			b.WriteRune(c)
			continue
		}
		switch v := v.(type) {
		case nil:
		case int:
			b.WriteRune(rune(v))
		default:
			s := textArg(v)
			r.charge(len(s))
			b.WriteString(s)
		}
	}
	r.charge(b.Len())
	return like(a[0], b.String())
}
