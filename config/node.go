package config

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A run file is small. The limits keep a hostile one from costing time or memory: some of the parser's steps grow
// with the square of their input, and aliases multiply.
const (
	maxBytes  = 1 << 20
	maxTokens = 20_000
	maxDepth  = 32
	maxValues = 10_000 // after the aliases are expanded
)

// kind is the form of a value in the file.
type kind int

const (
	null   kind = iota
	broken      // reported already
	scalar
	list
	mapping
)

// node is a value of a file with aliases and merge keys resolved.
type node struct {
	kind  kind
	mark  Mark
	text  string // of a scalar, as written
	plain bool   // a scalar stands without quotes, a null is spelled out
	items []*node
	keys  []key
}

type key struct {
	name  string
	mark  Mark
	value *node
}

// have describes a value for the end of a message.
func (n *node) have() string {
	switch {
	case n.kind == null:
		return "nothing"
	case n.kind == list:
		return "a list"
	case n.kind == mapping:
		return "a section of keys"
	case n.plain:
		return clip(n.text)
	}
	return fmt.Sprintf("the text %q", clip(n.text))
}

// clip shortens a long text for a message.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:39]) + "…"
	}
	return s
}

// parse reads the one document of a YAML text; an empty one is nil.
func parse(text, file string) (n *node, errs Errors) {
	p := reader{file: file, anchors: map[string]*node{}}
	defer func() {
		if r := recover(); r != nil {
			n, errs = nil, Errors{{Mark: Mark{File: file}, Message: fmt.Sprintf("not YAML that can be read: %v", r)}}
		}
	}()
	text = strings.TrimPrefix(text, "\ufeff")
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		p.fail(Mark{File: file}, "want UTF-8 text; save the file in that encoding")
		return nil, p.errs
	}
	// The lexer counts the lines of quoted texts wrongly after a carriage return.
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	tokens := lexer.Tokenize(text)
	if len(tokens) > maxTokens {
		p.fail(p.mark(tokens[maxTokens]), "want at most %d YAML tokens", maxTokens)
		return nil, p.errs
	}
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		}
		if depth > maxDepth {
			p.fail(p.mark(t), "want at most %d levels", maxDepth)
			return nil, p.errs
		}
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		mark, message := Mark{File: file}, err.Error()
		var e yaml.Error
		if errors.As(err, &e) {
			message = e.GetMessage()
			if e.GetToken() != nil {
				mark = p.mark(e.GetToken())
			}
		}
		p.fail(mark, "not YAML: %s", message)
		return nil, p.errs
	}
	var body ast.Node
	for _, doc := range f.Docs {
		_, directive := doc.Body.(*ast.DirectiveNode)
		if doc.Body == nil || directive {
			continue
		}
		if body != nil {
			p.fail(p.mark(cmp.Or(doc.Start, doc.Body.GetToken())), "want one document, have a second one")
			return nil, p.errs
		}
		body = doc.Body
	}
	if body == nil {
		return nil, nil
	}
	n = p.node(body, "", 0)
	if p.values > maxValues {
		n = nil
	}
	return n, p.errs
}

// reader turns a syntax tree into nodes.
type reader struct {
	file    string
	anchors map[string]*node
	values  int
	errs    Errors
}

func (p *reader) mark(t *token.Token) Mark {
	return Mark{File: p.file, Line: t.Position.Line, Column: t.Position.Column}
}

func (p *reader) fail(m Mark, format string, args ...any) {
	p.errs = append(p.errs, &Error{Mark: m, Message: fmt.Sprintf(format, args...)})
}

// count admits more values; it reports the excess once.
func (p *reader) count(n int, m Mark) bool {
	before := p.values
	p.values += n
	if p.values > maxValues && before <= maxValues {
		p.fail(m, "want at most %d values after aliases are expanded", maxValues)
	}
	return p.values <= maxValues
}

