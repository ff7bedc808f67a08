package data

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"tunesmith/internal/nearest"
)

// Packing says how examples share the rows of a batch.
type Packing uint8

// The ways of packing.
const (
	NoPacking    Packing = iota // one example a row
	BestFit                     // best fit, longest first; longer examples are cut to a row
	BestFitSplit                // the same; longer examples are cut into pieces
	Wrapped                     // one stream of tokens, cut into rows
)

var packingNames = []string{"none", "bfd", "bfd_split", "wrapped"}

// String returns the name of the packing.
func (p Packing) String() string { return packingNames[p] }

// MarshalText returns the name of the packing.
func (p Packing) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the name of a packing.
func (p *Packing) UnmarshalText(text []byte) error {
	i := slices.Index(packingNames, string(text))
	if i < 0 {
		return fmt.Errorf("packing %q: want one of %q%s", text, packingNames, nearest.Hint(string(text), packingNames))
	}
	*p = Packing(i)
	return nil
}

// Span is the tokens Start to End of an example.
type Span struct{ Example, Start, End int32 }

func (s Span) len() int { return int(s.End - s.Start) }

// Rows are examples, or pieces of them, laid out in rows.
type Rows struct {
	spans []Span
	first []int32 // where the spans of each row begin, and the end of the last
}

// Len returns the number of rows.
func (r Rows) Len() int { return len(r.first) - 1 }

// Row returns the spans of row i.
func (r Rows) Row(i int) []Span { return r.spans[r.first[i]:r.first[i+1]] }

// Pack lays examples of the given lengths into rows of at most capacity tokens. Empty examples are left out. The
// rows equal those of TRL's pack_dataset. NoPacking cuts long examples as BestFit does.
func Pack(lengths []int, capacity int, p Packing) Rows {
	r := Rows{spans: make([]Span, 0, len(lengths)), first: make([]int32, 1, len(lengths)+1)}
	if p == Wrapped {
		free := 0
		for i, n := range lengths {
			for start := 0; start < n; {
				if free == 0 {
					r.first, free = append(r.first, 0), capacity
				}
				end := min(start+free, n)
				r.spans = append(r.spans, Span{int32(i), int32(start), int32(end)})
				r.first[len(r.first)-1] = int32(len(r.spans))
				free -= end - start
				start = end
			}
		}
		return r
	}
	for i, n := range lengths {
		for start := 0; start < n; start += capacity {
			r.spans = append(r.spans, Span{int32(i), int32(start), int32(min(start+capacity, n))})
			if p != BestFitSplit {
				break
			}
		}
	}
	if p != NoPacking {
		return bestFit(r.spans, capacity)
	}
	for i := range r.spans {
		r.first = append(r.first, int32(i+1))
	}
	return r
}

// bestFit puts each span, longest first, into the row whose free space is the smallest that suffices; among equals,
// into the row that came to have that space first.
func bestFit(spans []Span, capacity int) Rows {
	slices.SortStableFunc(spans, func(a, b Span) int { return cmp.Compare(b.len(), a.len()) })
	rowOf := make([]int32, len(spans))
	rows := int32(0)
	byFree := make([][]int32, capacity+1)       // free space -> rows that have it, first come first
	some := make([]uint64, (capacity+64)/64)    // bit f: byFree[f] is not empty
	smallest := func(atLeast int) (int, bool) { // the smallest free space that is there
		for w := atLeast / 64; w < len(some); w++ {
			word := some[w]
			if w == atLeast/64 {
				word &= ^uint64(0) << (atLeast % 64)
			}
			if word != 0 {
				return w*64 + bits.TrailingZeros64(word), true
			}
		}
		return 0, false
	}
	for i, s := range spans {
		free, found := smallest(s.len())
		var r int32
		if found {
			q := byFree[free]
			r, byFree[free] = q[0], q[1:]
			if len(q) == 1 {
				some[free/64] &^= 1 << (free % 64)
			}
		} else {
			r, free = rows, capacity
			rows++
		}
		rowOf[i] = r
		if free -= s.len(); free > 0 {
			byFree[free] = append(byFree[free], r)
			some[free/64] |= 1 << (free % 64)
		}
	}
	return byRow(spans, rowOf, int(rows))
}

// byRow sorts spans by their rows and keeps their order inside a row.
func byRow(spans []Span, rowOf []int32, rows int) Rows {
	r := Rows{spans: make([]Span, len(spans)), first: make([]int32, rows+1)}
	for _, row := range rowOf {
		r.first[row+1]++
	}
	for i := range rows {
		r.first[i+1] += r.first[i]
	}
	next := slices.Clone(r.first)
	for i, row := range rowOf {
		r.spans[next[row]] = spans[i]
		next[row]++
	}
	return r
}
