package token

import (
	"slices"
	"unicode/utf8"
)

// scoredBPE is byte-pair encoding with scores in place of merges, as sentencepiece has it: of all neighbours whose
// text together is a piece, those of the best piece are merged first, the leftmost of equals.
type scoredBPE struct {
	s      *sentencePiece
	pairs  pairTable
	chars  map[rune]int32 // symbol of each character that a piece holds; beyond the pieces where it is none itself
	unused []bool         // pieces that are taken apart again; nil: none
}

func (m *spModel) bpe(s *sentencePiece) *scoredBPE {
	b := &scoredBPE{s: s, chars: map[rune]int32{}}
	merged := func(id int32) bool { return m.kinds[id] == kindNormal || m.kinds[id] == kindUnused }
	next := int32(len(m.pieces))
	for id, p := range m.pieces {
		if !merged(int32(id)) {
			continue
		}
		if m.kinds[id] == kindUnused {
			if b.unused == nil {
				b.unused = make([]bool, len(m.pieces))
			}
			b.unused[id] = true
		}
		for _, r := range p {
			if _, ok := b.chars[r]; ok {
				continue
			}
			if c, ok := s.ids[string(r)]; ok && merged(c) {
				b.chars[r] = c
			} else if !ok {
				b.chars[r] = next
				next++
			}
		}
	}
	symbolOf := func(p string) (int32, bool) {
		if id, ok := s.ids[p]; ok {
			return id, merged(id)
		}
		r, n := utf8.DecodeRuneInString(p)
		id, ok := b.chars[r]
		return id, ok && n == len(p)
	}
	rank := m.ranks()
	type pair struct{ left, right, rank, id int32 }
	var pairs []pair
	for id, p := range m.pieces {
		if !merged(int32(id)) {
			continue
		}
		for i := range p {
			if i == 0 {
				continue
			}
			left, ok := symbolOf(p[:i])
			if !ok {
				continue
			}
			if right, ok := symbolOf(p[i:]); ok {
				pairs = append(pairs, pair{left, right, rank[id], int32(id)})
			}
		}
	}
	b.pairs.init(len(pairs))
	for _, p := range pairs {
		b.pairs.set(p.left, p.right, p.rank, p.id)
	}
	return b
}

// ranks numbers the pieces from the best score down, equal scores alike.
func (m *spModel) ranks() []int32 {
	order := make([]int, len(m.pieces))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case m.scores[a] > m.scores[b]:
			return -1
		case m.scores[a] < m.scores[b]:
			return 1
		}
		return 0
	})
	rank := make([]int32, len(order))
	for i, id := range order {
		if i > 0 {
			rank[id] = rank[order[i-1]]
			if m.scores[id] != m.scores[order[i-1]] {
				rank[id]++
			}
		}
	}
	return rank
}

func (b *scoredBPE) encode(dst []Piece, s string, base int) []Piece {
	w := wordPool.Get().(*word)
	defer wordPool.Put(w)
	w.symbols = w.symbols[:0]
	for i := 0; i < len(s); {
		if id, n := b.s.user.longest(s[i:]); n > 0 {
			w.add(id, n)
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		id, ok := b.chars[r]
		if !ok {
			id = b.s.unk
		}
		w.add(id, n)
		i += n
	}
	w.unused, w.parts = b.unused, nil
	w.merge(&b.pairs)
	first, at := len(dst), 0
	for i := int32(0); i >= 0 && len(w.symbols) > 0; i = w.symbols[i].next {
		y := &w.symbols[i]
		dst = b.put(dst, first, w, y.id, s[at:at+int(y.size)], base+at)
		at += int(y.size)
	}
	w.unused, w.parts = nil, nil
	return dst
}

// put appends a symbol; an unused piece is taken apart into what it was merged from.
func (b *scoredBPE) put(dst []Piece, first int, w *word, id int32, s string, start int) []Piece {
	if parts, ok := w.parts[id]; ok {
		n := len(b.text(parts[0], s))
		dst = b.put(dst, first, w, parts[0], s[:n], start)
		return b.put(dst, first, w, parts[1], s[n:], start+n)
	}
	if int(id) >= len(b.s.tokens) {
		id = b.s.unk
	}
	return b.s.put(dst, first, id, s, start)
}

// text returns the head of s that a symbol stands for.
func (b *scoredBPE) text(id int32, s string) string {
	if int(id) < len(b.s.tokens) {
		return b.s.tokens[id]
	}
	return s[:runeLen(s)]
}
