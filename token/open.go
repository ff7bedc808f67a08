package token

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fileMost bounds the size of a tokenizer file, unpacked.
const fileMost = 1 << 28

// Open reads a tokenizer.json (also gzipped), a sentencepiece model (.model), or a directory that holds
// tokenizer.json or tokenizer.model. tokenizer_config.json beside it names the special tokens, and whether begin
// and end of sequence are added.
func Open(path string) (*Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if info.IsDir() {
		dir := path
		path = filepath.Join(dir, "tokenizer.json")
		if model := filepath.Join(dir, "tokenizer.model"); !exists(path) && exists(model) {
			path = model
		}
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	parse := Parse
	if strings.HasSuffix(path, ".model") {
		parse = ParseModel
	}
	t, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	config := filepath.Join(filepath.Dir(path), "tokenizer_config.json")
	if data, err = os.ReadFile(config); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return t, nil
		}
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if err := t.configure(data); err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	return t, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	var b bytes.Buffer
	if n, err := io.Copy(&b, io.LimitReader(r, fileMost+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	} else if n > fileMost {
		return nil, fmt.Errorf("%s: want at most %d bytes", path, fileMost)
	}
	return b.Bytes(), nil
}

// tokenName reads a special token of tokenizer_config.json: a string, or an object with its content.
type tokenName string

// UnmarshalJSON implements json.Unmarshaler.
func (n *tokenName) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*n = tokenName(s)
		return nil
	}
	var o struct {
		Content string `json:"content"`
	}
	err := json.Unmarshal(b, &o)
	*n = tokenName(o.Content)
	return err
}

// configure applies tokenizer_config.json.
func (t *Tokenizer) configure(data []byte) error {
	var c struct {
		Class  string             `json:"tokenizer_class"`
		BOS    tokenName          `json:"bos_token"`
		EOS    tokenName          `json:"eos_token"`
		Pad    tokenName          `json:"pad_token"`
		AddBOS *bool              `json:"add_bos_token"`
		AddEOS *bool              `json:"add_eos_token"`
		Added  map[int]addedToken `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	list := slices.Clone(t.added.list)
	for _, id := range slices.Sorted(maps.Keys(c.Added)) {
		if _, known := t.added.byText[c.Added[id].Content]; !known {
			list = append(list, c.Added[id])
		}
	}
	if len(list) > len(t.added.list) {
		t.added = newAddedTokens(list, t.model, t.norm)
	}
	for _, s := range []struct {
		name tokenName
		id   *int
	}{{c.BOS, &t.bos}, {c.EOS, &t.eos}, {c.Pad, &t.pad}} {
		if s.name == "" {
			continue
		}
		id, ok := t.ID(string(s.name))
		if !ok {
			return fmt.Errorf("special token %q is not in the vocabulary", s.name)
		}
		*s.id = id
	}
	// Tokenizers of Llama's and Gemma's kind take these two flags; others only name them.
	_, model := t.model.(*sentencePiece)
	takes := model || strings.Contains(c.Class, "Llama") || strings.Contains(c.Class, "Gemma")
	if (c.AddBOS != nil || c.AddEOS != nil) && (takes || t.post == nil) {
		bos := takes
		if c.AddBOS != nil {
			bos = *c.AddBOS
		}
		t.setAdded(bos, c.AddEOS != nil && *c.AddEOS)
	}
	return nil
}
