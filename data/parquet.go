package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"unicode/utf8"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// maxFooter bounds the footer of a Parquet file, which is read whole.
const maxFooter = 64 << 20

// parquetReader reads the rows of a Parquet file, a few at a time.
type parquetReader struct {
	path    string
	file    *pq.File
	group   int     // index of the row group after the open one
	rows    pq.Rows // of the open row group
	buf     [16]pq.Row
	have    []pq.Row // read and not handed out yet
	records int
	limit   int
}

// openParquet checks the frame of the file before the library reads it.
func (f *file) openParquet(handle *os.File, path string, limit int) (err error) {
	defer recoverParquet(path, &err)
	st, err := handle.Stat()
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	var head [4]byte
	var tail [8]byte
	size := st.Size()
	if size < 12 {
		return bad("fetch the file again", "not a Parquet file: %d bytes are too few", size)
	}
	for _, part := range []struct {
		b  []byte
		at int64
	}{{head[:], 0}, {tail[:], size - 8}} {
		if _, err := handle.ReadAt(part.b, part.at); err != nil {
			return fmt.Errorf("cannot be read: %w", err)
		}
	}
	switch footer := int64(binary.LittleEndian.Uint32(tail[:])); {
	case string(head[:]) != "PAR1":
		return bad("check the file's ending", "not a Parquet file (starts with % X)", head[:])
	case string(tail[4:]) != "PAR1":
		return bad("fetch the file again", "not a Parquet file (footer magic missing): incomplete download?")
	case footer > size-12 || footer > maxFooter:
		return bad("fetch the file again", "Parquet footer of %d bytes in a file of %d", footer, size)
	}
	p := &parquetReader{path: path, limit: limit}
	if p.file, err = pq.OpenFile(handle, size, pq.SkipPageIndex(true), pq.SkipBloomFilters(true)); err != nil {
		return bad("fetch the file again, or write it anew", "Parquet file is damaged: %v", err)
	}
	f.rows = p
	f.closers = append(f.closers, p.close)
	return nil
}

// recoverParquet turns a panic of the library on a damaged file into a problem of the file.
func recoverParquet(path string, err *error) {
	if r := recover(); r != nil {
		*err = &Problem{Position: Position{File: path}, Level: Bad, Reason: fmt.Sprintf("Parquet file is damaged: %v", r), Remedy: "fetch the file again, or write it anew", fatal: true}
	}
}

func (p *parquetReader) close() (err error) {
	defer recoverParquet(p.path, &err)
	if p.rows != nil {
		return p.rows.Close()
	}
	return nil
}

func (p *parquetReader) next() (_ row, err error) {
	defer recoverParquet(p.path, &err)
	for len(p.have) == 0 {
		if err := p.more(); err != nil {
			return row{}, err
		}
	}
	cells := p.have[0]
	p.have = p.have[1:]
	p.records++
	pos := Position{File: p.path, Record: p.records}
	columns := make([][]pq.Value, 0, 16)
	size := 0
	for _, v := range cells {
		for len(columns) <= v.Column() {
			columns = append(columns, nil)
		}
		columns[v.Column()] = append(columns[v.Column()], v)
		if k := v.Kind(); k == pq.ByteArray || k == pq.FixedLenByteArray {
			size += len(v.ByteArray())
		}
	}
	if size > p.limit {
		return row{}, &Problem{Position: pos, Level: Bad, Reason: fmt.Sprintf("record is longer than the limit of %s", megabytes(p.limit)), Remedy: "split it, or raise the limit"}
	}
	o := &object{}
	for _, field := range p.file.Root().Columns() {
		value, err := assemble(field, columns, 0, 0)
		if err != nil {
			return row{}, &Problem{Position: pos, Level: Bad, Reason: fmt.Sprintf("column '%s': %v", field.Name(), err), Remedy: "write the column as UTF-8 text"}
		}
		o.set(field.Name(), value)
	}
	return row{pos: pos, columns: o, size: size}, nil
}

// more reads the next rows of the open row group, or opens the next one.
func (p *parquetReader) more() error {
	if p.rows == nil {
		groups := p.file.RowGroups()
		if p.group == len(groups) {
			return io.EOF
		}
		p.rows = groups[p.group].Rows()
		p.group++
	}
	n, err := p.rows.ReadRows(p.buf[:])
	p.have = p.buf[:n]
	switch {
	case err == nil && n == 0:
		err = io.ErrNoProgress
	case errors.Is(err, io.EOF) && n > 0:
		return nil // the end is met again, without rows, the next time
	case errors.Is(err, io.EOF):
		err = p.rows.Close()
		p.rows = nil
		if err == nil {
			return nil
		}
	}
	if err != nil {
		return &Problem{Position: Position{File: p.path}, Level: Bad, Reason: fmt.Sprintf("Parquet file is damaged after record %d: %v", p.records, err), Remedy: "fetch the file again, or write it anew", fatal: true}
	}
	return nil
}

// assemble rebuilds one value of a column from the flat values of its leaves (Dremel's repetition and definition
// levels; rep and def are those of the value's parent). columns are indexed by leaf and hold only what belongs to
// the parent. Fields that are null are left out of objects inside a column.
func assemble(c *pq.Column, columns [][]pq.Value, rep, def int) (any, error) {
	first, ok := firstValue(c, columns)
	if !ok {
		return nil, errors.New("values are missing")
	}
	if c.Optional() {
		def++
		if first.DefinitionLevel() < def {
			return nil, nil
		}
	}
	if c.Repeated() {
		return list(c, columns, rep+1, def+1)
	}
	return instance(c, columns, rep, def)
}

