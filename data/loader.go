package data

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/zeebo/xxh3"
)

// LoaderConfig says how examples become batches.
type LoaderConfig struct {
	BatchSize  int     // rows of a batch
	Accumulate int     // batches of an optimizer step; 0 is 1
	RowLength  int     // tokens of a packed row
	Packing    Packing // how examples share rows
	// GroupByLength puts rows of similar length into a batch, which saves padding. The batches' order stays random.
	GroupByLength bool
	Shuffle       bool // each epoch has an order of its own, a function of Seed and the epoch's number
	Seed          uint64
	Multiple      int   // the width of a batch is a multiple of it; 0 is 32
	PadID         int32 // the token of padding
}

// groupedRows is how many batches' rows are sorted together by GroupByLength.
const groupedRows = 50

// Loader gives the batches of one epoch after the other, without end.
type Loader struct {
	store  *Store
	config LoaderConfig
	rows   [][]Span
	digest uint64
	epoch  int
	next   int       // index of the next batch in the epoch
	order  [][]int32 // batches of the epoch: numbers of rows
}

// State is the position of a loader. With the same examples and the same configuration, a loader that is restored to
// it goes on with exactly the batches that the other would have given.
type State struct {
	Epoch  int    `json:"epoch"`
	Batch  int    `json:"batch"`
	Digest string `json:"digest"` // of the examples and of the configuration
}

// NewLoader lays the examples of a store into rows.
func NewLoader(s *Store, c LoaderConfig) (*Loader, error) {
	if c.Multiple == 0 {
		c.Multiple = 32
	}
	if c.Accumulate == 0 {
		c.Accumulate = 1
	}
	switch {
	case c.BatchSize < 1:
		return nil, fmt.Errorf("data: batch size: want >= 1, have %d", c.BatchSize)
	case c.Accumulate < 1:
		return nil, fmt.Errorf("data: accumulation: want >= 1, have %d", c.Accumulate)
	case c.Multiple < 1:
		return nil, fmt.Errorf("data: width multiple: want >= 1, have %d", c.Multiple)
	case c.Packing != NoPacking && c.RowLength < 2:
		return nil, fmt.Errorf("data: packing needs a row length >= 2, have %d", c.RowLength)
	case c.Packing != NoPacking && c.GroupByLength:
		return nil, errors.New("data: packed rows have one length: choose packing or grouping by length, not both")
	case s.Len() == 0:
		return nil, errors.New("data: there are no examples")
	}
	lengths, longest := make([]int, s.Len()), 1
	for i := range lengths {
		lengths[i] = s.Tokens(i)
		longest = max(longest, lengths[i])
	}
	capacity := c.RowLength
	if c.Packing == NoPacking {
		capacity = longest
	}
	if c.Packing == BestFit && longest > capacity {
		return nil, fmt.Errorf("data: an example of %d tokens does not fit into packed rows of %d: cut the examples to that length, or choose packing bfd_split", longest, capacity)
	}
	l := &Loader{store: s, config: c, rows: Pack(lengths, capacity, c.Packing)}
	var b []byte
	shuffled, grouped := uint64(0), uint64(0)
	if c.Shuffle {
		shuffled = 1
	}
	if c.GroupByLength {
		grouped = 1
	}
	for _, v := range []uint64{s.Digest(), uint64(c.BatchSize), uint64(c.RowLength), uint64(c.Packing), grouped, shuffled, c.Seed} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	l.digest = xxh3.Hash(b)
	l.start(0)
	return l, nil
}

// start settles the batches of an epoch.
func (l *Loader) start(epoch int) {
	l.epoch, l.next = epoch, 0
	n, size := len(l.rows), l.config.BatchSize
	if l.order != nil && !l.config.Shuffle {
		return // every epoch is alike
	}
	var order []int32
	if l.config.Shuffle {
		order = permutation(n, l.config.Seed, uint64(epoch))
	} else {
		order = make([]int32, n)
		for i := range order {
			order[i] = int32(i)
		}
	}
	if l.config.GroupByLength {
		for part := range slices.Chunk(order, groupedRows*size) {
			slices.SortStableFunc(part, func(a, b int32) int { return cmp.Compare(l.rowLength(b), l.rowLength(a)) })
		}
	}
	l.order = l.order[:0]
	for batch := range slices.Chunk(order, size) {
		l.order = append(l.order, batch)
	}
	if l.config.GroupByLength && l.config.Shuffle {
		// Another stream of the generator than the rows' order had.
		shuffle(l.order, rand.NewPCG(^l.config.Seed, uint64(epoch)))
	}
}

func (l *Loader) rowLength(row int32) int {
	n := 0
	for _, s := range l.rows[row] {
		n += s.len()
	}
	return n
}

// Next returns the batches of one optimizer step. The last step of an epoch may have fewer than Accumulate batches,
// and one batch of an epoch fewer rows; no example is left out and none comes twice in an epoch.
func (l *Loader) Next() ([]Batch, error) {
	if l.next == len(l.order) {
		l.start(l.epoch + 1)
	}
	var step []Batch
	for len(step) < l.config.Accumulate && l.next < len(l.order) {
		b, err := l.batch(l.order[l.next])
		if err != nil {
			return nil, err
		}
		step = append(step, b)
		l.next++
	}
	return step, nil
}

// batch reads the examples of some rows.
func (l *Loader) batch(rows []int32) (Batch, error) {
	filled := make([][]sequence, len(rows))
	for i, r := range rows {
		for _, s := range l.rows[r] {
			e, err := l.store.Example(int(s.Example))
			if err != nil {
				return Batch{}, err
			}
			filled[i] = append(filled[i], sequence{int(s.Example), e.IDs[s.Start:s.End], e.Train[s.Start:s.End], e.Weight})
		}
	}
	return collate(filled, l.config.Multiple, l.config.PadID), nil
}

// Steps returns the optimizer steps of an epoch.
func (l *Loader) Steps() int {
	return (len(l.order) + l.config.Accumulate - 1) / l.config.Accumulate
}

// Rows returns the rows of an epoch.
func (l *Loader) Rows() int { return len(l.rows) }

// Epoch returns how many epochs are behind, with the part of the current one as a fraction.
func (l *Loader) Epoch() float64 {
	return float64(l.epoch) + float64(l.next)/float64(len(l.order))
}

// State returns the position after the last step.
func (l *Loader) State() State {
	return State{Epoch: l.epoch, Batch: l.next, Digest: fmt.Sprintf("%016x", l.digest)}
}

// Restore goes to a position. It refuses the position of a loader with other examples or another configuration.
func (l *Loader) Restore(s State) error {
	if own := l.State().Digest; s.Digest != own {
		return fmt.Errorf("data: the position belongs to other examples or other batches (digest %s, here %s): resume with the data and the data options of the run", s.Digest, own)
	}
	if s.Epoch < 0 || s.Batch < 0 || s.Batch > len(l.order) {
		return fmt.Errorf("data: position epoch %d batch %d is impossible: an epoch has %d batches", s.Epoch, s.Batch, len(l.order))
	}
	l.start(s.Epoch)
	l.next = s.Batch
	return nil
}
