package token

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Published patterns that have a scanner.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternCL100k = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternO200k  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?` +
		`|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?` +
		`|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternTekken = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` +
		`|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*` +
		`|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternThrees   = `\p{N}{1,3}`
	patternKana     = `[一-龥぀-ゟ゠-ヿ]+`
	patternDeepSeek = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+" +
		`|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// knownPattern returns the matcher of a published pattern, nil for any other.
func knownPattern(pattern string) matcher {
	t := classTable()
	// Some files have line ends as they are, and needless backslashes.
	pattern = strings.NewReplacer("\r", `\r`, "\n", `\n`, `\"`, `"`).Replace(pattern)
	switch pattern {
	case patternGPT2:
		return scanner(t.gpt2)
	case patternLlama3, patternCL100k:
		return t.cl100k(3)
	case patternQwen2:
		return t.cl100k(1)
	case patternO200k:
		return t.o200k(3, true)
	case patternTekken:
		return t.o200k(1, false)
	case patternThrees:
		return finderAt{t.threes, isDigit}
	case patternKana:
		return finderAt{kana, func(byte) bool { return false }}
	case patternDeepSeek:
		return finderAt{t.deepSeek, func(byte) bool { return true }}
	}
	return nil
}

// compile returns the matcher of a regular expression in Oniguruma's syntax for Ruby, which tokenizer.json uses.
func compile(pattern string) (matcher, error) {
	if m := knownPattern(pattern); m != nil {
		return m, nil
	}
	return compileRegex(pattern)
}

func compileRegex(pattern string) (*regex, error) {
	p := &regexParser{src: pattern}
	n, err := p.parse()
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	c := regexCompiler{size: new(int)}
	c.compile(n)
	c.emit(instruction{op: opMatch})
	if *c.size > programMost {
		return nil, fmt.Errorf("pattern %q: want at most %d instructions", pattern, programMost)
	}
	return &regex{prog: c.prog, marks: c.marks}, nil
}

// regex is a program for a machine that backtracks.
type regex struct {
	prog  []instruction
	marks int
}

// programMost bounds what a pattern is expanded to.
const programMost = 20000

type opcode uint8

const (
	opMatch  opcode = iota
	opSet           // one character of the set
	opString        // the characters of text
	opRepeat        // min to max characters of the set, as many as possible first
	opGreedy        // as many as possible, for good
	opSplit         // try to, then alt
	opJump          // go on at to
	opAssert        // a place, told by test
	opLook          // sub matches ahead, or not with neg
	opBehind        // sub, of min to max characters, matches up to here, or not with neg
	opAtomic        // what sub matches first, for good
	opMark          // remember the place in mark min
	opMoved         // fail where the place is still that of mark min
)

type instruction struct {
	op       opcode
	neg      bool
	set      *charSet
	text     string
	min, max int // max < 0: no limit
	to, alt  int
	sub      []instruction
	test     func(s string, i int) bool
}

// machine runs a program on a text.
type machine struct {
	s     string
	stack []retry
	marks []int
	steps int // left
}

// retry is where to go on after a failure: with at, and after that with each character before it down to low. With
// pc < 0 it puts mark -1-pc back to at.
type retry struct{ pc, at, low int }

// The steps that matching takes are bounded, as patterns can be made that take exponential time: what lies behind
// the bound counts as without a match.
const (
	stepsAtMost  = 2_000_000
	stepsPerByte = 1000
)

func (re *regex) matches(s string, yield func(start, end int)) {
	m := &machine{s: s, marks: make([]int, re.marks), steps: stepsAtMost + stepsPerByte*len(s)}
	last := -1
	for i := 0; i <= len(s) && s != ""; {
		end := m.run(re.prog, i, -1)
		if m.steps < 0 {
			return
		}
		if end < 0 || end == i && i == last { // no empty match right behind a match
			i += max(1, runeLen(s[i:]))
			continue
		}
		yield(i, end)
		i, last = end, end
	}
}

// run returns where the first match of prog from i on ends, at until unless that is negative; -1 for none.
func (m *machine) run(prog []instruction, i, until int) int {
	base := len(m.stack)
	defer func() { m.stack = m.stack[:base] }()
	for pc := 0; ; {
		if m.steps--; m.steps < 0 {
			return -1
		}
		in, ok := &prog[pc], true
		pc++
		switch in.op {
		case opMatch:
			if until < 0 || i == until {
				return i
			}
			ok = false
		case opSet:
			n := in.set.head(m.s, i)
			ok = n > 0
			i += n
		case opString:
			if ok = strings.HasPrefix(m.s[i:], in.text); ok {
				i += len(in.text)
			}
		case opRepeat, opGreedy:
			i, ok = m.repeat(in, pc, i)
		case opSplit:
			m.stack = append(m.stack, retry{in.alt, i, i})
			pc = in.to
		case opJump:
			pc = in.to
		case opAssert:
			ok = in.test(m.s, i)
		case opLook:
			ok = m.run(in.sub, i, -1) >= 0 != in.neg
		case opBehind:
			ok = m.behind(in, i) != in.neg
		case opAtomic:
			if end := m.run(in.sub, i, -1); end >= 0 {
				i = end
			} else {
				ok = false
			}
		case opMark:
			m.stack = append(m.stack, retry{-1 - in.min, m.marks[in.min], 0})
			m.marks[in.min] = i
		case opMoved:
			ok = m.marks[in.min] != i
		}
		for !ok {
			if len(m.stack) == base {
				return -1
			}
			top := &m.stack[len(m.stack)-1]
			if top.pc < 0 {
				m.marks[-1-top.pc] = top.at
				m.stack = m.stack[:len(m.stack)-1]
				continue
			}
			pc, i, ok = top.pc, top.at, true
			if i > top.low {
				top.at = m.before(i)
			} else {
				m.stack = m.stack[:len(m.stack)-1]
			}
		}
	}
}

// before returns the place of the character that ends at i.
func (m *machine) before(i int) int {
	_, n := utf8.DecodeLastRuneInString(m.s[:i])
	return i - n
}

// repeat takes characters of a set. It leaves the places to go back to on the stack, for pc.
func (m *machine) repeat(in *instruction, pc, i int) (end int, ok bool) {
	low := i
	for n := 0; n != in.max; n++ {
		m.steps--
		w := in.set.head(m.s, i)
		if w == 0 {
			if n < in.min {
				return i, false
			}
			break
		}
		i += w
		if n < in.min {
			low = i
		}
	}
	if in.op == opRepeat && i > low {
		m.stack = append(m.stack, retry{pc, m.before(i), low})
	}
	return i, true
}

// behind tells whether the sub-program matches up to i.
func (m *machine) behind(in *instruction, i int) bool {
	from := i
	for n := 0; n <= in.max; n++ {
		if n >= in.min && m.run(in.sub, from, i) >= 0 {
			return true
		}
		if from == 0 {
			break
		}
		from = m.before(from)
	}
	return false
}

// regexNode is a node of a parsed pattern.
type regexNode struct {
	op       nodeOp
	set      *charSet
	text     string
	min, max int
	kind     quantifier
	neg      bool
	subs     []*regexNode
	test     func(s string, i int) bool
}

type nodeOp uint8

const (
	nodeSet nodeOp = iota
	nodeString
	nodeConcat
	nodeAlternate
	nodeRepeat
	nodeLook
	nodeBehind
	nodeAtomic
	nodeAssert
)

type quantifier uint8

const (
	greedy quantifier = iota
	lazy
	possessive
)

// regexCompiler turns nodes into a program.
type regexCompiler struct {
	prog  []instruction
	marks int
	size  *int // of all programs
}

func (c *regexCompiler) emit(in instruction) int {
	*c.size++
	c.prog = append(c.prog, in)
	return len(c.prog) - 1
}

func (c *regexCompiler) program(n *regexNode) []instruction {
	sub := regexCompiler{marks: c.marks, size: c.size}
	sub.compile(n)
	sub.emit(instruction{op: opMatch})
	c.marks = sub.marks
	return sub.prog
}

func (c *regexCompiler) compile(n *regexNode) {
	if *c.size > programMost {
		return
	}
	switch n.op {
	case nodeSet:
		c.emit(instruction{op: opSet, set: n.set})
	case nodeString:
		c.emit(instruction{op: opString, text: n.text})
	case nodeConcat:
		for _, s := range n.subs {
			c.compile(s)
		}
	case nodeAlternate:
		var ends []int
		for i, s := range n.subs {
			if i == len(n.subs)-1 {
				c.compile(s)
				break
			}
			split := c.emit(instruction{op: opSplit})
			c.prog[split].to = len(c.prog)
			c.compile(s)
			ends = append(ends, c.emit(instruction{op: opJump}))
			c.prog[split].alt = len(c.prog)
		}
		for _, e := range ends {
			c.prog[e].to = len(c.prog)
		}
	case nodeRepeat:
		c.repeat(n)
	case nodeLook:
		c.emit(instruction{op: opLook, sub: c.program(n.subs[0]), neg: n.neg})
	case nodeBehind:
		c.emit(instruction{op: opBehind, sub: c.program(n.subs[0]), neg: n.neg, min: n.min, max: n.max})
	case nodeAtomic:
		c.emit(instruction{op: opAtomic, sub: c.program(n.subs[0])})
	case nodeAssert:
		c.emit(instruction{op: opAssert, test: n.test})
	}
}

func (c *regexCompiler) repeat(n *regexNode) {
	sub := n.subs[0]
	if sub.op == nodeSet && n.kind != lazy {
		op := opRepeat
		if n.kind == possessive {
			op = opGreedy
		}
		c.emit(instruction{op: op, set: sub.set, min: n.min, max: n.max})
		return
	}
	if n.kind == possessive {
		c.compile(&regexNode{op: nodeAtomic, subs: []*regexNode{{op: nodeRepeat, min: n.min, max: n.max, subs: n.subs}}})
		return
	}
	split := func() int {
		at := c.emit(instruction{op: opSplit})
		c.prog[at].to = len(c.prog)
		return at
	}
	leave := func(at int) { // the other way of the split leads here
		c.prog[at].alt = len(c.prog)
		if n.kind == lazy {
			c.prog[at].to, c.prog[at].alt = c.prog[at].alt, c.prog[at].to
		}
	}
	for range n.min {
		c.compile(sub)
	}
	if n.max < 0 {
		at := split()
		mark := c.marks
		c.marks++
		c.emit(instruction{op: opMark, min: mark})
		c.compile(sub)
		c.emit(instruction{op: opMoved, min: mark})
		c.emit(instruction{op: opJump, to: at})
		leave(at)
		return
	}
	var splits []int
	for range n.max - n.min {
		splits = append(splits, split())
		c.compile(sub)
	}
	for _, at := range splits {
		leave(at)
	}
}
