package model

import (
	"fmt"
	"math"

	"tunesmith/graph"
	"tunesmith/site"
)

// The llama family: pre-norm blocks with rotary positions, grouped queries and a gated feed-forward. Qwen 2, Qwen 3
// and Mistral are the same blocks with other biases, head norms and windows.
func init() {
	register(architecture{
		Type: "llama", Block: llamaBlock,
		configure: func(c *Config, f *fields) {
			b := f.flag("attention_bias", false)
			c.QKVBias, c.OutBias, c.MLPBias = b, b, f.flag("mlp_bias", false)
		},
	})
	register(architecture{
		Type: "mistral", Block: llamaBlock,
		configure: func(c *Config, f *fields) { f.window(c, func(int) bool { return true }) },
	})
	register(architecture{
		Type: "qwen2", Block: llamaBlock,
		configure: func(c *Config, f *fields) {
			c.QKVBias = true
			f.qwenWindow(c)
		},
	})
	register(architecture{
		Type: "qwen3", Block: llamaBlock, HeadNorm: true,
		configure: func(c *Config, f *fields) {
			b := f.flag("attention_bias", false)
			c.QKVBias, c.OutBias = b, b
			f.qwenWindow(c)
		},
	})
}

// qwenWindow: layers from max_window_layers on slide, where use_sliding_window is set.
func (f *fields) qwenWindow(c *Config) {
	if f.flag("use_sliding_window", false) {
		from := f.number("max_window_layers", 28)
		f.window(c, func(layer int) bool { return layer >= from })
	}
}

// llamaBlock is one layer: all that a method can touch goes through s. xBTC is the residual stream.
func llamaBlock(m *Model, s *site.Scope, layer int, xBTC *graph.Node) *graph.Node {
	c := m.Config
	h := s.RMSNorm("input_layernorm", xBTC, c.NormEps, 0)
	s.Scope("self_attn", func() { h = llamaAttention(m, s, layer, h) })
	xBTC = graph.Plus(xBTC, s.Sublayer("self_attn", xBTC, h))
	h = s.RMSNorm("post_attention_layernorm", xBTC, c.NormEps, 0)
	s.Scope("mlp", func() {
		gate := s.Linear("gate_proj", h, c.Intermediate, c.MLPBias)
		up := s.Linear("up_proj", h, c.Intermediate, c.MLPBias)
		act, _ := activation(c.Activation)
		h = s.Linear("down_proj", graph.Gate(act, gate, up), c.Hidden, c.MLPBias)
	})
	return graph.Plus(xBTC, s.Sublayer("mlp", xBTC, h))
}

func llamaAttention(m *Model, s *site.Scope, layer int, hBTC *graph.Node) *graph.Node {
	c := m.Config
	b, t, d := hBTC.Dim(0), hBTC.Dim(1), c.HeadDim
	q := graph.Reshape(s.Linear("q_proj", hBTC, c.Heads*d, c.QKVBias), b, t, c.Heads, d)
	k := graph.Reshape(s.Linear("k_proj", hBTC, c.KVHeads*d, c.QKVBias), b, t, c.KVHeads, d)
	v := graph.Reshape(s.Linear("v_proj", hBTC, c.KVHeads*d, c.QKVBias), b, t, c.KVHeads, d)
	if m.arch.HeadNorm {
		q, k = s.RMSNorm("q_norm", q, c.NormEps, 0), s.RMSNorm("k_norm", k, c.NormEps, 0)
	}
	length := t
	if s.In.Start != nil {
		length = 0 // a cache holds keys of one scaling, so generation ends where the scaling would change
	}
	rope := c.Rope.Op(d, length)
	a := s.Attention(graph.Rotate(q, s.In.Positions, rope), graph.Rotate(k, s.In.Positions, rope), v,
		graph.Attention{Causal: true, Window: c.Windows[layer], Scale: float32(1 / math.Sqrt(float64(d)))})
	return s.Linear("o_proj", graph.Reshape(a, b, t, c.Heads*d), c.Hidden, c.OutBias)
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
