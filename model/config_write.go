package model

import (
	"encoding/json"
	"slices"
	"strings"
)

// classes are the names that transformers gives to the causal models of each type.
var classes = map[string]string{
	"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}

// JSON returns the config.json of the model, in the form that transformers 4 and 5 both read. dtype is that of the
// weights beside it, such as float32.
func (c Config) JSON(dtype string) ([]byte, error) {
	m := map[string]any{
		"architectures": []string{classes[c.Type]}, "model_type": c.Type, "hidden_size": c.Hidden, "intermediate_size": c.Intermediate,
		"num_hidden_layers": c.Layers, "num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim,
		"vocab_size": c.Vocab, "max_position_embeddings": c.MaxPositions, "rms_norm_eps": number32(c.NormEps), "hidden_act": c.Activation,
		"tie_word_embeddings": c.Tied, "torch_dtype": dtype, "rope_theta": c.Rope.Theta, "rope_scaling": c.Rope.scaling(),
		"attention_dropout": 0.0, "use_cache": true,
	}
	switch c.Type {
	case "llama":
		m["attention_bias"], m["mlp_bias"] = c.QKVBias, c.MLPBias
	case "qwen3":
		m["attention_bias"] = c.QKVBias
	}
	if c.PadID >= 0 {
		m["pad_token_id"] = c.PadID
	}
	if c.BOS >= 0 {
		m["bos_token_id"] = c.BOS
	}
	switch len(c.EOS) {
	case 0:
	case 1:
		m["eos_token_id"] = c.EOS[0]
	default:
		m["eos_token_id"] = c.EOS
	}
	c.windows(m)
	return json.MarshalIndent(m, "", "  ")
}

// windows writes the sliding windows as each type has them.
func (c Config) windows(m map[string]any) {
	first := slices.IndexFunc(c.Windows, func(w int) bool { return w > 0 })
	switch c.Type {
	case "mistral":
		m["sliding_window"] = nil
		if first >= 0 {
			m["sliding_window"] = c.Windows[first]
		}
	case "qwen2", "qwen3":
		m["use_sliding_window"] = first >= 0
		if first >= 0 {
			m["sliding_window"], m["max_window_layers"] = c.Windows[first], first
		}
	}
}

// scaling is rope_scaling, nil where there is none.
func (r Rope) scaling() any {
	m := map[string]any{"rope_type": r.Type, "factor": r.Factor}
	switch r.Type {
	case "default":
		return nil
	case "llama3":
		m["low_freq_factor"], m["high_freq_factor"], m["original_max_position_embeddings"] = r.LowFreq, r.HighFreq, r.Original
	case "yarn":
		m["original_max_position_embeddings"], m["beta_fast"], m["beta_slow"], m["truncate"] = r.Original, r.BetaFast, r.BetaSlow, r.Truncate
		for key, v := range map[string]float64{"attention_factor": r.Attention, "mscale": r.MScale, "mscale_all_dim": r.MScaleAll} {
			if v > 0 {
				m[key] = v
			}
		}
	}
	return m
}

// number32 writes a single-precision number in its shortest form.
type number32 float32

// MarshalJSON implements json.Marshaler.
func (n number32) MarshalJSON() ([]byte, error) { return json.Marshal(float32(n)) }

// GGUF returns the metadata of the architecture as GGUF files name it.
func (c Config) GGUF() map[string]any {
	arch := c.Type
	if arch == "mistral" {
		arch = "llama"
	}
	m := map[string]any{
		"general.architecture":                     arch,
		arch + ".context_length":                   uint32(c.MaxPositions),
		arch + ".embedding_length":                 uint32(c.Hidden),
		arch + ".block_count":                      uint32(c.Layers),
		arch + ".feed_forward_length":              uint32(c.Intermediate),
		arch + ".attention.head_count":             uint32(c.Heads),
		arch + ".attention.head_count_kv":          uint32(c.KVHeads),
		arch + ".attention.key_length":             uint32(c.HeadDim),
		arch + ".attention.value_length":           uint32(c.HeadDim),
		arch + ".attention.layer_norm_rms_epsilon": c.NormEps,
		arch + ".rope.dimension_count":             uint32(c.HeadDim),
		arch + ".rope.freq_base":                   float32(c.Rope.Theta),
		arch + ".vocab_size":                       uint32(c.Vocab),
	}
	if c.Rope.Type == "linear" || c.Rope.Type == "yarn" {
		m[arch+".rope.scaling.type"] = c.Rope.Type
		m[arch+".rope.scaling.factor"] = float32(c.Rope.Factor)
		m[arch+".rope.scaling.original_context_length"] = uint32(c.Rope.Original)
	}
	return m
}

// PermutedHeads returns the number of heads whose rows a GGUF file of the model holds in neighbouring pairs, 0 where
// it holds the parameter as it is.
func (c Config) PermutedHeads(param string) int {
	if c.Type != "llama" && c.Type != "mistral" {
		return 0
	}
	switch {
	case strings.Contains(param, "self_attn.q_proj."):
		return c.Heads
	case strings.Contains(param, "self_attn.k_proj."):
		return c.KVHeads
	}
	return 0
}
