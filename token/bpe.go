package token

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// bpe is byte-pair encoding: a piece is cut into its smallest symbols, and of all neighbours that have a merge
// the one of lowest rank, the leftmost of those, is merged until none has.
type bpe struct {
	vocabulary
	merger
	ignoreMerges bool   // a piece that is a token is taken whole
	byteFallback bool   // characters without a token become tokens <0x00> to <0xFF>
	fuseUnk      bool   // neighbouring unknown characters are one token
	unk          int32  // -1: unknown characters are dropped
	prefix       string // of every symbol but the first of a piece
	suffix       string // of the last symbol of a piece

	ascii    [utf8.RuneSelf]int32 // token of each character, -1 where there is none
	bytes    *[256]int32          // set: pieces are bytes, and this is the token of each
	words    map[string]int32     // tokens by their bytes, where bytes is set
	chars    *charBorders         // where bytes is set
	fallback *[256]int32          // tokens <0x00> to <0xFF>, -1 where there is none
}

// newBPE checks that merges, given as pairs of tokens in order of rank, stay within the vocabulary.
func newBPE(vocab map[string]int32, merges [][2]string, prefix string) (*bpe, error) {
	m := &bpe{vocabulary: vocabulary{ids: vocab}, unk: -1, prefix: prefix}
	var err error
	if m.tokens, err = byID(vocab); err != nil {
		return nil, err
	}
	list := make([]merge, len(merges))
	for rank, p := range merges {
		var ids [3]int32
		whole := p[0] + strings.TrimPrefix(p[1], prefix)
		for i, s := range []string{p[0], p[1], whole} {
			id, ok := vocab[s]
			if !ok {
				return nil, fmt.Errorf("merge %d (%q %q): token %q is not in the vocabulary", rank, p[0], p[1], s)
			}
			ids[i] = id
		}
		list[rank] = merge{ids[0], ids[1], int32(rank), ids[2]}
	}
	m.merger.init(list, m.limit())
	for id, s := range m.tokens {
		m.size[id] = int32(len(s))
	}
	for c := range m.ascii {
		m.ascii[c] = -1
		if id, ok := vocab[string(rune(c))]; ok {
			m.ascii[c] = id
		}
	}
	m.fallback = new([256]int32)
	for b := range m.fallback {
		id, ok := vocab[byteToken(byte(b))]
		if !ok {
			id = -1
		}
		m.fallback[b] = id
	}
	return m, nil
}

func byteToken(b byte) string { return fmt.Sprintf("<0x%02X>", b) }

// maxID bounds ids, so that a file cannot ask for a table of any size.
const maxID = 1 << 20

// byID lists a vocabulary by id; ids without a token hold "".
func byID(vocab map[string]int32) ([]string, error) {
	var limit int32
	most := int32(maxID + min(4*len(vocab), math.MaxInt32/2))
	for s, id := range vocab {
		if id < 0 || id >= most {
			return nil, fmt.Errorf("vocabulary: token %q: want an id from 0 to %d, have %d", s, most-1, id)
		}
		limit = max(limit, id+1)
	}
	tokens := make([]string, limit)
	for s, id := range vocab {
		if old := tokens[id]; old == "" || s < old {
			tokens[id] = s
		}
	}
	return tokens, nil
}

// setBytes makes the model work on bytes, which needs symbols as they are. It tells whether it could.
func (m *bpe) setBytes() bool {
	if m.prefix != "" || m.suffix != "" {
		return false
	}
	m.bytes = new([256]int32)
	for b, r := range byteRunes {
		m.bytes[b] = -1
		if id, ok := m.ids[string(r)]; ok {
			m.bytes[b] = id
		}
	}
	m.words = make(map[string]int32, len(m.ids))
	text := make([]string, len(m.tokens))
	for s, id := range m.ids {
		if b, ok := fromByteRunes(s); ok {
			text[id] = string(b)
			m.words[text[id]] = id
			m.size[id] = int32(len(b))
		}
	}
	m.setFirst(m.bytes)
	m.chars = newCharBorders(&m.pairs, text)
	return true
}

