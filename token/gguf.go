package token

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// ggufPre returns, by the value of tokenizer.ggml.pre, the pre-tokenizer that models of this name were trained with.
func ggufPre() map[string]ggufSplit {
	const bloom = ` ?[^(\s|.,!?…。，、।۔،)]+`
	level := &byteLevel{regex: true}
	patterns := func(list ...string) preTokenizer {
		var steps preSequence
		for _, p := range list {
			m, err := compile(p)
			if err != nil {
				panic(err)
			}
			steps = append(steps, &splitter{pattern: m, behavior: isolated})
		}
		return append(steps, &byteLevel{})
	}
	digits := preSequence{&splitter{pattern: numerics{}, behavior: isolated}, level}
	all := map[string]ggufSplit{}
	for _, g := range []struct {
		split ggufSplit
		names []string
	}{
		{ggufSplit{pre: level}, []string{"gpt-2", "phi-2", "olmo", "mpt", "jina-es", "jina-de"}},
		{ggufSplit{pre: digits}, []string{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}},
		{ggufSplit{pre: patterns(patternLlama3), whole: true}, []string{"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"}},
		{ggufSplit{pre: patterns(patternLlama3)}, []string{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}},
		{ggufSplit{pre: patterns(patternQwen2), nfc: true}, []string{"qwen2", "deepseek-r1-qwen"}},
		{ggufSplit{pre: patterns(patternQwen2)}, []string{"stablelm2"}},
		{ggufSplit{pre: patterns(patternO200k)}, []string{"gpt-4o", "llama4"}},
		{ggufSplit{pre: patterns(patternTekken), whole: true}, []string{"tekken"}},
		{ggufSplit{pre: patterns(patternThrees, patternKana, patternDeepSeek)}, []string{"deepseek-v3"}},
		{ggufSplit{pre: patterns(`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}`)}, []string{"deepseek-coder"}},
		{ggufSplit{pre: patterns("[\\p{P}\\$\\+<=>\\^~\\|`]+", patternGPT2, `[0-9][0-9][0-9]`)}, []string{"falcon"}},
		{ggufSplit{pre: patterns(bloom)}, []string{"bloom", "poro-chat", "gpt3-finnish"}},
		{ggufSplit{pre: patterns(bloom, `\p{N}`)}, []string{"viking"}},
		{ggufSplit{pre: patterns(`[\p{P}\$\+<=>\^~\|]+`, patternGPT2, `\p{N}+`, `[0-9][0-9][0-9]`)}, []string{"default"}},
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

// FromGGUF reads the vocabulary in the metadata of a GGUF file: the values of the keys below tokenizer.ggml.
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	t, err := ggufMeta(meta).tokenizer()
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	return t, nil
}

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
	if err != nil {
		return nil, err
	}
	if kinds == nil {
		kinds = repeat(kindNormal, len(tokens))
	}
	if len(kinds) != len(tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.token_type: want as many as the %d tokens, have %d", len(tokens), len(kinds))
	}
	var added []addedToken
	for id, k := range kinds {
		if len(tokens[id]) > tokenMost {
			return nil, fmt.Errorf("tokenizer.ggml.tokens[%d]: %w", id, errTooLong(tokens[id]))
		}
		if k == kindControl || k == kindUserDefined || k == kindUnknown {
			added = append(added, addedToken{ID: id, Content: tokens[id], Special: k != kindUserDefined})
		}
	}
	var t *Tokenizer
	bos, eos := false, false
	switch name, _ := g["tokenizer.ggml.model"].(string); name {
	case "gpt2":
		t, err = g.byteLevel(tokens, added)
	case "llama":
		bos = true
		t, err = g.sentencePiece(tokens, kinds, added, typeBPE)
	case "t5":
		eos = true
		t, err = g.sentencePiece(tokens, kinds, added, typeUnigram)
	case "bert":
		bos, eos = true, true
		t, err = g.wordPiece(tokens, added)
	case "":
		return nil, errors.New("no key tokenizer.ggml.model")
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model: %q is not supported%s (known: gpt2, llama, t5, bert)", name,
			nearest.Hint(name, []string{"gpt2", "llama", "t5", "bert"}))
	}
	if err != nil {
		return nil, err
	}
	t.bos, t.eos, t.pad = g.special("bos"), g.special("eos"), g.special("padding")
	t.setAdded(g.flag("add_bos_token", bos), g.flag("add_eos_token", eos))
	return t, nil
}

