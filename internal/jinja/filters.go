package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// filters are what may stand after a bar. Later files add to the table.
var filters = map[string]*function{}

func addFilters(table map[string]func(r *renderer, a []Value) Value) {
	for signature, f := range table {
		name, params, _ := strings.Cut(signature, " ")
		filters[name] = fn(name, params, f)
	}
}

func alias(table map[string]*function, names map[string]string) {
	for name, of := range names {
		table[name] = table[of]
	}
}

// filterArgument fails as Jinja does on an argument that a filter cannot take.
func filterArgument(format string, args ...any) { fail("FilterArgumentError", format, args...) }

func init() {
	addFilters(map[string]func(r *renderer, a []Value) Value{
		"abs x":         absolute,
		"attr obj name": attrFilter,
		"default value default_value? boolean?": func(r *renderer, a []Value) Value {
			_, undefined := a[0].(*Undefined)
			if undefined || r.truth(or(a[2], false)) && !r.truth(a[0]) {
				return or(a[1], "")
			}
			return a[0]
		},
		"float value default?":     floatFilter,
		"int value default? base?": intFilter,
		"length obj": func(r *renderer, a []Value) Value {
			n, ok := r.length(a[0])
			if !ok {
				failType("object of type '%s' has no len()", typeName(a[0]))
			}
			return n
		},
		"round value precision? method?":                        roundFilter,
		"filesizeformat value binary?":                          fileSize,
		"tojson x ensure_ascii? indent? separators? sort_keys?": toJSON,
		"string object": func(r *renderer, a []Value) Value {
			if isString(a[0]) {
				return a[0]
			}
			return r.str(a[0])
		},
		"safe value": func(r *renderer, a []Value) Value { return Markup(r.str(a[0])) },
		"escape s":   func(r *renderer, a []Value) Value { return r.escape(a[0]) },
		"forceescape value": func(r *renderer, a []Value) Value {
			return r.escape(r.str(a[0]))
		},
		"pprint value": func(r *renderer, a []Value) Value { return r.pretty(a[0]) },
	})
	filters["format"] = free("format", func(r *renderer, a *arguments) Value {
		self := a.plain[0]
		if !isString(self) {
			self = r.str(self)
		}
		s, _ := asString(self)
		if len(a.named) == 0 {
			return r.percent(self, s, Tuple(a.plain[1:]))
		}
		if len(a.plain) > 1 {
			filterArgument("can't handle positional and keyword arguments at the same time")
		}
		d := NewDict()
		for _, n := range a.named {
			d.Set(n.name, n.value)
		}
		return r.percent(self, s, d)
	})
	alias(filters, map[string]string{"d": "default", "count": "length", "e": "escape"})
}

func absolute(r *renderer, a []Value) Value {
	switch n := number(a[0]).(type) {
	case int:
		if n < 0 {
			return arithmetic(r, "-", 0, n)
		}
		return n
	case *big.Int:
		return small(new(big.Int).Abs(n))
	case float64:
		return math.Abs(n)
	}
	failType("bad operand type for abs(): '%s'", typeName(a[0]))
	return nil
}

func attrFilter(r *renderer, a []Value) Value {
	name, ok := asString(a[1])
	if !ok {
		failType("attribute name must be string, not '%s'", typeName(a[1]))
	}
	r.refuseUndefined(a[0])
	if v, ok := r.attribute(a[0], name); ok {
		return v
	}
	return &Undefined{of: a[0], has: true, name: name}
}

// parseInt reads Python's int(s, base): signs, underscores, white space and, where the base allows, a prefix.
func parseInt(s string, base int) (*big.Int, bool) {
	s = strings.TrimFunc(s, isSpace)
	sign := signAt(s, 0)
	s = s[len(sign):]
	if len(s) > 1 && s[0] == '0' {
		prefix := map[byte]int{'b': 2, 'o': 8, 'x': 16}[s[1]|0x20]
		if prefix != 0 && (base == 0 || base == prefix) {
			base, s = prefix, s[2:]
			s = strings.TrimPrefix(s, "_")
		} else if base == 0 && strings.Trim(s, "0_") != "" {
			return nil, false
		}
	}
	if base == 0 {
		base = 10
	}
	if s == "" || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") || signAt(s, 0) != "" || len(s) > 4300 {
		return nil, false
	}
	i, ok := new(big.Int).SetString(strings.ReplaceAll(s, "_", ""), base)
	if ok && sign == "-" {
		i.Neg(i)
	}
	return i, ok
}