// fromByteRunes returns the bytes that characters of the byte alphabet stand for.
func fromByteRunes(s string) ([]byte, bool) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		b, ok := runeBytes[r]
		if !ok {
			return nil, false
		}
		out = append(out, b)
	}
	return out, true
}

func (m *bpe) encode(dst []Piece, s string, base int, w *scratch) []Piece {
	if m.bytes == nil {
		if m.ignoreMerges {
			if id, ok := m.ids[s]; ok {
				return append(dst, Piece{int(id), base, base + len(s)})
			}
		}
		w.begin(&m.merger, s, m.prefix == "" && m.suffix == "")
		m.symbols(w, s)
		w.flush()
		return w.emit(dst, base)
	}
	if m.ignoreMerges {
		if id, ok := m.words[s]; ok {
			return append(dst, Piece{int(id), base, base + len(s)})
		}
	}
	w.begin(&m.merger, s, true)
	w.bytes = true
	if hit := w.cache.get(s); hit != nil {
		for _, id := range hit {
			end := base + int(m.size[id])
			dst = append(dst, Piece{int(id), base, end})
			base = end
		}
		return dst
	}
	last := rune(-1)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if last >= 0 && m.chars.between(last, r, s[i-1], s[i]) {
			w.flush()
		}
		for k := i; k < i+n; k++ {
			id := m.bytes[s[k]]
			if id < 0 {
				return m.encodeSpelt(dst, s, base, w)
			}
			w.ids = append(w.ids, id)
			w.sizes = append(w.sizes, 1)
		}
		i += n
		last, w.end = r, i
	}
	w.flush()
	return w.emit(dst, base)
}

// encodeSpelt encodes a piece with a byte that has no token: by characters of the byte alphabet, with the rules
// for unknown ones.
func (m *bpe) encodeSpelt(dst []Piece, s string, base int, w *scratch) []Piece {
	var spelt []byte
	var from []int // byte of s for each byte spelt
	for i := range len(s) {
		spelt = utf8.AppendRune(spelt, byteRunes[s[i]])
		for len(from) < len(spelt) {
			from = append(from, base+i)
		}
	}
	first := len(dst)
	w.begin(&m.merger, string(spelt), false)
	m.symbols(w, string(spelt))
	w.flush()
	dst = w.emit(dst, 0)
	for i := first; i < len(dst); i++ {
		p := &dst[i]
		p.Start, p.End = from[p.Start], from[p.End-1]+1
	}
	return dst
}

// symbols cuts a piece into characters, or what stands for those without a token.
func (m *bpe) symbols(w *scratch, s string) {
	unkSize := 0 // of the unknown token on hold
	release := func() {
		if unkSize > 0 {
			w.add(m.unk, unkSize)
			unkSize = 0
		}
	}
	plain := m.prefix == "" && m.suffix == ""
	for i := 0; i < len(s); {
		if c := s[i]; plain && c < utf8.RuneSelf && m.ascii[c] >= 0 {
			release()
			w.add(m.ascii[c], 1)
			i++
			continue
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		c := s[i : i+n]
		if i > 0 && m.prefix != "" {
			c = m.prefix + c
		}
		if i+n == len(s) && m.suffix != "" {
			c += m.suffix
		}
		i += n
		if id, ok := m.ids[c]; ok {
			release()
			w.add(id, n)
			continue
		}
		if m.byteFallback && m.hasBytes(c) {
			for k := range len(c) {
				w.add(m.fallback[c[k]], 1)
			}
			continue
		}
		if m.unk < 0 {
			w.cached = false // places no longer are those of the text
			continue
		}
		if !m.fuseUnk {
			release()
		}
		unkSize += n
	}
	release()
}

func (m *bpe) hasBytes(s string) bool {
	for i := range len(s) {
		if m.fallback[s[i]] < 0 {
			return false
		}
	}
	return true
}
