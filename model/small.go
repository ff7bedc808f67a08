package model

import "encoding/json"

// Small returns a config of the type that is small enough for tests and checks: two layers of 32 channels, and windows,
// groups of queries and experts where the type has them.
func Small(modelType string) (Config, error) {
	a, err := lookup(modelType)
	if err != nil {
		return Config{}, err
	}
	var c Config
	values := map[any]any{
		&c.Hidden: 32, &c.Intermediate: 48, &c.Layers: 2, &c.Heads: 4, &c.KVHeads: 2, &c.HeadDim: 8, &c.MaxPositions: 64, &c.Query: 8,
		&c.Mixture.Experts: 4, &c.Mixture.PerToken: 2, &c.Mixture.Width: 24, &c.Mixture.Shared: 24,
	}
	m := map[string]any{
		"model_type": modelType, "vocab_size": 64, "num_experts": 4, "sliding_window": 8, "sliding_window_pattern": 2, "no_rope_layer_interval": 2,
	}
	for _, k := range a.keys(&c) {
		if v, ok := values[k.to]; ok {
			m[k.name] = v
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return c, err
	}
	return ParseConfig(text)
}