// firstValue returns the first value of the first leaf of a column.
func firstValue(c *pq.Column, columns [][]pq.Value) (v pq.Value, ok bool) {
	for !c.Leaf() {
		inner := c.Columns()
		if len(inner) == 0 {
			return v, false
		}
		c = inner[0]
	}
	if i := c.Index(); i >= 0 && i < len(columns) && len(columns[i]) > 0 {
		return columns[i][0], true
	}
	return v, false
}

// list assembles the elements of a repeated column.
func list(c *pq.Column, columns [][]pq.Value, rep, def int) (any, error) {
	out := []any{}
	if first, _ := firstValue(c, columns); first.DefinitionLevel() < def {
		return out, nil
	}
	leaves := leafIndexes(c, nil)
	rest := make([][]pq.Value, len(columns))
	part := make([][]pq.Value, len(columns))
	for _, leaf := range leaves {
		rest[leaf] = columns[leaf]
	}
	for len(rest[leaves[0]]) > 0 {
		for _, leaf := range leaves {
			n := 1
			for n < len(rest[leaf]) && rest[leaf][n].RepetitionLevel() > rep {
				n++
			}
			if n > len(rest[leaf]) {
				return nil, errors.New("values are missing")
			}
			part[leaf], rest[leaf] = rest[leaf][:n], rest[leaf][n:]
		}
		element, err := instance(c, part, rep, def)
		if err != nil {
			return nil, err
		}
		out = append(out, element)
	}
	return out, nil
}

// leafIndexes appends the indexes of the leaves of a column.
func leafIndexes(c *pq.Column, to []int) []int {
	if c.Leaf() {
		return append(to, c.Index())
	}
	for _, inner := range c.Columns() {
		to = leafIndexes(inner, to)
	}
	return to
}

// instance assembles one value that is there.
func instance(c *pq.Column, columns [][]pq.Value, rep, def int) (any, error) {
	if c.Leaf() {
		v, ok := firstValue(c, columns)
		if !ok {
			return nil, errors.New("values are missing")
		}
		return scalar(v)
	}
	inner := c.Columns()
	if logical := c.Type().LogicalType(); logical != nil && len(inner) == 1 && inner[0].Repeated() {
		switch logical.Value.(type) {
		case *format.ListType:
			return elements(inner[0], columns, rep, def)
		case *format.MapType:
			return entries(inner[0], columns, rep, def)
		}
	}
	o := &object{}
	for _, field := range inner {
		value, err := assemble(field, columns, rep, def)
		if err != nil {
			return nil, err
		}
		if value != nil {
			o.set(field.Name(), value)
		}
	}
	return o, nil
}

// elements assembles a LIST: its repeated group holds one field, the element.
func elements(group *pq.Column, columns [][]pq.Value, rep, def int) (any, error) {
	value, err := assemble(group, columns, rep, def)
	wrapped, ok := value.([]any)
	if err != nil || !ok || group.Leaf() || len(group.Columns()) != 1 {
		return value, err
	}
	name := group.Columns()[0].Name()
	for i, w := range wrapped {
		if o, ok := w.(*object); ok {
			wrapped[i], _ = o.get(name)
		}
	}
	return wrapped, nil
}

// entries assembles a MAP into an object if its keys are distinct texts, else into the list of its pairs.
func entries(group *pq.Column, columns [][]pq.Value, rep, def int) (any, error) {
	value, err := assemble(group, columns, rep, def)
	pairs, ok := value.([]any)
	if err != nil || !ok || len(pairs) > maxKeys || len(group.Columns()) != 2 {
		return value, err
	}
	keyName, valueName := group.Columns()[0].Name(), group.Columns()[1].Name()
	o := &object{}
	for _, pair := range pairs {
		p, _ := pair.(*object)
		if p == nil {
			return value, nil
		}
		k, _ := p.get(keyName)
		key, isText := k.(string)
		if _, twice := o.get(key); !isText || twice {
			return value, nil
		}
		v, _ := p.get(valueName)
		o.set(key, v)
	}
	return o, nil
}

// scalar turns a leaf into a JSON value.
func scalar(v pq.Value) (any, error) {
	if v.IsNull() {
		return nil, nil
	}
	float := func(f float64, bits int) any {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
		return number(strconv.FormatFloat(f, 'g', -1, bits))
	}
	switch v.Kind() {
	case pq.Boolean:
		return v.Boolean(), nil
	case pq.Int32:
		return number(strconv.FormatInt(int64(v.Int32()), 10)), nil
	case pq.Int64:
		return number(strconv.FormatInt(v.Int64(), 10)), nil
	case pq.Float:
		return float(float64(v.Float()), 32), nil
	case pq.Double:
		return float(v.Double(), 64), nil
	case pq.ByteArray, pq.FixedLenByteArray:
		b := v.ByteArray()
		if !utf8.Valid(b) {
			return nil, fmt.Errorf("byte 0x%02X is not UTF-8 (binary data?)", b[invalidUTF8(string(b))])
		}
		return string(b), nil
	}
	return nil, nil
}
