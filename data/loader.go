package data

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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
	// OneTask draws a task for each batch instead of each row, so that a batch has a loss and a gradient of one task.
	OneTask bool
}

// Task is one task of a mixture.
type Task struct {
	Store  *Store
	Share  float64 // of the rows
	Weight float32 // factor of the loss
	// Examples are the numbers of the store's examples that belong to the task; nil for all.
	Examples []int32
	// From is how many rows of the whole training come before the first of this task.
	From int64
}

// example returns the number in the store of the task's example i.
func (t *Task) example(i int32) int {
	if t.Examples != nil {
		return int(t.Examples[i])
	}
	return int(i)
}

// size returns how many examples the task has.
func (t *Task) size() int {
	if t.Examples != nil {
		return len(t.Examples)
	}
	return t.Store.Len()
}

// groupedRows is how many batches' rows are sorted together by GroupByLength.
const groupedRows = 50

// Loader gives the batches of one epoch after the other, without end.
type Loader struct {
	tasks  []taskRows
	config LoaderConfig
	digest uint64
	rows   int     // of an epoch
	draws  *course // stands at the end of the epoch
	last   int     // the task drawn last
	epoch  int
	next   int      // index of the next batch in the epoch
	order  [][]pick // batches of the epoch
}

// pick is a row of a task.
type pick struct{ task, row int32 }

// taskRows are the rows of a task and the order in which they come.
type taskRows struct {
	Task
	rows  Rows
	pass  int // number of the pass over the rows that order belongs to
	order []int32
}

// State is the position of a loader. With the same examples and the same configuration, a loader that is restored to
// it goes on with exactly the batches that the other would have given.
type State struct {
	Epoch  int    `json:"epoch"`
	Batch  int    `json:"batch"`
	Digest string `json:"digest"` // of the examples and of the configuration
	// Stops are, for each task, the number of the first row that is drawn without it, -1 for none; nil if none stopped.
	Stops []int64 `json:"stops,omitempty"`
}

// NewLoader returns a loader of the examples of one store.
func NewLoader(s *Store, c LoaderConfig) (*Loader, error) {
	return NewMixture([]Task{{Store: s, Share: 1, Weight: 1}}, c)
}

// NewMixture returns a loader that draws rows from several tasks in fixed proportions. An epoch has as many rows as
// all tasks together; a small task with a large share comes several times in it, each time in an order of its own.
// Rows hold examples of one task only.
func NewMixture(tasks []Task, c LoaderConfig) (*Loader, error) {
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
	}
	l := &Loader{config: c}
	settings := []uint64{uint64(c.BatchSize), uint64(c.RowLength), uint64(c.Packing), number01(c.GroupByLength), number01(c.Shuffle), c.Seed}
	shares, from := make([]float64, len(tasks)), make([]int64, len(tasks))
	settings = append(settings, number01(c.OneTask))
	for i, t := range tasks {
		rows, err := c.layOut(&t)
		if err != nil {
			return nil, err
		}
		if !(t.Share >= 0 && t.Share <= 1) || t.Share > 0 && rows.Len() == 0 {
			return nil, fmt.Errorf("data: task %d: share %g of %s: want a share from 0 to 1, and examples if it is not 0", i, t.Share, plural(rows.Len(), "row"))
		}
		l.tasks = append(l.tasks, taskRows{Task: t, rows: rows, pass: -1})
		l.rows += rows.Len()
		shares[i], from[i] = t.Share, t.From
		if t.From > 0 && c.GroupByLength {
			return nil, errors.New("data: rows that are sorted by length have no course: choose grouping by length, or tasks that join later, not both")
		}
		settings = append(settings, t.Store.Digest(), math.Float64bits(t.Share), uint64(math.Float32bits(t.Weight)), uint64(t.From))
		for _, id := range t.Examples {
			settings = append(settings, uint64(id))
		}
	}
	if l.rows == 0 {
		return nil, errors.New("data: there are no examples")
	}
	var b []byte
	for _, v := range settings {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	l.digest = xxh3.Hash(b)
	l.draws = newCourse(shares, from)
	l.epoch = -1
	l.start(0)
	return l, nil
}