// parseFloat reads Python's float(s).
func parseFloat(s string) (float64, bool) {
	s = strings.TrimFunc(s, isSpace)
	if strings.ContainsAny(s, "xXpP") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// asFloat is Python's float(v), and whether it works.
func asFloat(v Value) (f float64, ok bool) {
	if s, isText := asString(v); isText {
		return parseFloat(s)
	}
	n := number(v)
	if n == nil {
		return 0, false
	}
	return toFloat(n), true
}

func intFilter(r *renderer, a []Value) Value {
	r.refuseUndefined(a[0])
	base := toInt(or(a[2], 10))
	if s, ok := asString(a[0]); ok {
		if base != 0 && (base < 2 || base > 36) {
			return or(a[1], 0)
		}
		if i, ok := parseInt(s, base); ok {
			return small(i)
		}
		if f, ok := parseFloat(s); ok && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return truncate(f)
		}
		return or(a[1], 0)
	}
	switch n := number(a[0]).(type) {
	case int, *big.Int:
		return n
	case float64:
		if math.IsInf(n, 0) {
			fail("OverflowError", "cannot convert float infinity to integer")
		}
		if !math.IsNaN(n) {
			return truncate(n)
		}
	}
	return or(a[1], 0)
}

func floatFilter(r *renderer, a []Value) Value {
	r.refuseUndefined(a[0])
	if f, ok := asFloat(a[0]); ok {
		return f
	}
	return or(a[1], 0.0)
}

// roundFilter rounds half to even, on the exact decimal value, as Python does.
func roundFilter(r *renderer, a []Value) Value {
	method := r.str(or(a[2], "common"))
	precision := toInt(or(a[1], 0))
	if method != "common" && method != "ceil" && method != "floor" {
		filterArgument("method must be common, ceil or floor")
	}
	n := number(a[0])
	if n == nil {
		if method != "common" {
			r.refuseUndefined(a[0])
		}
		failType("type %s doesn't define __round__ method", typeName(a[0]))
	}
	if method != "common" {
		scale := math.Pow(10, float64(precision))
		f := toFloat(n) * scale
		if method == "ceil" {
			return math.Ceil(f) / scale
		}
		return math.Floor(f) / scale
	}
	f, isFloat := n.(float64)
	if !isFloat {
		if precision >= 0 {
			return n
		}
		return roundInt(r, toBig(n), -precision)
	}
	if precision > 400 || math.IsNaN(f) || math.IsInf(f, 0) {
		return f
	}
	if precision < -400 {
		return math.Copysign(0, f)
	}
	if precision >= 0 {
		out, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
		return out
	}
	exact, _ := new(big.Float).SetFloat64(f).Rat(nil)
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-precision)), nil)
	out, _ := new(big.Rat).SetInt(new(big.Int).Mul(roundRat(exact, scale), scale)).Float64()
	return math.Copysign(out, f)
}

func roundInt(r *renderer, i *big.Int, digits int) Value {
	if digits > i.BitLen() {
		return 0
	}
	r.step(digits)
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)
	return small(new(big.Int).Mul(roundRat(new(big.Rat).SetInt(i), scale), scale))
}

// roundRat returns x / scale rounded half to even.
func roundRat(x *big.Rat, scale *big.Int) *big.Int {
	q := new(big.Rat).Quo(x, new(big.Rat).SetInt(scale))
	twice := new(big.Int).Lsh(q.Num(), 1)
	twice.Add(twice, q.Denom())
	den := new(big.Int).Lsh(q.Denom(), 1)
	out, rest := new(big.Int).DivMod(twice, den, new(big.Int)) // floor(q + 1/2)
	if rest.Sign() == 0 && out.Bit(0) == 1 {
		out.Sub(out, big.NewInt(1))
	}
	return out
}

