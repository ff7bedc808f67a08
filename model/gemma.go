package model

import "tunesmith/checkpoint"

// The Gemma family: llama's blocks with norms that multiply by 1 + w and an embedding times √C. Gemma 2 norms after
// each half of a block too, caps scores and logits, and has windows in every second layer (arXiv 2408.00118). Gemma 3
// norms the heads in place of the caps, and its layers with a window rotate by a base of their own (2503.19786).

// sandwich is the block with four norms.
var sandwich = block{
	norm1: "input_layernorm", norm2: "post_attention_layernorm", norm3: "pre_feedforward_layernorm", norm4: "post_feedforward_layernorm",
	attn: "self_attn", attention: attention{project: apart, out: "o_proj"},
	mlp: "mlp", feedForward: gated,
}

func init() {
	register(architecture{
		Type: "gemma", class: "Gemma", Block: llamaBlock.build, norm: gemmaNorm, tied: true, rooted: true,
		keys: func(c *Config) []key { return with(biasedKeys(c), gemmaDefaults) },
		finish: func(c *Config, f *fields) {
			c.Activation = f.text("hidden_activation", c.Activation)
			c.OutBias = c.QKVBias
		},
		gguf: gemmaGGUF("gemma", nil, nil),
	})
	register(architecture{
		Type: "gemma2", class: "Gemma2", Block: sandwich.build, norm: gemmaNorm, tied: true, rooted: true,
		keys: func(c *Config) []key { return gemma2Keys(c, 50, 30) },
		finish: func(c *Config, f *fields) {
			c.OutBias = c.QKVBias
			f.window(c, 4096, everySecond)
		},
		write: writeLayerTypes,
		gguf: gemmaGGUF("gemma2", func(c *Config, m *metadata, _ checkpoint.File) {
			c.Query = gemmaQuery(c)
			c.ScoreCap = float32(m.float(m.key("attn_logit_softcapping"), 50))
			c.LogitCap = float32(m.float(m.key("final_logit_softcapping"), 30))
			m.window(c, everySecond)
		}, func(c Config, m map[string]any) error {
			m["gemma2.attn_logit_softcapping"], m["gemma2.final_logit_softcapping"] = c.ScoreCap, c.LogitCap
			return nil
		}),
	})
	register(architecture{
		Type: "gemma3_text", class: "Gemma3", Block: headNormed(sandwich, gemmaNorm).build, norm: gemmaNorm, tied: true, rooted: true,
		rope: ropeKeys{thetaOf: 1e6, layered: true},
		keys: func(c *Config) []key { return gemma2Keys(c, 0, 0) },
		finish: func(c *Config, f *fields) {
			c.OutBias = c.QKVBias
			every := max(f.number("sliding_window_pattern", f.number("_sliding_window_pattern", 6)), 1)
			f.window(c, 4096, func(layer int) bool { return (layer+1)%every != 0 })
			c.LocalRope = f.localRope(c.Rope.MaxPositions)
		},
		write: func(c Config, m map[string]any) {
			writeLayerTypes(c, m)
			m["rope_local_base_freq"] = c.LocalRope.Theta
		},
		gguf: gemmaGGUF("gemma3", func(c *Config, m *metadata, _ checkpoint.File) {
			c.Query = gemmaQuery(c)
			m.window(c, func(layer int) bool { return (layer+1)%6 != 0 })
			local := plainRope(10000, c.MaxPositions)
			c.LocalRope = &local
		}, nil),
	})
}

var gemmaDefaults = map[string]any{"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}

func gemma2Keys(c *Config, scoreCap, logitCap float64) []key {
	keys := append(
		renamed(biasedKeys(c), map[string]string{"hidden_act": "hidden_activation"}),
		key{name: "query_pre_attn_scalar", to: &c.Query, otherwise: 256.0},
		key{name: "attn_logit_softcapping", to: &c.ScoreCap, otherwise: scoreCap, none: true},
		key{name: "final_logit_softcapping", to: &c.LogitCap, otherwise: logitCap, none: true},
	)
	return with(keys, gemmaDefaults)
}

// localRope reads the rotation of the layers with a window.
func (f *fields) localRope(limit int) *Rope {
	r := plainRope(f.float("rope_local_base_freq", 10000), limit)
	both := fields{raw: raw{}}
	f.get("rope_parameters", "a map", &both.raw)
	if both.has("sliding_attention") {
		local := fields{raw: raw{}}
		both.get("sliding_attention", "a map", &local.raw)
		r.Theta = local.float("rope_theta", r.Theta)
		f.refuse("rope_parameters", local.text("rope_type", "default") != "default")
	}
	return &r
}

func everySecond(layer int) bool { return layer%2 == 0 }

// gemmaGGUF is the form of the family in GGUF files, which hold 1 + w of the norms.
func gemmaGGUF(arch string, read func(*Config, *metadata, checkpoint.File), write func(Config, map[string]any) error) ggufForm {
	f := ggufForm{arch: arch, shifted: true, activation: "gelu_pytorch_tanh", read: read, write: write}
	if arch != "gemma" {
		f.names = sandwichNames
	}
	return f
}

// sandwichNames are the names in GGUF files of the norms after both halves.
var sandwichNames = []string{
	"post_attention_layernorm.", "post_attention_norm.", "pre_feedforward_layernorm.", "ffn_norm.", "post_feedforward_layernorm.", "post_ffw_norm.",
}

// gemmaQuery is query_pre_attn_scalar, which GGUF files do not hold: the head dimension, but for the largest models.
func gemmaQuery(c *Config) float32 {
	if c.Layers == 46 && c.Hidden == 4608 || c.Layers == 62 && c.Hidden == 5376 {
		return float32(c.Hidden / c.Heads)
	}
	return float32(c.HeadDim)
}
