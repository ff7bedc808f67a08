package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"tunesmith/quant"
)

// headerLimit is the longest header of a safetensors file, as in the reference reader.
const headerLimit = 100_000_000

// dtypes are the types of safetensors and their bits; those that are storage formats here can be read as floats.
var dtypes = map[string]int{
	"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
	"I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}

var floats = map[string]quant.Format{"F32": quant.F32, "F16": quant.F16, "BF16": quant.BF16}

// entry is a tensor in a header.
type entry struct {
	Dtype   *string `json:"dtype"`
	Shape   []int64 `json:"shape"`
	Offsets []int64 `json:"data_offsets"`
	name    string
}

// parseSafetensors checks a whole file: header within the file, offsets contiguous from 0 to its end, sizes equal to
// shape times type, no name twice.
func parseSafetensors(b []byte) (*file, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("safetensors: %d bytes are too few for a header", len(b))
	}
	n := le.Uint64(b)
	if n > headerLimit || n > uint64(len(b)-8) {
		return nil, fmt.Errorf("safetensors: a header of %d bytes does not fit into a file of %d bytes or the limit of %d", n, len(b), headerLimit)
	}
	header, body := b[8:8+n], b[8+n:]
	if !utf8.Valid(header) {
		return nil, errors.New("safetensors: the header is not UTF-8")
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, errors.New("safetensors: the header does not begin with {")
	}
	entries, meta, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("safetensors: header: %w", err)
	}
	f := &file{tensors: make(map[string]Tensor, len(entries)), meta: meta}
	slices.SortStableFunc(entries, func(a, b entry) int {
		if a.Offsets[0] != b.Offsets[0] {
			return int(min(max(a.Offsets[0]-b.Offsets[0], -1), 1))
		}
		return int(min(max(a.Offsets[1]-b.Offsets[1], -1), 1))
	})
	at := int64(0)
	for _, e := range entries {
		if e.Offsets[0] != at || e.Offsets[1] < at || e.Offsets[1] > int64(len(body)) {
			return nil, fmt.Errorf("safetensors: tensor %q: want data from %d on within %d bytes, have %v", e.name, at, len(body), e.Offsets)
		}
		at = e.Offsets[1]
		t, err := e.tensor(body)
		if err != nil {
			return nil, fmt.Errorf("safetensors: tensor %q: %w", e.name, err)
		}
		f.tensors[e.name] = t
		f.names = append(f.names, e.name)
	}
	if at != int64(len(body)) {
		return nil, fmt.Errorf("safetensors: the tensors end at byte %d of %d: the file is cut or has foreign bytes at its end", at, len(body))
	}
	return f, nil
}

// parseHeader reads the header's entries in their order and refuses names that stand twice.
func parseHeader(header []byte) ([]entry, map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(header))
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	var entries []entry
	meta := map[string]any{}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		name, _ := token.(string)
		if seen[name] {
			return nil, nil, fmt.Errorf("%q stands twice", name)
		}
		seen[name] = true
		if name == "__metadata__" {
			var texts map[string]*string
			if err := d.Decode(&texts); err != nil {
				return nil, nil, fmt.Errorf("__metadata__: %w", err)
			}
			for k, v := range texts {
				if v == nil {
					return nil, nil, fmt.Errorf("__metadata__: %q is null, want text", k)
				}
				meta[k] = *v
			}
			continue
		}
		e := entry{name: name}
		if err := d.Decode(&e); err != nil {
			return nil, nil, fmt.Errorf("%q: %w", name, err)
		}
		if e.Dtype == nil || e.Shape == nil || len(e.Offsets) != 2 {
			return nil, nil, fmt.Errorf("%q: want dtype, shape and two data_offsets", name)
		}
		entries = append(entries, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	if rest := bytes.TrimSpace(header[d.InputOffset():]); len(rest) > 0 {
		return nil, nil, errors.New("text after the closing brace")
	}
	return entries, meta, nil
}

