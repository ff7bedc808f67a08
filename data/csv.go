package data

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// csvReader reads comma- or tab-separated values (RFC 4180) with a header. A quote inside an unquoted field is text,
// as in Python's csv module; a quoted field that never closes and a row of another width are problems.
type csvReader struct {
	in      *input
	comma   byte
	header  []string
	records int
	done    bool
}

// readHeader reads the first row, whose problems are fatal.
func (c *csvReader) readHeader() error {
	for {
		line := c.in.line
		names, err := c.fields()
		if err == io.EOF {
			return io.EOF
		}
		if err != nil {
			p := problem(Position{File: c.in.file, Line: line}, err)
			p.fatal = true
			return &p
		}
		if len(names) == 1 && blank(names[0]) {
			continue
		}
		for i, name := range names {
			names[i] = strings.TrimSpace(name)
			if slices.Contains(names[:i], names[i]) {
				return &Problem{
					Position: Position{File: c.in.file, Line: line}, Level: Bad, fatal: true,
					Reason: fmt.Sprintf("column '%s' appears twice in the header", clip(names[i], 40)), Remedy: "name each column once; the first row must hold the names",
				}
			}
		}
		c.header = names
		return nil
	}
}

func (c *csvReader) next() (row, error) {
	for {
		if c.done {
			return row{}, io.EOF
		}
		line := c.in.line
		fields, err := c.fields()
		if err != nil {
			return row{}, err
		}
		if len(fields) == 1 && blank(fields[0]) && len(c.header) > 1 {
			continue
		}
		c.records++
		pos := Position{File: c.in.file, Line: line, Record: c.records}
		if len(fields) != len(c.header) {
			return row{}, &Problem{Position: pos, Level: Bad, Reason: fmt.Sprintf("%s, header has %d", plural(len(fields), "field"), len(c.header)), Remedy: "quote fields that hold separators, and fill empty fields"}
		}
		o, size := &object{}, 0
		for i, name := range c.header {
			o.set(name, fields[i])
			size += len(fields[i])
		}
		return row{pos: pos, columns: o, size: size, textual: true}, nil
	}
}

// fields reads one row, which may span lines.
func (c *csvReader) fields() ([]string, error) {
	start := c.in.line
	var (
		fields []string
		size   int
		field  []byte
		at     = start // the line where the field begins
		quoted bool    // inside quotes
		closed bool    // after the closing quote
	)
	broken := func(line int, remedy, format string, args ...any) error {
		return &Problem{Position: Position{File: c.in.file, Line: line}, Level: Bad, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	add := func() error {
		if i := invalidUTF8(string(field)); i >= 0 {
			return broken(at, "convert the file to UTF-8", "byte 0x%02X is not UTF-8 (Latin-1 file?)", field[i])
		}
		fields = append(fields, string(field))
		field, closed, at = field[:0], false, c.in.line
		return nil
	}
	// A broken row is read to its line end all the same, so that the next row starts where it should.
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	for {
		b, err := c.in.r.ReadByte()
		switch {
		case err == io.EOF && quoted:
			c.done = true
			return nil, broken(at, "close the quotes; write \"\" for a quote inside quotes", "quoted field is not closed")
		case err == io.EOF && size == 0:
			c.done = true
			return nil, io.EOF
		case err != nil && err != io.EOF:
			c.done = true
			return nil, c.in.readFailed(err)
		case err == io.EOF || b == '\n' && !quoted:
			if err == nil {
				c.in.line++
			} else {
				c.done = true
			}
			if n := len(field); n > 0 && field[n-1] == '\r' && !closed {
				field = field[:n-1]
			}
			note(add())
			return fields, first
		}
		if size++; size > c.in.limit {
			if !quoted {
				note(c.in.tooLong(start))
				field, fields = field[:0], fields[:0]
				continue
			}
			c.done = true
			p := broken(at, "close the quotes", "quoted field is longer than the limit of %s: is it not closed?", megabytes(c.in.limit)).(*Problem)
			p.fatal = true
			return nil, p
		}
		switch {
		case quoted && b == '"':
			if next, _ := c.in.r.Peek(1); len(next) == 1 && next[0] == '"' {
				c.in.r.Discard(1)
				field = append(field, '"')
			} else {
				quoted, closed = false, true
			}
		case quoted:
			if b == '\n' {
				c.in.line++
			}
			field = append(field, b)
		case b == c.comma:
			note(add())
		case b == '"' && len(field) == 0 && !closed:
			quoted = true
		case closed && b != '\r':
			note(broken(at, "write \"\" for a quote inside quotes", "%q after the closing quote of a field", b))
		case closed:
		case b == 0:
			note(broken(at, "remove it", "control character 0x00 in a field"))
		default:
			field = append(field, b)
		}
	}
}

// textReader reads plain text: one document a line, blank lines left out, spaces kept.
type textReader struct {
	in      *input
	records int
}

func (t *textReader) next() (row, error) {
	for {
		number := t.in.line
		line, _, err := t.in.readLine()
		if err != nil {
			return row{}, err
		}
		if blank(string(line)) {
			continue
		}
		t.records++
		pos := Position{File: t.in.file, Line: number, Record: t.records}
		if at := invalidUTF8(string(line)); at >= 0 {
			return row{}, &Problem{Position: pos, Column: at + 1, Level: Bad, Reason: fmt.Sprintf("byte 0x%02X is not UTF-8 (Latin-1 file?)", line[at]), Remedy: "convert the file to UTF-8"}
		}
		o := &object{}
		o.set("text", string(line))
		return row{pos: pos, columns: o, size: len(line)}, nil
	}
}
