package token

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// Open reads a tokenizer.json (also gzipped), or that of a directory with the special tokens that its
// tokenizer_config.json names.
func Open(path string) (*Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	dir := path
	if info.IsDir() {
		path = filepath.Join(path, "tokenizer.json")
	} else {
		dir = filepath.Dir(path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if strings.HasSuffix(path, ".gz") {
		const most = 1 << 28
		r, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("tokenizer %s: %w", path, err)
		}
		if text, err = io.ReadAll(io.LimitReader(r, most)); err != nil {
			return nil, fmt.Errorf("tokenizer %s: %w", path, err)
		}
	}
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, t.readConfig(filepath.Join(dir, "tokenizer_config.json"))
}

// readConfig takes the names of the special tokens from a tokenizer_config.json, where there is one.
func (t *Tokenizer) readConfig(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	var c map[string]json.RawMessage
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for key, id := range map[string]*int{"bos_token": &t.bos, "eos_token": &t.eos, "pad_token": &t.pad} {
		var name string
		var object struct{ Content string }
		if json.Unmarshal(c[key], &name) != nil {
			if json.Unmarshal(c[key], &object) != nil {
				continue
			}
			name = object.Content
		}
		if found, ok := t.ids[name]; ok {
			*id = found
		}
	}
	return nil
}

// Parse reads the text of a tokenizer.json.
func Parse(text []byte) (*Tokenizer, error) {
	var f struct {
		Added  []addedToken    `json:"added_tokens"`
		Norm   json.RawMessage `json:"normalizer"`
		Pre    json.RawMessage `json:"pre_tokenizer"`
		Post   json.RawMessage `json:"post_processor"`
		Decode json.RawMessage `json:"decoder"`
		Model  json.RawMessage `json:"model"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	t := &Tokenizer{added: f.Added, ids: map[string]int{}, bos: -1, eos: -1, pad: -1}
	if err := t.parseModel(f.Model); err != nil {
		return nil, fmt.Errorf("tokenizer: model: %w", err)
	}
	for _, a := range f.Added {
		t.ids[a.Content] = a.ID
	}
	for _, part := range []struct {
		name string
		text json.RawMessage
		read func(component) error
	}{{"normalizer", f.Norm, t.parseNormalizer}, {"pre_tokenizer", f.Pre, t.parseSplit}, {"post_processor", f.Post, t.parsePost}, {"decoder", f.Decode, parseDecoder}} {
		if err := each(part.text, part.read); err != nil {
			return nil, fmt.Errorf("tokenizer: %s: %w", part.name, err)
		}
	}
	return t, t.finish()
}

// component is a part of a tokenizer.json.
type component struct {
	Type           string            `json:"type"`
	Normalizers    []json.RawMessage `json:"normalizers"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	Processors     []json.RawMessage `json:"processors"`
	Decoders       []json.RawMessage `json:"decoders"`
	Pattern        map[string]string `json:"pattern"`
	Behavior       string            `json:"behavior"`
	Invert         bool              `json:"invert"`
	Individual     bool              `json:"individual_digits"`
	AddPrefixSpace bool              `json:"add_prefix_space"`
	UseRegex       *bool             `json:"use_regex"`
	Single         []map[string]struct {
		ID string `json:"id"`
	} `json:"single"`
	SpecialTokens map[string]struct {
		IDs []int `json:"ids"`
	} `json:"special_tokens"`
}

// each reads a component, or the parts of a sequence in their order.
func each(text json.RawMessage, read func(component) error) error {
	if len(text) == 0 || string(text) == "null" {
		return nil
	}
	var c component
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if c.Type != "Sequence" {
		return read(c)
	}
	for _, part := range slices.Concat(c.Normalizers, c.PreTokenizers, c.Processors, c.Decoders) {
		if err := each(part, read); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tokenizer) parseNormalizer(c component) error {
	switch c.Type {
	case "NFC":
		t.normalize = append(t.normalize, byForm(norm.NFC, norm.NFD))
	case "NFD":
		t.normalize = append(t.normalize, byForm(norm.NFD, norm.NFD))
	case "NFKC":
		t.normalize = append(t.normalize, byForm(norm.NFKC, norm.NFKD))
	case "NFKD":
		t.normalize = append(t.normalize, byForm(norm.NFKD, norm.NFKD))
	case "Lowercase":
		t.normalize = append(t.normalize, lowercase)
	default:
		return fmt.Errorf("%q is not supported", c.Type)
	}
	return nil
}

func (t *Tokenizer) parseSplit(c component) error {
	var find func(text string, match func(lo, hi int))
	var err error
	switch c.Type {
	case "ByteLevel":
		if c.AddPrefixSpace {
			return errors.New("ByteLevel with add_prefix_space is not supported")
		}
		if c.UseRegex != nil && !*c.UseRegex {
			return nil
		}
		c.Behavior = "Isolated"
		find, err = byPattern(gpt2Pattern)
	case "Digits":
		c.Behavior = "Contiguous"
		if c.Individual {
			c.Behavior = "Isolated"
		}
		find = byClass(isNumeric, true)
	case "Punctuation":
		if c.Behavior == "" {
			c.Behavior = "Isolated"
		}
		find = byClass(isPunctuation, true)
	case "Split":
		if p, ok := c.Pattern["Regex"]; ok {
			find, err = byPattern(p)
		} else if p, ok := c.Pattern["String"]; ok {
			find = byText(p)
		} else {
			return errors.New("Split without a pattern")
		}
	default:
		return fmt.Errorf("%q is not supported", c.Type)
	}
	if err != nil {
		return err
	}
	s, err := bySplit(find, c.Behavior, c.Invert)
	t.split = append(t.split, s)
	return err
}

func (t *Tokenizer) parsePost(c component) error {
	switch c.Type {
	case "ByteLevel":
		return nil
	case "TemplateProcessing":
	default:
		return fmt.Errorf("%q is not supported", c.Type)
	}
	to := &t.before
	for _, part := range c.Single {
		if _, ok := part["Sequence"]; ok {
			to = &t.after
			continue
		}
		*to = append(*to, c.SpecialTokens[part["SpecialToken"].ID].IDs...)
	}
	return nil
}

func parseDecoder(c component) error {
	if c.Type != "ByteLevel" {
		return fmt.Errorf("%q is not supported", c.Type)
	}
	return nil
}

func (t *Tokenizer) parseModel(text json.RawMessage) error {
	var m struct {
		Type         string          `json:"type"`
		Vocab        map[string]int  `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		Dropout      *float64        `json:"dropout"`
		Unknown      *string         `json:"unk_token"`
		Prefix       string          `json:"continuing_subword_prefix"`
		Suffix       string          `json:"end_of_word_suffix"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
	}
	var kind struct{ Type string }
	if err := json.Unmarshal(text, &kind); err != nil {
		return err
	}
	if kind.Type != "BPE" && kind.Type != "" { // files before 2020 do not name the type
		return fmt.Errorf("%q is not supported", kind.Type)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	switch {
	case m.Suffix != "" || m.Prefix != "":
		return errors.New("BPE with a subword prefix or an end-of-word suffix is not supported")
	case m.ByteFallback:
		return errors.New("BPE with byte_fallback is not supported")
	}
	merges, err := parseMerges(m.Merges)
	if err != nil {
		return err
	}
	return t.setBPE(m.Vocab, merges, m.IgnoreMerges)
}

// parseMerges reads merges as pairs, or in the older form of one text with a blank.
func parseMerges(text json.RawMessage) ([][2]string, error) {
	var pairs [][2]string
	if json.Unmarshal(text, &pairs) == nil {
		return pairs, nil
	}
	var lines []string
	if err := json.Unmarshal(text, &lines); err != nil {
		return nil, fmt.Errorf("merges: %w", err)
	}
	return splitMerges(lines)
}

func splitMerges(lines []string) ([][2]string, error) {
	pairs := make([][2]string, 0, len(lines))
	for i, l := range lines {
		a, b, ok := strings.Cut(l, " ")
		if !ok {
			return nil, fmt.Errorf("merge %d: want two tokens with a blank between, have %q", i, l)
		}
		pairs = append(pairs, [2]string{a, b})
	}
	return pairs, nil
}

// setBPE sets the model from a vocabulary in the printable spelling of bytes.
func (t *Tokenizer) setBPE(vocab map[string]int, merges [][2]string, ignoreMerges bool) error {
	b := &bpe{ids: make(map[string]int, len(vocab)), ranks: make(map[[2]int]rank, len(merges)), ignoreMerges: ignoreMerges,
		cache: map[string][]int{}}
	for token, id := range vocab {
		t.ids[token] = id
		b.ids[string(decodeBytes(nil, token))] = id
	}
	for c, r := range byteRunes {
		b.single[c] = -1
		if id, ok := vocab[string(r)]; ok {
			b.single[c] = id
		}
	}
	for i, m := range merges {
		l, okL := vocab[m[0]]
		r, okR := vocab[m[1]]
		id, ok := vocab[m[0]+m[1]]
		if !okL || !okR || !ok {
			return fmt.Errorf("merge %d: %q and %q, or the two together, are not in the vocabulary", i, m[0], m[1])
		}
		if _, ok := b.ranks[[2]int{l, r}]; !ok {
			b.ranks[[2]int{l, r}] = rank{i, id}
		}
	}
	t.model = b
	return nil
}
