package jinja

import "strings"

// tests are what may stand after "is".
var tests = map[string]*function{}

func init() {
	is := func(f func(r *renderer, v Value) bool) func(*renderer, []Value) Value {
		return func(r *renderer, a []Value) Value { return f(r, a[0]) }
	}
	compare := func(op string) func(*renderer, []Value) Value {
		return func(r *renderer, a []Value) Value { return r.compare(op, a[0], a[1]) }
	}
	remainder := func(r *renderer, v, by Value) bool { return r.equal(r.operate("%", v, by), 0) }
	for signature, f := range map[string]func(*renderer, []Value) Value{
		"defined value":   is(func(_ *renderer, v Value) bool { _, u := v.(*Undefined); return !u }),
		"undefined value": is(func(_ *renderer, v Value) bool { _, u := v.(*Undefined); return u }),
		"none value":      is(func(_ *renderer, v Value) bool { return v == nil }),
		"true value":      is(func(_ *renderer, v Value) bool { return same(v, true) }),
		"false value":     is(func(_ *renderer, v Value) bool { return same(v, false) }),
		"boolean value":   is(func(_ *renderer, v Value) bool { _, ok := v.(bool); return ok }),
		"integer value": is(func(_ *renderer, v Value) bool {
			_, isBool := v.(bool)
			return !isBool && number(v) != nil && typeName(v) == "int"
		}),
		"float value":           is(func(_ *renderer, v Value) bool { _, ok := v.(float64); return ok }),
		"number value":          is(func(_ *renderer, v Value) bool { return number(v) != nil }),
		"string value":          is(func(_ *renderer, v Value) bool { return isString(v) }),
		"mapping value":         is(func(_ *renderer, v Value) bool { _, ok := v.(*Dict); return ok }),
		"iterable value":        is(func(r *renderer, v Value) bool { return r.tryIter(v) != nil }),
		"sequence value":        is(isSequence),
		"callable value":        is(func(_ *renderer, v Value) bool { return callable(v) }),
		"escaped value":         is(func(_ *renderer, v Value) bool { _, ok := v.(Markup); return ok }),
		"lower value":           is(func(r *renderer, v Value) bool { return allCased(r.str(v), isLower) }),
		"upper value":           is(func(r *renderer, v Value) bool { return allCased(r.str(v), isUpper) }),
		"odd value":             is(func(r *renderer, v Value) bool { return r.equal(r.operate("%", v, 2), 1) }),
		"even value":            is(func(r *renderer, v Value) bool { return remainder(r, v, 2) }),
		"divisibleby value num": func(r *renderer, a []Value) Value { return remainder(r, a[0], a[1]) },
		"sameas value other":    func(_ *renderer, a []Value) Value { return same(a[0], a[1]) },
		"in value seq":          func(r *renderer, a []Value) Value { return r.contains(a[1], a[0]) },
		"filter value":          is(func(r *renderer, v Value) bool { return r.knows(filters, v) }),
		"test value":            is(func(r *renderer, v Value) bool { return r.knows(tests, v) }),
		"== a b":                compare("=="),
		"!= a b":                compare("!="),
		"< a b":                 compare("<"),
		"<= a b":                compare("<="),
		"> a b":                 compare(">"),
		">= a b":                compare(">="),
	} {
		name, params, _ := strings.Cut(signature, " ")
		tests[name] = fn(name, params, f)
	}
	alias(tests, map[string]string{
		"eq": "==", "equalto": "==", "ne": "!=", "lt": "<", "lessthan": "<", "le": "<=", "gt": ">", "greaterthan": ">", "ge": ">=",
	})
}

// knows reports whether a table holds the name v.
func (r *renderer) knows(table map[string]*function, v Value) bool {
	r.hash(v) // what cannot be a key fails
	name, ok := asString(v)
	return ok && table[name] != nil
}

// isSequence reports whether v has a length and can be indexed.
func isSequence(_ *renderer, v Value) bool {
	switch v.(type) {
	case string, Markup, bytesValue, List, Tuple, *group, *Dict, *Undefined, *rangeValue:
		return true
	}
	return false
}
