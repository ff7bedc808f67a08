package data

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
)

// readBytes reads a file of the given name and content. Every row must end as a record or in the ledger, and a
// record must be made of valid text.
func readBytes(t *testing.T, name string, content []byte, format Format) {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	l := &Ledger{}
	r, err := Open(Source{Path: path, Format: format, MaxRecord: 1 << 16}, l)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
		if len(rec.Messages) != len(rec.Train) {
			t.Fatalf("%d messages, %d marks", len(rec.Messages), len(rec.Train))
		}
		if rec.Kind == Preference && rec.Prompt.IsText() && !(utf8.ValidString(rec.Prompt.Text) && utf8.ValidString(rec.Chosen.Text)) {
			t.Fatalf("a prompt is cut inside a character: %q %q", rec.Prompt.Text, rec.Chosen.Text)
		}
		if n > len(content) {
			t.Fatal("more records than bytes")
		}
		if _, err := json.Marshal(normal(rec)); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 && l.Count(Bad) == 0 {
		t.Fatal("no record and no problem")
	}
}

// formatOf picks a format by a number, Auto among them.
func formatOf(n byte) Format {
	if i := int(n) % (len(forms) + 1); i < len(forms) {
		return forms[i].format
	}
	return Auto
}

// FuzzJSON compares the parser with encoding/json: what ours accepts, that package accepts with the same value.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e+3,"x\u00e9\ud83d\ude00",true,false,null,{}]}`, `"\ud83d"`, `[`, `1e999`, `{"a":1,"a":2}`, `nul`, `"\x"`, "\"\xe9\"", `-`, `[1,]`, `01`, `"\u00`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		value, warnings, err := parseJSON(s)
		if err != nil {
			return
		}
		var want any
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		a, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var again any
		written := appendJSON(nil, value)
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		b, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if len(warnings) == 0 && !bytes.Equal(a, b) {
			t.Fatalf("value %s, want %s", b, a)
		}
	})
}

func FuzzJSONLines(f *testing.F) {
	f.Add([]byte("{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]}\n"), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, n byte) { readBytes(t, "a.jsonl", b, formatOf(n)) })
}

func FuzzJSONArray(f *testing.F) {
	f.Add([]byte(`[{"instruction":"i","input":"","output":"o","history":[["a","b"]]},{"chosen":"a b","rejected":"a c","margin":1}]`), byte(2))
	f.Add([]byte(`[{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: a\n\nAssistant: c"}, 1 2`), byte(255))
	f.Add([]byte(`{"segments":[{"label":true,"text":"x"}]} {"prompt":"p","completions":["s"],"labels":[true]}`), byte(11))
	f.Fuzz(func(t *testing.T, b []byte, n byte) { readBytes(t, "a.json", b, formatOf(n)) })
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("instruction,input,output\n\"a \"\"b\"\"\nc\",,d\r\ne,f\n"), byte(2))
	f.Add([]byte("prompt,completion,label\np,c,true\n"), byte(7))
	f.Fuzz(func(t *testing.T, b []byte, n byte) { readBytes(t, "a.csv", b, formatOf(n)) })
}

func FuzzText(f *testing.F) {
	f.Add([]byte("one\n\n  two \r\n\xff\n"))
	f.Fuzz(func(t *testing.T, b []byte) { readBytes(t, "a.txt", b, Auto) })
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetFile(f))
	f.Add([]byte("PAR1garbagePAR1"))
	f.Fuzz(func(t *testing.T, b []byte) { readBytes(t, "a.parquet", b, Auto) })
}

func FuzzCompressed(f *testing.F) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, "{\"text\":\"one\"}\n")
	w.Close()
	f.Add(b.Bytes(), false)
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x58\x79\x00\x00{\"text\":\"one\"}\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, zst bool) {
		name := "a.jsonl.gz"
		if zst {
			name = "a.jsonl.zst"
		}
		readBytes(t, name, b, PlainText)
	})
}

func FuzzDatasetInfo(f *testing.F) {
	f.Add([]byte(`{"d":{"file_name":"a.json","formatting":"sharegpt","ranking":true,"num_samples":3,"columns":{"messages":"m","chosen":"c","rejected":"r"},"tags":{"role_tag":"role","user_tag":"u"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), infoFile)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		names, err := InfoNames(path)
		if err != nil {
			return
		}
		for _, name := range names {
			s, err := FromDatasetInfo(path, name)
			if err == nil && !strings.HasPrefix(s.Path, filepath.Dir(path)) {
				t.Fatalf("path %q leads out of %q", s.Path, path)
			}
		}
	})
}

// FuzzStored checks that a damaged store gives an error.
func FuzzStored(f *testing.F) {
	f.Add(encode([]byte{1, 2, 3, 0, 0, 0, 0}, Example{IDs: []int32{1, 300, 70000}, Train: []bool{false, true, true}}), 3)
	f.Fuzz(func(t *testing.T, b []byte, tokens int) {
		if tokens < 0 || tokens > 1<<20 {
			return
		}
		e, _, err := decode(b, tokens)
		if err == nil && (len(e.IDs) != tokens || len(e.Train) != tokens) {
			t.Fatal("lengths differ")
		}
	})
}
