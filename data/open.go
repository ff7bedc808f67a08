package data

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"tunesmith/hub"
	"tunesmith/internal/nearest"
)

// container is how rows are laid out in a file.
type container string

const (
	jsonLines container = "jsonl"
	jsonFile  container = "json"
	csvFile   container = "csv"
	tsvFile   container = "tsv"
	textFile  container = "txt"
	parquet   container = "parquet"
)

// containers are the file endings that are read.
var containers = map[string]container{
	".jsonl": jsonLines, ".ndjson": jsonLines, ".json": jsonFile, ".csv": csvFile, ".tsv": tsvFile, ".txt": textFile, ".parquet": parquet,
}

// endings splits a file name into its container and its compression ("" if none); both may be unknown.
func endings(name string) (c container, compression string) {
	name = strings.ToLower(name)
	if ext := filepath.Ext(name); ext == ".gz" || ext == ".zst" {
		compression, name = ext, strings.TrimSuffix(name, ext)
	}
	return containers[filepath.Ext(name)], compression
}

// expand turns the path of a source into the files that it means, in a fixed order. What it leaves out of a folder
// is entered in the ledger.
func expand(path string, l *Ledger) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return []string{path}, nil
	case err == nil:
		return walk(path, l)
	case strings.ContainsAny(path, "*?["):
		matches, err := filepath.Glob(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		var files []string
		for _, m := range matches {
			if info, err := os.Stat(m); err == nil && !info.IsDir() {
				files = append(files, m)
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%s: no file matches the pattern: check it against the folder", path)
		}
		return files, nil
	}
	return nil, missingFile(path, err)
}

// Locate returns the path that hub:org/name, or hub:org/name/file, stands for: a pulled data set in the cache. Other
// paths are what they are.
func Locate(path string) (string, error) {
	name, ok := strings.CutPrefix(path, "hub:")
	if !ok {
		return path, nil
	}
	name, part, marked := strings.Cut(name, "#")
	client, err := hub.FromEnv()
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	ref, err := hub.Parse(name, client.Endpoint)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	ref.Kind = hub.Dataset
	s, err := client.Cached(ref)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	file, err := s.Local()
	if err == nil && marked {
		file += "#" + part
	}
	return file, err
}

// missingFile names the nearest file of the folder.
func missingFile(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data: %w", err)
	}
	var names []string
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return fmt.Errorf("data: no file %s%s: %w", path, nearest.Hint(filepath.Base(path), names), fs.ErrNotExist)
}

// walk lists the data files below a folder, sorted. A folder that holds parts named train, and others named valid,
// test and the like, means its train part. Links to folders are not followed, so a loop of links ends nothing.
func walk(dir string, l *Ledger) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, infoFile)); err == nil {
		return nil, fmt.Errorf("%s holds a %s: name one of its data sets, as in %s#NAME", dir, infoFile, filepath.Join(dir, infoFile))
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(e.Name(), ".") && path != dir
		switch c, _ := endings(e.Name()); {
		case e.IsDir() && hidden:
			return filepath.SkipDir
		case e.IsDir() || hidden:
			return nil
		case c == "":
			l.Add(Problem{Position: Position{File: path}, Level: Warning, Reason: "not read: the file's ending is none of a data file"})
			return nil
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			l.Add(Problem{Position: Position{File: path}, Level: Warning, Reason: "not read: neither a file nor a link to one"})
			return nil
		}
		files = append(files, path)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: folder has no data file: want .jsonl, .json, .csv, .tsv, .txt or .parquet, perhaps .gz or .zst", dir)
	}
	slices.Sort(files)
	if slices.ContainsFunc(files, func(p string) bool { return strings.HasPrefix(filepath.Base(p), "train") }) {
		files = slices.DeleteFunc(files, func(p string) bool {
			held := heldOut(filepath.Base(p))
			if held {
				l.Add(Problem{Position: Position{File: p}, Level: Warning, Reason: "not read: the folder also holds a train part, and this is none", Remedy: "name the file itself to read it"})
			}
			return held
		})
	}
	return files, nil
}

// heldOut reports whether a file is named as a part that is not for training.
func heldOut(name string) bool {
	for _, prefix := range []string{"valid", "val.", "val-", "val_", "test", "eval", "dev"} {
		if strings.HasPrefix(strings.ToLower(name), prefix) {
			return true
		}
	}
	return false
}

// file is an open file and its rows.
type file struct {
	rows    rowReader
	columns *object // of a file with a header: its names
	closers []func() error
}

