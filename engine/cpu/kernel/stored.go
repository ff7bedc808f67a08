package kernel

import (
	"encoding/binary"
	"unsafe"

	"tunesmith/quant"
)

// Stored is a weight W, Cols × Depth, in the bytes of its storage. Products of few rows read it as it is: their time is
// that of reading the weight, and the fewest bytes win.
type Stored struct {
	Cols, Depth int
	Format      quant.Format
	Data        []byte
}

// storedBlock is the multiple that a depth has to be.
const storedBlock = 32

// StoredLeft is rows of a left operand, in the form that the products with a Stored take.
type StoredLeft struct {
	rows, depth int
	x           []float32
	q           []int16   // nil for weights of floats
	sums        []float32 // of each 32 integers
	scales      []float32 // of the rows
}

// CanMultiply reports whether a weight of that format and depth can be multiplied as it is stored.
func CanMultiply(f quant.Format, depth int) bool {
	switch f {
	case quant.Q8_0, quant.Q4_0, quant.Q4_1, quant.F32, quant.BF16, quant.F16:
		return depth > 0 && depth%storedBlock == 0
	}
	return false
}

// StoredLeftLen is the length of the memory of a left operand.
func StoredLeftLen(rows, depth int) int { return rows * (depth/2 + depth/storedBlock + 1) }

// levels15 is the largest magnitude of the integers of a left operand: 32 products with bytes stay below 2³¹.
const levels15 = 1<<15 - 1

// NewStoredLeft makes the left operand from rows of x, which stand one behind the other. Against integers a row becomes
// integers of 16 bits with one scale, whose rounding is far below that of the weight.
func (w *Stored) NewStoredLeft(x []float32, rows int, memory []float32) *StoredLeft {
	l := &StoredLeft{rows: rows, depth: w.Depth, x: x[:rows*w.Depth]}
	switch w.Format {
	case quant.F32, quant.BF16, quant.F16:
		return l
	}
	cut := func(n int) []float32 {
		part := memory[:n]
		memory = memory[n:]
		return part
	}
	l.q, l.sums, l.scales = halves[int16](cut(rows*w.Depth/2)), cut(rows*w.Depth/storedBlock), cut(rows)
	for i := range rows {
		row := x[i*w.Depth:][:w.Depth]
		l.scales[i] = active.quantize15(l.q[i*w.Depth:][:w.Depth], row)
		if w.Format != quant.Q4_1 {
			continue
		}
		inverse := float32(0)
		if l.scales[i] != 0 {
			inverse = 1 / l.scales[i]
		}
		for b := 0; b < w.Depth; b += storedBlock {
			l.sums[(i*w.Depth+b)/storedBlock] = active.sum(row[b:b+storedBlock]) * inverse
		}
	}
	return l
}

// rowsAtOnce bounds the time of one call of assembly.
const rowsAtOnce = 64

// Gemv computes the columns n0 ≤ n < n1 of dst = x·Wᵀ, or adds to them with add. Each element is computed alone, so
// that a split changes no bit.
func (w *Stored) Gemv(dst []float32, ldd int, x *StoredLeft, n0, n1 int, add bool) {
	bytes := w.Format.Bytes(w.Depth)
	if n1 > w.Cols || n0 < 0 || len(w.Data) < w.Cols*bytes || x.depth != w.Depth || !CanMultiply(w.Format, w.Depth) {
		panic("kernel: a product beyond the stored weight")
	}
	RowMajor(dst, ldd).reach(x.rows, n1)
	var buf [rowsAtOnce]float32
	for n := n0; n < n1; n += rowsAtOnce {
		count := min(rowsAtOnce, n1-n)
		data := w.Data[n*bytes:][:count*bytes]
		for i := range x.rows {
			y := buf[:count]
			w.multiply(y, x, i, data)
			to := dst[i*ldd+n:][:count]
			if add {
				active.add(to, to, y)
			} else {
				copy(to, y)
			}
		}
	}
}

// multiply computes the products of row i with rows of W.
func (w *Stored) multiply(y []float32, x *StoredLeft, i int, data []byte) {
	at := i * w.Depth
	switch w.Format {
	case quant.F32:
		active.dotF32(y, x.x[at:at+w.Depth], data)
		return
	case quant.BF16:
		active.dotBF16(y, x.x[at:at+w.Depth], data)
		return
	case quant.F16:
		active.dotF16(y, x.x[at:at+w.Depth], data)
		return
	case quant.Q8_0:
		active.dotQ8(y, x.q[at:at+w.Depth], data)
	case quant.Q4_0:
		active.dotQ40(y, x.q[at:at+w.Depth], data)
	case quant.Q4_1:
		active.dotQ41(y, x.q[at:at+w.Depth], data, x.sums[at/storedBlock:])
	}
	active.scale(y, y, x.scales[i])
}

// Bytes views floats as their storage.
func Bytes(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

// nibble returns element i of 32 that 16 bytes hold: the low halves are the first 16.
func nibble(b []byte, i int) int32 {
	if i < 16 {
		return int32(b[i] & 15)
	}
	return int32(b[i-16] >> 4)
}

// dotIntegers is the twin of the kernels of integers; integer reads element i of a block, whose scale stands first.
func dotIntegers(y []float32, x []int16, w []byte, block int, integer func(b []byte, i int) int32) {
	for n := range y {
		var total float32
		for k := 0; k < len(x); k += storedBlock {
			var sum int32
			for i := range storedBlock {
				sum += int32(x[k+i]) * integer(w, i)
			}
			total += float32(sum) * fromF16(binary.LittleEndian.Uint16(w))
			w = w[block:]
		}
		y[n] = total
	}
}

func dotQ41Portable(y []float32, x []int16, w []byte, sums []float32) {
	dotIntegers(y, x, w, 20, func(b []byte, i int) int32 { return nibble(b[4:], i) })
	blocks := len(x) / storedBlock
	for n := range y {
		for b := range blocks {
			y[n] += fromF16(binary.LittleEndian.Uint16(w[(n*blocks+b)*20+2:])) * sums[b]
		}
	}
}

func dotFloats(y, x []float32, w []byte, size int, float func(b []byte) float32) {
	for n := range y {
		var total float32
		for _, v := range x {
			total += v * float(w)
			w = w[size:]
		}
		y[n] = total
	}
}
