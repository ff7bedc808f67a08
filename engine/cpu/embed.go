package cpu

import (
	"fmt"

	"tunesmith/engine"
	"tunesmith/graph"
)

// lowerEmbed looks rows up in a table: in its values; of a frozen table in what a product of the program reads it
// from, or in its storage.
func (p *planner) lowerEmbed(n *graph.Node) error {
	table := n.In[0]
	vocab, width := table.Dim(0), table.Dim(1)
	p.checkRange("token id", n.In[1], 0, vocab)
	ids, dst := p.use(n.In[1]), p.wanted(n, 0)
	in := &instr{node: n, out: []*value{dst}}
	var row func() func(to []float32, id int)
	t, err := p.stores(table)
	if err != nil {
		return err
	}
	packed := p.packedForm(t)
	switch {
	case packed != nil:
		row = func() func([]float32, int) {
			return func(to []float32, id int) { packed.packed.Row(to, id, 0) }
		}
	case t != nil && t.Values == nil && t.Data != nil:
		if len(t.Data)%vocab != 0 {
			return fmt.Errorf("%q: %d bytes do not divide into %d rows", t.Name, len(t.Data), vocab)
		}
		bytes := len(t.Data) / vocab
		p.storage[t] = true
		row = func() func([]float32, int) {
			return func(to []float32, id int) { t.Format.Dequantize(to, t.Data[id*bytes:(id+1)*bytes]) }
		}
	default:
		w := p.use(table)
		in.in = append(in.in, w)
		row = func() func([]float32, int) {
			w := w.f()
			return func(to []float32, id int) { copy(to, w[id*width:]) }
		}
	}
	in.bind = func(*program) []phase {
		dst, ids, row := dst.f(), ids.i(), row()
		return []phase{func(worker, workers int) {
			lo, hi := share(len(dst)/width, 1, worker, workers)
			for r := lo; r < hi; r++ {
				row(dst[r*width:(r+1)*width], int(ids[r]))
			}
		}}
	}
	p.emit(in)
	return nil
}

// stores returns the tensor of a parameter, nil for any other node.
func (p *planner) stores(n *graph.Node) (*engine.Tensor, error) {
	if op, ok := n.Op.(graph.Param); ok {
		return p.tensor(n, op.Name)
	}
	return nil, nil
}

// packedForm returns the panels of a frozen tensor that a product of the program reads, nil where there is none.
func (p *planner) packedForm(t *engine.Tensor) *form {
	if t == nil || t.Trainable {
		return nil
	}
	for f := range p.forms {
		if f.tensor == t && f.layout == panels {
			return f
		}
	}
	return nil
}
