package model

import (
	"tunesmith/graph"
	"tunesmith/site"
)

// Phi (Li et al. 2023, arXiv 2309.05463): both halves read one layer norm, rotary positions on a part of each head, a
// head with a bias. Phi-3 (2404.14219) is llama with fused projections and longrope. GLM-4 (2406.12793) fuses gate and
// up alone, norms around both halves, and rotates neighbouring channels.

var phiBlock = block{
	norm1: "input_layernorm",
	attn:  "self_attn", attention: attention{project: apart, out: "dense"},
	mlp: "mlp", feedForward: plainMLP("fc1", "fc2", plainLinear),
}

var phi3Block = block{
	norm1: "input_layernorm", norm3: "post_attention_layernorm",
	attn: "self_attn", attention: attention{project: stacked("qkv_proj", plainLinear), out: "o_proj"},
	mlp: "mlp", feedForward: gatedTogether,
}

var glm4Block = block{
	norm1: "input_layernorm", norm2: "post_self_attn_layernorm", norm3: "post_attention_layernorm", norm4: "post_mlp_layernorm",
	attn: "self_attn", attention: attention{project: apart, out: "o_proj"},
	mlp: "mlp", feedForward: gatedTogether,
}

func init() {
	register(architecture{
		Type: "phi", class: "Phi", norm: biasedNorm, rope: ropeKeys{partOf: 0.5}, headBias: true,
		names: names{norm: "final_layernorm"},
		Block: func(m *Model, s *site.Scope, layer int, x *graph.Node) *graph.Node {
			return qkNormed(m, phiBlock, biasedNorm, "q_layernorm", "k_layernorm").build(m, s, layer, x)
		},
		keys: func(c *Config) []key {
			keys := renamed(layerNorm(c), map[string]string{"head_dim": ""})
			keys = append(keys, key{name: "qk_layernorm", to: &c.QKNorm, otherwise: false})
			return with(keys, map[string]any{"hidden_act": "gelu_new"})
		},
		finish: func(c *Config, _ *fields) {
			c.QKVBias, c.OutBias, c.MLPBias, c.Parallel = true, true, true, true
		},
	})
	register(architecture{
		Type: "phi3", class: "Phi3", Block: phi3Block.build, norm: rmsNorm,
		keys:   func(c *Config) []key { return with(rms(c), map[string]any{"rms_norm_eps": 1e-5}) },
		finish: func(c *Config, f *fields) { f.window(c, 0, always) },
		write:  writeWindow,
	})
	register(architecture{
		Type: "glm4", class: "Glm4", Block: glm4Block.build, norm: rmsNorm, rope: ropeKeys{partOf: 0.5, interleaved: true},
		keys: func(c *Config) []key {
			return with(biasedKeys(c), map[string]any{"head_dim": 128, "rms_norm_eps": 1.5625e-7})
		},
	})
}

// qkNormed norms the heads of queries and keys where the config says so.
func qkNormed(m *Model, k block, n norm, q, key string) block {
	if m.Config.QKNorm {
		k.attention.norm, k.attention.qNorm, k.attention.kNorm = n, q, key
	}
	return k
}
