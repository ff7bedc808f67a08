package federation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
	"tunesmith/quant"
)

// Codec is a form of tensors on the wire. The receiver knows names and shapes; only values are sent. All but fp32 lose
// something: the sender keeps it and adds it to what it sends next (error feedback), so that nothing is lost for good.
type Codec struct {
	Name string
	Keep float64 // share of the values that topk and randk send
}

var codecs = []string{"fp32", "fp16", "int8", "nf4", "topk", "randk"}

// Block lengths of the quantised forms.
const (
	int8Block = 256
	nf4Block  = 64
)

func (c Codec) check() error {
	if !slices.Contains(codecs, c.Name) {
		return fmt.Errorf("compression: want one of %s, have %q%s", strings.Join(codecs, ", "), c.Name, nearest.Hint(c.Name, codecs))
	}
	if c.sparse() && !(c.Keep > 0 && c.Keep <= 1) {
		return fmt.Errorf("compression: %s wants a share above 0 to 1 of the values to keep, have %g", c.Name, c.Keep)
	}
	return nil
}

func (c Codec) sparse() bool { return c.Name == "topk" || c.Name == "randk" }

// lossless says that what arrives is what was sent.
func (c Codec) lossless() bool { return c.Name == "fp32" }

func (c Codec) kept(n int) int { return min(n, int(math.Ceil(c.Keep*float64(n)))) }

// Bytes returns the length of tensors with so many values each on the wire. For topk, whose indices have a variable
// length, it is the most.
func (c Codec) Bytes(sizes ...int) int {
	sum := 0
	for _, n := range sizes {
		switch c.Name {
		case "fp32":
			sum += 4 * n
		case "fp16":
			sum += 2 * n
		case "int8":
			sum += n + 4*((n+int8Block-1)/int8Block)
		case "nf4":
			sum += (n+1)/2 + 4*((n+nf4Block-1)/nf4Block)
		case "topk":
			sum += c.kept(n) * (4 + binary.MaxVarintLen32)
		case "randk":
			sum += 4 * c.kept(n)
		}
	}
	return sum
}

// Encode returns the values of the tensors on the wire and what arrives of them. The seed chooses the values of randk;
// both sides have to use the same one.
func (c Codec) Encode(tensors []Tensor, seed uint64) (wire []byte, arrives []Tensor, err error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	if err := finite(tensors); err != nil {
		return nil, nil, err
	}
	for i, t := range tensors {
		wire = c.encode(wire, t.Values, seed+uint64(i))
	}
	arrives, err = c.Decode(wire, tensors, seed)
	return wire, arrives, err
}

func (c Codec) encode(b []byte, x []float32, seed uint64) []byte {
	switch c.Name {
	case "fp16":
		for _, v := range x {
			b = binary.LittleEndian.AppendUint16(b, quant.ToF16(v))
		}
	case "int8":
		for part := range slices.Chunk(x, int8Block) {
			var most float32
			for _, v := range part {
				most = max(most, max(v, -v))
			}
			scale := most / 127
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(scale))
			for _, v := range part {
				q := 0.0
				if scale > 0 {
					q = math.RoundToEven(float64(v / scale))
				}
				b = append(b, byte(int8(max(-127, min(127, q)))))
			}
		}
	case "nf4":
		if len(x) == 0 {
			return b
		}
		q, err := quant.QuantizeFourBit(quant.NF4Book, nf4Block, x)
		if err != nil {
			panic(err) // the length of a block is a constant, and it fits
		}
		for _, s := range q.Absmax {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s))
		}
		b = append(b, q.Codes...)
	case "topk":
		last := 0
		for _, i := range largest(x, c.kept(len(x))) {
			b = binary.AppendUvarint(b, uint64(i-last))
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x[i]))
			last = i
		}
	case "randk":
		for _, i := range drawn(len(x), c.kept(len(x)), seed) {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x[i]))
		}
	default:
		for _, v := range x {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

// largest returns the places of the k largest values by size, in their order; of equal ones the first.
func largest(x []float32, k int) []int {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch va, vb := math.Abs(float64(x[a])), math.Abs(float64(x[b])); {
		case va > vb:
			return -1
		case va < vb:
			return 1
		}
		return 0
	})
	return sorted(order[:k])
}

// drawn returns k places of n, which the seed chooses.
func drawn(n, k int, seed uint64) []int {
	return sorted(rand.New(rand.NewPCG(seed, 0x5eed)).Perm(n)[:k])
}

var errShort = errors.New("want more bytes: the update is cut off")

// Decode reads tensors of the names and shapes of like.
func (c Codec) Decode(wire []byte, like []Tensor, seed uint64) ([]Tensor, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	out := empty(like)
	var err error
	for i, t := range out {
		if wire, err = c.decode(wire, t.Values, seed+uint64(i)); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
		}
	}
	if len(wire) > 0 {
		return nil, fmt.Errorf("%d bytes follow the last tensor", len(wire))
	}
	return out, nil
}

func (c Codec) decode(b []byte, x []float32, seed uint64) ([]byte, error) {
	if n := c.Bytes(len(x)); c.Name != "topk" && len(b) < n {
		return nil, errShort
	}
	float := func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])) }
	switch c.Name {
	case "fp16":
		for i := range x {
			x[i] = quant.FromF16(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case "int8":
		for part := range slices.Chunk(x, int8Block) {
			scale := float(0)
			for i := range part {
				part[i] = scale * float32(int8(b[4+i]))
			}
			b = b[4+len(part):]
		}
		return b, nil
	case "nf4":
		if len(x) == 0 {
			return b, nil
		}
		blocks := (len(x) + nf4Block - 1) / nf4Block
		q := quant.FourBit{Book: quant.NF4Book, Block: nf4Block, Size: len(x), Absmax: make([]float32, blocks)}
		for i := range q.Absmax {
			q.Absmax[i] = float(i)
		}
		q.Codes = b[4*blocks : c.Bytes(len(x))]
		q.Dequantize(x)
	case "topk":
		at := 0
		for i := range c.kept(len(x)) {
			d, n := binary.Uvarint(b)
			if n <= 0 || len(b) < n+4 {
				return nil, errShort
			}
			if d >= uint64(len(x)) || i > 0 && d == 0 || at+int(d) >= len(x) {
				return nil, fmt.Errorf("want places that rise up to %d, have %d after %d", len(x)-1, d, at)
			}
			at += int(d)
			b = b[n:]
			x[at] = float(0)
			b = b[4:]
		}
		return b, nil
	case "randk":
		for k, i := range drawn(len(x), c.kept(len(x)), seed) {
			x[i] = float(k)
		}
	default:
		for i := range x {
			x[i] = float(i)
		}
	}
	return b[c.Bytes(len(x)):], nil
}

// Feedback is a sender's memory of what its codec has lost.
type Feedback struct{ Rest []Tensor }

// Encode sends tensors together with the rest of earlier ones and keeps the new rest.
func (f *Feedback) Encode(c Codec, tensors []Tensor, seed uint64) ([]byte, error) {
	if f.Rest != nil && !c.lossless() {
		if err := sameTensors(tensors, f.Rest); err != nil {
			return nil, fmt.Errorf("compression: the rest of earlier rounds does not fit: %w", err)
		}
		tensors = plus(tensors, f.Rest)
	}
	wire, arrives, err := c.Encode(tensors, seed)
	if err != nil || c.lossless() {
		return wire, err
	}
	f.Rest = minus(tensors, arrives)
	return wire, nil
}
