package jinja

import (
	"math/big"
	"strings"
	"unicode/utf8"
)

// Names with two underscores that Python objects have. They are known so that reaching for one is refused as the
// sandbox refuses it; none leads anywhere.
var (
	objectNames   = words(`__class__ __doc__ __init__ __new__ __repr__ __str__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __getattribute__ __setattr__ __delattr__ __dir__ __format__ __reduce__ __reduce_ex__ __sizeof__ __subclasshook__ __init_subclass__`)
	sequenceNames = words(`__len__ __iter__ __contains__ __getitem__ __add__ __mul__ __rmul__ __setitem__ __delitem__ __reversed__ __getnewargs__ __mod__ __rmod__ __or__ __ior__ __iadd__ __imul__ __class_getitem__`)
	functionNames = words(`__globals__ __code__ __closure__ __defaults__ __kwdefaults__ __annotations__ __name__ __qualname__ __module__ __dict__ __call__ __get__ __self__ __func__ __wrapped__ __mro__ __bases__ __base__ __subclasses__ __builtins__ __weakref__`)
)

// mutators are the methods that would change a list or dict.
var mutators = map[string]map[string]bool{
	"list": words("append clear pop reverse insert sort extend remove"),
	"dict": words("clear pop popitem setdefault update"),
}

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// getAttr is x.name: the attribute, else the key.
func (r *renderer) getAttr(x Value, name string) Value {
	r.refuseUndefined(x)
	if v, ok := r.attribute(x, name); ok {
		return v
	}
	if v, ok := r.subscript(x, name); ok {
		return v
	}
	return &Undefined{of: x, has: true, name: name}
}

// getItem is x[key]: the key, else the attribute.
func (r *renderer) getItem(x, key Value) Value {
	r.refuseUndefined(x)
	if v, ok := r.subscript(x, key); ok {
		return v
	}
	if name, ok := asString(key); ok {
		if v, ok := r.attribute(x, name); ok {
			return v
		}
	}
	return &Undefined{of: x, has: true, name: key}
}

// subscript is Python's x[key]; ok is false where Python raises TypeError or LookupError.
func (r *renderer) subscript(x, key Value) (Value, bool) {
	if d, ok := x.(*Dict); ok {
		switch key.(type) {
		case List, *Dict, *view:
			return nil, false
		}
		return r.find(d, key)
	}
	if _, ok := x.(*templateRef); ok {
		name, _ := asString(key)
		b := r.template.blocks[name]
		if b == nil {
			return nil, false
		}
		return fn(name, "", func(r *renderer, _ []Value) Value {
			text, _ := r.capture(b.body, b.frame.enter(r.root))
			return r.markup(text)
		}), true
	}
	i, ok := number(key).(int)
	if !ok {
		return nil, false
	}
	at := func(n int) (int, bool) {
		if i < 0 {
			return i + n, i+n >= 0
		}
		return i, i < n
	}
	if items, ok := asItems(x); ok {
		if k, ok := at(len(items)); ok {
			return items[k], true
		}
		return nil, false
	}
	if s, ok := asString(x); ok {
		c, ok := r.char(s, i)
		return like(x, c), ok
	}
	switch x := x.(type) {
	case *rangeValue:
		if k, ok := at(x.n); ok {
			return x.at(k), true
		}
	case bytesValue:
		if k, ok := at(len(x)); ok {
			return int(x[k]), true
		}
	}
	return nil, false
}

// char returns the i-th character of s, from the end if i is negative.
func (r *renderer) char(s string, i int) (string, bool) {
	r.scan(s)
	if i < 0 {
		for ; s != ""; i++ {
			_, n := utf8.DecodeLastRuneInString(s)
			if i == -1 {
				return s[len(s)-n:], true
			}
			s = s[:len(s)-n]
		}
		return "", false
	}
	for ; s != ""; i-- {
		_, n := utf8.DecodeRuneInString(s)
		if i == 0 {
			return s[:n], true
		}
		s = s[n:]
	}
	return "", false
}

// attribute is Python's getattr behind the sandbox: what it refuses is an Undefined that fails with SecurityError.
func (r *renderer) attribute(x Value, name string) (Value, bool) {
	v, ok := r.rawAttribute(x, name)
	if !ok {
		return nil, false
	}
	if strings.HasPrefix(name, "_") || mutators[typeName(x)][name] {
		return &Undefined{
			hint: "access to attribute " + quote(name) + " of '" + typeName(x) + "' object is unsafe.",
			kind: "SecurityError", name: name, of: x, has: true,
		}, true
	}
	return v, true
}

