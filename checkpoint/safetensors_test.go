package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/quant"
)

// safetensorsOf puts a header before data, with its length.
func safetensorsOf(header string, data int) []byte {
	b := le.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestSafetensorsRoundTrip(t *testing.T) {
	want := plain(someTensors(t))
	want = append(want, Tensor{Name: "<scalar> & \"quoted\" é", Format: quant.F32, Data: []byte{0, 0, 128, 63}},
		Tensor{Name: "empty", Shape: []int{0, 7}, Format: quant.F16, Data: []byte{}})
	meta := map[string]string{"format": "pt", "b": "<&>", "a": "中"}
	var b, again bytes.Buffer
	if err := EncodeSafetensors(&b, want, meta); err != nil {
		t.Fatal(err)
	}
	f, err := parseSafetensors(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want[len(want)-2].Shape = []int{}
	wantSame(t, f, want)
	for k, v := range meta {
		if f.meta[k] != v {
			t.Errorf("metadata %q: want %q, have %v", k, v, f.meta[k])
		}
	}
	if begin := 8 + int(le.Uint64(b.Bytes())); begin%8 != 0 {
		t.Errorf("data begin at byte %d", begin)
	}
	if err := EncodeSafetensors(&again, want, meta); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same tensors give other bytes, %v", err)
	}
}

func TestSafetensorsRefuses(t *testing.T) {
	const a = `"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`
	long := strings.Repeat(`[`, 100_000)
	for _, c := range []struct {
		name, header string
		data         int
		want         string
	}{
		{"blank before", ` {` + a + `}`, 4, "does not begin with {"},
		{"no header", ``, 0, "does not begin with {"},
		{"text after", `{` + a + `}x`, 4, "after the closing brace"},
		{"second object", `{` + a + `}{}`, 4, "after the closing brace"},
		{"comma at the end", `{` + a + `,}`, 4, "invalid"},
		{"cut", `{` + a, 4, "unexpected EOF"},
		{"name twice", `{` + a + `,` + a + `}`, 4, `"a" stands twice`},
		{"field twice", `{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, `"dtype" stands twice`},
		{"metadata twice", `{"__metadata__":{"x":"1","x":"2"},` + a + `}`, 4, `"x" stands twice`},
		{"metadata null", `{"__metadata__":{"x":null}}`, 0, "want a text"},
		{"metadata text", `{"__metadata__":"x"}`, 0, "want an object"},
		{"field in other case", `{"a":{"Dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "dtype is missing"},
		{"no shape", `{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4, "shape is missing"},
		{"tensor null", `{"a":null}`, 0, "want an object"},
		{"shape null", `{"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}}`, 4, "want an array"},
		{"dimension null", `{"a":{"dtype":"F32","shape":[null],"data_offsets":[0,0]}}`, 0, "want a whole number"},
		{"dimension text", `{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}`, 4, "want a whole number"},
		{"dimension nested", `{"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}}`, 4, "want a whole number"},
		{"dimension exponent", `{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}`, 4, "want a whole number"},
		{"negative offset", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4, "want a whole number"},
		{"offset over 64 bits", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551620]}}`, 4, "want a whole number"},
		{"one offset", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}`, 4, "have 1 numbers"},
		{"offset beyond the end", `{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 4, "want an end from 0 to 4"},
		{"dtype object", `{"a":{"dtype":{},"shape":[1],"data_offsets":[0,4]}}`, 4, "want a text"},
		{"dtype of blocks", `{"a":{"dtype":"Q8_0","shape":[32],"data_offsets":[0,34]}}`, 34, `have "Q8_0"`},
		{"dtype of 4 bits", `{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}`, 1, `have "F4"`},
		{"product wraps to the size", `{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0, "overflows"},
		{"product wraps beside 0", `{"a":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}`, 0, "overflows"},
		{"width overflows", `{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}`, 0, "overflows"},
		{"foreign bytes", `{` + a + `}`, 5, "tensors end at byte 4 of the data, the file at byte 5"},
		{"no tensors, foreign bytes", `{}`, 1, "the file at byte 1"},
		{"deep", `{"a":` + long, 0, "want an object"},
		{"deep in what is skipped", `{"a":{"x":` + long, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseSafetensors(safetensorsOf(c.header, c.data))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, have %v", c.want, err)
			}
		})
	}
	for _, header := range []string{`{}`, "{} \t\r\n ", `{"__metadata__":{}}`, `{"a":{"dtype":"U8","shape":[],"new":[{}],"data_offsets":[0,1]}}`} {
		if _, err := parseSafetensors(safetensorsOf(header, strings.Count(header, "dtype"))); err != nil {
			t.Errorf("%s: %v", header, err)
		}
	}
}

func TestSafetensorsWriteRefuses(t *testing.T) {
	x := Float32Tensor("x", []int{1}, []float32{1})
	q := Tensor{Name: "q", Shape: []int{32}, Format: quant.Q8_0, Data: make([]byte, 34)}
	for want, tensors := range map[string][]Tensor{
		`"x" is taken`:            {x, x},
		`"__metadata__" is taken`: {{Name: "__metadata__", Shape: []int{1}, Data: x.Data}},
		"have Q8_0":               {q},
		"takes 8 bytes, have 4":   {{Name: "x", Shape: []int{2}, Data: x.Data}},
		"takes 4 bytes, have 0":   {{Name: "x", Shape: []int{1}}},
		"negative dimension":      {{Name: "x", Shape: []int{-1, -1}, Data: x.Data}},
		"is not UTF-8":            {{Name: "\xff", Shape: []int{1}, Data: x.Data}},
		"format 99 is unknown":    {{Name: "x", Shape: []int{1}, Format: 99, Data: x.Data}},
	} {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := WriteSafetensors(path, tensors, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v", want, err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
			t.Errorf("%s: left behind: %v", want, entries)
		}
	}
}

func TestSafetensorsMetadataIsUTF8(t *testing.T) {
	if err := EncodeSafetensors(io.Discard, nil, map[string]string{"a": "\xff"}); err == nil || !strings.Contains(err.Error(), "want UTF-8") {
		t.Errorf("have %v", err)
	}
}

func TestShards(t *testing.T) {
	var tensors []Tensor
	for i := range 7 {
		tensors = append(tensors, Float32Tensor(fmt.Sprintf("layer.%d", 6-i), []int{i + 1}, make([]float32, i+1)))
	}
	for limit, want := range map[int64][]string{
		0:    {"model.safetensors"},
		1000: {"model.safetensors"},
		40: {
			"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors", "model-00003-of-00004.safetensors",
			"model-00004-of-00004.safetensors", "model.safetensors.index.json",
		},
	} {
		dir := t.TempDir()
		names, err := WriteSharded(dir, tensors, map[string]string{"format": "pt"}, limit)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, names); d != "" {
			t.Errorf("limit %d: %s", limit, d)
		}
		f, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, f, tensors)
		if f.Metadata()["format"] != "pt" {
			t.Errorf("metadata: have %v", f.Metadata())
		}
		closeFile(t, f)
	}
}

