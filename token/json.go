package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"
)

// Vocabularies and merges make up nearly all of a tokenizer.json. Reading them by hand takes a fifth of the time of
// reflection. Package json has checked the syntax before.

// idMap is an object from tokens to ids.
type idMap map[string]int32

// UnmarshalJSON implements json.Unmarshaler.
func (m *idMap) UnmarshalJSON(b []byte) error {
	r := jsonReader{b}
	if !r.take('{') {
		return fmt.Errorf("want an object from tokens to ids, have %.20s", b)
	}
	*m = make(idMap, bytes.Count(b, []byte{':'}))
	for !r.take('}') {
		token, err := r.string()
		if err != nil {
			return err
		}
		r.take(':')
		id, ok := r.int()
		if !ok {
			return fmt.Errorf("token %q: want an id", token)
		}
		(*m)[token] = id
		r.take(',')
	}
	return nil
}

// mergeList is an array of merges, each "a b" or ["a", "b"].
type mergeList [][2]string

// UnmarshalJSON implements json.Unmarshaler.
func (m *mergeList) UnmarshalJSON(b []byte) error {
	r := jsonReader{b}
	if !r.take('[') {
		return fmt.Errorf("want an array of merges, have %.20s", b)
	}
	for !r.take(']') {
		var pair [2]string
		if r.take('[') {
			n := 0
			for ; !r.take(']'); n++ {
				s, err := r.string()
				if err != nil {
					return fmt.Errorf("merge %d: %w", len(*m), err)
				}
				if n < 2 {
					pair[n] = s
				}
				r.take(',')
			}
			if n != 2 {
				return fmt.Errorf("merge %d: want two tokens, have %d", len(*m), n)
			}
		} else {
			line, err := r.string()
			if err == nil {
				pair, err = splitMerge(line)
			}
			if err != nil {
				return fmt.Errorf("merge %d: %w", len(*m), err)
			}
		}
		*m = append(*m, pair)
		r.take(',')
	}
	return nil
}

// jsonReader reads JSON of valid syntax.
type jsonReader struct{ b []byte }

func (r *jsonReader) skipSpace() {
	for len(r.b) > 0 && (r.b[0] == ' ' || r.b[0] == '\n' || r.b[0] == '\r' || r.b[0] == '\t') {
		r.b = r.b[1:]
	}
}

// take reads one character if it comes next.
func (r *jsonReader) take(c byte) bool {
	r.skipSpace()
	if len(r.b) == 0 || r.b[0] != c {
		return false
	}
	r.b = r.b[1:]
	return true
}

func (r *jsonReader) string() (string, error) {
	r.skipSpace()
	if len(r.b) == 0 || r.b[0] != '"' {
		return "", fmt.Errorf("want a string, have %.20s", r.b)
	}
	for i := 1; i < len(r.b); i++ {
		switch r.b[i] {
		case '\\':
			i++
		case '"':
			raw := r.b[:i+1]
			r.b = r.b[i+1:]
			if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
				return string(raw[1:i]), nil
			}
			var s string
			err := json.Unmarshal(raw, &s)
			return s, err
		}
	}
	return "", fmt.Errorf("string without an end: %.20s", r.b)
}

// int reads a whole number that fits in an id.
func (r *jsonReader) int() (int32, bool) {
	r.skipSpace()
	negative := r.take('-')
	n, i := int64(0), 0
	for ; i < len(r.b) && r.b[i] >= '0' && r.b[i] <= '9'; i++ {
		n = min(10*n+int64(r.b[i]-'0'), math.MaxInt32)
	}
	r.b = r.b[i:]
	if negative {
		n = -n
	}
	return int32(n), i > 0 && (len(r.b) == 0 || r.b[0] != '.' && r.b[0] != 'e' && r.b[0] != 'E')
}
