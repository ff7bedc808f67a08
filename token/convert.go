package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// preNames has GGUF's name for the steps of a pre-tokenizer as preSteps writes them.
var preNames = map[string]string{
	"ByteLevel regex":               "gpt-2",
	"Digits, ByteLevel regex":       "smollm",
	"Split llama3, ByteLevel":       "llama-bpe",
	"NFC, Split qwen2, ByteLevel":   "qwen2",
	"Split qwen2, ByteLevel":        "stablelm2",
	"Split o200k, ByteLevel":        "gpt-4o",
	"Split llama3, ByteLevel merge": "dbrx",
}

// bpeFile is what a conversion needs of a tokenizer.json beside what Parse keeps.
type bpeFile struct {
	Normalizer *component `json:"normalizer"`
	Pre        *component `json:"pre_tokenizer"`
	Model      struct {
		Merges       mergeList `json:"merges"`
		IgnoreMerges bool      `json:"ignore_merges"`
	} `json:"model"`
}

// GGUFMetadata returns the tokenizer's part of a GGUF file's metadata, from a tokenizer.json with a byte-level BPE
// whose pre-tokenizer GGUF has a name for. bos, eos and pad are ids, -1 for none.
func GGUFMetadata(tokenizerJSON []byte, bos, eos, pad int) (map[string]any, error) {
	t, err := Parse(tokenizerJSON)
	if err != nil {
		return nil, err
	}
	model, ok := t.model.(*bpe)
	if !ok || model.bytes == nil {
		return nil, errors.New("tokenizer: only a byte-level BPE has a form in GGUF here")
	}
	var f bpeFile
	if err := json.Unmarshal(tokenizerJSON, &f); err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	steps, err := preSteps(f)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	pre, ok := preNames[steps]
	if !ok {
		return nil, fmt.Errorf("tokenizer: GGUF has no name for the pre-tokenizer %s", steps)
	}
	tokens, types := make([]string, t.Size()), make([]int32, t.Size())
	for i := range tokens {
		tokens[i], types[i] = fmt.Sprintf("[PAD%d]", i), kindUnused
		if s, ok := model.token(i); ok {
			tokens[i], types[i] = s, kindNormal
		}
	}
	for _, a := range t.added.list {
		tokens[a.ID], types[a.ID] = a.Content, kindUserDefined
		if a.Special {
			types[a.ID] = kindControl
		}
	}
	merges := make([]string, len(f.Model.Merges))
	for i, p := range f.Model.Merges {
		merges[i] = p[0] + " " + p[1]
	}
	around := t.IDs("", WithSpecial()) // what the post-processor adds
	m := map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
		"tokenizer.ggml.add_bos_token": len(around) > 0 && around[0] == bos,
		"tokenizer.ggml.add_eos_token": len(around) > 0 && around[len(around)-1] == eos,
	}
	for key, id := range map[string]int{"bos": bos, "eos": eos, "padding": pad} {
		if id >= 0 {
			m["tokenizer.ggml."+key+"_token_id"] = uint32(id)
		}
	}
	return m, nil
}

// preSteps names the normalizer and the steps of the pre-tokenizer, each with what sets it apart.
func preSteps(f bpeFile) (string, error) {
	var steps []string
	var walk func(c *component) error
	walk = func(c *component) error {
		if c == nil {
			return nil
		}
		name := c.kind
		switch c.kind {
		case "Sequence":
			var parts []*component
			c.decode("pretokenizers", &parts)
			c.decode("normalizers", &parts)
			for _, p := range parts {
				if err := walk(p); err != nil {
					return err
				}
			}
			return c.err()
		case "ByteLevel":
			if c.flag("use_regex", true) {
				name += " regex"
			}
			if c.flag("add_prefix_space", true) {
				name += " prefix"
			}
		case "Digits":
			if !c.flag("individual_digits", false) {
				name += " grouped"
			}
		case "Split":
			var p struct{ Regex string }
			c.decode("pattern", &p)
			known, ok := patternNames[p.Regex]
			if !ok || c.text("behavior", "") != "Isolated" || c.flag("invert", false) {
				known = fmt.Sprintf("%q", p.Regex)
			}
			name += " " + known
		}
		steps = append(steps, name)
		return c.err()
	}
	if err := walk(f.Normalizer); err != nil {
		return "", err
	}
	if err := walk(f.Pre); err != nil {
		return "", err
	}
	name := strings.Join(steps, ", ")
	if name == "Split llama3, ByteLevel" && !f.Model.IgnoreMerges {
		name += " merge"
	}
	return name, nil
}

var patternNames = map[string]string{patternLlama3: "llama3", patternCL100k: "llama3", patternQwen2: "qwen2", patternO200k: "o200k"}

// JSONFromGGUF returns a tokenizer.json, as the Hugging Face library reads it, from the metadata of a GGUF file with a
// byte-level BPE.
func JSONFromGGUF(meta map[string]any) ([]byte, error) {
	tokens, ok := meta["tokenizer.ggml.tokens"].([]string)
	merges, okMerges := meta["tokenizer.ggml.merges"].([]string)
	if !ok || !okMerges || meta["tokenizer.ggml.model"] != "gpt2" {
		return nil, errors.New("tokenizer: want a byte-level BPE in tokenizer.ggml")
	}
	types, _ := meta["tokenizer.ggml.token_type"].([]int32)
	type object = map[string]any
	byteLevel := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	split := func(pattern string) object {
		rest := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
		return object{"type": "Sequence", "pretokenizers": []object{
			{"type": "Split", "pattern": object{"Regex": pattern}, "behavior": "Isolated", "invert": false}, rest,
		}}
	}
	var pre object
	switch name, _ := meta["tokenizer.ggml.pre"].(string); name {
	case "gpt-2", "default", "":
		pre = byteLevel
	case "smollm":
		pre = object{"type": "Sequence", "pretokenizers": []object{{"type": "Digits", "individual_digits": true}, byteLevel}}
	case "llama-bpe":
		pre = split(patternLlama3)
	case "qwen2":
		pre = split(patternQwen2)
	default:
		return nil, fmt.Errorf("tokenizer: tokenizer.ggml.pre %q has no form in tokenizer.json here", name)
	}
	vocab := make(map[string]int, len(tokens))
	added := []object{}
	for id, t := range tokens {
		vocab[t] = id
		if id < len(types) && (types[id] == kindControl || types[id] == kindUserDefined) {
			added = append(added, object{
				"id": id, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
				"normalized": false, "special": types[id] == kindControl,
			})
		}
	}
	pairs := make([][2]string, len(merges))
	for i, m := range merges {
		a, b, _ := strings.Cut(m, " ")
		pairs[i] = [2]string{a, b}
	}
	return json.MarshalIndent(object{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil, "pre_tokenizer": pre,
		"post_processor": nil, "decoder": byteLevel,
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": meta["tokenizer.ggml.pre"] == "llama-bpe", "vocab": vocab, "merges": pairs,
		},
	}, "", " ")
}
