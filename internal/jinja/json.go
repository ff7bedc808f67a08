package jinja

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxJSONDepth bounds the nesting of data.
const maxJSONDepth = 500

// FromJSON reads one JSON value. Objects keep the order of their keys, and numbers without fraction and exponent
// are integers of any size, as in Python.
func FromJSON(data []byte) (Value, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeJSON(dec, maxJSONDepth)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("json: text after the value at byte %d", dec.InputOffset())
	}
	return v, nil
}

func decodeJSON(dec *json.Decoder, depth int) (Value, error) {
	if depth == 0 {
		return nil, fmt.Errorf("json: more than %d levels of nesting", maxJSONDepth)
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return jsonNumber(string(t))
	case json.Delim:
		if t == '[' {
			list := List{}
			for dec.More() {
				v, err := decodeJSON(dec, depth-1)
				if err != nil {
					return nil, err
				}
				list = append(list, v)
			}
			_, err := dec.Token()
			return list, err
		}
		d := NewDict()
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := decodeJSON(dec, depth-1)
			if err != nil {
				return nil, err
			}
			d.Set(key.(string), v)
		}
		_, err := dec.Token()
		return d, err
	}
	return t, nil // string, bool or nil
}

func jsonNumber(s string) (Value, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, fmt.Errorf("json: number %s: %w", s, err)
		}
		return f, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	if len(s) > 4300 {
		return nil, fmt.Errorf("json: an integer of %d digits; want at most 4300", len(s))
	}
	i, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("json: number %s", s)
	}
	return i, nil
}

// ToJSON writes data (None, bool, numbers, strings, lists and dicts) as compact JSON, keys in their order.
func ToJSON(v Value) (text []byte, err error) {
	r := &renderer{limits: Limits{Steps: math.MaxInt, Bytes: math.MaxInt, Depth: 2 * maxJSONDepth}}
	defer func() { err = recovered(recover(), &r.line) }()
	w := &jsonWriter{r: r, item: ",", key: ":"}
	w.value(v, 0)
	return []byte(w.b.String()), nil
}

// toJSON is the tojson filter: Python's json.dumps.
func toJSON(r *renderer, a []Value) Value {
	w := &jsonWriter{r: r, item: ", ", key: ": "}
	w.ascii = r.truth(or(a[1], false))
	w.sort = r.truth(or(a[4], false))
	if indent := or(a[2], nil); indent != nil {
		w.lines, w.item = true, ","
		if s, ok := asString(indent); ok {
			w.indent = s
		} else {
			n := max(toInt(indent), 0)
			r.fill(n, " ")
			w.indent = strings.Repeat(" ", n)
		}
	}
	if seps := or(a[3], nil); seps != nil {
		pair := r.collect(seps)
		if len(pair) != 2 {
			fail("ValueError", "not enough values to unpack (expected 2, got %d)", len(pair))
		}
		w.item, w.key = textArg(pair[0]), textArg(pair[1])
	}
	w.value(a[0], 0)
	return w.b.String()
}

type jsonWriter struct {
	r         *renderer
	b         strings.Builder
	ascii     bool
	sort      bool
	lines     bool
	indent    string
	item, key string
}

func (w *jsonWriter) value(v Value, level int) {
	w.r.step(1)
	if items, ok := asItems(v); ok {
		w.container('[', ']', len(items), level, func(i int) { w.value(items[i], level+1) })
		return
	}
	switch v := v.(type) {
	case *Dict:
		order := make([]Value, v.Len())
		for i, k := range v.keys {
			order[i] = Tuple{k, v.values[i]}
		}
		if w.sort {
			w.r.sort(order, func(p Value) Value { return p.(Tuple)[0] }, false)
		}
		w.container('{', '}', len(order), level, func(i int) {
			p := order[i].(Tuple)
			if !isString(p[0]) && p[0] != nil && number(p[0]) == nil {
				failType("keys must be str, int, float, bool or None, not %s", typeName(p[0]))
			}
			key, isText := asString(p[0])
			if !isText {
				key = w.scalar(p[0])
			}
			w.text(key)
			w.write(w.key)
			w.value(p[1], level+1)
		})
	case string:
		w.text(v)
	case Markup:
		w.text(string(v))
	default:
		w.write(w.scalar(v))
	}
}

func (w *jsonWriter) write(s string) {
	w.r.charge(len(s))
	w.b.WriteString(s)
}

// scalar writes what is neither text nor a container.
func (w *jsonWriter) scalar(v Value) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case *big.Int:
		return w.r.repr(v)
	case float64:
		switch {
		case math.IsNaN(v):
			return "NaN"
		case math.IsInf(v, 1):
			return "Infinity"
		case math.IsInf(v, -1):
			return "-Infinity"
		}
		return floatRepr(v)
	}
	failType("Object of type %s is not JSON serializable", typeName(v))
	return ""
}

func (w *jsonWriter) container(open, end byte, n, level int, item func(int)) {
	w.r.enter()
	w.b.WriteByte(open)
	for i := range n {
		if i > 0 {
			w.write(w.item)
		}
		w.newline(level + 1)
		item(i)
	}
	if n > 0 {
		w.newline(level)
	}
	w.b.WriteByte(end)
	w.r.depth--
}

func (w *jsonWriter) newline(level int) {
	if w.lines {
		w.write("\n")
		w.r.charge(level * len(w.indent))
		w.b.WriteString(strings.Repeat(w.indent, level))
	}
}

// text writes a string with Python's escapes: none for HTML, none outside ASCII unless asked for.
func (w *jsonWriter) text(s string) {
	w.r.charge(len(s) + 2)
	w.b.WriteByte('"')
	for _, c := range s {
		if i := slices.Index([]rune("\"\\\n\r\t\b\f"), c); i >= 0 {
			w.b.WriteString([]string{`\"`, `\\`, `\n`, `\r`, `\t`, `\b`, `\f`}[i])
			continue
		}
		switch {
		case c < ' ' || w.ascii && c >= 0x7f && c < 0x10000:
			fmt.Fprintf(&w.b, `\u%04x`, c)
		case w.ascii && c >= 0x10000:
			hi, lo := utf16.EncodeRune(c)
			fmt.Fprintf(&w.b, `\u%04x\u%04x`, hi, lo)
		default:
			w.b.WriteRune(c)
		}
	}
	w.b.WriteByte('"')
}
