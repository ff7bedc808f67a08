package jinja

import (
	"slices"
	"strings"
)

// flow says how a statement left.
type flow int

const (
	flowOn flow = iota
	flowBreak
	flowContinue
)

// scope is a level of variables. A loop's body, a macro, a block and {% with %} have one each; {% if %} has none.
type scope struct {
	vars   []binding
	parent *scope
}

type binding struct {
	name  string
	value Value
}

func (s *scope) set(name string, v Value) {
	for i := range s.vars {
		if s.vars[i].name == name {
			s.vars[i].value = v
			return
		}
	}
	s.vars = append(s.vars, binding{name, v})
}

func (s *scope) get(name string) (Value, bool) {
	for ; s != nil; s = s.parent {
		for i := range s.vars {
			if s.vars[i].name == name {
				return s.vars[i].value, true
			}
		}
	}
	return nil, false
}

type stmt interface {
	exec(r *renderer, s *scope) flow
}

// exec runs statements in a scope.
func (r *renderer) exec(body []stmt, s *scope) flow {
	r.enter()
	for _, b := range body {
		r.step(1)
		if f := b.exec(r, s); f != flowOn {
			r.depth--
			return f
		}
	}
	r.depth--
	return flowOn
}

// capture runs statements and returns what they write.
func (r *renderer) capture(body []stmt, s *scope) (string, flow) {
	out := r.out
	r.out = &strings.Builder{}
	f := r.exec(body, s)
	text := r.out.String()
	r.out = out
	return text, f
}

// markup makes text safe if escaping is on.
func (r *renderer) markup(text string) Value {
	if r.escaping {
		return Markup(text)
	}
	return text
}

type dataStmt struct{ text string }

func (d *dataStmt) exec(r *renderer, _ *scope) flow {
	r.write(d.text)
	return flowOn
}

type outputStmt struct {
	line  int
	parts []expr
}

func (o *outputStmt) exec(r *renderer, s *scope) flow {
	for _, e := range o.parts {
		r.line = o.line
		r.output(r.eval(e, s))
	}
	return flowOn
}

func (r *renderer) output(v Value) {
	if r.escaping {
		v = r.escape(v)
	}
	r.write(r.str(v))
}

type branch struct {
	line int
	test expr
	body []stmt
}

type ifStmt struct {
	branches []branch
	orElse   []stmt
}

func (i *ifStmt) exec(r *renderer, s *scope) flow {
	for _, b := range i.branches {
		r.line = b.line
		if r.truth(r.eval(b.test, s)) {
			return r.exec(b.body, s)
		}
	}
	return r.exec(i.orElse, s)
}

type leaveStmt flow

func (l leaveStmt) exec(*renderer, *scope) flow { return flow(l) }

type forStmt struct {
	line      int
	target    target
	iter      expr
	test      expr
	recursive bool
	body      []stmt
	orElse    []stmt
	hasElse   bool

	testFrame, bodyFrame, elseFrame *frame
}

func (f *forStmt) exec(r *renderer, s *scope) flow {
	r.line = f.line
	v := r.eval(f.iter, s)
	if f.recursive {
		r.write(f.recurse(r, s, v, 0))
		return flowOn
	}
	return f.run(r, s, v, nil, 0)
}

// recurse runs a recursive loop on v; loop(v) in its body comes back here.
func (f *forStmt) recurse(r *renderer, s *scope, v Value, depth int) string {
	r.enter()
	out := r.out
	r.out = &strings.Builder{}
	f.run(r, s, v, func(inner Value, depth int) string { return f.recurse(r, s, inner, depth) }, depth)
	text := r.out.String()
	r.out = out
	r.depth--
	return text
}

func (f *forStmt) run(r *renderer, s *scope, v Value, recurse func(Value, int) string, depth int) flow {
	l := &loop{r: r, next: r.iter(v), recurse: recurse, depth0: depth, index0: -1}
	if n, ok := r.length(v); ok && f.test == nil {
		l.length = n
		l.sized = true
	}
	if f.test != nil {
		all := l.next
		l.next = func() (Value, bool) {
			for {
				item, ok := all()
				if !ok {
					return nil, false
				}
				inner := f.testFrame.enter(s)
				f.target.assign(r, inner, item)
				if r.truth(r.eval(f.test, inner)) {
					return item, true
				}
			}
		}
	}
	// As in Jinja, the else branch also runs if break or continue left every iteration.
	completed := false
	for l.advance() {
		r.step(1)
		inner := f.bodyFrame.enter(s)
		f.target.assign(r, inner, l.current)
		inner.set("loop", l)
		switch r.exec(f.body, inner) {
		case flowBreak:
			return f.otherwise(r, s, completed)
		case flowOn:
			completed = true
		}
		r.line = f.line
	}
	return f.otherwise(r, s, completed)
}

func (f *forStmt) otherwise(r *renderer, s *scope, completed bool) flow {
	if completed || !f.hasElse {
		return flowOn
	}
	return r.exec(f.orElse, f.elseFrame.enter(s))
}

type setStmt struct {
	line   int
	target target
	value  expr
}

func (a *setStmt) exec(r *renderer, s *scope) flow {
	r.line = a.line
	a.target.check(r, s)
	a.target.assign(r, s, r.eval(a.value, s))
	return flowOn
}

// setBlockStmt is {% set x %}text{% endset %}, or {% filter f %}text{% endfilter %} with no target.
type setBlockStmt struct {
	line   int
	target target
	filter expr // a chain of filters that ends in a nil operand, which stands for the text
	body   []stmt
	frame  *frame
}

