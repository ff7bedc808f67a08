package model

import (
	"encoding/json"
	"fmt"
)

// key is one entry of config.json and the field that it sets: the one list that is read and written by.
type key struct {
	name string
	to   any // *int, *float32, *float64, *bool, *string
	// otherwise is the value of a missing key; nil says that the key has to be there, with a number above 0.
	otherwise any
	// none says that null means none (0), where otherwise it means the default.
	none bool
}

// common are the keys that most families name alike.
func common(c *Config) []key {
	return []key{
		{name: "hidden_size", to: &c.Hidden},
		{name: "intermediate_size", to: &c.Intermediate},
		{name: "num_hidden_layers", to: &c.Layers},
		{name: "num_attention_heads", to: &c.Heads},
		{name: "num_key_value_heads", to: &c.KVHeads, otherwise: 0},
		{name: "head_dim", to: &c.HeadDim, otherwise: 0},
		{name: "max_position_embeddings", to: &c.MaxPositions, otherwise: 2048},
		{name: "hidden_act", to: &c.Activation, otherwise: "silu"},
	}
}

// rms are the common keys and the RMS norm's.
func rms(c *Config) []key {
	return append(common(c), key{name: "rms_norm_eps", to: &c.NormEps, otherwise: 1e-6})
}

// layerNorm are the common keys and the layer norm's.
func layerNorm(c *Config) []key {
	return append(common(c), key{name: "layer_norm_eps", to: &c.NormEps, otherwise: 1e-5})
}

// renamed gives keys other names; an empty one leaves the key out.
func renamed(keys []key, names map[string]string) []key {
	var out []key
	for _, k := range keys {
		name, ok := names[k.name]
		if ok && name == "" {
			continue
		}
		if ok {
			k.name = name
		}
		out = append(out, k)
	}
	return out
}

// with gives keys other defaults.
func with(keys []key, defaults map[string]any) []key {
	for i := range keys {
		if v, ok := defaults[keys[i].name]; ok {
			keys[i].otherwise = v
		}
	}
	return keys
}

// set reads the key.
func (f *fields) set(k key) {
	_, there := f.raw[k.name]
	switch to := k.to.(type) {
	case *int:
		if k.otherwise == nil {
			*to = f.count(k.name)
			return
		}
		*to = f.number(k.name, k.missing(there).(int))
	case *float32:
		*to = float32(f.float(k.name, asFloat(k.missing(there))))
	case *float64:
		*to = f.float(k.name, asFloat(k.missing(there)))
	case *bool:
		*to = f.flag(k.name, k.missing(there).(bool))
	case *string:
		*to = f.text(k.name, k.missing(there).(string))
	}
}

// missing returns the value of a key that is absent, or there as null.
func (k key) missing(there bool) any {
	if !there || !k.none {
		return k.otherwise
	}
	if _, ok := k.otherwise.(int); ok {
		return 0
	}
	return 0.0
}

func asFloat(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	return v.(float64)
}

// value is what the key is written as.
func (k key) value() any {
	switch to := k.to.(type) {
	case *int:
		if *to == 0 && k.none {
			return nil
		}
		return *to
	case *float32:
		if *to == 0 && k.none {
			return nil
		}
		return number32(*to)
	case *float64:
		return *to
	case *bool:
		return *to
	case *string:
		return *to
	}
	return nil
}

// number32 writes a single-precision number in its shortest form.
type number32 float32

// MarshalJSON implements json.Marshaler.
func (n number32) MarshalJSON() ([]byte, error) { return json.Marshal(float32(n)) }

// refuse makes a setting that no family here computes an error.
func (f *fields) refuse(name string, have bool) {
	if have && f.err == nil {
		f.err = fmt.Errorf("%s: have %s, which is not supported", name, f.raw[name])
	}
}
