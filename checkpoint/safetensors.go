package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"

	"tunesmith/quant"
)

// A safetensors file is a length of 8 bytes, a JSON object of that length that maps each tensor's name to its dtype,
// shape and data_offsets, and the data. What is checked is what the reference reader in Rust checks, and that no
// name stands twice and the object stands at the beginning.

// headerLimit is the longest header, as in the reference reader.
const headerLimit = 100_000_000

// maxDims bounds the numbers of a shape; nothing that computes has more.
const maxDims = 64

// metadataKey is the member of the header that is no tensor.
const metadataKey = "__metadata__"

// safetensorsOrder lists the formats that safetensors can hold, widest first: tensors are written in this order, so
// that each begins at a multiple of its width. It is the order of the reference writer.
var safetensorsOrder = []quant.Format{
	quant.U64, quant.I64, quant.F64, quant.F32, quant.U32, quant.I32, quant.BF16, quant.F16, quant.U16, quant.I16,
	quant.F8E4M3, quant.F8E5M2, quant.I8, quant.U8, quant.Bool,
}

// headerTensor is a tensor as the header describes it.
type headerTensor struct {
	name       string
	format     quant.Format
	shape      []uint64
	begin, end uint64
}

// parseSafetensors checks a whole file and cuts it into tensors.
func parseSafetensors(b []byte) (*file, error) {
	f, err := readSafetensors(b)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return f, nil
}

func readSafetensors(b []byte) (*file, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("want at least 8 bytes for the length of the header, have %d", len(b))
	}
	n := le.Uint64(b)
	if n > headerLimit {
		return nil, fmt.Errorf("want a header of at most %d bytes, have %d", headerLimit, n)
	}
	if n > uint64(len(b)-8) {
		return nil, fmt.Errorf("a header of %d bytes runs beyond the end of the file of %d", n, len(b))
	}
	header, body := b[8:8+n], b[8+n:]
	if !utf8.Valid(header) {
		return nil, errors.New("the header is not UTF-8")
	}
	if n == 0 || header[0] != '{' {
		return nil, errors.New("the header does not begin with {")
	}
	list, meta, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	slices.SortStableFunc(list, func(a, b headerTensor) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	f := &file{tensors: make(map[string]Tensor, len(list)), meta: meta}
	at := uint64(0)
	for _, h := range list {
		t, err := h.cut(body, at)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", h.name, err)
		}
		f.tensors[h.name] = t
		f.names = append(f.names, h.name)
		at = h.end
	}
	if at != uint64(len(body)) {
		return nil, fmt.Errorf("the tensors end at byte %d of the data, the file at byte %d", at, len(body))
	}
	return f, nil
}

// cut returns the tensor whose data begin at byte at of the body.
func (h headerTensor) cut(body []byte, at uint64) (Tensor, error) {
	t := Tensor{Name: h.name, Format: h.format, Shape: make([]int, len(h.shape))}
	if h.begin != at {
		return t, fmt.Errorf("data_offsets: want the data from %d on, where the one before ends, have [%d, %d]", at, h.begin, h.end)
	}
	if h.end < h.begin || h.end > uint64(len(body)) {
		return t, fmt.Errorf("data_offsets: want an end from %d to %d, have %d", h.begin, len(body), h.end)
	}
	size, overflow := uint64(h.format.Bytes(1)), uint64(0)
	for i, d := range h.shape {
		var hi uint64
		hi, size = bits.Mul64(size, d)
		if overflow |= hi; overflow != 0 || d > math.MaxInt {
			return t, fmt.Errorf("shape %v of %v overflows", h.shape, h.format)
		}
		t.Shape[i] = int(d)
	}
	if size != h.end-h.begin {
		return t, fmt.Errorf("shape %v of %v takes %d bytes, data_offsets [%d, %d] span %d", h.shape, h.format, size, h.begin, h.end, h.end-h.begin)
	}
	t.Data = body[h.begin:h.end:h.end]
	return t, nil
}

// parseHeader reads the header's JSON.
func parseHeader(header []byte) ([]headerTensor, map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(header))
	d.UseNumber()
	var list []headerTensor
	meta := map[string]any{}
	err := object(d, func(name string) error {
		if name == metadataKey {
			return object(d, func(key string) error {
				text, err := stringValue(d)
				meta[key] = text
				return err
			})
		}
		h, err := parseTensor(d)
		h.name = name
		list = append(list, h)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return list, meta, atEnd(d, header)
}

// parseTensor reads the description of one tensor. Members that are not known are skipped, as in the reference
// reader.
func parseTensor(d *json.Decoder) (headerTensor, error) {
	var h headerTensor
	var offsets []uint64
	has := map[string]bool{}
	err := object(d, func(key string) (err error) {
		has[key] = true
		switch key {
		case "dtype":
			var name string
			if name, err = stringValue(d); err == nil {
				h.format, err = dtype(name)
			}
		case "shape":
			h.shape, err = sizes(d)
		case "data_offsets":
			if offsets, err = sizes(d); err == nil && len(offsets) != 2 {
				err = fmt.Errorf("want a begin and an end, have %d numbers", len(offsets))
			}
		default:
			var skipped json.RawMessage
			err = d.Decode(&skipped)
		}
		return err
	})
	if err != nil {
		return h, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !has[key] {
			return h, fmt.Errorf("%s is missing", key)
		}
	}
	h.begin, h.end = offsets[0], offsets[1]
	return h, nil
}

// dtype returns the format that safetensors calls by that name.
func dtype(name string) (quant.Format, error) {
	f, err := quant.Parse(name)
	if err != nil || !slices.Contains(safetensorsOrder, f) {
		return 0, fmt.Errorf("want one of %v, have %q", safetensorsOrder, name)
	}
	return f, nil
}

// object reads a JSON object and calls member at each value. A name that stands twice is an error. Errors name the
// path to where they are.
func object(d *json.Decoder, member func(name string) error) error {
	token, err := nextToken(d)
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return fmt.Errorf("want an object, have %v", token)
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := nextToken(d)
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return fmt.Errorf("%q stands twice", name)
		}
		seen[name] = true
		if err := member(name); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	_, err = nextToken(d)
	return err
}

// sizes reads an array of whole numbers that are not negative.
func sizes(d *json.Decoder) ([]uint64, error) {
	token, err := nextToken(d)
	if err != nil {
		return nil, err
	}
	if token != json.Delim('[') {
		return nil, fmt.Errorf("want an array, have %v", token)
	}
	var out []uint64
	for d.More() {
		token, err := nextToken(d)
		if err != nil {
			return nil, err
		}
		number, _ := token.(json.Number)
		n, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("want a whole number from 0 to 2^64−1, have %v", token)
		}
		if out = append(out, n); len(out) > maxDims {
			return nil, fmt.Errorf("want at most %d numbers", maxDims)
		}
	}
	_, err = nextToken(d)
	return out, err
}

func stringValue(d *json.Decoder) (string, error) {
	token, err := nextToken(d)
	if err != nil {
		return "", err
	}
	text, ok := token.(string)
	if !ok {
		return "", fmt.Errorf("want a text, have %v", token)
	}
	return text, nil
}

func nextToken(d *json.Decoder) (json.Token, error) {
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return token, err
}

// atEnd checks that only blanks are left of the text that d reads.
func atEnd(d *json.Decoder, text []byte) error {
	if rest := bytes.TrimLeft(text[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return fmt.Errorf("%d bytes stand after the closing brace", len(rest))
	}
	return nil
}
