package checkpoint

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/quant"
)

var someMeta = []KV{
	{"general.architecture", "llama"},
	{"general.alignment", uint32(64)},
	{"u8", uint8(200)},
	{"i8", int8(-3)},
	{"u16", uint16(60000)},
	{"i16", int16(-4)},
	{"u32", uint32(1 << 31)},
	{"i32", int32(-5)},
	{"u64", uint64(1 << 63)},
	{"i64", int64(-6)},
	{"f32", float32(0.1)},
	{"f64", math.Pi},
	{"yes", true},
	{"no", false},
	{"texts", []string{"a", "", "中", "\xff half a character"}},
	{"bytes", []uint8{1, 2}},
	{"bools", []bool{true, false}},
	{"floats", []float32{1, -2}},
	{"ints", []int32{-1, 2}},
	{"longs", []int64{1 << 40}},
	{"none", []uint16{}},
	{"nested", []any{[]int8{1}, []string{"x"}, []any{[]bool{true}}}},
}

func TestGGUFRoundTrip(t *testing.T) {
	want := ggml(someTensors(t))
	for i := range want {
		if want[i].Format == quant.F32 {
			want[i].Shape = []int{2, 2, 4, 32}
		}
	}
	var b, again bytes.Buffer
	if err := EncodeGGUF(&b, someMeta, want); err != nil {
		t.Fatal(err)
	}
	f, err := parseGGUF(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, f, want)
	meta := map[string]any{}
	for _, kv := range someMeta {
		meta[kv.Key] = kv.Value
	}
	if d := cmp.Diff(meta, f.Metadata()); d != "" {
		t.Error(d)
	}
	if err := EncodeGGUF(&again, someMeta, want); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same tensors give other bytes, %v", err)
	}
}

func TestGGUFWriteRefuses(t *testing.T) {
	x := Float32Tensor("x", []int{1}, []float32{1})
	for want, c := range map[string]struct {
		meta    []KV
		tensors []Tensor
	}{
		"have int":                {meta: []KV{{"a", 1}}},
		"have []int":              {meta: []KV{{"a", []int{1}}}},
		"have map":                {meta: []KV{{"a", map[string]int{}}}},
		"element 0: want a slice": {meta: []KV{{"a", []any{uint8(1)}}}},
		"nest deeper":             {meta: []KV{{"a", []any{[]any{[]any{[]any{[]uint8{1}}}}}}}},
		"stands twice":            {meta: []KV{{"a", "1"}, {"a", "2"}}},
		"power of two":            {meta: []KV{{"general.alignment", uint32(48)}}},
		"as uint32":               {meta: []KV{{"general.alignment", 32.0}}},
		"another name":            {tensors: []Tensor{x, x}},
		"at most 64 bytes":        {tensors: []Tensor{Float32Tensor(strings.Repeat("x", 65), []int{1}, []float32{1})}},
		"at most 4 dimensions":    {tensors: []Tensor{Float32Tensor("x", []int{1, 1, 1, 1, 1}, []float32{1})}},
		"no place in GGUF":        {tensors: []Tensor{{Name: "x", Shape: []int{1}, Format: quant.U8, Data: []byte{1}}}},
		"shape [0] in format F32": {tensors: []Tensor{Float32Tensor("x", []int{0}, nil)}},
		"is not UTF-8":            {tensors: []Tensor{Float32Tensor("\xff", []int{1}, []float32{1})}},
		"rows of 33":              {tensors: []Tensor{{Name: "x", Shape: []int{33}, Format: quant.Q4_0, Data: make([]byte, 18)}}},
	} {
		path := filepath.Join(t.TempDir(), "x.gguf")
		if err := WriteGGUF(path, c.meta, c.tensors); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v", want, err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
			t.Errorf("%s: left behind: %v", want, entries)
		}
	}
}

// rawGGUF builds files that EncodeGGUF would not.
type rawGGUF struct{ b []byte }

func newRaw(version uint32, tensors, entries uint64) *rawGGUF {
	return (&rawGGUF{[]byte(ggufMagic)}).u32(version).u64(tensors).u64(entries)
}

func (r *rawGGUF) u32(v ...uint32) *rawGGUF {
	for _, v := range v {
		r.b = le.AppendUint32(r.b, v)
	}
	return r
}

func (r *rawGGUF) u64(v ...uint64) *rawGGUF {
	for _, v := range v {
		r.b = le.AppendUint64(r.b, v)
	}
	return r
}

func (r *rawGGUF) text(s string) *rawGGUF {
	r.b = appendString(r.b, s)
	return r
}

