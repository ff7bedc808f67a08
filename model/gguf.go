package model

import (
	"fmt"
	"strings"

	"tunesmith/checkpoint"
)

// ggufNames is what a GGUF file does differently from a Hugging Face one, beside the names.
type ggufNames struct {
	permuted bool // rows of q and k stand in neighbouring pairs
}

// ggufArchitectures are the values of general.architecture that are model types here.
var ggufArchitectures = map[string]string{"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

var ggufModules = strings.NewReplacer(
	"model.embed_tokens.", "token_embd.",
	"model.norm.", "output_norm.",
	"lm_head.", "output.",
	"model.layers.", "blk.",
	"post_attention_layernorm.", "ffn_norm.",
	"input_layernorm.", "attn_norm.",
	"self_attn.q_proj.", "attn_q.",
	"self_attn.k_proj.", "attn_k.",
	"self_attn.v_proj.", "attn_v.",
	"self_attn.o_proj.", "attn_output.",
	"self_attn.q_norm.", "attn_q_norm.",
	"self_attn.k_norm.", "attn_k_norm.",
	"mlp.gate_proj.", "ffn_gate.",
	"mlp.up_proj.", "ffn_up.",
	"mlp.down_proj.", "ffn_down.",
)

// GGUFName returns the name that a GGUF file gives to a parameter.
func GGUFName(param string) string { return ggufModules.Replace(param) }

// ggufConfig reads the architecture from a GGUF file's metadata and tensors.
func ggufConfig(file checkpoint.File) (Config, *ggufNames, error) {
	m := metadata{file.Metadata(), nil}
	arch, _ := m.values["general.architecture"].(string)
	kind, ok := ggufArchitectures[arch]
	if !ok {
		return Config{}, nil, fmt.Errorf("general.architecture: want one of llama, qwen2, qwen3, have %q", arch)
	}
	key := func(name string) string { return arch + "." + name }
	c := Config{
		Type:         kind,
		Hidden:       m.number(key("embedding_length"), -1),
		Intermediate: m.number(key("feed_forward_length"), -1),
		Layers:       m.number(key("block_count"), -1),
		Heads:        m.number(key("attention.head_count"), -1),
		MaxPositions: m.number(key("context_length"), -1),
		NormEps:      float32(m.float(key("attention.layer_norm_rms_epsilon"), 1e-6)),
		Activation:   "silu",
		PadID:        -1,
		BOS:          m.number("tokenizer.ggml.bos_token_id", -2),
	}
	c.KVHeads = m.number(key("attention.head_count_kv"), c.Heads)
	if eos := m.number("tokenizer.ggml.eos_token_id", -2); eos >= 0 {
		c.EOS = []int{eos}
	}
	if c.Heads > 0 {
		c.HeadDim = m.number(key("attention.key_length"), c.Hidden/c.Heads)
	}
	embed, ok := file.Tensor("token_embd.weight")
	if !ok || len(embed.Shape) != 2 {
		return c, nil, fmt.Errorf("tensor %q is missing", "token_embd.weight")
	}
	c.Vocab = embed.Shape[0]
	_, untied := file.Tensor("output.weight")
	c.Tied = !untied
	_, c.QKVBias = file.Tensor("blk.0.attn_q.bias")
	_, c.OutBias = file.Tensor("blk.0.attn_output.bias")
	_, c.MLPBias = file.Tensor("blk.0.ffn_gate.bias")
	c.Rope = Rope{
		Type:         m.text(key("rope.scaling.type"), "default"),
		Theta:        m.float(key("rope.freq_base"), 10000),
		Factor:       m.float(key("rope.scaling.factor"), 1),
		Original:     m.number(key("rope.scaling.original_context_length"), c.MaxPositions),
		LowFreq:      1,
		HighFreq:     4,
		BetaFast:     m.float(key("rope.scaling.yarn_beta_fast"), 32),
		BetaSlow:     m.float(key("rope.scaling.yarn_beta_slow"), 1),
		Truncate:     true,
		MaxPositions: c.MaxPositions,
	}
	if c.Rope.Type == "none" {
		c.Rope.Type = "default"
	}
	if t, ok := file.Tensor("rope_freqs.weight"); ok {
		c.Rope.Divisors = t.Float32s()
	}
	if m.err != nil {
		return c, nil, m.err
	}
	if c.Layers < 0 || c.Layers > 1<<12 {
		return c, nil, fmt.Errorf("%s: want 1 … 4096, have %d", key("block_count"), c.Layers)
	}
	c.Windows = make([]int, c.Layers)
	if w := m.number(key("attention.sliding_window"), 0); w > 0 && kind != "qwen2" && kind != "qwen3" {
		c.Type = "mistral" // the name of llama with windows elsewhere
		for i := range c.Windows {
			c.Windows[i] = w
		}
	}
	return c, &ggufNames{permuted: arch == "llama"}, m.err
}

// metadata reads typed values of a GGUF file and keeps the first mistake.
type metadata struct {
	values map[string]any
	err    error
}

// number reads a count of any width; -1 as the default says that it has to be there, -2 that it may be absent.
func (m *metadata) number(key string, otherwise int) int {
	v, ok := m.values[key]
	if !ok {
		if otherwise == -1 {
			m.fail("%s is missing", key)
		}
		return max(otherwise, -1)
	}
	switch n := v.(type) {
	case uint8:
		return int(n)
	case int8:
		return int(n)
	case uint16:
		return int(n)
	case int16:
		return int(n)
	case uint32:
		return int(n)
	case int32:
		return int(n)
	case uint64:
		return int(n)
	case int64:
		return int(n)
	}
	m.fail("%s: want a whole number, have %v", key, v)
	return 0
}

func (m *metadata) float(key string, otherwise float64) float64 {
	switch v := m.values[key].(type) {
	case nil:
		return otherwise
	case float32:
		return float64(v)
	case float64:
		return v
	default:
		m.fail("%s: want a number, have %v", key, v)
		return 0
	}
}

func (m *metadata) text(key, otherwise string) string {
	switch v := m.values[key].(type) {
	case nil:
		return otherwise
	case string:
		return v
	default:
		m.fail("%s: want text, have %v", key, v)
		return ""
	}
}

func (m *metadata) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}
