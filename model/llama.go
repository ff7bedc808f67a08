package model

import "tunesmith/checkpoint"

// The llama family: pre-norm blocks with rotary positions, grouped queries and a gated feed-forward. Its relatives
// differ in biases, norms of the heads, windows and factors.

// llamaBlock is the layer of the family.
var llamaBlock = block{
	norm1: "input_layernorm", norm3: "post_attention_layernorm",
	attn: "self_attn", attention: attention{project: apart, out: "o_proj"},
	mlp: "mlp", feedForward: gated,
}

// headNormed norms each head of queries and keys.
func headNormed(k block, n norm) block {
	k.attention.norm, k.attention.qNorm, k.attention.kNorm = n, "q_norm", "k_norm"
	return k
}

func init() {
	register(architecture{
		Type: "llama", class: "Llama", Block: llamaBlock.build, norm: rmsNorm,
		keys: func(c *Config) []key {
			return append(rms(c), key{name: "attention_bias", to: &c.QKVBias, otherwise: false}, key{name: "mlp_bias", to: &c.MLPBias, otherwise: false})
		},
		finish: func(c *Config, _ *fields) { c.OutBias = c.QKVBias },
		gguf:   ggufForm{arch: "llama", permuted: true, read: llamaGGUF},
	})
	register(architecture{
		Type: "mistral", class: "Mistral", Block: llamaBlock.build, norm: rmsNorm, keys: rms,
		finish: func(c *Config, f *fields) { f.window(c, 4096, always) },
		write:  writeWindow,
		gguf:   ggufForm{arch: "llama", via: true, permuted: true, read: llamaGGUF},
	})
	register(architecture{
		Type: "qwen2", class: "Qwen2", Block: llamaBlock.build, norm: rmsNorm, keys: rms,
		finish: func(c *Config, f *fields) {
			c.QKVBias = true
			f.qwenWindow(c)
		},
		write: writeQwenWindow,
		gguf:  ggufForm{arch: "qwen2"},
	})
	register(architecture{
		Type: "qwen3", class: "Qwen3", Block: headNormed(llamaBlock, rmsNorm).build, norm: rmsNorm, keys: biasedKeys,
		finish: func(c *Config, f *fields) {
			c.OutBias = c.QKVBias
			f.qwenWindow(c)
		},
		write: writeQwenWindow,
		gguf:  ggufForm{arch: "qwen3"},
	})
	register(architecture{
		Type: "smollm3", class: "SmolLM3", Block: llamaBlock.build, norm: rmsNorm, tied: true, rope: ropeKeys{thetaOf: 2e6},
		keys: func(c *Config) []key {
			return append(biasedKeys(c), key{name: "mlp_bias", to: &c.MLPBias, otherwise: false})
		},
		finish: func(c *Config, f *fields) {
			c.OutBias = c.QKVBias
			f.noRope(c)
			if f.flag("use_sliding_window", false) {
				f.window(c, 0, func(layer int) bool { return c.NoRope == nil || !c.NoRope[layer] })
			}
		},
		write: func(c Config, m map[string]any) {
			writeQwenWindow(c, m)
			rope := make([]int, c.Layers)
			for i := range rope {
				if c.NoRope == nil || !c.NoRope[i] {
					rope[i] = 1
				}
			}
			m["no_rope_layers"] = rope
		},
	})
	register(architecture{
		Type: "granite", class: "Granite", Block: llamaBlock.build, norm: rmsNorm,
		keys: func(c *Config) []key {
			return append(biasedKeys(c), key{name: "mlp_bias", to: &c.MLPBias, otherwise: false},
				key{name: "embedding_multiplier", to: &c.Embedding, otherwise: 1.0}, key{name: "residual_multiplier", to: &c.Residual, otherwise: 1.0},
				key{name: "attention_multiplier", to: &c.Scale, otherwise: 1.0}, key{name: "logits_scaling", to: &c.Logit, otherwise: 1.0})
		},
		finish: func(c *Config, _ *fields) { c.OutBias = c.QKVBias },
	})
}

// biasedKeys are those of families whose four projections of attention have biases or have not.
func biasedKeys(c *Config) []key {
	return append(rms(c), key{name: "attention_bias", to: &c.QKVBias, otherwise: false})
}

func always(int) bool { return true }

// qwenWindow: layers from max_window_layers on slide, where use_sliding_window is set.
func (f *fields) qwenWindow(c *Config) {
	if f.flag("use_sliding_window", false) {
		from := f.number("max_window_layers", 28)
		f.window(c, 4096, func(layer int) bool { return layer >= from })
	}
}

// noRope reads no_rope_layers, where 1 says that a layer has rotary positions, or no_rope_layer_interval.
func (f *fields) noRope(c *Config) {
	var rope []int
	f.get("no_rope_layers", "a list of 0 and 1", &rope)
	every := f.number("no_rope_layer_interval", 4)
	if rope == nil {
		for i := range c.Layers {
			rope = append(rope, min((i+1)%max(every, 1), 1))
		}
	}
	for i, has := range rope {
		if has == 0 {
			if c.NoRope == nil {
				c.NoRope = make([]bool, len(rope))
			}
			c.NoRope[i] = true
		}
	}
}

// llamaGGUF reads what makes another family of a llama file: windows are Mistral's.
func llamaGGUF(c *Config, m *metadata, _ checkpoint.File) {
	if m.number(m.key("attention.sliding_window"), 0) > 0 {
		c.Type = "mistral"
		m.window(c, always)
	}
}