// tensor writes a tensor's description, with dimensions in the file's order.
func (r *rawGGUF) tensor(name string, kind uint32, offset uint64, dims ...uint64) *rawGGUF {
	return r.text(name).u32(uint32(len(dims))).u64(dims...).u32(kind).u64(offset)
}

// data pads to the alignment and writes bytes.
func (r *rawGGUF) data(n int) []byte {
	return append(r.b, make([]byte, int(roundUp(uint64(len(r.b)), 32))-len(r.b)+n)...)
}

func TestGGUFRefuses(t *testing.T) {
	deep := newRaw(3, 0, 1).text("a").u32(ggufArray)
	for range 1000 {
		deep.u32(ggufArray).u64(1)
	}
	swapped := newRaw(0, 0, 0)
	swapped.b[7] = 3
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"version 1", newRaw(1, 0, 0).data(0), "version 1 is not supported"},
		{"version 4", newRaw(4, 0, 0).data(0), "want version 2 or 3"},
		{"big-endian", swapped.data(0), "big-endian"},
		{"tensors 2^63", newRaw(3, 1<<63, 0).data(64), "number of tensors: 9223372036854775808"},
		{"entries 2^63", newRaw(3, 0, 1<<63).data(64), "number of metadata entries: 9223372036854775808"},
		{"key of 2^64−1 bytes", newRaw(3, 0, 1).u64(math.MaxUint64).data(64), "metadata key: want at most 65535 bytes"},
		{"text of 2^64−1 bytes", newRaw(3, 0, 1).text("a").u32(ggufString).u64(math.MaxUint64).data(64), `metadata "a": want at most`},
		{"texts 2^60", newRaw(3, 0, 1).text("a").u32(ggufArray, ggufString).u64(1 << 60).data(64), `metadata "a": 1152921504606846976 of at least 8`},
		{"numbers 2^61", newRaw(3, 0, 1).text("a").u32(ggufArray, 4).u64(1 << 61).data(64), "do not fit"},
		{"arrays 1000 deep", deep.data(64), "nest deeper than 4"},
		{"element type", newRaw(3, 0, 1).text("a").u32(ggufArray, 13).u64(1).data(64), "element type 13 is unknown"},
		{"bool 2", (&rawGGUF{append(newRaw(3, 0, 1).text("a").u32(7).b, 2)}).data(0), "a bool is 0 or 1, have 2"},
		{"bools", (&rawGGUF{append(newRaw(3, 0, 1).text("a").u32(ggufArray, 7).u64(2).b, 1, 3)}).data(0), "a bool is 0 or 1, have 3"},
		{"entries cut", newRaw(3, 0, 1).text("abcdef").u32(4).b, `metadata "abcdef": want 4 more bytes`},
		{"alignment of another type", newRaw(3, 0, 1).text(alignmentKey).u32(10).u64(32).data(0), "of type uint64"},
		{"alignment 2^31", newRaw(3, 1, 1).text(alignmentKey).u32(4, 1<<31).tensor("t", 0, 0, 1).data(4), "the data begin at byte 2147483648"},
		{"no data", newRaw(3, 1, 0).tensor("t", 0, 0, 1).b, "the data begin"},
		{"5 dimensions", newRaw(3, 1, 0).tensor("t", 0, 0, 1, 1, 1, 1, 1).data(4), "want at most 4 dimensions, have 5"},
		{"dimension 0", newRaw(3, 1, 0).tensor("t", 0, 0, 1, 0).data(4), "dimension 1 is 0"},
		{"2^62 · 2^63", newRaw(3, 1, 0).tensor("t", 0, 0, 1<<62, 1<<63).data(4), "overflows at dimension 1"},
		{"2^32 · 2^32", newRaw(3, 1, 0).tensor("t", 0, 0, 1<<32, 1<<32).data(4), "overflows at dimension 1"},
		{"bytes overflow", newRaw(3, 1, 0).tensor("t", 28, 0, 1<<62).data(4), "overflow"},
		{"2 GiB asked of 100 bytes", newRaw(3, 1, 0).tensor("t", 0, 0, 1<<29).data(4), "its 2147483648 bytes at offset 0 run beyond the 4"},
		{"Q4_0 with 33", newRaw(3, 1, 0).tensor("t", 2, 0, 33).data(64), "rows of 33 elements"},
		{"Q4_0 with rows of 16", newRaw(3, 1, 0).tensor("t", 2, 0, 16, 2).data(64), "rows of 16 elements"},
		{"removed type", newRaw(3, 1, 0).tensor("t", 4, 0, 32).data(64), "Q4_2, removed"},
		{"type without code", newRaw(3, 1, 0).tensor("t", 9, 0, 32).data(36), "type 9 (Q8_1) is not supported"},
		{"unknown type", newRaw(3, 1, 0).tensor("t", 1000, 0, 32).data(64), "type 1000 is unknown"},
		{"unaligned", newRaw(3, 1, 0).tensor("t", 0, 4, 1).data(8), "offset 4 is no multiple of the alignment 32"},
		{"offset beyond", newRaw(3, 1, 0).tensor("t", 0, 1<<40, 1).data(4), `tensor "t": want offset 0`},
		{"offset wraps", newRaw(3, 2, 0).tensor("a", 0, 0, 1).tensor("t", 0, math.MaxUint64-31, 16).data(64), `tensor "t": want offset 32`},
		{"overlap", newRaw(3, 2, 0).tensor("a", 0, 0, 16).tensor("b", 0, 32, 1).data(64), `tensor "b": want offset 64`},
		{"hole", newRaw(3, 2, 0).tensor("a", 0, 0, 1).tensor("b", 0, 64, 1).data(68), `tensor "b": want offset 32`},
		{"foreign bytes", newRaw(3, 1, 0).tensor("a", 0, 0, 1).data(33), "the tensors end at byte 32 of the data, the file at byte 33"},
		{"tensor twice", newRaw(3, 2, 0).tensor("a", 0, 0, 1).tensor("a", 0, 32, 1).data(36), `tensor "a" stands twice`},
		{"name of 65 bytes", newRaw(3, 1, 0).tensor(strings.Repeat("x", 65), 0, 0, 1).data(4), "tensor name: want at most 64 bytes"},
		{"name not UTF-8", newRaw(3, 1, 0).tensor("\xff", 0, 0, 1).data(4), "not UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseGGUF(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, have %v", c.want, err)
			}
		})
	}
}

