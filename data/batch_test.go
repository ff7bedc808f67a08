package data

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

func TestGoldenPacking(t *testing.T) {
	dir := golden.Dir(t, "objectives")
	var file struct {
		Cases []struct {
			SeqLength int `json:"seq_length"`
			Strategy  Packing
			Lengths   []int
			Packed    []struct {
				IDs        []int32 `json:"input_ids"`
				Labels     []int32
				SeqLengths []int `json:"seq_lengths"`
			}
		}
	}
	golden.JSON(t, filepath.Join(dir, "sft_packing.json"), &file)
	for _, c := range file.Cases {
		t.Run(c.Strategy.String(), func(t *testing.T) {
			// Ids count on over all examples, so an example's first id is the sum of the lengths before it.
			first := make([]int32, len(c.Lengths)+1)
			for i, n := range c.Lengths {
				first[i+1] = first[i] + int32(n)
			}
			rows := Pack(c.Lengths, c.SeqLength, c.Strategy)
			if rows.Len() != len(c.Packed) {
				t.Fatalf("%d rows, want %d", rows.Len(), len(c.Packed))
			}
			for r := range rows.Len() {
				row := rows.Row(r)
				var ids []int32
				var lengths []int
				for _, s := range row {
					for at := s.Start; at < s.End; at++ {
						ids = append(ids, first[s.Example]+at)
					}
					lengths = append(lengths, s.len())
				}
				if diff := cmp.Diff(c.Packed[r].IDs, ids); diff != "" {
					t.Errorf("row %d: ids (-want +got):\n%s", r, diff)
				}
				if want := c.Packed[r].SeqLengths; want != nil && !cmp.Equal(want, lengths) {
					t.Errorf("row %d: sequences %v, want %v", r, lengths, want)
				}
			}
		})
	}
}

// collated is the library's collation of some examples: labels stand at their own tokens, not one before.
type collated struct {
	IDs       [][]int32 `json:"input_ids"`
	Labels    [][]int32
	Mask      [][]int32 `json:"attention_mask"`
	Positions [][]int32 `json:"position_ids"`
	Seq       [][]int32 `json:"seq_idx"`
}

// compare checks a batch against the library's: its ids, its masks, its positions, and the labels shifted by one. A
// row of ours may be wider, since widths are rounded up.
func (want collated) compare(t *testing.T, b Batch) {
	t.Helper()
	if b.Rows != len(want.IDs) {
		t.Fatalf("%d rows, want %d", b.Rows, len(want.IDs))
	}
	supervised := 0
	for r := range want.IDs {
		for c := range b.Cols {
			at := r*b.Cols + c
			padding := c >= len(want.IDs[r]) || want.Mask != nil && want.Mask[r][c] == 0
			target := int32(-1)
			if next := c + 1; next < len(want.IDs[r]) && want.Labels[r][next] >= 0 {
				target = want.Labels[r][next]
				supervised++
			}
			switch {
			case padding != (b.Segments[at] == -1):
				t.Errorf("row %d column %d: segment %d, padding %v", r, c, b.Segments[at], padding)
			case padding && b.IDs[at] != 0:
				t.Errorf("row %d column %d: id %d of padding", r, c, b.IDs[at])
			case !padding && b.IDs[at] != want.IDs[r][c]:
				t.Errorf("row %d column %d: id %d, want %d", r, c, b.IDs[at], want.IDs[r][c])
			case b.Targets[at] != target:
				t.Errorf("row %d column %d: target %d, want %d", r, c, b.Targets[at], target)
			case (b.Weights[at] != 0) != (target >= 0):
				t.Errorf("row %d column %d: weight %g of target %d", r, c, b.Weights[at], target)
			case !padding && want.Positions != nil && b.Positions[at] != want.Positions[r][c]:
				t.Errorf("row %d column %d: position %d, want %d", r, c, b.Positions[at], want.Positions[r][c])
			case !padding && want.Seq != nil && b.Segments[at] != want.Seq[r][c]:
				t.Errorf("row %d column %d: segment %d, want %d", r, c, b.Segments[at], want.Seq[r][c])
			}
		}
	}
	if b.Supervised != supervised {
		t.Errorf("%d supervised, want %d", b.Supervised, supervised)
	}
}

// prepared is an example as the library prepared it.
type prepared struct {
	IDs        []int32 `json:"input_ids"`
	Labels     []int32
	SeqLengths []int `json:"seq_lengths"`
}

// sequences cuts a prepared row into its sequences.
func (p prepared) sequences() []sequence {
	lengths := p.SeqLengths
	if lengths == nil {
		lengths = []int{len(p.IDs)}
	}
	var out []sequence
	at := 0
	for _, n := range lengths {
		s := sequence{ids: p.IDs[at : at+n], weight: 1}
		for _, label := range p.Labels[at : at+n] {
			s.train = append(s.train, label >= 0)
		}
		out = append(out, s)
		at += n
	}
	return out
}

func TestGoldenCollation(t *testing.T) {
	dir := golden.Dir(t, "objectives")
	type options struct {
		PaddingFree bool `json:"padding_free"`
		Multiple    int  `json:"pad_to_multiple_of"`
		Positions   bool `json:"return_position_ids"`
	}
	var file struct {
		Cases []struct {
			Name        string
			Dataset     []prepared
			Collated    int  `json:"collated_first"`
			PaddingFree bool `json:"padding_free"`
			Batch       collated
		}
		Collator []struct {
			Kwargs   options
			Examples []prepared
			Batch    collated
		}
	}
	golden.JSON(t, filepath.Join(dir, "sft_data.json"), &file)
	check := func(t *testing.T, examples []prepared, o options, want collated) {
		var rows [][]sequence
		for i, e := range examples {
			if i > 0 && o.PaddingFree { // one row holds all sequences
				rows[0] = append(rows[0], e.sequences()...)
			} else {
				rows = append(rows, e.sequences())
			}
		}
		if o.PaddingFree && o.Multiple > 0 {
			// The library numbers each token of padding as a sequence; here it is none.
			n := 0
			for _, s := range rows[0] {
				n += len(s.ids)
			}
			want.Mask = [][]int32{make([]int32, len(want.IDs[0]))}
			for i := range n {
				want.Mask[0][i] = 1
			}
		}
		if !o.PaddingFree && examples[0].SeqLengths != nil {
			// This collation keeps labels across the borders of packed sequences, which are isolated here.
			for r, e := range examples {
				at := 0
				for _, n := range e.SeqLengths {
					want.Labels[r][at] = -100
					at += n
				}
			}
		}
		want.compare(t, collate(rows, max(1, o.Multiple), 0))
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			check(t, c.Dataset[:c.Collated], options{PaddingFree: c.PaddingFree}, c.Batch)
		})
	}
	for _, c := range file.Collator {
		t.Run("collator", func(t *testing.T) { check(t, c.Examples, c.Kwargs, c.Batch) })
	}
}
