package quant

import (
	"cmp"
	"math"
	"slices"
)

// The code books of bitsandbytes: a code stands for an entry, the entry times the scale of its block for a value.

// Book4 is a code book of 4-bit codes.
type Book4 uint8

// The 4-bit code books.
const (
	NF4Book Book4 = iota // quantiles of the normal distribution (Dettmers 2023, arXiv 2305.14314), in ascending order
	FP4Book              // a sign, two bits of exponent, one of fraction
)

var books4 = [...]struct {
	name    string
	entries [16]float32
	// ascending are the codes in the order of their entries. They change at thresholds, the middles between
	// neighbours, and an element that equals one gets the lower code. Of the two zeros of FP4, elements above 0 get
	// the second.
	ascending  [16]byte
	thresholds [15]float32
}{
	NF4Book: {name: "nf4", entries: [16]float32{
		-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
		-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
		0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
	}},
	FP4Book: {name: "fp4", entries: [16]float32{
		0, 0.0625 / 12, 8.0 / 12, 1, 4.0 / 12, 6.0 / 12, 2.0 / 12, 3.0 / 12,
		0, -0.0625 / 12, -8.0 / 12, -1, -4.0 / 12, -6.0 / 12, -2.0 / 12, -3.0 / 12,
	}},
}

func init() {
	for i := range books4 {
		b := &books4[i]
		for c := range b.ascending {
			b.ascending[c] = byte(c)
		}
		slices.SortStableFunc(b.ascending[:], func(x, y byte) int { return cmp.Compare(b.entries[x], b.entries[y]) })
		for k := range b.thresholds {
			b.thresholds[k] = (b.entries[b.ascending[k]] + b.entries[b.ascending[k+1]]) / 2
		}
	}
}

// String returns the name that bitsandbytes gives to the book.
func (b Book4) String() string { return books4[b].name }

// Entries returns the values of the 16 codes.
func (b Book4) Entries() [16]float32 { return books4[b].entries }

// code returns the code whose entry is nearest to a scaled element.
func (b Book4) code(x float32) byte {
	book := &books4[b]
	k := 0
	if x > book.thresholds[7] {
		k = 8
	}
	if x > book.thresholds[k+3] {
		k += 4
	}
	if x > book.thresholds[k+1] {
		k += 2
	}
	if x > book.thresholds[k] {
		k++
	}
	return book.ascending[k]
}

// Book8 is a code book of 8-bit codes, in ascending order.
type Book8 [256]float32

// The 8-bit code books of bitsandbytes. Those of dynamic exponent (Dettmers 2016, "8-Bit Approximations for
// Parallelism in Deep Learning") spend their bits on exponent or fraction as the value needs them.
var (
	DynamicSigned   = dynamicBook(true)  // scales of scales, first moments
	DynamicUnsigned = dynamicBook(false) // second moments
	LinearSigned    = linearBook()
)

// dynamicBook joins, for each of seven powers of ten, the middles of equal parts of [0.1, 1], twice as many for each
// power, and 0 and 1.
func dynamicBook(signed bool) *Book8 {
	var values []float32
	for i := range 7 {
		parts := 1 << i
		if !signed {
			parts *= 2
		}
		bounds := linspace(0.1, 1, parts+1)
		for k := range parts {
			v := float32(math.Pow10(i-6)) * ((bounds[k] + bounds[k+1]) / 2)
			values = append(values, v)
			if signed {
				values = append(values, -v)
			}
		}
	}
	values = append(values, 0, 1)
	slices.Sort(values)
	return (*Book8)(values)
}

// linearBook holds 255 equal steps from −1 to 1, and a zero.
func linearBook() *Book8 {
	values := linspace(-1, 1, 255)
	return (*Book8)(slices.Insert(values, 127, 0))
}

// linspace returns n equal steps in single precision, as torch.linspace computes them: from the nearer end, with one
// rounding.
func linspace(start, end float32, n int) []float32 {
	step := (end - start) / float32(n-1)
	out := make([]float32, n)
	for i := range out {
		if i < n/2 {
			out[i] = float32(float64(start) + float64(step)*float64(i))
		} else {
			out[i] = float32(float64(end) - float64(step)*float64(n-1-i))
		}
	}
	return out
}

// code returns the code whose entry is nearest to a scaled element; from the middle of two it goes up.
func (b *Book8) code(x float32) byte {
	lo, hi := 0, len(b)-1
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; b[mid] <= x {
			lo = mid
		} else {
			hi = mid
		}
	}
	if float64(x)-float64(b[lo]) < float64(b[hi])-float64(x) {
		return byte(lo)
	}
	return byte(hi)
}
