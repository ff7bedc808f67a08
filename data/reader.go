package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// defaultMaxRecord is the longest record that is read unless the source says otherwise.
const defaultMaxRecord = 64 << 20

// largeRecord is the size from which a record is remarked on: no context holds it.
const largeRecord = 1 << 20

// unknownRows is after how many records of no known form a file is given up.
const unknownRows = 100

// Source names a data set: files and how to read them. The zero values of all fields but Path mean: find out.
type Source struct {
	// Path is a file, a folder, a pattern with *, ? or [], or dataset_info.json#NAME for one of the data sets that a
	// LLaMA-Factory description names. Behind hub: it is a data set in the cache of pulled ones, as Locate says.
	Path   string
	Format Format
	// Columns maps our names of columns to the file's, such as instruction: question.
	Columns map[string]string
	// Roles maps the file's names of roles to system, user, assistant, tool or function_call.
	Roles map[string]string
	// RoleTag and ContentTag are the keys of a message's role and content.
	RoleTag, ContentTag string
	Task                string
	MaxRecord           int // bytes, 64 MiB if 0
	Limit               int // records read at most, all if 0

	exact  bool     // columns that are not mapped are absent
	origin Position // where the source is described
	name   string   // of the description
}

// Reader reads the records of a source one after the other.
type Reader struct {
	source Source
	ledger *Ledger
	files  []string
	at     int // index of the file being read
	file   *file
	form   form
	first  string // how the format was settled, for messages
	inFile int    // records and problems seen in the file
	failed int    // rows of no known form
	read   int    // records handed out
	labels [2]int // KTO records with a false and a true label
}

// Open prepares to read a source. Problems of its records, and of single files, go to the ledger.
func Open(s Source, l *Ledger) (*Reader, error) {
	var err error
	if s.Path, err = Locate(s.Path); err != nil {
		return nil, err
	}
	if path, name, ok := strings.Cut(s.Path, "#"); ok && strings.HasSuffix(path, ".json") {
		if s.Format != Auto || s.Columns != nil || s.Roles != nil || s.RoleTag != "" || s.ContentTag != "" {
			return nil, fmt.Errorf("%s: a described data set has its own format, columns and roles: change the description, or name the data file itself", s.Path)
		}
		described, err := FromDatasetInfo(path, name)
		if err != nil {
			return nil, err
		}
		described.Task, described.MaxRecord = s.Task, s.MaxRecord
		if s.Limit > 0 {
			described.Limit = s.Limit
		}
		s = described
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.MaxRecord == 0 {
		s.MaxRecord = defaultMaxRecord
	}
	files, err := expand(s.Path, l)
	if err != nil {
		return nil, err
	}
	return &Reader{source: s, ledger: l, files: files}, nil
}

// check looks for names that a source cannot have.
func (s *Source) check() error {
	if s.Format != Auto {
		if _, err := lookup(s.Format); err != nil {
			return err
		}
	}
	for column := range s.Columns {
		if !slices.Contains(known, column) {
			return fmt.Errorf("columns: %q is no column%s; known are %s", column, nearest.Hint(column, known), strings.Join(known, ", "))
		}
	}
	roles := []string{system, user, assistant, tool, call}
	for name, role := range s.Roles {
		if !slices.Contains(roles, role) {
			return fmt.Errorf("roles: %s: %q is no role%s; want %s", name, role, nearest.Hint(role, roles), strings.Join(roles, ", "))
		}
	}
	return nil
}

// Files returns the files that are read, in order.
func (r *Reader) Files() []string { return r.files }

// Close closes the file that is being read.
func (r *Reader) Close() error {
	r.at = len(r.files)
	return r.closeFile()
}

func (r *Reader) closeFile() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.close()
}

// Next returns the next good record, or io.EOF after the last one; what is not good stands in the ledger, whose Err
// is to be asked then.
func (r *Reader) Next() (Record, error) {
	for {
		if r.source.Limit > 0 && r.read >= r.source.Limit {
			r.Close()
		}
		if r.file == nil {
			if r.at >= len(r.files) {
				r.finish()
				return Record{}, io.EOF
			}
			r.openNext()
			continue
		}
		row, err := r.file.rows.next()
		if err == io.EOF {
			if r.inFile == 0 {
				r.ledger.Add(Problem{Position: Position{File: r.files[r.at-1]}, Level: Bad, Reason: "file has no records", Remedy: "remove it, or write one record at least"})
			}
			r.closeFile()
			continue
		}
		r.inFile++
		if err == nil {
			var rec Record
			if rec, err = r.record(row); err == nil {
				r.read++
				return rec, nil
			}
		}
		p := problem(row.pos, err)
		r.ledger.Add(p)
		if p.fatal {
			r.closeFile()
		}
	}
}

// Each calls f with every good record of a source, in order. What is not good stands in the ledger, whose Err is to be
// asked then.
func Each(s Source, l *Ledger, f func(Record) error) error {
	r, err := Open(s, l)
	if err != nil {
		return err
	}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return r.Close()
		}
		if err == nil {
			err = f(rec)
		}
		if err != nil {
			r.Close()
			return err
		}
	}
}

// EachBlock calls f with the records that are left, blockSize at a time: enough for all processors. f may not keep the
// slice.
func (r *Reader) EachBlock(ctx context.Context, f func([]Record) error) error {
	block := make([]Record, 0, blockSize)
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		block = block[:0]
		for len(block) < blockSize && !done {
			rec, err := r.Next()
			switch {
			case err == io.EOF:
				done = true
			case err != nil:
				return err
			default:
				block = append(block, rec)
			}
		}
		if err := f(block); err != nil {
			return err
		}
	}
	return nil
}

