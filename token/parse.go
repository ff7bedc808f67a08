package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tunesmith/internal/nearest"
)

// component is one part of tokenizer.json. Its getters keep the first error, which err returns.
type component struct {
	kind   string
	fields map[string]json.RawMessage
	first  error
}

// UnmarshalJSON reads an object with a field type.
func (c *component) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &c.fields); err != nil {
		return err
	}
	c.kind = c.text("type", "")
	return c.first
}

func (c *component) err() error {
	if c.first == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", c.kind, c.first)
}

// decode reads a field; v keeps its value where the field is absent or null.
func (c *component) decode(key string, v any) {
	raw, ok := c.fields[key]
	if !ok || bytes.Equal(raw, []byte("null")) {
		return
	}
	if err := json.Unmarshal(raw, v); err != nil && c.first == nil {
		c.first = fmt.Errorf("%s: %w", key, err)
	}
}

func (c *component) text(key, def string) string {
	c.decode(key, &def)
	return def
}

func (c *component) flag(key string, def bool) bool {
	c.decode(key, &def)
	return def
}

func (c *component) int(key string, def int) int {
	c.decode(key, &def)
	return def
}

func (c *component) fail(format string, args ...any) {
	if c.first == nil {
		c.first = fmt.Errorf(format, args...)
	}
}

// tokenAndID reads a pair [token, id].
func (c *component) tokenAndID(key string) int {
	var pair []json.RawMessage
	c.decode(key, &pair)
	id := -1
	if len(pair) != 2 || json.Unmarshal(pair[1], &id) != nil || id < 0 {
		c.fail("%s: want [token, id]", key)
	}
	return id
}

// matcher reads the field pattern: {"String": s} or {"Regex": r}.
func (c *component) matcher() (matcher, error) {
	var p struct{ String, Regex *string }
	c.decode("pattern", &p)
	switch {
	case c.first != nil:
		return nil, c.err()
	case p.String != nil:
		return literal(*p.String), nil
	case p.Regex != nil:
		m, err := compile(*p.Regex)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.kind, err)
		}
		return m, nil
	}
	return nil, fmt.Errorf("%s: pattern: want {\"String\": …} or {\"Regex\": …}", c.kind)
}

// metaspace reads the settings of Metaspace, in the current form and the one before prepend_scheme.
func (c *component) metaspace() (mark, scheme string, split bool) {
	mark = c.text("replacement", c.text("str_rep", "▁"))
	scheme = c.text("prepend_scheme", "always")
	if !c.flag("add_prefix_space", true) {
		if c.fields["prepend_scheme"] != nil && scheme != "never" {
			c.fail("add_prefix_space false and prepend_scheme %q contradict each other", scheme)
		}
		scheme = "never"
	}
	if scheme != "always" && scheme != "first" && scheme != "never" {
		c.fail("prepend_scheme: want always, first or never, have %q", scheme)
	}
	return mark, scheme, c.flag("split", true)
}

// unknown is the error of a component whose type is none of the known ones.
func (c *component) unknown(known ...string) error {
	if c.kind == "" {
		return errors.New("no type")
	}
	return fmt.Errorf("type %q is not supported%s (known: %s)", c.kind, nearest.Hint(c.kind, known), strings.Join(known, ", "))
}

// sequenceOf builds a Sequence from the components in field key.
func sequenceOf[T any](c *component, key string, build func(*component) (T, error), join func([]T) T) (T, error) {
	var zero T
	var list []*component
	c.decode(key, &list)
	if c.first != nil {
		return zero, c.err()
	}
	if c.fields[key] == nil {
		return zero, fmt.Errorf("no field %s in a Sequence", key)
	}
	parts := make([]T, len(list))
	for i, each := range list {
		if each == nil {
			return zero, fmt.Errorf("%s[%d]: want an object, have null", key, i)
		}
		var err error
		if parts[i], err = build(each); err != nil {
			return zero, fmt.Errorf("%s[%d]: %w", key, i, err)
		}
	}
	return join(parts), nil
}

