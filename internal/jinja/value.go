package jinja

import (
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// Value is a value of a template. A caller passes nil (None), bool, int, *big.Int, float64, string, [List] and
// *[Dict]; see [FromJSON]. Templates make more: Markup, Tuple, ranges, generators, macros and the like.
type Value any

// List is a Python list. A template cannot change one, so slices of it share its items.
type List []Value

// Tuple is a Python tuple.
type Tuple []Value

// Markup is a string that escaping leaves alone.
type Markup string

// bytesValue is a Python bytes object.
type bytesValue string

// Undefined is the value of a name, key or attribute that is missing. It prints as nothing; most uses fail.
type Undefined struct {
	hint string // the whole message, if set
	of   Value  // whose attribute is missing
	has  bool   // of is set
	name Value
	kind string // the exception; "" is UndefinedError
}

func (u *Undefined) fail() {
	kind := u.kind
	if kind == "" {
		kind = "UndefinedError"
	}
	fail(kind, "%s", u.message())
}

func (u *Undefined) message() string {
	if u.hint != "" {
		return u.hint
	}
	name, isString := asString(u.name)
	switch {
	case !u.has && isString:
		return quote(name) + " is undefined"
	case !isString:
		return objectName(u.of) + " has no element " + (&renderer{limits: DefaultLimits}).repr(u.name)
	}
	return quote(objectName(u.of)) + " has no attribute " + quote(name)
}

// refuseUndefined fails with an undefined value's own message.
func (r *renderer) refuseUndefined(values ...Value) {
	for _, v := range values {
		if u, ok := v.(*Undefined); ok {
			u.fail()
		}
	}
}

// group is an element of groupby: a pair whose parts also have names.
type group struct {
	key   Value
	items List
}

func (g *group) tuple() Tuple { return Tuple{g.key, g.items} }

// rangeValue is a Python range.
type rangeValue struct{ start, stop, step, n int }

func (g *rangeValue) at(i int) int { return g.start + i*g.step }

// generator yields its items once, when they are asked for.
type generator struct {
	kind string // "generator" or "list_reverseiterator"
	next iterator
}

// view is what dict.keys(), .values() and .items() return.
type view struct {
	kind string
	d    *Dict
}

func (v *view) at(i int) Value {
	switch v.kind {
	case "dict_keys":
		return v.d.keys[i]
	case "dict_values":
		return v.d.values[i]
	}
	return Tuple{v.d.keys[i], v.d.values[i]}
}

// namespace is what namespace() returns: the one object that a template can change.
type namespace struct{ attrs *Dict }

func (n *namespace) set(r *renderer, name string, v Value) {
	checkNamespaceName(name)
	r.put(n.attrs, name, v)
}

func checkNamespaceName(name string) {
	if strings.HasPrefix(name, "_") {
		fail("SecurityError", "Chat templates cannot store underscore-prefixed attributes on a namespace, but got %s. Please rename the attribute.", quote(name))
	}
}

// templateRef is self.
type templateRef struct{}

// typeName is type(v).__name__.
func typeName(v Value) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case Markup:
		return "Markup"
	case bytesValue:
		return "bytes"
	case List:
		return "list"
	case Tuple:
		return "tuple"
	case *group:
		return "_GroupTuple"
	case *Dict:
		return "dict"
	case *Undefined:
		return "Undefined"
	case *rangeValue:
		return "range"
	case *generator:
		return v.kind
	case *view:
		return v.kind
	case *namespace:
		return "TemplateNamespace"
	case *templateRef:
		return "TemplateReference"
	case *macro:
		return "Macro"
	case *loop:
		return "LoopContext"
	case *cycler:
		return "Cycler"
	case *joiner:
		return "Joiner"
	case *function:
		return v.typeName()
	}
	return "object"
}

// objectName words an object in "... has no attribute".
func objectName(v Value) string {
	switch v.(type) {
	case nil:
		return "None"
	case Markup:
		return "markupsafe.Markup object"
	case *macro, *loop, *templateRef:
		return "jinja2.runtime." + typeName(v) + " object"
	case *namespace, *cycler, *joiner:
		return "jinja2.utils." + typeName(v) + " object"
	}
	return typeName(v) + " object"
}

// asString returns the text of a string or Markup.
func asString(v Value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case Markup:
		return string(v), true
	}
	return "", false
}

