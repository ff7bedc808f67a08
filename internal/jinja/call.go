package jinja

import "strings"

type named struct {
	name  string
	value Value
}

// arguments of a call, evaluated.
type arguments struct {
	plain []Value
	named []named
}

func (a *arguments) has(name string) bool {
	for _, n := range a.named {
		if n.name == name {
			return true
		}
	}
	return false
}

// pop takes a named argument out.
func (a *arguments) pop(name string) (Value, bool) {
	for i, n := range a.named {
		if n.name == name {
			a.named = append(a.named[:i:i], a.named[i+1:]...)
			return n.value, true
		}
	}
	return nil, false
}

// absent is the value of an optional parameter that no argument fills.
type absent struct{}

func given(v Value) bool {
	_, no := v.(absent)
	return !no
}

// or returns v, or the default of an optional parameter.
func or(v, otherwise Value) Value {
	if given(v) {
		return v
	}
	return otherwise
}

// function is something that a template can call: a global, a filter, a test or a bound method.
type function struct {
	name     string
	class    string // type(f).__name__ if it is not a plain function
	params   []string
	required int
	fn       func(r *renderer, a []Value) Value
	free     func(r *renderer, a *arguments) Value
}

// fn makes a function of a list of parameters; those that end in "?" may be absent.
func fn(name, params string, f func(r *renderer, a []Value) Value) *function {
	out := &function{name: name, fn: f}
	for _, p := range strings.Fields(params) {
		q := strings.TrimSuffix(p, "?")
		if q == p {
			out.required++
		}
		out.params = append(out.params, q)
	}
	return out
}

// free makes a function that binds its arguments itself.
func free(name string, f func(r *renderer, a *arguments) Value) *function {
	return &function{name: name, free: f}
}

func (f *function) typeName() string {
	if f.class != "" {
		return f.class
	}
	return "function"
}

// call binds the arguments to the parameters, as Python does, and runs the function.
func (f *function) call(r *renderer, a *arguments) Value {
	if f.free != nil {
		return f.free(r, a)
	}
	if len(a.plain) > len(f.params) {
		failType("%s() takes %d positional arguments but %d were given", f.name, len(f.params), len(a.plain))
	}
	bound := make([]Value, len(f.params))
	for i := range bound {
		bound[i] = absent{}
	}
	copy(bound, a.plain)
	for _, n := range a.named {
		i := 0
		for i < len(f.params) && f.params[i] != n.name {
			i++
		}
		if i == len(f.params) {
			failType("%s() got an unexpected keyword argument %s", f.name, quote(n.name))
		}
		if given(bound[i]) {
			failType("%s() got multiple values for argument %s", f.name, quote(n.name))
		}
		bound[i] = n.value
	}
	for i, v := range bound[:f.required] {
		if !given(v) {
			failType("%s() missing 1 required positional argument: %s", f.name, quote(f.params[i]))
		}
	}
	return f.fn(r, bound)
}

// callValue calls any value.
func (r *renderer) callValue(v Value, a *arguments) Value {
	r.enter()
	defer func() { r.depth-- }()
	switch v := v.(type) {
	case *function:
		return v.call(r, a)
	case *macro:
		return v.call(r, a)
	case *Undefined:
		v.fail()
	case *joiner:
		return v.call()
	case *loop:
		return v.call(a)
	}
	failType("'%s' object is not callable", typeName(v))
	return nil
}

func callable(v Value) bool {
	switch v.(type) {
	case *function, *macro, *Undefined, *joiner, *loop:
		return true
	}
	return false
}

// macro is a macro, or the caller() of a call block, with the scope where it was defined.
type macro struct {
	def   *macroDef
	scope *scope
}

