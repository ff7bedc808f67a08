package jinja

// globals are the names that every template knows.
var globals map[string]Value

// dictFromKeys is dict.fromkeys.
var dictFromKeys = fn("fromkeys", "keys value?", fromKeys)

func init() {
	namespaces := free("namespace", func(r *renderer, a *arguments) Value {
		ns := &namespace{r.newDict(a)}
		for _, k := range ns.attrs.keys {
			if name, ok := asString(k); ok {
				checkNamespaceName(name)
			}
		}
		return ns
	})
	namespaces.class = "type"
	dict := free("dict", func(r *renderer, a *arguments) Value { return r.newDict(a) })
	dict.class = "TemplateDict"
	cyclers := free("cycler", func(_ *renderer, a *arguments) Value {
		if len(a.plain) == 0 {
			fail("RuntimeError", "at least one item has to be provided")
		}
		return &cycler{items: a.plain}
	})
	cyclers.class = "type"
	joiners := fn("joiner", "sep?", func(r *renderer, a []Value) Value { return &joiner{sep: or(a[0], ", ")} })
	joiners.class = "type"
	globals = map[string]Value{
		"range":     free("range", newRange),
		"dict":      dict,
		"namespace": namespaces,
		"cycler":    cyclers,
		"joiner":    joiners,
		"lipsum": fn("lipsum", "n? html? min? max?", func(_ *renderer, a []Value) Value {
			if n := toInt(or(a[0], 5)); n > 0 {
				fail("TemplateRuntimeError", "lipsum() is not supported: a chat template has no use for random text")
			}
			return Markup("")
		}),
		"raise_exception": fn("raise_exception", "message", func(r *renderer, a []Value) Value {
			fail("TemplateError", "%s", r.str(a[0]))
			return nil
		}),
		"strftime_now": fn("strftime_now", "format", func(r *renderer, a []Value) Value {
			s := strftime(r.now(), textArg(a[0]))
			r.charge(len(s))
			return s
		}),
	}
}

// newDict is dict(mapping or pairs, **names).
func (r *renderer) newDict(a *arguments) *Dict {
	out := NewDict()
	if len(a.plain) > 1 {
		failType("dict expected at most 1 argument, got %d", len(a.plain))
	}
	if len(a.plain) == 1 {
		r.refuseUndefined(a.plain[0])
		if d, ok := a.plain[0].(*Dict); ok {
			r.charge(64 * d.Len())
			out = d.Clone()
		} else {
			for i, p := range r.collect(a.plain[0]) {
				next := r.iterFor(p, "cannot convert dictionary update sequence element to a sequence: '%s'")
				kv := r.drain(next)
				if len(kv) != 2 {
					fail("ValueError", "dictionary update sequence element #%d has length %d; 2 is required", i, len(kv))
				}
				r.put(out, kv[0], kv[1])
			}
		}
	}
	for _, n := range a.named {
		out.Set(n.name, n.value)
	}
	return out
}

func fromKeys(r *renderer, a []Value) Value {
	out := NewDict()
	for _, k := range r.collect(a[0]) {
		r.put(out, k, or(a[1], nil))
	}
	return out
}

// maxRange is the sandbox's limit.
const maxRange = 100000

func newRange(_ *renderer, a *arguments) Value {
	if len(a.named) > 0 {
		failType("range() takes no keyword arguments")
	}
	g := &rangeValue{step: 1}
	switch len(a.plain) {
	case 1:
		g.stop = toInt(a.plain[0])
	case 2, 3:
		g.start, g.stop = toInt(a.plain[0]), toInt(a.plain[1])
		if len(a.plain) == 3 {
			g.step = toInt(a.plain[2])
		}
	default:
		failType("range expected at least 1 argument, got %d", len(a.plain))
	}
	if g.step == 0 {
		fail("ValueError", "range() arg 3 must not be zero")
	}
	// Unsigned, since the distance of two ints may not fit an int.
	var distance, step uint64
	switch {
	case g.step > 0 && g.start < g.stop:
		distance, step = uint64(g.stop)-uint64(g.start), uint64(g.step)
	case g.step < 0 && g.start > g.stop:
		distance, step = uint64(g.start)-uint64(g.stop), -uint64(g.step)
	default:
		return g
	}
	n := (distance-1)/step + 1
	if n > maxRange {
		fail("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	g.n = int(n)
	return g
}

// cycler hands out its items in turn.
type cycler struct {
	items []Value
	at    int
}

func (c *cycler) attr(name string) (Value, bool) {
	switch name {
	case "next":
		return fn("next", "", func(*renderer, []Value) Value {
			v := c.items[c.at]
			c.at = (c.at + 1) % len(c.items)
			return v
		}), true
	case "reset":
		return fn("reset", "", func(*renderer, []Value) Value {
			c.at = 0
			return nil
		}), true
	case "current":
		return c.items[c.at], true
	case "items":
		return Tuple(c.items), true
	case "pos":
		return c.at, true
	}
	return nil, false
}

// joiner yields nothing the first time it is called, then its separator.
type joiner struct {
	sep  Value
	used bool
}

func (j *joiner) call() Value {
	if !j.used {
		j.used = true
		return ""
	}
	return j.sep
}
