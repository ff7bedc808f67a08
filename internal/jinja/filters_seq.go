package jinja

import (
	"slices"
	"strings"
)

func init() {
	addFilters(map[string]func(r *renderer, a []Value) Value{
		"list value":    func(r *renderer, a []Value) Value { return List(r.collect(a[0])) },
		"items value":   itemsFilter,
		"first seq":     firstFilter,
		"last seq":      lastFilter,
		"random seq":    randomFilter,
		"reverse value": reverseFilter,
		"sort value reverse? case_sensitive? attribute?":   sortFilter,
		"dictsort value case_sensitive? by? reverse?":      dictSort,
		"unique value case_sensitive? attribute?":          uniqueFilter,
		"min value case_sensitive? attribute?":             extreme("<"),
		"max value case_sensitive? attribute?":             extreme(">"),
		"sum iterable attribute? start?":                   sumFilter,
		"join value d? attribute?":                         joinFilter,
		"batch value linecount fill_with?":                 batchFilter,
		"slice value slices fill_with?":                    sliceFilter,
		"groupby value attribute default? case_sensitive?": groupBy,
	})
	filters["map"] = free("map", mapFilter)
	filters["select"] = free("select", choose(true, false))
	filters["reject"] = free("reject", choose(false, false))
	filters["selectattr"] = free("selectattr", choose(true, true))
	filters["rejectattr"] = free("rejectattr", choose(false, true))
}

// lazy makes a generator that starts only when it is asked for its first item.
func lazy(start func() iterator) Value {
	var next iterator
	return &generator{kind: "generator", next: func() (Value, bool) {
		if next == nil {
			next = start()
		}
		return next()
	}}
}

// getter finds the attribute that a filter names: a dotted path, whose numbers are indexes.
func (r *renderer) getter(attribute, otherwise Value) func(Value) Value {
	var path []Value
	switch a := attribute.(type) {
	case nil, absent:
	case string, Markup:
		for _, part := range strings.Split(r.str(a), ".") {
			if i, ok := parseInt(part, 10); ok && all(part, isDigitRune) {
				path = append(path, small(i))
			} else {
				path = append(path, part)
			}
		}
	default:
		path = []Value{attribute}
	}
	return func(v Value) Value {
		for _, key := range path {
			v = r.getItem(v, key)
			if _, missing := v.(*Undefined); missing && otherwise != nil {
				v = otherwise
			}
		}
		return v
	}
}

// fold ignores case unless caseSensitive says otherwise.
func (r *renderer) fold(caseSensitive Value) func(Value) Value {
	if r.truth(or(caseSensitive, false)) {
		return func(v Value) Value { return v }
	}
	return func(v Value) Value {
		if s, ok := asString(v); ok {
			r.charge(len(s))
			return like(v, lower(s))
		}
		return v
	}
}

// sort orders items by key, stably.
func (r *renderer) sort(items []Value, key func(Value) Value, reverse bool) {
	type keyed struct{ key, item Value }
	all := make([]keyed, len(items))
	r.chargeItems(2 * len(items))
	for i, v := range items {
		all[i] = keyed{key(v), v}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		if reverse {
			a, b = b, a
		}
		switch r.order("<", a.key, b.key) {
		case -1:
			return -1
		case 1:
			return 1
		}
		return 0
	})
	for i := range all {
		items[i] = all[i].item
	}
}

func itemsFilter(r *renderer, a []Value) Value {
	return lazy(func() iterator {
		switch v := a[0].(type) {
		case *Undefined:
			return iterItems(nil)
		case *Dict:
			return r.iter(&view{"dict_items", v})
		}
		failType("Can only get item pairs from a mapping.")
		return nil
	})
}

func firstFilter(r *renderer, a []Value) Value {
	if v, ok := r.iter(a[0])(); ok {
		return v
	}
	return &Undefined{hint: "No first item, sequence was empty."}
}

func lastFilter(r *renderer, a []Value) Value {
	if v, ok := r.reversed(a[0])(); ok {
		return v
	}
	return &Undefined{hint: "No last item, sequence was empty."}
}

// reversed is Python's reversed(v).
func (r *renderer) reversed(v Value) iterator {
	if next := r.tryReversed(v); next != nil {
		return next
	}
	failType("'%s' object is not reversible", typeName(v))
	return nil
}

func (r *renderer) tryReversed(v Value) iterator {
	var items []Value
	switch v.(type) {
	case List, Tuple, *group:
		items, _ = asItems(v)
	case string, Markup, *Dict, *view, *rangeValue, bytesValue, *Undefined:
		items = r.collect(v)
	default:
		return nil
	}
	n := len(items)
	return iterIndex(n, func(i int) Value { return items[n-1-i] })
}

