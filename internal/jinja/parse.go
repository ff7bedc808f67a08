package jinja

import (
	"fmt"
	"strings"
)

// maxNesting bounds the recursion of the parser.
const maxNesting = 1000

// parser makes statements of tokens. Its grammar is Jinja's, quirks included.
type parser struct {
	lex    *lexer
	tok    token // the current token
	peeked []token

	tags        []string   // open tags, for messages
	ends        [][]string // what may close them
	depth       int
	loops       int  // enclosing for-loops that break and continue can reach
	fors        int  // all enclosing for-loops
	soft        bool // inside an if: an unknown filter fails only when it runs
	blocks      map[string]*blockStmt
	generations bool
	special     []map[string]bool // of each enclosing macro: uses of caller, kwargs, varargs
	names       *names
	frames      []*frameNames
	storing     bool // names are being assigned, not read

	// Jinja finds these after parsing: an unknown filter, then what Python's compiler refuses.
	assertions []*Error
	compile    *Error
}

func (p *parser) fail(line int, format string, args ...any) {
	panic(&Error{Kind: "TemplateSyntaxError", Message: fmt.Sprintf(format, args...), Line: line})
}

// assert records an error that counts only if the whole template parses.
func (p *parser) assert(line int, format string, args ...any) {
	p.assertions = append(p.assertions, &Error{Kind: "TemplateAssertionError", Message: fmt.Sprintf(format, args...), Line: line})
}

// refuse records what Python's compiler would refuse.
func (p *parser) refuse(line int, message string) {
	if p.compile == nil {
		p.compile = &Error{Kind: "SyntaxError", Message: message, Line: line}
	}
}

// advance moves to the next token and returns the one left.
func (p *parser) advance() token {
	t := p.tok
	if len(p.peeked) > 0 {
		p.tok, p.peeked = p.peeked[0], p.peeked[1:]
	} else {
		p.tok = p.lex.next()
	}
	return t
}

func (p *parser) look() token {
	if len(p.peeked) == 0 {
		p.peeked = append(p.peeked, p.lex.next())
	}
	return p.peeked[0]
}

func (p *parser) is(kind string) bool { return p.tok.kind == kind }

func (p *parser) skip(kind string) bool {
	if p.tok.kind != kind {
		return false
	}
	p.advance()
	return true
}

func (p *parser) skipName(name string) bool {
	if !p.tok.isName(name) {
		return false
	}
	p.advance()
	return true
}

func (p *parser) expect(kind string) token {
	if p.tok.kind != kind {
		p.unexpected(kind)
	}
	return p.advance()
}

func (p *parser) expectName(name string) {
	if !p.skipName(name) {
		p.unexpected(name)
	}
}

func (p *parser) unexpected(want string) {
	if p.is(tokEOF) {
		p.fail(p.tok.line, "unexpected end of template, expected '%s'.", want)
	}
	p.fail(p.tok.line, "expected token '%s', got %s", want, quote(p.tok.String()))
}

// nest guards recursion; the caller leaves the level with p.depth--.
func (p *parser) nest() {
	if p.depth++; p.depth > maxNesting {
		p.fail(p.tok.line, "more than %d levels of nesting", maxNesting)
	}
}

// template parses everything.
func (p *parser) template() []stmt {
	body := p.statements(nil)
	if len(p.assertions) > 0 {
		panic(p.assertions[0])
	}
	if p.compile != nil {
		panic(p.compile)
	}
	return body
}

// statements parses up to one of the end tags, which stays the current token.
func (p *parser) statements(ends []string) []stmt {
	p.nest()
	defer func() { p.depth-- }()
	if ends != nil {
		p.ends = append(p.ends, ends)
		defer func() { p.ends = p.ends[:len(p.ends)-1] }()
	}
	var body []stmt
	for {
		switch line := p.tok.line; p.tok.kind {
		case tokEOF:
			if ends != nil {
				p.unclosed("", line)
			}
			return body
		case tokData:
			body = append(body, &dataStmt{p.advance().text})
		case tokVarBegin:
			p.advance()
			body = append(body, &outputStmt{line, []expr{p.tuple(tupleRules{})}})
			p.expect(tokVarEnd)
		case tokTagBegin:
			p.advance()
			if p.tok.isName(ends...) {
				return body
			}
			if s := p.statement(); s != nil {
				body = append(body, s)
			}
			p.expect(tokTagEnd)
		}
	}
}

