package jinja

// tupleRules say how far a list of expressions with commas reaches.
type tupleRules struct {
	simple    bool   // names and literals only: a target of an assignment
	namespace bool   // ns.attr is a target, too
	noCond    bool   // "if" ends the expression
	parens    bool   // inside parentheses, where () is a tuple
	end       string // a name that ends it
}

// tuple parses one expression, or several with commas between them.
func (p *parser) tuple(rules tupleRules) expr {
	line := p.tok.line
	var items []expr
	comma := false
	for {
		if len(items) > 0 {
			p.expect(",")
		}
		if p.is(tokVarEnd) || p.is(tokTagEnd) || p.is(")") || rules.end != "" && p.tok.isName(rules.end) {
			break
		}
		switch {
		case rules.simple:
			items = append(items, p.primary(rules.namespace))
		case rules.noCond:
			items = append(items, p.binary(0))
		default:
			items = append(items, p.expression())
		}
		if !p.is(",") {
			break
		}
		comma = true
	}
	if !comma {
		if len(items) > 0 {
			return items[0]
		}
		if !rules.parens {
			p.fail(line, "Expected an expression, got %s", quote(p.tok.String()))
		}
	}
	return &tupleExpr{items}
}

// expression parses "a if test else b" and all that binds more closely.
func (p *parser) expression() expr {
	p.nest()
	defer func() { p.depth-- }()
	known := len(p.assertions)
	e := p.binary(0)
	for p.tok.isName("if") {
		p.advance()
		// Inside a conditional an unknown filter fails only when it runs.
		p.assertions = p.assertions[:known]
		soft := p.soft
		p.soft = true
		c := &condExpr{then: e, test: p.binary(0)}
		if p.skipName("else") {
			c.orElse = p.expression()
		}
		p.soft = soft
		e = c
	}
	return e
}

// Levels of binding, loosest first. Unlike Python, Jinja binds ~ more closely than + and groups ** to the left.
const (
	bindOr = iota + 1
	bindAnd
	bindNot
	bindCompare
	bindSum
	bindConcat
	bindProduct
	bindPower
)

var bindings = map[string]int{
	"==": bindCompare, "!=": bindCompare, "<": bindCompare, "<=": bindCompare, ">": bindCompare, ">=": bindCompare,
	"+": bindSum, "-": bindSum, "~": bindConcat, "*": bindProduct, "/": bindProduct, "//": bindProduct, "%": bindProduct,
	"**": bindPower,
}

// operator returns the binary operator at the current token and its level, 0 if there is none.
func (p *parser) operator() (string, int) {
	switch {
	case p.tok.isName("or"):
		return "or", bindOr
	case p.tok.isName("and"):
		return "and", bindAnd
	case p.tok.isName("in"):
		return "in", bindCompare
	case p.tok.isName("not") && p.look().isName("in"):
		return "not in", bindCompare
	}
	return p.tok.kind, bindings[p.tok.kind]
}

// operand moves over the operator and parses what stands to its right.
func (p *parser) operand(op string, min int) expr {
	if op == "not in" {
		p.advance()
	}
	p.advance()
	return p.binary(min)
}

// binary parses operators that bind at least as closely as min: a Pratt parser.
func (p *parser) binary(min int) expr {
	p.nest()
	defer func() { p.depth-- }()
	var left expr
	if min <= bindNot && p.skipName("not") {
		left = &notExpr{p.binary(bindNot)}
	} else {
		left = p.unary(true)
	}
	for {
		line := p.tok.line
		op, level := p.operator()
		if level == 0 || level < min {
			return left
		}
		switch level {
		case bindOr, bindAnd:
			left = &logicExpr{op == "or", left, p.operand(op, level+1)}
		case bindCompare:
			c := &compareExpr{line: line, first: left}
			for ; level == bindCompare; op, level = p.operator() {
				c.ops = append(c.ops, comparison{op, p.operand(op, bindSum)})
			}
			left = c
		case bindConcat:
			c := &concatExpr{line: line, parts: []expr{left}}
			for ; level == bindConcat; op, level = p.operator() {
				c.parts = append(c.parts, p.operand(op, bindProduct))
			}
			left = c
		default:
			left = &binaryExpr{line, op, left, p.operand(op, level+1)}
		}
	}
}

// unary parses a sign, a primary and what follows it. The filters of -x|f take the negated value.
func (p *parser) unary(filters bool) expr {
	line := p.tok.line
	var e expr
	if p.is("-") || p.is("+") {
		p.nest()
		op := p.advance().kind
		e = &signExpr{line, op, p.unary(false)}
		p.depth--
	} else {
		e = p.primary(false)
	}
	e = p.postfix(e)
	for filters {
		switch {
		case p.skip("|"):
			e = p.filter(e)
		case p.skipName("is"):
			e = p.test(e)
		case p.is("("):
			e = p.call(e)
		default:
			return e
		}
	}
	return e
}

func (p *parser) primary(namespace bool) expr {
	t := p.tok
	switch t.kind {
	case tokName:
		p.advance()
		switch t.text {
		case "true", "True":
			return &constExpr{true}
		case "false", "False":
			return &constExpr{false}
		case "none", "None":
			return &constExpr{nil}
		case "caller", "kwargs", "varargs":
			if n := len(p.special); n > 0 {
				p.special[n-1][t.text] = true
			}
		}
		if !p.storing {
			p.names.load(t.text)
		}
		if namespace && p.skip(".") {
			p.names.load(t.text)
			return &namespaceTarget{t.text, p.expect(tokName).text}
		}
		return &nameExpr{t.line, t.text}
	case tokString:
		s := ""
		for p.is(tokString) {
			s += p.advance().text
		}
		return &constExpr{s}
	case tokInteger, tokFloat:
		return &constExpr{p.advance().num}
	case "(":
		p.advance()
		e := p.tuple(tupleRules{parens: true})
		p.expect(")")
		return e
	case "[":
		p.advance()
		return &listExpr{p.list("]")}
	case "{":
		return p.dict()
	}
	p.fail(t.line, "unexpected %s", quote(t.String()))
	return nil
}

