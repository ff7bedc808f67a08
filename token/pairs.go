package token

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

// borders tells between which symbols no merge can ever reach across. It is a hashed set of the pairs of symbols
// that stand side by side within some token; a false member costs time only.
type borders struct {
	inner []uint64
	shift uint
}

// newBorders collects the symbols at which merges join tokens: the last of the left and the first of the right. It
// returns nil where a token is both a symbol and merged, or is merged from different symbols.
func newBorders(merges []merge, limit int) *borders {
	bits := uint(10)
	for 1<<bits < 8*len(merges) {
		bits++
	}
	b := &borders{inner: make([]uint64, 1<<bits/64), shift: 64 - bits}
	first, last := make([]int32, limit), make([]int32, limit) // plus 1; 0: not seen yet
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
		w, bit := b.place(last[m.left]-1, first[m.right]-1)
		b.inner[w] |= bit
	}
	return b
}

func (b *borders) place(left, right int32) (word uint64, bit uint64) {
	_, h := pairHash(left, right)
	h >>= b.shift
	return h / 64, 1 << (h % 64)
}

// between tells whether a border lies between the two symbols.
func (b *borders) between(left, right int32) bool {
	w, bit := b.place(left, right)
	return b.inner[w]&bit == 0
}
