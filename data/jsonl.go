package data

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// row is one row of a file before it is known what it means.
type row struct {
	pos      Position
	columns  *object
	size     int      // bytes in the file
	warnings []string // what was mended
	textual  bool     // the file has no types: numbers and booleans are text
}

// rowReader yields the rows of one file. An error that is a [*Problem] concerns one row, and reading goes on, unless
// the problem is fatal. After the last row the error is io.EOF.
type rowReader interface {
	next() (row, error)
}

// input is the decoded text of a file with its line count.
type input struct {
	r     *bufio.Reader
	file  string
	line  int // the line that the next byte belongs to, from 1
	limit int // bytes of one record
	buf   []byte
}

// readFailed is the problem of a file that cannot be read to its end. Records before it were good.
func (in *input) readFailed(err error) *Problem {
	p := problem(Position{File: in.file}, err)
	p.fatal = true
	return &p
}

func (in *input) tooLong(line int) *Problem {
	return &Problem{
		Position: Position{File: in.file, Line: line}, Level: Bad,
		Reason: fmt.Sprintf("record is longer than the limit of %s", megabytes(in.limit)), Remedy: "split it, or raise the limit",
	}
}

func megabytes(n int) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// readLine returns the next line without its end, valid until the next call. closed is false when the file ends
// without a line end. A line over the limit is passed over and gives a problem.
func (in *input) readLine() (line []byte, closed bool, err error) {
	in.buf = in.buf[:0]
	number := in.line
	for {
		chunk, err := in.r.ReadSlice('\n')
		if len(in.buf)+len(chunk) > in.limit+2 {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.r.ReadSlice('\n')
			}
			in.line++
			if err != nil && err != io.EOF {
				return nil, false, in.readFailed(err)
			}
			return nil, false, in.tooLong(number)
		}
		switch {
		case err == nil && len(in.buf) == 0: // the usual case: no copy
			line, closed = chunk, true
		case err == nil:
			in.buf = append(in.buf, chunk...)
			line, closed = in.buf, true
		case errors.Is(err, bufio.ErrBufferFull):
			in.buf = append(in.buf, chunk...)
			continue
		case err == io.EOF:
			in.buf = append(in.buf, chunk...)
			if len(in.buf) == 0 {
				return nil, false, io.EOF
			}
			line = in.buf
		default:
			return nil, false, in.readFailed(err)
		}
		in.line++
		line = bytes.TrimSuffix(line, []byte{'\n'})
		return bytes.TrimSuffix(line, []byte{'\r'}), closed, nil
	}
}

// peek returns the first byte that is not white space and the one after it (also past white space), without taking
// anything from the input; 0 stands for none within the buffer.
func (in *input) peek() (first, second byte) {
	for n := 512; ; n *= 8 {
		head, err := in.r.Peek(min(n, in.r.Size()))
		text := bytes.TrimLeft(head, " \t\r\n")
		if len(text) > 0 {
			first = text[0]
			if rest := bytes.TrimLeft(text[1:], " \t\r\n"); len(rest) > 0 {
				return first, rest[0]
			}
		}
		if err != nil || n >= in.r.Size() {
			return first, 0
		}
	}
}

// linesReader reads JSON lines: one object a line, blank lines ignored.
type linesReader struct {
	in      *input
	records int
}