func reverseFilter(r *renderer, a []Value) Value {
	if s, ok := asString(a[0]); ok {
		r.charge(len(s))
		return r.slice(a[0], nil, nil, -1)
	}
	if next := r.tryReversed(a[0]); next != nil {
		return &generator{kind: typeName(a[0]) + "_reverseiterator", next: next}
	}
	next := r.tryIter(a[0])
	if next == nil {
		filterArgument("argument must be iterable")
	}
	items := List(r.drain(next))
	slices.Reverse(items)
	return items
}

// randomFilter picks by a fixed sequence: a template renders to the same text every time.
func randomFilter(r *renderer, a []Value) Value {
	n, ok := r.length(a[0])
	if !ok {
		failType("object of type '%s' has no len()", typeName(a[0]))
	}
	if n == 0 {
		return &Undefined{hint: "No random item, sequence was empty."}
	}
	r.picks++
	return r.getItem(a[0], int(uint32(r.picks)*2654435761>>1)%n)
}

func sortFilter(r *renderer, a []Value) Value {
	items := List(slices.Clone(r.collect(a[0])))
	fold := r.fold(a[2])
	var getters []func(Value) Value
	if s, ok := asString(or(a[3], nil)); ok {
		for _, part := range strings.Split(s, ",") {
			getters = append(getters, r.getter(part, nil))
		}
	} else {
		getters = append(getters, r.getter(a[3], nil))
	}
	r.sort(items, func(v Value) Value {
		keys := make(List, len(getters))
		for i, get := range getters {
			keys[i] = fold(get(v))
		}
		return keys
	}, r.truth(or(a[1], false)))
	return items
}

func dictSort(r *renderer, a []Value) Value {
	at := 0
	switch by := r.str(or(a[2], "key")); by {
	case "key":
	case "value":
		at = 1
	default:
		filterArgument(`You can only sort by either "key" or "value"`)
	}
	r.refuseUndefined(a[0])
	d, ok := a[0].(*Dict)
	if !ok {
		fail("AttributeError", "'%s' object has no attribute 'items'", typeName(a[0]))
	}
	items := List(r.collect(&view{"dict_items", d}))
	fold := r.fold(a[1])
	r.sort(items, func(v Value) Value { return fold(v.(Tuple)[at]) }, r.truth(or(a[3], false)))
	return items
}

func uniqueFilter(r *renderer, a []Value) Value {
	return lazy(func() iterator {
		next := r.iter(a[0])
		get, fold := r.getter(a[2], nil), r.fold(a[1])
		seen := NewDict()
		return func() (Value, bool) {
			for v, ok := next(); ok; v, ok = next() {
				r.step(1)
				key := fold(get(v))
				if _, old := r.find(seen, key); !old {
					r.put(seen, key, nil)
					return v, true
				}
			}
			return nil, false
		}
	})
}

func extreme(op string) func(r *renderer, a []Value) Value {
	return func(r *renderer, a []Value) Value {
		next := r.iter(a[0])
		get, fold := r.getter(a[2], nil), r.fold(a[1])
		best, ok := next()
		if !ok {
			return &Undefined{hint: "No aggregated item, sequence was empty."}
		}
		key := fold(get(best))
		for v, ok := next(); ok; v, ok = next() {
			if k := fold(get(v)); r.compare(op, k, key) {
				best, key = v, k
			}
		}
		return best
	}
}

func sumFilter(r *renderer, a []Value) Value {
	next := r.iter(a[0])
	get := r.getter(a[1], nil)
	total := or(a[2], 0)
	if isString(total) {
		failType("sum() can't sum strings [use ''.join(seq) instead]")
	}
	for v, ok := next(); ok; v, ok = next() {
		total = r.operate("+", total, get(v))
	}
	return total
}

func joinFilter(r *renderer, a []Value) Value {
	get := r.getter(a[2], nil)
	sep := or(a[1], "")
	var values []Value
	safe := false
	for _, v := range r.collect(a[0]) {
		v = get(v)
		_, m := v.(Markup)
		safe = safe || m
		values = append(values, v)
	}
	if _, m := sep.(Markup); m {
		safe = true
	}
	safe = safe && r.escaping
	parts := make([]string, len(values))
	for i, v := range values {
		if safe {
			v = r.escape(v)
		}
		parts[i] = r.str(v)
	}
	if safe {
		return Markup(r.joinTexts(parts, string(r.escape(sep))))
	}
	return r.joinTexts(parts, r.str(sep))
}

