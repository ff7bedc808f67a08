package jinja

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

func init() {
	// soft keeps Markup and turns anything else into text.
	soft := func(f func(r *renderer, s string) string) func(*renderer, []Value) Value {
		return func(r *renderer, a []Value) Value {
			s := r.str(a[0])
			r.charge(len(s))
			return like(a[0], f(r, s))
		}
	}
	plain := func(f func(string) string) func(*renderer, string) string {
		return func(_ *renderer, s string) string { return f(s) }
	}
	addFilters(map[string]func(r *renderer, a []Value) Value{
		"upper s":      soft(plain(upper)),
		"lower s":      soft(plain(lower)),
		"capitalize s": soft(plain(capitalize)),
		"title s":      func(r *renderer, a []Value) Value { return titleWords(r.str(a[0])) },
		"trim value chars?": func(r *renderer, a []Value) Value {
			return like(a[0], r.strip(r.str(a[0]), or(a[1], nil), true, true))
		},
		"center value width?": func(r *renderer, a []Value) Value {
			return stringMethods["center"].call(r, &arguments{plain: []Value{textOf(r, a[0]), or(a[1], 80)}})
		},
		"replace s old new count?":                   replaceFilter,
		"indent s width? first? blank?":              indentFilter,
		"truncate s length? killwords? end? leeway?": truncateFilter,
		"wordcount s": func(r *renderer, a []Value) Value {
			n, in := 0, false
			for _, c := range r.str(a[0]) {
				word := c == '_' || isAlnum(c)
				if word && !in {
					n++
				}
				in = word
			}
			return n
		},
		"wordwrap s width? break_long_words? wrapstring? break_on_hyphens?": wordWrap,
		"striptags value":      func(r *renderer, a []Value) Value { return stripTags(r.str(a[0])) },
		"urlencode value":      urlEncode,
		"xmlattr d autospace?": xmlAttr,
		"urlize value trim_url_limit? nofollow? target? rel? extra_schemes?": urlize,
	})
}

// textOf keeps strings and turns anything else into one.
func textOf(r *renderer, v Value) Value {
	if isString(v) {
		return v
	}
	return r.str(v)
}

// mustText is the text of a string; other values fail as they do in Python where a string method is called on them.
func (r *renderer) mustText(v Value) string {
	s, ok := asString(v)
	if !ok {
		r.refuseUndefined(v)
		fail("AttributeError", "'%s' object has no such string method", typeName(v))
	}
	return s
}

// titleWords is the filter: a word begins after white space, a hyphen or an opening bracket.
func titleWords(s string) string {
	begins := func(c rune) bool { return isSpace(c) || strings.ContainsRune("-({[<", c) }
	var b strings.Builder
	for s != "" {
		split := begins(firstRune(s))
		n := strings.IndexFunc(s, func(c rune) bool { return begins(c) != split })
		if n < 0 {
			n = len(s)
		}
		_, k := utf8.DecodeRuneInString(s)
		b.WriteString(upper(s[:k]) + lower(s[k:n]))
		s = s[n:]
	}
	return b.String()
}

func firstRune(s string) rune {
	c, _ := utf8.DecodeRuneInString(s)
	return c
}

func replaceFilter(r *renderer, a []Value) Value {
	n := -1
	if c := or(a[3], nil); c != nil {
		n = toInt(c)
	}
	if !r.escaping {
		return r.replace(r.str(a[0]), r.str(a[1]), r.str(a[2]), n)
	}
	s := textOf(r, a[0])
	_, oldSafe := a[1].(Markup)
	_, newSafe := a[2].(Markup)
	if _, safe := s.(Markup); oldSafe || newSafe && !safe {
		s = r.escape(s)
	}
	with := textOf(r, a[2])
	if _, safe := s.(Markup); safe {
		with = r.escape(with)
	}
	return like(s, r.replace(r.str(s), r.str(a[1]), r.str(with), n))
}

