// Package config loads run files. The caller describes a file by Go structs whose fields carry tags; the package
// reads YAML into them, keeps the place of every value, reports all mistakes at once, and derives from the same tags
// the list of options, the commented file and the JSON schema for editors.
//
// A value comes from the first of these that gives it: --set, the file, the file's base, the defaults. Sections are
// merged key by key, lists and pattern maps are replaced, and a section whose options depend on a key, such as
// method, starts from that choice's defaults whenever a later layer changes the choice.
//
// Tags of a field:
//
//	yaml:"rank"         the key; a field without it is not part of the file, an embedded struct is taken inline,
//	                    with or without yaml:",inline"
//	doc:"…"             what it means, needed everywhere
//	min:"1" max:"8"     inclusive bounds; above:"0" and below:"1" exclude the bound
//	enum:"a,b"          the allowed texts
//	required:"true"     has to be given
//	example:"…"         a typical value
//	type:"share or steps"  the form in words, for types that read themselves
//	choice:"method"     on a Choice: the key that picks the options' struct
//
// A field's type is a bool, an integer, a float, a string, a time.Duration, a type with UnmarshalText (and
// MarshalText), a struct, a slice, a map with string keys, or a pointer to one of these, which null clears. A list of
// scalars of one entry may be written without brackets. A slice of structs with exactly the fields Key and Value is a
// map that keeps its order.
package config

import (
	"fmt"
	"reflect"
	"slices"
)

// Choice is a section whose options depend on the value of one key: parameters with its method, for example.
type Choice struct {
	Name    string // value of the key
	Options any    // what the variant's New returned, filled from the file
}

// Variant is one possible choice of a Choice section.
type Variant struct {
	Name string
	Doc  string     // one sentence
	New  func() any // pointer to a struct that holds the defaults
}

// Choices names the variants of each Choice section by the section's key.
type Choices map[string][]Variant

// Defaulter sets the defaults of a list's entry or of an optional section before it is read.
type Defaulter interface{ SetDefaults() }

// Validator checks a section as a whole. The keys of its problems are relative to the section.
type Validator interface{ Validate() []Problem }

// Schema is what a run file may hold: the struct T and the variants of its choices.
type Schema[T any] struct {
	fresh func() *T
	root  *form
}

// NewSchema describes the files that are read into T; fresh returns a T that holds the defaults. A mistake in a tag
// is a mistake of the program, so it panics, as regexp.MustCompile does.
func NewSchema[T any](fresh func() *T, choices Choices) *Schema[T] {
	b := builder{choices: choices}
	return &Schema[T]{fresh: fresh, root: b.form(reflect.TypeFor[T](), "", "")}
}

// New returns a T with the defaults, its choices made.
func (s *Schema[T]) New() *T {
	v := s.fresh()
	settle(s.root, reflect.ValueOf(v).Elem())
	return v
}

// Resolved is a loaded file: the value, and where each part of it stands.
type Resolved[T any] struct {
	Value *T
	Files []string // the file and its bases, the file first

	marks marks
}

// Origin says where the value at a path was given, such as run.yaml:12:9 or --set a.b=1, or "" for a default.
func (r *Resolved[T]) Origin(path string) string {
	if m, ok := r.marks.at[path]; ok {
		return m.String()
	}
	return ""
}

// Errorf returns an error about the value at a path, with the place where it was given, or the place of the section
// around it.
func (r *Resolved[T]) Errorf(path, format string, args ...any) error {
	return &Error{Mark: r.marks.near(path), Path: path, Message: fmt.Sprintf(format, args...)}
}

// Load reads a file, its bases and the assignments of --set ("parameters.rank=32") over the defaults. The error is
// an Errors with everything that is wrong; a file that cannot be read is part of it. Without a path only the
// assignments are read.
func (s *Schema[T]) Load(path string, sets []string) (*Resolved[T], error) {
	l := loader{}
	if path != "" {
		l.file(path)
	}
	l.sets(sets)
	value := s.New()
	d := decoder{root: s.root, marks: marks{at: map[string]Mark{}}, failed: map[string]bool{}, errs: l.errs}
	d.marks.file = path
	target := reflect.ValueOf(value).Elem()
	for _, layer := range l.layers {
		d.value("", s.root, rule{}, layer, target)
	}
	// A layer that could not be read may hold what would otherwise be missing.
	if len(l.errs) == 0 && !d.failed[""] {
		d.check("", s.root, target)
	}
	if len(d.errs) > 0 {
		return nil, d.errs.sorted(l.order)
	}
	return &Resolved[T]{Value: value, Files: slices.Clip(l.order), marks: d.marks}, nil
}
