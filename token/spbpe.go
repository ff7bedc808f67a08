package token

import (
	"slices"
	"unicode/utf8"
)

// scoredBPE is byte-pair encoding with scores in place of merges, as sentencepiece has it: of all neighbours whose
// text together is a piece, those of the best piece are merged first, the leftmost of equals.
type scoredBPE struct {
	merger
	s     *sentencePiece
	chars map[rune]int32 // symbol of each character that a piece holds; beyond the pieces where it is none itself
	ascii [utf8.RuneSelf]int32
}

func (m *spModel) bpe(s *sentencePiece) *scoredBPE {
	b := &scoredBPE{s: s, chars: map[rune]int32{}}
	merged := func(id int32) bool { return m.kinds[id] == kindNormal || m.kinds[id] == kindUnused }
	next := int32(len(m.pieces))
	for id, p := range m.pieces {
		if !merged(int32(id)) {
			continue
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
	var merges []merge
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
				merges = append(merges, merge{left, right, rank[id], int32(id)})
			}
		}
	}
	slices.SortStableFunc(merges, func(a, b merge) int { return int(a.rank - b.rank) })
	b.init(merges, int(next))
	first, last := make([]int32, next), make([]int32, next)
	for r, id := range b.chars {
		b.size[id] = int32(utf8.RuneLen(r))
		first[id], last[id] = id+1, id+1
	}
	for id, p := range m.pieces {
		b.size[id] = int32(len(p))
		if merged(int32(id)) {
			head, _ := utf8.DecodeRuneInString(p)
			tail, _ := utf8.DecodeLastRuneInString(p)
			first[id], last[id] = b.symbol(head)+1, b.symbol(tail)+1
		}
	}
	b.borders = newBorders(merges, first, last)
	for r := range b.ascii {
		b.ascii[r] = b.symbol(rune(r))
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

func (b *scoredBPE) encode(dst []Piece, s string, base int, w *scratch) []Piece {
	w.begin(&b.merger, s, true)
	b.symbols(s, w.add)
	w.flush()
	first, at := len(dst), 0
	for _, t := range w.out {
		dst = b.put(dst, first, t.id, s[at:at+int(t.size)], base+at)
		at += int(t.size)
	}
	return dst
}

// symbols cuts a text into user-defined pieces and characters.
func (b *scoredBPE) symbols(s string, add func(id int32, size int)) {
	for i := 0; i < len(s); {
		if id, n := b.s.user.longest(s[i:]); n > 0 {
			add(id, n)
			i += n
			continue
		}
		if c := s[i]; c < utf8.RuneSelf {
			add(b.ascii[c], 1)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		add(b.symbol(r), n)
		i += n
	}
}

// symbol returns the symbol of a character, the unknown piece where no piece holds it.
func (b *scoredBPE) symbol(r rune) int32 {
	if id, ok := b.chars[r]; ok {
		return id
	}
	return b.s.unk
}

// put appends a token; an unused piece is taken apart into the two that it was merged from.
func (b *scoredBPE) put(dst []Piece, first int, id int32, s string, start int) []Piece {
	if int(id) >= len(b.s.tokens) {
		id = b.s.unk
	}
	if b.s.kinds[id] == kindUnused {
		var ids []int32
		b.symbols(s, func(id int32, _ int) { ids = append(ids, id) })
		if len(ids) > 1 && len(ids) <= blockSymbols {
			parts := new(block).merge(nil, &b.merger, ids, "", 2)
			n := 0
			for range parts[0].size {
				n += runeLen(s[n:])
			}
			dst = b.put(dst, first, parts[0].id, s[:n], start)
			return b.put(dst, first, parts[1].id, s[n:], start+n)
		}
	}
	return b.s.put(dst, first, id, s, start)
}
