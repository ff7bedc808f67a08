package token

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"tunesmith/internal/nearest"
)

// Kinds of tokens in tokenizer.ggml.token_type.
const (
	ggufNormal      = 1
	ggufUnknown     = 2
	ggufControl     = 3
	ggufUserDefined = 4
	ggufUnused      = 5
	ggufByte        = 6
)

// ggufPre returns, by the value of tokenizer.ggml.pre, the pre-tokenizer that models of this name were trained with.
func ggufPre() map[string]ggufSplit {
	level := &byteLevel{regex: true}
	pattern := func(p string) preTokenizer {
		m, err := compile(p)
		if err != nil {
			panic(err)
		}
		return &splitter{pattern: m, behavior: isolated}
	}
	digits := preSequence{&splitter{pattern: runeMatcher(isNumeric), behavior: isolated}, level}
	llama3 := preSequence{pattern(patternLlama3), &byteLevel{}}
	qwen2 := preSequence{pattern(patternQwen2), &byteLevel{}}
	gpt4o := preSequence{pattern(patternO200k), &byteLevel{}}
	all := map[string]ggufSplit{}
	for _, g := range []struct {
		split ggufSplit
		names []string
	}{
		{ggufSplit{pre: level}, []string{"", "default", "gpt-2", "phi-2", "olmo", "mpt", "jina-es", "jina-de"}},
		{ggufSplit{pre: digits}, []string{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}},
		{ggufSplit{pre: llama3, whole: true}, []string{"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"}},
		{ggufSplit{pre: llama3}, []string{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}},
		{ggufSplit{pre: qwen2, nfc: true}, []string{"qwen2", "deepseek-r1-qwen"}},
		{ggufSplit{pre: qwen2}, []string{"stablelm2", "hunyuan"}},
		{ggufSplit{pre: gpt4o}, []string{"gpt-4o", "llama4"}},
	} {
		for _, n := range g.names {
			all[n] = g.split
		}
	}
	return all
}

type ggufSplit struct {
	pre   preTokenizer
	whole bool // a piece that is a token is taken whole
	nfc   bool
}

// FromGGUF reads the vocabulary in the metadata of a GGUF file.
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	g := ggufMeta(meta)
	t, err := g.tokenizer()
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	return t, nil
}

// ggufMeta reads the keys below tokenizer.ggml.
type ggufMeta map[string]any

func (g ggufMeta) tokenizer() (*Tokenizer, error) {
	tokens, err := list[string](g, "tokens")
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, errors.New("tokenizer.ggml.tokens: no tokens")
	}
	kinds, err := list[int](g, "token_type")
	if err == nil && kinds != nil && len(kinds) != len(tokens) {
		err = fmt.Errorf("tokenizer.ggml.token_type: want as many as the %d tokens, have %d", len(tokens), len(kinds))
	}
	if err != nil {
		return nil, err
	}
	var t *Tokenizer
	switch name, _ := g["tokenizer.ggml.model"].(string); name {
	case "gpt2":
		t, err = g.byteLevel(tokens)
	case "":
		return nil, errors.New("no key tokenizer.ggml.model")
	default:
		known := []string{"gpt2"}
		return nil, fmt.Errorf("tokenizer.ggml.model: %q is not supported%s", name, nearest.Hint(name, known))
	}
	if err != nil {
		return nil, err
	}
	var added []addedToken
	for id, k := range kinds {
		if k == ggufControl || k == ggufUserDefined || k == ggufUnknown && t.norm == nil {
			added = append(added, addedToken{ID: id, Content: tokens[id], Special: k != ggufUserDefined})
		}
	}
	t.added = newAddedTokens(added, t.model, nil)
	t.useBytes()
	t.bos, t.eos, t.pad = g.special("bos", len(tokens)), g.special("eos", len(tokens)), g.special("padding", len(tokens))
	t.setAdded(g.flag("add_bos_token"), g.flag("add_eos_token"))
	return t, nil
}

