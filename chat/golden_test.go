package chat

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
	"tunesmith/internal/jinja"
	"tunesmith/token"
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

type goldenRow struct {
	ID      string
	Text    *string
	Error   string
	Message string
	Spans   [][2]int `json:"assistant_spans"`
	Masks   map[string]struct {
		IDs   []int
		Mask  string
		Error string
	}
}

// goldenChat is the reference folder, read once.
type goldenChat struct {
	dir           string
	conversations map[string]goldenConversation
	names         []string // of the templates that were rendered
}

func openGolden(t *testing.T) *goldenChat {
	t.Helper()
	g := &goldenChat{dir: golden.Dir(t, "chat"), conversations: map[string]goldenConversation{}}
	var list []goldenConversation
	golden.JSON(t, filepath.Join(g.dir, "conversations.json"), &list)
	for _, c := range list {
		g.conversations[c.ID] = c
	}
	files, _ := filepath.Glob(filepath.Join(g.dir, "rendered", "*.json"))
	for _, path := range files {
		g.names = append(g.names, strings.TrimSuffix(filepath.Base(path), ".json"))
	}
	if len(g.names) == 0 {
		t.Fatal("no rendered conversations")
	}
	return g
}

// template returns a template of the folder, with the special tokens and the clock of the reference.
func (g *goldenChat) template(t *testing.T, name string) *Template {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(g.dir, "templates", name+".jinja"))
	if err != nil {
		t.Fatal(err)
	}
	tm, err := NewTemplate(string(source), Special{BOS: "<s>", EOS: "</s>", Unk: "<unk>", Pad: "<pad>"})
	if err != nil {
		t.Fatal(err)
	}
	tm.now = func() time.Time { return time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC) }
	return tm
}

func (g *goldenChat) rows(t *testing.T, name string) []goldenRow {
	t.Helper()
	var f struct{ Rows []goldenRow }
	golden.JSON(t, filepath.Join(g.dir, "rendered", name+".json"), &f)
	return f.Rows
}

func (c goldenConversation) conversation(t *testing.T) Conversation {
	t.Helper()
	conv := Conversation{Tools: c.Tools, Extra: map[string]json.RawMessage{}}
	maps.Copy(conv.Extra, c.Kwargs)
	if len(c.Docs) > 0 {
		conv.Extra["documents"] = c.Docs
	}
	if err := json.Unmarshal(c.Messages, &conv.Messages); err != nil {
		t.Fatal(err)
	}
	return conv
}

func (c goldenConversation) bind(tm *Template) *Template {
	if c.Special == nil {
		return tm
	}
	s := *c.Special
	return tm.WithSpecial(Special{BOS: s["bos_token"], EOS: s["eos_token"], Unk: s["unk_token"], Pad: s["pad_token"]})
}

// kind is the Python class of an error. What transformers refuses before or after the template runs is a ValueError.
func kind(err error) string {
	var e *jinja.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return "ValueError"
}

// TestGoldenTemplates renders every template with every conversation: to the byte, or to the same error.
func TestGoldenTemplates(t *testing.T) {
	g := openGolden(t)
	for _, name := range g.names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := g.template(t, name)
			for _, row := range g.rows(t, name) {
				c := g.conversations[row.ID]
				tm, conv := c.bind(whole), c.conversation(t)
				var text string
				var err error
				switch {
				case c.Continue && c.Prompt: // an unfinished message and a new one: no function takes both
					err = errors.New("both")
				case c.Continue:
					text, err = tm.Continue(conv)
				default:
					var p *prepared
					if p, err = tm.prepare(conv); err == nil {
						var res jinja.Result
						res, err = p.render(p.messages, c.Prompt)
						text = res.Text
						if err == nil && row.Spans != nil && res.Exact {
							checkSpans(t, row, tm, conv, p, res)
						}
					}
				}
				switch {
				case row.Text == nil && err == nil:
					t.Errorf("%s: want %s, have %q", row.ID, row.Error, text)
				case row.Text == nil && kind(err) != row.Error:
					t.Errorf("%s: want %s: %s, have %v", row.ID, row.Error, row.Message, err)
				case row.Error == "TemplateError" && !strings.Contains(err.Error(), row.Message):
					t.Errorf("%s: want message %q, have %v", row.ID, row.Message, err)
				case row.Text != nil && err != nil:
					t.Errorf("%s: %v", row.ID, err)
				case row.Text != nil && text != *row.Text:
					t.Errorf("%s: want %q, have %q", row.ID, *row.Text, text)
				}
			}
		})
	}
}

