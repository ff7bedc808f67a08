package jinja

import (
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// maxBits bounds integers: a power tower would fill the memory.
const maxBits = 1 << 20

// number returns v as int, *big.Int or float64, nil if it is no number.
func number(v Value) any {
	switch v := v.(type) {
	case bool:
		if v {
			return 1
		}
		return 0
	case int, float64, *big.Int:
		return v
	}
	return nil
}

// small returns i as an int where it fits.
func small(i *big.Int) Value {
	if i.IsInt64() {
		return int(i.Int64())
	}
	if i.BitLen() > maxBits {
		fail("LimitError", "an integer of more than %d bits", maxBits)
	}
	return i
}

func toBig(n any) *big.Int {
	switch n := n.(type) {
	case int:
		return big.NewInt(int64(n))
	case *big.Int:
		return n
	}
	return nil
}

func toFloat(n any) float64 {
	switch n := n.(type) {
	case int:
		return float64(n)
	case *big.Int:
		f, _ := new(big.Float).SetInt(n).Float64()
		if math.IsInf(f, 0) {
			fail("OverflowError", "int too large to convert to float")
		}
		return f
	}
	return n.(float64)
}

// toInt returns an integer argument, for widths, counts and indexes.
func toInt(v Value) int {
	switch n := number(v).(type) {
	case int:
		return n
	case *big.Int:
		fail("OverflowError", "Python int too large to convert to C ssize_t")
	}
	failType("'%s' object cannot be interpreted as an integer", typeName(v))
	return 0
}

// compareNumbers compares exactly, across int and float.
func compareNumbers(a, b any) int {
	x, aFloat := a.(float64)
	y, bFloat := b.(float64)
	if !aFloat && !bFloat {
		p, pInt := a.(int)
		q, qInt := b.(int)
		if pInt && qInt {
			return cmpInt(p, q)
		}
		return toBig(a).Cmp(toBig(b))
	}
	if aFloat && math.IsNaN(x) || bFloat && math.IsNaN(y) {
		return unordered
	}
	if aFloat && bFloat {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return exact(a).Cmp(exact(b))
}

func cmpInt(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// exact returns a number as a big.Float without rounding.
func exact(n any) *big.Float {
	if f, ok := n.(float64); ok {
		return new(big.Float).SetFloat64(f)
	}
	i := toBig(n)
	return new(big.Float).SetPrec(uint(max(i.BitLen(), 64))).SetInt(i)
}

// operate applies a binary operator.
func (r *renderer) operate(op string, a, b Value) Value {
	na, nb := number(a), number(b)
	if na != nil && nb != nil {
		return arithmetic(r, op, na, nb)
	}
	s, aString := asString(a)
	if op == "%" && aString {
		return r.percent(a, s, b)
	}
	r.refuseUndefined(a, b)
	switch op {
	case "+":
		if v, ok := r.join(a, b); ok {
			return v
		}
	case "*":
		if v, ok := r.repeat(a, nb); ok {
			return v
		}
		if v, ok := r.repeat(b, na); ok {
			return v
		}
	}
	if op == "+" {
		switch a.(type) {
		case string, Markup, List, Tuple:
			failType("can only concatenate %s (not \"%s\") to %s", typeName(a), typeName(b), typeName(a))
		}
	}
	if op == "**" {
		op = "** or pow()"
	}
	failType("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	return nil
}

// join is + on strings, lists and tuples. Markup escapes the other side.
func (r *renderer) join(a, b Value) (Value, bool) {
	x, aString := asString(a)
	y, bString := asString(b)
	if aString && bString {
		r.charge(len(x) + len(y))
		_, aSafe := a.(Markup)
		_, bSafe := b.(Markup)
		if aSafe || bSafe {
			return Markup(r.str(r.escape(a)) + r.str(r.escape(b))), true
		}
		return x + y, true
	}
	switch x := a.(type) {
	case List:
		if y, ok := b.(List); ok {
			r.chargeItems(len(x) + len(y))
			return append(x[:len(x):len(x)], y...), true
		}
	case Tuple, *group:
		p, _ := asItems(a)
		if q, ok := asItems(b); ok {
			if _, isList := b.(List); !isList {
				r.chargeItems(len(p) + len(q))
				return Tuple(append(p[:len(p):len(p)], q...)), true
			}
		}
	}
	return nil, false
}

// repeat is * of a sequence with an integer.
func (r *renderer) repeat(v Value, times any) (Value, bool) {
	n, ok := times.(int)
	if !ok {
		return nil, false
	}
	n = max(n, 0)
	if s, ok := asString(v); ok {
		if len(s) > 0 && n > r.limits.Bytes/len(s) {
			r.charge(math.MaxInt / 2)
		}
		r.charge(len(s) * n)
		return like(v, strings.Repeat(s, n)), true
	}
	items, ok := asItems(v)
	if !ok {
		return nil, false
	}
	if len(items) > 0 && n > r.limits.Bytes/len(items) {
		r.charge(math.MaxInt / 2)
	}
	r.chargeItems(len(items) * n)
	out := make([]Value, 0, len(items)*n)
	for range n {
		out = append(out, items...)
	}
	if _, ok := v.(List); ok {
		return List(out), true
	}
	return Tuple(out), true
}

// like returns text with the type of v: Markup stays Markup.
func like(v Value, text string) Value {
	if _, ok := v.(Markup); ok {
		return Markup(text)
	}
	return text
}

func arithmetic(r *renderer, op string, a, b any) Value {
	_, aFloat := a.(float64)
	_, bFloat := b.(float64)
	if aFloat || bFloat {
		return floats(op, toFloat(a), toFloat(b))
	}
	if op == "**" {
		return r.power(a, b)
	}
	x, y := toBig(a), toBig(b)
	if p, ok := a.(int); ok {
		if q, ok := b.(int); ok {
			if v, ok := ints(op, p, q); ok {
				return v
			}
		}
	}
	r.step((x.BitLen() + y.BitLen()) >> 8)
	z := new(big.Int)
	switch op {
	case "+":
		return small(z.Add(x, y))
	case "-":
		return small(z.Sub(x, y))
	case "*":
		if x.BitLen()+y.BitLen() > 2*maxBits {
			fail("LimitError", "an integer of more than %d bits", maxBits)
		}
		return small(z.Mul(x, y))
	}
	if y.Sign() == 0 {
		fail("ZeroDivisionError", "%s", map[string]string{
			"/": "division by zero", "//": "integer division or modulo by zero", "%": "integer modulo by zero",
		}[op])
	}
	if op == "/" {
		f, _ := new(big.Rat).SetFrac(x, y).Float64()
		if math.IsInf(f, 0) {
			fail("OverflowError", "integer division result too large for a float")
		}
		return f
	}
	q, m := z.DivMod(x, y, new(big.Int)) // Euclidean: m >= 0
	if y.Sign() < 0 && m.Sign() != 0 {   // Python's remainder has the sign of the divisor
		q.Sub(q, big.NewInt(1))
		m.Add(m, y)
	}
	if op == "//" {
		return small(q)
	}
	return small(m)
}

// ints is the fast way for what cannot overflow.
func ints(op string, a, b int) (Value, bool) {
	const safe = 1 << 31
	if a <= -safe || a >= safe || b <= -safe || b >= safe {
		return nil, false
	}
	switch op {
	case "+":
		return a + b, true
	case "-":
		return a - b, true
	case "*":
		return a * b, true
	}
	if b == 0 {
		return nil, false
	}
	switch op {
	case "/":
		return float64(a) / float64(b), true
	case "//", "%":
		q, m := a/b, a%b
		if m != 0 && (m < 0) != (b < 0) {
			q, m = q-1, m+b
		}
		if op == "//" {
			return q, true
		}
		return m, true
	}
	return nil, false
}

func (r *renderer) power(a, b any) Value {
	base, exp := toBig(a), toBig(b)
	if exp.Sign() < 0 {
		if base.Sign() == 0 {
			fail("ZeroDivisionError", "0.0 cannot be raised to a negative power")
		}
		return floats("**", toFloat(a), toFloat(b))
	}
	if base.CmpAbs(big.NewInt(1)) <= 0 {
		if base.Sign() < 0 && exp.Bit(0) == 0 {
			return 1
		}
		if base.Sign() == 0 && exp.Sign() == 0 {
			return 1
		}
		return small(base)
	}
	if !exp.IsInt64() || exp.Int64() > int64(maxBits/base.BitLen()) {
		fail("LimitError", "an integer of more than %d bits", maxBits)
	}
	r.step(base.BitLen() * int(exp.Int64()) >> 6)
	return small(new(big.Int).Exp(base, exp, nil))
}

func floats(op string, a, b float64) Value {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "**":
		return floatPower(a, b)
	}
	if b == 0 {
		fail("ZeroDivisionError", "%s", map[string]string{
			"/": "float division by zero", "//": "float floor division by zero", "%": "float modulo",
		}[op])
	}
	if op == "/" {
		return a / b
	}
	m := math.Mod(a, b)
	if m != 0 && (m < 0) != (b < 0) {
		m += b
	} else if m == 0 {
		m = math.Copysign(0, b)
	}
	if op == "%" {
		return m
	}
	q := (a - m) / b
	if f := math.Floor(q); q-f > 0.5 {
		return f + 1
	} else if q != 0 {
		return f
	}
	return math.Copysign(0, a/b)
}

func floatPower(a, b float64) Value {
	if a == 0 && b < 0 {
		fail("ZeroDivisionError", "0.0 cannot be raised to a negative power")
	}
	if a < 0 && !math.IsInf(a, 0) && b != math.Trunc(b) {
		fail("ValueError", "complex numbers are not supported: a negative number to a fractional power")
	}
	f := math.Pow(a, b)
	if math.IsInf(f, 0) && !math.IsInf(a, 0) && !math.IsInf(b, 0) {
		fail("OverflowError", "(34, 'Numerical result out of range')")
	}
	return f
}

// slice is v[start:stop:step].
func (r *renderer) slice(v, start, stop, step Value) Value {
	var n int
	text, isText := asString(v)
	items, isSeq := asItems(v)
	rng, isRange := v.(*rangeValue)
	var runes []rune
	ascii := false
	switch {
	case isText:
		r.scan(text)
		n = utf8.RuneCountInString(text)
		ascii = n == len(text)
		if !ascii {
			r.charge(4 * n)
			runes = []rune(text)
		}
	case isSeq:
		n = len(items)
	case isRange:
		n = rng.n
	default:
		r.refuseUndefined(v)
		if _, ok := v.(*Dict); ok {
			failType("unhashable type: 'slice'")
		}
		failType("'%s' object is not subscriptable", typeName(v))
	}
	lo, hi, by := sliceBounds(n, start, stop, step)
	count := 0
	if by > 0 && lo < hi {
		count = (hi-lo-1)/by + 1
	} else if by < 0 && lo > hi {
		count = (lo-hi-1)/-by + 1
	}
	switch {
	case isText && ascii && by == 1:
		return like(v, text[lo:lo+count])
	case isText:
		var b strings.Builder
		r.charge(count)
		for i := range count {
			if ascii {
				b.WriteByte(text[lo+i*by])
			} else {
				b.WriteRune(runes[lo+i*by])
			}
		}
		return like(v, b.String())
	case isRange:
		return &rangeValue{rng.at(lo), rng.at(hi), rng.step * by, count}
	}
	var part []Value
	if by == 1 && count > 0 {
		part = items[lo : lo+count : lo+count]
	} else {
		r.chargeItems(count)
		part = make([]Value, count)
		for i := range part {
			part[i] = items[lo+i*by]
		}
	}
	if _, ok := v.(List); ok {
		return List(part)
	}
	return Tuple(part)
}

// sliceBounds clamps as Python's slice.indices does.
func sliceBounds(n int, start, stop, step Value) (lo, hi, by int) {
	index := func(v Value) int {
		switch i := number(v).(type) {
		case int:
			return i
		case *big.Int:
			return i.Sign() * math.MaxInt
		}
		failType("slice indices must be integers or None or have an __index__ method")
		return 0
	}
	by = 1
	if step != nil {
		if by = index(step); by == 0 {
			fail("ValueError", "slice step cannot be zero")
		}
		by = max(min(by, math.MaxInt/2), -math.MaxInt/2)
	}
	low, high := 0, n
	if by < 0 {
		low, high = -1, n-1
	}
	clamp := func(v Value, otherwise int) int {
		if v == nil {
			return otherwise
		}
		i := index(v)
		if i < 0 {
			i += n
		}
		return max(low, min(high, i))
	}
	if by > 0 {
		return clamp(start, low), clamp(stop, high), by
	}
	return clamp(start, high), clamp(stop, low), by
}