// sentencePiece builds a model with scores, where spaces are kept and one is put at the head unless the keys differ.
func (g ggufMeta) sentencePiece(tokens []string, kinds []int, added []addedToken, modelType int) (*Tokenizer, error) {
	m := defaultModel()
	// Files of Gemma name the unknown piece by its id, and say that it is a control token.
	if id := g.special("unknown"); id >= 0 && id < len(kinds) && !slices.Contains(kinds, kindUnknown) {
		kinds = slices.Clone(kinds)
		kinds[id] = kindUnknown
	}
	m.pieces, m.kinds, m.modelType = tokens, kinds, modelType
	var err error
	if m.scores, err = list[float32](g, "scores"); err != nil {
		return nil, err
	}
	if len(m.scores) != len(tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.scores: want as many as the %d tokens, have %d", len(tokens), len(m.scores))
	}
	m.byteFallback = slices.Contains(kinds, kindByte)
	m.dummyPrefix = g.flag("add_space_prefix", true)
	m.removeExtraSpaces = g.flag("remove_extra_whitespaces", modelType == typeUnigram)
	rules, err := list[int](g, "precompiled_charsmap")
	if err != nil {
		return nil, err
	}
	for _, b := range rules {
		m.charsmap = append(m.charsmap, byte(b))
	}
	return m.tokenizer(added)
}

// wordPiece builds BERT's tokenizer, whose GGUF form marks the begin of words instead of what goes on.
func (g ggufMeta) wordPiece(tokens []string, added []addedToken) (*Tokenizer, error) {
	const tail = "##"
	control := map[string]bool{}
	for _, a := range added {
		control[a.Content] = true
	}
	ids := make(map[string]int32, len(tokens))
	for id, s := range tokens {
		if head, ok := strings.CutPrefix(s, spaceMark); ok {
			s = head
		} else if !control[s] {
			s = tail + s
		}
		ids[s] = int32(id)
	}
	list, err := byID(ids)
	if err != nil {
		return nil, err
	}
	unk := g.special("unknown")
	if unk < 0 {
		return nil, errors.New("no key tokenizer.ggml.unknown_token_id")
	}
	m := &wordPiece{vocabulary: vocabulary{ids, list}, unk: int32(unk), longest: 100}
	m.index(tail)
	return &Tokenizer{
		norm: bertNormalizer(true, true, true, true), pre: bertPreTokenizer, model: m,
		dec: &decodeWordPiece{tail, true}, added: newAddedTokens(added, m, nil),
	}, nil
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
	t.post = nil
	if len(single) > 1 {
		t.post = &postTemplate{single, pair}
	}
}

func (g ggufMeta) byteLevel(tokens []string, added []addedToken) (*Tokenizer, error) {
	pre, _ := g["tokenizer.ggml.pre"].(string)
	if pre == "" {
		if g["general.architecture"] != "gpt2" { // the only models older than the key whose pre-tokenizer is sure
			return nil, errors.New("no key tokenizer.ggml.pre, which names the pre-tokenizer; set it to that of the model, such as llama-bpe or qwen2")
		}
		pre = "gpt-2"
	}
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
	t.added = newAddedTokens(added, m, nil)
	t.useBytes()
	return t, nil
}

func (g ggufMeta) flag(key string, def bool) bool {
	if b, ok := g["tokenizer.ggml."+key].(bool); ok {
		return b
	}
	return def
}

// special returns the id of a special token, -1 where there is none.
func (g ggufMeta) special(name string) int {
	id, ok := integer(g["tokenizer.ggml."+name+"_token_id"])
	if tokens, err := list[string](g, "tokens"); err != nil || !ok || id < 0 || id >= len(tokens) {
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
	case []uint8:
		return collect(key, v, convert)
	case []int8:
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