// block parses the rest of an opening tag and statements up to one of the end tags, whose name it moves over and
// returns.
func (p *parser) block(ends ...string) ([]stmt, string) {
	p.skip(":")
	p.expect(tokTagEnd)
	body := p.statements(ends)
	return body, p.advance().text
}

// inner parses a block that has variables of its own; those in declare are set before it runs.
func (p *parser) inner(declare []string, ends ...string) (body []stmt, end string, f *frame) {
	soft := p.soft
	p.soft = false
	f = p.within(p.names, func() {
		for _, name := range declare {
			p.names.load(name)
		}
		body, end = p.block(ends...)
	})
	p.soft = soft
	return body, end, f
}

// unclosed fails on an unknown tag, or on the end of the template (name "") with a block open.
func (p *parser) unclosed(name string, line int) {
	message := "Unexpected end of template."
	if name != "" {
		message = "Encountered unknown tag " + quote(name) + "."
	}
	if n := len(p.ends); n > 0 {
		looking := "'" + strings.Join(p.ends[n-1], "' or '") + "'"
		nested := false
		for _, ends := range p.ends {
			for _, e := range ends {
				nested = nested || e == name
			}
		}
		if nested {
			message += " You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for " + looking + "."
		} else {
			message += " Jinja was looking for the following tags: " + looking + "."
		}
	}
	if n := len(p.tags); n > 0 {
		message += " The innermost block that needs to be closed is " + quote(p.tags[n-1]) + "."
	}
	p.fail(line, "%s", message)
}

func (p *parser) statement() stmt {
	tag := p.tok
	if tag.kind != tokName {
		p.fail(tag.line, "tag name expected")
	}
	parse := map[string]func(tag token) stmt{
		"for": p.forLoop, "if": p.ifElse, "set": p.setTag, "with": p.withTag, "block": p.namedBlock,
		"macro": p.macroTag, "call": p.callTag, "filter": p.filterTag, "generation": p.generation,
		"print": p.printTag, "autoescape": p.autoescape, "break": p.leaveLoop, "continue": p.leaveLoop,
		"include": p.foreign, "import": p.foreign, "from": p.foreign, "extends": p.foreign,
	}[tag.text]
	if parse == nil {
		p.unclosed(tag.text, tag.line)
	}
	p.tags = append(p.tags, tag.text)
	p.advance()
	s := parse(tag)
	p.tags = p.tags[:len(p.tags)-1]
	return s
}

func (p *parser) forLoop(tag token) stmt {
	p.fors++
	defer func() { p.fors-- }()
	f := &forStmt{line: tag.line, target: p.target(tupleRules{end: "in"})}
	own := append(f.target.names(), "loop")
	p.expectName("in")
	f.iter = p.tuple(tupleRules{noCond: true, end: "recursive"})
	soft := p.soft
	p.soft = false
	if p.skipName("if") {
		f.testFrame = p.within(p.names, func() {
			for _, name := range own[:len(own)-1] {
				p.names.load(name)
			}
			f.test = p.expression()
		})
	}
	p.soft = soft
	f.recursive = p.skipName("recursive")
	loops := p.loops
	p.loops++
	if f.recursive {
		p.loops = 1
	}
	var end string
	f.body, end, f.bodyFrame = p.inner(own, "endfor", "else")
	p.loops = loops
	if f.recursive {
		p.loops = 0
	}
	if end == "else" {
		f.hasElse = true
		f.orElse, _, f.elseFrame = p.inner(nil, "endfor")
	}
	p.loops = loops
	return f
}

func (p *parser) leaveLoop(tag token) stmt {
	if p.loops == 0 {
		p.refuse(tag.line, "'"+tag.text+"' outside loop")
	}
	if tag.text == "break" {
		return leaveStmt(flowBreak)
	}
	return leaveStmt(flowContinue)
}

