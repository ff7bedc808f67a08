package data

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"tunesmith/chat"
	"tunesmith/internal/golden"
	"tunesmith/token"
)

// TestGoldenSFT carries the raw rows of the reference through file, record, example and packing.
func TestGoldenSFT(t *testing.T) {
	dir := golden.Dir(t, "objectives")
	tok := openWords(t, filepath.Join(dir, "tiny_llama", "tokenizer.json"))
	template, err := chat.FromDir(filepath.Join(dir, "tiny_llama"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Name   string
			Config struct {
				MaxLength      int     `json:"max_length"`
				Truncation     string  `json:"truncation_mode"`
				CompletionOnly *bool   `json:"completion_only_loss"`
				AssistantOnly  bool    `json:"assistant_only_loss"`
				Packing        bool    `json:"packing"`
				Strategy       Packing `json:"packing_strategy"`
			}
			Raw     []json.RawMessage
			Dataset []prepared
		}
	}
	golden.JSON(t, filepath.Join(dir, "sft_data.json"), &file)
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			conversations := strings.Contains(string(c.Raw[0]), `"role"`)
			completions := strings.Contains(string(c.Raw[0]), `"completion"`)
			r := Rendering{Tokenizer: tok, Template: template}
			everyTurn := c.Config.CompletionOnly != nil && !*c.Config.CompletionOnly
			switch {
			case c.Config.AssistantOnly:
			case conversations && completions:
				// The reference trains all that follows the prompt. Here an answer ends with its end token, and the
				// line end behind it, the last token of a conversation, is not trained.
				for i := range c.Dataset {
					labels := c.Dataset[i].Labels
					labels[len(labels)-1] = -100
				}
			case conversations || everyTurn:
				r.Turns = chat.AllTokens
			}
			var lines []string
			for _, raw := range c.Raw {
				lines = append(lines, string(raw))
			}
			path := filepath.Join(files(t, map[string]string{"a.jsonl": strings.Join(lines, "\n")}), "a.jsonl")
			limit, over := c.Config.MaxLength, KeepStart
			if c.Config.Truncation == "keep_end" {
				over = KeepEnd
			}
			if c.Config.Packing { // packing cuts by its own rule
				limit = 0
			}
			var examples []Example
			for _, rec := range readAll(t, Source{Path: path}, &Ledger{}) {
				if conversations && everyTurn { // also the answers inside the prompt
					for i, m := range rec.Messages {
						rec.Train[i] = m.Role == assistant
					}
				}
				e, warnings, err := r.Render(rec)
				if err != nil || len(warnings) > 0 {
					t.Fatal(err, warnings)
				}
				fitted, _ := Fit(e, limit, over)
				examples = append(examples, fitted...)
			}
			var got []prepared
			if !c.Config.Packing {
				for _, e := range examples {
					got = append(got, labelled(e))
				}
			} else {
				var lengths []int
				for _, e := range examples {
					lengths = append(lengths, len(e.IDs))
				}
				rows := Pack(lengths, c.Config.MaxLength, c.Config.Strategy)
				for i := range rows.Len() {
					var p prepared
					for _, s := range rows.Row(i) {
						q := labelled(examples[s.Example])
						p.IDs = append(p.IDs, q.IDs[s.Start:s.End]...)
						p.Labels = append(p.Labels, q.Labels[s.Start:s.End]...)
						if c.Config.Strategy != Wrapped {
							p.SeqLengths = append(p.SeqLengths, s.len())
						}
					}
					got = append(got, p)
				}
			}
			if diff := cmp.Diff(c.Dataset, got); diff != "" {
				t.Errorf("examples (-want +got):\n%s", diff)
			}
		})
	}
}

// words is the tokenizer of the reference's models: names of special tokens, line ends, and words between blanks.
type words struct {
	vocab   map[string]int
	special []string
	pattern *regexp.Regexp
}

func openWords(t *testing.T, path string) *words {
	t.Helper()
	var file struct {
		Model struct{ Vocab map[string]int }
		Added []struct{ Content string } `json:"added_tokens"`
	}
	golden.JSON(t, path, &file)
	w := &words{vocab: file.Model.Vocab}
	for _, a := range file.Added {
		w.special = append(w.special, regexp.QuoteMeta(a.Content))
	}
	names := strings.Join(w.special, "|")
	w.pattern = regexp.MustCompile(names + `|\n|[^ \n<]+|<`)
	return w
}

