package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mark is the place of a value: in a file, or on the command line.
type Mark struct {
	File         string
	Line, Column int    // from 1; 0 for a whole file
	Set          string // the assignment of --set, when the value came from there
}

func (m Mark) String() string {
	switch {
	case m.Set != "":
		return "--set " + m.Set
	case m.Line == 0:
		return m.File
	}
	return fmt.Sprintf("%s:%d:%d", m.File, m.Line, m.Column)
}

// Error is one mistake in a run file: its place, the path of the key and what was wanted.
type Error struct {
	Mark
	Path    string // parameters.rank, data.0.path; "" for the file as a whole
	Message string

	cause error
}

// Unwrap returns the error of the file system behind this one, or nil.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	if place := e.String(); place != "" {
		parts = append(parts, place)
	}
	if target, _, _ := strings.Cut(e.Set, "="); e.Path != "" && e.Path != target {
		parts = append(parts, e.Path)
	}
	return strings.Join(append(parts, e.Message), ": ")
}

// Errors is everything that is wrong, one line each, in the order of the files.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As and errors.Is the single errors.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// sorted orders the errors by file, in the order in which the files were read, then by place; --set comes last.
func (e Errors) sorted(files []string) Errors {
	rank := func(m Mark) int {
		if m.Set != "" {
			return len(files)
		}
		return slices.Index(files, m.File)
	}
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(rank(a.Mark), rank(b.Mark)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(e, func(a, b *Error) bool { return *a == *b })
}

// Problem is a mistake that a section finds in itself.
type Problem struct {
	Key     string // relative to the section, "" for the section as a whole
	Message string
}

// Problemf returns a problem of a key.
func Problemf(key, format string, args ...any) Problem {
	return Problem{Key: key, Message: fmt.Sprintf(format, args...)}
}

// marks holds the places of the values that were given.
type marks struct {
	file string // the run file, the place of what is given nowhere
	at   map[string]Mark
}

// near returns the place of a path, else of the nearest section around it, else of the file.
func (m marks) near(path string) Mark {
	for path != "" {
		if mark, ok := m.at[path]; ok {
			return mark
		}
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
	}
	if m.file == "" {
		return Mark{}
	}
	return Mark{File: m.file, Line: 1, Column: 1}
}

// drop forgets the places at and below a path.
func (m marks) drop(path string) {
	for p := range m.at {
		if p == path || strings.HasPrefix(p, path+".") {
			delete(m.at, p)
		}
	}
}

// join appends a key to a path.
func join(path, key string) string {
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}