func indentFilter(r *renderer, a []Value) Value {
	r.refuseUndefined(a[0])
	self, ok := asString(a[0])
	if !ok {
		if _, isList := a[0].(List); isList {
			fail("AttributeError", "'list' object has no attribute 'splitlines'")
		}
		failType("unsupported operand type(s) for +=: '%s' and 'str'", typeName(a[0]))
	}
	indent, isText := asString(or(a[1], 4))
	if !isText {
		n := max(toInt(or(a[1], 4)), 0)
		r.fill(n, " ")
		indent = strings.Repeat(" ", n)
	}
	first, blank := r.truth(or(a[2], false)), r.truth(or(a[3], false))
	if _, safe := a[0].(Markup); safe {
		indent = string(r.escape(indent))
	}
	lines := splitLines(self+"\n", false)
	r.charge(len(self))
	if len(indent) > 0 && len(lines) > r.limits.Bytes/len(indent) {
		r.charge(r.limits.Bytes + 1)
	}
	r.charge(len(lines) * len(indent))
	for i, line := range lines {
		if i > 0 && (blank || line != "") || i == 0 && first {
			lines[i] = indent + line
		}
	}
	return like(a[0], strings.Join(lines, "\n"))
}

func truncateFilter(r *renderer, a []Value) Value {
	length, end := toInt(or(a[1], 255)), r.mustText(or(a[3], "..."))
	leeway := 5
	if v := or(a[4], nil); v != nil {
		leeway = toInt(v)
	}
	if length < runeCount(end) {
		fail("AssertionError", "expected length >= %d, got %d", runeCount(end), length)
	}
	if leeway < 0 {
		fail("AssertionError", "expected leeway >= 0, got %d", leeway)
	}
	n, ok := r.length(a[0])
	if !ok {
		failType("object of type '%s' has no len()", typeName(a[0]))
	}
	if n <= length+leeway {
		return a[0]
	}
	s := firstRunes(r.mustText(a[0]), length-runeCount(end))
	if !r.truth(or(a[2], false)) {
		if i := strings.LastIndexByte(s, ' '); i >= 0 {
			s = s[:i]
		}
	}
	return r.operate("+", like(a[0], s), or(a[3], "..."))
}

// wordWrap wraps each line at white space, and long words where they must be.
func wordWrap(r *renderer, a []Value) Value {
	width := toInt(or(a[1], 79))
	breakLong, hyphens := r.truth(or(a[2], true)), r.truth(or(a[4], true))
	with := "\n"
	if v := or(a[3], nil); v != nil {
		with = r.mustText(v)
	}
	if width <= 0 {
		fail("ValueError", "invalid width %d (must be > 0)", width)
	}
	s := r.mustText(a[0])
	r.charge(2 * len(s))
	var out []string
	for _, line := range splitLines(s, false) {
		out = append(out, r.joinTexts(wrap(line, width, breakLong, hyphens), with))
	}
	return r.joinTexts(out, with)
}

// wrap is textwrap.wrap on one line.
func wrap(line string, width int, breakLong, hyphens bool) []string {
	chunks := wrapChunks(line, hyphens)
	var lines []string
	for len(chunks) > 0 {
		if len(lines) > 0 && blank(chunks[0]) {
			chunks = chunks[1:]
		}
		var row [][]rune
		used := 0
		for len(chunks) > 0 && used+len(chunks[0]) <= width {
			used += len(chunks[0])
			row = append(row, chunks[0])
			chunks = chunks[1:]
		}
		if len(chunks) > 0 && len(chunks[0]) > width {
			if breakLong {
				n := breakAt(chunks[0][:width-used], hyphens)
				row = append(row, chunks[0][:n])
				chunks[0] = chunks[0][n:]
			} else if len(row) == 0 {
				row = append(row, chunks[0])
				chunks = chunks[1:]
			}
		}
		if len(row) > 0 && blank(row[len(row)-1]) {
			row = row[:len(row)-1]
		}
		if len(row) > 0 {
			lines = append(lines, string(slices.Concat(row...)))
		}
	}
	return lines
}

