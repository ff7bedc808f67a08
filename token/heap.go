package token

// heapMerge merges runs of symbols of any length in O(n log n).
type heapMerge struct {
	symbols []symbol
	queue   []candidate
}

// symbol is a token of so many symbols, with its neighbours, -1 at the ends; one of size 0 is merged into another.
type symbol struct{ id, size, prev, next int32 }

// candidate is a possible merge of the symbols at and right of at.
type candidate struct{ rank, at, id int32 }

func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.at < b.at
}

func (h *heapMerge) merge(dst []sized, ids []int32, pairs *pairTable) []sized {
	h.symbols, h.queue = h.symbols[:0], h.queue[:0]
	for i, id := range ids {
		h.symbols = append(h.symbols, symbol{id, 1, int32(i - 1), int32(i + 1)})
	}
	y := h.symbols
	y[len(y)-1].next = -1
	for i := range y {
		h.push(pairs, int32(i))
	}
	for len(h.queue) > 0 {
		c := h.pop()
		a := &y[c.at]
		if a.size == 0 || a.next < 0 {
			continue
		}
		b := &y[a.next]
		if _, id, ok := pairs.get(a.id, b.id); !ok || id != c.id {
			continue
		}
		a.id = c.id
		a.size += b.size
		b.size = 0
		a.next = b.next
		if a.next >= 0 {
			y[a.next].prev = c.at
		}
		h.push(pairs, c.at)
		h.push(pairs, a.prev)
	}
	for i := int32(0); i >= 0; i = y[i].next {
		dst = append(dst, sized{y[i].id, y[i].size})
	}
	return dst
}

// push queues the merge of the symbol at a place with its right neighbour, if there is one.
func (h *heapMerge) push(pairs *pairTable, at int32) {
	if at < 0 || h.symbols[at].next < 0 {
		return
	}
	rank, id, ok := pairs.get(h.symbols[at].id, h.symbols[h.symbols[at].next].id)
	if !ok {
		return
	}
	c := candidate{rank, at, id}
	q := append(h.queue, c)
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
	h.queue = q
}

func (h *heapMerge) pop() candidate {
	q := h.queue
	top, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	h.queue = q
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
