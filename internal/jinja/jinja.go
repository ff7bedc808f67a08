// Package jinja renders chat templates: the part of Jinja2 3.1 and of Python's types that a template can reach,
// set up as Hugging Face transformers does (trim_blocks, lstrip_blocks, loop controls, {% generation %} blocks,
// an immutable sandbox, and tojson with the spacing of Python's json module).
//
// A template is untrusted code that comes with a model file. It sees plain values only: it reaches no file, no
// network, no Go method and no other template, and it runs under a limit of steps and of bytes.
//
// Files: lex.go and parse*.go make a tree of nodes; exec.go runs statements and eval.go expressions; value.go and
// its neighbours are Python's types; filters*.go, predicates.go and globals.go are what a template may call.
package jinja

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits bound one rendering. Zero fields take the value of [DefaultLimits].
type Limits struct {
	Steps int // nodes evaluated and items visited
	Bytes int // bytes of all strings and lists that the template makes, its output included
	Depth int // nesting of expressions, blocks and macro calls
}

// DefaultLimits hold for a [Template] that is rendered without limits of its own.
var DefaultLimits = Limits{Steps: 2_000_000, Bytes: 64 << 20, Depth: 3000}

// Options of a rendering.
type Options struct {
	Limits Limits
	Now    func() time.Time // the clock of strftime_now; nil means time.Now
}

// Range is a range of bytes of the rendered text.
type Range struct{ Start, End int }

// Result is a rendered text and the ranges that {% generation %} blocks wrote, in order of execution.
//
// A block inside a macro or a {% set %} block reports its length at the place where the enclosing top-level
// statement began, as transformers does; Exact tells that no such block ran.
type Result struct {
	Text        string
	Generations []Range
	Exact       bool
}

// Error is a template that cannot be parsed or that failed. Kind is the name of the exception that Python raises
// in the same place (TemplateSyntaxError, UndefinedError, TypeError ...) or LimitError.
type Error struct {
	Kind    string
	Message string
	Line    int
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("template line %d: %s (%s)", e.Line, e.Message, e.Kind)
}

// Template is a parsed template. It is immutable and may be rendered by several goroutines at once.
type Template struct {
	body        []stmt
	frame       *frame
	blocks      map[string]*blockStmt
	generations bool
}

// HasGeneration reports whether the template holds a {% generation %} block.
func (t *Template) HasGeneration() bool { return t.generations }

// Parse reads a template.
func Parse(source string) (t *Template, err error) {
	p := &parser{lex: newLexer(source), blocks: map[string]*blockStmt{}}
	defer func() {
		if err = recovered(recover(), &p.tok.line); err != nil {
			t = nil
		}
	}()
	p.advance()
	t = &Template{blocks: p.blocks}
	t.frame = p.within(nil, func() { t.body = p.template() })
	t.generations = p.generations
	p.settle()
	return t, nil
}

// Render runs the template on the variables.
func (t *Template) Render(vars map[string]Value, o Options) (res Result, err error) {
	r := &renderer{template: t, limits: o.Limits.orDefault(), now: o.Now, exact: true}
	if r.now == nil {
		r.now = time.Now
	}
	r.root = &scope{vars: make([]binding, 0, len(vars)+16)}
	for name, v := range vars {
		r.root.vars = append(r.root.vars, binding{name, v})
	}
	r.out = &r.text
	defer func() {
		if err = recovered(recover(), &r.line); err != nil {
			res = Result{}
		}
	}()
	t.frame.hide(r.root)
	r.exec(t.body, r.root)
	return Result{Text: r.text.String(), Generations: r.generations, Exact: r.exact}, nil
}

func (l Limits) orDefault() Limits {
	if l.Steps == 0 {
		l.Steps = DefaultLimits.Steps
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultLimits.Bytes
	}
	if l.Depth == 0 {
		l.Depth = DefaultLimits.Depth
	}
	return l
}

// fail stops parsing or rendering. Like text/template, the engine unwinds by panic and turns it into an error at
// its entry points, so that the two hundred small functions of the language need no error results.
func fail(kind, format string, args ...any) {
	panic(&Error{Kind: kind, Message: fmt.Sprintf(format, args...)})
}

func failType(format string, args ...any) { fail("TypeError", format, args...) }

// recovered turns the value of a recover() into the error that fail meant; any other panic goes on.
func recovered(v any, line *int) error {
	if v == nil {
		return nil
	}
	e, ok := v.(*Error)
	if !ok {
		panic(v)
	}
	if e.Line == 0 {
		e.Line = *line
	}
	return e
}

// try runs f and returns the error that it failed with, nil if none. A limit is never caught.
func try(r *renderer, f func()) (failure *Error) {
	depth := r.depth
	defer func() {
		if v := recover(); v != nil {
			e, ok := v.(*Error)
			if !ok || e.Kind == "LimitError" {
				panic(v)
			}
			failure, r.depth = e, depth
		}
	}()
	f()
	return nil
}

// IsLimit reports whether err is a template that ran over its limits.
func IsLimit(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == "LimitError"
}

// renderer is the state of one rendering.
type renderer struct {
	template    *Template
	limits      Limits
	now         func() time.Time
	root        *scope
	text        strings.Builder  // the output of the top level
	out         *strings.Builder // where statements write: text, or the buffer of a macro or block
	generations []Range
	exact       bool
	escaping    bool // inside {% autoescape true %}
	line        int
	steps       int
	bytes       int
	depth       int
	printing    []Value // containers that repr is inside of
	picks       int     // how often the random filter was asked
}

// step accounts for n nodes or items.
func (r *renderer) step(n int) {
	r.steps += n
	if r.steps > r.limits.Steps {
		fail("LimitError", "the template ran for more than %d steps; it loops too long for a chat template", r.limits.Steps)
	}
}

// charge accounts for n bytes that are about to be made.
func (r *renderer) charge(n int) {
	r.bytes += n
	if n < 0 || r.bytes > r.limits.Bytes {
		fail("LimitError", "the template made more than %d bytes of text and lists; it grows too fast for a chat template", r.limits.Bytes)
	}
}

// enter accounts for a level of nesting; the caller leaves it with r.depth--.
func (r *renderer) enter() {
	if r.depth++; r.depth > r.limits.Depth {
		fail("RecursionError", "maximum recursion depth exceeded: more than %d levels of expressions and macro calls", r.limits.Depth)
	}
}

func (r *renderer) write(s string) {
	r.charge(len(s))
	r.out.WriteString(s)
}