func (b *setBlockStmt) exec(r *renderer, s *scope) flow {
	inner := b.frame.enter(s)
	text, f := r.capture(b.body, inner)
	if f != flowOn {
		return f
	}
	r.line = b.line
	v := r.markup(text)
	if b.filter != nil {
		inner.set(captured, v)
		v = r.eval(b.filter, inner)
	}
	if b.target == nil {
		r.write(r.str(v))
		return flowOn
	}
	if b.filter != nil && r.escaping {
		v = Markup(r.str(v))
	}
	b.target.assign(r, s, v)
	return flowOn
}

// captured is the name, impossible in a template, under which a filter block finds its text.
const captured = "{}"

type withStmt struct {
	line    int
	targets []target
	values  []expr
	body    []stmt
	frame   *frame
}

func (w *withStmt) exec(r *renderer, s *scope) flow {
	r.line = w.line
	inner := w.frame.enter(s)
	for i, t := range w.targets {
		t.assign(r, inner, r.eval(w.values[i], s))
	}
	return r.exec(w.body, inner)
}

type autoescapeStmt struct {
	line  int
	value expr
	body  []stmt
	frame *frame
}

func (a *autoescapeStmt) exec(r *renderer, s *scope) flow {
	r.line = a.line
	old := r.escaping
	r.escaping = r.truth(r.eval(a.value, s))
	f := r.exec(a.body, a.frame.enter(s))
	r.escaping = old
	return f
}

type blockStmt struct {
	line   int
	name   string
	scoped bool
	body   []stmt
	frame  *frame
}

func (b *blockStmt) exec(r *renderer, s *scope) flow {
	if !b.scoped {
		s = r.root
	}
	r.exec(b.body, b.frame.enter(s))
	return flowOn
}

type foreignStmt struct {
	line int
	name expr
}

func (f *foreignStmt) exec(r *renderer, s *scope) flow {
	r.line = f.line
	r.eval(f.name, s)
	failType("no loader for this environment specified")
	return flowOn
}

type param struct {
	name  string
	value expr // the default, nil if there is none
}

// macroDef is the body of a macro, of a {% call %} block or of a {% generation %} block.
type macroDef struct {
	line           int
	name           string
	anonymous      bool
	params         []param
	body           []stmt
	frame          *frame
	caller         bool // the body uses caller, kwargs, varargs
	kwargs         bool
	varargs        bool
	explicitCaller bool
}

func (d *macroDef) names() []string {
	var out []string
	for _, p := range d.params {
		out = append(out, p.name)
	}
	return out
}

func (d *macroDef) takes(name string) bool { return slices.Contains(d.names(), name) }

type macroStmt struct{ def *macroDef }

func (m *macroStmt) exec(r *renderer, s *scope) flow {
	s.set(m.def.name, &macro{def: m.def, scope: s})
	return flowOn
}

type callStmt struct {
	line   int
	call   *callExpr
	caller *macroDef
}

func (c *callStmt) exec(r *renderer, s *scope) flow {
	r.line = c.line
	fn, args := c.call.prepare(r, s)
	args.named = append(args.named, named{"caller", &macro{def: c.caller, scope: s}})
	v := r.callValue(fn, args)
	if !isString(v) {
		failType("sequence item 0: expected str instance, %s found", typeName(v))
	}
	r.write(r.str(v))
	return flowOn
}

type generationStmt struct {
	line int
	def  *macroDef
}

func (g *generationStmt) exec(r *renderer, s *scope) flow {
	start := r.text.Len()
	r.exact = r.exact && r.out == &r.text
	text, _ := r.capture(g.def.body, g.def.frame.enter(s))
	r.generations = append(r.generations, Range{start, start + len(text)})
	r.write(text)
	return flowOn
}

// target is what an assignment fills.
type target interface {
	assign(r *renderer, s *scope, v Value)
	check(r *renderer, s *scope) // fails before the value is made if it cannot be filled
	names() []string             // the variables among what it fills
}

type nameTarget string

func (nameTarget) check(*renderer, *scope) {}

func (n nameTarget) names() []string { return []string{string(n)} }

func (n nameTarget) assign(_ *renderer, s *scope, v Value) { s.set(string(n), v) }

type tupleTarget []target

func (t tupleTarget) check(r *renderer, s *scope) {
	for _, q := range t {
		q.check(r, s)
	}
}

func (t tupleTarget) names() []string {
	var out []string
	for _, q := range t {
		out = append(out, q.names()...)
	}
	return out
}

func (t tupleTarget) assign(r *renderer, s *scope, v Value) {
	next := r.iterFor(v, "cannot unpack non-iterable %s object")
	var items []Value
	for item, ok := next(); ok; item, ok = next() {
		if items = append(items, item); len(items) > len(t) {
			fail("ValueError", "too many values to unpack (expected %d)", len(t))
		}
	}
	if len(items) < len(t) {
		fail("ValueError", "not enough values to unpack (expected %d, got %d)", len(t), len(items))
	}
	for i, q := range t {
		q.assign(r, s, items[i])
	}
}

// namespaceTarget is ns.attr on the left of an assignment.
type namespaceTarget struct{ name, attr string }

func (n *namespaceTarget) names() []string { return nil }

func (n *namespaceTarget) check(r *renderer, s *scope) { n.find(r, s) }

func (n *namespaceTarget) find(r *renderer, s *scope) *namespace {
	ns, ok := r.lookup(s, n.name).(*namespace)
	if !ok {
		fail("TemplateRuntimeError", "cannot assign attribute on non-namespace object")
	}
	return ns
}

func (n *namespaceTarget) assign(r *renderer, s *scope, v Value) { n.find(r, s).set(r, n.attr, v) }

// eval makes a namespaceTarget an expression for the parser; none is ever evaluated.
func (n *namespaceTarget) eval(*renderer, *scope) Value { return nil }
