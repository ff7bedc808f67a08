package token

// merge says that two tokens that stand side by side become one; the lowest rank comes first.
type merge struct{ left, right, rank, id int32 }

// merger merges symbols: of all neighbours that have a merge the one of lowest rank, the leftmost of those, until
// none has.
type merger struct {
	pairs   pairTable
	borders *borders
	size    []int32    // bytes of each token
	first   *firstPair // merges of single bytes; nil: symbols are not bytes
}

// firstPair has the merge of each two bytes, where most look-ups go.
type firstPair struct {
	rank, id [1 << 16]int32
}

const noRank = 1<<31 - 1

func (g *merger) setFirst(bytes *[256]int32) {
	g.first = new(firstPair)
	for i := range g.first.rank {
		g.first.rank[i] = noRank
		if rank, id, ok := g.pairs.get(bytes[i>>8], bytes[i&0xFF]); ok {
			g.first.rank[i], g.first.id[i] = rank, id
		}
	}
}

// init takes merges in order of rank; limit is the largest id plus one.
func (g *merger) init(merges []merge, limit int) {
	g.pairs.init(len(merges))
	for _, m := range merges {
		g.pairs.set(m.left, m.right, m.rank, m.id)
	}
	g.borders = newBorders(merges, make([]int32, limit), make([]int32, limit))
	g.size = make([]int32, limit)
}

// scratch holds what an encoder works with. Each belongs to one tokenizer and one goroutine at a time.
type scratch struct {
	cuts     [2][]cut
	arrivals []arrival
	cache    wordCache

	g          *merger
	text       string
	start, end int     // the run of symbols on hold: bytes of text
	cached     bool    // runs are looked up by their bytes
	bytes      bool    // symbols are the bytes of the text
	ids, sizes []int32 // of the symbols on hold: token, and bytes that it stands for
	out        []sized // tokens of the text so far
	fresh      []sized
	patch      []sized
	block      block
	heap       heapMerge
}

// sized is a token of so many symbols or bytes.
type sized struct{ id, size int32 }

func (w *scratch) begin(g *merger, text string, cached bool) {
	w.g, w.text, w.cached, w.bytes = g, text, cached, false
	w.start, w.end = 0, 0
	w.ids, w.sizes, w.out = w.ids[:0], w.sizes[:0], w.out[:0]
}

// add takes the next symbol. Where a border lies before it, what is on hold is merged first.
func (w *scratch) add(id int32, size int) {
	if n := len(w.ids); n > 0 && w.g.borders != nil && w.g.borders.between(w.ids[n-1], id) {
		w.flush()
	}
	w.ids = append(w.ids, id)
	w.sizes = append(w.sizes, int32(size))
	w.end += size
}

// flush merges the symbols on hold.
func (w *scratch) flush() {
	n := len(w.ids)
	if n == 1 {
		w.out = append(w.out, sized{w.ids[0], w.sizes[0]})
	} else if n > 1 {
		key := ""
		if w.cached && w.end <= len(w.text) {
			key = w.text[w.start:w.end]
		}
		if hit := w.cache.get(key); hit != nil {
			for _, id := range hit {
				w.out = append(w.out, sized{id, w.g.size[id]})
			}
		} else {
			w.run(key)
		}
	}
	w.start = w.end
	w.ids, w.sizes = w.ids[:0], w.sizes[:0]
}

// run merges the symbols on hold and keeps the result in the cache, if the sizes of its tokens are their own.
func (w *scratch) run(key string) {
	first := len(w.out)
	text := ""
	if w.bytes {
		text = w.text[w.start:w.end]
	}
	w.out = w.g.mergeRun(w.out, w.ids, text, w)
	at, own := 0, true
	for i := first; i < len(w.out); i++ {
		t := &w.out[i]
		symbols := int(t.size)
		t.size = 0
		for _, n := range w.sizes[at : at+symbols] {
			t.size += n
		}
		at += symbols
		own = own && t.size == w.g.size[t.id]
	}
	if own {
		w.cache.set(key, w.out[first:])
	}
}

// emit appends the tokens of the text.
func (w *scratch) emit(dst []Piece, base int) []Piece {
	for _, t := range w.out {
		end := base + int(t.size)
		dst = append(dst, Piece{int(t.id), base, end})
		base = end
	}
	return dst
}

// blockSymbols is how many symbols are merged by scanning for the best pair, which takes quadratic time.
const blockSymbols = 64

// mergeRun appends the tokens of symbols, with the number of symbols of each; text is set where the symbols are its
// bytes. Long runs are merged in blocks, and what lies around the seam of two blocks again until the tokens at both
// ends of the patch are as before. That is exact: tokens that came from merging one run, cut anywhere, come again
// from merging each part, and a sequence of tokens is what its text merges to if each two neighbours are what their
// text merges to.
func (g *merger) mergeRun(dst []sized, ids []int32, text string, w *scratch) []sized {
	if len(ids) <= blockSymbols {
		return w.block.merge(dst, g, ids, text, 1)
	}
	part := func(i, j int) string {
		if text == "" {
			return ""
		}
		return text[i:j]
	}
	first := len(dst)
	for seam := 0; seam < len(ids); {
		end := min(seam+blockSymbols, len(ids))
		w.fresh = w.block.merge(w.fresh[:0], g, ids[seam:end], part(seam, end), 1)
		left, right := 2, 2 // tokens on each side that are merged again
		for {
			left, right = min(left, len(dst)-first), min(right, len(w.fresh))
			from, to := seam, seam
			for _, t := range dst[len(dst)-left:] {
				from -= int(t.size)
			}
			for _, t := range w.fresh[:right] {
				to += int(t.size)
			}
			if to-from <= blockSymbols {
				w.patch = w.block.merge(w.patch[:0], g, ids[from:to], part(from, to), 1)
			} else {
				w.patch = w.heap.merge(w.patch[:0], ids[from:to], &g.pairs)
			}
			okLeft := left == len(dst)-first || w.patch[0] == dst[len(dst)-left]
			okRight := right == len(w.fresh) || w.patch[len(w.patch)-1] == w.fresh[right-1]
			if okLeft && okRight {
				break
			}
			if !okLeft {
				left *= 2
			}
			if !okRight {
				right *= 2
			}
		}
		dst = append(dst[:len(dst)-left], w.patch...)
		dst = append(dst, w.fresh[right:]...)
		seam = end
	}
	return dst
}

