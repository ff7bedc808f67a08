package chat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFromDir(t *testing.T) {
	const words = `"bos_token": {"content": "<s>", "special": true}, "eos_token": "</s>", "pad_token": null`
	for _, k := range []struct {
		name  string
		files map[string]string
		tools bool
		want  string // rendered, "" for no template, "!" and a part of the error
	}{
		{"none", nil, false, ""},
		{"null", map[string]string{"tokenizer_config.json": `{"chat_template": null}`}, false, ""},
		{"text", map[string]string{"tokenizer_config.json": `{"chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}", ` + words + `}`}, false, "<s></s>False"},
		{"map", map[string]string{"tokenizer_config.json": `{"chat_template": "{{ eos_token }}"}`, "special_tokens_map.json": `{"eos_token": {"content": "<e>"}}`}, false, "<e>"},
		{"file", map[string]string{"tokenizer_config.json": `{"chat_template": "old", ` + words + `}`, "chat_template.jinja": "new{{ eos_token }}\n"}, false, "new</s>"},
		{"list", map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}`}, false, "D"},
		{"tools", map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}`}, true, "T"},
		{"folder", map[string]string{"chat_template.jinja": "D", "additional_chat_templates/tool_use.jinja": "T"}, true, "T"},
		{"no default", map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "R"}]}`}, false, "!only rag"},
		{"number", map[string]string{"tokenizer_config.json": `{"chat_template": 5}`}, false, "!want text, or a list"},
		{"token", map[string]string{"tokenizer_config.json": `{"eos_token": 5}`}, false, "!want text, or an object"},
		{"no JSON", map[string]string{"tokenizer_config.json": `{`}, false, "!tokenizer_config.json"},
		{"no Jinja", map[string]string{"chat_template.jinja": "{% if %}"}, false, "!chat template: template line 1"},
	} {
		dir := t.TempDir()
		for name, text := range k.files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		tm, err := FromDir(dir)
		if part, ok := strings.CutPrefix(k.want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want an error with %q", k.name, err, part)
			}
			continue
		}
		if err != nil || (tm == nil) != (k.want == "") {
			t.Errorf("%s: got %v, %v", k.name, tm, err)
			continue
		}
		if tm == nil {
			continue
		}
		c := talk("u:q")
		if k.tools {
			c.Tools = json.RawMessage(`[{}]`)
		}
		if r, err := tm.Render(c, false); err != nil || r.Text != k.want {
			t.Errorf("%s: got %q, %v; want %q", k.name, r.Text, err, k.want)
		}
	}
}

func TestFromGGUF(t *testing.T) {
	meta := map[string]any{
		"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}", "tokenizer.chat_template.tool_use": "T",
		"tokenizer.ggml.tokens":       []string{"<e>", "<b>"},
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(0), "tokenizer.ggml.padding_token_id": uint32(7),
	}
	tm, err := FromGGUF(meta)
	if err != nil {
		t.Fatal(err)
	}
	c := talk("u:q")
	if r, err := tm.Render(c, false); err != nil || r.Text != "<b>q<e>" {
		t.Errorf("got %q, %v", r.Text, err)
	}
	c.Tools = json.RawMessage(`[]`)
	if r, err := tm.Render(c, false); err != nil || r.Text != "T" {
		t.Errorf("with tools: got %q, %v", r.Text, err)
	}
	if tm, err := FromGGUF(map[string]any{}); tm != nil || err != nil {
		t.Errorf("no template: got %v, %v", tm, err)
	}
	if _, err := FromGGUF(map[string]any{"tokenizer.chat_template": "{{"}); err == nil {
		t.Error("a broken template: no error")
	}
}
