package token

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// regexParser reads Oniguruma's syntax for Ruby, without groups to refer back to.
type regexParser struct {
	src   string
	at    int
	depth int
	flags regexFlags
}

type regexFlags struct{ fold, dotAll, extended bool }

const (
	depthMost  = 100  // of groups and classes within each other
	repeatMost = 1000 // of a count in braces
)

func (p *regexParser) parse() (*regexNode, error) {
	n, err := p.alternate()
	if err == nil && p.at < len(p.src) {
		err = errors.New("unmatched )")
	}
	return n, err
}

func (p *regexParser) more() bool { return p.at < len(p.src) }

func (p *regexParser) take(prefix string) bool {
	if !strings.HasPrefix(p.src[p.at:], prefix) {
		return false
	}
	p.at += len(prefix)
	return true
}

func (p *regexParser) next() rune {
	r, n := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += n
	return r
}

func (p *regexParser) alternate() (*regexNode, error) {
	if p.depth++; p.depth > depthMost {
		return nil, fmt.Errorf("groups deeper than %d", depthMost)
	}
	flags := p.flags
	defer func() { p.flags = flags; p.depth-- }()
	var subs []*regexNode
	for {
		n, err := p.concat()
		if err != nil {
			return nil, err
		}
		subs = append(subs, n)
		if !p.take("|") {
			break
		}
	}
	if len(subs) == 1 {
		return subs[0], nil
	}
	return &regexNode{op: nodeAlternate, subs: subs}, nil
}

func (p *regexParser) concat() (*regexNode, error) {
	n := &regexNode{op: nodeConcat}
	for p.more() && p.src[p.at] != '|' && p.src[p.at] != ')' {
		if p.flags.extended && p.skipComment() {
			continue
		}
		a, err := p.atom()
		if err != nil {
			return nil, err
		}
		if a == nil {
			continue
		}
		if a, err = p.quantified(a); err != nil {
			return nil, err
		}
		n.subs = append(n.subs, a)
	}
	return joinStrings(n), nil
}

// skipComment skips what the flag x ignores.
func (p *regexParser) skipComment() bool {
	switch {
	case strings.ContainsRune(" \t\n\r\f\v", rune(p.src[p.at])):
		p.at++
	case p.take("#"):
		for p.more() && p.next() != '\n' {
		}
	default:
		return false
	}
	return true
}

// joinStrings makes one node of neighbouring strings.
func joinStrings(n *regexNode) *regexNode {
	var subs []*regexNode
	for _, s := range n.subs {
		if k := len(subs); k > 0 && s.op == nodeString && subs[k-1].op == nodeString {
			subs[k-1] = &regexNode{op: nodeString, text: subs[k-1].text + s.text}
			continue
		}
		subs = append(subs, s)
	}
	if len(subs) == 1 {
		return subs[0]
	}
	return &regexNode{op: nodeConcat, subs: subs}
}

// quantified reads the quantifiers behind an atom.
func (p *regexParser) quantified(n *regexNode) (*regexNode, error) {
	for p.more() {
		if p.flags.extended && p.skipComment() {
			continue
		}
		r := &regexNode{op: nodeRepeat, subs: []*regexNode{n}}
		braces := false
		switch {
		case p.take("*"):
			r.max = -1
		case p.take("+"):
			r.min, r.max = 1, -1
		case p.take("?"):
			r.max = 1
		default:
			var ok bool
			if r.min, r.max, ok = p.braces(); !ok {
				return n, nil
			}
			if r.min > repeatMost || r.max > repeatMost || r.max >= 0 && r.min > r.max {
				return nil, fmt.Errorf("repeat {%d,%d}: want counts up to %d, the smaller first", r.min, r.max, repeatMost)
			}
			braces = true
		}
		switch {
		case braces && r.min == r.max && p.take("?"): // {n}? makes the repeat optional
			r = &regexNode{op: nodeRepeat, max: 1, subs: []*regexNode{r}}
		case p.take("?"):
			r.kind = lazy
		case !braces && p.take("+"): // behind braces it is one more quantifier
			r.kind = possessive
		}
		if n.op == nodeString {
			n.op, n.set = nodeSet, setOf(runeOf(n.text), p.flags.fold)
		}
		if p.depth++; p.depth > depthMost {
			return nil, fmt.Errorf("more than %d quantifiers and groups within each other", depthMost)
		}
		defer func() { p.depth-- }()
		n = r
	}
	return n, nil
}