// setAdded makes the post-processor put the begin and end of sequence around a text.
func (t *Tokenizer) setAdded(bos, eos bool) {
	single := []templatePart{{number: 0}}
	pair := []templatePart{{number: 0}, {number: 1, typ: 1}}
	if bos && t.bos >= 0 {
		single = slices.Insert(single, 0, templatePart{number: -1, ids: []int{t.bos}})
		pair = slices.Insert(pair, 0, templatePart{number: -1, ids: []int{t.bos}})
		pair = slices.Insert(pair, 2, templatePart{number: -1, ids: []int{t.bos}, typ: 1})
	}
	if eos && t.eos >= 0 {
		single = append(single, templatePart{number: -1, ids: []int{t.eos}})
		i := slices.IndexFunc(pair, func(p templatePart) bool { return p.number == 0 })
		pair = slices.Insert(pair, i+1, templatePart{number: -1, ids: []int{t.eos}})
		pair = append(pair, templatePart{number: -1, ids: []int{t.eos}, typ: 1})
	}
	if len(single) > 1 {
		t.post = &postTemplate{single, pair}
	}
}

func (g ggufMeta) byteLevel(tokens []string) (*Tokenizer, error) {
	pre, _ := g["tokenizer.ggml.pre"].(string)
	all := ggufPre()
	split, ok := all[pre]
	if !ok {
		known := slices.Sorted(maps.Keys(all))
		return nil, fmt.Errorf("tokenizer.ggml.pre: %q is not supported%s", pre, nearest.Hint(pre, known))
	}
	vocab := make(map[string]int32, len(tokens))
	for id, s := range tokens {
		if old, twice := vocab[s]; twice {
			return nil, fmt.Errorf("tokenizer.ggml.tokens: %q stands twice, as %d and %d", s, old, id)
		}
		vocab[s] = int32(id)
	}
	lines, err := list[string](g, "merges")
	if err != nil {
		return nil, err
	}
	merges := make([][2]string, len(lines))
	for i, line := range lines {
		p, err := splitMerge(line)
		if err != nil {
			return nil, fmt.Errorf("tokenizer.ggml.merges[%d]: %w", i, err)
		}
		merges[i] = p
	}
	m, err := newBPE(vocab, merges, "")
	if err != nil {
		return nil, fmt.Errorf("tokenizer.ggml: %w", err)
	}
	m.ignoreMerges = split.whole
	t := &Tokenizer{model: m, pre: split.pre, dec: decodeBytes{}}
	if split.nfc {
		t.norm = nfc
	}
	return t, nil
}

func (g ggufMeta) flag(key string) bool {
	b, _ := g["tokenizer.ggml."+key].(bool)
	return b
}

// special returns the id of a special token, -1 where there is none.
func (g ggufMeta) special(name string, size int) int {
	id, ok := integer(g["tokenizer.ggml."+name+"_token_id"])
	if !ok || id < 0 || id >= size {
		return -1
	}
	return id
}

func integer(v any) (int, bool) {
	switch v := v.(type) {
	case uint8:
		return int(v), true
	case int8:
		return int(v), true
	case uint16:
		return int(v), true
	case int16:
		return int(v), true
	case uint32:
		return int(v), true
	case int32:
		return int(v), true
	case uint64:
		return int(v), v < 1<<62
	case int64:
		return int(v), true
	case int:
		return v, true
	}
	return 0, false
}

// list reads an array of strings or numbers; nil where the key is absent.
func list[T string | int | float32](g ggufMeta, key string) ([]T, error) {
	key = "tokenizer.ggml." + key
	convert := func(v any) (out T, ok bool) {
		switch p := any(&out).(type) {
		case *string:
			*p, ok = v.(string)
		case *int:
			*p, ok = integer(v)
		case *float32:
			switch f := v.(type) {
			case float32:
				*p, ok = f, true
			case float64:
				*p, ok = float32(f), true
			}
		}
		return out, ok
	}
	switch v := g[key].(type) {
	case nil:
		return nil, nil
	case []T:
		return v, nil
	case []any:
		return collect(key, v, convert)
	case []int32:
		return collect(key, v, convert)
	case []uint32:
		return collect(key, v, convert)
	case []float64:
		return collect(key, v, convert)
	default:
		return nil, fmt.Errorf("%s: want an array of %T, have %T", key, *new(T), v)
	}
}

func collect[E, T any](key string, in []E, convert func(any) (T, bool)) ([]T, error) {
	out := make([]T, len(in))
	for i, e := range in {
		var ok bool
		if out[i], ok = convert(e); !ok {
			return nil, fmt.Errorf("%s[%d]: want %T, have %T", key, i, out[i], e)
		}
	}
	return out, nil
}
