package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// form is how values of a Go type are written in a file.
type form struct {
	shape    shape
	typ      reflect.Type
	fields   []field   // of a section
	elem     *form     // of a list, a dictionary, a pointer
	key      string    // of a choice
	variants []variant // of a choice
	words    string    // the form in words, of a type that reads itself
}

type shape int

const (
	boolean shape = iota
	integer
	number
	text
	duration
	custom // UnmarshalText
	section
	sequence
	dictionary // map[string]T
	pairs      // []struct{Key, Value}
	pointer
	choice
)

type variant struct {
	Variant
	form *form
}

// field is one key of a section.
type field struct {
	name     string
	doc      string
	example  string
	required bool
	index    []int
	rule     rule
	form     *form
}

// rule is what the tags ask of a scalar, or of each entry of a list.
type rule struct {
	min, max, above, below string // as written
	enum                   []string
}

var (
	unmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	marshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	choiceType  = reflect.TypeFor[Choice]()
)

// builder makes forms from types. It panics where a program's tags make no sense.
type builder struct {
	choices Choices
	open    []reflect.Type // sections being built, against types that hold themselves
}

func (b *builder) form(t reflect.Type, name, words string) *form {
	f := &form{typ: t, words: words}
	switch {
	case t == choiceType:
		f.shape = choice
	case reflect.PointerTo(t).Implements(unmarshaler):
		f.shape = custom
		if !reflect.PointerTo(t).Implements(marshaler) {
			panic(fmt.Sprintf("config: %s has UnmarshalText and no MarshalText", t))
		}
	case t == reflect.TypeFor[time.Duration]():
		f.shape = duration
	default:
		f.shape = b.kind(f, t, name, words)
	}
	return f
}

func (b *builder) kind(f *form, t reflect.Type, name, words string) shape {
	switch t.Kind() {
	case reflect.Bool:
		return boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return integer
	case reflect.Float32, reflect.Float64:
		return number
	case reflect.String:
		return text
	case reflect.Pointer:
		f.elem = b.form(t.Elem(), name, words)
		return pointer
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("config: %s: want a map with string keys", t))
		}
		f.elem = b.form(t.Elem(), name, words)
		return dictionary
	case reflect.Slice:
		if e := t.Elem(); isPair(e) {
			f.elem = b.form(e.Field(1).Type, name, words)
			return pairs
		}
		f.elem = b.form(t.Elem(), name, words)
		return sequence
	case reflect.Struct:
		if slices.Contains(b.open, t) {
			panic(fmt.Sprintf("config: %s holds itself", t))
		}
		b.open = append(b.open, t)
		f.fields = b.fields(t, nil)
		b.open = b.open[:len(b.open)-1]
		return section
	}
	panic(fmt.Sprintf("config: %s cannot stand in a file", t))
}

func isPair(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.NumField() == 2 && t.Field(0).Name == "Key" && t.Field(1).Name == "Value" &&
		t.Field(0).Type.Kind() == reflect.String
}

func (b *builder) fields(t reflect.Type, index []int) []field {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, tagged := sf.Tag.Lookup("yaml")
		at := append(slices.Clone(index), i)
		if sf.Anonymous && (!tagged || name == ",inline") && sf.Type.Kind() == reflect.Struct {
			out = append(out, b.fields(sf.Type, at)...)
			continue
		}
		if !tagged || name == "-" {
			continue
		}
		f := field{name: name, doc: sf.Tag.Get("doc"), example: sf.Tag.Get("example"), required: sf.Tag.Get("required") == "true", index: at}
		f.rule = rule{min: sf.Tag.Get("min"), max: sf.Tag.Get("max"), above: sf.Tag.Get("above"), below: sf.Tag.Get("below")}
		if e := sf.Tag.Get("enum"); e != "" {
			f.rule.enum = strings.Split(e, ",")
		}
		where := fmt.Sprintf("config: %s.%s", t, sf.Name)
		if !sf.IsExported() || name == "" || strings.ContainsAny(name, ",. \"'") || f.doc == "" {
			panic(where + ": want an exported field with a plain yaml name and a doc")
		}
		if slices.ContainsFunc(out, func(have field) bool { return have.name == name }) {
			panic(where + ": " + name + " is taken")
		}
		f.rule.verify(where)
		f.form = b.form(sf.Type, name, sf.Tag.Get("type"))
		if f.form.shape == choice {
			b.variants(&f, sf.Tag.Get("choice"), where)
		}
		out = append(out, f)
	}
	return out
}

