package config

import (
	"reflect"
	"strings"
)

// Option is one key of a run file, for help, tables and forms.
type Option struct {
	Path     string   // parameters.rank; a list's or map's entry stands as N: data.N.path
	Choice   string   // path of the key that the option depends on, such as parameters.method, or ""
	Variant  string   // that key's value: "lora"
	Type     string   // in words: integer, list of text
	Default  string   // as written in a file; "" for sections
	Doc      string   // what it means
	Example  string   // a typical value
	Min, Max string   // bounds: ">= 1", "> 0", "<= 8", "< 1"
	Enum     []string // the allowed texts
	Required bool     // has to be given
	Section  bool     // holds other options
}

// Options lists every key of the files, in their order. The options of a choice follow it, variant by variant.
func (s *Schema[T]) Options() []Option {
	var out []Option
	walk(s.root, place{value: reflect.ValueOf(s.New()).Elem()}, func(p place) { out = append(out, p.option()) })
	return out
}

// place is a key of a form, as walk meets it.
type place struct {
	path    string
	field   field
	value   reflect.Value // its default
	choice  string        // path of the key that decides whether the place exists, or ""
	variant string        // that key's value
}

func (p place) option() Option {
	f := p.field
	o := Option{
		Path: p.path, Choice: p.choice, Variant: p.variant, Type: f.form.String(), Doc: f.doc, Example: f.example,
		Min: bound(">=", f.rule.min) + bound(">", f.rule.above), Max: bound("<=", f.rule.max) + bound("<", f.rule.below),
		Enum: f.rule.enum, Required: f.required, Section: f.form.holds() != nil || f.form.shape == choice,
	}
	if !o.Section {
		o.Default = inline(f.form, p.value)
	}
	return o
}

func bound(sign, value string) string {
	if value == "" {
		return ""
	}
	return sign + " " + value
}

// holds returns the section that values of the form consist of, or nil.
func (f *form) holds() *form {
	switch f.shape {
	case section:
		return f
	case pointer, sequence, dictionary, pairs:
		return f.elem.holds()
	}
	return nil
}

// walk visits every key below a place of form f, with its default.
func walk(f *form, at place, visit func(place)) {
	for _, fd := range f.fields {
		p := at
		p.path, p.field, p.value = join(at.path, fd.name), fd, at.value.FieldByIndex(fd.index)
		visit(p)
		if fd.form.shape == choice {
			walkVariants(p, visit)
		} else if inner := fd.form.holds(); inner != nil {
			if inner != fd.form {
				p.value = reflect.New(inner.typ).Elem()
				defaults(inner, p.value)
			}
			if fd.form.shape != section && fd.form.shape != pointer {
				p.path = join(p.path, "N")
			}
			walk(inner, p, visit)
		}
	}
}

func walkVariants(p place, visit func(place)) {
	fd := p.field
	decider := p
	decider.path = join(p.path, fd.form.key)
	decider.field = chooser(fd)
	decider.value = p.value.FieldByName("Name")
	visit(decider)
	for _, v := range fd.form.variants {
		value := reflect.ValueOf(v.New()).Elem()
		settle(v.form, value)
		walk(v.form, place{path: p.path, choice: decider.path, variant: v.Name, value: value}, visit)
	}
}

// chooser is the key of a choice as a field.
func chooser(fd field) field {
	docs := make([]string, len(fd.form.variants))
	for i, v := range fd.form.variants {
		docs[i] = v.Name + ": " + v.Doc
	}
	return field{
		name: fd.form.key, doc: strings.Join(docs, "; "), required: fd.required,
		rule: rule{enum: fd.form.names()}, form: &form{shape: text, typ: reflect.TypeFor[string]()},
	}
}
