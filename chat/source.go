package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names of templates where a model has several.
const (
	mainName  = "default"
	toolsName = "tool_use"
)

// FromDir returns the chat template of a Hugging Face directory, nil where there is none: chat_template.jinja with
// the files of additional_chat_templates, or chat_template in tokenizer_config.json, which is one text or a list of
// named ones. Of several, the one named default is taken, and tool_use for conversations with tools.
func FromDir(dir string) (*Template, error) {
	var config struct {
		Template json.RawMessage `json:"chat_template"`
		specialNames
	}
	path := filepath.Join(dir, "tokenizer_config.json")
	if err := readJSON(path, &config); err != nil {
		return nil, err
	}
	special := config.specialNames
	if err := readJSON(filepath.Join(dir, "special_tokens_map.json"), &special); err != nil {
		return nil, err
	}
	special = special.or(config.specialNames)

	named := map[string]string{}
	var one string
	var list []struct{ Name, Template string }
	switch {
	case len(config.Template) == 0 || string(config.Template) == "null":
	case json.Unmarshal(config.Template, &one) == nil:
		named[mainName] = one
	case json.Unmarshal(config.Template, &list) == nil:
		for _, n := range list {
			named[n.Name] = n.Template
		}
	default:
		return nil, fmt.Errorf("%s: chat_template: want text, or a list of name and template", path)
	}
	// Files win: newer versions of transformers write these and no longer the key.
	files, err := filepath.Glob(filepath.Join(dir, "additional_chat_templates", "*.jinja"))
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	for _, f := range append(files, filepath.Join(dir, "chat_template.jinja")) {
		source, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("chat template: %w", err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".jinja")
		if name == "chat_template" {
			name = mainName
		}
		named[name] = string(source)
	}
	t, err := fromNamed(named, special.special())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return t, nil
}

// fromNamed makes a template of those that a model has.
func fromNamed(named map[string]string, special Special) (*Template, error) {
	if len(named) == 0 {
		return nil, nil
	}
	source, ok := named[mainName]
	if !ok {
		var names []string
		for name := range named {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("chat template: none is named %s, only %s; copy one to chat_template.jinja", mainName, strings.Join(names, ", "))
	}
	t, err := NewTemplate(source, special)
	if err != nil {
		return nil, err
	}
	if source, ok := named[toolsName]; ok {
		if t.tools, err = NewTemplate(source, special); err != nil {
			return nil, fmt.Errorf("%s: %w", toolsName, err)
		}
	}
	return t, nil
}

// readJSON reads a JSON file into v; a file that is missing leaves v as it is.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("chat template: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// specialNames are special tokens as a tokenizer's configuration names them.
type specialNames struct {
	BOS tokenName `json:"bos_token"`
	EOS tokenName `json:"eos_token"`
	Unk tokenName `json:"unk_token"`
	Pad tokenName `json:"pad_token"`
}

// or prefers the names of first.
func (s specialNames) or(first specialNames) specialNames {
	for _, p := range []struct{ to, from *tokenName }{{&s.BOS, &first.BOS}, {&s.EOS, &first.EOS}, {&s.Unk, &first.Unk}, {&s.Pad, &first.Pad}} {
		if *p.from != "" {
			*p.to = *p.from
		}
	}
	return s
}

func (s specialNames) special() Special {
	return Special{BOS: string(s.BOS), EOS: string(s.EOS), Unk: string(s.Unk), Pad: string(s.Pad)}
}

// tokenName is a token, written as text or as an object with its content.
type tokenName string

// UnmarshalJSON reads both forms; null is no token.
func (n *tokenName) UnmarshalJSON(b []byte) error {
	var s *string
	if json.Unmarshal(b, &s) == nil {
		if s != nil {
			*n = tokenName(*s)
		}
		return nil
	}
	var o struct{ Content string }
	if err := json.Unmarshal(b, &o); err != nil {
		return fmt.Errorf("special token: want text, or an object with content, have %.40s", b)
	}
	*n = tokenName(o.Content)
	return nil
}

// FromGGUF returns the chat template of a GGUF file's metadata, nil where there is none.
func FromGGUF(meta map[string]any) (*Template, error) {
	const key = "tokenizer.chat_template"
	named := map[string]string{}
	if source, _ := meta[key].(string); source != "" {
		named[mainName] = source
	}
	if source, _ := meta[key+"."+toolsName].(string); source != "" {
		named[toolsName] = source
	}
	tokens, _ := meta["tokenizer.ggml.tokens"].([]string)
	token := func(name string) string {
		id, ok := meta["tokenizer.ggml."+name+"_token_id"].(uint32)
		if !ok || int64(id) >= int64(len(tokens)) {
			return ""
		}
		return tokens[id]
	}
	return fromNamed(named, Special{BOS: token("bos"), EOS: token("eos"), Unk: token("unknown"), Pad: token("padding")})
}
