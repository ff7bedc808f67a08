package data

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	pq "github.com/parquet-go/parquet-go"
)

// parquetRow has the nesting that data sets have, with fields that may be null.
type parquetRow struct {
	Messages []parquetMessage  `parquet:"messages,list"`
	Score    *float64          `parquet:"score,optional"`
	Meta     map[string]string `parquet:"meta"`
	Old      []int32           `parquet:"old"` // repeated without a list around it
}

type parquetMessage struct {
	Role    string        `parquet:"role"`
	Content *string       `parquet:"content,optional"`
	Calls   []parquetCall `parquet:"tool_calls,list,optional"`
}

type parquetCall struct {
	Name      string           `parquet:"name"`
	Arguments parquetArguments `parquet:"arguments"`
}

type parquetArguments struct {
	City  string  `parquet:"city"`
	Other *string `parquet:"other,optional"`
}

func parquetFile(t testing.TB) []byte {
	t.Helper()
	q, a := "q", "a"
	var b bytes.Buffer
	rows := []parquetRow{
		{Messages: []parquetMessage{{Role: "user", Content: &q}, {Role: "assistant", Calls: []parquetCall{{"f", parquetArguments{City: "Rome"}}, {"g", parquetArguments{"Oslo", &a}}}}, {Role: "tool", Content: &q}, {Role: "assistant", Content: &a}}},
		{Messages: []parquetMessage{{Role: "user", Content: &a}, {Role: "assistant", Content: &q}}, Meta: map[string]string{"k": "v"}, Old: []int32{1, 2}},
		{Messages: []parquetMessage{}},
	}
	if err := pq.Write(&b, rows); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadParquet(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.parquet")
	if err := os.WriteFile(path, parquetFile(t), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &file{}
	h, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := f.openParquet(h, path, 1<<20); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 3 {
		r, err := f.rows.next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(appendJSON(nil, r.columns)))
	}
	want := []string{
		`{"messages":[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{"name":"f","arguments":{"city":"Rome"}},{"name":"g","arguments":{"city":"Oslo","other":"a"}}]},{"role":"tool","content":"q"},{"role":"assistant","content":"a"}],"score":null,"meta":{},"old":[]}`,
		`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"q"}],"score":null,"meta":{"k":"v"},"old":[1,2]}`,
		`{"messages":[],"score":null,"meta":{},"old":[]}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	l := &Ledger{}
	records := readAll(t, Source{Path: path}, l)
	if diff := cmp.Diff([]string{"user=q *assistant= tool=q *assistant=a", "user=a *assistant=q"}, texts(records)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bad a.parquet: record 3: conversation has no messages; remove the record"}, said(l, dir)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
