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
// some forty bytes an example.
type Store struct {
	path  string // the file to move to; "" means never
	limit int    // bytes in memory
	data  []byte // the examples, while there is no file
	file  *os.File
	w     *bufio.Writer
	size  int64
	index []entry
	files []string
	tasks []string
	hash  uint64
	buf   []byte
}

// entry describes an example without reading it.
type entry struct {
	offset       int64
	tokens       int32
	supervised   int32
	file, task   int32
	line, record int32
	weight       float32
}

// NewStore returns an empty store. When the examples exceed limit bytes they move to a file at path, which Close
// removes; with an empty path they stay in memory.
func NewStore(path string, limit int) *Store {
	return &Store{path: path, limit: limit}
}

// Add appends an example.
func (s *Store) Add(e Example) error {
	if len(e.IDs) != len(e.Train) {
		return fmt.Errorf("data: example of %s: %d ids and %d marks", e.Pos, len(e.IDs), len(e.Train))
	}
	if len(e.IDs) > math.MaxInt32 || len(s.index) >= math.MaxInt32 {
		return fmt.Errorf("data: %s: more than 2^31 tokens or examples", e.Pos)
	}
	s.buf = encode(s.buf[:0], e)
	s.index = append(s.index, entry{
		offset: s.size, tokens: int32(len(e.IDs)), supervised: int32(e.Supervised()), weight: e.Weight,
		file: intern(&s.files, e.Pos.File), task: intern(&s.tasks, e.Task), line: int32(e.Pos.Line), record: int32(e.Pos.Record),
	})
	s.size += int64(len(s.buf))
	var seed [12]byte
	binary.LittleEndian.PutUint64(seed[:], s.hash)
	binary.LittleEndian.PutUint32(seed[8:], math.Float32bits(e.Weight))
	s.hash = xxh3.HashSeed(s.buf, xxh3.Hash(seed[:]))
	if s.file == nil && s.path != "" && len(s.data)+len(s.buf) > s.limit {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if s.file == nil {
		s.data = append(s.data, s.buf...)
		return nil
	}
	if _, err := s.w.Write(s.buf); err != nil {
		return fmt.Errorf("data: storing examples: %w", err)
	}
	return nil
}

// spill moves the examples to the file.
func (s *Store) spill() (err error) {
	if s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
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

// Len returns the number of examples.
func (s *Store) Len() int { return len(s.index) }

// Tokens returns the length of example i.
func (s *Store) Tokens(i int) int { return int(s.index[i].tokens) }

// Supervised returns how many tokens of example i are targets.
func (s *Store) Supervised(i int) int { return int(s.index[i].supervised) }

// Task returns the task of example i.
func (s *Store) Task(i int) string { return s.tasks[s.index[i].task] }

// Digest identifies the examples, their order and their weights.
func (s *Store) Digest() uint64 { return s.hash }

// Example returns example i.
func (s *Store) Example(i int) (Example, error) {
	e := s.index[i]
	end := s.size
	if i+1 < len(s.index) {
		end = s.index[i+1].offset
	}
	var b []byte
	if s.file == nil {
		b = s.data[e.offset:end]
	} else {
		if err := s.w.Flush(); err != nil {
			return Example{}, fmt.Errorf("data: storing examples: %w", err)
		}
		b = make([]byte, end-e.offset)
		if _, err := s.file.ReadAt(b, e.offset); err != nil {
			return Example{}, fmt.Errorf("data: reading stored examples: %w", err)
		}
	}
	ex := Example{Weight: e.weight, Task: s.tasks[e.task], Pos: Position{File: s.files[e.file], Line: int(e.line), Record: int(e.record)}}
	var err error
	if ex.IDs, ex.Train, err = decode(b, int(e.tokens)); err != nil {
		return Example{}, fmt.Errorf("data: stored example %d: %w", i, err)
	}
	return ex, nil
}

// Close removes the file, if there is one.
func (s *Store) Close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file, s.index = nil, nil
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

// decode reads what encode wrote.
func decode(b []byte, tokens int) ([]int32, []bool, error) {
	next := func() (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, io.ErrUnexpectedEOF
		}
		b = b[n:]
		return v, nil
	}
	if tokens > len(b) {
		return nil, nil, io.ErrUnexpectedEOF
	}
	ids, train := make([]int32, tokens), make([]bool, tokens)
	for i := range ids {
		v, err := next()
		if err != nil {
			return nil, nil, err
		}
		ids[i] = int32(v)
	}
	for i, mark := 0, false; i < tokens; mark = !mark {
		n, err := next()
		if err != nil || n > uint64(tokens-i) {
			return nil, nil, io.ErrUnexpectedEOF
		}
		for range n {
			train[i] = mark
			i++
		}
	}
	return ids, train, nil
}
