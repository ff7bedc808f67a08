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

// Dequantize decodes all elements to dst, outliers to 0.
func (q Int8Rows) Dequantize(dst []float32) {
	for i, c := range q.Codes {
		dst[i] = float32(int8(c)) * (q.Absmax[i/q.Cols] / 127)
	}
}
