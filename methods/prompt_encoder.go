package methods

import (
	"fmt"
	"math"

	"tunesmith/graph"
	"tunesmith/site"
)

// Encoders make the virtual tokens in training from smaller or smoother parameters. After training they are computed
// once, and the file holds their result. Names are PEFT's.

// encoder turns values x (n, width) into others.
type encoder interface {
	build(s *site.Scope, x *graph.Node) *graph.Node
	// compute is the same on values, of n rows.
	compute(x []float64, n int, value func(string) []float32) []float64
}

// chain is linear layers with a function between them; widths are those of the input and of every result.
type chain struct {
	name   string
	widths []int
	fn     graph.Fn // Tanh or ReLU
}

func (c chain) layer(i int) string { return fmt.Sprintf("%s.%d.", c.name, 2*i) }

func (c chain) build(s *site.Scope, x *graph.Node) *graph.Node {
	for i, out := range c.widths[1:] {
		if i > 0 {
			x = graph.Apply(c.fn, x)
		}
		in := c.widths[i]
		x = linear(s, c.layer(i)+"weight", c.layer(i)+"bias", x, out, in, uniform(1/math.Sqrt(float64(in))))
	}
	return x
}

func (c chain) compute(x []float64, n int, value func(string) []float32) []float64 {
	for i := range c.widths[1:] {
		for k, v := range x {
			switch {
			case i > 0 && c.fn == graph.Tanh:
				x[k] = math.Tanh(v)
			case i > 0:
				x[k] = max(v, 0)
			}
		}
		x = affine(x, n, value(c.layer(i)+"weight"), value(c.layer(i)+"bias"))
	}
	return x
}

// linear declares a weight and a bias and returns w·x + b.
func linear(s *site.Scope, weight, bias string, x *graph.Node, out, in int, start site.Init) *graph.Node {
	w := s.Declare(site.Param{Name: weight, Shape: []int{out, in}, Trainable: true, Init: start})
	b := s.Declare(site.Param{Name: bias, Shape: []int{out}, Trainable: true, Init: start})
	return graph.Plus(graph.Project(x, w), b)
}

// affine returns x·wᵀ + b for x (n, in).
func affine(x []float64, n int, w, b []float32) []float64 {
	in, out := len(x)/n, len(b)
	y := make([]float64, n*out)
	for r := range n {
		for o := range out {
			sum := float64(b[o])
			for i, v := range x[r*in : (r+1)*in] {
				sum += v * float64(w[o*in+i])
			}
			y[r*out+o] = sum
		}
	}
	return y
}

// lstm is a long short-term memory that reads the virtual tokens in both directions (Hochreiter and Schmidhuber 1997);
// the gates stand in the order input, forget, cell, output.
type lstm struct {
	name               string
	in, hidden, layers int
}

// direction is one layer read one way.
type direction struct {
	lstm
	suffix string
	in     int
	back   bool
}

func (l lstm) directions(layer int) [2]direction {
	in := l.in
	if layer > 0 {
		in = 2 * l.hidden
	}
	suffix := fmt.Sprintf("_l%d", layer)
	return [2]direction{{l, suffix, in, false}, {l, suffix + "_reverse", in, true}}
}

func (d direction) tensor(leaf string) string { return d.name + "." + leaf + d.suffix }

// at returns the place of step t of n.
func (d direction) at(t, n int) int {
	if d.back {
		return n - 1 - t
	}
	return t
}

func (l lstm) build(s *site.Scope, x *graph.Node) *graph.Node {
	for i := range l.layers {
		d := l.directions(i)
		x = graph.Join(1, d[0].build(s, x), d[1].build(s, x))
	}
	return x
}

func (d direction) build(s *site.Scope, x *graph.Node) *graph.Node {
	n, h, start := x.Dim(0), d.hidden, uniform(1/math.Sqrt(float64(d.hidden)))
	inputs := linear(s, d.tensor("weight_ih"), d.tensor("bias_ih"), x, 4*h, d.in, start)
	w := s.Declare(site.Param{Name: d.tensor("weight_hh"), Shape: []int{4 * h, h}, Trainable: true, Init: start})
	b := s.Declare(site.Param{Name: d.tensor("bias_hh"), Shape: []int{4 * h}, Trainable: true, Init: start})
	out := make([]*graph.Node, n)
	state := graph.BroadcastTo(s.Scalar(0), []int{1, h})
	cell := state
	for t := range n {
		at := d.at(t, n)
		gates := graph.Plus(graph.SliceAxis(inputs, 0, at, at+1), graph.Plus(graph.Project(state, w), b))
		gate := func(i int, f graph.Fn) *graph.Node { return graph.Apply(f, graph.SliceAxis(gates, 1, i*h, (i+1)*h)) }
		cell = graph.Plus(graph.Times(gate(1, graph.Sigmoid), cell), graph.Times(gate(0, graph.Sigmoid), gate(2, graph.Tanh)))
		state = graph.Times(gate(3, graph.Sigmoid), graph.Apply(graph.Tanh, cell))
		out[at] = state
	}
	return graph.Join(0, out...)
}

func (l lstm) compute(x []float64, n int, value func(string) []float32) []float64 {
	for i := range l.layers {
		d := l.directions(i)
		a, b := d[0].compute(x, n, value), d[1].compute(x, n, value)
		x = make([]float64, 0, 2*len(a))
		for r := range n {
			x = append(append(x, a[r*l.hidden:(r+1)*l.hidden]...), b[r*l.hidden:(r+1)*l.hidden]...)
		}
	}
	return x
}

func (d direction) compute(x []float64, n int, value func(string) []float32) []float64 {
	h := d.hidden
	inputs := affine(x, n, value(d.tensor("weight_ih")), value(d.tensor("bias_ih")))
	w, b := value(d.tensor("weight_hh")), value(d.tensor("bias_hh"))
	state, cell, out := make([]float64, h), make([]float64, h), make([]float64, n*h)
	sigmoid := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	for t := range n {
		at := d.at(t, n)
		gates := affine(state, 1, w, b)
		for i, v := range inputs[at*4*h : (at+1)*4*h] {
			gates[i] += v
		}
		for i := range h {
			cell[i] = sigmoid(gates[h+i])*cell[i] + sigmoid(gates[i])*math.Tanh(gates[2*h+i])
			state[i] = sigmoid(gates[3*h+i]) * math.Tanh(cell[i])
		}
		copy(out[at*h:], state)
	}
	return out
}

// encoded is a tensor (n, width) that trains as it is or, with encoders, as the input of them.
type encoded struct {
	n, width int // of the tensor in training
	out      int // columns of the result
	encoders []encoder
	start    site.Init
}

// name is that of the trained tensor.
func (e encoded) name() string {
	if len(e.encoders) == 0 {
		return promptTensor
	}
	return "prompt_encoder.embedding.weight"
}

func (e encoded) build(s *site.Scope) *graph.Node {
	return s.Memo(promptTensor, func() *graph.Node {
		x := s.Declare(site.Param{Name: e.name(), Shape: []int{e.n, e.width}, Trainable: true, Init: e.start})
		for _, enc := range e.encoders {
			x = enc.build(s, x)
		}
		return x
	})
}

// compute returns the result on values.
func (e encoded) compute(value func(string) []float32) []float32 {
	first := value(e.name())
	if len(e.encoders) == 0 {
		return first
	}
	x := make([]float64, len(first))
	for i, v := range first {
		x[i] = float64(v)
	}
	for _, enc := range e.encoders {
		x = enc.compute(x, e.n, value)
	}
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}
