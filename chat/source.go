package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// FromDir returns the chat template of a Hugging Face directory: chat_template.jinja, or chat_template in
// tokenizer_config.json, as one text or as a list of named ones of which "default" counts. It is nil where there is
// none.
func FromDir(dir string) (*Template, error) {
	path := filepath.Join(dir, "tokenizer_config.json")
	var config struct {
		Template json.RawMessage `json:"chat_template"`
		BOS      json.RawMessage `json:"bos_token"`
		EOS      json.RawMessage `json:"eos_token"`
		Unk      json.RawMessage `json:"unk_token"`
		Pad      json.RawMessage `json:"pad_token"`
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(text, &config); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	special := Special{BOS: name(config.BOS), EOS: name(config.EOS), Unk: name(config.Unk), Pad: name(config.Pad)}
	source, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja"))
	switch {
	case err == nil:
		return NewTemplate(string(source), special)
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("chat template: %w", err)
	case len(config.Template) == 0 || string(config.Template) == "null":
		return nil, nil
	}
	var one string
	if json.Unmarshal(config.Template, &one) == nil {
		return NewTemplate(one, special)
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(config.Template, &named); err != nil {
		return nil, fmt.Errorf("%s: chat_template: want text, or a list of name and template", path)
	}
	for _, n := range named {
		if n.Name == "default" {
			return NewTemplate(n.Template, special)
		}
	}
	return nil, fmt.Errorf("%s: chat_template: none of the %d templates is named default", path, len(named))
}

// name reads a token that is written as text or as an object with its content.
func name(text json.RawMessage) string {
	var s string
	if json.Unmarshal(text, &s) == nil {
		return s
	}
	var o struct{ Content string }
	if json.Unmarshal(text, &o) == nil {
		return o.Content
	}
	return ""
}

// FromGGUF returns the chat template of a GGUF file's metadata, nil where there is none.
func FromGGUF(meta map[string]any) (*Template, error) {
	source, ok := meta["tokenizer.chat_template"].(string)
	if !ok || source == "" {
		return nil, nil
	}
	tokens, _ := meta["tokenizer.ggml.tokens"].([]string)
	token := func(key string) string {
		if id, ok := meta["tokenizer.ggml."+key+"_token_id"].(uint32); ok && int(id) < len(tokens) {
			return tokens[id]
		}
		return ""
	}
	return NewTemplate(source, Special{BOS: token("bos"), EOS: token("eos"), Unk: token("unknown"), Pad: token("padding")})
}
