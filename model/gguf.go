package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/internal/nearest"
)

// ggufForm is how GGUF files hold a family: general.architecture, and what differs from llama's.
type ggufForm struct {
	arch string
	// via says that the family of the same architecture, whose file it is, chooses this one.
	via bool
	// names are pairs of a module's name and that in the file, before those that all families share.
	names []string
	// permuted says that the rows of q and k stand in neighbouring pairs, shifted that norms hold 1 + w.
	permuted, shifted bool
	// activation is not in the file; silu where empty.
	activation string
	// read and write are for the keys that only the family has.
	read  func(c *Config, m *metadata, file checkpoint.File)
	write func(c Config, m map[string]any) error
}

// ggufModules are the names that all families share.
var ggufModules = []string{
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
}

// GGUFName returns the name that a GGUF file of the model gives to a parameter.
func (c Config) GGUFName(param string) string {
	return strings.NewReplacer(append(slices.Clone(architectures[c.Type].gguf.names), ggufModules...)...).Replace(param)
}

// PermutedHeads returns the number of heads whose rows a GGUF file of the model holds in neighbouring pairs, 0 where
// it holds the parameter as it is.
func (c Config) PermutedHeads(param string) int {
	if !architectures[c.Type].gguf.permuted {
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

// shifted reports whether a GGUF file of the model holds 1 more than the parameter.
func (c Config) shifted(param string) bool {
	return architectures[c.Type].gguf.shifted && strings.HasSuffix(param, "norm.weight")
}

// ToGGUF returns what a GGUF file of the model holds in place of a parameter's values, of rows rows.
func (c Config) ToGGUF(param string, values []float32, rows int) []float32 {
	if heads := c.PermutedHeads(param); heads > 0 {
		return Permute(values, heads, rows)
	}
	if c.shifted(param) {
		return add(values, 1)
	}
	return values
}

// add returns the values, each more by d.
func add(values []float32, d float32) []float32 {
	out := make([]float32, len(values))
	for i, v := range values {
		out[i] = v + d
	}
	return out
}

// byGGUF returns the family of a general.architecture.
func byGGUF(arch string) (architecture, error) {
	var known []string
	for _, name := range Types() {
		a := architectures[name]
		if a.gguf.arch == "" || a.gguf.via {
			continue
		}
		if a.gguf.arch == arch {
			return a, nil
		}
		known = append(known, a.gguf.arch)
	}
	return architecture{}, fmt.Errorf("general.architecture: want one of %s, have %q%s", strings.Join(known, ", "), arch, nearest.Hint(arch, known))
}

// ggufConfig reads the architecture from a GGUF file's metadata and tensors.
func ggufConfig(file checkpoint.File) (Config, error) {
	m := metadata{values: file.Metadata()}
	m.arch, _ = m.values["general.architecture"].(string)
	a, err := byGGUF(m.arch)
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Type:         a.Type,
		Hidden:       m.number(m.key("embedding_length"), -1),
		Intermediate: m.number(m.key("feed_forward_length"), -1),
		Layers:       m.number(m.key("block_count"), -1),
		Heads:        m.number(m.key("attention.head_count"), -1),
		MaxPositions: m.number(m.key("context_length"), -1),
		Activation:   cmp.Or(a.gguf.activation, "silu"),
		PadID:        -1,
		BOS:          m.number("tokenizer.ggml.bos_token_id", -2),
	}
	c.NormEps = float32(m.float(m.key("attention.layer_norm_rms_epsilon"), m.float(m.key("attention.layer_norm_epsilon"), 1e-6)))
	c.KVHeads = m.number(m.key("attention.head_count_kv"), c.Heads)
	if eos := m.number("tokenizer.ggml.eos_token_id", -2); eos >= 0 {
		c.EOS = []int{eos}
	}
	if c.Heads > 0 {
		c.HeadDim = m.number(m.key("attention.key_length"), c.Hidden/c.Heads)
	}
	embed, ok := file.Tensor("token_embd.weight")
	if !ok || len(embed.Shape) != 2 {
		return c, fmt.Errorf("tensor %q is missing", "token_embd.weight")
	}
	c.Vocab = embed.Shape[0]
	has := func(name string) bool { _, ok := file.Tensor(name); return ok }
	c.Tied = !has("output.weight")
	c.QKVBias, c.OutBias, c.MLPBias = has("blk.0.attn_q.bias"), has("blk.0.attn_output.bias"), has("blk.0.ffn_up.bias")
	c.Rope = m.rope(c, a)
	if t, ok := file.Tensor("rope_freqs.weight"); ok {
		c.Rope.Divisors = t.Float32s()
	}
	if m.err == nil && (c.Layers < 1 || c.Layers > maxLayers) {
		m.fail("%s: want 1 … %d, have %d", m.key("block_count"), maxLayers, c.Layers)
	}
	if m.err != nil {
		return c, m.err
	}
	c.Windows = make([]int, c.Layers)
	if a.gguf.read != nil {
		a.gguf.read(&c, &m, file)
	}
	return c, m.err
}

// rope reads the rotation.
func (m *metadata) rope(c Config, a architecture) Rope {
	r := Rope{
		Type:         m.text(m.key("rope.scaling.type"), "default"),
		Theta:        m.float(m.key("rope.freq_base"), 10000),
		Interleaved:  a.rope.interleaved,
		Factor:       m.float(m.key("rope.scaling.factor"), 1),
		Original:     m.number(m.key("rope.scaling.original_context_length"), c.MaxPositions),
		LowFreq:      1,
		HighFreq:     4,
		BetaFast:     m.float(m.key("rope.scaling.yarn_beta_fast"), 32),
		BetaSlow:     m.float(m.key("rope.scaling.yarn_beta_slow"), 1),
		Truncate:     true,
		MaxPositions: c.MaxPositions,
	}
	if r.Type == "none" {
		r.Type = "default"
	}
	if n := m.number(m.key("rope.dimension_count"), c.HeadDim); n != c.HeadDim && c.HeadDim > 0 {
		r.Partial = float64(n) / float64(c.HeadDim)
	}
	return r
}

// window reads the sliding window of the layers that the rule names.
func (m *metadata) window(c *Config, rule func(layer int) bool) {
	w := m.number(m.key("attention.sliding_window"), 0)
	for i := range c.Windows {
		if rule(i) {
			c.Windows[i] = w
		}
	}
}

// metadata reads typed values of a GGUF file and keeps the first mistake.
type metadata struct {
	values map[string]any
	arch   string
	err    error
}

// key returns the name of one of the architecture's keys.
func (m *metadata) key(name string) string { return m.arch + "." + name }

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
