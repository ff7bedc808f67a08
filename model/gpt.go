package model

// GPT-2 (Radford et al. 2019): learned positions, weights as (in, out), one norm before each half. GPT-NeoX (Black et
// al. 2022, arXiv 2204.06745): rotary positions on a part of each head, both halves beside each other.

var gpt2Block = block{
	norm1: "ln_1", norm3: "ln_2",
	attn: "attn", attention: attention{project: stacked("c_attn", conv1D), out: "c_proj", linear: conv1D},
	mlp: "mlp", feedForward: plainMLP("c_fc", "c_proj", conv1D),
}

var neoxBlock = block{
	norm1: "input_layernorm", norm3: "post_attention_layernorm",
	attn: "attention", attention: attention{project: grouped("query_key_value"), out: "dense"},
	mlp: "mlp", feedForward: plainMLP("dense_h_to_4h", "dense_4h_to_h", plainLinear),
}

func init() {
	register(architecture{
		Type: "gpt2", class: "GPT2", causal: "LMHeadModel", Block: gpt2Block.build, norm: biasedNorm, tied: true, rope: ropeKeys{off: true},
		names: names{base: "transformer", embed: "wte", positions: "wpe", layers: "h", norm: "ln_f", tokenHead: "classifier"},
		keys: func(c *Config) []key {
			keys := renamed(layerNorm(c), map[string]string{
				"hidden_size": "n_embd", "intermediate_size": "n_inner", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
				"max_position_embeddings": "n_positions", "hidden_act": "activation_function", "layer_norm_eps": "layer_norm_epsilon",
				"num_key_value_heads": "", "head_dim": "",
			})
			keys = append(keys, key{name: "scale_attn_by_inverse_layer_idx", to: &c.ByLayer, otherwise: false})
			return with(keys, map[string]any{"n_inner": 0, "n_positions": 1024, "activation_function": "gelu_new"})
		},
		finish: func(c *Config, f *fields) {
			if c.Intermediate == 0 {
				c.Intermediate = 4 * c.Hidden
			}
			c.QKVBias, c.OutBias, c.MLPBias = true, true, true
			c.Unscaled = !f.flag("scale_attn_weights", true)
			f.refuse("add_cross_attention", f.flag("add_cross_attention", false))
		},
		write: func(c Config, m map[string]any) { m["scale_attn_weights"] = !c.Unscaled },
	})
	register(architecture{
		Type: "gpt_neox", class: "GPTNeoX", Block: neoxBlock.build, norm: biasedNorm,
		rope:  ropeKeys{theta: "rotary_emb_base", partial: "rotary_pct", partOf: 0.25},
		names: names{base: "gpt_neox", embed: "embed_in", norm: "final_layer_norm", head: "embed_out", tokenHead: "classifier"},
		keys: func(c *Config) []key {
			keys := renamed(layerNorm(c), map[string]string{"num_key_value_heads": "", "head_dim": ""})
			keys = append(keys, key{name: "attention_bias", to: &c.QKVBias, otherwise: true}, key{name: "use_parallel_residual", to: &c.Parallel, otherwise: true})
			return with(keys, map[string]any{"hidden_act": "gelu"})
		},
		finish: func(c *Config, _ *fields) { c.OutBias, c.MLPBias = c.QKVBias, true },
	})
}
