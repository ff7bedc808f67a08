package data

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/zeebo/xxh3"
)

// Store holds examples in a compact form (two to three bytes a token) and gives each back by its number. It begins
// in memory; past a limit it moves to a file, so that a data set may be larger than memory. What stays in memory is
// sixteen bytes an example.
type Store struct {
	path  string // the file to move to; "" means never
	limit int    // bytes in memory
	data  []byte // the examples, while there is no file
	file  *os.File
	w     *bufio.Writer
	size  int64
	index [][]entry // in blocks, so that it grows without being copied
	begin []int64   // where the examples of each block begin
	n     int
	files []string
	tasks []string
	hash  uint64
	buf   []byte

	temporary bool // the file has a name of its own
	sequences int  // of every example
	widest    int  // longest sequence
}

// entry describes an example without reading it.
type entry struct {
	tokens, supervised, task int32
	size                     uint32 // bytes
}

// indexBlock is the number of entries in a block of the index. Finding an example adds up the sizes of half as many.
const indexBlock = 1 << 8

// NewStore returns an empty store. When the examples exceed limit bytes they move to a file at path, which Close
// removes; with an empty path they stay in memory.
func NewStore(path string, limit int) *Store {
	return &Store{path: path, limit: limit}
}

// NewTempStore returns an empty store whose examples move to a temporary file when they exceed limit bytes.
func NewTempStore(limit int) *Store {
	return &Store{temporary: true, limit: limit}
}

// Add appends an example.
func (s *Store) Add(e Example) error {
	if len(e.IDs) != len(e.Train) {
		return fmt.Errorf("data: example of %s: %d ids and %d marks", e.Pos, len(e.IDs), len(e.Train))
	}
	if len(e.IDs) > math.MaxInt32/8 || s.n >= math.MaxInt32 {
		return fmt.Errorf("data: %s: more tokens or examples than are counted here", e.Pos)
	}
	if n := len(e.Cuts) + 1; s.sequences == 0 {
		s.sequences = n
	} else if n != s.sequences {
		return fmt.Errorf("data: example of %s: %s, the examples before it have %d", e.Pos, plural(n, "sequence"), s.sequences)
	}
	start := 0
	for _, end := range append(e.Cuts[:len(e.Cuts):len(e.Cuts)], len(e.IDs)) {
		if end < start || end > len(e.IDs) {
			return fmt.Errorf("data: example of %s: cut %d lies outside of its %d tokens", e.Pos, end, len(e.IDs))
		}
		s.widest = max(s.widest, end-start)
		start = end
	}
	b := binary.AppendUvarint(s.buf[:0], uint64(intern(&s.files, e.Pos.File)))
	b = binary.AppendUvarint(b, uint64(e.Pos.Line))
	b = binary.AppendUvarint(b, uint64(e.Pos.Record))
	content := len(b)
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(e.Weight))
	b = encodeGroup(b, e)
	b = encode(b, e)
	s.buf = b
	s.hash = xxh3.HashSeed(b[content:], s.hash)
	if s.n%indexBlock == 0 {
		s.index = append(s.index, make([]entry, 0, indexBlock))
		s.begin = append(s.begin, s.size)
	}
	last := len(s.index) - 1
	s.index[last] = append(s.index[last], entry{int32(len(e.IDs)), int32(e.Supervised()), intern(&s.tasks, e.Task), uint32(len(b))})
	s.n++
	s.size += int64(len(b))
	if s.file == nil && (s.path != "" || s.temporary) && len(s.data)+len(b) > s.limit {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if s.file == nil {
		s.data = append(s.data, b...)
		return nil
	}
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("data: storing examples: %w", err)
	}
	return nil
}

// spill moves the examples to the file.
func (s *Store) spill() (err error) {
	if s.temporary {
		s.file, err = os.CreateTemp("", "tunesmith-examples-*")
	} else {
		s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return fmt.Errorf("data: storing examples: %w", err)
	}
	s.w = bufio.NewWriterSize(s.file, 1<<20)
	if _, err := s.w.Write(s.data); err != nil {
		return fmt.Errorf("data: storing examples: %w", err)
	}
	s.data = nil
	return nil
}

// intern returns the number of a name in a list that is kept short by looking at its end first.
func intern(names *[]string, name string) int32 {
	for i := len(*names) - 1; i >= 0; i-- {
		if (*names)[i] == name {
			return int32(i)
		}
	}
	*names = append(*names, name)
	return int32(len(*names) - 1)
}

