package token

import "encoding/binary"

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
	g.borders = newBorders(merges, limit)
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
	bytes      bool    // symbols are the bytes of the text, all of it one run
	ids, sizes []int32 // of the symbols on hold: token, and bytes that it stands for
	out        []sized // tokens of the text so far
	fresh      []sized
	patch      []sized
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
		text = w.text
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
		return g.mergeBlock(dst, ids, text, 1)
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
		w.fresh = g.mergeBlock(w.fresh[:0], ids[seam:end], part(seam, end), 1)
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
				w.patch = g.mergeBlock(w.patch[:0], ids[from:to], part(from, to), 1)
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

// mergeBlock appends the tokens of at most blockSymbols symbols, merged until no more than least are left.
func (g *merger) mergeBlock(dst []sized, symbols []int32, text string, least int) []sized {
	var ids, sizes, ranks, merged [blockSymbols + 1]int32
	n := copy(ids[:], symbols)
	look := func(i int) {
		ranks[i] = noRank
		if i+1 < n {
			if rank, id, ok := g.pairs.get(ids[i], ids[i+1]); ok {
				ranks[i], merged[i] = rank, id
			}
		}
	}
	for i := range n {
		sizes[i] = 1
		if g.first == nil || text == "" {
			look(i)
		} else if ranks[i] = noRank; i+1 < n {
			k := int(text[i])<<8 | int(text[i+1])
			ranks[i], merged[i] = g.first.rank[k], g.first.id[k]
		}
	}
	for n > least {
		at, best := 0, int32(noRank)
		for i, r := range ranks[:n] {
			if r < best {
				at, best = i, r
			}
		}
		if best == noRank {
			break
		}
		ids[at] = merged[at]
		sizes[at] += sizes[at+1]
		copy(ids[at+1:n], ids[at+2:n])
		copy(sizes[at+1:n], sizes[at+2:n])
		copy(ranks[at+1:n], ranks[at+2:n])
		copy(merged[at+1:n], merged[at+2:n])
		n--
		look(at)
		if at > 0 {
			look(at - 1)
		}
	}
	for i := range n {
		dst = append(dst, sized{ids[i], sizes[i]})
	}
	return dst
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

func keyOf(s string) cacheKey {
	var b [cachedMost + 1]byte
	copy(b[:], s)
	b[cachedMost] = byte(len(s))
	return cacheKey{
		binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:]),
		binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:]),
	}
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