func (m *macro) call(r *renderer, a *arguments) Value {
	d := m.def
	s := d.frame.enter(m.scope)
	found := false
	var missing []param
	for i, p := range d.params {
		v, ok := Value(nil), false
		if i < len(a.plain) {
			v, ok = a.plain[i], true
		} else {
			v, ok = a.pop(p.name)
			found = found || p.name == "caller"
		}
		if ok {
			s.set(p.name, v)
		} else {
			missing = append(missing, p)
		}
	}
	if len(a.plain) >= len(d.params) {
		found = d.explicitCaller
	}
	if d.caller && !found {
		caller, ok := a.pop("caller")
		if !ok || caller == nil {
			caller = &Undefined{hint: "No caller defined", name: "caller"}
		}
		s.set("caller", caller)
	}
	if d.kwargs {
		kwargs := NewDict()
		for _, n := range a.named {
			kwargs.Set(n.name, n.value)
		}
		s.set("kwargs", kwargs)
	} else if len(a.named) > 0 {
		if a.has("caller") {
			failType("macro %s was invoked with two values for the special caller argument. This is most likely a bug.", r.repr(d.title()))
		}
		failType("macro %s takes no keyword argument %s", r.repr(d.title()), quote(a.named[0].name))
	}
	if d.varargs {
		s.set("varargs", Tuple(a.plain[min(len(d.params), len(a.plain)):]))
	} else if len(a.plain) > len(d.params) {
		failType("macro %s takes not more than %d argument(s)", r.repr(d.title()), len(d.params))
	}
	for _, p := range missing {
		if p.value != nil {
			s.set(p.name, r.eval(p.value, s))
		} else {
			s.set(p.name, &Undefined{hint: "parameter " + quote(p.name) + " was not provided", name: p.name})
		}
	}
	line := r.line
	text, _ := r.capture(d.body, s)
	r.line = line
	return r.markup(text)
}

// title is the macro's name, None for a call block.
func (d *macroDef) title() Value {
	if d.anonymous {
		return nil
	}
	return d.name
}

func (m *macro) attr(name string) (Value, bool) {
	switch name {
	case "name":
		return m.def.title(), true
	case "arguments":
		names := Tuple{}
		for _, p := range m.def.params {
			names = append(names, p.name)
		}
		return names, true
	case "catch_kwargs":
		return m.def.kwargs, true
	case "catch_varargs":
		return m.def.varargs, true
	case "caller":
		return m.def.caller, true
	case "explicit_caller":
		return m.def.explicitCaller, true
	}
	return nil, false
}

// loop is the loop variable.
type loop struct {
	r       *renderer
	next    iterator
	recurse func(Value, int) string
	depth0  int

	index0  int
	length  int
	sized   bool
	current Value
	before  Value
	ahead   []Value // an item that was looked at early
	last    Tuple   // of changed()
	asked   bool
}

func (l *loop) advance() bool {
	var v Value
	if len(l.ahead) > 0 {
		v, l.ahead = l.ahead[0], nil
	} else {
		var ok bool
		if v, ok = l.next(); !ok {
			return false
		}
	}
	l.index0++
	l.before, l.current = l.current, v
	return true
}

func (l *loop) peek() (Value, bool) {
	if len(l.ahead) == 0 {
		v, ok := l.next()
		if !ok {
			return nil, false
		}
		l.ahead = []Value{v}
	}
	return l.ahead[0], true
}

// size is the number of items; it runs through the rest of an iterable that has no length.
func (l *loop) size() int {
	if !l.sized {
		rest := l.r.drain(l.next)
		l.next = iterItems(rest)
		l.length = len(rest) + l.index0 + 1 + len(l.ahead)
		l.sized = true
	}
	return l.length
}

func (l *loop) attr(name string) (Value, bool) {
	switch name {
	case "index":
		return l.index0 + 1, true
	case "index0":
		return l.index0, true
	case "revindex":
		return l.size() - l.index0, true
	case "revindex0":
		return l.size() - l.index0 - 1, true
	case "first":
		return l.index0 == 0, true
	case "last":
		_, more := l.peek()
		return !more, true
	case "length":
		return l.size(), true
	case "depth":
		return l.depth0 + 1, true
	case "depth0":
		return l.depth0, true
	case "previtem":
		if l.index0 == 0 {
			return &Undefined{hint: "there is no previous item"}, true
		}
		return l.before, true
	case "nextitem":
		if v, more := l.peek(); more {
			return v, true
		}
		return &Undefined{hint: "there is no next item"}, true
	case "cycle":
		return free("cycle", func(_ *renderer, a *arguments) Value {
			if len(a.plain) == 0 {
				failType("no items for cycling given")
			}
			return a.plain[l.index0%len(a.plain)]
		}), true
	case "changed":
		return free("changed", func(r *renderer, a *arguments) Value {
			now := Tuple(a.plain)
			if l.asked && r.equal(l.last, now) {
				return false
			}
			l.last, l.asked = now, true
			return true
		}), true
	}
	return nil, false
}

func (l *loop) call(a *arguments) Value {
	if l.recurse == nil {
		failType("The loop must have the 'recursive' marker to be called recursively.")
	}
	if len(a.plain) != 1 || len(a.named) > 0 {
		failType("loop() takes exactly one argument (%d given)", len(a.plain)+len(a.named))
	}
	return l.r.markup(l.recurse(a.plain[0], l.depth0+1))
}