func number01(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// layOut lays the examples of a store into rows.
func (c LoaderConfig) layOut(t *Task) (Rows, error) {
	s := t.Store
	if c.Packing != NoPacking && s.Sequences() > 1 {
		return Rows{}, fmt.Errorf("data: packing %s: examples of %d sequences that are compared have rows of their own: choose packing none", c.Packing, s.Sequences())
	}
	lengths, longest := make([]int, t.size()), 1
	for i := range lengths {
		lengths[i] = s.Tokens(t.example(int32(i)))
		longest = max(longest, lengths[i])
	}
	capacity := c.RowLength
	if c.Packing == NoPacking {
		capacity = longest
	}
	if c.Packing == BestFit && longest > capacity {
		return Rows{}, fmt.Errorf("data: an example of %d tokens does not fit into packed rows of %d: cut the examples to that length, or choose packing bfd_split", longest, capacity)
	}
	return Pack(lengths, capacity, c.Packing), nil
}

// start settles the batches of an epoch.
func (l *Loader) start(epoch int) {
	l.next = 0
	if epoch == l.epoch {
		return
	}
	if epoch < l.epoch {
		l.draws.rewind()
		l.epoch = -1
	}
	for ; l.epoch < epoch-1; l.epoch++ {
		for i := range l.rows {
			l.draw(i)
		}
	}
	l.epoch = epoch
	picks := make([]pick, l.rows)
	for i := range picks {
		task := l.draw(i)
		picks[i] = pick{int32(task), l.tasks[task].row(l.draws.drawn[task]-1, l.config, uint64(task))}
	}
	size := l.config.BatchSize
	if l.config.GroupByLength {
		for part := range slices.Chunk(picks, groupedRows*size) {
			slices.SortStableFunc(part, func(a, b pick) int { return cmp.Compare(l.length(b), l.length(a)) })
		}
	}
	l.order = slices.Collect(slices.Chunk(picks, size))
	if l.config.GroupByLength && l.config.Shuffle {
		// Another stream of the generator than the rows' order has.
		shuffle(l.order, rand.NewPCG(^l.config.Seed, uint64(epoch)))
	}
}

// draw returns the task of row i of an epoch.
func (l *Loader) draw(i int) int {
	if l.config.OneTask && i%l.config.BatchSize > 0 {
		l.draws.at++
		l.draws.drawn[l.last]++
		return l.last
	}
	l.last = l.draws.next()
	return l.last
}

// Stop leaves a task out of the rows that come next. The last task that is left goes on.
func (l *Loader) Stop(task int) error {
	if l.config.GroupByLength {
		return errors.New("data: rows that are sorted by length have no course: no task can stop")
	}
	left := 0
	for i, s := range l.draws.stop {
		if i != task && s < 0 && l.tasks[i].Share > 0 {
			left++
		}
	}
	if left == 0 || l.draws.stop[task] >= 0 {
		return nil
	}
	stops := slices.Clone(l.draws.stop)
	stops[task] = int64(l.epoch)*int64(l.rows) + int64(min(l.next*l.config.BatchSize, l.rows))
	l.replan(stops)
	return nil
}

// Stopped reports whether a task is left out.
func (l *Loader) Stopped(task int) bool { return l.draws.stop[task] >= 0 }

// replan settles the batches of the epoch with other stops.
func (l *Loader) replan(stops []int64) {
	epoch, next := l.epoch, l.next
	copy(l.draws.stop, stops)
	l.draws.rewind()
	l.epoch = -1
	l.start(epoch)
	l.next = next
}

// row returns the row of the k-th draw of a task.
func (t *taskRows) row(k int, c LoaderConfig, number uint64) int32 {
	n := t.rows.Len()
	if !c.Shuffle {
		return int32(k % n)
	}
	if pass := k / n; pass != t.pass {
		t.pass = pass
		t.order = permutation(n, c.Seed+number<<32, uint64(pass))
	}
	return t.order[k%n]
}

// length returns the tokens of a row.
func (l *Loader) length(p pick) int {
	n := 0
	for _, s := range l.tasks[p.task].rows.Row(int(p.row)) {
		n += s.len()
	}
	return n
}

// Next returns the batches of one optimizer step. The last step of an epoch may have fewer than Accumulate batches,
// and one batch of an epoch fewer rows. Of one data set no example is left out, and none comes twice in an epoch.
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
func (l *Loader) batch(picks []pick) (Batch, error) {
	var filled [][]sequence
	var tasks []int
	var labels, margins []float32
	sequences := 1
	for _, p := range picks {
		t := &l.tasks[p.task]
		var row []sequence
		for _, s := range t.rows.Row(int(p.row)) {
			number := t.example(s.Example)
			e, err := t.Store.Example(number)
			if err != nil {
				return Batch{}, err
			}
			labels, margins = append(labels, e.Label), append(margins, e.Margin)
			if len(e.Cuts) > 0 {
				sequences = len(e.Cuts) + 1
				filled = append(filled, e.rows(number, t.Weight)...)
				continue
			}
			row = append(row, sequence{number, e.IDs[s.Start:s.End], e.Train[s.Start:s.End], e.Weight * t.Weight})
		}
		if row != nil {
			filled = append(filled, row)
		}
		for len(tasks) < len(filled) {
			tasks = append(tasks, int(p.task))
		}
	}
	out := collate(filled, l.config.Multiple, l.config.PadID)
	out.Tasks, out.Sequences, out.Labels, out.Margins = tasks, sequences, labels, margins
	return out, nil
}

// Steps returns the optimizer steps of an epoch.
func (l *Loader) Steps() int {
	return (len(l.order) + l.config.Accumulate - 1) / l.config.Accumulate
}

// Rows returns the rows of an epoch.
func (l *Loader) Rows() int { return l.rows }

// Drawn returns how many rows of each task lie behind the epoch's end, since the start.
func (l *Loader) Drawn() []int { return slices.Clone(l.draws.drawn) }

// Passes returns how often an epoch goes over each task's rows.
func (l *Loader) Passes() []float64 {
	passes := make([]float64, len(l.tasks))
	for i, t := range l.tasks {
		if n := t.rows.Len(); n > 0 {
			passes[i] = t.Share * float64(l.rows) / float64(n)
		}
	}
	return passes
}

// Epoch returns how many epochs are behind, with the part of the current one as a fraction.
func (l *Loader) Epoch() float64 {
	return float64(l.epoch) + float64(l.next)/float64(len(l.order))
}

// State returns the position after the last step.
func (l *Loader) State() State {
	s := State{Epoch: l.epoch, Batch: l.next, Digest: fmt.Sprintf("%016x", l.digest)}
	if slices.ContainsFunc(l.draws.stop, func(n int64) bool { return n >= 0 }) {
		s.Stops = slices.Clone(l.draws.stop)
	}
	return s
}

// Restore goes to a position. It refuses the position of a loader with other examples or another configuration.
func (l *Loader) Restore(s State) error {
	if own := l.State().Digest; s.Digest != own {
		return fmt.Errorf("data: the position belongs to other examples or other batches (digest %s, here %s): resume with the data and the data options of the run", s.Digest, own)
	}
	if s.Epoch < 0 || s.Batch < 0 || s.Batch > len(l.order) {
		return fmt.Errorf("data: position epoch %d batch %d is impossible: an epoch has %d batches", s.Epoch, s.Batch, len(l.order))
	}
	if s.Stops != nil && len(s.Stops) != len(l.tasks) {
		return fmt.Errorf("data: position with %d stops for %s", len(s.Stops), plural(len(l.tasks), "task"))
	}
	stops := s.Stops
	if stops == nil {
		stops = slices.Repeat([]int64{-1}, len(l.tasks))
	}
	if !slices.Equal(stops, l.draws.stop) {
		l.replan(stops)
	}
	l.start(s.Epoch)
	l.next = s.Batch
	return nil
}
