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

// Pack lays examples of the given lengths into rows of at most capacity tokens. Empty examples are left out. The
// rows equal those of TRL's pack_dataset. NoPacking cuts long examples as BestFit does.
func Pack(lengths []int, capacity int, p Packing) [][]Span {
	var spans []Span
	for i, n := range lengths {
		for start := 0; start < n; start += capacity {
			end := min(start+capacity, n)
			spans = append(spans, Span{int32(i), int32(start), int32(end)})
			if p == BestFit || p == NoPacking {
				break
			}
		}
	}
	switch p {
	case Wrapped:
		return wrap(lengths, capacity)
	case BestFit, BestFitSplit:
		return bestFit(spans, capacity)
	}
	rows := make([][]Span, len(spans))
	for i := range spans {
		rows[i] = spans[i : i+1 : i+1]
	}
	return rows
}

// wrap cuts the concatenation of all examples into rows.
func wrap(lengths []int, capacity int) [][]Span {
	var rows [][]Span
	free := 0
	for i, n := range lengths {
		for start := 0; start < n; {
			if free == 0 {
				rows, free = append(rows, nil), capacity
			}
			end := min(start+free, n)
			last := &rows[len(rows)-1]
			*last = append(*last, Span{int32(i), int32(start), int32(end)})
			free -= end - start
			start = end
		}
	}
	return rows
}

// bestFit puts each span, longest first, into the row whose free space is the smallest that suffices; among equals,
// into the row that came to have that space first.
func bestFit(spans []Span, capacity int) [][]Span {
	slices.SortStableFunc(spans, func(a, b Span) int { return cmp.Compare(b.len(), a.len()) })
	var rows [][]Span
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
	for _, s := range spans {
		free, found := smallest(s.len())
		var r int32
		if found {
			q := byFree[free]
			r, byFree[free] = q[0], q[1:]
			if len(q) == 1 {
				some[free/64] &^= 1 << (free % 64)
			}
		} else {
			r, free = int32(len(rows)), capacity
			rows = append(rows, nil)
		}
		rows[r] = append(rows[r], s)
		if free -= s.len(); free > 0 {
			byFree[free] = append(byFree[free], r)
			some[free/64] |= 1 << (free % 64)
		}
	}
	return rows
}
