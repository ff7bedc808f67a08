package quant

// Blockwise is a tensor of 8-bit codes with a scale per block, the form in which bitsandbytes keeps optimizer states
// and the scales of scales.
type Blockwise struct {
	Book   *Book8
	Block  int       // elements of a block; the last may be shorter
	Codes  []byte    // one per element
	Absmax []float32 // the largest absolute value of each block
}

// QuantizeBlockwise encodes the elements.
func QuantizeBlockwise(book *Book8, block int, x []float32) Blockwise {
	q := Blockwise{Book: book, Block: block, Codes: make([]byte, len(x)), Absmax: make([]float32, blocks(len(x), block))}
	q.Quantize(x)
	return q
}

// Quantize encodes as many elements as q holds in place of those it holds. A block of zeros gets the codes 0 and the
// scale 0, as in bitsandbytes, which decodes to zeros.
func (q Blockwise) Quantize(x []float32) {
	for b := range q.Absmax {
		lo, hi := span(b, q.Block, len(x))
		q.Absmax[b] = largest(x[lo:hi])
		inverse := inverse(q.Absmax[b])
		for i := lo; i < hi; i++ {
			if q.Codes[i] = 0; inverse != 0 {
				q.Codes[i] = q.Book.code(x[i] * inverse)
			}
		}
	}
}

// Dequantize decodes all elements to dst.
func (q Blockwise) Dequantize(dst []float32) {
	for b, scale := range q.Absmax {
		lo, hi := span(b, q.Block, len(dst))
		for i := lo; i < hi; i++ {
			dst[i] = q.Book[q.Codes[i]] * scale
		}
	}
}

// blocks returns how many blocks n elements take.
func blocks(n, block int) int { return (n + block - 1) / block }

// span returns where block b of n elements begins and ends.
func span(b, block, n int) (lo, hi int) { return b * block, min((b+1)*block, n) }
