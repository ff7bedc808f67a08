package data

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

// readAll reads a source to its end.
func readAll(t testing.TB, s Source, l *Ledger) []Record {
	t.Helper()
	r, err := Open(s, l)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var records []Record
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return records
		}
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rec)
	}
}

// normal writes a record in the form of the reference files.
func normal(r Record) map[string]any {
	part := func(p Part) any {
		if p.IsText() {
			return p.Text
		}
		return p.Messages
	}
	m := map[string]any{"kind": r.Kind.String()}
	switch r.Kind {
	case Chat:
		m["messages"], m["train"] = r.Messages, r.Train
		if r.Tools != nil {
			m["tools"] = r.Tools
		}
	case Completion:
		m["prompt"], m["completion"], m["train"] = r.Prompt.Text, r.Answer.Text, []bool{false, true}
	case Text:
		m["text"], m["train"] = r.Text, "all"
	case Preference:
		m["prompt"], m["chosen"], m["rejected"] = part(r.Prompt), part(r.Chosen), part(r.Rejected)
		if r.Margin != nil {
			m["margin"] = *r.Margin
		}
	case Feedback:
		m["prompt"], m["completion"], m["label"] = part(r.Prompt), part(r.Answer), r.Label
	case Stepwise:
		var texts []string
		var labels []bool
		for _, s := range r.Steps {
			texts, labels = append(texts, s.Text), append(labels, s.Label)
		}
		m["prompt"], m["completions"], m["labels"] = r.Prompt.Text, texts, labels
	case PromptOnly:
		m["prompt"] = part(r.Prompt)
	case Segmented:
		var text string
		spans := [][2]int{}
		for _, s := range r.Segments {
			start := utf8.RuneCountInString(text)
			text += s.Text
			if s.Train {
				spans = append(spans, [2]int{start, utf8.RuneCountInString(text)})
			}
		}
		m["text"], m["train_spans_chars"] = text, spans
	}
	return m
}

// plainJSON carries a value through JSON, so that values of different types compare.
func plainJSON(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGoldenGoodFiles(t *testing.T) {
	dir := filepath.Join(golden.Dir(t, "dataformats"), "good")
	var cases []struct {
		File    string
		Format  Format
		Records []any
		Lines   []int
	}
	golden.JSON(t, filepath.Join(dir, "..", "expected.json"), &cases)
	described := map[string]string{} // file -> entry of the description
	info := filepath.Join(dir, infoFile)
	names, err := InfoNames(info)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		s, err := FromDatasetInfo(info, name)
		if err != nil {
			t.Fatal(err)
		}
		described[filepath.Base(s.Path)] = name
	}
	for _, c := range cases {
		check := func(t *testing.T, s Source) {
			l := &Ledger{}
			records := readAll(t, s, l)
			if err := l.Err(); err != nil {
				t.Fatal(err)
			}
			for _, p := range l.Problems() {
				t.Errorf("remark on a good file: %v", &p)
			}
			var got []any
			var lines []int
			for _, r := range records {
				got = append(got, plainJSON(t, normal(r)))
				lines = append(lines, r.Pos.Line)
			}
			if diff := cmp.Diff(c.Records, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.Lines, lines); diff != "" && c.Lines != nil {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		}
		path := filepath.Join(dir, c.File)
		name, isDescribed := described[c.File]
		r, err := Open(Source{Path: path}, &Ledger{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Next()
		ours := err == nil // else its columns have names of their own, and only the description can tell
		format := r.form.format
		r.Close()
		if ours || !isDescribed {
			t.Run(c.File+"/detected", func(t *testing.T) {
				if format != c.Format {
					t.Errorf("format %q, want %q", format, c.Format)
				}
				check(t, Source{Path: path})
			})
			t.Run(c.File+"/named", func(t *testing.T) { check(t, Source{Path: path, Format: c.Format}) })
		}
		if isDescribed {
			t.Run(c.File+"/described", func(t *testing.T) { check(t, Source{Path: info + "#" + name}) })
		}
	}
}

func TestGoldenBadFiles(t *testing.T) {
	dir := golden.Dir(t, "dataformats")
	var cases []struct {
		File, Say, Severity string
		Format              Format
		Line                int
		Generate            *struct {
			Line1, Line2, Line3, Repeat string
			Times                       int
		}
	}
	golden.JSON(t, filepath.Join(dir, "bad.json"), &cases)
	for _, c := range cases {
		t.Run(c.File, func(t *testing.T) {
			path := filepath.Join(dir, "bad", c.File)
			if g := c.Generate; g != nil {
				path = filepath.Join(t.TempDir(), c.File)
				text := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "\n"
				if g.Times > 0 {
					text = g.Line1 + "\n" + strings.Replace(g.Line2, "%s", strings.Repeat(g.Repeat, g.Times), 1) + "\n" + g.Line3 + "\n"
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, format := range []Format{c.Format, Auto} {
				l := &Ledger{}
				s := Source{Path: path, Format: format}
				if c.Format == "dataset_info" {
					s = describedSource(t, path, filepath.Join(dir, "good"))
					s.Format = Auto
				}
				readAll(t, s, l)
				problems := l.Problems()
				i := slices.IndexFunc(problems, func(p Problem) bool {
					ours := p.Line
					if strings.HasPrefix(c.Say, "record ") {
						ours = p.Record
					}
					return ours == c.Line && filepath.Base(p.File) == c.File
				})
				if i < 0 {
					t.Fatalf("format %q: nothing is said about line %d (%s); said: %v", format, c.Line, c.Say, l.Err())
				}
				p := problems[i]
				if strings.HasPrefix(c.Severity, "error") && !strings.Contains(c.Severity, "accept") && p.Level != Bad {
					t.Errorf("format %q: level %v, want bad: %v", format, p.Level, &p)
				}
				if strings.HasPrefix(c.Severity, "error") && p.Level == Bad && l.Err() == nil {
					t.Errorf("format %q: the file is not refused", format)
				}
				if p.Level == Bad && p.Remedy == "" {
					t.Errorf("format %q: no remedy: %v", format, &p)
				}
				t.Logf("want %s\n have %v", c.Say, &p)
			}
		})
	}
}

// describedSource copies a description beside the good files, which it speaks of, and names its first data set.
func describedSource(t *testing.T, path, good string) Source {
	t.Helper()
	dir := t.TempDir()
	files, err := os.ReadDir(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Symlink(filepath.Join(good, f.Name()), filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := InfoNames(copied)
	if err != nil {
		t.Fatal(err)
	}
	return Source{Path: copied + "#" + names[0]}
}