// openNext opens the next file, or enters why it cannot be read.
func (r *Reader) openNext() {
	path := r.files[r.at]
	r.at++
	r.inFile, r.failed, r.form = 0, 0, form{}
	if r.source.Format != Auto {
		r.form, _ = lookup(r.source.Format) // checked by Open
	}
	f, err := openFile(path, r.source.MaxRecord, r.ledger)
	if err != nil {
		r.ledger.Add(problem(Position{File: path}, err))
		return
	}
	r.file = f
	if f.columns != nil && len(f.columns.keys) > 0 {
		if err := r.checkHeader(f.columns); err != nil {
			r.ledger.Add(problem(Position{File: path, Line: 1}, err))
			r.closeFile()
		}
	}
}

// checkHeader finds out from the first row of a table whether its columns can serve, before all of its rows fail.
func (r *Reader) checkHeader(columns *object) error {
	f := r.fields(row{columns: columns, textual: true})
	form := r.form
	if form.read == nil {
		format := detect(f)
		if format == Auto {
			p := unknownForm(columns)
			p.Reason = "header: " + p.Reason
			return p
		}
		form, _ = lookup(format)
	}
	var missing []string
	for _, column := range form.required {
		if name, _, ok := f.lookup(column); !ok {
			missing = append(missing, "'"+name+"'")
		}
	}
	if len(missing) > 0 && form.format != Preferences && form.format != KTO {
		return bad("write the names of the columns in the first row, or map them: columns: {...}", "header lacks %s (has %s)", strings.Join(missing, " and "), quoted(columns.keys))
	}
	return nil
}

func (r *Reader) fields(row row) *fields {
	return &fields{
		row: row.columns, format: r.form.format, columns: r.source.Columns, roles: r.source.Roles,
		tags: tags{r.source.RoleTag, r.source.ContentTag}, exact: r.source.exact, textual: row.textual,
	}
}

// record reads a row in the file's format, which the first row settles if the source does not.
func (r *Reader) record(row row) (Record, error) {
	f := r.fields(row)
	if r.form.read == nil {
		format := detect(f)
		if format == Auto {
			p := unknownForm(row.columns)
			if r.failed++; r.failed == unknownRows {
				p.fatal = true
				p.Reason += fmt.Sprintf("; the first %d records have no known form: the rest of the file is not read", unknownRows)
			}
			return Record{}, p.at(row.pos)
		}
		r.form, _ = lookup(format)
		r.first = fmt.Sprintf("%s is a %s record", row.pos, format)
		f.format = format
	}
	rec, err := r.form.read(f)
	if err != nil {
		return Record{}, r.explain(row, err)
	}
	for _, w := range append(row.warnings, f.warnings...) {
		r.ledger.Add(Problem{Position: row.pos, Level: Warning, Reason: w})
	}
	if row.size > largeRecord {
		r.ledger.Add(Problem{Position: row.pos, Level: Warning, Reason: megabytes(row.size) + " in one record: longer than any context", Remedy: "split it, or it is cut to the context"})
	}
	rec.Pos, rec.Task = row.pos, r.source.Task
	if rec.Kind == Feedback {
		i := 0
		if rec.Label {
			i = 1
		}
		r.labels[i]++
	}
	return rec, nil
}

// explain adds to the error of a record what only the reader knows.
func (r *Reader) explain(row row, err error) error {
	var mixed *mixedError
	if errors.As(err, &mixed) {
		why := "the data set is read as " + string(r.form.format)
		if r.source.Format == Auto {
			why = r.first
		}
		return (&Problem{Level: Bad, Reason: fmt.Sprintf("record has %s keys, but %s", mixed.format, why), Remedy: "keep one format a file"}).at(row.pos)
	}
	var p *Problem
	if !errors.As(err, &p) {
		return err
	}
	if r.source.exact && r.inFile == 1 && strings.Contains(p.Reason, "lacks") {
		if missing := r.unmapped(row.columns); missing != "" {
			q := bad("correct the description", "%s: column '%s' is not in %s (has %s)", r.source.name, missing, r.files[r.at-1], quoted(row.columns.keys))
			q.Position, q.fatal = r.source.origin, true
			return q
		}
	}
	return p.at(row.pos)
}

// unmapped returns a column that the description names and the row lacks.
func (r *Reader) unmapped(columns *object) string {
	for _, ours := range r.form.required {
		if theirs := r.source.Columns[ours]; theirs != "" {
			if _, present := columns.get(theirs); !present {
				return theirs
			}
		}
	}
	return ""
}

// finish looks at the data set as a whole.
func (r *Reader) finish() {
	if n := r.labels[0] + r.labels[1]; n > 0 && (r.labels[0] == 0 || r.labels[1] == 0) {
		r.ledger.Add(Problem{Position: Position{File: r.source.Path}, Level: Warning, Reason: fmt.Sprintf("all %d labels are %v: KTO needs both", n, r.labels[1] > 0), Remedy: "add records of the other kind"})
	}
	r.labels = [2]int{}
}

// at gives a problem its place, unless it has one.
func (p *Problem) at(pos Position) *Problem {
	if p.File == "" {
		p.Position = pos
	}
	return p
}
