package token

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// bpe is byte-pair encoding: a piece is cut into its smallest symbols, and of all neighbours that have a merge
// the one of lowest rank, the leftmost of those, is merged until none has.
type bpe struct {
	vocabulary
	pairs pairTable

	ignoreMerges bool   // a piece that is a token is taken whole
	byteFallback bool   // characters without a token become tokens <0x00> to <0xFF>
	fuseUnk      bool   // neighbouring unknown characters are one token
	unk          int32  // -1: unknown characters are dropped
	prefix       string // of every symbol but the first of a piece
	suffix       string // of the last symbol of a piece

	bytes    *[256]int32      // set: pieces are bytes, and this is the token of each
	words    map[string]int32 // by bytes, with bytes
	fallback *[256]int32      // tokens <0x00> to <0xFF>, -1 where there is none
}

// newBPE checks that merges, given as pairs of tokens in order of rank, stay within the vocabulary.
func newBPE(vocab map[string]int32, merges [][2]string, prefix string) (*bpe, error) {
	m := &bpe{vocabulary: vocabulary{ids: vocab}, unk: -1, prefix: prefix}
	var err error
	if m.tokens, err = byID(vocab); err != nil {
		return nil, err
	}
	m.pairs.init(len(merges))
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
		m.pairs.set(ids[0], ids[1], int32(rank), ids[2])
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
const maxID = 1 << 24

// byID lists a vocabulary by id; ids without a token hold "".
func byID(vocab map[string]int32) ([]string, error) {
	var limit int32
	for s, id := range vocab {
		if id < 0 || id >= maxID {
			return nil, fmt.Errorf("vocabulary: token %q: want an id from 0 to %d, have %d", s, maxID-1, id)
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

// setBytes makes the model work on bytes, which needs a token for each byte and symbols as they are.
// It tells whether it could.
func (m *bpe) setBytes() bool {
	if m.prefix != "" || m.suffix != "" {
		return false
	}
	bytes := new([256]int32)
	for b, r := range byteRunes {
		id, ok := m.ids[string(r)]
		if !ok {
			return false
		}
		bytes[b] = id
	}
	m.bytes = bytes
	m.words = make(map[string]int32, len(m.ids))
	for s, id := range m.ids {
		if w, ok := fromByteRunes(s); ok {
			m.words[string(w)] = id
		}
	}
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

// word is a piece on its way from symbols to tokens.
type word struct {
	symbols []symbol
	queue   []candidate
	unused  []bool             // tokens to keep the parts of; nil: none
	parts   map[int32][2]int32 // of unused tokens
}

// symbol is a token of size bytes; prev and next are its neighbours, -1 at the ends.
type symbol struct {
	id, size, prev, next int32
}

var wordPool = sync.Pool{New: func() any { return new(word) }}

func (m *bpe) encode(dst []Piece, s string, base int) []Piece {
	if m.bytes != nil {
		if id, ok := m.words[s]; ok && (m.ignoreMerges || len(s) == 1) {
			return append(dst, Piece{int(id), base, base + len(s)})
		}
	} else if m.ignoreMerges {
		if id, ok := m.ids[s]; ok {
			return append(dst, Piece{int(id), base, base + len(s)})
		}
	}
	w := wordPool.Get().(*word)
	w.symbols = w.symbols[:0]
	if m.bytes != nil {
		for i := range len(s) {
			w.add(m.bytes[s[i]], 1)
		}
	} else {
		m.symbols(w, s)
	}
	w.merge(&m.pairs)
	for i := int32(0); i >= 0 && len(w.symbols) > 0; i = w.symbols[i].next {
		y := &w.symbols[i]
		dst = append(dst, Piece{int(y.id), base, base + int(y.size)})
		base += int(y.size)
	}
	wordPool.Put(w)
	return dst
}

func (w *word) add(id int32, size int) {
	n := int32(len(w.symbols))
	if n > 0 {
		w.symbols[n-1].next = n
	}
	w.symbols = append(w.symbols, symbol{id, int32(size), n - 1, -1})
}

// symbols cuts a piece into characters, or what stands for those without a token.
func (m *bpe) symbols(w *word, s string) {
	unkSize := 0 // of the unknown token on hold
	flush := func() {
		if unkSize > 0 {
			w.add(m.unk, unkSize)
			unkSize = 0
		}
	}
	for i := 0; i < len(s); {
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
			flush()
			w.add(id, n)
			continue
		}
		if m.byteFallback && m.hasBytes(c) {
			for k := range len(c) {
				w.add(m.fallback[c[k]], 1)
			}
			continue
		}
		if m.unk >= 0 {
			if !m.fuseUnk {
				flush()
			}
			unkSize += n
		}
	}
	flush()
}

func (m *bpe) hasBytes(s string) bool {
	for i := range len(s) {
		if m.fallback[s[i]] < 0 {
			return false
		}
	}
	return true
}

// candidate is a possible merge of the symbols at and right of at.
type candidate struct {
	rank, at, id int32
}

func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.at < b.at
}

// merge merges symbols until no pair of neighbours has a merge, in O(n log n).
func (w *word) merge(pairs *pairTable) {
	w.queue = w.queue[:0]
	y := w.symbols
	for i := 0; i+1 < len(y); i++ {
		w.push(pairs, int32(i))
	}
	for len(w.queue) > 0 {
		c := w.pop()
		a := &y[c.at]
		if a.size < 0 || a.next < 0 {
			continue
		}
		b := &y[a.next]
		if _, id, ok := pairs.get(a.id, b.id); !ok || id != c.id {
			continue
		}
		a.id = c.id
		a.size += b.size
		b.size = -1
		a.next = b.next
		if a.next >= 0 {
			y[a.next].prev = c.at
			w.push(pairs, c.at)
		}
		if a.prev >= 0 {
			w.push(pairs, a.prev)
		}
	}
}

func (w *word) push(pairs *pairTable, at int32) {
	left, right := w.symbols[at].id, w.symbols[w.symbols[at].next].id
	rank, id, ok := pairs.get(left, right)
	if !ok {
		return
	}
	if w.unused != nil && w.unused[id] {
		if w.parts == nil {
			w.parts = map[int32][2]int32{}
		}
		w.parts[id] = [2]int32{left, right}
	}
	c := candidate{rank, at, id}
	q := append(w.queue, c)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = c
	w.queue = q
}

func (w *word) pop() candidate {
	q := w.queue
	top, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	w.queue = q
	i := 0
	for {
		down := 2*i + 1
		if down >= len(q) {
			break
		}
		if down+1 < len(q) && q[down+1].before(q[down]) {
			down++
		}
		if !q[down].before(last) {
			break
		}
		q[i] = q[down]
		i = down
	}
	if len(q) > 0 {
		q[i] = last
	}
	return top
}

// pairTable maps pairs of ids to rank and result of their merge: open addressing, one cache line a probe.
type pairTable struct {
	slots []pairSlot
	shift uint
}

type pairSlot struct {
	key      uint64 // pair + 1, 0 for an empty slot
	rank, id int32
}

func (t *pairTable) init(n int) {
	bits := uint(4)
	for 1<<bits < 2*n {
		bits++
	}
	t.slots = make([]pairSlot, 1<<bits)
	t.shift = 64 - bits
}

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) + 1 }

func (t *pairTable) set(a, b, rank, id int32) {
	key := pairKey(a, b)
	for i := key * 0x9E3779B97F4A7C15 >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		if t.slots[i].key == 0 || t.slots[i].key == key {
			t.slots[i] = pairSlot{key, rank, id}
			return
		}
	}
}

func (t *pairTable) get(a, b int32) (rank, id int32, ok bool) {
	key := pairKey(a, b)
	for i := key * 0x9E3779B97F4A7C15 >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		s := &t.slots[i]
		if s.key == key {
			return s.rank, s.id, true
		}
		if s.key == 0 {
			return 0, 0, false
		}
	}
}
