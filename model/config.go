package model

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Config is what an architecture needs to know, from config.json or from GGUF metadata. Fields that an architecture
// lacks are zero.
type Config struct {
	Type         string // model_type
	Hidden       int
	Intermediate int
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	Vocab        int
	MaxPositions int
	NormEps      float32
	Activation   string
	Tied         bool
	QKVBias      bool
	OutBias      bool
	MLPBias      bool
	PadID        int // −1 for none: the embedding row without gradient
	BOS          int // −1 for none
	EOS          []int
	Rope         Rope
	// Windows is each layer's sliding window, 0 for none.
	Windows []int
}

// raw is a config.json as it stands. Missing and null are the same.
type raw map[string]json.RawMessage

// ParseConfig reads the text of a config.json in the forms that transformers 4 and 5 write.
func ParseConfig(text []byte) (Config, error) {
	var r raw
	if err := json.Unmarshal(text, &r); err != nil {
		return Config{}, fmt.Errorf("config.json: %w", err)
	}
	f := fields{raw: r}
	c := Config{Type: f.text("model_type", "")}
	a, err := lookup(c.Type)
	if err != nil {
		return Config{}, err
	}
	c.Hidden = f.count("hidden_size")
	c.Intermediate = f.count("intermediate_size")
	c.Layers = f.count("num_hidden_layers")
	c.Heads = f.count("num_attention_heads")
	c.KVHeads = f.number("num_key_value_heads", c.Heads)
	c.Vocab = f.count("vocab_size")
	c.MaxPositions = f.number("max_position_embeddings", 2048)
	c.NormEps = float32(f.float("rms_norm_eps", 1e-6))
	c.Activation = f.text("hidden_act", "silu")
	c.Tied = f.flag("tie_word_embeddings", false)
	c.PadID = f.number("pad_token_id", -1)
	c.BOS = f.number("bos_token_id", -1)
	c.EOS = f.numbers("eos_token_id")
	if c.Heads > 0 {
		c.HeadDim = f.number("head_dim", c.Hidden/c.Heads)
	}
	c.Rope = f.rope()
	c.Windows = make([]int, c.Layers)
	a.configure(&c, &f)
	if f.err != nil {
		return Config{}, fmt.Errorf("config.json: %w", f.err)
	}
	return c, c.check()
}

// ReadConfig reads a config.json, or that of a directory.
func ReadConfig(path string) (Config, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "config.json")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(text)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// check refuses dimensions that cannot be meant.
func (c *Config) check() error {
	switch {
	case c.KVHeads <= 0 || c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_key_value_heads: want a divisor of num_attention_heads %d, have %d", c.Heads, c.KVHeads)
	case c.HeadDim <= 0 || c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim: want an even number above 0, have %d", c.HeadDim)
	case c.NormEps < 0:
		return fmt.Errorf("rms_norm_eps: want >= 0, have %g", c.NormEps)
	case c.Layers > 1<<12 || c.Vocab > 1<<24 || c.Hidden > 1<<20 || c.Intermediate > 1<<22:
		return fmt.Errorf("dimensions %d layers, %d vocabulary, %d hidden, %d intermediate are not those of a language model",
			c.Layers, c.Vocab, c.Hidden, c.Intermediate)
	}
	if _, err := activation(c.Activation); err != nil {
		return err
	}
	return c.Rope.check(c.HeadDim)
}

// fields reads a config.json and keeps the first mistake.
type fields struct {
	raw raw
	err error
}

func (f *fields) has(key string) bool {
	v, ok := f.raw[key]
	return ok && string(v) != "null"
}

func (f *fields) get(key, want string, v any) bool {
	if !f.has(key) {
		return false
	}
	if err := json.Unmarshal(f.raw[key], v); err != nil {
		if f.err == nil {
			f.err = fmt.Errorf("%s: want %s, have %s", key, want, f.raw[key])
		}
		return false
	}
	return true
}

func (f *fields) text(key, otherwise string) string {
	f.get(key, "text", &otherwise)
	return otherwise
}

func (f *fields) number(key string, otherwise int) int {
	f.get(key, "a whole number", &otherwise)
	return otherwise
}

// count is a number that has to be there and above 0.
func (f *fields) count(key string) int {
	n := f.number(key, 0)
	if n <= 0 && f.err == nil {
		have := "none"
		if f.has(key) {
			have = string(f.raw[key])
		}
		f.err = fmt.Errorf("%s: want a whole number above 0, have %s", key, have)
	}
	return n
}

func (f *fields) float(key string, otherwise float64) float64 {
	f.get(key, "a number", &otherwise)
	return otherwise
}

func (f *fields) flag(key string, otherwise bool) bool {
	f.get(key, "true or false", &otherwise)
	return otherwise
}

// numbers reads one number or a list of them.
func (f *fields) numbers(key string) []int {
	if !f.has(key) {
		return nil
	}
	var one int
	if json.Unmarshal(f.raw[key], &one) == nil {
		return []int{one}
	}
	var list []int
	f.get(key, "a whole number or a list of them", &list)
	return list
}

func (f *fields) texts(key string) []string {
	var list []string
	f.get(key, "a list of names", &list)
	return list
}

// window sets the sliding window of the layers: by layer_types where the file has them, else of those that the rule
// names.
func (f *fields) window(c *Config, rule func(layer int) bool) {
	w := f.number("sliding_window", 0)
	types := f.texts("layer_types")
	if len(types) > 0 && len(types) != c.Layers && f.err == nil {
		f.err = fmt.Errorf("layer_types: want %d entries, have %d", c.Layers, len(types))
		return
	}
	for i := range c.Windows {
		sliding := rule(i)
		if len(types) > 0 {
			sliding = types[i] == "sliding_attention"
		}
		if sliding {
			c.Windows[i] = w
		}
	}
}
