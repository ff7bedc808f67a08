package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// preNames names the pre-tokenisers that GGUF files know by the regular expression or the steps in tokenizer.json.
var preNames = map[string]string{
	`ByteLevel`:        "gpt-2",
	`Digits/ByteLevel`: "smollm",
}

// bpeFile is what a conversion needs of a tokenizer.json with a byte-level BPE.
type bpeFile struct {
	Added []struct {
		ID      int    `json:"id"`
		Content string `json:"content"`
		Special bool   `json:"special"`
	} `json:"added_tokens"`
	Pre   json.RawMessage `json:"pre_tokenizer"`
	Model struct {
		Type   string          `json:"type"`
		Vocab  map[string]int  `json:"vocab"`
		Merges json.RawMessage `json:"merges"`
	} `json:"model"`
}

// GGUFMetadata returns the tokenizer's part of a GGUF file's metadata, from a tokenizer.json with a byte-level BPE
// whose pre-tokeniser GGUF has a name for. bos, eos and pad are ids, −1 for none.
func GGUFMetadata(tokenizerJSON []byte, bos, eos, pad int) (map[string]any, error) {
	var f bpeFile
	if err := json.Unmarshal(tokenizerJSON, &f); err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if f.Model.Type != "BPE" {
		return nil, fmt.Errorf("tokenizer: want a byte-level BPE for GGUF, have %q", f.Model.Type)
	}
	steps, err := preSteps(f.Pre)
	if err != nil {
		return nil, err
	}
	pre, ok := preNames[steps]
	if !ok {
		return nil, fmt.Errorf("tokenizer: GGUF has no name for the pre-tokeniser %s", steps)
	}
	size := 0
	for _, id := range f.Model.Vocab {
		size = max(size, id+1)
	}
	for _, a := range f.Added {
		size = max(size, a.ID+1)
	}
	tokens, types := make([]string, size), make([]int32, size)
	for i := range types {
		types[i] = ggufUnused
	}
	for t, id := range f.Model.Vocab {
		tokens[id], types[id] = t, ggufNormal
	}
	for _, a := range f.Added {
		tokens[a.ID], types[a.ID] = a.Content, ggufUserDefined
		if a.Special {
			types[a.ID] = ggufControl
		}
	}
	merges, err := mergeLines(f.Model.Merges)
	if err != nil {
		return nil, err
	}
	m := map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges, "tokenizer.ggml.add_bos_token": false,
	}
	for key, id := range map[string]int{"bos": bos, "eos": eos, "padding": pad} {
		if id >= 0 {
			m["tokenizer.ggml."+key+"_token_id"] = uint32(id)
		}
	}
	return m, nil
}

// preSteps names the steps of a pre-tokeniser, joined by slashes.
func preSteps(text json.RawMessage) (string, error) {
	var p struct {
		Type  string            `json:"type"`
		Parts []json.RawMessage `json:"pretokenizers"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return "", fmt.Errorf("tokenizer: pre_tokenizer: %w", err)
	}
	if p.Type != "Sequence" {
		return p.Type, nil
	}
	var names []string
	for _, part := range p.Parts {
		name, err := preSteps(part)
		if err != nil {
			return "", err
		}
		names = append(names, name)
	}
	return strings.Join(names, "/"), nil
}

// mergeLines reads merges in both of their forms as texts with a blank between the two tokens.
func mergeLines(text json.RawMessage) ([]string, error) {
	var lines []string
	if json.Unmarshal(text, &lines) == nil {
		return lines, nil
	}
	var pairs [][2]string
	if err := json.Unmarshal(text, &pairs); err != nil {
		return nil, fmt.Errorf("tokenizer: merges: %w", err)
	}
	for _, p := range pairs {
		lines = append(lines, p[0]+" "+p[1])
	}
	return lines, nil
}

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
			{"type": "Split", "pattern": object{"Regex": pattern}, "behavior": "Isolated", "invert": false}, rest}}
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
		if id < len(types) && (types[id] == ggufControl || types[id] == ggufUserDefined) {
			added = append(added, object{"id": id, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
				"normalized": false, "special": types[id] == ggufControl})
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
		"model": object{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": meta["tokenizer.ggml.pre"] == "llama-bpe", "vocab": vocab, "merges": pairs},
	}, "", " ")
}
