package evals

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Person is one writer with the texts in the order of the file, which is taken for that of time.
type Person struct {
	Name  string
	Texts []string
}

// peopleKeys are the keys under which data sets of messages name the writer and the text.
var (
	writerKeys = []string{"client", "person", "user", "speaker", "author", "sender"}
	textKeys   = []string{"text", "message", "content"}
)

// ReadPeople reads a JSONL file, packed by gzip or not, of objects with a writer and a text, and returns the writers
// with the most texts first.
func ReadPeople(path string) ([]Person, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		r = z
	}
	return parsePeople(path, r)
}

func parsePeople(name string, r io.Reader) ([]Person, error) {
	var out []Person
	at := map[string]int{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		writer, text := pick(row, writerKeys), pick(row, textKeys)
		if writer == "" || text == "" {
			return nil, fmt.Errorf("%s:%d: want a writer (one of %s) and a text (one of %s)", name, n, strings.Join(writerKeys, ", "), strings.Join(textKeys, ", "))
		}
		i, ok := at[writer]
		if !ok {
			i = len(out)
			at[writer], out = i, append(out, Person{Name: writer})
		}
		out[i].Texts = append(out[i].Texts, text)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: holds no text", name)
	}
	slices.SortStableFunc(out, func(a, b Person) int { return cmp.Compare(len(b.Texts), len(a.Texts)) })
	return out, nil
}

// pick returns the first text of a row under one of the keys.
func pick(row map[string]any, keys []string) string {
	for _, k := range keys {
		if s, ok := row[k].(string); ok && s != "" {
			return s
		}
	}
	return ""
}