func runeOf(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

// braces reads {n}, {n,}, {,m} or {n,m}; anything else in braces is text.
func (p *regexParser) braces() (least, most int, ok bool) {
	if !strings.HasPrefix(p.src[p.at:], "{") {
		return 0, 0, false
	}
	inner, _, closed := strings.Cut(p.src[p.at+1:], "}")
	a, b, comma := strings.Cut(inner, ",")
	if !closed || a == "" && b == "" {
		return 0, 0, false
	}
	count := func(s string, def int) int {
		if s == "" {
			return def
		}
		n, err := strconv.ParseUint(s, 10, 20)
		if err != nil {
			return -2
		}
		return int(n)
	}
	least, most = count(a, 0), count(b, -1)
	if !comma {
		most = least
	}
	if least == -2 || most == -2 {
		return 0, 0, false
	}
	p.at += len(inner) + 2
	return least, most, true
}

// atom reads one element; nil for one that only changes flags or is a comment.
func (p *regexParser) atom() (*regexNode, error) {
	if p.src[p.at] == '(' {
		return p.group()
	}
	if p.src[p.at] == '[' {
		p.at++
		set, err := p.class()
		if err != nil {
			return nil, err
		}
		return &regexNode{op: nodeSet, set: set.finish(p.flags.fold)}, nil
	}
	switch r := p.next(); r {
	case '.':
		all := &charSet{neg: true}
		if !p.flags.dotAll {
			all.ranges = []rune{'\n', '\n'}
		}
		return &regexNode{op: nodeSet, set: all.finish(false)}, nil
	case '^':
		return assert(func(s string, i int) bool { return i == 0 || s[i-1] == '\n' }), nil
	case '$':
		return assert(func(s string, i int) bool { return i == len(s) || s[i] == '\n' }), nil
	case '*', '+', '?':
		return nil, fmt.Errorf("nothing before %q to repeat", r)
	case '\\':
		return p.escape()
	default:
		return p.char(r), nil
	}
}

func (p *regexParser) char(r rune) *regexNode {
	if p.flags.fold && unicode.SimpleFold(r) != r {
		return &regexNode{op: nodeSet, set: setOf(r, true)}
	}
	return &regexNode{op: nodeString, text: string(r)}
}

func assert(test func(s string, i int) bool) *regexNode {
	return &regexNode{op: nodeAssert, test: test}
}

// group reads a group from its parenthesis on.
func (p *regexParser) group() (*regexNode, error) {
	p.at++
	n := &regexNode{op: nodeConcat}
	switch {
	case p.take("?#"):
		_, rest, ok := strings.Cut(p.src[p.at:], ")")
		if !ok {
			return nil, errors.New("comment without an end")
		}
		p.at = len(p.src) - len(rest)
		return nil, nil
	case p.take("?:"):
	case p.take("?="), p.take("?!"):
		n.op, n.neg = nodeLook, p.src[p.at-1] == '!'
	case p.take("?<="), p.take("?<!"):
		n.op, n.neg = nodeBehind, p.src[p.at-1] == '!'
	case p.take("?>"):
		n.op = nodeAtomic
	case p.take("?"):
		if named := strings.IndexByte(p.src[p.at:], '>'); p.take("<") && named > 1 {
			p.at += named
			break
		}
		return p.flagGroup()
	}
	sub, err := p.alternate()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, errors.New("missing )")
	}
	n.subs = []*regexNode{sub}
	if n.op == nodeBehind {
		least, most := width(sub)
		if most < 0 || most > repeatMost {
			return nil, errors.New("look-behind of unbounded length")
		}
		n.min, n.max = least, most
	}
	return n, nil
}