func (l *linesReader) next() (row, error) {
	for {
		number := l.in.line
		line, closed, err := l.in.readLine()
		if err != nil {
			return row{}, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		l.records++
		pos := Position{File: l.in.file, Line: number, Record: l.records}
		r, err := parseRow(pos, line)
		var p *Problem
		if errors.As(err, &p) && !closed {
			p.Reason = strings.Replace(p.Reason, lineEnds, fileEnds, 1)
		}
		return r, err
	}
}

// What a value that is not closed is told by; the file's last line may have been cut off.
const (
	lineEnds = "invalid JSON: the line ends"
	fileEnds = "the file (truncated?) ends"
)

// parseRow reads the JSON object of one record.
func parseRow(pos Position, text []byte) (row, error) {
	value, warnings, err := parseJSON(string(text))
	var e *syntaxError
	if errors.As(err, &e) {
		line, column := lineOf(text, e.offset, pos.Line)
		p := &Problem{Position: Position{File: pos.File, Line: line, Record: pos.Record}, Column: column, Level: Bad, Reason: "invalid JSON: " + e.reason, Remedy: e.remedy}
		if e.eof {
			p.Reason = strings.Replace(e.reason, "ends", lineEnds, 1)
		}
		return row{}, p
	}
	columns, ok := value.(*object)
	if !ok {
		return row{}, &Problem{Position: pos, Level: Bad, Reason: "want an object, have " + typeName(value), Remedy: `write a record as {"column": value, ...}`}
	}
	return row{pos: pos, columns: columns, size: len(text), warnings: warnings}, nil
}

// arrayReader reads the elements of one JSON array, or JSON values that follow each other, one at a time.
type arrayReader struct {
	in      *input
	array   bool // the values stand between [ and ]
	opened  bool // the [ is behind
	between bool // the next thing is a comma, not a value
	done    bool
	records int
}

func (a *arrayReader) next() (row, error) {
	if a.done {
		return row{}, io.EOF
	}
	if a.array && !a.opened {
		if _, err := a.in.skipSpace(); err != nil {
			return row{}, a.fatal(err)
		}
		a.in.r.Discard(1) // the '[' that peek saw
		a.opened = true
	}
	c, err := a.in.skipSpace()
	switch {
	case err == io.EOF && !a.array:
		a.done = true
		return row{}, io.EOF
	case err != nil:
		return row{}, a.fatal(err)
	case a.array && c == ']':
		return row{}, a.finish()
	case a.array && a.between && c != ',':
		return row{}, a.stop("check the brackets of the record before it", "invalid JSON: ',' or ']' expected after a record, have %q", c)
	case a.array && a.between:
		a.in.r.Discard(1)
		a.between = false
		if c, err = a.in.skipSpace(); err != nil {
			return row{}, a.fatal(err)
		}
		if c == ']' {
			return row{}, &Problem{Position: a.in.here(), Level: Bad, Reason: "invalid JSON: value expected after ','", Remedy: "remove the last comma"}
		}
	}
	a.between = true
	a.records++
	pos := Position{File: a.in.file, Line: a.in.line, Record: a.records}
	text, err := a.in.readValue()
	if errors.Is(err, errTooLong) {
		return row{}, a.in.tooLong(pos.Line)
	}
	if err != nil {
		return row{}, a.fatal(err)
	}
	return parseRow(pos, text)
}

// finish takes the closing bracket and makes sure that nothing follows.
func (a *arrayReader) finish() error {
	a.in.r.Discard(1)
	a.done = true
	c, err := a.in.skipSpace()
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return a.in.readFailed(err)
	}
	return a.stop("keep one array a file", "invalid JSON: %q after the end of the array", c)
}

func (a *arrayReader) stop(remedy, format string, args ...any) *Problem {
	a.done = true
	return &Problem{Position: a.in.here(), Level: Bad, Reason: fmt.Sprintf(format, args...), Remedy: remedy, fatal: true}
}

func (a *arrayReader) fatal(err error) error {
	if err == io.EOF {
		return a.stop("fetch the file again, or close the array", "the file ends inside a value (truncated?)")
	}
	a.done = true
	return a.in.readFailed(err)
}

func (in *input) here() Position { return Position{File: in.file, Line: in.line} }

// skipSpace passes over white space and returns the next byte without taking it.
func (in *input) skipSpace() (byte, error) {
	for {
		c, err := in.r.ReadByte()
		if err != nil {
			return 0, err
		}
		if !isSpace(c) {
			return c, in.r.UnreadByte()
		}
		if c == '\n' {
			in.line++
		}
	}
}

var errTooLong = errors.New("record over the limit")

// readValue takes the bytes of one JSON value, whose brackets and quotes alone are looked at; they are valid until
// the next call. A value over the limit is passed over and gives errTooLong.
func (in *input) readValue() ([]byte, error) {
	in.buf = in.buf[:0]
	depth, quoted, escaped, long := 0, false, false, false
	for ended := false; !ended; {
		c, err := in.r.ReadByte()
		bare := depth == 0 && !quoted && len(in.buf) > 0 // inside a number or a word, which end without a sign
		if err == io.EOF && bare {
			break
		}
		if err != nil {
			return nil, err
		}
		if bare && (isSpace(c) || c == ',' || c == ']' || c == '}') {
			if err := in.r.UnreadByte(); err != nil {
				return nil, err
			}
			break
		}
		if c == '\n' {
			in.line++
		}
		if len(in.buf) < in.limit {
			in.buf = append(in.buf, c)
		} else {
			long = true
		}
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
			ended = !quoted && depth == 0
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
			ended = depth <= 0
		}
	}
	if long {
		return nil, errTooLong
	}
	return in.buf, nil
}
