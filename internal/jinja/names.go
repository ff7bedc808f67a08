package jinja

import "maps"

// Jinja compiles the names of a frame (the whole template, or the body of a loop, macro, block ...) to variables. A
// name that a frame assigns outright, without having read it before and without an outer frame that knows it, starts
// out as missing in that frame: the caller's variable of that name is hidden from the first line on. Templates can
// see it, so the parser finds these names.

// frame lists the names that are hidden in a scope when it opens.
type frame struct{ hidden []string }

// enter opens the frame's scope inside s.
func (f *frame) enter(s *scope) *scope {
	inner := &scope{parent: s}
	f.hide(inner)
	return inner
}

func (f *frame) hide(s *scope) {
	for _, name := range f.hidden {
		s.set(name, unset{})
	}
}

// unset is the value of a hidden name that is not assigned yet.
type unset struct{}

// frameNames is what the parser knows of a frame.
type frameNames struct {
	*frame
	parent *frameNames
	known  map[string]bool
}

func (f *frameNames) knows(name string) bool {
	return f != nil && (f.known[name] || f.parent.knows(name))
}

// names follows a frame in the order of its text. The branches of an if are followed apart.
type names struct {
	frame  *frameNames
	seen   map[string]bool
	branch bool
}

func (n *names) load(name string) {
	n.seen[name] = true
	n.frame.known[name] = true
}

func (n *names) store(name string) {
	if !n.seen[name] && !n.branch {
		n.frame.hidden = append(n.frame.hidden, name)
	}
	n.load(name)
}

func (n *names) fork() *names { return &names{n.frame, maps.Clone(n.seen), true} }

func (n *names) merge(branches ...*names) {
	for _, b := range branches {
		maps.Copy(n.seen, b.seen)
	}
}

// within parses a part of the template that is a frame of its own.
func (p *parser) within(parent *names, parse func()) *frame {
	f := &frameNames{frame: &frame{}, known: map[string]bool{}}
	if parent != nil {
		f.parent = parent.frame
	}
	p.frames = append(p.frames, f)
	outer := p.names
	p.names = &names{frame: f, seen: map[string]bool{}}
	parse()
	p.names = outer
	return f.frame
}

// settle runs when all names are known: a name that an outer frame knows is not hidden.
func (p *parser) settle() {
	for _, f := range p.frames {
		kept := f.hidden[:0]
		for _, name := range f.hidden {
			if !f.parent.knows(name) {
				kept = append(kept, name)
			}
		}
		f.hidden = kept
	}
}