func TestIndexRefuses(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"a", "b"} {
		x := []Tensor{Float32Tensor(name, []int{1}, []float32{float32(i)}), Float32Tensor(name+"2", []int{1}, []float32{5})}
		if err := WriteSafetensors(filepath.Join(dir, name+".safetensors"), x, nil); err != nil {
			t.Fatal(err)
		}
	}
	const all = `"a":"a.safetensors","a2":"a.safetensors","b":"b.safetensors","b2":"b.safetensors"`
	for index, want := range map[string]string{
		`{"weight_map":{` + all + `}}`:                     "",
		`{"metadata":null,"weight_map":{` + all + `}}`:     "",
		`{"weight_map":{` + all + `}} x`:                   "after the closing brace",
		`{"weight_map":{` + all + `,"a":"a.safetensors"}}`: `"a" stands twice`,
		`{"weight_map":{` + all + `,"c":"b.safetensors"}}`: `"c" is not in b.safetensors`,
		`{"weight_map":{` + all + `,"c":"c.safetensors"}}`: "shard c.safetensors",
		`{"weight_map":{"a":"a.safetensors"}}`:             `"a2" stands in a.safetensors`,
		`{"weight_map":{"a":"b.safetensors"}}`:             `stands in b.safetensors`,
		`{"weight_map":{"a":"../a.safetensors"}}`:          "plain name",
		`{"weight_map":{"a":"/a.safetensors"}}`:            "plain name",
		`{"weight_map":{"a":"C:\\a.safetensors"}}`:         "plain name",
		`{"weight_map":{"a":"a.bin"}}`:                     "plain name",
		`{"weight_map":{"a":1}}`:                           "want a text",
		`{"weight_map":{}}`:                                "names no tensors",
		`{"metadata":{}}`:                                  "names no tensors",
		`[]`:                                               "want an object",
		``:                                                 "unexpected EOF",
	} {
		path := filepath.Join(dir, "model.safetensors.index.json")
		if err := os.WriteFile(path, []byte(index), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", index, err)
		case want == "":
			closeFile(t, f)
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%s: want an error with %q, have %v", index, want, err)
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeSafetensors(&b, plain(someTensors(f)), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(safetensorsOf(`{"a":{"dtype":"F32","shape":[1,0],"data_offsets":[0,0]}}`, 0))
	f.Add(safetensorsOf(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]},"a":null}`, 3))
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := parseSafetensors(in)
		if err != nil {
			return
		}
		touch(file)
		// What was accepted means the same when it is written again.
		var tensors []Tensor
		for _, name := range file.Names() {
			x, _ := file.Tensor(name)
			tensors = append(tensors, x)
		}
		var b bytes.Buffer
		if err := EncodeSafetensors(&b, tensors, nil); err != nil {
			t.Fatal(err)
		}
		again, err := parseSafetensors(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, again, tensors)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":8},"weight_map":{"a":"m.safetensors"}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		index, err := parseIndex(in)
		if err == nil && !json.Valid(in) {
			t.Errorf("no JSON, but %v", index)
		}
	})
}