// breakAt returns where a word that fills the line is broken: after its last hyphen, if that leaves more than hyphens.
func breakAt(head []rune, hyphens bool) int {
	for i := len(head) - 1; hyphens && i > 0; i-- {
		if head[i] == '-' {
			if slices.ContainsFunc(head[:i], func(c rune) bool { return c != '-' }) {
				return i + 1
			}
			break
		}
	}
	return len(head)
}

func blank(s []rune) bool {
	return !slices.ContainsFunc(s, func(c rune) bool { return !isASCIISpace(c) })
}

func isASCIISpace(c rune) bool { return strings.ContainsRune("\t\n\v\f\r ", c) }

// wrapChunks splits a line into white space and words; a word also splits after a hyphen between letters.
func wrapChunks(line string, hyphens bool) [][]rune {
	var chunks [][]rune
	start := 0
	text := []rune(line)
	letter := func(i int) bool { return unicode.IsLetter(text[i]) || text[i] == '_' }
	for i := 1; i < len(text); i++ {
		turn := isASCIISpace(text[i-1]) != isASCIISpace(text[i])
		hyphen := hyphens && text[i-1] == '-' && i >= start+3 && i+1 < len(text) &&
			letter(i-2) && letter(i-3) && letter(i) && letter(i+1)
		if turn || hyphen {
			chunks = append(chunks, text[start:i])
			start = i
		}
	}
	if start < len(text) {
		chunks = append(chunks, text[start:])
	}
	return chunks
}

func stripTags(s string) string {
	s = cutBetween(s, "<!--", "-->")
	s = cutBetween(s, "<", ">")
	return unescapeHTML(strings.Join(splitSpace(s, -1, false), " "))
}

// cutBetween removes what stands between open and end, both included.
func cutBetween(s, open, end string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, open)
		if i < 0 {
			break
		}
		j := strings.Index(s[i:], end)
		if j < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i+j+len(end):]
	}
	return b.String() + s
}

func unescapeHTML(s string) string { return html.UnescapeString(s) }

func urlEncode(r *renderer, a []Value) Value {
	quoteQuery := func(v Value) string { return url.QueryEscape(r.str(v)) }
	if _, ok := asString(a[0]); ok || r.tryIter(a[0]) == nil {
		s := r.str(a[0])
		r.charge(3 * len(s))
		parts := strings.Split(s, "/")
		for i, p := range parts {
			parts[i] = strings.ReplaceAll(url.QueryEscape(p), "+", "%20")
		}
		return strings.Join(parts, "/")
	}
	pairs := a[0]
	if d, ok := pairs.(*Dict); ok {
		pairs = &view{"dict_items", d}
	}
	var out []string
	for _, p := range r.collect(pairs) {
		kv := r.collect(p)
		if len(kv) != 2 {
			fail("ValueError", "expected pairs to encode, got %d values", len(kv))
		}
		out = append(out, quoteQuery(kv[0])+"="+quoteQuery(kv[1]))
	}
	return r.joinTexts(out, "&")
}

func xmlAttr(r *renderer, a []Value) Value {
	r.refuseUndefined(a[0])
	d, ok := a[0].(*Dict)
	if !ok {
		fail("AttributeError", "'%s' object has no attribute 'items'", typeName(a[0]))
	}
	var out []string
	for i, k := range d.keys {
		v := d.values[i]
		if _, undefined := v.(*Undefined); undefined || v == nil {
			continue
		}
		key, ok := asString(k)
		if !ok {
			failType("expected string or bytes-like object, got '%s'", typeName(k))
		}
		if strings.ContainsAny(key, " \t\n\r\f\v/>=") {
			fail("ValueError", "Invalid character in attribute name: %s", quote(key))
		}
		out = append(out, fmt.Sprintf(`%s="%s"`, r.escape(k), r.escape(v)))
	}
	text := r.joinTexts(out, " ")
	if text != "" && r.truth(or(a[1], true)) {
		text = " " + text
	}
	return r.markup(text)
}