func (r *renderer) rawAttribute(x Value, name string) (Value, bool) {
	if ns, ok := x.(*namespace); ok {
		if name == "__class__" {
			return nil, true
		}
		return ns.attrs.Get(name)
	}
	if strings.HasPrefix(name, "__") && r.hidden(x, name) {
		return nil, true
	}
	switch x := x.(type) {
	case string, Markup:
		if _, safe := x.(Markup); safe {
			if m := markupMethods[name]; m != nil {
				return m.bind(x), true
			}
		}
		if m := stringMethods[name]; m != nil {
			return m.bind(x), true
		}
	case List:
		if m := listMethods[name]; m != nil {
			return m.bind(x), true
		}
		return nil, mutators["list"][name]
	case Tuple:
		if m := tupleMethods[name]; m != nil {
			return m.bind(x), true
		}
	case *group:
		switch name {
		case "grouper":
			return x.key, true
		case "list":
			return x.items, true
		}
		if m := tupleMethods[name]; m != nil {
			return m.bind(x.tuple()), true
		}
	case *Dict:
		if m := dictMethods[name]; m != nil {
			return m.bind(x), true
		}
		return nil, mutators["dict"][name]
	case bytesValue:
		if m := bytesMethods[name]; m != nil {
			return m.bind(x), true
		}
	case bool, int, *big.Int:
		if m := intMethods[name]; m != nil {
			return m.bind(x), true
		}
		switch name {
		case "real", "numerator":
			return number(x), true
		case "imag":
			return 0, true
		case "denominator":
			return 1, true
		}
	case float64:
		if m := floatMethods[name]; m != nil {
			return m.bind(x), true
		}
		switch name {
		case "real":
			return x, true
		case "imag":
			return 0.0, true
		}
	case *rangeValue:
		switch name {
		case "start":
			return x.start, true
		case "stop":
			return x.stop, true
		case "step":
			return x.step, true
		}
		if m := tupleMethods[name]; m != nil {
			return m.bind(Tuple(r.collect(x))), true
		}
	case *macro:
		return x.attr(name)
	case *loop:
		return x.attr(name)
	case *cycler:
		return x.attr(name)
	case *joiner:
		switch name {
		case "sep":
			return x.sep, true
		case "used":
			return x.used, true
		}
	case *function:
		if x == globals["dict"] && name == "fromkeys" {
			return dictFromKeys, true
		}
	}
	return nil, false
}

// hidden reports whether the Python object has a name with two underscores.
func (r *renderer) hidden(x Value, name string) bool {
	if objectNames[name] {
		return true
	}
	switch x.(type) {
	case string, Markup, List, Tuple, *group, *Dict, *rangeValue, *view, bytesValue:
		return sequenceNames[name]
	case *function, *macro, *cycler, *joiner, *loop, *templateRef:
		return functionNames[name]
	case *generator:
		return name == "__next__" || name == "__iter__"
	}
	return strings.HasPrefix(name, "_TemplateReference")
}

// method is a function whose first parameter is the object that it belongs to.
type method struct{ *function }

func (m *method) bind(self Value) *function {
	f := m.function
	return &function{name: f.name, class: "builtin_function_or_method", free: func(r *renderer, a *arguments) Value {
		return f.call(r, &arguments{plain: append([]Value{self}, a.plain...), named: a.named})
	}}
}

// methods makes a table of methods; each key is the name and the parameters after self.
func methods(table map[string]func(r *renderer, a []Value) Value) map[string]*method {
	out := map[string]*method{}
	for signature, f := range table {
		name, params, _ := strings.Cut(signature, " ")
		out[name] = &method{fn(name, "self "+params, f)}
	}
	return out
}

var listMethods = methods(map[string]func(r *renderer, a []Value) Value{
	"copy":                     func(_ *renderer, a []Value) Value { return a[0] },
	"count value":              countItems,
	"index value start? stop?": indexItem,
})

var tupleMethods = methods(map[string]func(r *renderer, a []Value) Value{
	"count value":              countItems,
	"index value start? stop?": indexItem,
})

func countItems(r *renderer, a []Value) Value {
	items, _ := asItems(a[0])
	n := 0
	for _, v := range items {
		if r.equal(v, a[1]) {
			n++
		}
	}
	return n
}

func indexItem(r *renderer, a []Value) Value {
	items, _ := asItems(a[0])
	lo, hi, _ := sliceBounds(len(items), or(a[2], nil), or(a[3], nil), nil)
	for i := lo; i < hi; i++ {
		if r.equal(items[i], a[1]) {
			return i
		}
	}
	if _, ok := a[0].(Tuple); ok {
		fail("ValueError", "tuple.index(x): x not in tuple")
	}
	fail("ValueError", "%s is not in list", r.repr(a[1]))
	return nil
}

var dictMethods = methods(map[string]func(r *renderer, a []Value) Value{
	"copy": func(r *renderer, a []Value) Value {
		d := a[0].(*Dict)
		r.charge(64 * d.Len())
		return d.Clone()
	},
	"get key default?": func(r *renderer, a []Value) Value {
		if v, ok := r.find(a[0].(*Dict), a[1]); ok {
			return v
		}
		return or(a[2], nil)
	},
	"items":                func(_ *renderer, a []Value) Value { return &view{"dict_items", a[0].(*Dict)} },
	"keys":                 func(_ *renderer, a []Value) Value { return &view{"dict_keys", a[0].(*Dict)} },
	"values":               func(_ *renderer, a []Value) Value { return &view{"dict_values", a[0].(*Dict)} },
	"fromkeys keys value?": func(r *renderer, a []Value) Value { return fromKeys(r, a[1:]) },
})

var bytesMethods = methods(map[string]func(r *renderer, a []Value) Value{
	"decode encoding? errors?": func(_ *renderer, a []Value) Value {
		return strings.ToValidUTF8(string(a[0].(bytesValue)), "\ufffd")
	},
})

var intMethods = methods(map[string]func(r *renderer, a []Value) Value{
	"bit_length": func(_ *renderer, a []Value) Value { return toBig(number(a[0])).BitLen() },
	"conjugate":  func(_ *renderer, a []Value) Value { return number(a[0]) },
})

var floatMethods = methods(map[string]func(r *renderer, a []Value) Value{
	"is_integer": func(_ *renderer, a []Value) Value {
		f := a[0].(float64)
		return f == float64(int64(f))
	},
	"conjugate": func(_ *renderer, a []Value) Value { return a[0] },
})
