package model

import (
	"fmt"
	"math"

	"tunesmith/graph"
	"tunesmith/site"
)

// Legend of shapes: B batch rows, T positions, C channels, H query heads, G key/value heads, D head dimension.

// block is one layer of a decoder: how its modules are named and joined. All that a method can touch goes through the
// scope.
type block struct {
	// Names of the norms before and after attention, and before and after the feed-forward; empty for none.
	norm1, norm2, norm3, norm4 string
	attn                       string
	attention                  attention
	mlp                        string
	feedForward                feedForward
}

// feedForward builds the second half of a block from its normed input (B, T, C).
type feedForward func(m *Model, s *site.Scope, layer int, h *graph.Node) *graph.Node

// build builds the layer on the residual stream x (B, T, C).
func (k block) build(m *Model, s *site.Scope, layer int, x *graph.Node) *graph.Node {
	h := m.norm(s, k.norm1, x)
	a := m.sublayer(s, k.attn, k.norm2, x, h, func(h *graph.Node) *graph.Node { return k.attention.build(m, s, layer, h) })
	feed := func(x, h *graph.Node) *graph.Node {
		return m.sublayer(s, k.mlp, k.norm4, x, h, func(h *graph.Node) *graph.Node { return k.feedForward(m, s, layer, h) })
	}
	if !m.Config.Parallel {
		x = graph.Plus(x, a)
		return graph.Plus(x, feed(x, m.norm(s, k.norm3, x)))
	}
	if k.norm3 != "" {
		h = m.norm(s, k.norm3, x)
	}
	return graph.Plus(graph.Plus(x, a), feed(x, h))
}

// norm builds the family's norm, or passes x on where the name is empty.
func (m *Model) norm(s *site.Scope, name string, x *graph.Node) *graph.Node {
	if name == "" {
		return x
	}
	return m.arch.norm(s, name, x, m.Config.NormEps)
}

// sublayer builds one half of a block in its scope, from the normed h of the residual stream x, with the norm and the
// factor of its result.
func (m *Model) sublayer(s *site.Scope, name, norm string, x, h *graph.Node, f func(h *graph.Node) *graph.Node) *graph.Node {
	s.Scope(name, func() { h = f(h) })
	h = m.norm(s, norm, h)
	if r := m.Config.Residual; r != 0 {
		h = graph.Scale(h, r)
	}
	return s.Sublayer(name, x, h)
}

// norm is a kind of norm.
type norm func(s *site.Scope, name string, x *graph.Node, eps float32) *graph.Node

func rmsNorm(s *site.Scope, name string, x *graph.Node, eps float32) *graph.Node {
	return s.RMSNorm(name, x, eps, 0)
}

// gemmaNorm multiplies by 1 + w.
func gemmaNorm(s *site.Scope, name string, x *graph.Node, eps float32) *graph.Node {
	return s.RMSNorm(name, x, eps, 1)
}

func biasedNorm(s *site.Scope, name string, x *graph.Node, eps float32) *graph.Node {
	return s.LayerNorm(name, x, eps, true)
}

// wholeNorm norms all heads of x (B, T, H, D) as one vector.
func wholeNorm(s *site.Scope, name string, x *graph.Node, eps float32) *graph.Node {
	flat := graph.Reshape(x, x.Dim(0), x.Dim(1), -1)
	return graph.Reshape(s.RMSNorm(name, flat, eps, 0), x.Shape()...)
}

// attention names the projections and says how heads are made from them.
type attention struct {
	project projections
	out     string
	// norm norms the heads of queries and keys under the names qNorm and kNorm; nil for none.
	norm         norm
	qNorm, kNorm string
	linear       linear // nil for the plain one
}

// linear is a kind of projection.
type linear func(s *site.Scope, name string, x *graph.Node, out int, bias bool) *graph.Node

// projections makes queries (B, T, H, D) and keys and values (B, T, G, D) from the normed input.
type projections func(m *Model, s *site.Scope, h *graph.Node) (q, k, v *graph.Node)

func (a attention) build(m *Model, s *site.Scope, layer int, h *graph.Node) *graph.Node {
	c := m.Config
	b, t, d := h.Dim(0), h.Dim(1), c.HeadDim
	q, k, v := a.project(m, s, h)
	if a.norm != nil {
		q, k = a.norm(s, a.qNorm, q, c.NormEps), a.norm(s, a.kNorm, k, c.NormEps)
	}
	if clip := c.ClipQKV; clip > 0 {
		q, k, v = graph.Bound(q, -clip, clip), graph.Bound(k, -clip, clip), graph.Bound(v, -clip, clip)
	}
	if rope, ok := m.rotation(s, layer, t); ok {
		q, k = graph.Rotate(q, s.In.Positions, rope), graph.Rotate(k, s.In.Positions, rope)
	}
	x := s.Attention(q, k, v, graph.Attention{Causal: true, Window: c.Windows[layer], Softcap: c.ScoreCap, Scale: c.scoreScale(layer)})
	return a.output(s, graph.Reshape(x, b, t, c.Heads*d), c)
}

func (a attention) output(s *site.Scope, x *graph.Node, c Config) *graph.Node {
	if a.linear != nil {
		return a.linear(s, a.out, x, c.Hidden, c.OutBias)
	}
	return s.Linear(a.out, x, c.Hidden, c.OutBias)
}

// rotation returns the rotary positions of a layer, false for none. A cache holds keys of one scaling, so its length
// decides where the type depends on the length; dynamic generation ends where its scaling would begin.
func (m *Model) rotation(s *site.Scope, layer, length int) (graph.RoPE, bool) {
	c := m.Config
	if c.Rope.Type == noRope || c.NoRope != nil && c.NoRope[layer] {
		return graph.RoPE{}, false
	}
	if s.In.Start != nil {
		length = s.In.Length
	}
	if c.LocalRope != nil && c.Windows[layer] > 0 {
		return c.LocalRope.Op(c.HeadDim, length), true
	}
	return c.Rope.Op(c.HeadDim, length), true
}

