package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// baseKey names the file that a file builds on.
const baseKey = "base"

// loader collects the layers of a run, the weakest first.
type loader struct {
	layers []*node
	order  []string // files in the order in which they are reached
	stack  []string // files whose base is being read
	errs   Errors
}

func (l *loader) fail(m Mark, path, format string, args ...any) {
	l.errs = append(l.errs, &Error{Mark: m, Path: path, Message: fmt.Sprintf(format, args...)})
}

// file reads a file and, before it, its base.
func (l *loader) file(path string) {
	text, err := read(path)
	if err != nil {
		l.order = append(l.order, path)
		l.errs = append(l.errs, &Error{Mark: Mark{File: path}, Message: err.Error(), cause: err})
		return
	}
	l.text(path, text)
}

// text adds the layer of a file's text; a base that cannot be read is a mistake of the key that names it.
func (l *loader) text(path, text string) {
	l.order = append(l.order, path)
	l.stack = append(l.stack, path)
	defer func() { l.stack = l.stack[:len(l.stack)-1] }()
	n, errs := parse(text, path)
	l.errs = append(l.errs, errs...)
	if n == nil {
		return
	}
	i := slices.IndexFunc(n.keys, func(k key) bool { return k.name == baseKey })
	if i >= 0 {
		l.base(path, n.keys[i].value)
		n.keys = slices.Delete(n.keys, i, i+1)
	}
	l.layers = append(l.layers, n)
}

func (l *loader) base(path string, n *node) {
	if n.kind != scalar || n.text == "" {
		l.fail(n.mark, baseKey, "want the path of a file, have %s", n.have())
		return
	}
	base := filepath.FromSlash(n.text)
	if !filepath.IsAbs(base) {
		base = filepath.Join(filepath.Dir(path), base)
	}
	if i := slices.IndexFunc(l.stack, func(p string) bool { return same(p, base) }); i >= 0 {
		l.fail(n.mark, baseKey, "goes in a circle: %s", strings.Join(append(slices.Clone(l.stack[i:]), base), " -> "))
		return
	}
	if len(l.stack) >= maxDepth {
		l.fail(n.mark, baseKey, "want at most %d files built on each other", maxDepth)
		return
	}
	text, err := read(base)
	if err != nil {
		l.errs = append(l.errs, &Error{Mark: n.mark, Path: baseKey, Message: base + ": " + err.Error(), cause: err})
		return
	}
	l.text(base, text)
}

// same reports whether two paths name one file.
func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// read returns the text of a file of bounded size.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fs.ErrNotExist
	} else if err != nil {
		return "", reason(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return "", reason(err)
	}
	if len(text) > maxBytes {
		return "", fmt.Errorf("want at most %d bytes of YAML", maxBytes)
	}
	return string(text), nil
}

// reason returns a file error without the path, which the caller's message has.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// sets adds the assignments as one layer, in which the later of two for one key counts.
func (l *loader) sets(sets []string) {
	var all *node
	for _, s := range sets {
		m := Mark{Set: s}
		path, text, ok := strings.Cut(s, "=")
		keys, split := splitPath(path)
		if !ok || !split {
			l.fail(m, "", "want a key with its value, such as parameters.rank=32")
			continue
		}
		if keys[0] == baseKey {
			l.fail(m, "", "stands only in files")
			continue
		}
		value, errs := assigned(text)
		for _, e := range errs {
			l.fail(m, "", "%s", e.Message)
		}
		if len(errs) > 0 {
			continue
		}
		remark(value, m)
		for _, name := range slices.Backward(keys) {
			value = &node{kind: mapping, mark: m, keys: []key{{name, m, value}}}
		}
		all = overlay(all, value)
	}
	if all != nil {
		l.layers = append(l.layers, all)
	}
}

// overlay lays the keys of b over those of a.
func overlay(a, b *node) *node {
	if a == nil || a.kind != mapping || b.kind != mapping {
		return b
	}
	for _, k := range b.keys {
		i := slices.IndexFunc(a.keys, func(have key) bool { return have.name == k.name })
		if i < 0 {
			a.keys = append(a.keys, k)
			continue
		}
		k.value = overlay(a.keys[i].value, k.value)
		a.keys[i] = k
	}
	return a
}

// assigned reads the value of an assignment. Lists, sections and quoted texts are YAML; all else stands for itself,
// so that a text needs no quotes beyond those of the shell.
func assigned(text string) (*node, Errors) {
	t := strings.TrimSpace(text)
	if t == "" || !strings.ContainsAny(t[:1], `[{"'`) {
		if t == "null" || t == "~" {
			return &node{plain: true}, nil
		}
		return &node{kind: scalar, text: text, plain: t != ""}, nil
	}
	n, errs := parse(text, "")
	if n == nil && len(errs) == 0 {
		n = &node{}
	}
	return n, errs
}

// remark gives a tree one place.
func remark(n *node, m Mark) {
	n.mark = m
	for _, v := range n.items {
		remark(v, m)
	}
	for i := range n.keys {
		n.keys[i].mark = m
		remark(n.keys[i].value, m)
	}
}

// splitPath splits a.b."c.d" at the dots outside quotes.
func splitPath(path string) ([]string, bool) {
	var keys []string
	var part strings.Builder
	quoted, open := false, false
	for _, r := range path {
		switch {
		case r == '"':
			open = !open
			quoted = true
		case r == '.' && !open:
			keys = append(keys, part.String())
			part.Reset()
		default:
			part.WriteRune(r)
		}
	}
	keys = append(keys, part.String())
	return keys, !open && (quoted || !slices.Contains(keys, "")) && path != ""
}