// tensor checks the size and cuts the data out. A type that is no float is kept as bytes and cannot be decoded.
func (e entry) tensor(body []byte) (Tensor, error) {
	width, ok := dtypes[*e.Dtype]
	if !ok {
		return Tensor{}, fmt.Errorf("dtype %q is unknown", *e.Dtype)
	}
	n := uint64(1)
	t := Tensor{Name: e.name, Shape: make([]int, len(e.Shape))}
	for i, d := range e.Shape {
		if d < 0 {
			return t, fmt.Errorf("shape %v has a negative dimension", e.Shape)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > 1<<48 {
			return t, fmt.Errorf("shape %v overflows", e.Shape)
		}
		n, t.Shape[i] = lo, int(d)
	}
	if have := uint64(e.Offsets[1] - e.Offsets[0]); have != n*uint64(width)/8 {
		return t, fmt.Errorf("shape %v of %s takes %d bytes, the offsets span %d", e.Shape, *e.Dtype, n*uint64(width)/8, have)
	}
	f, ok := floats[*e.Dtype]
	t.Format, t.Data = f, body[e.Offsets[0]:e.Offsets[1]:e.Offsets[1]]
	if !ok {
		t.Format = notFloat
	}
	return t, nil
}

// notFloat marks tensors of integers, which have no storage format here.
const notFloat quant.Format = 255

// openIndex opens the shards of a model.safetensors.index.json. Each name must stand in the shard that the index
// says, and nowhere else.
func openIndex(path string) (File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var index struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil || len(index.Map) == 0 {
		return nil, fmt.Errorf("checkpoint %s: want a map weight_map from tensor to file: %v", path, err)
	}
	var shards []string
	for _, s := range index.Map {
		if filepath.Base(s) != s || s == "." || s == ".." || strings.ContainsAny(s, `/\`) {
			return nil, fmt.Errorf("checkpoint %s: shard %q is not a plain file name", path, s)
		}
		if !slices.Contains(shards, s) {
			shards = append(shards, s)
		}
	}
	slices.Sort(shards)
	all := &file{tensors: map[string]Tensor{}, meta: map[string]any{}}
	for _, s := range shards {
		part, err := mapped(filepath.Join(filepath.Dir(path), s), parseSafetensors)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		p := part.(*file)
		all.unmap = append(all.unmap, p.unmap...)
		for _, name := range p.names {
			if index.Map[name] != s {
				return nil, errors.Join(fmt.Errorf("checkpoint %s: tensor %q stands in %s, the index says %q", path, name, s, index.Map[name]), all.Close())
			}
			all.tensors[name] = p.tensors[name]
			all.names = append(all.names, name)
		}
		for k, v := range p.meta {
			all.meta[k] = v
		}
	}
	for name, s := range index.Map {
		if _, ok := all.tensors[name]; !ok {
			return nil, errors.Join(fmt.Errorf("checkpoint %s: tensor %q is not in %s", path, name, s), all.Close())
		}
	}
	return all, nil
}

// EncodeSafetensors writes tensors as safetensors, in the order given. Only float formats can be written.
func EncodeSafetensors(w io.Writer, tensors []Tensor, meta map[string]string) error {
	header, err := safetensorsHeader(tensors, meta)
	if err != nil {
		return err
	}
	var size [8]byte
	le.PutUint64(size[:], uint64(len(header)))
	if _, err := w.Write(append(size[:], header...)); err != nil {
		return err
	}
	for _, t := range tensors {
		if _, err := w.Write(t.Data); err != nil {
			return err
		}
	}
	return nil
}

func safetensorsHeader(tensors []Tensor, meta map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	field := func(key string, v any) error {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(key)
		if err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(text)
		return nil
	}
	if len(meta) > 0 {
		if err := field("__metadata__", meta); err != nil {
			return nil, err
		}
	}
	at := 0
	seen := map[string]bool{}
	for _, t := range tensors {
		if t.Format.String() != "F32" && t.Format.String() != "F16" && t.Format.String() != "BF16" {
			return nil, fmt.Errorf("safetensors: tensor %q: want format F32, F16 or BF16, have %v", t.Name, t.Format)
		}
		if seen[t.Name] || t.Name == "__metadata__" {
			return nil, fmt.Errorf("safetensors: tensor name %q stands twice or is reserved", t.Name)
		}
		seen[t.Name] = true
		if len(t.Data) != t.Format.Bytes(t.Size()) {
			return nil, fmt.Errorf("safetensors: tensor %q: shape %v takes %d bytes, have %d", t.Name, t.Shape, t.Format.Bytes(t.Size()), len(t.Data))
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		err := field(t.Name, struct {
			Dtype   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{t.Format.String(), shape, [2]int{at, at + len(t.Data)}})
		if err != nil {
			return nil, err
		}
		at += len(t.Data)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 { // data starts at a multiple of 8
		b.WriteByte(' ')
	}
	return b.Bytes(), nil
}