func (p *parser) ifElse(tag token) stmt {
	soft := p.soft
	p.soft = true
	defer func() { p.soft = soft }()
	s := &ifStmt{}
	line := tag.line
	all := p.names
	fork := func(from *names, parse func()) *names {
		n := from.fork()
		p.names = n
		parse()
		return n
	}
	var body, elifs, orElse *names
	at := all // where the test's names count: the frame, or what all elif branches share
	for end := ""; ; {
		p.names = at
		test := p.tuple(tupleRules{noCond: true})
		b := branch{line: line, test: test}
		n := fork(at, func() { b.body, end = p.block("elif", "else", "endif") })
		s.branches = append(s.branches, b)
		if body == nil {
			body, elifs = n, all.fork()
		} else {
			elifs.merge(n)
		}
		at, line = elifs, p.tok.line
		if end == "elif" {
			continue
		}
		orElse = all.fork()
		if end == "else" {
			orElse = fork(all, func() { s.orElse, _ = p.block("endif") })
		}
		break
	}
	all.merge(body, elifs, orElse)
	p.names = all
	return s
}

func (p *parser) setTag(tag token) stmt {
	t := p.target(tupleRules{namespace: true})
	if p.skip("=") {
		s := &setStmt{tag.line, t, p.tuple(tupleRules{})}
		p.store(t)
		return s
	}
	p.store(t)
	s := &setBlockStmt{line: tag.line, target: t}
	soft := p.soft
	p.soft = false
	for p.skip("|") {
		s.filter = p.filter(s.filter)
	}
	p.soft = soft
	s.body, _, s.frame = p.inner(nil, "endset")
	return s
}

func (p *parser) withTag(tag token) stmt {
	s := &withStmt{line: tag.line}
	for !p.is(tokTagEnd) {
		if len(s.targets) > 0 {
			p.expect(",")
		}
		s.targets = append(s.targets, p.target(tupleRules{}))
		p.expect("=")
		s.values = append(s.values, p.expression())
	}
	var own []string
	for _, t := range s.targets {
		own = append(own, t.names()...)
	}
	s.body, _, s.frame = p.inner(own, "endwith")
	return s
}

func (p *parser) autoescape(tag token) stmt {
	s := &autoescapeStmt{line: tag.line, value: p.expression()}
	s.body, _, s.frame = p.inner(nil, "endautoescape")
	return s
}

func (p *parser) namedBlock(tag token) stmt {
	s := &blockStmt{line: tag.line, name: p.expect(tokName).text}
	s.scoped = p.skipName("scoped")
	required := p.skipName("required")
	if p.is("-") {
		p.fail(p.tok.line, "Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an underscore instead.")
	}
	loops := p.loops
	p.loops = 0
	outer := p.names
	p.names = nil // a block sees the template's variables, not those of the place where it stands
	s.body, _, s.frame = p.inner(nil, "endblock")
	p.names = outer
	p.loops = loops
	if required {
		for _, b := range s.body {
			if d, ok := b.(*dataStmt); !ok || strings.TrimFunc(d.text, isSpace) != "" {
				p.fail(p.tok.line, "Required blocks can only contain comments or whitespace")
			}
		}
	}
	p.skipName(s.name)
	if p.blocks[s.name] != nil {
		p.assert(tag.line, "block %s defined twice", quote(s.name))
	}
	p.blocks[s.name] = s
	return s
}

func (p *parser) printTag(tag token) stmt {
	s := &outputStmt{line: tag.line}
	for !p.is(tokTagEnd) {
		if len(s.parts) > 0 {
			p.expect(",")
		}
		s.parts = append(s.parts, p.expression())
	}
	return s
}

// foreign parses the tags that would load another template. They fail when they run: there is none.
func (p *parser) foreign(tag token) stmt {
	s := &foreignStmt{tag.line, p.expression()}
	switch tag.text {
	case "include":
		if p.tok.isName("ignore") && p.look().isName("missing") {
			p.advance()
			p.advance()
		}
		p.importContext()
	case "import":
		p.expectName("as")
		p.expect(tokName)
		p.importContext()
	case "from":
		p.expectName("import")
		for n := 0; ; n++ {
			if n > 0 && !p.skip(",") {
				break
			}
			if p.importContext() || p.is(tokTagEnd) && n > 0 {
				break
			}
			p.expect(tokName)
			if p.skipName("as") {
				p.expect(tokName)
			}
		}
		p.importContext()
	}
	return s
}

