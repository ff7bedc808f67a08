package token

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"tunesmith/internal/golden"
)

const fuzzText = "The 2 cats' naïve ſtart\r\n\t你好　é e\u0301 👍🏽 <s>[MASK] \xff"

// use runs what a tokenizer offers on a text and checks what must hold for any tokenizer.
func use(t *testing.T, tok *Tokenizer, text string) {
	pieces := tok.Encode(text, WithSpecial())
	ids := make([]int, len(pieces))
	for i, p := range pieces {
		ids[i] = p.ID
		if p.Start < 0 || p.End < p.Start || p.End > len(text) {
			t.Fatalf("piece %d of %q: bad offsets %v", i, text, p)
		}
	}
	same := tok.IDs(text, WithSpecial())
	if len(same) != len(ids) {
		t.Fatalf("%q: Encode gives %v, IDs %v", text, ids, same)
	}
	tok.IDs(text, WithoutParsingSpecial())
	tok.EncodePair(text, text, WithSpecial())
	if s := tok.Decode(ids, true); !utf8.ValidString(s) {
		t.Fatalf("decoded text is not UTF-8: %q", s)
	}
	stream := tok.Stream(false)
	for _, id := range ids {
		if s := stream.Push(id); !utf8.ValidString(s) {
			t.Fatalf("stream splits a code point: %q", s)
		}
	}
	stream.Flush()
	tok.IsSpecial(tok.Size() - 1)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]],"unk_token":"a","fuse_unk":true},"decoder":{"type":"ByteLevel"}}`), "ab a")
	f.Add([]byte(`{"added_tokens":[{"id":9,"content":"<s>","lstrip":true,"normalized":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"BertNormalizer"},{"type":"Replace","pattern":{"Regex":" {2,}|x*"},"content":"▁"}]},"pre_tokenizer":{"type":"Metaspace"},"post_processor":{"type":"RobertaProcessing","sep":["a",0],"cls":["b",1]},"model":{"type":"WordPiece","vocab":{"[UNK]":0,"a":1,"##b":2}},"decoder":{"type":"WordPiece"}}`), fuzzText)
	f.Add([]byte(`{"normalizer":{"type":"Precompiled","precompiled_charsmap":"BAAAAAAAAABhAA=="},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s)|\\p{L}+(?!\\S)|[^\\s&&a]++"},"behavior":"MergedWithNext","invert":true},{"type":"UnicodeScripts"},{"type":"FixedLength","length":2}]},"model":{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0],["a",-1.5],["ab",-2]]},"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Strip","content":" ","start":1,"stop":1},{"type":"CTC"}]}}`), fuzzText)
	f.Add([]byte(`{"pre_tokenizer":{"type":"ByteLevel"},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"X","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"X":{"id":"X","ids":[0],"tokens":["X"]}}},"model":{"type":"WordLevel","vocab":{"?":0},"unk_token":"?"}}`), fuzzText)
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if tok, err := Parse(data); err == nil {
			use(t, tok, text)
		}
		if _, err := GGUFMetadata(data, 0, 0, 0); err == nil {
			if _, err := Parse(data); err != nil {
				t.Fatalf("converted, but not parsed: %v", err)
			}
		}
	})
}

func FuzzParseModel(f *testing.F) {
	piece := func(s string, kind byte) string {
		body := "\n" + string(rune(len(s))) + s + "\x15\x00\x00\x80\xbf" + "\x18" + string(rune(kind))
		return "\n" + string(rune(len(body))) + body
	}
	for _, kind := range []string{"\x01", "\x02", "\x03", "\x04"} {
		f.Add([]byte(piece("<unk>", kindUnknown)+piece("a", kindNormal)+piece("ab", kindNormal)+piece("▁", kindNormal)+piece("<s>", kindControl)+
			piece("xy", kindUserDefined)+piece("▁a", kindUnused)+"\x12\x02\x18"+kind), "ab xya a"+fuzzText)
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if tok, err := ParseModel(data); err == nil {
			use(t, tok, text)
		}
	})
}

func FuzzRegex(f *testing.F) {
	for _, p := range []string{patternGPT2, patternO200k, patternDeepSeek, `(?<=a|bc)(?:x{2,3}+|y*?)$`, `(a|b*)*(?>c+)`, `[[:^alpha:]\x{41}-\u0045&&[^\d]]`} {
		f.Add(p, fuzzText)
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		m, err := compileRegex(pattern)
		if err != nil || len(text) > 200 {
			return
		}
		end := 0
		m.matches(lossy(text), func(i, j int) {
			if i < end || j < i {
				t.Fatalf("%q: match %d to %d after one that ends at %d", pattern, i, j, end)
			}
			end = j
		})
	})
}

// FuzzEncode encodes any text with the tokenizers of the goldens.
func FuzzEncode(f *testing.F) {
	paths, _ := filepath.Glob(filepath.Join(golden.Dir(f, "tokenizers"), "tokenizers", "*.json"))
	models, _ := filepath.Glob(filepath.Join(golden.Dir(f, "tokenizers"), "sp", "*.model"))
	var toks []*Tokenizer
	exact := map[*Tokenizer]bool{}
	for _, p := range append(paths, models...) {
		if info, err := os.Stat(p); err != nil || info.Size() > 1<<20 {
			continue
		}
		tok, err := Open(p)
		if err != nil {
			f.Fatal(err)
		}
		exact[tok] = strings.Contains("gpt2 llama3 cl100k o200k deepseek", strings.TrimSuffix(filepath.Base(p), ".json"))
		toks = append(toks, tok)
	}
	f.Add(fuzzText)
	f.Add(strings.Repeat("ab你 ", 60))
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range toks {
			use(t, tok, text)
			if got := tok.Decode(tok.IDs(text), false); exact[tok] && got != lossy(text) {
				t.Fatalf("want %q back, have %q", text, got)
			}
		}
	})
}
