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
	// LocalRope rotates the layers that have a window, where it is not nil.
	LocalRope *Rope
	// NoRope marks the layers without positions; nil for none.
	NoRope []bool

	QKNorm    bool // heads of queries and keys are normed, where the family has the choice
	Parallel  bool // attention and feed-forward read the same residual stream
	TwoNorms  bool // parallel, with a norm for each of the two
	Grouped   bool // a fused projection holds each group of heads with its key and value head
	ByLayer   bool // scores are divided by the layer's number
	Unscaled  bool // scores are not divided by √HeadDim
	ClipQKV   float32
	ScoreCap  float32 // soft limit of the attention's scores
	LogitCap  float32 // soft limit of the logits
	Query     float32 // scores are divided by √Query; 0 for HeadDim
	Scale     float32 // factor of the scores in place of 1/√HeadDim; 0 for none
	Embedding float32 // factor of the embedding; 0 for none
	Residual  float32 // factor of what joins the residual stream; 0 for none
	Logit     float32 // divisor of the logits; 0 for none

	Mixture Mixture
	Head    Head
}

// raw is a config.json as it stands.
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
	for _, k := range a.keys(&c) {
		f.set(k)
	}
	c.Vocab = f.count("vocab_size")
	c.Tied = f.flag("tie_word_embeddings", a.tied)
	c.PadID = f.number("pad_token_id", -1)
	c.BOS = f.number("bos_token_id", -1)
	c.EOS = f.numbers("eos_token_id")
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	if c.Layers > 0 && c.Layers <= maxLayers {
		c.Windows = make([]int, c.Layers)
	}
	c.Rope = f.rope(a.rope)
	if a.finish != nil && f.err == nil {
		a.finish(&c, &f)
	}
	c.Head = f.head()
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

// maxLayers is the most layers that a model may have.
const maxLayers = 1 << 12

// check refuses dimensions that cannot be meant.
func (c *Config) check() error {
	for _, d := range []struct {
		name      string
		have, max int
	}{
		{"layers", c.Layers, maxLayers},
		{"vocabulary", c.Vocab, 1 << 24},
		{"hidden size", c.Hidden, 1 << 20},
		{"intermediate size", c.Intermediate, 1 << 22},
		{"heads", c.Heads, 1 << 16},
		{"head dimension", c.HeadDim, 1 << 16},
		{"positions", c.MaxPositions, 1 << 28},
	} {
		if d.have < 1 || d.have > d.max {
			return fmt.Errorf("%s: want 1 … %d, have %d", d.name, d.max, d.have)
		}
	}
	switch {
	case c.KVHeads <= 0 || c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_key_value_heads: want a divisor of num_attention_heads %d, have %d", c.Heads, c.KVHeads)
	case c.NormEps < 0:
		return fmt.Errorf("norm epsilon: want >= 0, have %g", c.NormEps)
	case c.Mixture.Experts != 0 && !c.Mixture.fits(c.Layers):
		return fmt.Errorf("experts: want 1 … %d of them, as many or fewer for a token, of a width above 0, have %+v", maxExperts, c.Mixture)
	case len(c.Windows) != c.Layers || c.NoRope != nil && len(c.NoRope) != c.Layers:
		return fmt.Errorf("layer types: want %d, have %d windows and %d without positions", c.Layers, len(c.Windows), len(c.NoRope))
	}
	if _, err := activation(c.Activation); err != nil {
		return err
	}
	if err := c.Head.check(); err != nil {
		return err
	}
	if c.LocalRope != nil {
		if err := c.LocalRope.check(c.HeadDim); err != nil {
			return err
		}
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
func (f *fields) window(c *Config, otherwise int, rule func(layer int) bool) {
	w := otherwise
	if _, ok := f.raw["sliding_window"]; ok {
		w = f.number("sliding_window", 0)
	}
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
