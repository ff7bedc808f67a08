package model

import (
	"tunesmith/graph"
	"tunesmith/site"
)

// Falcon (Almazrouei et al. 2023, arXiv 2311.16867): both halves beside each other, and one fused projection. The new
// form has groups of queries and, mostly, a norm for each half; the first one key/value head, or one for each query.
func init() {
	register(architecture{
		Type: "falcon", class: "Falcon", Block: falconBlock, norm: biasedNorm, tied: true,
		names: names{base: "transformer", embed: "word_embeddings", layers: "h", norm: "ln_f", tokenHead: "classifier"},
		keys: func(c *Config) []key {
			keys := renamed(layerNorm(c), map[string]string{
				"intermediate_size": "ffn_hidden_size", "num_key_value_heads": "num_kv_heads", "hidden_act": "activation",
				"layer_norm_eps": "layer_norm_epsilon", "head_dim": "",
			})
			keys = append(keys, key{name: "bias", to: &c.QKVBias, otherwise: false}, key{name: "new_decoder_architecture", to: &c.Grouped, otherwise: false},
				key{name: "parallel_attn", to: &c.Parallel, otherwise: true})
			return with(keys, map[string]any{"ffn_hidden_size": 0, "activation": "gelu"})
		},
		finish: func(c *Config, f *fields) {
			if c.Intermediate == 0 {
				c.Intermediate = 4 * c.Hidden
			}
			switch {
			case c.Grouped:
				c.Parallel = true
			case f.flag("multi_query", true):
				c.KVHeads = 1
			default:
				c.KVHeads = c.Heads
			}
			c.TwoNorms = c.Grouped && f.number("num_ln_in_parallel_attn", 2) == 2
			c.OutBias, c.MLPBias = c.QKVBias, c.QKVBias
			f.refuse("alibi", f.flag("alibi", false))
		},
		write: func(c Config, m map[string]any) {
			m["alibi"], m["multi_query"], m["num_ln_in_parallel_attn"] = false, c.KVHeads == 1, 1
			if c.TwoNorms {
				m["num_ln_in_parallel_attn"] = 2
			}
		},
	})
}

func falconBlock(m *Model, s *site.Scope, layer int, x *graph.Node) *graph.Node {
	c := m.Config
	k := block{
		norm1: "input_layernorm",
		attn:  "self_attention", attention: attention{project: grouped("query_key_value"), out: "dense"},
		mlp: "mlp", feedForward: plainMLP("dense_h_to_4h", "dense_4h_to_h", plainLinear),
	}
	switch {
	case c.TwoNorms:
		k.norm1, k.norm3 = "ln_attn", "ln_mlp"
	case !c.Parallel:
		k.norm3 = "post_attention_layernorm"
	}
	return k.build(m, s, layer, x)
}
