package quant

import "math"

// Int8Rows is a matrix in the form of LLM.int8() (Dettmers 2022): an int8 per element and a scale per row.
type Int8Rows struct {
	Rows, Cols int
	Codes      []byte    // int8, row by row
	Absmax     []float32 // the largest absolute value of each row, outliers not counted; an element is code · absmax / 127
	Outliers   []int     // columns that are kept aside for a product in higher precision; their codes are 0
}

// QuantizeInt8Rows encodes a matrix of len(x)/cols rows. With a threshold above 0, columns that hold an absolute value
// of at least that are outliers.
func QuantizeInt8Rows(x []float32, cols int, threshold float32) Int8Rows {
	q := Int8Rows{Rows: len(x) / cols, Cols: cols, Codes: make([]byte, len(x)), Absmax: make([]float32, len(x)/cols)}
	outlier := make([]bool, cols)
	for i, v := range x {
		a := max(v, -v)
		if threshold > 0 && a >= threshold {
			outlier[i%cols] = true
			continue
		}
		q.Absmax[i/cols] = max(q.Absmax[i/cols], a)
	}
	for c, is := range outlier {
		if is {
			q.Outliers = append(q.Outliers, c)
		}
	}
	for i, v := range x {
		if scale := q.Absmax[i/cols]; scale > 0 && !outlier[i%cols] {
			q.Codes[i] = byte(int8(math.RoundToEven(float64(v * (127 / scale)))))
		}
	}
	return q
}

// Layout of the format Int8, in which the blocks of a row may share its scale.
const (
	int8Block = 32
	int8Bytes = 4 + int8Block
)

// Pack returns the bytes of a matrix without outliers in the format Int8, if its rows are whole blocks.
func (q Int8Rows) Pack() (data []byte, ok bool) {
	if q.Cols%int8Block != 0 || len(q.Outliers) > 0 {
		return nil, false
	}
	data = make([]byte, Int8.Bytes(len(q.Codes)))
	for b := range len(q.Codes) / int8Block {
		to := data[b*int8Bytes:][:int8Bytes]
		le.PutUint32(to, math.Float32bits(q.Absmax[b*int8Block/q.Cols]))
		copy(to[4:], q.Codes[b*int8Block:])
	}
	return data, true
}

func decodeInt8(dst []float32, src []byte) {
	for len(dst) >= int8Block && len(src) >= int8Bytes {
		scale := math.Float32frombits(le.Uint32(src)) / 127
		for i, c := range src[4:int8Bytes] {
			dst[i] = float32(int8(c)) * scale
		}
		dst, src = dst[int8Block:], src[int8Bytes:]
	}
}

func encodeInt8(dst []byte, src []float32) {
	for len(src) >= int8Block {
		q := QuantizeInt8Rows(src[:int8Block], int8Block, 0)
		le.PutUint32(dst, math.Float32bits(q.Absmax[0]))
		copy(dst[4:int8Bytes], q.Codes)
		dst, src = dst[int8Bytes:], src[int8Block:]
	}
}

// Dequantize decodes all elements to dst, outliers to 0.
func (q Int8Rows) Dequantize(dst []float32) {
	for i, c := range q.Codes {
		dst[i] = float32(int8(c)) * (q.Absmax[i/q.Cols] / 127)
	}
}