// list parses expressions up to a closing bracket; a comma may stand before it.
func (p *parser) list(end string) []expr {
	var items []expr
	for !p.is(end) {
		if len(items) > 0 {
			p.expect(",")
			if p.is(end) {
				break
			}
		}
		items = append(items, p.expression())
	}
	p.expect(end)
	return items
}

func (p *parser) dict() expr {
	p.advance()
	d := &dictExpr{}
	for !p.is("}") {
		if len(d.keys) > 0 {
			p.expect(",")
			if p.is("}") {
				break
			}
		}
		d.keys = append(d.keys, p.expression())
		p.expect(":")
		d.values = append(d.values, p.expression())
	}
	p.expect("}")
	return d
}

func (p *parser) postfix(e expr) expr {
	for {
		switch {
		case p.is("."):
			line := p.advance().line
			switch t := p.advance(); t.kind {
			case tokName:
				e = &attrExpr{line, e, t.text}
			case tokInteger:
				e = &itemExpr{line, e, &constExpr{t.num}}
			default:
				p.fail(t.line, "expected name or number")
			}
		case p.is("["):
			e = p.subscript(e)
		case p.is("("):
			e = p.call(e)
		default:
			return e
		}
	}
}

func (p *parser) subscript(e expr) expr {
	line := p.advance().line
	var args []expr
	for !p.is("]") {
		if len(args) > 0 {
			p.expect(",")
		}
		args = append(args, p.index())
	}
	p.expect("]")
	for _, a := range args {
		s, ok := a.(*sliceExpr)
		if !ok {
			continue
		}
		if len(args) > 1 {
			p.refuse(line, "invalid syntax")
			continue
		}
		s.line, s.x = line, e
		return s
	}
	if len(args) == 1 {
		return &itemExpr{line, e, args[0]}
	}
	return &itemExpr{line, e, &tupleExpr{args}}
}

// index parses what may stand between brackets: an expression or a slice.
func (p *parser) index() expr {
	s := &sliceExpr{}
	if !p.is(":") {
		e := p.expression()
		if !p.is(":") {
			return e
		}
		s.start = e
	}
	p.advance()
	if !p.is(":") && !p.is("]") && !p.is(",") {
		s.stop = p.expression()
	}
	if p.skip(":") && !p.is("]") && !p.is(",") {
		s.step = p.expression()
	}
	return s
}

func (p *parser) call(fn expr) expr {
	line := p.tok.line
	return &callExpr{line, fn, p.arguments()}
}

func (p *parser) arguments() *argList {
	line := p.expect("(").line
	a := &argList{}
	ensure := func(ok bool) {
		if !ok {
			p.fail(line, "invalid syntax for function call expression")
		}
	}
	for n := 0; !p.is(")"); n++ {
		if n > 0 {
			p.expect(",")
			if p.is(")") {
				break
			}
		}
		switch {
		case p.is("*"):
			ensure(a.star == nil && a.starStar == nil)
			p.advance()
			a.star = p.expression()
		case p.is("**"):
			ensure(a.starStar == nil)
			p.advance()
			a.starStar = p.expression()
		case p.is(tokName) && p.look().kind == "=":
			ensure(a.starStar == nil)
			name := p.advance().text
			p.advance()
			for _, k := range a.named {
				if k.name == name {
					p.refuse(line, "keyword argument repeated: "+name)
				}
			}
			a.named = append(a.named, namedArg{name, p.expression()})
		default:
			ensure(a.star == nil && a.starStar == nil && len(a.named) == 0)
			a.plain = append(a.plain, p.expression())
		}
	}
	p.expect(")")
	return a
}

// dotted parses the name of a filter or test.
func (p *parser) dotted() string {
	name := p.expect(tokName).text
	for p.skip(".") {
		name += "." + p.expect(tokName).text
	}
	return name
}

// filter parses a filter after its bar.
func (p *parser) filter(x expr) expr {
	f := &filterExpr{line: p.tok.line, x: x}
	f.name = p.dotted()
	if p.is("(") {
		f.args = p.arguments()
	}
	f.fn = filters[f.name]
	if f.fn == nil && !p.soft {
		p.assert(f.line, "No filter named %s.", quote(f.name))
	}
	return f
}

// test parses a test after "is". Its one argument may stand without parentheses.
func (p *parser) test(x expr) expr {
	t := &testExpr{line: p.tok.line, x: x}
	negated := p.skipName("not")
	t.name = p.dotted()
	switch p.tok.kind {
	case "(":
		t.args = p.arguments()
	case tokName, tokString, tokInteger, tokFloat, "[", "{":
		if p.tok.isName("else", "or", "and") {
			break
		}
		if p.tok.isName("is") {
			p.fail(p.tok.line, "You cannot chain multiple tests with is")
		}
		t.args = &argList{plain: []expr{p.postfix(p.primary(false))}}
	}
	t.fn = tests[t.name]
	if t.fn == nil && !p.soft {
		p.assert(t.line, "No test named %s.", quote(t.name))
	}
	if negated {
		return &notExpr{t}
	}
	return t
}
