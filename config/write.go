package config

import (
	"bufio"
	"encoding"
	"encoding/json"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Write writes a value as a file that loads to an equal value: every key, each under the comment of its doc.
func (s *Schema[T]) Write(w io.Writer, value *T) error {
	return s.write(w, value, false)
}

// Template writes a value as a file to start from: the keys that differ from the defaults stand as they are, all
// others commented out with their default. The keys of the choices, and those listed, always stand.
func (s *Schema[T]) Template(w io.Writer, value *T, listed ...string) error {
	return s.write(w, value, true, listed...)
}

func (s *Schema[T]) write(w io.Writer, value *T, template bool, listed ...string) error {
	p := printer{w: bufio.NewWriter(w), template: template, listed: listed}
	v := reflect.ValueOf(value).Elem()
	settle(s.root, v)
	p.fields("", "", s.root.fields, v, reflect.ValueOf(s.New()).Elem())
	return p.w.Flush()
}

// printer writes sections line by line. In a template a line that is off is commented out where its section stands.
type printer struct {
	w        *bufio.Writer
	template bool
	listed   []string
	off      bool // what is written is commented out
	offAt    int  // column of the comment sign
	dash     bool // the next key begins a list's entry
	silent   bool // without comments
}

func (p *printer) line(indent, text string) {
	if p.dash {
		p.dash = false
		indent = indent[:len(indent)-2] + "- "
	}
	if p.off {
		p.w.WriteString(indent[:p.offAt] + "#" + indent[p.offAt:] + text + "\n")
		return
	}
	p.w.WriteString(indent + text + "\n")
}

// with writes something commented out if off holds.
func (p *printer) with(off bool, indent string, write func()) {
	if off && !p.off {
		p.off, p.offAt = true, len(indent)
		defer func() { p.off = false }()
	}
	write()
}

func (p *printer) fields(path, indent string, fields []field, v, standard reflect.Value) {
	for i, fd := range fields {
		at := join(path, fd.name)
		value, usual := v.FieldByIndex(fd.index), standard.FieldByIndex(fd.index)
		if indent == "" && i > 0 {
			p.w.WriteString("\n")
		}
		p.comment(indent, fd)
		made := fd.form.shape == choice && fd.form.find(value.Interface().(Choice).Name) != nil
		off := p.template && !made && !p.dash && !fd.required && !p.lists(at) && inline(fd.form, value) == inline(fd.form, usual)
		p.with(off, indent, func() { p.field(at, indent, fd, value, usual) })
	}
}

// lists reports whether a path, or one below it, is to stand in the template.
func (p *printer) lists(path string) bool {
	return slices.ContainsFunc(p.listed, func(l string) bool { return l == path || strings.HasPrefix(l, path+".") })
}

func (p *printer) comment(indent string, fd field) {
	if p.silent {
		return
	}
	if p.dash { // the comment stands above the dash
		indent = indent[:len(indent)-2]
		defer func() { p.dash = true }()
		p.dash = false
	}
	text := fd.doc
	var notes []string
	if s := fd.rule.String(); s != "" {
		notes = append(notes, s)
	}
	if fd.form.shape == duration || fd.form.words != "" {
		notes = append(notes, fd.form.String())
	}
	if fd.example != "" {
		notes = append(notes, "for example "+fd.example)
	}
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, "; ") + ")"
	}
	p.prose(indent, text)
}

// variants lists what a choice may be, a line each.
func (p *printer) variants(indent string, fd field) {
	for _, v := range fd.form.variants {
		if !p.silent {
			p.prose(indent, v.Name+": "+v.Doc)
		}
	}
}

func (p *printer) prose(indent, text string) {
	for _, l := range wrap(text, 110-len(indent)) {
		p.line(indent, "# "+l)
	}
}

func (p *printer) field(path, indent string, fd field, v, usual reflect.Value) {
	f := fd.form
	inner := indent + "  "
	switch {
	case f.shape == choice:
		p.choice(path, indent, fd, v, usual)
	case f.shape == section:
		p.line(indent, fd.name+":")
		p.fields(path, inner, f.fields, v, usual)
	case f.shape == pointer && f.holds() == f.elem:
		p.optional(path, indent, fd, v, usual)
	case f.shape == sequence && f.elem.shape == section:
		p.list(path, indent, fd, v)
	default:
		p.line(indent, fd.name+": "+inline(f, v))
	}
}

func (p *printer) choice(path, indent string, fd field, v, usual reflect.Value) {
	c := v.Interface().(Choice)
	chosen := fd.form.find(c.Name)
	if chosen == nil {
		p.with(true, indent, func() {
			p.line(indent, fd.name+":")
			p.variants(indent+"  ", fd)
			p.line(indent+"  ", fd.form.key+": "+quote(fd.form.variants[0].Name))
		})
		return
	}
	p.line(indent, fd.name+":")
	p.variants(indent+"  ", fd)
	p.line(indent+"  ", fd.form.key+": "+quote(c.Name))
	standard := reflect.ValueOf(chosen.New()).Elem()
	settle(chosen.form, standard)
	if u := usual.Interface().(Choice); u.Name == c.Name {
		standard = reflect.ValueOf(u.Options).Elem()
	}
	p.fields(path, indent+"  ", chosen.form.fields, reflect.ValueOf(c.Options).Elem(), standard)
}

