package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"tunesmith/internal/nearest"
)

// decoder lays nodes over Go values. A value that is wrong leaves the target as it was.
type decoder struct {
	root   *form
	marks  marks
	failed map[string]bool // paths with a mistake
	errs   Errors
}

func (d *decoder) fail(m Mark, path, format string, args ...any) {
	d.failed[path] = true
	d.errs = append(d.errs, &Error{Mark: m, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) value(path string, f *form, r rule, n *node, v reflect.Value) {
	d.marks.at[path] = n.mark
	switch n.kind {
	case broken:
		d.failed[path] = true
		return
	case null:
		d.null(path, f, n, v)
		return
	}
	switch f.shape {
	case section:
		d.section(path, f, n, v)
	case choice:
		d.choice(path, f, n, v)
	case sequence:
		d.sequence(path, f, r, n, v)
	case dictionary, pairs:
		d.dictionary(path, f, r, n, v)
	case pointer:
		// The target is shared with nobody, and stays as it was if the value is wrong.
		target := reflect.New(f.elem.typ)
		if v.IsNil() {
			defaults(f.elem, target.Elem())
		} else {
			target.Elem().Set(v.Elem())
		}
		d.value(path, f.elem, r, n, target.Elem())
		if !d.failed[path] {
			v.Set(target)
		}
	default:
		if n.kind != scalar {
			d.fail(n.mark, path, "want %s, have %s", article(f), n.have())
		} else if message := f.scan(r, n, v); message != "" {
			d.fail(n.mark, path, "%s", message)
		}
	}
}

// null clears a pointer. A bare key (a section whose entries are all commented out, say) leaves a section, list or map
// as it was, and asks for an optional section with its defaults.
func (d *decoder) null(path string, f *form, n *node, v reflect.Value) {
	switch {
	case f.shape == pointer && f.elem.shape == section && !n.plain:
		if v.IsNil() {
			v.Set(reflect.New(f.elem.typ))
			defaults(f.elem, v.Elem())
		}
	case f.shape == pointer:
		v.SetZero()
	case f.scalar():
		d.fail(n.mark, path, "want %s, have nothing; leave the key out for the default", article(f))
	}
}

func (d *decoder) section(path string, f *form, n *node, v reflect.Value) {
	if n.kind != mapping {
		d.fail(n.mark, path, "want a section of keys, have %s", n.have())
		return
	}
	d.fields(path, f, n, v, "")
}

// fields reads the keys of a mapping into a struct; the key called skip is read elsewhere.
func (d *decoder) fields(path string, f *form, n *node, v reflect.Value, skip string) {
	for _, k := range n.keys {
		if k.name == skip {
			continue
		}
		i := slices.IndexFunc(f.fields, func(fd field) bool { return fd.name == k.name })
		if i < 0 {
			d.unknown(path, f, k, skip)
			continue
		}
		fd := f.fields[i]
		d.value(join(path, k.name), fd.form, fd.rule, k.value, v.FieldByIndex(fd.index))
	}
}

// unknown reports a key that a section does not have, with what may have been meant: a key of the section, the same
// key of another variant, or a key that stands elsewhere.
func (d *decoder) unknown(path string, f *form, k key, extra string) {
	known := f.keys()
	if extra != "" {
		known = append([]string{extra}, known...)
	}
	at := join(path, k.name)
	hint := nearest.Hint(k.name, known)
	if hint == "" {
		hint = d.elsewhere(at, k.name)
	}
	if hint == "" && len(known) > 0 {
		hint = "; the keys here are " + strings.Join(known, ", ")
	}
	d.fail(k.mark, at, "unknown key%s", hint)
}

// elsewhere hints at the keys of the whole file that are nearest to a name.
func (d *decoder) elsewhere(at, name string) string {
	var names, variants []string
	decider := ""
	paths := map[string][]string{}
	walk(d.root, place{value: reflect.New(d.root.typ).Elem()}, func(p place) {
		if p.path == at {
			variants = append(variants, p.variant)
			decider = p.choice[strings.LastIndexByte(p.choice, '.')+1:]
		}
		if !slices.Contains(paths[p.field.name], p.path) {
			names = append(names, p.field.name)
			paths[p.field.name] = append(paths[p.field.name], p.path)
		}
	})
	if len(variants) > 0 {
		return ", it belongs to " + decider + " " + strings.Join(variants, " and ")
	}
	for _, near := range nearest.Names(name, names) {
		return ", did you mean " + strings.Join(paths[near], " or ") + "?"
	}
	return ""
}

func (d *decoder) choice(path string, f *form, n *node, v reflect.Value) {
	if n.kind != mapping {
		d.fail(n.mark, path, "want a section of keys with %s, have %s", f.key, n.have())
		return
	}
	c := v.Addr().Interface().(*Choice)
	if i := slices.IndexFunc(n.keys, func(k key) bool { return k.name == f.key }); i >= 0 {
		name, at := n.keys[i].value, join(path, f.key)
		chosen := f.find(name.text)
		switch {
		case name.kind != scalar:
			d.fail(name.mark, at, "want one of %s, have %s", strings.Join(f.names(), ", "), name.have())
		case chosen == nil:
			d.fail(name.mark, at, "want one of %s, have %s%s", strings.Join(f.names(), ", "), name.have(), nearest.Hint(name.text, f.names()))
		case c.Name != chosen.Name:
			d.marks.drop(path)
			d.marks.at[path] = n.mark
			*c = Choice{Name: chosen.Name, Options: chosen.New()}
			settle(chosen.form, reflect.ValueOf(c.Options).Elem())
		}
		d.marks.at[at] = name.mark
		if d.failed[at] {
			return // which keys are right depends on the choice
		}
	}
	chosen := f.find(c.Name)
	if chosen == nil {
		d.fail(n.mark, join(path, f.key), "is required: one of %s", strings.Join(f.names(), ", "))
		return
	}
	d.fields(path, chosen.form, n, reflect.ValueOf(c.Options).Elem(), f.key)
}

func (d *decoder) sequence(path string, f *form, r rule, n *node, v reflect.Value) {
	if n.kind == mapping && n.mark.Set != "" {
		d.patch(path, f, r, n, v)
		return
	}
	items := n.items
	if n.kind == scalar && f.elem.scalar() {
		items = []*node{n}
	} else if n.kind != list {
		d.fail(n.mark, path, "want a list, have %s", n.have())
		return
	}
	d.marks.drop(path)
	d.marks.at[path] = n.mark
	out := reflect.MakeSlice(f.typ, len(items), len(items))
	for i, item := range items {
		at := path
		if n.kind == list {
			at = join(path, strconv.Itoa(i))
		}
		defaults(f.elem, out.Index(i))
		d.value(at, f.elem, r, item, out.Index(i))
	}
	v.Set(out)
}

// patch changes single entries of a list: --set data.0.path=x.
func (d *decoder) patch(path string, f *form, r rule, n *node, v reflect.Value) {
	out := reflect.MakeSlice(f.typ, v.Len(), v.Len())
	reflect.Copy(out, v)
	for _, k := range n.keys {
		i, err := strconv.Atoi(k.name)
		if err != nil || i < 0 || i >= v.Len() {
			d.fail(k.mark, join(path, k.name), "want the number of one of the list's %d entries, counted from 0", v.Len())
			continue
		}
		d.value(join(path, k.name), f.elem, r, k.value, out.Index(i))
	}
	v.Set(out)
}

// dictionary reads a mapping with free keys. It replaces what was there, but for --set of single keys.
func (d *decoder) dictionary(path string, f *form, r rule, n *node, v reflect.Value) {
	if n.kind != mapping {
		d.fail(n.mark, path, "want a section of keys, have %s", n.have())
		return
	}
	var keys []string
	values := map[string]reflect.Value{}
	if n.mark.Set != "" {
		entries(f, v, func(k string, e reflect.Value) { keys, values[k] = append(keys, k), e })
	} else {
		d.marks.drop(path)
		d.marks.at[path] = n.mark
	}
	for _, k := range n.keys {
		e := reflect.New(f.elem.typ).Elem()
		if old, ok := values[k.name]; ok {
			e.Set(old)
		} else {
			keys = append(keys, k.name)
			defaults(f.elem, e)
		}
		values[k.name] = e
		d.value(join(path, k.name), f.elem, r, k.value, e)
	}
	if f.shape == dictionary {
		out := reflect.MakeMap(f.typ)
		for _, k := range keys {
			out.SetMapIndex(reflect.ValueOf(k).Convert(f.typ.Key()), values[k])
		}
		v.Set(out)
		return
	}
	out := reflect.MakeSlice(f.typ, len(keys), len(keys))
	for i, k := range keys {
		out.Index(i).Field(0).SetString(k)
		out.Index(i).Field(1).Set(values[k])
	}
	v.Set(out)
}

// entries visits the entries of a dictionary in a fixed order.
func entries(f *form, v reflect.Value, visit func(key string, value reflect.Value)) {
	if f.shape == pairs {
		for i := range v.Len() {
			visit(v.Index(i).Field(0).String(), v.Index(i).Field(1))
		}
		return
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		visit(k.String(), v.MapIndex(k))
	}
}

// check asks for what is required and lets the sections judge themselves. Where a key has a mistake of its own the
// judges see its default, and what they say of that key is left out.
func (d *decoder) check(path string, f *form, v reflect.Value) {
	switch f.shape {
	case section:
		for _, fd := range f.fields {
			at, value := join(path, fd.name), v.FieldByIndex(fd.index)
			if d.failed[at] {
				continue
			}
			if fd.required && missing(fd.form, value) {
				d.fail(d.marks.near(at), at, "is required: %s", fd.doc)
				continue
			}
			d.check(at, fd.form, value)
		}
		if judge, ok := v.Addr().Interface().(Validator); ok {
			for _, p := range judge.Validate() {
				at := join(path, p.Key)
				if !d.failed[at] {
					d.fail(d.marks.near(at), at, "%s", p.Message)
				}
			}
		}
	case choice:
		if c := v.Interface().(Choice); f.find(c.Name) != nil && !d.failed[join(path, f.key)] {
			d.check(path, f.find(c.Name).form, reflect.ValueOf(c.Options).Elem())
		}
	case pointer:
		if !v.IsNil() {
			d.check(path, f.elem, v.Elem())
		}
	case sequence:
		for i := range v.Len() {
			d.check(join(path, strconv.Itoa(i)), f.elem, v.Index(i))
		}
	}
}

// missing reports whether nothing was given for a required key.
func missing(f *form, v reflect.Value) bool {
	switch f.shape {
	case choice:
		return v.Interface().(Choice).Name == ""
	case sequence, dictionary, pairs:
		return v.Len() == 0
	}
	return v.IsZero()
}
