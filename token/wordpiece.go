package token

import (
	"fmt"
	"unicode/utf8"
)

// wordPiece takes the longest token that begins a word, then the longest that goes on, to the end; a word that
// cannot be taken apart so, or is too long, is unknown as a whole (BERT).
type wordPiece struct {
	vocabulary
	heads, tails trie // tails without their prefix
	unk          int32
	longest      int // most characters of a word
}

// vocabulary is a list of tokens.
type vocabulary struct {
	ids    map[string]int32
	tokens []string // by id
}

func (v *vocabulary) id(token string) (int, bool) {
	id, ok := v.ids[token]
	return int(id), ok
}

func (v *vocabulary) token(id int) (string, bool) {
	if id < 0 || id >= len(v.tokens) {
		return "", false
	}
	s := v.tokens[id]
	if have, ok := v.ids[s]; !ok || int(have) != id {
		return "", false
	}
	return s, true
}

func (v *vocabulary) count() int { return len(v.ids) }
func (v *vocabulary) limit() int { return len(v.tokens) }

// newVocabulary reads the vocabulary and the id of the unknown token.
func newVocabulary(c *component, unk string) (v vocabulary, unkID int32, err error) {
	c.decode("vocab", (*idMap)(&v.ids))
	unk = c.text("unk_token", unk)
	if c.first != nil {
		return v, 0, c.err()
	}
	if v.tokens, err = byID(v.ids); err != nil {
		return v, 0, fmt.Errorf("%s: %w", c.kind, err)
	}
	unkID, ok := v.ids[unk]
	if !ok {
		return v, 0, fmt.Errorf("%s: unk_token %q is not in the vocabulary", c.kind, unk)
	}
	return v, unkID, nil
}

func newModelWordPiece(c *component) (*wordPiece, error) {
	v, unk, err := newVocabulary(c, "[UNK]")
	if err != nil {
		return nil, err
	}
	m := &wordPiece{vocabulary: v, unk: unk, longest: c.int("max_input_chars_per_word", 100)}
	m.index(c.text("continuing_subword_prefix", "##"))
	return m, c.err()
}

func (m *wordPiece) index(prefix string) {
	for s, id := range m.ids {
		if s != "" {
			m.heads.add(s, id)
		}
		if len(s) > len(prefix) && s[:len(prefix)] == prefix {
			m.tails.add(s[len(prefix):], id)
		}
	}
}

func (m *wordPiece) encode(dst []Piece, s string, base int, _ *scratch) []Piece {
	unknown := Piece{int(m.unk), base, base + len(s)}
	if len(s) > m.longest && utf8.RuneCountInString(s) > m.longest {
		return append(dst, unknown)
	}
	first, in := len(dst), &m.heads
	for i := 0; i < len(s); in = &m.tails {
		id, n := in.longest(s[i:])
		if n == 0 {
			return append(dst[:first], unknown)
		}
		dst = append(dst, Piece{int(id), base + i, base + i + n})
		i += n
	}
	return dst
}

// wordLevel has a token for each word.
type wordLevel struct {
	vocabulary
	unk int32
}

func newModelWordLevel(c *component) (*wordLevel, error) {
	v, unk, err := newVocabulary(c, "<unk>")
	return &wordLevel{v, unk}, err
}

func (m *wordLevel) encode(dst []Piece, s string, base int, _ *scratch) []Piece {
	id, ok := m.ids[s]
	if !ok {
		id = m.unk
	}
	return append(dst, Piece{int(id), base, base + len(s)})
}