func isString(v Value) bool {
	_, ok := asString(v)
	return ok
}

// asItems returns the items of a list or tuple.
func asItems(v Value) ([]Value, bool) {
	switch v := v.(type) {
	case List:
		return v, true
	case Tuple:
		return v, true
	case *group:
		return v.tuple(), true
	}
	return nil, false
}

// truth is Python's bool(v).
func (r *renderer) truth(v Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case int:
		return v != 0
	case *Undefined:
		return false
	}
	if n, ok := r.length(v); ok {
		return n > 0
	}
	return true
}

// length is Python's len(v), and whether v has one.
func (r *renderer) length(v Value) (int, bool) {
	switch v := v.(type) {
	case string:
		r.scan(v)
		return utf8.RuneCountInString(v), true
	case Markup:
		r.scan(string(v))
		return utf8.RuneCountInString(string(v)), true
	case bytesValue:
		return len(v), true
	case List:
		return len(v), true
	case Tuple:
		return len(v), true
	case *group:
		return 2, true
	case *Dict:
		return v.Len(), true
	case *Undefined:
		return 0, true
	case *rangeValue:
		return v.n, true
	case *view:
		return v.d.Len(), true
	case *loop:
		return v.size(), true
	}
	return 0, false
}

// scan accounts for a pass over the bytes of s.
func (r *renderer) scan(s string) { r.step(len(s) >> 6) }

// chargeItems accounts for a list of n items.
func (r *renderer) chargeItems(n int) {
	if n > math.MaxInt/16 {
		n = math.MaxInt / 16
	}
	r.charge(n * 16)
	r.step(n >> 3)
}

// iterator returns the next item, and false when there is none.
type iterator func() (Value, bool)

// iter is Python's iter(v).
func (r *renderer) iter(v Value) iterator { return r.iterFor(v, "'%s' object is not iterable") }

// iterFor is iter with the wording of another failure, which names the type.
func (r *renderer) iterFor(v Value, message string) iterator {
	if next := r.tryIter(v); next != nil {
		return next
	}
	failType(message, typeName(v))
	return nil
}

// tryIter returns nil if v cannot be iterated.
func (r *renderer) tryIter(v Value) iterator {
	if items, ok := asItems(v); ok {
		return iterItems(items)
	}
	if s, ok := asString(v); ok {
		return func() (Value, bool) {
			if s == "" {
				return nil, false
			}
			_, n := utf8.DecodeRuneInString(s)
			c := s[:n]
			s = s[n:]
			return c, true
		}
	}
	switch v := v.(type) {
	case *Dict:
		return iterItems(v.keys)
	case *Undefined:
		return iterItems(nil)
	case *generator:
		return v.next
	case *rangeValue:
		return iterIndex(v.n, func(i int) Value { return v.at(i) })
	case *view:
		return iterIndex(v.d.Len(), v.at)
	case bytesValue:
		return iterIndex(len(v), func(i int) Value { return int(v[i]) })
	case *loop:
		return func() (Value, bool) {
			if !v.advance() {
				return nil, false
			}
			return Tuple{v.current, v}, true
		}
	}
	return nil
}

func iterItems(items []Value) iterator {
	return iterIndex(len(items), func(i int) Value { return items[i] })
}

func iterIndex(n int, at func(int) Value) iterator {
	i := -1
	return func() (Value, bool) {
		if i+1 >= n {
			return nil, false
		}
		i++
		return at(i), true
	}
}

// collect is Python's list(v).
func (r *renderer) collect(v Value) []Value { return r.drain(r.iter(v)) }

func (r *renderer) drain(next iterator) []Value {
	var out []Value
	for v, ok := next(); ok; v, ok = next() {
		r.chargeItems(1)
		r.step(1)
		out = append(out, v)
	}
	return out
}