// flagGroup reads (?i:…) or (?i) behind its question mark.
func (p *regexParser) flagGroup() (*regexNode, error) {
	flags, on := p.flags, true
	for p.more() {
		switch r := p.next(); r {
		case '-':
			on = false
		case 'i':
			flags.fold = on
		case 'm':
			flags.dotAll = on
		case 'x':
			flags.extended = on
		case ')', ':':
			before := p.flags
			p.flags = flags
			n, err := p.alternate() // (?i) holds up to the end of the group that it stands in
			p.flags = before
			if err != nil || r == ')' {
				return n, err
			}
			if !p.take(")") {
				return nil, errors.New("missing )")
			}
			return &regexNode{op: nodeConcat, subs: []*regexNode{n}}, nil
		default:
			return nil, fmt.Errorf("group (?%c is not supported", r)
		}
	}
	return nil, errors.New("missing )")
}

// width returns the least and the greatest number of characters that a node matches, -1 for no limit.
func width(n *regexNode) (least, most int) {
	switch n.op {
	case nodeSet:
		return 1, 1
	case nodeString:
		k := utf8.RuneCountInString(n.text)
		return k, k
	case nodeAlternate:
		for i, s := range n.subs {
			a, b := width(s)
			if i == 0 {
				least, most = a, b
				continue
			}
			least = min(least, a)
			if most = max(most, b); b < 0 || most < 0 {
				most = -1
			}
		}
	case nodeConcat, nodeAtomic:
		for _, s := range n.subs {
			a, b := width(s)
			least += a
			if most >= 0 {
				most += b
			}
			if b < 0 {
				most = -1
			}
		}
	case nodeRepeat:
		a, b := width(n.subs[0])
		if n.max < 0 || b < 0 {
			return a * n.min, -1
		}
		return a * n.min, b * n.max
	}
	return least, most
}

// escape reads what stands behind a backslash, outside of a class.
func (p *regexParser) escape() (*regexNode, error) {
	if !p.more() {
		return nil, errors.New("backslash at the end")
	}
	start := p.at
	switch r := p.next(); r {
	case 'A':
		return assert(func(_ string, i int) bool { return i == 0 }), nil
	case 'z':
		return assert(func(s string, i int) bool { return i == len(s) }), nil
	case 'Z':
		return assert(func(s string, i int) bool { return i == len(s) || i == len(s)-1 && s[i] == '\n' }), nil
	case 'b', 'B':
		return assert(func(s string, i int) bool { return wordBorder(s, i) == (r == 'b') }), nil
	case 'N', 'O':
		all := &charSet{neg: true}
		if r == 'N' {
			all.ranges = []rune{'\n', '\n'}
		}
		return &regexNode{op: nodeSet, set: all.finish(false)}, nil
	case 'R':
		line := setOf('\n', false)
		line.ranges = []rune{0x0A, 0x0D, 0x85, 0x85, 0x2028, 0x2029}
		return &regexNode{op: nodeAtomic, subs: []*regexNode{{op: nodeAlternate, subs: []*regexNode{
			{op: nodeString, text: "\r\n"}, {op: nodeSet, set: line.finish(false)},
		}}}}, nil
	case '1', '2', '3', '4', '5', '6', '7', '8', '9', 'k', 'g', 'G', 'K', 'X', 'y', 'Y':
		return nil, fmt.Errorf("\\%c is not supported", r)
	}
	p.at = start
	set, r, err := p.classEscape(false)
	if err != nil {
		return nil, err
	}
	if set != nil {
		return &regexNode{op: nodeSet, set: set.finish(false)}, nil
	}
	return p.char(r), nil
}

func wordBorder(s string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:i])
	behind, _ := utf8.DecodeRuneInString(s[i:])
	return (i > 0 && isRubyWord(before)) != (i < len(s) && isRubyWord(behind))
}