// optional writes a section that may be absent; then a template shows what it would hold.
func (p *printer) optional(path, indent string, fd field, v, usual reflect.Value) {
	standard := reflect.New(fd.form.elem.typ).Elem()
	defaults(fd.form.elem, standard)
	if !usual.IsNil() {
		standard = usual.Elem()
	}
	value := standard
	if !v.IsNil() {
		value = v.Elem()
	} else if !p.template {
		p.line(indent, fd.name+": null")
		return
	}
	p.line(indent, fd.name+":")
	p.fields(path, indent+"  ", fd.form.elem.fields, value, standard)
}

// list writes a list of sections; an empty one shows, in a template, what an entry would hold.
func (p *printer) list(path, indent string, fd field, v reflect.Value) {
	elem := fd.form.elem
	standard := reflect.New(elem.typ).Elem()
	defaults(elem, standard)
	var values []reflect.Value
	for i := range v.Len() {
		values = append(values, v.Index(i))
	}
	if len(values) == 0 {
		if !p.template {
			p.line(indent, fd.name+": []")
			return
		}
		values = append(values, standard)
	}
	silent := p.silent
	defer func() { p.silent = silent }()
	p.with(v.Len() == 0, indent, func() {
		p.line(indent, fd.name+":")
		for i, value := range values {
			p.dash = true
			p.fields(join(path, strconv.Itoa(i)), indent+"    ", elem.fields, value, standard)
			p.silent = true // the first entry explains the others
		}
	})
}

// inline writes a value on one line, in flow style.
func inline(f *form, v reflect.Value) string {
	switch f.shape {
	case boolean:
		return strconv.FormatBool(v.Bool())
	case integer:
		if v.CanUint() {
			return strconv.FormatUint(v.Uint(), 10)
		}
		return strconv.FormatInt(v.Int(), 10)
	case number:
		return float(v.Float(), f.typ.Bits())
	case text:
		return quote(v.String())
	case duration:
		return time.Duration(v.Int()).String()
	case custom:
		s := customText(v)
		if _, number := parseFloat(s); number {
			return s
		}
		return quote(s)
	case pointer:
		if v.IsNil() {
			return "null"
		}
		return inline(f.elem, v.Elem())
	case sequence:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = inline(f.elem, v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case dictionary, pairs:
		var parts []string
		entries(f, v, func(k string, e reflect.Value) { parts = append(parts, quote(k)+": "+inline(f.elem, e)) })
		return "{" + strings.Join(parts, ", ") + "}"
	case section:
		parts := make([]string, len(f.fields))
		for i, fd := range f.fields {
			parts[i] = fd.name + ": " + inline(fd.form, v.FieldByIndex(fd.index))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case choice:
		c := v.Interface().(Choice)
		chosen := f.find(c.Name)
		if chosen == nil {
			return "null"
		}
		options := inline(chosen.form, reflect.ValueOf(c.Options).Elem())
		return strings.Replace(options, "{", "{"+f.key+": "+quote(c.Name)+", ", 1)
	}
	return "null"
}

// customText is the text of a type that reads itself.
func customText(v reflect.Value) string {
	pointer := reflect.New(v.Type())
	pointer.Elem().Set(v)
	b, err := pointer.Interface().(encoding.TextMarshaler).MarshalText()
	if err != nil {
		return ""
	}
	return string(b)
}

// float writes a number with the fewest digits that give it back. With an exponent it has a point and a sign, without
// which YAML 1.1 readers take it for a text.
func float(x float64, bits int) string {
	digits, exponent, ok := strings.Cut(strconv.FormatFloat(x, 'g', -1, bits), "e")
	if !ok {
		return digits
	}
	if !strings.Contains(digits, ".") {
		digits += ".0"
	}
	return digits + "e" + exponent[:1] + strings.TrimPrefix(exponent[1:], "0")
}

var bare = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*$`)

// quote writes a text plainly where YAML reads it back as that text, else in double quotes.
func quote(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", ".nan", ".inf":
		return strconv.Quote(s)
	}
	if _, number := parseFloat(s); bare.MatchString(s) && !number && !based.MatchString(s) {
		return s
	}
	// The escapes of JSON are YAML's too.
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil || !utf8.ValidString(s) {
		return strconv.Quote(strings.ToValidUTF8(s, "\uFFFD"))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// wrap breaks a text into lines of at most width bytes where words allow.
func wrap(s string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(s) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(word) <= width {
			lines[n-1] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}
