package token

// trie holds strings and finds those that begin a text. Edges are kept in one hash table.
type trie struct {
	edges []trieEdge
	shift uint
	used  int
	value []int32 // by node: that of the string which ends there, or -1; node 0 is the root
}

type trieEdge struct {
	key uint64 // node, byte, and 1 to tell an edge from an empty slot
	to  int32
}

const noValue = -1

func (t *trie) slot(node int32, c byte) *trieEdge {
	key := uint64(node)<<9 | uint64(c)<<1 | 1
	for i := key * 0x9E3779B97F4A7C15 >> t.shift; ; i++ {
		e := &t.edges[i&uint64(len(t.edges)-1)]
		if e.key == key || e.key == 0 {
			return e
		}
	}
}

// next returns the node that c leads to from node, or -1.
func (t *trie) next(node int32, c byte) int32 {
	if e := t.slot(node, c); e.key != 0 {
		return e.to
	}
	return -1
}

// add stores a string that is not empty; a later value replaces an earlier one.
func (t *trie) add(s string, value int32) {
	if t.edges == nil {
		t.value = append(t.value, noValue)
		t.resize(6)
	}
	node := int32(0)
	for i := range len(s) {
		e := t.slot(node, s[i])
		if e.key == 0 {
			if 4*t.used > 3*len(t.edges) {
				t.resize(64 - t.shift + 1)
				e = t.slot(node, s[i])
			}
			t.used++
			*e = trieEdge{uint64(node)<<9 | uint64(s[i])<<1 | 1, int32(len(t.value))}
			t.value = append(t.value, noValue)
		}
		node = e.to
	}
	t.value[node] = value
}

func (t *trie) resize(bits uint) {
	old := t.edges
	t.edges, t.shift = make([]trieEdge, 1<<bits), 64-bits
	for _, e := range old {
		if e.key != 0 {
			*t.slot(int32(e.key>>9), byte(e.key>>1)) = e
		}
	}
}

// longest returns the value and the length of the longest stored string that begins s; the value is -1 for none.
func (t *trie) longest(s string) (value int32, n int) {
	value = noValue
	if t.edges == nil {
		return value, 0
	}
	node := int32(0)
	for i := range len(s) {
		if node = t.next(node, s[i]); node < 0 {
			break
		}
		if t.value[node] >= 0 {
			value, n = t.value[node], i+1
		}
	}
	return value, n
}
