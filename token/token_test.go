package token

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// small is a byte-level tokenizer with a few merges and special tokens.
func small(t testing.TB) *Tokenizer {
	t.Helper()
	texts := []string{"the cat sat on the mat, the cat ate the rat", "你好，世界 你好", "don't 1234 don't"}
	data, err := TrainBPE(slices.Values(texts), BPETraining{Size: 280, Special: []string{"<s>", "</s>"}})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func Example() {
	t, err := Parse([]byte(`{
		"added_tokens": [{"id": 6, "content": "<s>", "special": true}],
		"pre_tokenizer": {"type": "Metaspace"},
		"decoder": {"type": "Metaspace"},
		"model": {"type": "BPE", "vocab": {"▁": 0, "l": 1, "o": 2, "w": 3, "lo": 4, "low": 5}, "merges": ["l o", "lo w"]}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range t.Encode("low <s>") {
		fmt.Printf("%d %q [%d,%d)\n", p.ID, t.Token(p.ID), p.Start, p.End)
	}
	fmt.Printf("%q\n", t.Decode([]int{0, 5, 6}, true))
	// Output:
	// 0 "▁" [0,1)
	// 5 "low" [0,3)
	// 0 "▁" [3,4)
	// 6 "<s>" [4,7)
	// "low"
}

func ExampleTokenizer_Stream() {
	// The euro sign comes in two tokens, <0xE2> and <0x82><0xAC>.
	t, err := Parse([]byte(`{"decoder": {"type": "ByteLevel"},
		"model": {"type": "BPE", "vocab": {"5": 0, "â": 1, "Ĥ¬": 2}, "merges": []}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	s := t.Stream(false)
	for _, id := range []int{0, 1, 2, 1} {
		fmt.Printf("%q ", s.Push(id))
	}
	fmt.Printf("%q\n", s.Flush())
	// Output: "5" "" "€" "" "�"
}

func TestParseErrors(t *testing.T) {
	const model = `"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}`
	for _, c := range []struct{ name, json, want string }{
		{"not json", `{`, "unexpected end"},
		{"no model", `{}`, "no field model"},
		{"model type", `{"model": {"type": "BPEE"}}`, `type "BPEE" is not supported, did you mean BPE?`},
		{"no type", `{"model": {}}`, "no type"},
		{"merge of unknown tokens", `{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a x"]}}`, `merge 0 ("a" "x"): token "x" is not in the vocabulary`},
		{"merge of three", `{"model": {"type": "BPE", "vocab": {}, "merges": ["a b c"]}}`, "want two tokens"},
		{"negative id", `{"model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": -1}}}`, "want an id from 0"},
		{"huge id", `{"model": {"type": "BPE", "vocab": {"a": 2000000000}, "merges": []}}`, "want an id from 0"},
		{"no unknown token", `{"model": {"type": "WordPiece", "vocab": {"a": 0}}}`, `unk_token "[UNK]" is not in the vocabulary`},
		{"unigram without unknown", `{"model": {"type": "Unigram", "vocab": [["a", 0]]}}`, "unk_id"},
		{"unigram entry", `{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a"]]}}`, "want [token, score]"},
		{"normalizer", `{"normalizer": {"type": "NFX"}, ` + model + `}`, `normalizer: type "NFX" is not supported`},
		{"nested", `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Magic"}]}, ` + model + `}`, `pre_tokenizer: pretokenizers[1]: type "Magic"`},
		{"null in a sequence", `{"decoder": {"type": "Sequence", "decoders": [null]}, ` + model + `}`, "want an object"},
		{"behavior", `{"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Glued"}, ` + model + `}`, `want one of Removed, Isolated`},
		{"pattern", `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}, ` + model + `}`, `pattern "(a": missing )`},
		{"no pattern", `{"pre_tokenizer": {"type": "Split", "behavior": "Isolated"}, ` + model + `}`, "pattern: want"},
		{"charsmap", `{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, ` + model + `}`, "want at least 4 bytes"},
		{"charsmap size", `{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}, ` + model + `}`, "want a multiple of 4"},
		{"template token", `{"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X", "type_id": 0}}], "pair": [], "special_tokens": {}}, ` + model + `}`, `token "X" is not in special_tokens`},
		{"template without text", `{"post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}, ` + model + `}`, "leaves a text out"},
		{"cls", `{"post_processor": {"type": "BertProcessing", "sep": ["a", 0], "cls": "b"}, ` + model + `}`, "cls"},
		{"delimiter", `{"pre_tokenizer": {"type": "CharDelimiterSplit", "delimiter": "ab"}, ` + model + `}`, "want one character"},
		{"scheme", `{"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "last"}, ` + model + `}`, "want always, first or never"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.json))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, have %v", c.want, err)
			}
		})
	}
}