func (f *file) close() error {
	var errs []error
	for _, c := range slices.Backward(f.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// openFile opens one file; remarks about the file as a whole go to the ledger.
func openFile(path string, limit int, l *Ledger) (_ *file, err error) {
	handle, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be opened: %w", errors.Unwrap(err))
	}
	f := &file{closers: []func() error{handle.Close}}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	kind, compression := endings(filepath.Base(path))
	if kind == parquet {
		if compression != "" {
			return nil, bad("unpack the file", "a Parquet file cannot be read inside %s", compression)
		}
		return f, f.openParquet(handle, path, limit)
	}
	stream, err := f.decompress(handle, compression)
	if err != nil {
		return nil, err
	}
	in := &input{r: bufio.NewReaderSize(stream, 1<<16), file: path, line: 1, limit: limit}
	if err := in.skipMark(l); err != nil {
		return nil, err
	}
	first, second := in.peek()
	if kind == "" {
		switch head, _ := in.r.Peek(4); {
		case string(head) == "PAR1":
			return nil, bad("rename it to .parquet", "the file's ending is unknown, but it is a Parquet file")
		case first != '{' && first != '[':
			return nil, bad("rename the file: .jsonl, .json, .csv, .tsv, .txt or .parquet", "the file's ending says nothing of what it holds")
		}
		kind = jsonLines
	}
	switch {
	case kind == textFile:
		f.rows = &textReader{in: in}
	case kind == csvFile || kind == tsvFile:
		c := &csvReader{in: in, comma: ','}
		if kind == tsvFile {
			c.comma = '\t'
		}
		if err := c.readHeader(); err != nil && err != io.EOF {
			return nil, err
		}
		f.columns = &object{}
		for _, name := range c.header {
			f.columns.set(name, "")
		}
		f.rows = c
	case first == '[' && (kind == jsonFile || second == '{' || second == ']'):
		if kind == jsonLines {
			l.Add(Problem{Position: Position{File: path, Line: 1}, Level: Warning, Reason: "file is one JSON array, not JSON lines: read as an array", Remedy: "name it .json"})
		}
		f.rows = &arrayReader{in: in, array: true}
	case kind == jsonFile:
		f.rows = &arrayReader{in: in}
	default:
		f.rows = &linesReader{in: in}
	}
	return f, nil
}

// skipMark passes over a byte order mark.
func (in *input) skipMark(l *Ledger) error {
	head, err := in.r.Peek(3)
	if err != nil && err != io.EOF {
		return err
	}
	at := Position{File: in.file, Line: 1}
	switch {
	case string(head) == "\xef\xbb\xbf":
		in.r.Discard(3)
		l.Add(Problem{Position: at, Level: Warning, Reason: "byte order mark at the start: skipped", Remedy: "save the file as UTF-8 without a mark"})
	case strings.HasPrefix(string(head), "\xff\xfe") || strings.HasPrefix(string(head), "\xfe\xff"):
		return &Problem{Position: at, Level: Bad, Reason: fmt.Sprintf("file is UTF-16 (starts with % X)", head[:2]), Remedy: "convert it to UTF-8"}
	}
	return nil
}

// decompress opens what the ending or the first bytes say.
func (f *file) decompress(handle *os.File, compression string) (io.Reader, error) {
	var head [4]byte
	n, err := handle.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	magic := string(head[:n])
	isGzip, isZstd := strings.HasPrefix(magic, "\x1f\x8b"), magic == "\x28\xb5\x2f\xfd"
	switch {
	case isGzip && compression != ".zst":
		r, err := gzip.NewReader(bufio.NewReaderSize(handle, 1<<16))
		if err != nil {
			return nil, damaged("gzip", err)
		}
		f.closers = append(f.closers, r.Close)
		return &packed{r, "gzip"}, nil
	case isZstd && compression != ".gz":
		r, err := zstd.NewReader(handle, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, damaged("zstd", err)
		}
		f.closers = append(f.closers, func() error { r.Close(); return nil })
		return &packed{r, "zstd"}, nil
	case compression != "":
		name := map[string]string{".gz": "gzip", ".zst": "zstd"}[compression]
		return nil, bad("remove "+compression+" from the name, or fetch the file again", "not %s (starts with % X)", name, head[:min(n, 2)])
	}
	return handle, nil
}

// maxWindow is the memory that a zstd frame may ask for (the format's own recommendation for readers is 8 MB; level
// 22 with --long=27 needs 128 MB).
const maxWindow = 128 << 20

// packed explains the errors of a decompressor.
type packed struct {
	r    io.Reader
	name string
}

// Read implements io.Reader.
func (p *packed) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && err != io.EOF {
		err = damaged(p.name, err)
	}
	return n, err
}

func damaged(name string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return bad("fetch the file again", "%s data ends early (incomplete download?)", name)
	}
	return bad("fetch the file again", "%s data is damaged: %v", name, err)
}
