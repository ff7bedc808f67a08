package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
)

// JSON returns the config.json of the model, in the form that transformers 4 and 5 both read. dtype is that of the
// weights beside it, such as float32.
func (c Config) JSON(dtype string) ([]byte, error) {
	a, err := lookup(c.Type)
	if err != nil {
		return nil, err
	}
	if c.Rope.Divisors != nil {
		r, err := c.Rope.llama3(c.HeadDim)
		if err != nil {
			return nil, err
		}
		c.Rope = r
	}
	m := map[string]any{
		"model_type": c.Type, "vocab_size": c.Vocab, "tie_word_embeddings": c.Tied, "torch_dtype": dtype, "attention_dropout": 0.0,
		"use_cache": true,
	}
	for _, k := range a.keys(&c) {
		m[k.name] = k.value()
	}
	c.Rope.write(a.rope, m)
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
	c.Head.write(a, m)
	if a.write != nil {
		a.write(c, m)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	// What the type has no key for would be lost without a word.
	if again, err := ParseConfig(text); err != nil || !reflect.DeepEqual(again, c) {
		return nil, errors.Join(fmt.Errorf("config.json of type %s cannot hold this model", c.Type), err)
	}
	return text, nil
}

// window returns the layers' largest sliding window, 0 for none.
func (c Config) window() int { return slices.Max(append([]int{0}, c.Windows...)) }

// writeWindow writes one window for all layers.
func writeWindow(c Config, m map[string]any) {
	m["sliding_window"] = nil
	if w := c.window(); w > 0 {
		m["sliding_window"] = w
	}
}

// writeLayerTypes writes which layers have the window.
func writeLayerTypes(c Config, m map[string]any) {
	writeWindow(c, m)
	kinds := make([]string, c.Layers)
	for i := range kinds {
		kinds[i] = "full_attention"
		if c.Windows[i] > 0 {
			kinds[i] = "sliding_attention"
		}
	}
	m["layer_types"] = kinds
}

// writeQwenWindow is writeLayerTypes behind a switch.
func writeQwenWindow(c Config, m map[string]any) {
	m["use_sliding_window"] = c.window() > 0
	if c.window() > 0 {
		writeLayerTypes(c, m)
		m["max_window_layers"] = slices.IndexFunc(c.Windows, func(w int) bool { return w > 0 })
	}
}

// write adds the keys of the rotation.
func (r Rope) write(k ropeKeys, m map[string]any) {
	if k.off {
		return
	}
	m[cmp.Or(k.theta, "rope_theta")], m["rope_scaling"] = r.Theta, r.scaling()
	if r.Partial != 0 || k.partOf != 0 {
		m[cmp.Or(k.partial, "partial_rotary_factor")] = cmp.Or(r.Partial, 1)
	}
	if r.Type == longRope {
		m["original_max_position_embeddings"] = r.Original
	}
}

// scaling is rope_scaling, nil where there is none.
func (r Rope) scaling() any {
	m := map[string]any{"rope_type": r.Type, "factor": r.Factor}
	switch r.Type {
	case "default":
		return nil
	case longRope:
		m["short_factor"], m["long_factor"] = r.Short, r.Long
		m["type"] = longRope // the key of the versions that the type came with
		if r.Attention > 0 {
			m["attention_factor"] = r.Attention
		}
		if r.Factor == float64(r.MaxPositions)/float64(r.Original) {
			delete(m, "factor")
		}
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

// llama3 finds the llama3 scaling that gives the divisors of a GGUF file: that of Llama 3.1 and later, with any factor.
func (r Rope) llama3(d int) (Rope, error) {
	l := r
	l.Type, l.Divisors, l.Factor = "llama3", nil, float64(slices.Max(r.Divisors))
	l.LowFreq, l.HighFreq, l.Original = 1, 4, 8192
	for i, v := range l.Frequencies(d) {
		if math.Abs(float64(v/r.Divisors[i]-1)) > 1e-3 {
			return r, errors.New("config.json has no form for the divisors in rope_freqs.weight; write a .gguf file instead")
		}
	}
	return l, nil
}

// GGUF returns the metadata of the architecture as GGUF files name it. What GGUF cannot say is an error.
func (c Config) GGUF() (map[string]any, error) {
	a, err := lookup(c.Type)
	if err != nil {
		return nil, err
	}
	arch := a.gguf.arch
	if arch == "" || c.Head.Kind != "" {
		return nil, fmt.Errorf("GGUF has no form here for a %s model with this head; write a directory", c.Type)
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
		arch + ".rope.dimension_count":             uint32(c.Rope.width(c.HeadDim)),
		arch + ".rope.freq_base":                   float32(c.Rope.Theta),
		arch + ".vocab_size":                       uint32(c.Vocab),
	}
	if w := c.window(); w > 0 {
		m[arch+".attention.sliding_window"] = uint32(w)
	}
	if a.gguf.write != nil {
		if err := a.gguf.write(c, m); err != nil {
			return nil, err
		}
	}
	if err := c.Rope.gguf(m, arch+".rope.scaling."); err != nil {
		return nil, err
	}
	return m, c.saysGGUF(a, m)
}

// saysGGUF makes sure that the metadata says all that the config does: what it does not would be lost without a word.
func (c Config) saysGGUF(a architecture, meta map[string]any) error {
	m := metadata{values: meta, arch: a.gguf.arch}
	again := Config{
		Type: a.Type, Hidden: c.Hidden, Intermediate: c.Intermediate, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
		Vocab: c.Vocab, MaxPositions: c.MaxPositions, NormEps: c.NormEps, Tied: c.Tied, QKVBias: c.QKVBias, OutBias: c.OutBias, MLPBias: c.MLPBias,
		Activation: cmp.Or(a.gguf.activation, "silu"), PadID: c.PadID, BOS: c.BOS, EOS: c.EOS, Rope: c.Rope, Windows: make([]int, c.Layers),
	}
	if a.gguf.read != nil {
		a.gguf.read(&again, &m, nil)
	}
	if m.err != nil || !reflect.DeepEqual(again, c) {
		return errors.Join(fmt.Errorf("GGUF has no keys for all settings of this %s model", c.Type), m.err)
	}
	return nil
}

// gguf adds the keys of a scaled rotation. That of llama3 stands in a tensor instead; see Frequencies.
func (r Rope) gguf(m map[string]any, prefix string) error {
	switch r.Type {
	case "default", "llama3":
		return nil
	case "yarn":
		if r.Attention > 0 || r.MScale > 0 || !r.Truncate {
			return errors.New("GGUF has no keys for yarn's attention_factor, mscale and truncate")
		}
		m[prefix+"yarn_beta_fast"], m[prefix+"yarn_beta_slow"] = float32(r.BetaFast), float32(r.BetaSlow)
	case "linear":
	default:
		return fmt.Errorf("GGUF has no form for rope_type %q", r.Type)
	}
	m[prefix+"type"], m[prefix+"factor"] = r.Type, float32(r.Factor)
	m[prefix+"original_context_length"] = uint32(r.Original)
	return nil
}

// Frequencies returns the divisors of the frequencies of a head with d channels, where they stand in a GGUF file as a
// tensor of their own; nil for none.
func (r Rope) Frequencies(d int) []float32 {
	if r.Type != "llama3" {
		return r.Divisors
	}
	out := make([]float32, d/2)
	for i := range out {
		f := 1 / math.Pow(r.Theta, float64(2*i)/float64(d))
		out[i] = float32(f / r.scale(f, i, d))
	}
	return out
}
