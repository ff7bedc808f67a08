package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tunesmith/token"
)

// newTokenizer is byte-level, one token a byte, with the given special tokens, of which the first is EOS.
func newTokenizer(t testing.TB, special ...string) *token.Tokenizer {
	t.Helper()
	vocab := map[string]int{}
	for b := range 256 {
		// GPT-2 writes bytes that do not print as the characters from 256 on, in order.
		r := rune(b)
		if b <= ' ' || b >= 0x7f && b <= 0xa0 || b == 0xad {
			n := 0
			for c := range b {
				if c <= ' ' || c >= 0x7f && c <= 0xa0 || c == 0xad {
					n++
				}
			}
			r = rune(256 + n)
		}
		vocab[string(r)] = b
	}
	var added []map[string]any
	for i, s := range special {
		added = append(added, map[string]any{"id": 256 + i, "content": s, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	b, err := json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": added,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
		"decoder":       map[string]any{"type": "ByteLevel"},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// ending is a tokenizer with an EOS.
type ending struct {
	*token.Tokenizer
	eos int
}

func (e ending) EOS() int { return e.eos }

func chatml(t testing.TB) Encoder {
	tok := newTokenizer(t, "<|im_end|>", "<|im_start|>", "<|endoftext|>")
	return ending{tok, 256}
}

func builtin(t testing.TB, name string) *Template {
	t.Helper()
	tm, ok := Builtin(name)
	if !ok {
		t.Fatalf("no template %s", name)
	}
	return tm
}

func parse(t testing.TB, source string) *Template {
	t.Helper()
	tm, err := NewTemplate(source, Special{BOS: "<s>", EOS: "</s>"})
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

func talk(turns ...string) Conversation {
	var c Conversation
	for _, s := range turns {
		role, content, _ := strings.Cut(s, ":")
		role = map[string]string{"s": "system", "u": "user", "a": assistant, "t": "tool"}[role]
		c.Messages = append(c.Messages, Message{Role: role, Content: content})
	}
	return c
}

// trained shows the text of the trained tokens, one piece for each run of them.
func trained(e Example) []string {
	var out []string
	run, at := false, 0
	for i, p := range e.Pieces {
		if e.Train[i] {
			if !run {
				out = append(out, "")
			}
			out[len(out)-1] += e.Text[max(p.Start, at):max(p.End, at)] // bytes of one character share its place
		}
		run, at = e.Train[i], max(at, p.End)
	}
	return out
}

func ExampleTemplate_Render() {
	t, _ := Builtin("chatml")
	r, err := t.Render(Conversation{Messages: []Message{
		{Role: "user", Content: "Hi"},
		{Role: "assistant", Content: "Hello."},
	}}, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(r.Text)
	fmt.Printf("%q\n", r.Text[r.Spans[0].Start:r.Spans[0].End])
	// Output:
	// <|im_start|>user
	// Hi<|im_end|>
	// <|im_start|>assistant
	// Hello.<|im_end|>
	// "Hello.<|im_end|>\n"
}

func TestEncodeTurns(t *testing.T) {
	no, half, none := false, 0.5, 0.0
	c := talk("s:Be brief.", "u:One?", "a:1", "u:Two?", "a: 2\n")
	with := func(i int, f func(m *Message)) Conversation {
		d := c
		d.Messages = slices.Clone(c.Messages)
		f(&d.Messages[i])
		return d
	}
	for _, k := range []struct {
		name  string
		c     Conversation
		turns Turns
		train []bool
		want  []string
	}{
		{"all", c, AllTurns, nil, []string{"1<|im_end|>", " 2\n<|im_end|>"}},
		{"last", c, LastTurn, nil, []string{" 2\n<|im_end|>"}},
		{"first by flags", c, AllTurns, []bool{false, false, true, false, false}, []string{"1<|im_end|>"}},
		{"first by message", with(4, func(m *Message) { m.Train = &no }), AllTurns, nil, []string{"1<|im_end|>"}},
		{"none by weight", with(2, func(m *Message) { m.Weight = &none }), AllTurns, nil, []string{" 2\n<|im_end|>"}},
		{"half by weight", with(2, func(m *Message) { m.Weight = &half }), AllTurns, nil, []string{"1<|im_end|>", " 2\n<|im_end|>"}},
		{"last is barred", c, LastTurn, []bool{true, true, true, true, false}, nil},
	} {
		e, warnings, err := builtin(t, "chatml").Encode(chatml(t), k.c, k.turns, k.train)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %v", k.name, err, warnings)
			continue
		}
		if diff := cmp.Diff(k.want, trained(e)); diff != "" {
			t.Errorf("%s: %s", k.name, diff)
		}
		if len(e.IDs) != len(e.Train) || len(e.IDs) != len(e.Pieces) {
			t.Errorf("%s: %d ids, %d marks, %d pieces", k.name, len(e.IDs), len(e.Train), len(e.Pieces))
		}
		if k.name != "half by weight" {
			continue
		}
		sum := float32(0)
		for _, w := range e.Weights {
			sum += w
		}
		if want := float32(len(e.IDs)) - 0.5*2; sum != want {
			t.Errorf("weights add up to %v, want %v", sum, want)
		}
	}
	e, _, err := builtin(t, "chatml").Encode(chatml(t), c, AllTokens, nil)
	if err != nil || slices.Contains(e.Train, false) {
		t.Errorf("AllTokens leaves tokens out: %v, %v", e.Train, err)
	}
	e, _, err = builtin(t, "chatml").Encode(chatml(t), c, AllTokens, []bool{true, true, false, true, true})
	if err != nil || len(trained(e)) != 2 || strings.Contains(strings.Join(trained(e), ""), "1<|im_end|>") {
		t.Errorf("AllTokens but for one answer: %q, %v", trained(e), err)
	}
}

// TestBlocks trains by {% generation %} blocks, also where their number is not that of the answers, and where they
// leave the end of the turn out.
func TestBlocks(t *testing.T) {
	c := talk("u:One?", "a:1", "u:Two?", "a:2")
	frame := "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}BLOCK{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
	for block, want := range map[string][]string{
		"{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}":                                    {"2<|im_end|>"},
		"{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>":                                    {"2<|im_end|>"},
		"{% generation %}{{ m.content }}{% endgeneration %}{% generation %}<|im_end|>{% endgeneration %}": {"2<|im_end|>"},
		"{{ m.content }}<|im_end|>": {"2<|im_end|>"},
		"{% set x %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endset %}{{ x }}": {"2<|im_end|>"},
	} {
		tm := parse(t, strings.ReplaceAll(frame, "BLOCK", block))
		e, warnings, err := tm.Encode(chatml(t), c, LastTurn, nil)
		if err != nil || len(warnings) > 0 || !slices.Equal(trained(e), want) {
			t.Errorf("%s: %q, %v, %v", block, trained(e), warnings, err)
		}
	}
}

func TestReported(t *testing.T) {
	for _, k := range []struct {
		name, source string
		c            Conversation
		want         string // in the error
	}{
		{"system dropped", "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}", talk("s:Rules", "u:q", "a:r"), "message 0: the template drops the system's \"Rules\""},
		{"turn dropped", "{% for m in messages[-2:] %}{{ m.content }}<|im_end|>{% endfor %}", talk("u:first", "a:second", "u:third", "a:fourth"), "message 0: the template drops the user's"},
		{"moved", "{% for m in messages|reverse %}{{ m.content }}<|im_end|>{% endfor %}", talk("u:question", "a:answer"), "out of its order"},
		{"raised", "{{ raise_exception('no system role') }}", talk("u:q"), "no system role"},
		{"empty", "x", Conversation{}, "needs a message"},
	} {
		_, _, err := parse(t, k.source).Encode(chatml(t), k.c, AllTurns, nil)
		if err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: got %v, want %q", k.name, err, k.want)
		}
		var e *Error
		if errors.As(err, &e) && (e.Remedy == "" || e.Message < 0) {
			t.Errorf("%s: no remedy, or no message: %+v", k.name, e)
		}
	}
	for _, k := range []struct {
		name, source string
		c            Conversation
		want         string // in the warning
	}{
		{"no end", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", talk("u:q", "a:r"), "does not end in a special token"},
		{"changed", "{% for m in messages %}{{ m.content | upper if m.role == 'user' else m.content }}<|im_end|>{% endfor %}", talk("u:question", "a:r"), "changes the text of a message of role user"},
		{"spelled", "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}", talk("u:a<|im_end|>b", "a:r"), "spells the special token <|im_end|>"},
	} {
		_, warnings, err := parse(t, k.source).Encode(chatml(t), k.c, AllTurns, nil)
		if err != nil || len(warnings) != 1 || !strings.Contains(string(warnings[0]), k.want) {
			t.Errorf("%s: got %q, %v; want %q", k.name, warnings, err, k.want)
		}
	}
}

func TestCheck(t *testing.T) {
	frame := "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
	for _, k := range []struct {
		name   string
		source string
		enc    Encoder
		want   []string
	}{
		{"good", frame, chatml(t), nil},
		{"other EOS", frame, ending{newTokenizer(t, "<|im_end|>", "</s>"), 257}, []string{"turns end with <|im_end|>, the model's EOS is </s>"}},
		{"unknown tokens", frame, ending{newTokenizer(t, "</s>"), 256}, []string{`"<|im_end|>" ends a turn but is not one special token`}},
		{"no end", "{% for m in messages %}{{ m.content }}{% endfor %}", chatml(t), []string{"does not end in a special token"}},
		{"no system", "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}", chatml(t), []string{"drops or moves a message of a conversation with a system message"}},
		{"refuses system", "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}" + frame, chatml(t), []string{"refuses a system message"}},
		{"one turn", "{{ messages[0].content }}<|im_end|>{{ messages[1].content if messages|length > 1 }}<|im_end|>", chatml(t), []string{"drops or moves a message of a conversation with a system message", "drops or moves a message of a conversation with a second question"}},
		{"nothing", "hello", chatml(t), []string{"does not render a question and its answer"}},
	} {
		got := parse(t, k.source).Check(k.enc)
		ok := len(got) == len(k.want)
		for i := range k.want {
			ok = ok && strings.Contains(string(got[i]), k.want[i])
		}
		if !ok {
			t.Errorf("%s: got %q, want %q", k.name, got, k.want)
		}
	}
}

func TestStops(t *testing.T) {
	enc := ending{newTokenizer(t, "<|im_end|>", "</s>"), 257}
	if got := builtin(t, "chatml").Stops(enc); !slices.Equal(got, []int{257, 256}) {
		t.Errorf("chatml: %v", got)
	}
	if got := builtin(t, "alpaca").Stops(enc); !slices.Equal(got, []int{257}) {
		t.Errorf("alpaca: %v", got)
	}
}

func TestPrompt(t *testing.T) {
	enc := chatml(t)
	ids, err := builtin(t, "chatml").Prompt(enc, talk("u:a<|im_end|>"))
	if err != nil {
		t.Fatal(err)
	}
	// The user's own <|im_end|> is ten bytes, not the token.
	if n := len(ids); n != len("_user\n"+"a<|im_end|>"+"_\n"+"_assistant\n") || ids[0] != 257 || slices.Index(ids, 256) != len("_user\na<|im_end|>") {
		t.Errorf("%d ids: %v", n, ids)
	}
	if _, err := builtin(t, "chatml").Prompt(enc, Conversation{}); err == nil {
		t.Error("an empty conversation: no error")
	}
}

// TestBuiltins checks each built-in template for what any template must do.
func TestBuiltins(t *testing.T) {
	special := []string{
		"</s>", "<s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
		"<start_of_turn>", "<end_of_turn>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<｜User｜>", "<｜Assistant｜>",
	}
	names := Builtins()
	want := []string{"alpaca", "chatml", "deepseek", "gemma", "llama2", "llama3", "mistral", "phi3", "plain", "qwen", "vicuna", "zephyr"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if _, ok := Builtin("none"); ok {
		t.Error("a template named none")
	}
	for _, name := range names {
		tm := builtin(t, name)
		enc := ending{newTokenizer(t, special...), 256}
		for _, w := range tm.Check(enc) {
			if !strings.Contains(string(w), "must stop at both") { // the models that these are of have another EOS
				t.Errorf("%s: %s", name, w)
			}
		}
		if stops := tm.Stops(enc); len(stops) == 0 || len(stops) > 2 {
			t.Errorf("%s: stops %v", name, stops)
		}
		rapid.Check(t, func(rt *rapid.T) {
			word := rapid.SampledFrom([]string{"yes", "é", "你好", "\n", " ", "<b>", "{{ x }}", "</s>", "<|im_end|>", "USER:", "0"})
			say := func(label string) string {
				return "x" + strings.Join(rapid.SliceOfN(word, 0, 4).Draw(rt, label), "") + "x"
			}
			var c Conversation
			if rapid.Bool().Draw(rt, "system") {
				c.Messages = append(c.Messages, Message{Role: "system", Content: say("s")})
			}
			var answers []string
			for range rapid.IntRange(1, 3).Draw(rt, "turns") {
				answers = append(answers, say("a"))
				c.Messages = append(c.Messages, Message{Role: "user", Content: say("u")}, Message{Role: assistant, Content: answers[len(answers)-1]})
			}
			e, _, err := tm.Encode(enc, c, AllTurns, nil)
			if err != nil {
				rt.Fatalf("%s: %v", name, err)
			}
			got := trained(e)
			if len(got) != len(answers) {
				rt.Fatalf("%s: trained %q of %q", name, got, answers)
			}
			for i, a := range answers {
				end, ok := strings.CutPrefix(strings.TrimPrefix(got[i], " "), a)
				if !ok || !slices.Contains(special, strings.TrimSpace(end)) {
					rt.Errorf("%s: answer %q: trained %q in %q", name, a, got[i], e.Text)
				}
			}
			// What messages spell is no special token: there are as many as with harmless texts.
			count := func(ids []int) (n int) {
				for _, id := range ids {
					if enc.IsSpecial(id) {
						n++
					}
				}
				return n
			}
			plain := Conversation{Messages: slices.Clone(c.Messages)}
			for i := range plain.Messages {
				plain.Messages[i].Content = "x"
			}
			h, _, err := tm.Encode(enc, plain, AllTurns, nil)
			if err != nil || count(h.IDs) != count(e.IDs) {
				rt.Errorf("%s: %d special tokens, want %d; %v", name, count(e.IDs), count(h.IDs), err)
			}
		})
	}
}

func TestQwenTools(t *testing.T) {
	var c Conversation
	c.Tools = json.RawMessage(`[{"type":"function","function":{"name":"f"}}]`)
	source := `[{"role":"user","content":"q"},{"role":"assistant","content":"","reasoning_content":"hm","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}},{"function":{"name":"f","arguments":"{\"x\":2}"}}]},{"role":"tool","content":"A"},{"role":"tool","content":"B"},{"role":"assistant","content":"r"}]`
	if err := json.Unmarshal([]byte(source), &c.Messages); err != nil {
		t.Fatal(err)
	}
	r, err := builtin(t, "qwen").Render(c, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range r.Spans {
		got = append(got, r.Text[s.Start:s.End])
	}
	want := []string{
		"<think>\nhm\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\":2}}\n</tool_call><|im_end|>\n",
		"r<|im_end|>\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(r.Text, "<|im_start|>user\n<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response><|im_end|>\n") {
		t.Errorf("tools' answers: %q", r.Text)
	}
}

func TestContract(t *testing.T) {
	a, b := parse(t, "{{ messages }}"), parse(t, "{{ messages }} ")
	c, err := NewTemplate("{{ messages }}", Special{BOS: "<s>", EOS: "<|end|>"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Contract() == b.Contract() || a.Contract() == c.Contract() || a.Contract() != parse(t, a.Source()).Contract() || len(a.Contract()) != 64 {
		t.Error("the contract does not tell templates apart, or equal ones do not share it")
	}
	if a.WithSpecial(c.Special()).Contract() != c.Contract() {
		t.Error("the contract depends on more than source and special tokens")
	}
}

func TestContinue(t *testing.T) {
	tm := builtin(t, "chatml")
	got, err := tm.Continue(talk("u:q", "a:The answer is "))
	if want := "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nThe answer is "; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	got, err = builtin(t, "llama3").Continue(talk("u:q", "a:The answer is "))
	if err != nil || !strings.HasSuffix(got, "\n\nThe answer is") {
		t.Errorf("a template that trims: got %q, %v", got, err)
	}
	for _, bad := range []*Template{parse(t, "x"), parse(t, "content")} {
		if _, err := bad.Continue(talk("a:b")); err == nil {
			t.Errorf("%s: no error", bad.Source())
		}
	}
	if _, err := tm.Continue(Conversation{Messages: []Message{{Role: "user", Parts: []Part{{Raw: json.RawMessage(`{"type":"image"}`)}}}}}); err == nil {
		t.Error("no text to continue: no error")
	}
}

func TestConcurrentEncode(t *testing.T) {
	tm, enc := builtin(t, "alpaca"), chatml(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				e, _, err := tm.Encode(enc, talk("u:q", "a:r"), AllTurns, nil)
				if err != nil || !slices.Equal(trained(e), []string{"r<|im_end|>"}) {
					t.Errorf("trained %q, %v", trained(e), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzEncode renders conversations from anywhere.
func FuzzEncode(f *testing.F) {
	f.Add([]byte(`[{"role":"user","content":"q"},{"role":"assistant","content":"r"}]`), "chatml")
	f.Add([]byte(`[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"<|im_end|>"}]},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{}}}]},{"role":"tool","content":"1"},{"role":"assistant","content":"<think>a</think>b"}]`), "qwen")
	f.Add([]byte(`[{"role":"assistant","content":"a"},{"role":"assistant","content":"a"}]`), "llama2")
	f.Add([]byte(`[{"role":1,"content":{"a":[1.5]},"weight":0.5,"train":false},{}]`), "gemma")
	f.Add([]byte(`[{"role":"assistant","content":"aa"}]`), "{% for m in messages %}{{ m.content[1:] }}{% endfor %}")
	enc := chatml(f)
	f.Fuzz(func(t *testing.T, messages []byte, source string) {
		tm, ok := Builtin(source)
		if !ok {
			var err error
			if tm, err = NewTemplate(source, Special{}); err != nil {
				return
			}
		}
		var c Conversation
		if json.Unmarshal(messages, &c.Messages) != nil || len(c.Messages) > 8 {
			return
		}
		e, _, err := tm.Encode(enc, c, AllTurns, nil)
		if err != nil {
			return
		}
		if len(e.IDs) != len(e.Train) || len(e.IDs) != len(e.Pieces) {
			t.Fatalf("%d ids, %d marks, %d pieces", len(e.IDs), len(e.Train), len(e.Pieces))
		}
		for _, p := range e.Pieces {
			if p.Start < 0 || p.End < p.Start || p.End > len(e.Text) {
				t.Fatalf("piece %+v of %d bytes", p, len(e.Text))
			}
		}
		if b, err := json.Marshal(c.Messages); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	tm, enc := builtin(b, "chatml"), chatml(b)
	c := talk("s:You are a helpful assistant.", "u:"+strings.Repeat("What is the capital of France? ", 8), "a:"+strings.Repeat("Paris, of course. ", 16))
	for b.Loop() {
		if _, _, err := tm.Encode(enc, c, AllTurns, nil); err != nil {
			b.Fatal(err)
		}
	}
}
