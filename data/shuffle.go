package data

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/zeebo/xxh3"
)

// permutation returns the numbers 0 to n-1 in an order that is a function of seed and epoch alone: a Fisher–Yates
// shuffle fed by PCG, both spelled out here, so that no library's change can reorder a run that is resumed.
func permutation(n int, seed, epoch uint64) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	shuffle(order, rand.NewPCG(seed, epoch))
	return order
}

func shuffle[T any](s []T, source *rand.PCG) {
	for i := len(s) - 1; i > 0; i-- {
		j := below(source, uint64(i)+1)
		s[i], s[j] = s[j], s[i]
	}
}

// below returns a uniform number under n (Lemire's method).
func below(source *rand.PCG, n uint64) uint64 {
	hi, lo := bits.Mul64(source.Uint64(), n)
	if lo < n {
		for threshold := -n % n; lo < threshold; {
			hi, lo = bits.Mul64(source.Uint64(), n)
		}
	}
	return hi
}

// Hash identifies the content of a record: all of its fields but where it stands and what task it belongs to.
func (r Record) Hash(seed uint64) uint64 {
	b := []byte{byte(r.Kind)}
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	mark := func(v bool) {
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	messages := func(list []Message) {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, m := range list {
			for _, s := range []string{m.Role, m.Content, m.Reasoning, m.ToolCallID, m.Name} {
				text(s)
			}
			b = binary.AppendUvarint(b, uint64(len(m.ToolCalls)))
			for _, c := range m.ToolCalls {
				for _, s := range []string{c.ID, c.Type, c.Function.Name, string(c.Function.Arguments)} {
					text(s)
				}
			}
		}
	}
	messages(r.Messages)
	for _, t := range r.Train {
		mark(t)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Tools)))
	for _, t := range r.Tools {
		text(string(t))
	}
	text(r.Text)
	for _, p := range []Part{r.Prompt, r.Answer, r.Chosen, r.Rejected} {
		text(p.Text)
		messages(p.Messages)
	}
	if r.Margin != nil {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(*r.Margin))
	}
	mark(r.Label)
	for _, s := range r.Steps {
		text(s.Text)
		mark(s.Label)
	}
	for _, s := range r.Segments {
		text(s.Text)
		mark(s.Train)
	}
	return xxh3.HashSeed(b, seed)
}

// HeldOut reports whether a record belongs to the evaluation part, a share from 0 to 1 of the records. It looks at
// the content alone: a record keeps its part when others are added, removed or moved, and two equal records are
// never on different sides.
func HeldOut(r Record, share float64, seed uint64) bool {
	return float64(r.Hash(seed)>>11)/(1<<53) < share
}
