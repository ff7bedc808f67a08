package token

import (
	"errors"
	"fmt"
)

// ggufSplits are the pre-tokenisers by the name that tokenizer.ggml.pre gives them, as the tokenizer.json of the
// same models has them.
var ggufSplits = map[string][]component{
	"gpt-2":     {{Type: "ByteLevel"}},
	"default":   {{Type: "ByteLevel"}},
	"smollm":    {{Type: "Digits", Individual: true}, {Type: "ByteLevel"}},
	"llama-bpe": {{Type: "Split", Behavior: "Isolated", Pattern: map[string]string{"Regex": llama3Pattern}}},
	"qwen2":     {{Type: "Split", Behavior: "Isolated", Pattern: map[string]string{"Regex": qwen2Pattern}}},
}

const (
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// Types of tokens in tokenizer.ggml.token_type.
const (
	ggufControl     = 3
	ggufUserDefined = 4
)

// FromGGUF makes a tokenizer from a GGUF file's metadata.
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	if kind := meta["tokenizer.ggml.model"]; kind != "gpt2" {
		return nil, fmt.Errorf("tokenizer.ggml.model: want gpt2 (byte-level BPE), have %v: not supported", kind)
	}
	tokens, ok := meta["tokenizer.ggml.tokens"].([]string)
	if !ok {
		return nil, errors.New("tokenizer.ggml.tokens: want a list of texts")
	}
	lines, ok := meta["tokenizer.ggml.merges"].([]string)
	if !ok {
		return nil, errors.New("tokenizer.ggml.merges: want a list of texts")
	}
	types, _ := meta["tokenizer.ggml.token_type"].([]int32)
	if types != nil && len(types) != len(tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.token_type: want %d entries, have %d", len(tokens), len(types))
	}
	t := &Tokenizer{ids: map[string]int{}, bos: -1, eos: -1, pad: -1}
	vocab := make(map[string]int, len(tokens))
	for id, token := range tokens {
		if _, ok := vocab[token]; ok {
			return nil, fmt.Errorf("tokenizer.ggml.tokens: %q stands twice", token)
		}
		vocab[token] = id
		if types != nil && (types[id] == ggufControl || types[id] == ggufUserDefined) {
			t.added = append(t.added, addedToken{ID: id, Content: token, Special: types[id] == ggufControl})
		}
	}
	merges, err := splitMerges(lines)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.ggml.merges: %w", err)
	}
	if err := t.setBPE(vocab, merges, meta["tokenizer.ggml.pre"] == "llama-bpe"); err != nil {
		return nil, fmt.Errorf("tokenizer.ggml.merges: %w", err)
	}
	pre, _ := meta["tokenizer.ggml.pre"].(string)
	split, ok := ggufSplits[pre]
	if !ok {
		return nil, fmt.Errorf("tokenizer.ggml.pre: %q is not supported", pre)
	}
	for _, c := range split {
		if err := t.parseSplit(c); err != nil {
			return nil, err
		}
	}
	for key, id := range map[string]*int{"bos": &t.bos, "eos": &t.eos, "padding": &t.pad} {
		if v, ok := meta["tokenizer.ggml."+key+"_token_id"].(uint32); ok && int(v) < len(tokens) {
			*id = int(v)
		}
	}
	if add, _ := meta["tokenizer.ggml.add_bos_token"].(bool); add && t.bos >= 0 {
		t.before = []int{t.bos}
	}
	if add, _ := meta["tokenizer.ggml.add_eos_token"].(bool); add && t.eos >= 0 {
		t.after = []int{t.eos}
	}
	return t, t.finish()
}