func (p *reader) node(a ast.Node, path string, depth int) *node {
	if a == nil {
		return &node{}
	}
	m := p.mark(a.GetToken())
	out := &node{kind: broken, mark: m}
	if depth > maxDepth {
		p.fail(m, "want at most %d levels", maxDepth)
		return out
	}
	if !p.count(1, m) {
		return out
	}
	switch a := a.(type) {
	case *ast.NullNode:
		out.kind = null
		out.plain = a.Token.Type != token.ImplicitNullType
	case *ast.StringNode:
		t := a.Token.Type
		out.kind, out.text, out.plain = scalar, a.Value, t != token.SingleQuoteType && t != token.DoubleQuoteType
	case *ast.LiteralNode:
		out.kind, out.text = scalar, a.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text, out.plain = scalar, a.GetToken().Value, true
	case *ast.SequenceNode:
		out.kind = list
		for i, v := range a.Values {
			out.items = append(out.items, p.node(v, join(path, strconv.Itoa(i)), depth+1))
		}
	case *ast.MappingNode:
		out.kind = mapping
		if !a.IsFlowStyle && len(a.Values) > 0 {
			out.mark = p.mark(a.Values[0].Key.GetToken()) // the parser's own place of a block is its first colon
		}
		p.mapping(out, a.Values, path, depth)
	case *ast.MappingValueNode:
		out.kind, out.mark = mapping, p.mark(a.Key.GetToken())
		p.mapping(out, []*ast.MappingValueNode{a}, path, depth)
	case *ast.AnchorNode:
		out = p.node(a.Value, path, depth+1)
		p.anchors[a.Name.GetToken().Value] = out
	case *ast.AliasNode:
		name := a.Value.GetToken().Value
		target, ok := p.anchors[name]
		if !ok {
			p.fail(m, "no anchor &%s stands before this alias", name)
		} else if p.count(size(target), m) {
			return target
		}
	case *ast.TagNode:
		p.fail(m, "tags are not read, leave out %s", a.Start.Value)
	default:
		p.fail(m, "%s is not read here", strings.ToLower(a.Type().String()))
	}
	return out
}

// mapping fills n with the entries; merge keys give what the mapping itself lacks.
func (p *reader) mapping(n *node, entries []*ast.MappingValueNode, path string, depth int) {
	var merged []*node
	seen := map[string]Mark{}
	for _, e := range entries {
		m := p.mark(e.Key.GetToken())
		if e.Key.IsMergeKey() {
			v := p.node(e.Value, path, depth+1)
			if v.kind == list {
				merged = append(merged, v.items...)
			} else {
				merged = append(merged, v)
			}
			continue
		}
		name, ok := keyName(e.Key)
		if !ok {
			p.fail(m, "want a plain key before the colon")
			continue
		}
		if first, twice := seen[name]; twice {
			p.errs = append(p.errs, &Error{Mark: m, Path: join(path, name), Message: fmt.Sprintf("is given twice, first in line %d", first.Line)})
			continue
		}
		seen[name] = m
		n.keys = append(n.keys, key{name, m, p.node(e.Value, join(path, name), depth+1)})
	}
	for _, from := range merged {
		if from.kind != mapping && from.kind != broken {
			p.fail(from.mark, "<<: want a section of keys, have %s", from.have())
		}
		for _, k := range from.keys {
			if _, own := seen[k.name]; !own && p.count(1, k.mark) {
				seen[k.name] = k.mark
				n.keys = append(n.keys, k)
			}
		}
	}
}

// keyName returns the text of a mapping's key.
func keyName(k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, true
	}
	return "", false
}

// size is the number of values in a tree, up to just over the limit.
func size(n *node) int {
	total := 1
	for _, v := range n.items {
		if total <= maxValues {
			total += size(v)
		}
	}
	for _, k := range n.keys {
		if total <= maxValues {
			total += size(k.value)
		}
	}
	return total
}
