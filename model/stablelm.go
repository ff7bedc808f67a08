package model

import (
	"tunesmith/graph"
	"tunesmith/site"
)

// Relatives of llama with other norms: StableLM (Bellagente et al. 2024, arXiv 2402.17834) and StarCoder 2 (Lozhkov et
// al. 2024, 2402.19173) have layer norms; OLMo 2 (2501.00656) norms what leaves each half, and all heads as one vector.

var starcoderBlock = block{
	norm1: "input_layernorm", norm3: "post_attention_layernorm",
	attn: "self_attn", attention: attention{project: apart, out: "o_proj"},
	mlp: "mlp", feedForward: plainMLP("c_fc", "c_proj", plainLinear),
}

var olmo2Block = headNormed(block{
	norm2: "post_attention_layernorm", norm4: "post_feedforward_layernorm",
	attn: "self_attn", attention: attention{project: apart, out: "o_proj"},
	mlp: "mlp", feedForward: gated,
}, wholeNorm)

func init() {
	register(architecture{
		Type: "stablelm", class: "StableLm", norm: biasedNorm, rope: ropeKeys{partOf: 0.25},
		Block: func(m *Model, s *site.Scope, layer int, x *graph.Node) *graph.Node {
			k := qkNormed(m, llamaBlock, headNorms, "q_layernorm.norms", "k_layernorm.norms")
			if m.Config.Parallel {
				k.norm3 = ""
			}
			return k.build(m, s, layer, x)
		},
		keys: func(c *Config) []key {
			return append(renamed(layerNorm(c), map[string]string{"head_dim": ""}), key{name: "use_qkv_bias", to: &c.QKVBias, otherwise: false},
				key{name: "qk_layernorm", to: &c.QKNorm, otherwise: false}, key{name: "use_parallel_residual", to: &c.Parallel, otherwise: false})
		},
	})
	register(architecture{
		Type: "starcoder2", class: "Starcoder2", Block: starcoderBlock.build, norm: biasedNorm, tied: true,
		keys: func(c *Config) []key {
			keys := renamed(layerNorm(c), map[string]string{"layer_norm_eps": "norm_epsilon", "head_dim": ""})
			keys = append(keys, key{name: "use_bias", to: &c.QKVBias, otherwise: true})
			return with(keys, map[string]any{"hidden_act": "gelu_pytorch_tanh"})
		},
		finish: func(c *Config, f *fields) {
			c.OutBias, c.MLPBias = c.QKVBias, c.QKVBias
			f.window(c, 0, always)
		},
		write: writeWindow,
	})
	register(architecture{
		Type: "olmo2", class: "Olmo2", Block: olmo2Block.build, norm: rmsNorm,
		keys: func(c *Config) []key {
			return with(renamed(biasedKeys(c), map[string]string{"head_dim": ""}), map[string]any{"rms_norm_eps": 1e-5})
		},
		finish: func(c *Config, _ *fields) { c.OutBias = c.QKVBias },
	})
}

// headNorms norms each head with weights of its own.
func headNorms(s *site.Scope, name string, x *graph.Node, eps float32) *graph.Node {
	return s.HeadNorms(name, x, eps)
}
