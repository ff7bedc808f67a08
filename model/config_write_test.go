package model

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

// TestGoldenConfigJSON writes the configuration of every golden model and reads it back.
func TestGoldenConfigJSON(t *testing.T) {
	dir := golden.Dir(t, "models")
	n := 0
	for _, name := range golden.Cases(t, dir, "config.json") {
		var kind struct{ Head string }
		golden.JSON(t, filepath.Join(dir, name, "case.json"), &kind)
		if kind.Head == "layer" {
			continue // no whole model
		}
		c, err := ReadConfig(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		n++
		t.Run(name, func(t *testing.T) {
			text, err := c.JSON("float32")
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseConfig(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, again); diff != "" {
				t.Errorf("-want +have:\n%s", diff)
			}
		})
	}
	if n == 0 {
		t.Error("no configuration could be read")
	}
}

// TestConfigJSONRefuses: what the type has no key for is an error, not a loss.
func TestConfigJSONRefuses(t *testing.T) {
	c, err := ParseConfig([]byte(`{"model_type": "mistral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.JSON("float32"); err != nil {
		t.Error(err)
	}
	c.QKVBias = true
	if text, err := c.JSON("float32"); err == nil {
		t.Errorf("mistral has no biases, but this was written: %s", text)
	}
}
