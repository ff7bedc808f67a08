package data

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

// TestGoldenWrittenRecords: what is written is read back as it was, from every good file.
func TestGoldenWrittenRecords(t *testing.T) {
	dir := filepath.Join(golden.Dir(t, "dataformats"), "good")
	var cases []struct {
		File   string
		Format Format
	}
	golden.JSON(t, filepath.Join(dir, "..", "expected.json"), &cases)
	for _, c := range cases {
		t.Run(c.File, func(t *testing.T) {
			r, err := Open(Source{Path: filepath.Join(dir, c.File), Format: c.Format}, &Ledger{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			first, err := r.Next()
			if err != nil {
				t.Skip("its columns have names of their own")
			}
			records := append([]Record{first}, rest(t, r)...)
			path := filepath.Join(t.TempDir(), "out.jsonl")
			var b strings.Builder
			for _, rec := range records {
				line, err := rec.Line()
				if err != nil {
					t.Fatal(err)
				}
				b.Write(line)
			}
			if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			l := &Ledger{}
			again := readAll(t, Source{Path: path}, l)
			if err := l.Err(); err != nil || len(again) != len(records) {
				t.Fatalf("%d of %d records: %v\n%s", len(again), len(records), err, b.String())
			}
			for i := range records {
				if d := cmp.Diff(plainJSON(t, normal(records[i])), plainJSON(t, normal(again[i]))); d != "" {
					t.Errorf("record %d: -want +have:\n%s", i, d)
				}
				if a, b := records[i].Hash(1), again[i].Hash(1); a != b {
					t.Errorf("record %d: its hash changes, so it may change its part in a split", i)
				}
			}
		})
	}
}

// rest reads what is left of a source.
func rest(t *testing.T, r *Reader) []Record {
	t.Helper()
	var out []Record
	for {
		rec, err := r.Next()
		if err != nil {
			return out
		}
		out = append(out, rec)
	}
}

func TestTextsOfARecord(t *testing.T) {
	chat := Record{Kind: Chat, Train: []bool{false, false, false, false, true}, Messages: []Message{
		{Role: system, Content: "s"}, {Role: user, Content: "q"}, {Role: assistant, Content: "a"}, {Role: user, Content: "r"}, {Role: assistant, Content: "b"},
	}}
	preference := Record{Kind: Preference, Prompt: Part{Text: "p"}, Chosen: Part{Text: "c"}, Rejected: Part{Messages: []Message{{Role: assistant, Content: "d"}}}}
	for _, c := range []struct {
		r       Record
		asked   string
		answers []string
		content string
	}{
		{chat, "q\na\nr", []string{"b"}, "s\nq\na\nr\nb\n"},
		{preference, "p", []string{"c"}, "p\nc\nd\n"},
		{Record{Kind: Text, Text: "t"}, "", []string{"t"}, "t\n"},
		{Record{Kind: Stepwise, Prompt: Part{Text: "p"}, Steps: []Step{{"x", true}, {"y", false}}}, "p", []string{"x", "y"}, "p\nx\ny\n"},
		{Record{Kind: Segmented, Segments: []Segment{{"x", true}, {"y", false}}}, "", []string{"x"}, "x\ny\n"},
	} {
		have := []any{c.r.Asked(), c.r.Answers(), c.r.Content()}
		if d := cmp.Diff([]any{c.asked, c.answers, c.content}, have); d != "" {
			t.Errorf("%v: -want +have:\n%s", c.r.Kind, d)
		}
	}
}