func batchFilter(r *renderer, a []Value) Value {
	size, fill := toInt(a[1]), or(a[2], nil)
	return lazy(func() iterator {
		next := r.iter(a[0])
		row := List{}
		return func() (Value, bool) {
			for v, ok := next(); ok; v, ok = next() {
				r.chargeItems(1)
				if len(row) == size {
					full := row
					row = List{v}
					return full, true
				}
				row = append(row, v)
			}
			if len(row) == 0 {
				return nil, false
			}
			last := row
			row = nil
			if fill != nil && len(last) < size {
				r.chargeItems(size - len(last))
				for len(last) < size {
					last = append(last, fill)
				}
			}
			return last, true
		}
	})
}

func sliceFilter(r *renderer, a []Value) Value {
	n, fill := toInt(a[1]), or(a[2], nil)
	return lazy(func() iterator {
		items := r.collect(a[0])
		if n == 0 {
			fail("ZeroDivisionError", "integer division or modulo by zero")
		}
		if n < 0 {
			return iterItems(nil)
		}
		per, extra := len(items)/n, len(items)%n
		return iterIndex(n, func(i int) Value {
			r.step(1)
			start, size := i*per+min(i, extra), per
			if i < extra {
				size++
			}
			row := List(items[start : start+size : start+size])
			if fill != nil && i >= extra {
				row = append(row, fill)
			}
			return row
		})
	})
}

func groupBy(r *renderer, a []Value) Value {
	get, fold := r.getter(a[1], or(a[2], nil)), r.fold(a[3])
	items := slices.Clone(r.collect(a[0]))
	key := func(v Value) Value { return fold(get(v)) }
	r.sort(items, key, false)
	var out List
	var last Value
	for i, v := range items {
		k := key(v)
		if i == 0 || !r.equal(k, last) {
			out = append(out, &group{key: get(v)})
			last = k
		}
		g := out[len(out)-1].(*group)
		g.items = append(g.items, v)
	}
	return out
}

// mapFilter is map(attribute=...) or map('filter', arguments...).
func mapFilter(r *renderer, a *arguments) Value {
	v, rest := a.plain[0], &arguments{plain: a.plain[1:], named: slices.Clone(a.named)}
	return lazy(func() iterator {
		if !r.truth(v) {
			return iterItems(nil)
		}
		f := r.mapper(rest)
		next := r.iter(v)
		return func() (Value, bool) {
			item, ok := next()
			if !ok {
				return nil, false
			}
			r.step(1)
			return f(item), true
		}
	})
}

func (r *renderer) mapper(a *arguments) func(Value) Value {
	if len(a.plain) == 0 {
		attribute, ok := a.pop("attribute")
		if !ok {
			filterArgument("map requires a filter argument")
		}
		otherwise, _ := a.pop("default")
		if len(a.named) > 0 {
			filterArgument("Unexpected keyword argument %s", quote(a.named[0].name))
		}
		return r.getter(attribute, otherwise)
	}
	name := r.str(a.plain[0])
	f := filters[name]
	if f == nil {
		fail("TemplateRuntimeError", "No filter named %s.", quote(name))
	}
	return func(v Value) Value { return r.applyTo(f, v, a.plain[1:], a.named) }
}

// applyTo calls a filter or test on v with further arguments.
func (r *renderer) applyTo(f *function, v Value, more []Value, names []named) Value {
	return f.call(r, &arguments{plain: append([]Value{v}, more...), named: names})
}

// choose makes select, reject and their forms that look at an attribute.
func choose(keep, attribute bool) func(r *renderer, a *arguments) Value {
	return func(r *renderer, a *arguments) Value {
		v, more := a.plain[0], a.plain[1:]
		return lazy(func() iterator {
			if !r.truth(v) {
				return iterItems(nil)
			}
			get := func(v Value) Value { return v }
			if attribute {
				if len(more) == 0 {
					filterArgument("Missing parameter for attribute name")
				}
				get, more = r.getter(more[0], nil), more[1:]
			}
			pass := r.truth
			if len(more) > 0 {
				name := r.str(more[0])
				f := tests[name]
				if f == nil {
					fail("TemplateRuntimeError", "No test named %s.", quote(name))
				}
				pass = func(v Value) bool { return r.truth(r.applyTo(f, v, more[1:], a.named)) }
			}
			next := r.iter(v)
			return func() (Value, bool) {
				for item, ok := next(); ok; item, ok = next() {
					r.step(1)
					if pass(get(item)) == keep {
						return item, true
					}
				}
				return nil, false
			}
		})
	}
}
