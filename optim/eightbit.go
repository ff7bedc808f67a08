package optim

import "tunesmith/quant"

// The 8-bit optimizers keep their averages as codes with a scale per block (Dettmers et al. 2022, arXiv 2110.02861):
// first moments in the signed dynamic book, second moments in the unsigned one. An update decodes a block, changes it in
// single precision and encodes it again, so that the formulas are those of the optimizers with full state, and 2 bytes
// take the place of 8. Parameters of few elements, whose state is small anyway, keep it whole.

const (
	codedBlock    = 256  // elements that share a scale
	codedSmallest = 4096 // elements of the smallest parameter whose state is coded
)

// codedBooks are the code books of the averages.
var codedBooks = map[string]*quant.Book8{
	"exp_avg": quant.DynamicSigned, "exp_avg_sq": quant.DynamicUnsigned, "max_exp_avg_sq": quant.DynamicUnsigned,
}

// eightBit is a rule with its state in 8 bits.
func eightBit(build func(Options) (rule, error)) func(Options) (rule, error) {
	return func(o Options) (rule, error) {
		r, err := build(o)
		plain := r.buffers
		r.buffers = func(shape []int) []buffer {
			out := plain(shape)
			for i := range out {
				if out[i].len() >= codedSmallest {
					out[i].book = codedBooks[out[i].name]
				}
			}
			return out
		}
		return r, err
	}
}

// scales is the buffer of the scales of a coded one.
func (b buffer) scales() buffer {
	return buffer{name: b.name + "_absmax", shape: []int{(b.len() + codedBlock - 1) / codedBlock}}
}

// floats is what a buffer takes in 32-bit numbers.
func (b buffer) floats() int {
	if b.book == nil {
		return b.len()
	}
	return (b.len()+3)/4 + b.scales().len()
}

// coded returns an empty coded buffer, or the saved one.
func (b buffer) coded(saved func(buffer) (*StateTensor, error)) (quant.Blockwise, error) {
	q := quant.Blockwise{Book: b.book, Block: codedBlock, Codes: make([]byte, b.len()), Absmax: make([]float32, b.scales().len())}
	for _, part := range []buffer{b, b.scales()} {
		t, err := saved(part)
		if err != nil {
			return q, err
		}
		if t != nil {
			copy(q.Codes, t.Codes)
			copy(q.Absmax, t.Data)
		}
	}
	return q, nil
}

// part is a range of a coded buffer that begins with a block.
func part(q quant.Blockwise, lo, hi int) quant.Blockwise {
	q.Codes, q.Absmax = q.Codes[lo:hi], q.Absmax[lo/codedBlock:(hi+codedBlock-1)/codedBlock]
	return q
}

// updateCoded runs an update on a range of a parameter with coded state. Space holds the decoded state.
func (s *stepper) updateCoded(sp span, update func(state [][]float32), space []float32) {
	state := make([][]float32, 0, 3)
	for _, q := range s.coded[sp.param] {
		n := sp.hi - sp.lo
		part(q, sp.lo, sp.hi).Dequantize(space[:n])
		state, space = append(state, space[:n:n]), space[n:]
	}
	update(state)
	for i, q := range s.coded[sp.param] {
		s.encode(part(q, sp.lo, sp.hi), state[i])
	}
}