// scoreScale is the factor of a layer's attention scores.
func (c Config) scoreScale(layer int) float32 {
	scale := 1.0
	switch {
	case c.Scale != 0:
		return c.Scale
	case c.Query != 0:
		scale = 1 / math.Sqrt(float64(c.Query))
	case !c.Unscaled:
		scale = 1 / math.Sqrt(float64(c.HeadDim))
	}
	if c.ByLayer {
		scale /= float64(layer + 1)
	}
	return float32(scale)
}

// apart projects queries, keys and values by q_proj, k_proj and v_proj.
func apart(m *Model, s *site.Scope, h *graph.Node) (q, k, v *graph.Node) {
	c := m.Config
	b, t, d := h.Dim(0), h.Dim(1), c.HeadDim
	q = graph.Reshape(s.Linear("q_proj", h, c.Heads*d, c.QKVBias), b, t, c.Heads, d)
	k = graph.Reshape(s.Linear("k_proj", h, c.KVHeads*d, c.QKVBias), b, t, c.KVHeads, d)
	v = graph.Reshape(s.Linear("v_proj", h, c.KVHeads*d, c.QKVBias), b, t, c.KVHeads, d)
	return q, k, v
}

// stacked projects by one matrix with the rows of all queries, then all keys, then all values.
func stacked(name string, f linear) projections {
	return func(m *Model, s *site.Scope, h *graph.Node) (q, k, v *graph.Node) {
		c := m.Config
		b, t, d := h.Dim(0), h.Dim(1), c.HeadDim
		x := f(s, name, h, (c.Heads+2*c.KVHeads)*d, c.QKVBias)
		x = graph.Reshape(x, b, t, c.Heads+2*c.KVHeads, d)
		return graph.SliceAxis(x, 2, 0, c.Heads), graph.SliceAxis(x, 2, c.Heads, c.Heads+c.KVHeads),
			graph.SliceAxis(x, 2, c.Heads+c.KVHeads, c.Heads+2*c.KVHeads)
	}
}

// grouped projects by one matrix with the rows, for each key/value head, of its queries, its keys and its values.
func grouped(name string) projections {
	return func(m *Model, s *site.Scope, h *graph.Node) (q, k, v *graph.Node) {
		c := m.Config
		b, t, d, n := h.Dim(0), h.Dim(1), c.HeadDim, c.Heads/c.KVHeads
		x := s.Linear(name, h, (c.Heads+2*c.KVHeads)*d, c.QKVBias)
		x = graph.Reshape(x, b, t, c.KVHeads, n+2, d)
		part := func(lo, hi int) *graph.Node {
			return graph.Reshape(graph.SliceAxis(x, 3, lo, hi), b, t, c.KVHeads*(hi-lo), d)
		}
		return part(0, n), part(n, n+1), part(n+1, n+2)
	}
}

// plainLinear is site's projection as a value.
func plainLinear(s *site.Scope, name string, x *graph.Node, out int, bias bool) *graph.Node {
	return s.Linear(name, x, out, bias)
}

// conv1D is the projection whose weight stands as (in, out).
func conv1D(s *site.Scope, name string, x *graph.Node, out int, bias bool) *graph.Node {
	return s.Conv1D(name, x, out, bias)
}

// gated is down(f(gate(h)) · up(h)).
func gated(m *Model, s *site.Scope, _ int, h *graph.Node) *graph.Node {
	return gatedMLP(m, s, h, m.Config.Intermediate)
}

func gatedMLP(m *Model, s *site.Scope, h *graph.Node, width int) *graph.Node {
	c := m.Config
	gate, up := s.Linear("gate_proj", h, width, c.MLPBias), s.Linear("up_proj", h, width, c.MLPBias)
	return s.Linear("down_proj", graph.Gate(m.activation(), gate, up), c.Hidden, c.MLPBias)
}

// gatedTogether is gated with gate and up in one matrix, the gate's rows first.
func gatedTogether(m *Model, s *site.Scope, _ int, h *graph.Node) *graph.Node {
	c := m.Config
	both := s.Linear("gate_up_proj", h, 2*c.Intermediate, c.MLPBias)
	gate, up := graph.SliceAxis(both, -1, 0, c.Intermediate), graph.SliceAxis(both, -1, c.Intermediate, 2*c.Intermediate)
	return s.Linear("down_proj", graph.Gate(m.activation(), gate, up), c.Hidden, c.MLPBias)
}

// plainMLP is down(f(up(h))).
func plainMLP(up, down string, f linear) feedForward {
	return func(m *Model, s *site.Scope, _ int, h *graph.Node) *graph.Node {
		c := m.Config
		h = graph.Apply(m.activation(), f(s, up, h, c.Intermediate, c.MLPBias))
		return f(s, down, h, c.Hidden, c.MLPBias)
	}
}

func (m *Model) activation() graph.Fn {
	f, _ := activation(m.Config.Activation) // checked with the config
	return f
}

// activation returns the function of a name in config.json.
func activation(name string) (graph.Fn, error) {
	switch name {
	case "silu", "swish":
		return graph.SiLU, nil
	case "gelu":
		return graph.Gelu, nil
	case "gelu_pytorch_tanh", "gelu_new", "gelu_fast":
		return graph.GeluTanh, nil
	case "relu":
		return graph.ReLU, nil
	}
	return 0, fmt.Errorf("hidden_act: want one of silu, gelu, gelu_pytorch_tanh, gelu_new, relu, have %q", name)
}