var (
	// The forms of addresses that urlize makes into links.
	urlPattern  = regexp.MustCompile(`(?i)^(?:(?:https?://|www\.)(?:(?:[\w%-]+\.)+)?(?:[a-z]{2,63}|xn--[\w%]{2,59})|(?:[\w%-]{2,63}\.)+(?:com|net|int|edu|gov|org|info|mil)|https?://(?:(?:[\d]{1,3})(?:\.[\d]{1,3}){3}|\[(?:[\da-f]{0,4}:){2}(?:[\da-f]{0,4}:?){1,6}\]))(?::\d{1,5})?(?:[/?#]\S*)?$`)
	mailPattern = regexp.MustCompile(`^\S+@\w[\w.-]*\.\w+$`)
	linkHead    = regexp.MustCompile(`^(?:[(<]|&lt;)+`)
	linkTail    = regexp.MustCompile(`(?:[)>.,\n]|&gt;)+$`)
)

// urlize makes links of the addresses in a text.
func urlize(r *renderer, a []Value) Value {
	var rels []string
	if rel := or(a[4], nil); rel != nil {
		rels = strings.Fields(r.str(rel))
	}
	if r.truth(or(a[2], false)) {
		rels = append(rels, "nofollow")
	}
	rels = append(rels, "noopener")
	slices.Sort(rels)
	attributes := fmt.Sprintf(` rel="%s"`, r.escape(strings.Join(slices.Compact(rels), " ")))
	if t := or(a[3], nil); t != nil && r.truth(t) {
		attributes += fmt.Sprintf(` target="%s"`, r.escape(t))
	}
	shown := func(s string) string { return s }
	if limit := or(a[1], nil); limit != nil {
		n := toInt(limit)
		shown = func(s string) string {
			if runeCount(s) > n {
				return firstRunes(s, n) + "..."
			}
			return s
		}
	}
	var schemes []string
	if v := or(a[5], nil); v != nil {
		for _, s := range r.collect(v) {
			schemes = append(schemes, r.str(s))
		}
	}
	var b strings.Builder
	for text := string(r.escape(a[0])); text != ""; {
		n := strings.IndexFunc(text, isSpace)
		if n < 0 {
			n = len(text)
		}
		b.WriteString(linkWord(text[:n], attributes, shown, schemes))
		k := spaces(text[n:])
		b.WriteString(text[n : n+k])
		text = text[n+k:]
	}
	r.charge(b.Len())
	return r.markup(b.String())
}

func linkWord(word, attributes string, shown func(string) string, schemes []string) string {
	head := linkHead.FindString(word)
	middle := word[len(head):]
	tail := linkTail.FindString(middle)
	middle = middle[:len(middle)-len(tail)]
	for _, pair := range [][2]string{{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}} {
		opens := strings.Count(middle, pair[0])
		if opens <= strings.Count(middle, pair[1]) {
			continue
		}
		for range min(opens, strings.Count(tail, pair[1])) {
			end := strings.Index(tail, pair[1]) + len(pair[1])
			middle, tail = middle+tail[:end], tail[end:]
		}
	}
	link := func(href, attributes, text string) string {
		return `<a href="` + href + `"` + attributes + `>` + text + `</a>`
	}
	mail := strings.TrimPrefix(middle, "mailto:")
	switch {
	case urlPattern.MatchString(middle):
		href := middle
		if !strings.HasPrefix(middle, "https://") && !strings.HasPrefix(middle, "http://") {
			href = "https://" + middle
		}
		middle = link(href, attributes, shown(middle))
	case mail != middle && mailPattern.MatchString(mail):
		middle = link(middle, "", mail)
	case strings.Contains(middle, "@") && !strings.HasPrefix(middle, "www.") && !strings.HasPrefix(middle, "@") &&
		!strings.Contains(middle, ":") && mailPattern.MatchString(middle):
		middle = link("mailto:"+middle, "", middle)
	default:
		for _, s := range schemes {
			if middle != s && strings.HasPrefix(middle, s) {
				middle = link(middle, attributes, middle)
			}
		}
	}
	return head + middle + tail
}
