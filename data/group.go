package data

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Join makes one example of several sequences that belong together, such as the better and the worse answer to a
// prompt. They stay together in every batch, each in a row of its own.
func Join(sequences ...Example) Example {
	out := sequences[0]
	out.IDs, out.Train = slices.Clone(out.IDs), slices.Clone(out.Train)
	for _, s := range sequences[1:] {
		out.Cuts = append(out.Cuts, len(out.IDs))
		out.IDs, out.Train = append(out.IDs, s.IDs...), append(out.Train, s.Train...)
	}
	return out
}

// Sequences returns the sequences of an example, one where it has no cuts.
func (e Example) Sequences() []Example {
	if len(e.Cuts) == 0 {
		return []Example{e}
	}
	var out []Example
	start := 0
	for _, end := range append(slices.Clone(e.Cuts), len(e.IDs)) {
		s := e
		s.Cuts, s.IDs, s.Train = nil, e.IDs[start:end:end], e.Train[start:end:end]
		out = append(out, s)
		start = end
	}
	return out
}

// fitSequences is Fit for an example of several sequences: each has to fit, and each has to keep something that is
// trained.
func fitSequences(e Example, limit int, o Overlength) ([]Example, *Problem) {
	sequences := e.Sequences()
	var cut *Problem
	for i, s := range sequences {
		if o == SplitLong && limit > 0 && len(s.IDs) > limit {
			return nil, &Problem{Position: e.Pos, Level: Bad, Reason: fmt.Sprintf("%d tokens do not fit into %d, and what is compared cannot be split", len(s.IDs), limit), Remedy: "choose another overlength: keep_start, keep_end or drop"}
		}
		pieces, p := Fit(s, limit, o)
		if len(pieces) == 0 {
			p.Reason = fmt.Sprintf("sequence %d of %d: %s", i+1, len(sequences), p.Reason)
			return nil, p
		}
		if p != nil {
			cut = p
		}
		sequences[i] = pieces[0]
	}
	out := Join(sequences...)
	out.Label, out.Margin = e.Label, e.Margin
	return []Example{out}, cut
}

// rows lays an example into rows of its own, one for each of its sequences.
func (e Example) rows(number int, weight float32) [][]sequence {
	var out [][]sequence
	for _, s := range e.Sequences() {
		out = append(out, []sequence{{number, s.IDs, s.Train, s.Weight * weight}})
	}
	return out
}

// encodeGroup appends the cuts, and the label and the margin where one is not 0.
func encodeGroup(b []byte, e Example) []byte {
	n := uint64(len(e.Cuts)) << 1
	if e.Label == 0 && e.Margin == 0 {
		b = binary.AppendUvarint(b, n)
	} else {
		b = binary.AppendUvarint(b, n|1)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(e.Label))
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(e.Margin))
	}
	for _, c := range e.Cuts {
		b = binary.AppendUvarint(b, uint64(c))
	}
	return b
}

// decodeGroup reads what encodeGroup wrote and returns the rest.
func decodeGroup(b []byte, e *Example, tokens int) ([]byte, error) {
	head, n := binary.Uvarint(b)
	if n <= 0 || head>>1 > uint64(tokens) {
		return nil, errStored
	}
	b = b[n:]
	if head&1 != 0 {
		if len(b) < 8 {
			return nil, errStored
		}
		e.Label = math.Float32frombits(binary.LittleEndian.Uint32(b))
		e.Margin = math.Float32frombits(binary.LittleEndian.Uint32(b[4:]))
		b = b[8:]
	}
	last := uint64(0)
	for range head >> 1 {
		c, n := binary.Uvarint(b)
		if n <= 0 || c < last || c > uint64(tokens) {
			return nil, errStored
		}
		e.Cuts, last, b = append(e.Cuts, int(c)), c, b[n:]
	}
	return b, nil
}
