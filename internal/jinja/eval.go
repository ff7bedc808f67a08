package jinja

import (
	"math/big"
	"strings"
)

type expr interface {
	eval(r *renderer, s *scope) Value
}

func (r *renderer) eval(e expr, s *scope) Value {
	r.step(1)
	r.enter()
	v := e.eval(r, s)
	r.depth--
	return v
}

// nodeName is the name of an expression in "can't assign to".
func nodeName(e expr) string {
	switch e := e.(type) {
	case *constExpr:
		return "const"
	case *listExpr:
		return "list"
	case *dictExpr:
		return "dict"
	case *attrExpr:
		return "getattr"
	case *itemExpr, *sliceExpr:
		return "getitem"
	case *callExpr:
		return "call"
	case *filterExpr:
		return "filter"
	case *testExpr:
		return "test"
	case *condExpr:
		return "condexpr"
	case *compareExpr:
		return "compare"
	case *concatExpr:
		return "concat"
	case *notExpr:
		return "not"
	case *logicExpr:
		if e.or {
			return "or"
		}
		return "and"
	case *signExpr:
		if e.op == "-" {
			return "neg"
		}
		return "pos"
	case *binaryExpr:
		return map[string]string{"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "**": "pow"}[e.op]
	}
	return "expression"
}

type constExpr struct{ v Value }

func (c *constExpr) eval(*renderer, *scope) Value { return c.v }

type nameExpr struct {
	line int
	name string
}

func (n *nameExpr) eval(r *renderer, s *scope) Value { return r.lookup(s, n.name) }

func (r *renderer) lookup(s *scope, name string) Value {
	if v, ok := s.get(name); ok {
		if _, hidden := v.(unset); hidden {
			return &Undefined{name: name}
		}
		return v
	}
	if name == "self" {
		return &templateRef{}
	}
	if v, ok := globals[name]; ok {
		return v
	}
	return &Undefined{name: name}
}

type tupleExpr struct{ items []expr }

func (t *tupleExpr) eval(r *renderer, s *scope) Value { return Tuple(r.evalAll(t.items, s)) }

type listExpr struct{ items []expr }

func (l *listExpr) eval(r *renderer, s *scope) Value { return List(r.evalAll(l.items, s)) }

func (r *renderer) evalAll(items []expr, s *scope) []Value {
	r.chargeItems(len(items))
	out := make([]Value, len(items))
	for i, e := range items {
		out[i] = r.eval(e, s)
	}
	return out
}

type dictExpr struct{ keys, values []expr }

func (d *dictExpr) eval(r *renderer, s *scope) Value {
	out := NewDict()
	for i, k := range d.keys {
		key := r.eval(k, s)
		r.put(out, key, r.eval(d.values[i], s))
	}
	return out
}

type attrExpr struct {
	line int
	x    expr
	name string
}

func (a *attrExpr) eval(r *renderer, s *scope) Value {
	x := r.eval(a.x, s)
	r.line = a.line
	return r.getAttr(x, a.name)
}

type itemExpr struct {
	line int
	x    expr
	arg  expr
}

func (i *itemExpr) eval(r *renderer, s *scope) Value {
	x := r.eval(i.x, s)
	arg := r.eval(i.arg, s)
	r.line = i.line
	return r.getItem(x, arg)
}

// sliceExpr is x[start:stop:step]; like Python's operator it knows nothing of attributes.
type sliceExpr struct {
	line              int
	x                 expr
	start, stop, step expr
}

func (e *sliceExpr) eval(r *renderer, s *scope) Value {
	x := r.eval(e.x, s)
	bound := func(e expr) Value {
		if e == nil {
			return nil
		}
		return r.eval(e, s)
	}
	start, stop, step := bound(e.start), bound(e.stop), bound(e.step)
	r.line = e.line
	return r.slice(x, start, stop, step)
}

type namedArg struct {
	name  string
	value expr
}

// argList is the arguments of a call, a filter or a test as written.
type argList struct {
	plain    []expr
	named    []namedArg
	star     expr
	starStar expr
}

// evalArgs evaluates arguments after those in first.
func (r *renderer) evalArgs(a *argList, s *scope, first ...Value) *arguments {
	out := &arguments{plain: first}
	if a == nil {
		return out
	}
	for _, e := range a.plain {
		out.plain = append(out.plain, r.eval(e, s))
	}
	if a.star != nil {
		next := r.iterFor(r.eval(a.star, s), "argument after * must be an iterable, not %s")
		for v, ok := next(); ok; v, ok = next() {
			r.step(1)
			out.plain = append(out.plain, v)
		}
	}
	for _, n := range a.named {
		out.named = append(out.named, named{n.name, r.eval(n.value, s)})
	}
	if a.starStar != nil {
		d, ok := r.eval(a.starStar, s).(*Dict)
		if !ok {
			failType("argument after ** must be a mapping")
		}
		for i, k := range d.keys {
			name, ok := asString(k)
			if !ok {
				failType("keywords must be strings")
			}
			if out.has(name) {
				failType("got multiple values for keyword argument %s", quote(name))
			}
			out.named = append(out.named, named{name, d.values[i]})
		}
	}
	return out
}

type callExpr struct {
	line int
	fn   expr
	args *argList
}

func (c *callExpr) prepare(r *renderer, s *scope) (Value, *arguments) {
	fn := r.eval(c.fn, s)
	args := r.evalArgs(c.args, s)
	r.line = c.line
	return fn, args
}

func (c *callExpr) eval(r *renderer, s *scope) Value {
	fn, args := c.prepare(r, s)
	v := r.callValue(fn, args)
	r.line = c.line
	return v
}

type filterExpr struct {
	line int
	x    expr // nil stands for the text of the filter block
	name string
	args *argList
	fn   *function
}

func (f *filterExpr) eval(r *renderer, s *scope) Value {
	if f.fn == nil {
		fail("TemplateRuntimeError", "No filter named %s found.", quote(f.name))
	}
	var x Value
	if f.x == nil {
		x, _ = s.get(captured)
	} else {
		x = r.eval(f.x, s)
	}
	args := r.evalArgs(f.args, s, x)
	r.line = f.line
	return f.fn.call(r, args)
}

type testExpr struct {
	line int
	x    expr
	name string
	args *argList
	fn   *function
}

func (t *testExpr) eval(r *renderer, s *scope) Value {
	if t.fn == nil {
		fail("TemplateRuntimeError", "No test named %s found.", quote(t.name))
	}
	args := r.evalArgs(t.args, s, r.eval(t.x, s))
	r.line = t.line
	return t.fn.call(r, args)
}

type notExpr struct{ x expr }

func (n *notExpr) eval(r *renderer, s *scope) Value { return !r.truth(r.eval(n.x, s)) }

type logicExpr struct {
	or   bool
	a, b expr
}

func (l *logicExpr) eval(r *renderer, s *scope) Value {
	if a := r.eval(l.a, s); r.truth(a) == l.or {
		return a
	}
	return r.eval(l.b, s)
}

type condExpr struct {
	then, test expr
	orElse     expr // nil if there is none
}

func (c *condExpr) eval(r *renderer, s *scope) Value {
	if r.truth(r.eval(c.test, s)) {
		return r.eval(c.then, s)
	}
	if c.orElse != nil {
		return r.eval(c.orElse, s)
	}
	return &Undefined{hint: "the inline if-expression evaluated to false and no else section was defined."}
}

type comparison struct {
	op string
	x  expr
}

type compareExpr struct {
	line  int
	first expr
	ops   []comparison
}

func (c *compareExpr) eval(r *renderer, s *scope) Value {
	a := r.eval(c.first, s)
	for _, op := range c.ops {
		b := r.eval(op.x, s)
		r.line = c.line
		if !r.compare(op.op, a, b) {
			return false
		}
		a = b
	}
	return true
}

type concatExpr struct {
	line  int
	parts []expr
}

func (c *concatExpr) eval(r *renderer, s *scope) Value {
	values := r.evalAll(c.parts, s)
	r.line = c.line
	if r.escaping {
		return r.joinMarkup(values)
	}
	var b strings.Builder
	for _, v := range values {
		text := r.str(v)
		r.charge(len(text))
		b.WriteString(text)
	}
	return b.String()
}

// joinMarkup joins as ~ does under autoescape: once one part is safe, all others are escaped.
func (r *renderer) joinMarkup(values []Value) Value {
	safe := false
	for _, v := range values {
		if _, ok := v.(Markup); ok {
			safe = true
		}
	}
	var b strings.Builder
	for _, v := range values {
		if safe {
			v = r.escape(v)
		}
		text := r.str(v)
		r.charge(len(text))
		b.WriteString(text)
	}
	if safe {
		return Markup(b.String())
	}
	return b.String()
}

type signExpr struct {
	line int
	op   string
	x    expr
}

func (e *signExpr) eval(r *renderer, s *scope) Value {
	v := r.eval(e.x, s)
	r.line = e.line
	switch x := number(v).(type) {
	case int:
		if e.op == "+" {
			return x
		}
		return arithmetic(r, "-", 0, x)
	case *big.Int:
		if e.op == "+" {
			return x
		}
		return small(new(big.Int).Neg(x))
	case float64:
		if e.op == "+" {
			return x
		}
		return -x
	}
	r.refuseUndefined(v)
	failType("bad operand type for unary %s: '%s'", e.op, typeName(v))
	return nil
}

type binaryExpr struct {
	line int
	op   string
	a, b expr
}

func (e *binaryExpr) eval(r *renderer, s *scope) Value {
	a := r.eval(e.a, s)
	b := r.eval(e.b, s)
	r.line = e.line
	return r.operate(e.op, a, b)
}
