package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tunesmith/internal/nearest"
)

// scan reads a scalar into v and returns what is wrong with it, or "".
func (f *form) scan(r rule, n *node, v reflect.Value) string {
	switch f.shape {
	case text:
		if len(r.enum) > 0 && !slices.Contains(r.enum, n.text) {
			return fmt.Sprintf("want one of %s, have %s%s", strings.Join(r.enum, ", "), n.have(), nearest.Hint(n.text, r.enum))
		}
		v.SetString(n.text)
		return ""
	case custom:
		target := reflect.New(f.typ)
		target.Elem().Set(v)
		if err := target.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.text)); err != nil {
			return err.Error()
		}
		v.Set(target.Elem())
		return ""
	}
	if !n.plain {
		return fmt.Sprintf("want %s, have %s", article(f), n.have())
	}
	switch f.shape {
	case boolean:
		switch n.text {
		case "true", "True", "TRUE":
			v.SetBool(true)
		case "false", "False", "FALSE":
			v.SetBool(false)
		default:
			return "want true or false, have " + n.have()
		}
	case duration:
		x, err := time.ParseDuration(n.text)
		if err != nil {
			return fmt.Sprintf("want %s, have %s", article(f), n.have())
		}
		if want := r.breach(x.Seconds()); want != "" {
			return fmt.Sprintf("want %s seconds, have %s", want, n.have())
		}
		v.SetInt(int64(x))
	case number:
		x, ok := parseFloat(n.text)
		if !ok || v.OverflowFloat(x) {
			return fmt.Sprintf("want a finite number, have %s", n.have())
		}
		if want := r.breach(x); want != "" {
			return fmt.Sprintf("want %s, have %s", want, n.have())
		}
		v.SetFloat(x)
	case integer:
		return f.scanInt(r, n, v)
	}
	return ""
}

func (f *form) scanInt(r rule, n *node, v reflect.Value) string {
	negative, magnitude, ok := parseInt(n.text)
	if !ok {
		return "want an integer, have " + n.have()
	}
	x := float64(magnitude)
	if negative {
		x = -x
	}
	if want := r.breach(x); want != "" {
		return fmt.Sprintf("want %s, have %s", want, n.have())
	}
	bits := f.typ.Bits()
	if v.CanUint() {
		if negative && magnitude > 0 || v.OverflowUint(magnitude) {
			return fmt.Sprintf("want an integer from 0 to %d, have %s", uint64(math.MaxUint64)>>(64-bits), n.have())
		}
		v.SetUint(magnitude)
		return ""
	}
	limit := uint64(1) << (bits - 1)
	if !negative && magnitude >= limit || magnitude > limit {
		return fmt.Sprintf("want an integer from -%d to %d, have %s", limit, limit-1, n.have())
	}
	if negative {
		v.SetInt(-int64(magnitude))
	} else {
		v.SetInt(int64(magnitude))
	}
	return ""
}

// article puts the form's article before it.
func article(f *form) string {
	s := f.String()
	switch {
	case f.words != "" || s == "text" || s == "true or false":
		return s
	case f.shape == integer:
		return "an " + s
	}
	return "a " + s
}

var (
	decimal = regexp.MustCompile(`^[-+]?(?:0|[1-9]\d*(?:_\d+)*|)(?:\.\d*)?(?:[eE][-+]?\d{1,5})?$`)
	based   = regexp.MustCompile(`^[-+]?0[xob][0-9a-fA-F]+(?:_[0-9a-fA-F]+)*$`)
)

// parseFloat reads a decimal number: 2e-5, .5, 1_000. A leading zero, which is octal to some readers, is refused.
func parseFloat(s string) (float64, bool) {
	if !decimal.MatchString(s) || !strings.ContainsAny(s, "0123456789") {
		return 0, false
	}
	x, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return x, err == nil
}

// parseInt reads an integer: 1000, 1_000, 1e3, 0x3e8.
func parseInt(s string) (negative bool, magnitude uint64, ok bool) {
	negative = strings.HasPrefix(s, "-")
	digits := strings.ReplaceAll(strings.TrimLeft(s, "+-"), "_", "")
	if based.MatchString(s) {
		x, err := strconv.ParseUint(digits, 0, 64)
		return negative, x, err == nil
	}
	f, ok := parseFloat(s)
	if !ok || f != math.Trunc(f) {
		return false, 0, false
	}
	if x, err := strconv.ParseUint(digits, 10, 64); err == nil {
		return negative, x, true
	}
	// Beyond 2^53 an exponent form need not be exact.
	if f = math.Abs(f); f > 1<<53 {
		return false, 0, false
	}
	return negative, uint64(f), true
}

// Bytes is a size in bytes, written as a number with or without a unit: 512MiB, 2GB, 4096.
type Bytes int64

var units = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}}

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s, size := strings.TrimSpace(string(text)), int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, size = strings.TrimSpace(rest), u.size
			break
		}
	}
	x, ok := parseFloat(s)
	if x *= float64(size); !ok || x < 0 || x >= math.MaxInt64 {
		return fmt.Errorf("want a size such as 512MiB or 2GB, have %s", clip(string(text)))
	}
	*b = Bytes(math.Round(x))
	return nil
}

// MarshalText writes the size in the largest binary unit that divides it.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

func (b Bytes) String() string {
	for _, u := range slices.Backward(units[:4]) {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