func TestVocabulary(t *testing.T) {
	tok := small(t)
	if got := tok.Size(); got != 280 {
		t.Errorf("size: want 280, have %d", got)
	}
	id, ok := tok.ID("</s>")
	if !ok || id != 1 || tok.Token(1) != "</s>" || !tok.IsSpecial(1) {
		t.Errorf("</s>: want special token 1, have %d %v %q", id, ok, tok.Token(1))
	}
	for _, id := range []int{-1, 280, 1 << 40} {
		if s := tok.Token(id); s != "" || tok.IsSpecial(id) {
			t.Errorf("token %d: want none, have %q", id, s)
		}
	}
	if _, ok := tok.ID("no such token"); ok {
		t.Error("want no id for a token that is not there")
	}
	if tok.BOS() != -1 || tok.EOS() != -1 || tok.Pad() != -1 {
		t.Errorf("want no bos, eos, pad, have %d %d %d", tok.BOS(), tok.EOS(), tok.Pad())
	}
	if got := tok.Decode([]int{-5, 1 << 30, 1}, false); got != "</s>" {
		t.Errorf("unknown ids: want them left out, have %q", got)
	}
}

func TestSpecialTokensInText(t *testing.T) {
	tok := small(t)
	ids := tok.IDs("<s>the</s>")
	if ids[0] != 0 || ids[len(ids)-1] != 1 {
		t.Errorf("want the special tokens recognised, have %v", ids)
	}
	plain := tok.IDs("<s>the</s>", WithoutParsingSpecial())
	if slices.Contains(plain, 0) || slices.Contains(plain, 1) {
		t.Errorf("want the special tokens as text, have %v", plain)
	}
	if got := tok.Decode(plain, true); got != "<s>the</s>" {
		t.Errorf("want the text back, have %q", got)
	}
}

func TestInvalidUTF8(t *testing.T) {
	tok := small(t)
	text := "a\xe4\xbd\xffb"
	var have []Piece
	for _, p := range tok.Encode(text) {
		have = append(have, Piece{Start: p.Start, End: p.End})
	}
	// U+FFFD for the cut character and one for the stray byte, each of three bytes.
	want := []Piece{{0, 0, 1}, {0, 1, 3}, {0, 1, 3}, {0, 1, 3}, {0, 3, 4}, {0, 3, 4}, {0, 3, 4}, {0, 4, 5}}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("offsets (-want +have):\n%s", d)
	}
	if got := tok.Decode(tok.IDs(text), false); got != "a��b" {
		t.Errorf("want a��b, have %q", got)
	}
}

// TestEncodeProperties checks that byte-level tokens give the text back, cover it in order, and do not depend on
// how ids are asked for or streamed.
func TestEncodeProperties(t *testing.T) {
	tok := small(t)
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{
			"the", " cat", "你好", "世", " ", "\n", "\t", "é", "1", "23", "don't", "'LL", "<s>", "👍🏽", "\u0301", "\u3000", "-",
		})).Draw(t, "text"), "")
		pieces := tok.Encode(text)
		ids, end := make([]int, len(pieces)), 0
		for i, p := range pieces {
			ids[i] = p.ID
			if p.Start > end || p.End < end || p.Start >= p.End {
				t.Fatalf("piece %d of %q: want it to go on at %d, have %v", i, text, end, p)
			}
			end = p.End
		}
		if end != len(text) {
			t.Fatalf("%q: want all %d bytes covered, have %d", text, len(text), end)
		}
		if d := cmp.Diff(ids, tok.IDs(text)); d != "" {
			t.Fatalf("Encode and IDs of %q differ:\n%s", text, d)
		}
		if got := tok.Decode(ids, false); got != text {
			t.Fatalf("want %q back, have %q", text, got)
		}
		stream, whole := tok.Stream(false), ""
		for _, id := range ids {
			part := stream.Push(id)
			if !utf8.ValidString(part) {
				t.Fatalf("stream of %q splits a code point: %q", text, part)
			}
			whole += part
		}
		if whole += stream.Flush(); whole != text {
			t.Fatalf("stream: want %q, have %q", text, whole)
		}
	})
}

