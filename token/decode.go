package token

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns tokens into the parts of a text.
type decoder interface {
	decode(tokens []string) []string
}

func decodeTokens(d decoder, tokens []string) string {
	if d == nil {
		return strings.Join(tokens, " ")
	}
	return strings.Join(d.decode(tokens), "")
}

// Bytes returns what a token stands for in the middle of a text, which may be a part of a character: the concatenation
// of the bytes of all tokens is the text. Decode reads the bytes that make no character as U+FFFD.
func (t *Tokenizer) Bytes(id int) string {
	name, ok := t.lookup(id)
	if _, added := t.added.byID[id]; !ok || added {
		return name
	}
	if holds[decodeBytes](t.dec) {
		b, ok := fromByteRunes(name)
		if !ok {
			return name
		}
		return string(b)
	}
	if b, ok := parseByteToken(name); ok && holds[decodeFallback](t.dec) {
		return string([]byte{b})
	}
	// What stands behind another token is not taken for the head of a text.
	first := decodeTokens(t.dec, []string{name})
	if both := decodeTokens(t.dec, []string{name, name}); strings.HasPrefix(both, first) {
		return both[len(first):]
	}
	return first
}

// holds reports whether a decoder is of a kind, or has one of it.
func holds[T decoder](d decoder) bool {
	if list, ok := d.(decodeSequence); ok {
		return slices.ContainsFunc(list, holds[T])
	}
	_, ok := d.(T)
	return ok
}

type decodeSequence []decoder

func (d decodeSequence) decode(tokens []string) []string {
	for _, each := range d {
		tokens = each.decode(tokens)
	}
	return tokens
}

// decodeBytes reads the byte alphabet; a token with any other character stands for itself.
type decodeBytes struct{}

func (decodeBytes) decode(tokens []string) []string {
	var out []byte
	for _, t := range tokens {
		if b, ok := fromByteRunes(t); ok {
			out = append(out, b...)
		} else {
			out = append(out, t...)
		}
	}
	return []string{lossy(string(out))}
}

// lossy replaces each maximal invalid part of UTF-8 by U+FFFD.
func lossy(s string) string {
	t := validText(s, false)
	return t.s
}

// decodeReplace replaces text within tokens.
type decodeReplace struct {
	pattern matcher
	content string
}

func (d *decodeReplace) decode(tokens []string) []string {
	for i, t := range tokens {
		tokens[i] = replaceAll(t, d.pattern, d.content)
	}
	return tokens
}

func replaceAll(s string, m matcher, content string) string {
	var b strings.Builder
	done := 0
	m.matches(s, func(start, end int) {
		b.WriteString(s[done:start])
		b.WriteString(content)
		done = end
	})
	b.WriteString(s[done:])
	return b.String()
}

// decodeFallback joins runs of tokens <0x00> to <0xFF> to text; a run that is not UTF-8 as a whole becomes one
// U+FFFD a byte.
type decodeFallback struct{}

func (decodeFallback) decode(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			if len(run) > 0 {
				out = append(out, string(run))
			}
		} else {
			for range run {
				out = append(out, string(utf8.RuneError))
			}
		}
		run = run[:0]
	}
	for _, t := range tokens {
		if b, ok := parseByteToken(t); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, t)
	}
	flush()
	return out
}

