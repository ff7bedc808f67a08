package model

import (
	"fmt"
	"slices"
)

// biasKeys are the keys of config.json that give all projections of attention, and of the feed-forward, a bias.
var biasKeys = map[string]struct{ attention, feedForward string }{
	"llama": {"attention_bias", "mlp_bias"},
	"qwen3": {"attention_bias", ""},
}

// WithBiases returns the config of the same model with the biases named, and the keys of config.json that say so. A key
// gives a bias to all projections of its block.
func (m *Model) WithBiases(names []string) (Config, map[string]any, error) {
	c, keys := m.Config, map[string]any{}
	k := biasKeys[c.Type]
	for _, try := range []struct {
		key string
		set []*bool
	}{{k.attention, []*bool{&c.QKVBias, &c.OutBias}}, {k.feedForward, []*bool{&c.MLPBias}}} {
		if try.key == "" {
			continue
		}
		before := c
		for _, b := range try.set {
			*b = true
		}
		more, err := New(c)
		if err != nil {
			return c, nil, err
		}
		without, err := New(before)
		if err != nil {
			return c, nil, err
		}
		needed := slices.ContainsFunc(names, func(name string) bool {
			_, there := more.Map().Param(name)
			_, already := without.Map().Param(name)
			return there && !already
		})
		if needed {
			keys[try.key] = true
		} else {
			c = before
		}
	}
	whole, err := New(c)
	if err != nil {
		return c, nil, err
	}
	for _, name := range names {
		if _, ok := whole.Map().Param(name); !ok {
			return c, nil, fmt.Errorf("a %s model has no place for %q; hand over the adapter instead", c.Type, name)
		}
	}
	return c, keys, nil
}
