package token

import "unicode/utf8"

// pairTable maps pairs of ids to rank and result of their merge. A small filter, which stays in cache, turns most
// pairs without a merge away before the table is touched.
type pairTable struct {
	slots       []pairSlot // open addressing
	filter      []uint64   // bits by hash
	shift       uint
	filterShift uint
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
	t.filter = make([]uint64, 1<<(bits+2)/64+1)
	t.filterShift = t.shift - 2
}

func pairHash(a, b int32) (key, hash uint64) {
	key = uint64(uint32(a))<<32 | uint64(uint32(b)) + 1
	return key, key * 0x9E3779B97F4A7C15
}

func (t *pairTable) set(a, b, rank, id int32) {
	key, h := pairHash(a, b)
	bit := h >> t.filterShift
	t.filter[bit/64] |= 1 << (bit % 64)
	for i := h >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		if t.slots[i].key == 0 || t.slots[i].key == key {
			t.slots[i] = pairSlot{key, rank, id}
			return
		}
	}
}

func (t *pairTable) get(a, b int32) (rank, id int32, ok bool) {
	key, h := pairHash(a, b)
	if bit := h >> t.filterShift; t.filter[bit/64]>>(bit%64)&1 == 0 {
		return 0, 0, false
	}
	return t.probe(key, h)
}

func (t *pairTable) probe(key, h uint64) (rank, id int32, ok bool) {
	for i := h >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		s := &t.slots[i]
		if s.key == key {
			return s.rank, s.id, true
		}
		if s.key == 0 {
			return 0, 0, false
		}
	}
}

// pairSet is a hashed set of pairs of numbers. It may hold more than was added: its users lose time then, no more.
type pairSet struct {
	bits  []uint64
	shift uint
}

func newPairSet(n int) pairSet {
	bits := uint(10)
	for 1<<bits < 8*n {
		bits++
	}
	return pairSet{make([]uint64, 1<<bits/64), 64 - bits}
}

func (p *pairSet) add(a, b int32) {
	_, h := pairHash(a, b)
	h >>= p.shift
	p.bits[h/64] |= 1 << (h % 64)
}

func (p *pairSet) has(a, b int32) bool {
	_, h := pairHash(a, b)
	h >>= p.shift
	return p.bits[h/64]>>(h%64)&1 != 0
}

// borders tells between which symbols no merge can ever reach across: it has the pairs that stand side by side
// within some token.
type borders struct{ inner pairSet }

// newBorders collects the symbols at which merges join tokens: the last of the left and the first of the right.
// first and last are the outer symbols of each token, plus one; those not known (0) follow from the merges. It
// returns nil where a token is both a symbol and merged, or is merged from different symbols.
func newBorders(merges []merge, first, last []int32) *borders {
	b := &borders{newPairSet(len(merges))}
	for _, m := range merges {
		for _, part := range []int32{m.left, m.right} {
			if first[part] == 0 {
				first[part], last[part] = part+1, part+1
			}
		}
		if first[m.id] == 0 {
			first[m.id], last[m.id] = first[m.left], last[m.right]
		} else if first[m.id] != first[m.left] || last[m.id] != last[m.right] {
			return nil
		}
		b.inner.add(last[m.left]-1, first[m.right]-1)
	}
	return b
}

// between tells whether a border lies between the two symbols.
func (b *borders) between(left, right int32) bool { return !b.inner.has(left, right) }

// charBorders does for the characters of a text what borders does for symbols, where symbols are bytes. Tokens that
// hold but a part of a character at the joint are few; for them a byte stands in place of the character.
type charBorders struct {
	inner pairSet
	parts [1 << 16 / 64]uint64 // by last and first byte: a token with a part of a character meets there
}

// partOf is what stands for a byte in place of a character.
func partOf(b byte) int32 { return utf8.MaxRune + 1 + int32(b) }

func newCharBorders(pairs *pairTable, text []string) *charBorders {
	b := &charBorders{inner: newPairSet(len(pairs.slots) / 2)}
	for _, s := range pairs.slots {
		if s.key == 0 {
			continue
		}
		left, right := text[(s.key-1)>>32], text[uint32(s.key-1)]
		if left == "" || right == "" || !utf8.RuneStart(right[0]) {
			continue
		}
		l, r := rune(partOf(left[len(left)-1])), rune(partOf(right[0]))
		part := false
		if c, n := utf8.DecodeLastRuneInString(left); c != utf8.RuneError || n > 1 {
			l = c
		} else {
			part = true
		}
		if c, n := utf8.DecodeRuneInString(right); c != utf8.RuneError || n > 1 {
			r = c
		} else {
			part = true
		}
		b.inner.add(l, r)
		if part {
			at := int(left[len(left)-1])<<8 | int(right[0])
			b.parts[at/64] |= 1 << (at % 64)
		}
	}
	return b
}

// between tells whether a border lies between the characters l and r, which end and begin with the given bytes.
func (b *charBorders) between(l, r rune, last, first byte) bool {
	if b.inner.has(l, r) {
		return false
	}
	at := int(last)<<8 | int(first)
	return b.parts[at/64]>>(at%64)&1 == 0 ||
		!b.inner.has(l, partOf(first)) && !b.inner.has(partOf(last), r) && !b.inner.has(partOf(last), partOf(first))
}