func (w *words) Encode(text string, _ ...token.Option) []token.Piece {
	var out []token.Piece
	for _, at := range w.pattern.FindAllStringIndex(text, -1) {
		id, ok := w.vocab[text[at[0]:at[1]]]
		if !ok {
			id = w.vocab["<unk>"]
		}
		out = append(out, token.Piece{ID: id, Start: at[0], End: at[1]})
	}
	return out
}
func (w *words) EOS() int              { return w.vocab["</s>"] }
func (w *words) IsSpecial(id int) bool { return id < len(w.special) }
func (w *words) Token(id int) string   { return "" }

// labelled writes an example as the reference does.
func labelled(e Example) prepared {
	p := prepared{IDs: e.IDs}
	for i, id := range e.IDs {
		if !e.Train[i] {
			id = -100
		}
		p.Labels = append(p.Labels, id)
	}
	return p
}

// pairs is a tokenizer whose tokens are two bytes long; 1 begins a text, 0 ends it.
type pairs struct{}

func (pairs) Encode(text string, opts ...token.Option) []token.Piece {
	var out []token.Piece
	if len(opts) > 0 {
		out = append(out, token.Piece{ID: 1})
	}
	for i := 0; i < len(text); i += 2 {
		out = append(out, token.Piece{ID: 2 + int(text[i]), Start: i, End: min(i+2, len(text))})
	}
	return out
}
func (pairs) EOS() int              { return 0 }
func (pairs) IsSpecial(id int) bool { return id < 2 }
func (pairs) Token(id int) string   { return string(rune(id)) }

func TestRenderPlain(t *testing.T) {
	r := Rendering{Tokenizer: pairs{}}
	for _, c := range []struct {
		name string
		rec  Record
		want string // x trained, o not
		said int
	}{
		{"text", Record{Kind: Text, Text: "abcd"}, "xxxx", 0},
		{"border between tokens", Record{Kind: Completion, Prompt: Part{Text: "ab"}, Answer: Part{Text: "cd"}}, "ooxx", 0},
		{"border in a token", Record{Kind: Completion, Prompt: Part{Text: "abc"}, Answer: Part{Text: "def"}}, "ooxxx", 1},
		{"empty answer", Record{Kind: Completion, Prompt: Part{Text: "abcd"}}, "ooox", 0},
		{"empty prompt", Record{Kind: Completion, Answer: Part{Text: "abcd"}}, "oxxx", 0},
		{"segments", Record{Kind: Segmented, Segments: []Segment{{"ab", true}, {"cd", false}, {"ef", true}}}, "xox", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, warnings, err := r.Render(c.rec)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, train := range e.Train {
				got.WriteByte("ox"[number01(train)])
			}
			if got.String() != c.want || len(warnings) != c.said || e.Weight != 1 {
				t.Errorf("marks %s, want %s; %q", &got, c.want, warnings)
			}
			if c.rec.Kind != Segmented && (e.IDs[0] != 1 || e.IDs[len(e.IDs)-1] != 0) {
				t.Errorf("ids %v do not begin with 1 and end with 0", e.IDs)
			}
		})
	}
	for _, kind := range []Kind{Preference, Feedback, Stepwise, PromptOnly, Chat} {
		if _, _, err := r.Render(Record{Kind: kind, Messages: []Message{{Role: "user", Content: "a"}}}); err == nil {
			t.Errorf("kind %s: no error", kind)
		}
	}
}

func TestRenderAnswer(t *testing.T) {
	template, ok := chat.Builtin("chatml")
	if !ok {
		t.Fatal("no template chatml")
	}
	r := Rendering{Tokenizer: pairs{}, Template: template, Turns: chat.AllTokens}
	rec := Record{
		Kind:   Preference,
		Prompt: Part{Messages: []Message{{Role: "user", Content: "q"}, {Role: "assistant", Content: "earlier"}, {Role: "user", Content: "r"}}},
		Chosen: Part{Messages: []Message{{Role: "assistant", Content: "better"}}},
	}
	e, _, err := r.RenderAnswer(rec, rec.Chosen)
	if err != nil {
		t.Fatal(err)
	}
	// Two bytes a token: only tokens of the last message are trained.
	n := slices.Index(e.Train, true)
	if n < len(e.Train)-16 || !slices.Contains(e.Train, true) {
		t.Errorf("token %d of %d is the first that is trained", n, len(e.Train))
	}
	if _, _, err := r.RenderAnswer(rec, Part{Text: "plain"}); err == nil {
		t.Error("a prompt of messages and an answer of text: no error")
	}
	e, _, err = r.RenderAnswer(Record{Prompt: Part{Text: "ab"}}, Part{Text: "cd"})
	if err != nil || !slices.Equal(e.Train, []bool{false, false, true, true}) {
		t.Errorf("marks %v, %v", e.Train, err)
	}
}

