package chat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tunesmith/internal/golden"
)

type goldenConversation struct {
	ID       string                     `json:"id"`
	Messages json.RawMessage            `json:"messages"`
	Tools    json.RawMessage            `json:"tools"`
	Docs     json.RawMessage            `json:"documents"`
	Prompt   bool                       `json:"add_generation_prompt"`
	Continue bool                       `json:"continue_final_message"`
	Kwargs   map[string]json.RawMessage `json:"kwargs"`
	Special  *map[string]string         `json:"special_tokens"`
}

// TestGoldenTemplates renders every template with every conversation. A rendering with continue_final_message is
// not part of this package.
func TestGoldenTemplates(t *testing.T) {
	dir := golden.Dir(t, "chat")
	var list []goldenConversation
	golden.JSON(t, filepath.Join(dir, "conversations.json"), &list)
	byID := map[string]goldenConversation{}
	for _, c := range list {
		byID[c.ID] = c
	}
	files, _ := filepath.Glob(filepath.Join(dir, "rendered", "*.json"))
	if len(files) == 0 {
		t.Fatal("no rendered conversations")
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(filepath.Join(dir, "templates", name+".jinja"))
			if err != nil {
				t.Fatal(err)
			}
			var f struct {
				Rows []struct {
					ID    string
					Text  *string
					Error string
					Spans [][2]int `json:"assistant_spans"`
				}
			}
			golden.JSON(t, path, &f)
			for _, row := range f.Rows {
				c, ok := byID[row.ID]
				if !ok || c.Continue {
					continue
				}
				special := Special{BOS: "<s>", EOS: "</s>", Unk: "<unk>", Pad: "<pad>"}
				if c.Special != nil {
					s := *c.Special
					special = Special{BOS: s["bos_token"], EOS: s["eos_token"], Unk: s["unk_token"], Pad: s["pad_token"]}
				}
				tm, err := NewTemplate(string(source), special)
				if err != nil {
					t.Fatal(err)
				}
				tm.now = func() time.Time { return time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC) }
				conv := Conversation{Tools: c.Tools, Extra: c.Kwargs}
				if len(c.Docs) > 0 {
					conv.Extra = map[string]json.RawMessage{"documents": c.Docs}
					for k, v := range c.Kwargs {
						conv.Extra[k] = v
					}
				}
				if err := json.Unmarshal(c.Messages, &conv.Messages); err != nil {
					t.Fatal(err)
				}
				res, err := tm.render(conv, c.Prompt)
				switch {
				case row.Text == nil && err == nil:
					t.Errorf("%s: want %s, have %q", row.ID, row.Error, res.Text)
				case row.Text != nil && err != nil:
					t.Errorf("%s: %v", row.ID, err)
				case row.Text != nil && res.Text != *row.Text:
					t.Errorf("%s: want %q, have %q", row.ID, *row.Text, res.Text)
				case row.Text != nil && row.Spans != nil && res.Exact:
					checkSpans(t, row.ID, tm, conv, c.Prompt, row.Spans)
				}
			}
		})
	}
}

func checkSpans(t *testing.T, id string, tm *Template, c Conversation, prompt bool, want [][2]int) {
	t.Helper()
	r, err := tm.Render(c, prompt)
	if err != nil {
		t.Errorf("%s: %v", id, err)
		return
	}
	var have [][2]int
	for _, s := range r.Spans {
		have = append(have, [2]int{utf8.RuneCountInString(r.Text[:s.Start]), utf8.RuneCountInString(r.Text[:s.End])})
	}
	if len(have) != len(want) {
		t.Errorf("%s: spans: want %v, have %v", id, want, have)
		return
	}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("%s: span %d: want %v, have %v", id, i, want[i], have[i])
		}
	}
}