// Parse reads tokenizer.json of the Hugging Face tokenizers library. Its settings for truncation and padding are
// left to the caller.
func Parse(data []byte) (*Tokenizer, error) {
	var file struct {
		AddedTokens   []addedToken `json:"added_tokens"`
		Normalizer    *component   `json:"normalizer"`
		PreTokenizer  *component   `json:"pre_tokenizer"`
		Model         *component   `json:"model"`
		PostProcessor *component   `json:"post_processor"`
		Decoder       *component   `json:"decoder"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if file.Model == nil {
		return nil, errors.New("tokenizer.json: no field model")
	}
	t := &Tokenizer{bos: -1, eos: -1, pad: -1}
	var err error
	fail := func(field string, err error) (*Tokenizer, error) {
		return nil, fmt.Errorf("tokenizer.json: %s: %w", field, err)
	}
	if t.model, err = newModel(file.Model); err != nil {
		return fail("model", err)
	}
	if file.Normalizer != nil {
		if t.norm, err = newNormalizer(file.Normalizer); err != nil {
			return fail("normalizer", err)
		}
	}
	if file.PreTokenizer != nil {
		if t.pre, err = newPreTokenizer(file.PreTokenizer); err != nil {
			return fail("pre_tokenizer", err)
		}
	}
	if file.PostProcessor != nil {
		if t.post, err = newPostProcessor(file.PostProcessor); err != nil {
			return fail("post_processor", err)
		}
	}
	if file.Decoder != nil {
		if t.dec, err = newDecoder(file.Decoder); err != nil {
			return fail("decoder", err)
		}
	}
	for i, a := range file.AddedTokens {
		if len(a.Content) > tokenMost {
			return fail(fmt.Sprintf("added_tokens[%d]", i), errTooLong(a.Content))
		}
	}
	t.added = newAddedTokens(file.AddedTokens, t.model, t.norm)
	t.useBytes()
	return t, nil
}

// tokenMost bounds the length of tokens that are searched for in a text, so that a search takes linear time.
const tokenMost = 4096

func errTooLong(token string) error {
	return fmt.Errorf("token %.20q…: want at most %d bytes, have %d", token, tokenMost, len(token))
}

// useBytes lets a BPE model behind a ByteLevel pre-tokenizer work on bytes instead of characters of the byte alphabet.
func (t *Tokenizer) useBytes() {
	last := t.pre
	if s, ok := last.(preSequence); ok && len(s) > 0 {
		last = s[len(s)-1]
	}
	level, ok := last.(*byteLevel)
	if !ok {
		return
	}
	if m, ok := t.model.(*bpe); ok && m.setBytes() {
		level.raw = true
	}
}

func newModel(c *component) (model, error) {
	kind := c.kind
	if kind == "" && c.fields["merges"] != nil {
		kind = "BPE" // files of the first versions name no type
	}
	switch kind {
	case "BPE":
		return newModelBPE(c)
	case "Unigram":
		return newModelUnigram(c)
	case "WordPiece":
		return newModelWordPiece(c)
	case "WordLevel":
		return newModelWordLevel(c)
	}
	return nil, c.unknown("BPE", "WordPiece", "WordLevel", "Unigram")
}

func splitMerge(line string) ([2]string, error) {
	a, b, ok := strings.Cut(line, " ")
	if !ok || strings.Contains(b, " ") {
		return [2]string{}, fmt.Errorf("merge %q: want two tokens with a space between", line)
	}
	return [2]string{a, b}, nil
}

func newModelBPE(c *component) (*bpe, error) {
	var vocab idMap
	var merges mergeList
	c.decode("vocab", &vocab)
	c.decode("merges", &merges)
	if c.first != nil {
		return nil, c.err()
	}
	m, err := newBPE(vocab, merges, c.text("continuing_subword_prefix", ""))
	if err != nil {
		return nil, fmt.Errorf("BPE: %w", err)
	}
	m.suffix = c.text("end_of_word_suffix", "")
	m.fuseUnk = c.flag("fuse_unk", false)
	m.byteFallback = c.flag("byte_fallback", false)
	m.ignoreMerges = c.flag("ignore_merges", false)
	if id, ok := vocab[c.text("unk_token", "")]; ok {
		m.unk = id
	}
	return m, c.err()
}

func newPreTokenizer(c *component) (preTokenizer, error) {
	switch c.kind {
	case "Sequence":
		return sequenceOf(c, "pretokenizers", newPreTokenizer, func(p []preTokenizer) preTokenizer { return preSequence(p) })
	case "ByteLevel":
		return &byteLevel{prefix: c.flag("add_prefix_space", true), regex: c.flag("use_regex", true)}, c.err()
	case "Split":
		m, err := c.matcher()
		if err != nil {
			return nil, err
		}
		return &splitter{m, c.behavior("Isolated"), c.flag("invert", false)}, c.err()
	case "Digits":
		b := contiguous
		if c.flag("individual_digits", false) {
			b = isolated
		}
		return &splitter{pattern: numerics{}, behavior: b}, c.err()
	case "Whitespace":
		return &splitter{pattern: whitespaceWords{}, behavior: removed, invert: true}, nil
	case "WhitespaceSplit":
		return &splitter{pattern: runeMatcher(isSpace), behavior: removed}, nil
	case "Punctuation":
		return &splitter{pattern: runeMatcher(isPunctuation), behavior: c.behavior("Isolated")}, c.err()
	case "BertPreTokenizer":
		return bertPreTokenizer, nil
	case "CharDelimiterSplit":
		d := c.text("delimiter", "")
		if len([]rune(d)) != 1 {
			c.fail("delimiter: want one character, have %q", d)
		}
		return &splitter{pattern: literal(d), behavior: removed}, c.err()
	case "Metaspace":
		mark, scheme, split := c.metaspace()
		return &metaspace{mark, scheme, split}, c.err()
	case "UnicodeScripts":
		return scripts{}, nil
	case "FixedLength":
		n := c.int("length", 5)
		if n < 1 {
			c.fail("length: want >= 1, have %d", n)
		}
		return fixedLength(n), c.err()
	}
	return nil, c.unknown("Sequence", "ByteLevel", "Split", "Digits", "Whitespace", "WhitespaceSplit", "Punctuation",
		"BertPreTokenizer", "CharDelimiterSplit", "Metaspace", "UnicodeScripts", "FixedLength")
}

var bertPreTokenizer = preSequence{
	&splitter{pattern: runeMatcher(isSpace), behavior: removed},
	&splitter{pattern: runeMatcher(isPunctuation), behavior: isolated},
}

func (c *component) behavior(def string) behavior {
	name := c.text("behavior", def)
	for i, b := range behaviors {
		if b == name {
			return behavior(i)
		}
	}
	c.fail("behavior: want one of %s, have %q", strings.Join(behaviors, ", "), name)
	return removed
}