// A conversation keeps calls and thoughts on the way to the template.
func TestConversation(t *testing.T) {
	dir := files(t, map[string]string{"a.jsonl": `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"z\":1,\"a\":2}"}}]},{"role":"tool","content":"3","tool_call_id":"c"},{"role":"assistant","content":"a"}],"tools":[{"name":"f"}]}`})
	rec := readAll(t, Source{Path: filepath.Join(dir, "a.jsonl")}, &Ledger{})[0]
	c, err := Conversation(rec.Messages, rec.Tools)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(c.Messages)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"role":"user","content":"q"},{"role":"assistant","content":"","reasoning_content":"r","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":{"z":1,"a":2}}}]},{"role":"tool","content":"3","tool_call_id":"c"},{"role":"assistant","content":"a"}]`
	if string(got) != want || string(c.Tools) != `[{"name":"f"}]` {
		t.Errorf("messages %s tools %s", got, c.Tools)
	}
}

// Real data sets are told apart and read whole: as many records as encoding/json finds, none of them bad.
func TestGoldenRealData(t *testing.T) {
	for _, c := range []struct {
		set, file string
		format    Format
		source    Source
	}{
		{"llamafactory", "alpaca_en_demo.json", Alpaca, Source{}},
		{"llamafactory", "alpaca_zh_demo.json", Alpaca, Source{}},
		{"llamafactory", "identity.json", Alpaca, Source{}},
		{"llamafactory", "glaive_toolcall_zh_demo_100.json", ShareGPT, Source{}},
		{"llamafactory", "glaive_toolcall_en_demo_100.json", ShareGPT, Source{}},
		{"llamafactory", "dpo_zh_demo.json", Preferences, Source{}},
		{"llamafactory", "kto_en_demo.json", KTO, Source{}},
		{"llamafactory", "c4_demo.jsonl.gz", PlainText, Source{}},
		{"code_alpaca", "code_alpaca_2k.json", Alpaca, Source{}},
		{"dolly_hhrlhf", "dolly_hhrlhf_train_small.jsonl.gz", PromptCompletion, Source{}},
		{"gsm8k", "train_1000.jsonl", Alpaca, Source{}},
		{"hh_rlhf", "harmless_base_test_1000.jsonl.gz", PreferencesHH, Source{}},
		{"oasst", "dialogs.jsonl.gz", Messages, Source{}},
		{"oasst", "pairs.jsonl.gz", Preferences, Source{}},
		{"kdconv_zh", "dialogs.jsonl.gz", Texts, Source{Format: Texts}},
		{"chatterbot_multilingual", "conversations.jsonl.gz", Texts, Source{Format: Texts, Columns: map[string]string{"messages": "turns"}}},
	} {
		t.Run(c.set+"/"+c.file, func(t *testing.T) {
			path := filepath.Join(golden.Data(t, c.set), c.file)
			l := &Ledger{}
			c.source.Path = path
			r, err := Open(c.source, l)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			n := 0
			for ; err != io.EOF; n++ {
				if _, err = r.Next(); err != nil && err != io.EOF {
					t.Fatal(err)
				}
			}
			if err := l.Err(); err != nil {
				t.Error(err)
			}
			if want := countJSON(t, path); n-1 != want || r.form.format != c.format {
				t.Errorf("%d records of %s, want %d of %s", n-1, r.form.format, want, c.format)
			}
			for _, p := range l.Problems()[:min(3, len(l.Problems()))] {
				t.Logf("%d remarks: %v", l.Count(Warning), &p)
			}
		})
	}
}

// countJSON counts the values of a file, or the elements of its one array.
func countJSON(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	d := json.NewDecoder(in)
	for n := 0; ; n++ {
		var v any
		if err := d.Decode(&v); err == io.EOF {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
		if list, ok := v.([]any); ok {
			return len(list)
		}
	}
}