func checkSpans(t *testing.T, row goldenRow, tm *Template, c Conversation, p *prepared, res jinja.Result) {
	t.Helper()
	spans, err := tm.spans(p, c, res)
	if err != nil {
		t.Errorf("%s: %v", row.ID, err)
		return
	}
	have := [][2]int{}
	for _, s := range spans {
		have = append(have, [2]int{utf8.RuneCountInString(res.Text[:s.Start]), utf8.RuneCountInString(res.Text[:s.End])})
	}
	if diff := cmp.Diff(row.Spans, have); diff != "" {
		t.Errorf("%s: spans (-want +have): %s", row.ID, diff)
	}
}

// openPadded opens a tokenizer of the reference with the special tokens that transformers adds to it.
func openPadded(t *testing.T, name string) *token.Tokenizer {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(golden.Dir(t, "tokenizers"), "tokenizers", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]json.RawMessage
	var added []map[string]any
	var model struct{ Vocab map[string]int }
	for _, err := range []error{json.Unmarshal(b, &file), json.Unmarshal(file["added_tokens"], &added), json.Unmarshal(file["model"], &model)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	next := 0
	known := map[string]bool{}
	for s, id := range model.Vocab {
		known[s], next = true, max(next, id+1)
	}
	for _, a := range added {
		known[a["content"].(string)] = true
		next = max(next, int(a["id"].(float64))+1)
	}
	for _, s := range []string{"<s>", "</s>", "<unk>", "<pad>"} {
		if !known[s] {
			added = append(added, map[string]any{"id": next, "content": s, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
			next++
		}
	}
	if file["added_tokens"], err = json.Marshal(added); err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	tok, err := token.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestGoldenMasks compares ids and the mask of assistant tokens: those from the token of a span's first character to
// that of its last.
func TestGoldenMasks(t *testing.T) {
	g := openGolden(t)
	tokenizers := map[string]*token.Tokenizer{}
	seen := 0
	for _, name := range g.names {
		whole := g.template(t, name)
		for _, row := range g.rows(t, name) {
			for tokName, want := range row.Masks {
				if want.Error != "" {
					continue
				}
				if tokenizers[tokName] == nil {
					tokenizers[tokName] = openPadded(t, tokName)
				}
				c := g.conversations[row.ID]
				r, err := c.bind(whole).Render(c.conversation(t), c.Prompt)
				if err != nil {
					t.Errorf("%s %s: %v", name, row.ID, err)
					continue
				}
				pieces := tokenizers[tokName].Encode(r.Text)
				e := Example{Text: r.Text, Pieces: pieces, IDs: make([]int, len(pieces))}
				mask := make([]byte, len(pieces))
				for i, p := range pieces {
					e.IDs[i], mask[i] = p.ID, '0'
				}
				for _, s := range r.Spans {
					for i, p := range pieces {
						if p.Start < s.End && p.End > s.Start {
							mask[i] = '1'
						}
					}
				}
				if !slices.Equal(want.IDs, e.IDs) {
					t.Errorf("%s %s %s: want ids %v, have %v", name, row.ID, tokName, want.IDs, e.IDs)
				} else if want.Mask != string(mask) {
					t.Errorf("%s %s %s:\nwant mask %s\nhave      %s", name, row.ID, tokName, want.Mask, mask)
				}
				seen++
			}
		}
	}
	if seen == 0 {
		t.Error("no masks among the reference renderings")
	}
	t.Logf("%d masks", seen)
}

// TestGoldenDiff holds the spans that are found without {% generation %} blocks against the blocks of the same
// template: with the blocks' tags cut out the text stays, and the answers must be found again. A block may also hold
// what the generation prompt gives the model anyway. A few templates put more or less into their blocks than an
// answer and its end; those are logged, and must stay few.
func TestGoldenDiff(t *testing.T) {
	g := openGolden(t)
	same, all := 0, 0
	for _, name := range g.names {
		whole := g.template(t, name)
		if !whole.main.HasGeneration() {
			continue
		}
		bare, err := NewTemplate(ungenerated(whole.source), whole.special)
		if err != nil {
			t.Fatal(err)
		}
		bare.now = whole.now
		for _, row := range g.rows(t, name) {
			c := g.conversations[row.ID]
			if row.Text == nil || c.Continue || c.Prompt {
				continue
			}
			conv := c.conversation(t)
			tm := c.bind(bare)
			want, err := c.bind(whole).Render(conv, false)
			if err != nil || len(want.Spans) == 0 {
				continue
			}
			p, err := tm.prepare(conv)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.lost(conv, want.Text); err != nil {
				continue // the template loses an answer: there is nothing to find
			}
			prompt, err := p.render(p.messages, true)
			if err != nil {
				t.Fatal(err)
			}
			all++
			have, err := tm.Render(conv, false)
			if err != nil {
				t.Logf("%s %s: %v", name, row.ID, err)
				continue
			}
			if have.Text != want.Text {
				t.Errorf("%s %s: the text without tags differs", name, row.ID)
				continue
			}
			equal := func(a, b string) bool {
				// Some templates write EOS behind the token that ends the last turn.
				given, ok := strings.CutSuffix(strings.TrimSuffix(a, "</s>"), strings.TrimSuffix(b, "</s>"))
				return ok && strings.Contains(prompt.Text, given)
			}
			if a, b := answers(want), answers(have); slices.EqualFunc(a, b, equal) {
				same++
			} else {
				t.Logf("%s %s: %s", name, row.ID, cmp.Diff(a, b))
			}
		}
	}
	if same*100 < all*95 {
		t.Errorf("the spans of only %d of %d renderings are found again", same, all)
	}
	t.Logf("%d of %d", same, all)
}

// ungenerated cuts the tags of generation blocks out, and keeps what they trim.
func ungenerated(source string) string {
	for _, tag := range []string{"generation", "endgeneration"} {
		for _, form := range []string{"{%- TAG -%}", "{%- TAG %}", "{% TAG -%}", "{% TAG %}", "{%-TAG-%}"} {
			form := strings.ReplaceAll(form, "TAG", tag)
			with := strings.NewReplacer("endgeneration", "endif", "generation", "if true").Replace(form)
			source = strings.ReplaceAll(source, form, with)
		}
	}
	return source
}

// answers lists the texts of the spans, those of one turn together, without white space around them.
func answers(r Rendered) []string {
	var out []string
	end := -1
	for _, s := range r.Spans {
		part := strings.TrimSpace(r.Text[s.Start:s.End])
		switch {
		case part == "":
			continue
		case end >= 0 && strings.TrimSpace(r.Text[end:s.Start]) == "":
			out[len(out)-1] += part
		default:
			out = append(out, part)
		}
		end = s.End
	}
	return out
}

// TestGoldenBuiltins compares built-in templates with those of the models' publishers, on conversations of text.
func TestGoldenBuiltins(t *testing.T) {
	g := openGolden(t)
	for name, theirs := range map[string]string{
		"chatml": "axolotl_chatml", "qwen": "trl_qwen3_instruct_2507", "llama3": "trl_llama3", "gemma": "trl_gemma", "phi3": "trl_phi3",
		"alpaca": "axolotl_alpaca", "deepseek": "trl_deepseekv3",
	} {
		if !slices.Contains(g.names, theirs) {
			t.Logf("%s: no rendering of %s here", name, theirs)
			continue
		}
		tm, ok := Builtin(name)
		if !ok {
			t.Errorf("%s: no such template", name)
			continue
		}
		compared := 0
		for _, row := range g.rows(t, theirs) {
			c := g.conversations[row.ID]
			conv := c.conversation(t)
			plain := !c.Prompt && !c.Continue && len(c.Tools) == 0 && c.Special == nil && row.Text != nil &&
				conv.Messages[len(conv.Messages)-1].Role == assistant
			for _, m := range conv.Messages {
				plain = plain && slices.Contains([]string{"user", "assistant", "system"}, m.Role) && m.Content != "" &&
					m.read.dict.Len() == 2 && !strings.Contains(m.Content, "think>")
			}
			if !plain {
				continue
			}
			r, err := tm.Render(conv, false)
			if err != nil {
				t.Errorf("%s %s: %v", name, row.ID, err)
				continue
			}
			want := strings.ReplaceAll(*row.Text, "<｜end▁of▁sentence｜>", "</s>") // DeepSeek's EOS stands in its text
			if name == "phi3" {
				want = strings.TrimSuffix(want, "</s>") // behind the token that ends the turn
			}
			if r.Text != want {
				t.Errorf("%s %s:\nwant %q\nhave %q", name, row.ID, want, r.Text)
			}
			compared++
		}
		if compared == 0 {
			t.Errorf("%s: nothing compared with %s", name, theirs)
		}
	}
}

// TestGoldenSFT compares ids and labels of conversations prepared for training: all tokens, or the assistant's alone.
func TestGoldenSFT(t *testing.T) {
	dir := golden.Dir(t, "objectives")
	tok, err := token.Open(filepath.Join(dir, "tiny_llama"))
	if err != nil {
		t.Fatal(err)
	}
	tm, err := FromDir(filepath.Join(dir, "tiny_llama"))
	if err != nil {
		t.Fatal(err)
	}
	bare, err := NewTemplate(ungenerated(tm.Source()), tm.Special())
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Name    string
			Config  map[string]any
			Raw     []struct{ Messages []Message }
			Dataset []struct {
				IDs    []int `json:"input_ids"`
				Labels []int
			}
		}
	}
	golden.JSON(t, filepath.Join(dir, "sft_data.json"), &file)
	compared := 0
	for _, c := range file.Cases {
		if c.Raw[0].Messages == nil {
			continue // not conversations, or prompts with their completions: package data joins those
		}
		limit, _ := c.Config["max_length"].(float64)
		turns := AllTokens
		if only, _ := c.Config["assistant_only_loss"].(bool); only {
			turns = AllTurns
		}
		for _, tm := range []*Template{tm, bare} {
			i := 0
			for _, row := range c.Raw {
				e, warnings, err := tm.Encode(tok, Conversation{Messages: row.Messages}, turns, nil)
				if err != nil || len(warnings) > 0 {
					t.Fatalf("%s %d: %v, %v", c.Name, i, warnings, err)
				}
				labels := slices.Clone(e.IDs)
				for k, train := range e.Train {
					if !train {
						labels[k] = -100
					}
				}
				if n := int(limit); n > 0 && n < len(labels) {
					e.IDs, labels = e.IDs[:n], labels[:n]
				}
				if !slices.ContainsFunc(labels, func(l int) bool { return l >= 0 }) {
					continue // the reference leaves a row out of which nothing is trained
				}
				want := c.Dataset[i]
				if !slices.Equal(want.IDs, e.IDs) || !slices.Equal(want.Labels, labels) {
					t.Errorf("%s %d:\nwant ids %v labels %v\nhave ids %v labels %v", c.Name, i, want.IDs, want.Labels, e.IDs, labels)
				}
				compared++
				i++
			}
			if i != len(c.Dataset) {
				t.Errorf("%s: %d rows, want %d", c.Name, i, len(c.Dataset))
			}
		}
	}
	if compared == 0 {
		t.Error("no conversations among the cases")
	}
}
