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

// inner parses a block that has variables of its own.
func (p *parser) inner(ends ...string) ([]stmt, string) {
	soft := p.soft
	p.soft = false
	defer func() { p.soft = soft }()
	return p.block(ends...)
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
	if p.tok.kind != tokName {
		p.fail(p.tok.line, "tag name expected")
	}
	t := p.tok
	parse := map[string]func(line int) stmt{
		"for": p.forLoop, "if": p.ifElse, "block": p.namedBlock, "print": p.printTag, "macro": p.macroTag,
		"include": p.foreign, "import": p.foreign, "from": p.foreign, "extends": p.foreign,
		"set": p.setTag, "with": p.withTag, "autoescape": p.autoescape, "call": p.callTag, "filter": p.filterTag,
		"generation": p.generation, "break": p.leaveLoop, "continue": p.leaveLoop,
	}[t.text]
	if parse == nil {
		p.unclosed(t.text, t.line)
	}
	p.tags = append(p.tags, t.text)
	if t.text != "break" && t.text != "continue" && t.text != "include" && t.text != "import" && t.text != "from" && t.text != "extends" {
		p.advance()
	}
	s := parse(t.line)
	p.tags = p.tags[:len(p.tags)-1]
	return s
}

func (p *parser) forLoop(line int) stmt {
	p.fors++
	defer func() { p.fors-- }()
	f := &forStmt{line: line, target: p.target(tupleRules{end: "in"})}
	p.expectName("in")
	f.iter = p.tuple(tupleRules{noCond: true, end: "recursive"})
	soft := p.soft
	p.soft = false
	if p.skipName("if") {
		f.test = p.expression()
	}
	p.soft = soft
	f.recursive = p.skipName("recursive")
	loops := p.loops
	p.loops++
	if f.recursive {
		p.loops = 1
	}
	var end string
	f.body, end = p.inner("endfor", "else")
	p.loops = loops
	if f.recursive {
		p.loops = 0
	}
	if end == "else" {
		f.hasElse = true
		f.orElse, _ = p.inner("endfor")
	}
	p.loops = loops
	return f
}

func (p *parser) leaveLoop(line int) stmt {
	t := p.advance()
	if p.loops == 0 {
		p.refuse(line, "'"+t.text+"' outside loop")
	}
	if t.text == "break" {
		return leaveStmt(flowBreak)
	}
	return leaveStmt(flowContinue)
}

func (p *parser) ifElse(line int) stmt {
	soft := p.soft
	p.soft = true
	defer func() { p.soft = soft }()
	s := &ifStmt{}
	for {
		test := p.tuple(tupleRules{noCond: true})
		body, end := p.block("elif", "else", "endif")
		s.branches = append(s.branches, branch{line, test, body})
		switch end {
		case "elif":
			line = p.tok.line
			continue
		case "else":
			s.orElse, _ = p.block("endif")
		}
		return s
	}
}

func (p *parser) setTag(line int) stmt {
	t := p.target(tupleRules{namespace: true})
	if p.skip("=") {
		return &setStmt{line, t, p.tuple(tupleRules{})}
	}
	s := &setBlockStmt{line: line, target: t}
	soft := p.soft
	p.soft = false
	for p.skip("|") {
		s.filter = p.filter(s.filter)
	}
	p.soft = soft
	s.body, _ = p.inner("endset")
	return s
}

func (p *parser) withTag(line int) stmt {
	s := &withStmt{line: line}
	for !p.is(tokTagEnd) {
		if len(s.targets) > 0 {
			p.expect(",")
		}
		s.targets = append(s.targets, p.target(tupleRules{}))
		p.expect("=")
		s.values = append(s.values, p.expression())
	}
	s.body, _ = p.inner("endwith")
	return s
}

func (p *parser) autoescape(line int) stmt {
	s := &autoescapeStmt{line: line, value: p.expression()}
	s.body, _ = p.inner("endautoescape")
	return s
}

func (p *parser) namedBlock(line int) stmt {
	s := &blockStmt{line: line, name: p.expect(tokName).text}
	s.scoped = p.skipName("scoped")
	required := p.skipName("required")
	if p.is("-") {
		p.fail(p.tok.line, "Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an underscore instead.")
	}
	loops := p.loops
	p.loops = 0
	s.body, _ = p.inner("endblock")
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
		p.assert(line, "block %s defined twice", quote(s.name))
	}
	p.blocks[s.name] = s
	return s
}

func (p *parser) printTag(line int) stmt {
	s := &outputStmt{line: line}
	for !p.is(tokTagEnd) {
		if len(s.parts) > 0 {
			p.expect(",")
		}
		s.parts = append(s.parts, p.expression())
	}
	return s
}

// foreign parses the tags that would load another template. They fail when they run: there is none.
func (p *parser) foreign(line int) stmt {
	tag := p.advance().text
	s := &foreignStmt{line, p.expression()}
	switch tag {
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

func (p *parser) macroTag(line int) stmt {
	m := &macroDef{line: line, name: p.expect(tokName).text}
	p.callable(m, func() {
		p.signature(m)
		m.body, _ = p.inner("endmacro")
	})
	return &macroStmt{m}
}

func (p *parser) callTag(line int) stmt {
	m := &macroDef{line: line, anonymous: true}
	s := &callStmt{line: line, caller: m}
	if p.is("(") {
		p.callable(m, func() { p.signature(m) })
	}
	call, ok := p.expression().(*callExpr)
	if !ok {
		p.fail(line, "expected call")
	}
	s.call = call
	p.callable(m, func() { m.body, _ = p.inner("endcall") })
	return s
}

func (p *parser) generation(line int) stmt {
	p.generations = true
	m := &macroDef{line: line, anonymous: true}
	p.callable(m, func() { m.body, _ = p.inner("endgeneration") })
	return &generationStmt{line, m}
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
		delete(used, q.name)
		if q.name == "caller" {
			m.explicitCaller = true
			if q.value == nil {
				p.assert(m.line, `When defining macros or call blocks the special "caller" argument must be omitted or be given a default.`)
			}
		}
	}
	m.caller = m.caller || used["caller"]
	m.kwargs = m.kwargs || used["kwargs"]
	m.varargs = m.varargs || used["varargs"]
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
			q.value = p.expression()
		} else if n := len(m.params); n > 0 && m.params[n-1].value != nil {
			p.fail(p.tok.line, "non-default argument follows default argument")
		}
		m.params = append(m.params, q)
	}
	p.expect(")")
}

func (p *parser) filterTag(line int) stmt {
	s := &setBlockStmt{line: line}
	soft := p.soft
	p.soft = false
	s.filter = p.filter(nil)
	for p.skip("|") {
		s.filter = p.filter(s.filter)
	}
	p.soft = soft
	s.body, _ = p.inner("endfilter")
	return s
}

// target parses what can be assigned to.
func (p *parser) target(rules tupleRules) target {
	line := p.tok.line
	rules.simple = true
	return p.asTarget(p.tuple(rules), line)
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
