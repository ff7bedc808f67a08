package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files writes files into a folder of the test.
func files(t testing.TB, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// said returns the problems without the folder's name.
func said(l *Ledger, dir string) []string {
	var out []string
	for _, p := range l.Problems() {
		out = append(out, p.Level.String()+" "+strings.ReplaceAll(p.Error(), dir+string(filepath.Separator), ""))
	}
	return out
}

func texts(records []Record) []string {
	var out []string
	for _, r := range records {
		switch r.Kind {
		case Chat:
			var b strings.Builder
			for i, m := range r.Messages {
				mark := ""
				if r.Train[i] {
					mark = "*"
				}
				fmt.Fprintf(&b, "%s%s=%s ", mark, m.Role, m.Content)
			}
			out = append(out, strings.TrimSpace(b.String()))
		default:
			out = append(out, r.Text+r.Prompt.Text+r.Answer.Text)
		}
	}
	return out
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		file   string
		text   string
		source Source
		want   []string
		said   []string
	}{
		{
			name: "columns are mapped", file: "a.jsonl", text: `{"frage":"q","antwort":"a","output":"unused"}`,
			source: Source{Format: Alpaca, Columns: map[string]string{"instruction": "frage", "output": "antwort"}},
			want:   []string{"user=q *assistant=a"},
		},
		{
			name: "mapped columns settle the format", file: "a.jsonl", text: `{"frage":"q","output":"a"}`,
			source: Source{Columns: map[string]string{"instruction": "frage"}},
			want:   []string{"user=q *assistant=a"},
		},
		{
			name: "roles and tags are mapped", file: "a.json", text: `[{"messages":[{"wer":"Mensch","was":"q"},{"wer":"Maschine","was":"a"}]}]`,
			source: Source{Format: Messages, RoleTag: "wer", ContentTag: "was", Roles: map[string]string{"Mensch": "user", "Maschine": "assistant"}},
			want:   []string{"user=q *assistant=a"},
		},
		{
			name: "limit", file: "a.txt", text: "one\ntwo\nthree\n", source: Source{Limit: 2},
			want: []string{"one", "two"},
		},
		{
			name: "JSON lines in a file named .json", file: "a.json", text: "{\"text\":\"one\"}\n{\"text\":\n\"two\"}",
			want: []string{"one", "two"},
		},
		{
			name: "one object in a file named .json", file: "a.json", text: "{\n \"text\": \"one\"\n}\n",
			want: []string{"one"},
		},
		{
			name: "empty array", file: "a.json", text: "[ ]",
			said: []string{"bad a.json: file has no records; remove it, or write one record at least"},
		},
		{
			name: "reading goes on after bad records of an array", file: "a.json", text: "[{\"text\":\"one\"},\n{\"text\":NaN},\n{\"text\":\"three\"}]",
			want: []string{"one", "three"},
			said: []string{"bad a.json:2:9: invalid JSON: NaN is not JSON; write null or a number"},
		},
		{
			name: "array without a comma", file: "a.json", text: "[{\"text\":\"one\"}\n{\"text\":\"two\"}]",
			want: []string{"one"},
			said: []string{"bad a.json:2: invalid JSON: ',' or ']' expected after a record, have '{'; check the brackets of the record before it"},
		},
		{
			name: "text after an array", file: "a.json", text: "[{\"text\":\"one\"}]\n[]",
			want: []string{"one"},
			said: []string{"bad a.json:2: invalid JSON: '[' after the end of the array; keep one array a file"},
		},
		{
			name: "long lines are passed over", file: "a.jsonl", text: "{\"text\":\"" + strings.Repeat("x", 500) + "\"}\n{\"text\":\"two\"}\n", source: Source{MaxRecord: 100},
			want: []string{"two"},
			said: []string{"bad a.jsonl:1: record is longer than the limit of 0.0 MB; split it, or raise the limit"},
		},
		{
			name: "long elements are passed over", file: "a.json", text: "[{\"text\":\"" + strings.Repeat("x", 500) + "\"},\n{\"text\":\"two\"}]", source: Source{MaxRecord: 100},
			want: []string{"two"},
			said: []string{"bad a.json:1: record is longer than the limit of 0.0 MB; split it, or raise the limit"},
		},
		{
			name: "unknown columns", file: "a.jsonl", text: `{"titel":"x","txet":"y"}`,
			said: []string{"bad a.jsonl:1: cannot tell the format from the columns 'titel', 'txet' (found 'txet': did you mean 'text'?); name the format, and map its columns: columns: {instruction: <name in the file>}; formats are messages, sharegpt, turns, alpaca, prompt_completion, text, preference, preference_hh, kto, stepwise, prompt_only, segments"},
		},
		{
			name: "mixed text and messages", file: "a.jsonl", text: `{"prompt":"q","completion":[{"role":"assistant","content":"a"}]}`,
			said: []string{"bad a.jsonl:1: prompt and completion: one is text, the other messages; write both as text, or both as messages"},
		},
		{
			name: "system column and message differ", file: "a.jsonl", text: `{"system":"s","messages":[{"role":"system","content":"z"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}`,
			said: []string{"bad a.jsonl:1: the column and the first message give different system texts; keep one of them"},
		},
		{
			name: "weight is no number of 0 and 1", file: "a.jsonl", text: `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","weight":0.5}]}`,
			said: []string{"bad a.jsonl:1: messages[1].weight: want 0 or 1, have 0.5; write 0 (not trained) or 1"},
		},
		{
			name: "image", file: "a.jsonl", text: `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]},{"role":"assistant","content":"a"}]}`,
			said: []string{"bad a.jsonl:1: messages[0].content[0]: block of type \"image_url\": want text; remove the record, or replace the block by text"},
		},
		{
			name: "unknown role", file: "a.jsonl", text: `{"messages":[{"role":"asistant","content":"a"}]}`,
			said: []string{"bad a.jsonl:1: messages[0].role: unknown role 'asistant' (want system, user, assistant, tool), did you mean assistant?; rename the role, or map it: roles: {asistant: user}"},
		},
		{
			name: "header with a column twice", file: "a.csv", text: "text,text\n1,2\n",
			said: []string{"bad a.csv:1: column 'text' appears twice in the header; name each column once; the first row must hold the names"},
		},
		{
			name: "CSV", file: "a.csv", text: "\xef\xbb\xbfinstruction , output\r\n\r\n\"a \"\"b\"\"\nc\",\"d, e\"\r\nf \"g\",\r\n",
			want: []string{"user=a \"b\"\nc *assistant=d, e", "user=f \"g\" *assistant="},
			said: []string{
				"warning a.csv:1: byte order mark at the start: skipped; save the file as UTF-8 without a mark",
				"warning a.csv:5 (record 2): 'output' is empty: nothing to train",
			},
		},
		{
			name: "text after a quoted field", file: "a.csv", text: "text\n\"a\"b\nc\n",
			want: []string{"c"},
			said: []string{"bad a.csv:2: 'b' after the closing quote of a field; write \"\" for a quote inside quotes"},
		},
		{
			name: "labels in a table are spelled", file: "a.tsv", text: "prompt\tcompletion\tlabel\np\tc\tTrue\np\td\tfalse\np\te\t1\n",
			want: []string{"pc", "pd"},
			said: []string{"bad a.tsv:4 (record 3): label: want true or false, have text; write true or false without quotes"},
		},
		{
			name: "last line cut off", file: "a.jsonl", text: "{\"text\":\"one\"}\n{\"text\":\"tw",
			want: []string{"one"},
			said: []string{"bad a.jsonl:2:12: the file (truncated?) ends inside a string; write \\n for a line end inside a string, or close the quotes"},
		},
		{
			name: "ending unknown", file: "a.dat", text: "x",
			said: []string{"bad a.dat: the file's ending says nothing of what it holds; rename the file: .jsonl, .json, .csv, .tsv, .txt or .parquet"},
		},
		{
			name: "ending unknown, JSON inside", file: "a.data", text: `{"text":"one"}`,
			want: []string{"one"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := files(t, map[string]string{c.file: c.text})
			c.source.Path = filepath.Join(dir, c.file)
			l := &Ledger{}
			got := texts(readAll(t, c.source, l))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.said, said(l, dir)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadFolder(t *testing.T) {
	dir := files(t, map[string]string{
		"b.jsonl": `{"text":"b"}`, "a.txt": "a\n", "sub/c.json": `[{"text":"c"}]`, ".hidden/x.txt": "x", ".y.txt": "y", "notes.md": "z",
	})
	if err := os.Symlink(dir, filepath.Join(dir, "sub", "loop.txt")); err != nil {
		t.Skip(err)
	}
	l := &Ledger{}
	if diff := cmp.Diff([]string{"a", "b", "c"}, texts(readAll(t, Source{Path: dir}, l))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	want := []string{"warning notes.md: not read: the file's ending is none of a data file", "warning sub/loop.txt: not read: neither a file nor a link to one"}
	if diff := cmp.Diff(want, said(l, dir)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b"}, texts(readAll(t, Source{Path: filepath.Join(dir, "*.jsonl")}, &Ledger{}))); diff != "" {
		t.Errorf("pattern (-want +got):\n%s", diff)
	}
}

func TestReadFolderTakesTheTrainPart(t *testing.T) {
	dir := files(t, map[string]string{"train-1.txt": "a\n", "train-2.txt": "b\n", "valid.txt": "v\n", "test.txt": "t\n"})
	l := &Ledger{}
	if diff := cmp.Diff([]string{"a", "b"}, texts(readAll(t, Source{Path: dir}, l))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if n := l.Count(Warning); n != 2 {
		t.Errorf("%d remarks about parts that are left out, want 2: %v", n, said(l, dir))
	}
}

func TestOpenErrors(t *testing.T) {
	dir := files(t, map[string]string{
		"train.jsonl":      `{"text":"a"}`,
		"info/" + infoFile: `{"d":{"file_name":"../x.json"},"hub":{"hf_hub_url":"a/b"},"bad":{"file_name":"a.json","columns":{"promt":"q"}},"n":{"file_name":"a.json","num_samples":-1}}`,
		"empty/readme":     "x",
	})
	for _, c := range []struct{ path, format, want string }{
		{"trian.jsonl", "", "no file trian.jsonl, did you mean train.jsonl?: file does not exist"},
		{"*.csv", "", "*.csv: no file matches the pattern: check it against the folder"},
		{"empty", "", "empty: folder has no data file: want .jsonl, .json, .csv, .tsv, .txt or .parquet, perhaps .gz or .zst"},
		{"info", "", "info holds a dataset_info.json: name one of its data sets, as in info/dataset_info.json#NAME"},
		{"info/dataset_info.json#e", "", `info/dataset_info.json: no data set "e", did you mean d or n?; it has 'd', 'hub', 'bad', 'n'`},
		{"info/dataset_info.json#d", "", `info/dataset_info.json:1: d: file_name "../x.json" leads out of the folder; put the file beside the description`},
		{"info/dataset_info.json#hub", "", "info/dataset_info.json:1: hub: hf_hub_url names data that is not on this machine; fetch the data set, and give its file_name"},
		{"info/dataset_info.json#bad", "", "info/dataset_info.json:1: bad: columns.promt is unknown; remove it, or correct the name"},
		{"info/dataset_info.json#n", "", "info/dataset_info.json:1: n: num_samples: want a count, have -1; write a count"},
		{"train.jsonl", "alpacca", `format "alpacca" is unknown, did you mean alpaca?; known are messages, sharegpt, turns, alpaca, prompt_completion, text, preference, preference_hh, kto, stepwise, prompt_only, segments`},
	} {
		_, err := Open(Source{Path: filepath.Join(dir, filepath.FromSlash(c.path)), Format: Format(c.format)}, &Ledger{})
		if err == nil {
			t.Errorf("%s: no error", c.path)
			continue
		}
		got := strings.TrimPrefix(filepath.ToSlash(strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")), "data: ")
		if got != c.want {
			t.Errorf("%s:\n have %s\n want %s", c.path, got, c.want)
		}
	}
}

func TestLedger(t *testing.T) {
	var sink bytes.Buffer
	l := &Ledger{Sink: &sink}
	for i := range kept + 5 {
		l.Add(Problem{Position: Position{File: "f", Line: i + 1}, Level: Bad, Reason: "wrong"})
	}
	l.Add(Problem{Position: Position{File: "f"}, Level: Dropped, Reason: "left out"})
	if n := strings.Count(sink.String(), "\n"); n != kept+6 {
		t.Errorf("the sink has %d lines, want %d", n, kept+6)
	}
	if first, _, _ := strings.Cut(sink.String(), "\n"); first != `{"file":"f","line":1,"level":"bad","reason":"wrong"}` {
		t.Errorf("first line %s", first)
	}
	err := l.Err()
	var e *Error
	if !errors.As(err, &e) || e.Total != kept+5 {
		t.Fatalf("error %v", err)
	}
	want := "f:1: wrong (and 9999 more: 2 3 4 5 6 …)\n... and 5 of other kinds\n10005 records cannot be used: mend them, or read in mode skip to leave them out and list them"
	if err.Error() != want {
		t.Errorf("message:\n%s\nwant\n%s", err, want)
	}
	var p *Problem
	if !errors.As(err, &p) || p.Line != 1 {
		t.Errorf("no problem inside: %v", p)
	}
	l.Mode = Skip
	if err := l.Err(); err != nil {
		t.Errorf("mode skip: %v", err)
	}
	l.Sink = failing{}
	l.Add(Problem{})
	if err := l.Err(); err == nil {
		t.Error("a sink that fails is not reported")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// runes is a renderer whose tokens are characters.
type runes struct{}

func (runes) Render(r Record) (Example, []string, error) {
	if r.Kind != Text {
		return Example{}, nil, fmt.Errorf("a record of kind %s is no text", r.Kind)
	}
	e := Example{Weight: 1}
	for _, c := range r.Text {
		e.IDs, e.Train = append(e.IDs, c), append(e.Train, true)
	}
	return e, nil, nil
}

// Stores and ledger are the same at any number of processors.
func TestLoad(t *testing.T) {
	var b strings.Builder
	for i := range 3 * blockSize {
		switch {
		case i%100 == 7:
			b.WriteString("{\"text\":}\n")
		case i%100 == 8:
			b.WriteString("{\"prompt\":\"p\",\"completion\":\"c\",\"text\":\"x\"}\n")
		default:
			fmt.Fprintf(&b, "{\"text\":%q}\n", strings.Repeat("x", 2+i%40))
		}
	}
	dir := files(t, map[string]string{"a.jsonl": b.String()})
	path := filepath.Join(dir, "a.jsonl")
	var first []string
	for _, procs := range []int{1, 4} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		l := &Ledger{}
		train, held := NewStore("", 0), NewStore("", 0)
		err := Load(context.Background(), []Source{{Path: path}}, runes{}, LoadOptions{MaxLength: 30, Overlength: KeepStart, EvalShare: 0.2}, l, train, held)
		var e *Error
		if !errors.As(err, &e) || e.Total != 32 {
			t.Fatalf("error %v", err)
		}
		if n := train.Len() + held.Len(); n != 3*blockSize-32 || held.Len() == 0 {
			t.Errorf("%d examples, %d of them held out", n, held.Len())
		}
		got := append(said(l, dir), fmt.Sprint(train.Digest(), held.Digest()))
		if first == nil {
			first = got
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Errorf("%d processors (-1 +%d):\n%s", procs, procs, diff)
		}
	}
	l := &Ledger{Mode: Skip}
	if err := Load(context.Background(), []Source{{Path: path, Format: PromptCompletion}}, runes{}, LoadOptions{}, l, NewStore("", 0), nil); err != nil {
		t.Error(err)
	}
	if n := l.Count(Bad); n != 3*blockSize {
		t.Errorf("%d problems, want one for each of %d records", n, 3*blockSize)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Load(ctx, []Source{{Path: path}}, runes{}, LoadOptions{}, &Ledger{}, NewStore("", 0), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A file much larger than what may be held is read with little memory, and its examples move to a file.
func TestReadingIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	path := filepath.Join(t.TempDir(), "big.json")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(`{"text":"` + strings.Repeat("some text ", 1000) + "\"},\n")
	io.WriteString(f, "[")
	for range 20_000 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(f, "{\"text\":\"end\"}]")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	store := NewStore(path+".examples", 1<<20)
	defer store.Close()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	render := renderFunc(func(r Record) (Example, []string, error) {
		if r.Pos.Record%1000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
		return Example{IDs: []int32{1, 2, 3}, Train: []bool{false, true, true}, Weight: 1}, nil, nil
	})
	if err := Load(context.Background(), []Source{{Path: path}}, render, LoadOptions{}, &Ledger{}, store, nil); err != nil {
		t.Fatal(err)
	}
	if store.Len() != 20_001 {
		t.Errorf("%d examples", store.Len())
	}
	if grown := int64(peak) - int64(before.HeapAlloc); grown > 40<<20 {
		t.Errorf("the heap grows by %d MB over a file of 200 MB", grown>>20)
	}
}

type renderFunc func(Record) (Example, []string, error)

func (f renderFunc) Render(r Record) (Example, []string, error) { return f(r) }