func (b *builder) variants(f *field, key, where string) {
	f.form.key = key
	if key == "" {
		panic(where + ": want a choice tag with the key that picks the options")
	}
	for _, v := range b.choices[f.name] {
		t := reflect.TypeOf(v.New())
		if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
			panic(fmt.Sprintf("%s: %s: New returns %s, want a pointer to a struct", where, v.Name, t))
		}
		f.form.variants = append(f.form.variants, variant{v, b.form(t.Elem(), v.Name, "")})
	}
	if len(f.form.variants) == 0 {
		panic(where + ": has no variants")
	}
}

func (r rule) verify(where string) {
	for _, bound := range []string{r.min, r.max, r.above, r.below} {
		if _, err := strconv.ParseFloat(bound, 64); bound != "" && err != nil {
			panic(fmt.Sprintf("%s: %q is no bound", where, bound))
		}
	}
}

// breach returns what the rule wants instead of x, or "".
func (r rule) breach(x float64) string {
	for _, b := range []struct {
		bound, sign string
		ok          func(x, bound float64) bool
	}{
		{r.min, ">=", func(x, b float64) bool { return x >= b }},
		{r.above, ">", func(x, b float64) bool { return x > b }},
		{r.max, "<=", func(x, b float64) bool { return x <= b }},
		{r.below, "<", func(x, b float64) bool { return x < b }},
	} {
		if bound, err := strconv.ParseFloat(b.bound, 64); err == nil && !b.ok(x, bound) {
			return b.sign + " " + b.bound
		}
	}
	return ""
}

// String describes the rule: ">= 0, < 1".
func (r rule) String() string {
	var parts []string
	for _, p := range []struct{ sign, bound string }{{">=", r.min}, {">", r.above}, {"<=", r.max}, {"<", r.below}} {
		if p.bound != "" {
			parts = append(parts, p.sign+" "+p.bound)
		}
	}
	if len(r.enum) > 0 {
		parts = append(parts, "one of "+strings.Join(r.enum, ", "))
	}
	return strings.Join(parts, ", ")
}

// String names the form in words, for help and messages.
func (f *form) String() string {
	if f.words != "" {
		return f.words
	}
	switch f.shape {
	case boolean:
		return "true or false"
	case integer:
		return "integer"
	case number:
		return "number"
	case duration:
		return "duration such as 90s or 2h30m"
	case sequence:
		return "list of " + plural(f.elem)
	case dictionary, pairs:
		return "map of " + plural(f.elem)
	case pointer:
		return f.elem.String()
	case section:
		return "section"
	case choice:
		return "section with " + f.key
	}
	return "text"
}

func plural(f *form) string {
	switch s := f.String(); s {
	case "true or false", "text":
		return s
	default:
		return s + "s"
	}
}

// scalar reports whether values of the form are written as a single text.
func (f *form) scalar() bool { return f.shape <= custom }

// find returns the variant of a name, or nil.
func (f *form) find(name string) *variant {
	for i := range f.variants {
		if f.variants[i].Name == name {
			return &f.variants[i]
		}
	}
	return nil
}

// names returns the variants' names.
func (f *form) names() []string {
	out := make([]string, len(f.variants))
	for i, v := range f.variants {
		out[i] = v.Name
	}
	return out
}

// keys returns the names of a section's fields.
func (f *form) keys() []string {
	out := make([]string, len(f.fields))
	for i, v := range f.fields {
		out[i] = v.name
	}
	return out
}

// settle gives the choices in v that have a name but no options their variant's defaults.
func settle(f *form, v reflect.Value) {
	switch f.shape {
	case section:
		for _, fd := range f.fields {
			settle(fd.form, v.FieldByIndex(fd.index))
		}
	case choice:
		c := v.Addr().Interface().(*Choice)
		if chosen := f.find(c.Name); chosen != nil && c.Options == nil {
			c.Options = chosen.New()
		}
		if chosen := f.find(c.Name); chosen != nil {
			settle(chosen.form, reflect.ValueOf(c.Options).Elem())
		}
	case pointer:
		if !v.IsNil() {
			settle(f.elem, v.Elem())
		}
	case sequence:
		for i := range v.Len() {
			settle(f.elem, v.Index(i))
		}
	}
}

// defaults sets the defaults of a new entry or section.
func defaults(f *form, v reflect.Value) {
	if d, ok := v.Addr().Interface().(Defaulter); ok {
		d.SetDefaults()
	}
	settle(f, v)
}