func (p *parser) importContext() bool {
	if p.tok.isName("with", "without") && p.look().isName("context") {
		p.advance()
		p.advance()
		return true
	}
	return false
}

func (p *parser) macroTag(tag token) stmt {
	m := &macroDef{line: tag.line, name: p.expect(tokName).text}
	p.names.store(m.name)
	p.callable(m, func() {
		p.signature(m)
		m.body, _, m.frame = p.inner(m.names(), "endmacro")
	})
	return &macroStmt{m}
}

func (p *parser) callTag(tag token) stmt {
	m := &macroDef{line: tag.line, anonymous: true}
	s := &callStmt{line: tag.line, caller: m}
	if p.is("(") {
		p.callable(m, func() { p.signature(m) })
	}
	call, ok := p.expression().(*callExpr)
	if !ok {
		p.fail(tag.line, "expected call")
	}
	s.call = call
	p.callable(m, func() { m.body, _, m.frame = p.inner(m.names(), "endcall") })
	return s
}

func (p *parser) generation(tag token) stmt {
	p.generations = true
	m := &macroDef{line: tag.line, anonymous: true}
	p.callable(m, func() { m.body, _, m.frame = p.inner(nil, "endgeneration") })
	return &generationStmt{tag.line, m}
}

// callable parses a part of a macro: loops outside cannot be left from inside, and the names caller, kwargs and
// varargs change what it accepts.
func (p *parser) callable(m *macroDef, parse func()) {
	loops := p.loops
	p.loops = 0
	p.special = append(p.special, map[string]bool{})
	parse()
	used := p.special[len(p.special)-1]
	p.special = p.special[:len(p.special)-1]
	p.loops = loops
	for _, q := range m.params {
		if q.name == "caller" {
			m.explicitCaller = true
			if q.value == nil && used["caller"] {
				p.assert(m.line, `When defining macros or call blocks the special "caller" argument must be omitted or be given a default.`)
			}
		}
	}
	m.caller = m.caller || used["caller"]
	m.kwargs = (m.kwargs || used["kwargs"]) && !m.takes("kwargs")
	m.varargs = (m.varargs || used["varargs"]) && !m.takes("varargs")
	if n := len(p.special); n > 0 {
		for name := range used {
			p.special[n-1][name] = true
		}
	}
}

func (p *parser) signature(m *macroDef) {
	soft := p.soft
	p.soft = false
	defer func() { p.soft = soft }()
	p.expect("(")
	for !p.is(")") {
		if len(m.params) > 0 {
			p.expect(",")
		}
		q := param{name: p.expect(tokName).text}
		if p.skip("=") {
			p.within(p.names, func() { q.value = p.expression() })
		} else if n := len(m.params); n > 0 && m.params[n-1].value != nil {
			p.fail(p.tok.line, "non-default argument follows default argument")
		}
		m.params = append(m.params, q)
	}
	p.expect(")")
}

func (p *parser) filterTag(tag token) stmt {
	s := &setBlockStmt{line: tag.line}
	soft := p.soft
	p.soft = false
	s.filter = p.filter(nil)
	for p.skip("|") {
		s.filter = p.filter(s.filter)
	}
	p.soft = soft
	s.body, _, s.frame = p.inner(nil, "endfilter")
	return s
}

// target parses what can be assigned to.
func (p *parser) target(rules tupleRules) target {
	line := p.tok.line
	rules.simple = true
	p.storing = true
	e := p.tuple(rules)
	p.storing = false
	return p.asTarget(e, line)
}

// store notes that the frame assigns the names of t.
func (p *parser) store(t target) {
	for _, name := range t.names() {
		p.names.store(name)
	}
}

func (p *parser) asTarget(e expr, line int) target {
	switch e := e.(type) {
	case *nameExpr:
		if e.name == "loop" && p.fors > 0 {
			p.assert(e.line, "Can't assign to special loop variable in for-loop target")
		}
		return nameTarget(e.name)
	case *namespaceTarget:
		return e
	case *tupleExpr:
		t := tupleTarget{}
		for _, item := range e.items {
			t = append(t, p.asTarget(item, line))
		}
		return t
	}
	p.fail(line, "can't assign to '%s'", nodeName(e))
	return nil
}