// TestBorders compares merging between borders with merging by characters of the byte alphabet, which has others.
func TestBorders(t *testing.T) {
	m := small(t).model.(*bpe)
	w := &scratch{cache: newWordCache()}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune("theca tson你好世界，é👍ſ\n"))).Draw(t, "text")
		if text == "" {
			return
		}
		if d := cmp.Diff(m.encodeSpelt(nil, text, 3, w), m.encode(nil, text, 3, w)); d != "" {
			t.Fatalf("%q (-spelt +bytes):\n%s", text, d)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	tok := small(t)
	texts := []string{"the cat sat", "你好，世界", strings.Repeat("the rat ate ", 50), "don't 12"}
	want := make([][]int, len(texts))
	for i, s := range texts {
		want[i] = tok.IDs(s)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				k := (g + i) % len(texts)
				if got := tok.IDs(texts[k]); !slices.Equal(got, want[k]) {
					t.Errorf("%q: want %v, have %v", texts[k], want[k], got)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestLinearTime encodes a long line and half of it: a quadratic step anywhere would take far more than twice.
func TestLinearTime(t *testing.T) {
	if testing.Short() {
		t.Skip("10 MB of text")
	}
	tok := small(t)
	for _, unit := range []string{"你好世界", "the", "a", "x1"} {
		text := strings.Repeat(unit, 10_000_000/len(unit))
		ids := tok.IDs(text)
		if got := tok.Decode(ids, false); got != text {
			t.Errorf("%q repeated: the text does not come back", unit)
		}
	}
}

func TestOpenDirectory(t *testing.T) {
	const file = `{"added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true}],
		"pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}`
	for _, c := range []struct {
		name, config string
		bos, eos     int
		ids          []int
		err          string
	}{
		{"no config", "", -1, -1, []int{0}, ""},
		{"names", `{"bos_token": "<s>", "eos_token": {"content": "</s>"}}`, 1, 2, []int{0}, ""},
		{"both added", `{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true}`, 1, 2, []int{1, 0, 2}, ""},
		{"llama adds bos", `{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_eos_token": true}`, 1, 2, []int{1, 0, 2}, ""},
		{"more tokens", `{"bos_token": "<x>", "added_tokens_decoder": {"3": {"content": "<x>", "special": true}}}`, 3, -1, []int{0}, ""},
		{"unknown name", `{"bos_token": "<none>"}`, 0, 0, nil, `special token "<none>" is not in the vocabulary`},
		{"not json", `{`, 0, 0, nil, "tokenizer_config.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(c.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tok, err := Open(dir)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("want an error with %q, have %v", c.err, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tok.BOS() != c.bos || tok.EOS() != c.eos {
				t.Errorf("want bos %d, eos %d, have %d, %d", c.bos, c.eos, tok.BOS(), tok.EOS())
			}
			if d := cmp.Diff(c.ids, tok.IDs("word", WithSpecial())); d != "" {
				t.Errorf("ids (-want +have):\n%s", d)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("want an error for a file that is not there")
	}
}

func TestFromGGUFErrors(t *testing.T) {
	base := func(change map[string]any) map[string]any {
		m := map[string]any{
			"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": []string{"a", "b", "ab"},
			"tokenizer.ggml.merges": []string{"a b"}, "tokenizer.ggml.token_type": []int32{1, 1, 1},
		}
		for k, v := range change {
			m["tokenizer.ggml."+k] = v
		}
		return m
	}
	if _, err := FromGGUF(base(nil)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change map[string]any
		want   string
	}{
		{"model", map[string]any{"model": "rwkv"}, `tokenizer.ggml.model: "rwkv" is not supported`},
		{"no model", map[string]any{"model": nil}, "no key tokenizer.ggml.model"},
		{"pre", map[string]any{"pre": "qwen22"}, `"qwen22" is not supported, did you mean qwen2`},
		{"no pre", map[string]any{"pre": ""}, "no key tokenizer.ggml.pre"},
		{"no tokens", map[string]any{"tokens": nil}, "no tokens"},
		{"tokens of another type", map[string]any{"tokens": []any{"a", 1}}, "tokens[1]: want string, have int"},
		{"same token twice", map[string]any{"tokens": []string{"a", "b", "a"}}, `"a" stands twice, as 0 and 2`},
		{"types of another length", map[string]any{"token_type": []int32{1}}, "want as many as the 3 tokens, have 1"},
		{"merge", map[string]any{"merges": []string{"ab"}}, "merges[0]: merge \"ab\": want two tokens"},
		{"merge of unknown", map[string]any{"merges": []string{"a c"}}, `token "c" is not in the vocabulary`},
		{"no scores", map[string]any{"model": "llama", "token_type": []int32{2, 1, 1}}, "scores: want as many as the 3 tokens, have 0"},
		{"no unknown", map[string]any{"model": "llama", "scores": []float32{0, 0, 0}}, "no piece of type unknown"},
		{"bert without unknown", map[string]any{"model": "bert"}, "unknown_token_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := FromGGUF(base(c.change)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, have %v", c.want, err)
			}
		})
	}
}

func TestFromGGUFBert(t *testing.T) {
	tok, err := FromGGUF(map[string]any{
		"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": []string{"[UNK]", "[CLS]", "[SEP]", "▁play", "ing", "▁,"},
		"tokenizer.ggml.token_type": []int32{2, 3, 3, 1, 1, 1}, "tokenizer.ggml.unknown_token_id": uint32(0),
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2),
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{1, 3, 4, 5, 0, 2}, tok.IDs("Playing, games", WithSpecial())); d != "" {
		t.Errorf("ids (-want +have):\n%s", d)
	}
	if got := tok.Decode([]int{3, 4, 5}, true); got != "playing," {
		t.Errorf("want playing, back, have %q", got)
	}
}

func TestAddedTokensBeyondTheVocabulary(t *testing.T) {
	// Ids of added tokens follow the vocabulary whatever the file says, as in the Hugging Face library.
	tok, err := Parse([]byte(`{"added_tokens": [{"id": 900, "content": "<x>"}, {"id": 0, "content": "a"}, {"id": 901, "content": "<x>", "special": true}, {"id": 7, "content": "<y>"}],
		"model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}}`))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, s := range []string{"<x>", "a", "<y>"} {
		have[s], _ = tok.ID(s)
	}
	if d := cmp.Diff(map[string]int{"<x>": 2, "a": 0, "<y>": 3}, have); d != "" {
		t.Errorf("ids (-want +have):\n%s", d)
	}
	if !tok.IsSpecial(2) || tok.Size() != 4 {
		t.Errorf("want <x> special by its last entry and 4 tokens, have %v, %d", tok.IsSpecial(2), tok.Size())
	}
}

func TestManyAddedTokens(t *testing.T) {
	var list []addedToken
	for i := range 20000 {
		list = append(list, addedToken{Content: fmt.Sprintf("<extra_%d>", i)})
	}
	raw, err := json.Marshal(map[string]any{
		"added_tokens": list,
		"model":        map[string]any{"type": "WordLevel", "vocab": map[string]int{"?": 0}, "unk_token": "?"},
	})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{12346, 0, 2}, tok.IDs("<extra_12345>and<extra_1>")); d != "" {
		t.Errorf("ids (-want +have):\n%s", d)
	}
}