// equal is Python's ==.
func (r *renderer) equal(a, b Value) bool {
	r.step(1)
	if x, ok := asString(a); ok {
		y, ok := asString(b)
		return ok && x == y
	}
	if na, nb := number(a), number(b); na != nil && nb != nil {
		return compareNumbers(na, nb) == 0
	}
	switch x := a.(type) {
	case nil:
		return b == nil
	case List:
		y, ok := b.(List)
		return ok && r.equalItems(x, y)
	case Tuple, *group:
		_, isTuple := b.(Tuple)
		_, isGroup := b.(*group)
		if !isTuple && !isGroup {
			return false
		}
		p, _ := asItems(a)
		q, _ := asItems(b)
		return r.equalItems(p, q)
	case *Dict:
		y, ok := b.(*Dict)
		return ok && r.equalDicts(x, y)
	case *Undefined:
		_, ok := b.(*Undefined)
		return ok
	case *rangeValue:
		y, ok := b.(*rangeValue)
		return ok && x.n == y.n && (x.n == 0 || x.start == y.start && (x.n == 1 || x.step == y.step))
	case *view:
		y, ok := b.(*view)
		return ok && x.kind == y.kind && (x == y || x.kind != "dict_values" && r.equalViews(x, y))
	case bytesValue:
		y, ok := b.(bytesValue)
		return ok && x == y
	}
	return same(a, b)
}

func (r *renderer) equalItems(a, b []Value) bool {
	if len(a) != len(b) {
		return false
	}
	r.enter()
	defer func() { r.depth-- }()
	for i := range a {
		if !r.equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// equalViews compares keys or items as sets.
func (r *renderer) equalViews(a, b *view) bool {
	if a.d.Len() != b.d.Len() {
		return false
	}
	for i, k := range a.d.keys {
		v, ok := r.find(b.d, k)
		if !ok || a.kind == "dict_items" && !r.equal(a.d.values[i], v) {
			return false
		}
	}
	return true
}

func (r *renderer) equalDicts(a, b *Dict) bool {
	if a.Len() != b.Len() {
		return false
	}
	r.enter()
	defer func() { r.depth-- }()
	for i, k := range a.keys {
		v, ok := r.find(b, k)
		if !ok || !r.equal(a.values[i], v) {
			return false
		}
	}
	return true
}

// same is Python's "is".
func same(a, b Value) bool {
	switch x := a.(type) {
	case List:
		y, ok := b.(List)
		return ok && len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0])
	case Tuple:
		y, ok := b.(Tuple)
		return ok && len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0])
	}
	switch b.(type) {
	case List, Tuple:
		return false
	}
	return a == b
}

// compare is one comparison operator.
func (r *renderer) compare(op string, a, b Value) bool {
	switch op {
	case "==":
		return r.equal(a, b)
	case "!=":
		return !r.equal(a, b)
	case "in":
		return r.contains(b, a)
	case "not in":
		return !r.contains(b, a)
	}
	c := r.order(op, a, b)
	switch op {
	case "<":
		return c == -1
	case "<=":
		return c == -1 || c == 0
	case ">":
		return c == 1
	}
	return c == 1 || c == 0
}

// unordered is the order of a number and NaN.
const unordered = 2

// order compares a with b; op is the operator for the message.
func (r *renderer) order(op string, a, b Value) int {
	r.step(1)
	if x, ok := asString(a); ok {
		if y, ok := asString(b); ok {
			return strings.Compare(x, y)
		}
	}
	if na, nb := number(a), number(b); na != nil && nb != nil {
		return compareNumbers(na, nb)
	}
	_, aList := a.(List)
	_, bList := b.(List)
	if x, ok := asItems(a); ok && aList == bList {
		if y, ok := asItems(b); ok {
			r.enter()
			defer func() { r.depth-- }()
			for i := 0; i < len(x) && i < len(y); i++ {
				if !r.equal(x[i], y[i]) {
					return r.order(op, x[i], y[i])
				}
			}
			return sign(len(x) - len(y))
		}
	}
	r.refuseUndefined(a, b)
	failType("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	return 0
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// contains is Python's "item in v".
func (r *renderer) contains(v, item Value) bool {
	if s, ok := asString(v); ok {
		part, ok := asString(item)
		if !ok {
			failType("'in <string>' requires string as left operand, not %s", typeName(item))
		}
		r.scan(s)
		return strings.Contains(s, part)
	}
	switch v := v.(type) {
	case *Dict:
		_, ok := r.find(v, item)
		return ok
	case *view:
		if v.kind == "dict_keys" {
			_, ok := r.find(v.d, item)
			return ok
		}
	}
	next := r.iterFor(v, "argument of type '%s' is not iterable")
	for x, ok := next(); ok; x, ok = next() {
		r.step(1)
		if r.equal(x, item) {
			return true
		}
	}
	return false
}
