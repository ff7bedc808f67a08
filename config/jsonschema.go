package config

import (
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// JSON returns the JSON schema (draft 2020-12) by which an editor completes and checks run files.
func (s *Schema[T]) JSON(title string) *jsonschema.Schema {
	value := reflect.ValueOf(s.New()).Elem()
	out := sectionSchema(s.root.fields, value)
	out.Schema = "https://json-schema.org/draft/2020-12/schema"
	out.Title = title
	out.Properties[baseKey] = &jsonschema.Schema{Type: "string", Description: "file that this one builds on, relative to it"}
	out.PropertyOrder = append([]string{baseKey}, out.PropertyOrder...)
	out.Required = nil // a base may give what a file does not
	return out
}

func sectionSchema(fields []field, standard reflect.Value) *jsonschema.Schema {
	out := &jsonschema.Schema{
		Type: "object", Properties: map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
	for _, fd := range fields {
		p := fieldSchema(fd, standard.FieldByIndex(fd.index))
		out.Properties[fd.name] = p
		out.PropertyOrder = append(out.PropertyOrder, fd.name)
		if fd.required {
			out.Required = append(out.Required, fd.name)
		}
	}
	return out
}

func fieldSchema(fd field, standard reflect.Value) *jsonschema.Schema {
	var out *jsonschema.Schema
	if fd.form.shape == choice {
		out = choiceSchema(fd, standard.Interface().(Choice))
	} else {
		out = formSchema(fd.form, fd.rule, standard)
	}
	out.Description = fd.doc
	if fd.form.words != "" {
		out.Description += " (" + fd.form.words + ")"
	}
	if fd.example != "" {
		out.Examples = []any{fd.example}
	}
	if fd.form.holds() == nil && fd.form.shape != choice {
		if b, err := json.Marshal(plainValue(fd.form, standard)); err == nil {
			out.Default = b
		}
	}
	return out
}

func formSchema(f *form, r rule, standard reflect.Value) *jsonschema.Schema {
	switch f.shape {
	case boolean:
		return &jsonschema.Schema{Type: "boolean"}
	case integer, number:
		out := &jsonschema.Schema{
			Type: "number", Minimum: limit(r.min), Maximum: limit(r.max), ExclusiveMinimum: limit(r.above), ExclusiveMaximum: limit(r.below),
		}
		if f.shape == integer {
			out.Type = "integer"
			width(f, out)
		}
		return out
	case text:
		out := &jsonschema.Schema{Type: "string"}
		for _, e := range r.enum {
			out.Enum = append(out.Enum, e)
		}
		return out
	case duration:
		return &jsonschema.Schema{Type: "string", Pattern: `^[-+]?([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$`}
	case custom:
		return &jsonschema.Schema{Types: []string{"string", "number", "boolean"}}
	case section:
		out := sectionSchema(f.fields, standard)
		out.Type, out.Types = "", []string{"object", "null"}
		return out
	case pointer:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{formSchema(f.elem, r, fallback(f, standard)), {Type: "null"}}}
	case sequence:
		entry := formSchema(f.elem, r, fallback(f, standard))
		out := &jsonschema.Schema{Types: []string{"array", "null"}, Items: entry}
		if f.elem.scalar() {
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{out, entry.CloneSchemas()}}
		}
		return out
	}
	return &jsonschema.Schema{
		Types: []string{"object", "null"}, AdditionalProperties: formSchema(f.elem, r, fallback(f, standard)),
	}
}

// fallback is the default of what a pointer points to or a list holds.
func fallback(f *form, standard reflect.Value) reflect.Value {
	if f.shape == pointer && !standard.IsNil() {
		return standard.Elem()
	}
	v := reflect.New(f.elem.typ).Elem()
	defaults(f.elem, v)
	return v
}

// choiceSchema has one schema a variant. The key that tells them apart may be left out for the default.
func choiceSchema(fd field, standard Choice) *jsonschema.Schema {
	out := &jsonschema.Schema{Type: "object"}
	for _, v := range fd.form.variants {
		value := reflect.ValueOf(v.New()).Elem()
		settle(v.form, value)
		one := sectionSchema(v.form.fields, value)
		one.Title, one.Description = v.Name, v.Doc
		var name any = v.Name
		one.Properties[fd.form.key] = &jsonschema.Schema{Const: &name, Description: chooser(fd).doc}
		one.PropertyOrder = append([]string{fd.form.key}, one.PropertyOrder...)
		if v.Name != standard.Name {
			one.Required = append([]string{fd.form.key}, one.Required...)
		}
		out.OneOf = append(out.OneOf, one)
	}
	return out
}

// width adds the bounds of the Go type where the tags give none.
func width(f *form, out *jsonschema.Schema) {
	low, high := 0.0, math.Ldexp(1, f.typ.Bits())-1
	if reflect.Zero(f.typ).CanInt() {
		low, high = -math.Ldexp(1, f.typ.Bits()-1), math.Ldexp(1, f.typ.Bits()-1)-1
	}
	if out.Minimum == nil && out.ExclusiveMinimum == nil && (low == 0 || f.typ.Bits() < 64) {
		out.Minimum = &low
	}
	if out.Maximum == nil && out.ExclusiveMaximum == nil && f.typ.Bits() < 64 {
		out.Maximum = &high
	}
}

func limit(s string) *float64 {
	if s == "" {
		return nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil
	}
	return &x
}

// plainValue is a value as JSON would have it.
func plainValue(f *form, v reflect.Value) any {
	switch f.shape {
	case boolean, integer, number, text:
		return v.Interface()
	case pointer:
		if v.IsNil() {
			return nil
		}
		return plainValue(f.elem, v.Elem())
	case sequence:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plainValue(f.elem, v.Index(i))
		}
		return out
	case dictionary, pairs:
		out := map[string]any{}
		entries(f, v, func(k string, e reflect.Value) { out[k] = plainValue(f.elem, e) })
		return out
	}
	return strings.Trim(inline(f, v), `"`)
}