func TestGGUFAccepts(t *testing.T) {
	for name, file := range map[string][]byte{
		"nothing":               newRaw(3, 0, 0).b,
		"version 2":             newRaw(2, 1, 0).tensor("t", 0, 0, 1).data(4),
		"padding at the end":    newRaw(3, 1, 0).tensor("t", 0, 0, 1).data(32),
		"data in another order": newRaw(3, 2, 0).tensor("a", 0, 32, 1).tensor("b", 0, 0, 1).data(36),
		"scalar":                newRaw(3, 1, 0).tensor("t", 0, 0).data(4),
	} {
		f, err := parseGGUF(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		touch(f)
	}
}

// TestParsersAllocateLittle: a file that claims much gets no memory for it.
func TestParsersAllocateLittle(t *testing.T) {
	texts := newRaw(3, 1, 1).text("a").u32(ggufArray, ggufString).u64(1 << 40).data(1 << 20)
	arrays := newRaw(3, 0, 1).text("a").u32(ggufArray, ggufArray).u64(1 << 16).data(1 << 20)
	shape := safetensorsOf(`{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}`, 4)
	numbers := safetensorsOf(`{"a":{"shape":[`+strings.Repeat("0,", 1<<19)+`0]}}`, 0)
	for name, parse := range map[string]func() error{
		"texts":   func() error { _, err := parseGGUF(texts); return err },
		"arrays":  func() error { _, err := parseGGUF(arrays); return err },
		"shape":   func() error { _, err := parseSafetensors(shape); return err },
		"numbers": func() error { _, err := parseSafetensors(numbers); return err },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := parse()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 64<<20 {
			t.Errorf("%s: %d bytes, error %v", name, n, err)
		}
	}
}

func FuzzGGUF(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeGGUF(&b, someMeta, ggml(someTensors(f))); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(newRaw(2, 1, 0).tensor("t", 2, 0, 32).data(18))
	f.Add(newRaw(3, 2, 1).text(alignmentKey).u32(4, 64).tensor("a", 0, 0, 16).tensor("b", 30, 64, 2, 2).data(128))
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := parseGGUF(in)
		if err != nil {
			return
		}
		touch(file)
		var tensors []Tensor
		for _, name := range file.Names() {
			x, _ := file.Tensor(name)
			tensors = append(tensors, x)
		}
		var meta []KV
		for k, v := range file.Metadata() {
			meta = append(meta, KV{k, v})
		}
		var b bytes.Buffer
		if err := EncodeGGUF(&b, meta, tensors); err != nil {
			t.Fatal(err)
		}
		again, err := parseGGUF(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, again, tensors)
		// Printed, because NaN differs from itself.
		if have, want := fmt.Sprint(again.Metadata()), fmt.Sprint(file.Metadata()); have != want {
			t.Errorf("metadata: want %s, have %s", want, have)
		}
	})
}