// block is where few symbols are merged: each stands in a place and is linked to its neighbours.
type block struct {
	ids, sizes [blockSymbols]int32
	merged     [blockSymbols]int32  // what the symbol and the next one make
	order      [blockSymbols]uint64 // rank of that merge, and the place: the least comes first
	next, prev [blockSymbols]uint8  // noPlace at the ends
}

const (
	noPlace = blockSymbols
	noMerge = 1<<64 - 1
)

// merge appends the tokens of at most blockSymbols symbols, merged until no more than least are left.
func (b *block) merge(dst []sized, g *merger, symbols []int32, text string, least int) []sized {
	n := copy(b.ids[:], symbols)
	bytes := g.first != nil && text != ""
	for i := range n {
		b.sizes[i], b.next[i], b.prev[i] = 1, uint8(i+1), uint8(i-1)
		switch {
		case i+1 == n:
			b.next[i], b.order[i] = noPlace, noMerge
		case bytes:
			k := int(text[i])<<8 | int(text[i+1])
			if b.order[i] = noMerge; g.first.rank[k] != noRank {
				b.order[i], b.merged[i] = uint64(g.first.rank[k])<<8|uint64(i), g.first.id[k]
			}
		default:
			b.look(&g.pairs, uint8(i))
		}
	}
	b.prev[0] = noPlace
	for left := n; left > least; left-- {
		best, other := uint64(noMerge), uint64(noMerge)
		i := 0
		for ; i+1 < n; i += 2 {
			best, other = min(best, b.order[i]), min(other, b.order[i+1])
		}
		if i < n {
			best = min(best, b.order[i])
		}
		if best = min(best, other); best == noMerge {
			break
		}
		at := uint8(best) % blockSymbols
		gone := b.next[at] % blockSymbols
		b.ids[at] = b.merged[at]
		b.sizes[at] += b.sizes[gone]
		b.order[gone] = noMerge
		b.next[at] = b.next[gone]
		if b.next[at] < noPlace {
			b.prev[b.next[at]] = at
		}
		b.look(&g.pairs, at)
		if b.prev[at] < noPlace {
			b.look(&g.pairs, b.prev[at])
		}
	}
	for i := uint8(0); i < noPlace; i = b.next[i] {
		dst = append(dst, sized{b.ids[i], b.sizes[i]})
	}
	return dst
}

// look finds the merge of the symbol in a place with the next one.
func (b *block) look(pairs *pairTable, at uint8) {
	b.order[at] = noMerge
	if next := b.next[at]; next < noPlace {
		if rank, id, ok := pairs.get(b.ids[at], b.ids[next]); ok {
			b.order[at], b.merged[at] = uint64(rank)<<8|uint64(at), id
		}
	}
}

// wordCache remembers the tokens of short texts; a new text takes the place of an old one of the same hash.
type wordCache []cacheEntry

// cacheEntry fills one cache line.
type cacheEntry struct {
	key cacheKey
	ids [7]int32
	n   int32
}

// cacheKey is a text of 1 to 31 bytes, zeros, and its length.
type cacheKey [4]uint64

const (
	cacheBits  = 13
	cachedMost = 8*len(cacheKey{}) - 1
)

func newWordCache() wordCache { return make(wordCache, 1<<cacheBits) }

func keyOf(s string) (k cacheKey) {
	n, i := len(s), 0
	for ; i+8 <= n; i += 8 {
		k[i/8] = load64(s[i:])
	}
	switch rest := uint(n - i); {
	case rest == 0:
	case n >= 8:
		k[i/8] = load64(s[n-8:]) >> (64 - 8*rest)
	case n >= 4:
		k[0] = uint64(load32(s)) | uint64(load32(s[n-4:]))<<(8*rest-32)
	default:
		k[0] = uint64(s[0]) | uint64(s[n/2])<<(8*uint(n/2)) | uint64(s[n-1])<<(8*rest-8)
	}
	k[3] |= uint64(n) << 56
	return k
}

// load32 and load64 read the first bytes of s as a number, each by one instruction.
func load32(s string) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func load64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func (c wordCache) slot(k *cacheKey) *cacheEntry {
	h := k[0]*0x9E3779B97F4A7C15 + k[1]*0xC2B2AE3D27D4EB4F + k[2]*0x165667B19E3779F9 + k[3]*0xD6E8FEB86659FD93
	h ^= h >> 32
	return &c[h*0x9E3779B97F4A7C15>>(64-cacheBits)]
}

// get returns the tokens of a text, nil where they are not known.
func (c wordCache) get(s string) []int32 {
	if len(s) == 0 || len(s) > cachedMost {
		return nil
	}
	k := keyOf(s)
	if e := c.slot(&k); e.key == k {
		return e.ids[:e.n]
	}
	return nil
}

func (c wordCache) set(s string, tokens []sized) {
	if len(s) == 0 || len(s) > cachedMost || len(tokens) > len(cacheEntry{}.ids) {
		return
	}
	k := keyOf(s)
	e := c.slot(&k)
	e.key, e.n = k, int32(len(tokens))
	for i, t := range tokens {
		e.ids[i] = t.id
	}
}
