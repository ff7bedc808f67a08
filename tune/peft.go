package tune

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// PEFTPrefix stands before the module path in the names of an adapter's tensors.
const PEFTPrefix = "base_model.model."

// PEFTConfig is an adapter_config.json.
type PEFTConfig map[string]json.RawMessage

// ParsePEFT returns the parameters method that an adapter_config.json describes.
func ParsePEFT(text []byte) (Method, Parameters, error) {
	var c PEFTConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return Method{}, nil, fmt.Errorf("adapter_config.json: %w", err)
	}
	kind, err := c.kind()
	if err != nil {
		return Method{}, nil, err
	}
	var known []string
	for _, m := range registry {
		kinds := strings.Fields(m.PEFT)
		known = append(known, kinds...)
		if !slices.Contains(kinds, kind) {
			continue
		}
		options := m.New()
		if err := options.(PEFTReader).ReadPEFT(c); err != nil {
			return m, nil, fmt.Errorf("adapter_config.json: %w", err)
		}
		return m, options.(Parameters), nil
	}
	slices.Sort(known)
	return Method{}, nil, fmt.Errorf("adapter_config.json: peft_type: want one of %s, have %q", strings.Join(known, ", "), kind)
}

// Layouts of adapter directories beside PEFT's: that of the adapters library, whose config holds the options under config,
// and our own, for methods that no library has files of.
const (
	hubLayout = "adapters/"
	ownLayout = "tunesmith/"
)

// OwnMethod is the key of our own layout that names the method.
const OwnMethod = "tunesmith_method"

// kind returns what an adapter_config.json describes: PEFT's peft_type, or adapters/ and the architecture, or tunesmith/
// and the method.
func (c PEFTConfig) kind() (string, error) {
	if _, ok := c["peft_type"]; !ok {
		own, err := Key(c, OwnMethod, "")
		if err != nil || own != "" {
			return ownLayout + own, err
		}
		if options, ok := c["config"]; ok {
			var inner PEFTConfig
			if err := json.Unmarshal(options, &inner); err != nil {
				return "", fmt.Errorf("adapter_config.json: config: %w", err)
			}
			architecture, err := Key(inner, "architecture", "bottleneck")
			return hubLayout + architecture, err
		}
	}
	return Key(c, "peft_type", "")
}

// weightsFile returns the name of the file of tensors of a kind of adapters.
func weightsFile(kind string) string {
	if strings.HasPrefix(kind, hubLayout) {
		return "adapter.safetensors"
	}
	return adapterWeights
}

// Key reads a key of an adapter_config.json; missing and null give the default.
func Key[T any](c PEFTConfig, key string, otherwise T) (T, error) {
	text, ok := c[key]
	if !ok || string(text) == "null" {
		return otherwise, nil
	}
	v := otherwise
	if err := json.Unmarshal(text, &v); err != nil {
		return otherwise, fmt.Errorf("%s: want %T, have %s", key, otherwise, text)
	}
	return v, nil
}

// ModulesKey reads module names: a list, or one text that is a pattern.
func ModulesKey(c PEFTConfig, key string) (Targets, error) {
	if one, err := Key(c, key, ""); err == nil {
		if one == "" {
			return nil, nil
		}
		return Targets{one}, nil
	}
	list, err := Key(c, key, []string(nil))
	return list, err
}

// PatternsKey reads a map from patterns to values in the order of the file, which decides which pattern counts.
func PatternsKey[T any](c PEFTConfig, key string) (Patterns[T], error) {
	text, ok := c[key]
	if !ok || string(text) == "null" {
		return nil, nil
	}
	var values map[string]T
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("%s: want a map from patterns to values, have %s", key, text)
	}
	var out Patterns[T]
	d := json.NewDecoder(bytes.NewReader(text))
	depth := 0
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' {
				depth++
			}
		case string:
			if v, ok := values[t]; ok && depth == 1 {
				out = append(out, Pattern[T]{t, v})
				delete(values, t)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		out = append(out, Pattern[T]{k, values[k]})
	}
	return out, nil
}
