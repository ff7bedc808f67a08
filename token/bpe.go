package token

import (
	"container/heap"
	"sync"
)

// bpe merges the bytes of a piece, in their printable spelling, pair by pair in the order of the merges' ranks
// (Sennrich et al. 2016).
type bpe struct {
	ids          map[string]int  // of tokens, by their bytes
	ranks        map[[2]int]rank // of pairs of ids
	single       [256]int        // ids of single bytes, −1 for none
	ignoreMerges bool            // a piece that is a token is not taken apart

	mu    sync.RWMutex
	cache map[string][]int // of short pieces
}

type rank struct{ order, id int }

const (
	cachedLength = 64      // the longest piece that is kept
	cachedPieces = 1 << 16 // most pieces that are kept
	shortPiece   = 24      // up to here a scan for the best pair beats a heap
)

// encode calls emit with each token of the piece and the bytes that it covers.
func (b *bpe) encode(piece string, emit func(id, x, y int)) {
	if b.ignoreMerges {
		if id, ok := b.ids[piece]; ok {
			emit(id, 0, len(piece))
			return
		}
	}
	short := len(piece) <= cachedLength
	var parts []int // id, length, id, length …
	if short {
		b.mu.RLock()
		parts = b.cache[piece]
		b.mu.RUnlock()
	}
	if parts == nil {
		parts = b.merge(piece)
		if short {
			b.mu.Lock()
			if len(b.cache) >= cachedPieces {
				clear(b.cache)
			}
			b.cache[piece] = parts
			b.mu.Unlock()
		}
	}
	at := 0
	for i := 0; i < len(parts); i += 2 {
		emit(parts[i], at, at+parts[i+1])
		at += parts[i+1]
	}
}

// symbol is a token in a piece that is being merged, linked to its neighbours by index.
type symbol struct {
	id, length int
	prev, next int
}

// merge returns the tokens of a piece as pairs of id and length. Bytes that the vocabulary lacks are left out, as
// models without an unknown token do.
func (b *bpe) merge(piece string) []int {
	symbols := make([]symbol, 0, len(piece))
	lost := 0
	for i := range len(piece) {
		id := b.single[piece[i]]
		if id < 0 {
			lost++
			if n := len(symbols); n > 0 {
				symbols[n-1].length++
				lost--
			}
			continue
		}
		symbols = append(symbols, symbol{id, 1 + lost, len(symbols) - 1, len(symbols) + 1})
		lost = 0
	}
	if len(symbols) == 0 {
		return []int{}
	}
	symbols[len(symbols)-1].next = -1
	if len(symbols) <= shortPiece {
		b.mergeShort(symbols)
	} else {
		b.mergeLong(symbols)
	}
	var out []int
	for i := 0; i >= 0; i = symbols[i].next {
		out = append(out, symbols[i].id, symbols[i].length)
	}
	return out
}

func join(s []symbol, i, id int) {
	j := s[i].next
	s[i].id = id
	s[i].length += s[j].length
	s[i].next = s[j].next
	s[j].length = 0
	if n := s[i].next; n >= 0 {
		s[n].prev = i
	}
}

func (b *bpe) mergeShort(s []symbol) {
	for {
		at, best := -1, rank{order: 1 << 62}
		for i := 0; s[i].next >= 0; i = s[i].next {
			if r, ok := b.ranks[[2]int{s[i].id, s[s[i].next].id}]; ok && r.order < best.order {
				at, best = i, r
			}
		}
		if at < 0 {
			return
		}
		join(s, at, best.id)
	}
}

// candidate is a pair that may be merged: the ranks decide, then the place.
type candidate struct {
	order, at   int
	left, right int // ids that have to be there still
	id          int
}

type queue []candidate

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].order < q[j].order || q[i].order == q[j].order && q[i].at < q[j].at
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(candidate)) }
func (q *queue) Pop() any {
	x := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return x
}

func (b *bpe) mergeLong(s []symbol) {
	var q queue
	offer := func(i int) {
		if i < 0 || s[i].next < 0 {
			return
		}
		l, r := s[i].id, s[s[i].next].id
		if m, ok := b.ranks[[2]int{l, r}]; ok {
			heap.Push(&q, candidate{m.order, i, l, r, m.id})
		}
	}
	for i := range s {
		offer(i)
	}
	for len(q) > 0 {
		c := heap.Pop(&q).(candidate)
		if s[c.at].length == 0 || s[c.at].id != c.left || s[c.at].next < 0 || s[s[c.at].next].id != c.right {
			continue
		}
		join(s, c.at, c.id)
		offer(s[c.at].prev)
		offer(c.at)
	}
}

// byteRunes are the characters that stand for the 256 bytes in GPT-2's printable spelling: printable ones for themselves, the others from U+0100 on.
var byteRunes, runeBytes = func() (r [256]rune, b map[rune]byte) {
	b = map[rune]byte{}
	next := rune(256)
	for c := range 256 {
		switch {
		case c >= '!' && c <= '~', c >= 0xa1 && c <= 0xac, c >= 0xae && c <= 0xff:
			r[c] = rune(c)
		default:
			r[c] = next
			next++
		}
		b[r[c]] = byte(c)
	}
	return r, b
}()

// decodeBytes appends the bytes that a token spells; a token that spells no bytes stands for itself.
func decodeBytes(b []byte, token string) []byte {
	n := len(b)
	for _, r := range token {
		c, ok := runeBytes[r]
		if !ok {
			return append(b[:n], token...)
		}
		b = append(b, c)
	}
	return b
}

// spellBytes returns the printable spelling of bytes.
func spellBytes(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = byteRunes[s[i]]
	}
	return string(out)
}