func parseByteToken(t string) (byte, bool) {
	if len(t) != 6 || !strings.HasPrefix(t, "<0x") || t[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(t[3:5], 16, 8)
	return byte(b), err == nil
}

// decodeFuse joins all tokens to one.
type decodeFuse struct{}

func (decodeFuse) decode(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// decodeStrip takes up to start copies of a character from the head of each token, and up to stop from its tail.
type decodeStrip struct {
	content     string
	start, stop int
}

func (d *decodeStrip) decode(tokens []string) []string {
	for i, t := range tokens {
		for n := 0; n < d.start && strings.HasPrefix(t, d.content); n++ {
			t = t[len(d.content):]
		}
		for n := 0; n < d.stop && strings.HasSuffix(t, d.content); n++ {
			t = t[:len(t)-len(d.content)]
		}
		tokens[i] = t
	}
	return tokens
}

// decodeMetaspace turns marks into spaces, and drops those at the head of the first token where one was put there.
type decodeMetaspace struct {
	mark   string
	prefix bool
}

func (d *decodeMetaspace) decode(tokens []string) []string {
	for i, t := range tokens {
		if i == 0 && d.prefix {
			tokens[i] = strings.ReplaceAll(t, d.mark, "")
			continue
		}
		tokens[i] = strings.ReplaceAll(t, d.mark, " ")
	}
	return tokens
}

// decodeWordPiece joins tokens that begin with a prefix to the one before, and others by a space.
type decodeWordPiece struct {
	prefix  string
	cleanup bool
}

func (d *decodeWordPiece) decode(tokens []string) []string {
	for i, t := range tokens {
		if i > 0 {
			if strings.HasPrefix(t, d.prefix) {
				t = strings.Replace(t, d.prefix, "", 1)
			} else {
				t = " " + t
			}
		}
		if d.cleanup {
			t = cleanup(t)
		}
		tokens[i] = t
	}
	return tokens
}

func cleanup(s string) string {
	for _, r := range [][2]string{
		{" .", "."},
		{" ?", "?"},
		{" !", "!"},
		{" ,", ","},
		{" ' ", "'"},
		{" n't", "n't"},
		{" 'm", "'m"},
		{" do not", " don't"},
		{" 's", "'s"},
		{" 've", "'ve"},
		{" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// decodeBPE ends words at a suffix.
type decodeBPE struct{ suffix string }

func (d *decodeBPE) decode(tokens []string) []string {
	for i, t := range tokens {
		with := " "
		if i == len(tokens)-1 {
			with = ""
		}
		tokens[i] = strings.ReplaceAll(t, d.suffix, with)
	}
	return tokens
}

// decodeCTC drops repeated tokens and padding, and turns the word delimiter into a space.
type decodeCTC struct {
	pad, delimiter string
	cleanup        bool
}

func (d *decodeCTC) decode(tokens []string) []string {
	var out []string
	last := ""
	for i, t := range tokens {
		if i > 0 && t == last {
			continue
		}
		last = t
		t = strings.ReplaceAll(t, d.pad, "")
		if d.cleanup {
			t = strings.ReplaceAll(cleanup(t), d.delimiter, " ")
		}
		if t != "" {
			out = append(out, t)
		}
	}
	return out
}

func newDecoder(c *component) (decoder, error) {
	switch c.kind {
	case "Sequence":
		return sequenceOf(c, "decoders", newDecoder, func(d []decoder) decoder { return decodeSequence(d) })
	case "ByteLevel":
		return decodeBytes{}, nil
	case "Replace":
		m, err := c.matcher()
		return &decodeReplace{m, c.text("content", "")}, err
	case "ByteFallback":
		return decodeFallback{}, nil
	case "Fuse":
		return decodeFuse{}, nil
	case "Strip":
		content := c.text("content", " ")
		if content == "" {
			c.fail("content: want one character, have none")
		}
		return &decodeStrip{content, c.int("start", 0), c.int("stop", 0)}, c.err()
	case "Metaspace":
		mark, scheme, _ := c.metaspace()
		return &decodeMetaspace{mark, scheme != "never"}, c.err()
	case "WordPiece":
		return &decodeWordPiece{c.text("prefix", "##"), c.flag("cleanup", true)}, c.err()
	case "BPEDecoder":
		return &decodeBPE{c.text("suffix", "</w>")}, c.err()
	case "CTC":
		return &decodeCTC{c.text("pad_token", "<pad>"), c.text("word_delimiter_token", "|"), c.flag("cleanup", true)}, c.err()
	}
	return nil, c.unknown("Sequence", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "WordPiece", "BPEDecoder", "CTC")
}
