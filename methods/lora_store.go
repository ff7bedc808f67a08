package methods

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"

	"tunesmith/quant"
	"tunesmith/site"
	"tunesmith/tune"
)

// Storage says how the frozen projections are kept while an update trains beside them. What the file has in blocks
// already, such as a GGUF base, stays as it is.
type Storage struct {
	Kind   string       `yaml:"storage" json:"storage" doc:"how frozen projections are kept: 4-bit nf4 (for weights of a normal distribution) or fp4, or int8; file is as the file has them" enum:"nf4,fp4,int8,file"`
	Block  int          `yaml:"block_size" json:"block_size" doc:"weights that share a scale in 4 bits: a power of two from 64 to 4096" min:"64"`
	Double bool         `yaml:"double_quant" json:"double_quant" doc:"quantise the scales in turn, as bitsandbytes does"`
	Keep   tune.Targets `yaml:"keep" json:"keep,omitempty" doc:"projections that stay as the file has them"`
}

// quantises reports whether the storage is another than the file's.
func (s *Storage) quantises() bool { return s != nil && s.Kind != "file" }

// check refuses what some projection cannot be kept in.
func (s *Storage) check(m *site.Map) error {
	if !s.quantises() {
		return nil
	}
	if s.Kind != "int8" && (s.Block < 64 || s.Block > 4096 || bits.OnesCount(uint(s.Block)) != 1) {
		return fmt.Errorf("block_size: want a power of two from 64 to 4096, have %d", s.Block)
	}
	if _, err := tune.Modules("keep", s.Keep, m); err != nil {
		return err
	}
	for _, l := range m.Linears {
		switch {
		case s.Keep.Match(l.Path):
		case s.Kind == "int8" && l.In%quant.Int8.Block() != 0:
			return fmt.Errorf("storage: %s has rows of %d, int8 wants a multiple of %d; add it to keep", l.Path, l.In, quant.Int8.Block())
		case s.Kind != "int8" && l.In*l.Out%quant.NF4.Block() != 0:
			return fmt.Errorf("storage: %s has %d weights, %s wants a multiple of %d; add it to keep", l.Path, l.In*l.Out, s.Kind, quant.NF4.Block())
		}
	}
	return nil
}

// encode returns the values in the storage.
func (s *Storage) encode(values []float32, in int) (quant.Format, []byte) {
	if s.Kind == "int8" {
		data, _ := quant.QuantizeInt8Rows(values, in, 0).Pack() // whole blocks, by check
		return quant.Int8, data
	}
	book := quant.NF4Book
	if s.Kind == "fp4" {
		book = quant.FP4Book
	}
	q, err := quant.QuantizeFourBit(book, s.Block, values)
	if err != nil {
		panic(err) // check has seen the block
	}
	if s.Double {
		q = q.Nest()
	}
	f, _ := q.Format()
	return f, q.Pack()
}

// StoreBase implements site.BaseStorer: of all projections but that to the vocabulary, the weights that stay frozen.
func (l *lora) StoreBase(p site.Param, have quant.Format) (func([]float32) (quant.Format, []byte), error) {
	module, leaf := tune.ModuleOf(p.Name)
	u := l.updates[module]
	loft := u != nil && !u.embedding && l.Init == loftQ
	switch {
	case leaf != "weight" || len(p.Shape) != 2 || !l.projections[module] || !l.store.quantises() || l.store.Keep.Match(module):
		if loft && !l.store.quantises() {
			return nil, fmt.Errorf("init %s: want a storage that quantises, have file", loftQ)
		}
		return nil, nil
	case have.Block() > 1 && loft:
		return nil, fmt.Errorf("init %s: it starts from what quantisation loses, and %s is kept in %v by its file; use a base in 16 or 32 bits",
			loftQ, p.Name, have)
	case have.Block() > 1:
		return nil, nil
	}
	return func(values []float32) (quant.Format, []byte) {
		if !loft {
			return l.store.encode(values, p.Shape[1])
		}
		f, data, s := loftSplit(l.store, values, p.Shape[0], p.Shape[1], u.rank, float64(u.scale), l.LoftQSteps)
		u.start = s
		return f, data
	}, nil
}

// loftQ is the start that makes up for what quantisation loses.
const loftQ = "loftq"

// loftSplit returns a weight (out, in) as its storage q and the product s·b·a that is nearest to what q loses, found in
// turns: q stands for w − s·b·a of the turn before (Li et al. 2023, arXiv 2310.08659).
func loftSplit(store *Storage, w []float32, out, in, rank int, scale float64, steps int) (f quant.Format, data []byte, s *split) {
	rest := append([]float32(nil), w...)
	kept := make([]float32, len(w))
	for range max(steps, 1) {
		f, data = store.encode(rest, in)
		f.Dequantize(kept, data)
		for i, v := range w {
			rest[i] = v - kept[i]
		}
		s = singular(rest, out, in, rank, scale)
		copy(rest, w)
		addProduct(rest, s.b, s.a, rank, -scale)
	}
	return f, data, s
}

// singular returns the product scale·b·a of a rank that is nearest to w, with the singular values shared by both.
func singular(w []float32, out, in, rank int, scale float64) *split {
	u, values, v := principal(w, out, in, rank)
	s := &split{a: make([]float32, rank*in), b: make([]float32, out*rank)}
	for r, x := range values {
		f := math.Sqrt(x / scale)
		for i := range in {
			s.a[r*in+i] = float32(f * v[i*rank+r])
		}
		for o := range out {
			s.b[o*rank+r] = float32(f * u[o*rank+r])
		}
	}
	return s
}

// Origin implements tune.OriginWriter: PEFT's config does not say how the base was kept.
func (l *lora) Origin() (string, any) {
	if !l.store.quantises() {
		return "", nil
	}
	return "qlora", l.store
}

// ReadOrigin implements tune.OriginReader.
func (o *QLoRA) ReadOrigin(more json.RawMessage) error {
	if err := json.Unmarshal(more, &o.Storage); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	switch o.Kind {
	case "nf4", "fp4", "int8", "file":
		return nil
	}
	return fmt.Errorf("options: storage: want nf4, fp4, int8 or file, have %q", o.Kind)
}
