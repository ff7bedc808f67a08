package runs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// log is a file of JSON lines that only grows, but for cut.
type log struct {
	path string
	f    *os.File
	size int64 // of the complete lines
}

// openLog opens or makes a file and drops a last line that is cut short: one without its line end, or one that is
// not JSON, as a machine that died may leave it.
func openLog(path string) (*log, error) {
	var last int64
	valid := true
	size, err := scan(path, func(n int, offset int64, line []byte) error {
		if !valid {
			return fmt.Errorf("%s:%d: want one JSON value, have something else; only the last line may be broken", path, n-1)
		}
		last, valid = offset, json.Valid(line)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !valid {
		size = last
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(fmt.Errorf("runs: %w", err), f.Close())
	}
	return &log{path, f, size}, nil
}

// append writes a line by one call, so that a killed process leaves it whole or not at all; a disk that is full
// leaves no part of it.
func (l *log) append(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	n, err := l.f.Write(append(b, '\n'))
	if err != nil {
		return fmt.Errorf("runs: %w", errors.Join(err, l.f.Truncate(l.size)))
	}
	l.size += int64(n)
	return nil
}

// cut drops all from the first line on whose step is later.
func (l *log) cut(step int) error {
	end := int64(-1)
	_, err := scan(l.path, func(n int, offset int64, line []byte) error {
		var v struct{ Step int }
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("%s:%d: %w", l.path, n, err)
		}
		if v.Step > step && end < 0 {
			end = offset
		}
		return nil
	})
	if err != nil || end < 0 {
		return err
	}
	if err := errors.Join(l.f.Truncate(end), l.f.Sync()); err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	l.size = end
	return nil
}

// longest bounds a line, and with it what a broken file can make this package allocate.
const longest = 64 << 20

// scan calls f for each line that has its end, with its number from 1 and its offset, and returns the length of all
// of them. A missing file is empty.
func scan(path string, f func(n int, offset int64, line []byte) error) (int64, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("runs: %w", err)
	}
	defer file.Close()
	return scanLines(path, file, f)
}

func scanLines(path string, from io.Reader, f func(n int, offset int64, line []byte) error) (int64, error) {
	r := bufio.NewReaderSize(from, 64<<10)
	var offset int64
	var line []byte
	for n := 1; ; {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= longest:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return offset, fmt.Errorf("%s:%d: want a line of at most %d bytes", path, n, longest)
		case errors.Is(err, io.EOF):
			return offset, nil
		case err != nil:
			return offset, fmt.Errorf("%s: %w", path, err)
		}
		if err := f(n, offset, bytes.TrimSpace(line)); err != nil {
			return offset, err
		}
		offset += int64(len(line))
		line = line[:0]
		n++
	}
}