func (s *Store) entry(i int) entry { return s.index[i/indexBlock][i%indexBlock] }

// Len returns the number of examples.
func (s *Store) Len() int { return s.n }

// Tokens returns the length of example i.
func (s *Store) Tokens(i int) int { return int(s.entry(i).tokens) }

// Supervised returns how many tokens of example i are targets.
func (s *Store) Supervised(i int) int { return int(s.entry(i).supervised) }

// Task returns the task of example i.
func (s *Store) Task(i int) string { return s.tasks[s.entry(i).task] }

// Tasks returns the names of the tasks, in the order in which they appear.
func (s *Store) Tasks() []string { return slices.Clone(s.tasks) }

// OfTask returns the numbers of a task's examples.
func (s *Store) OfTask(name string) []int32 {
	out := []int32{}
	for i := range s.n {
		if s.tasks[s.entry(i).task] == name {
			out = append(out, int32(i))
		}
	}
	return out
}

// Sequences returns how many sequences every example has, 0 where there are no examples.
func (s *Store) Sequences() int { return s.sequences }

// Widest returns the length of the longest sequence.
func (s *Store) Widest() int { return s.widest }

// Digest identifies the examples, their order and their weights, but not the places that they come from.
func (s *Store) Digest() uint64 { return s.hash }

// Example returns example i.
func (s *Store) Example(i int) (Example, error) {
	start := s.begin[i/indexBlock]
	for _, e := range s.index[i/indexBlock][:i%indexBlock] {
		start += int64(e.size)
	}
	at := s.entry(i)
	var b []byte
	if s.file == nil {
		b = s.data[start : start+int64(at.size)]
	} else {
		if s.w.Buffered() > 0 {
			if err := s.w.Flush(); err != nil {
				return Example{}, fmt.Errorf("data: storing examples: %w", err)
			}
		}
		b = make([]byte, at.size)
		if _, err := s.file.ReadAt(b, start); err != nil {
			return Example{}, fmt.Errorf("data: reading stored examples: %w", err)
		}
	}
	e, file, err := decode(b, int(at.tokens))
	if err == nil && file >= uint64(len(s.files)) {
		err = errStored
	}
	if err != nil {
		return Example{}, fmt.Errorf("data: stored example %d: %w", i, err)
	}
	e.Pos.File, e.Task = s.files[file], s.tasks[at.task]
	return e, nil
}

// Close removes the file, if there is one.
func (s *Store) Close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file, s.index, s.n = nil, nil, 0
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// encode appends the ids as varints, then the lengths of the runs of marks, not trained first.
func encode(b []byte, e Example) []byte {
	for _, id := range e.IDs {
		b = binary.AppendUvarint(b, uint64(uint32(id)))
	}
	for i, mark := 0, false; i < len(e.Train); mark = !mark {
		n := slices.Index(e.Train[i:], !mark)
		if n < 0 {
			n = len(e.Train) - i
		}
		b = binary.AppendUvarint(b, uint64(n))
		i += n
	}
	return b
}

var errStored = fmt.Errorf("the stored bytes are damaged: %w", io.ErrUnexpectedEOF)

// decode reads what Add wrote: the number of the file, line and record, the weight, the tokens.
func decode(b []byte, tokens int) (e Example, file uint64, err error) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = errStored
			return 0
		}
		b = b[n:]
		return v
	}
	file = next()
	e.Pos.Line, e.Pos.Record = int(next()), int(next())
	if err != nil || len(b) < 4 || tokens > len(b)-4 {
		return Example{}, 0, errStored
	}
	e.Weight = math.Float32frombits(binary.LittleEndian.Uint32(b))
	b = b[4:]
	b, err = decodeGroup(b, &e, tokens)
	if err != nil || tokens > len(b) {
		return Example{}, 0, errStored
	}
	e.IDs, e.Train = make([]int32, tokens), make([]bool, tokens)
	for i := range e.IDs {
		e.IDs[i] = int32(next())
	}
	for i, mark := 0, false; i < tokens && err == nil; mark = !mark {
		n := next()
		if n > uint64(tokens-i) {
			err = errStored
			break
		}
		for range n {
			e.Train[i] = mark
			i++
		}
	}
	return e, file, err
}