func fileSize(r *renderer, a []Value) Value {
	r.refuseUndefined(a[0])
	n, ok := asFloat(a[0])
	if !ok {
		if !isString(a[0]) {
			failType("float() argument must be a string or a real number, not '%s'", typeName(a[0]))
		}
		fail("ValueError", "could not convert string to float: %s", r.repr(a[0]))
	}
	base, units := 1000.0, "kB MB GB TB PB EB ZB YB"
	if r.truth(or(a[1], false)) {
		base, units = 1024, "KiB MiB GiB TiB PiB EiB ZiB YiB"
	}
	if n == 1 {
		return "1 Byte"
	}
	if n < base {
		return r.repr(truncate(n)) + " Bytes"
	}
	n /= base
	names := strings.Fields(units)
	for n >= base && len(names) > 1 {
		n, names = n/base, names[1:]
	}
	return strconv.FormatFloat(n, 'f', 1, 64) + " " + names[0]
}

// pretty is pprint.pformat: one line of at most 80 characters, else one item a line. Keys are sorted.
func (r *renderer) pretty(v Value) string {
	var b strings.Builder
	r.writePretty(&b, v, 0, 0)
	return b.String()
}

func (r *renderer) writePretty(b *strings.Builder, v Value, indent, after int) {
	r.enter()
	defer func() { r.depth-- }()
	flat := r.repr(r.sortedKeys(v))
	d, isDict := v.(*Dict)
	items, isSeq := asItems(v)
	if len(flat) <= 80-indent-after || !isDict && !isSeq {
		b.WriteString(flat)
		return
	}
	if isDict {
		d = r.sortedKeys(d).(*Dict)
		b.WriteByte('{')
		for i, k := range d.keys {
			if i > 0 {
				b.WriteString(",\n" + strings.Repeat(" ", indent+1))
			}
			key := r.repr(k) + ": "
			b.WriteString(key)
			rest := 1
			if i == len(d.keys)-1 {
				rest = after + 1
			}
			r.writePretty(b, d.values[i], indent+1+runeCount(key), rest)
		}
		b.WriteByte('}')
	} else {
		open, end := "[", "]"
		if _, ok := v.(List); !ok {
			open, end = "(", ")"
			if len(items) == 1 {
				end = ",)"
			}
		}
		b.WriteString(open)
		for i, item := range items {
			if i > 0 {
				b.WriteString(",\n" + strings.Repeat(" ", indent+1))
			}
			rest := 1
			if i == len(items)-1 {
				rest = after + len(end)
			}
			r.writePretty(b, item, indent+1, rest)
		}
		b.WriteString(end)
	}
	r.charge(b.Len())
}

// sortedKeys returns v with the keys of its dicts in order, as pprint prints them.
func (r *renderer) sortedKeys(v Value) Value {
	r.step(1)
	r.enter()
	defer func() { r.depth-- }()
	switch v := v.(type) {
	case *Dict:
		pairs := make([]Value, v.Len())
		for i, k := range v.keys {
			pairs[i] = Tuple{k, r.sortedKeys(v.values[i])}
		}
		byKey := func(p Value) Value { return p.(Tuple)[0] }
		if try(r, func() { r.sort(pairs, byKey, false) }) != nil {
			r.sort(pairs, func(p Value) Value { return Tuple{typeName(byKey(p)), r.repr(byKey(p))} }, false)
		}
		out := NewDict()
		for _, p := range pairs {
			r.put(out, p.(Tuple)[0], p.(Tuple)[1])
		}
		return out
	case List:
		out := make(List, len(v))
		for i, x := range v {
			out[i] = r.sortedKeys(x)
		}
		return out
	}
	return v
}
