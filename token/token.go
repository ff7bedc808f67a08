// Package token turns text into token ids and back, exactly as the tokenizer that a model was trained with.
//
// It reads tokenizer.json of the Hugging Face tokenizers library, raw sentencepiece models and the vocabulary of
// GGUF files: byte-level BPE, sentencepiece BPE with byte fallback, Unigram, WordPiece and WordLevel, with their
// normalizers, pre-tokenizers, post-processors and decoders. A component that it does not know is an error that
// names it, never a silent fallback. Byte offsets point into the text as it was given; invalid UTF-8 reads as one
// U+FFFD for each maximal invalid part. A Tokenizer is safe for concurrent use.
package token

import (
	"sync"
	"unicode/utf8"
)

// Piece is one token of a text: its id and the bytes of the text that it stands for. A token that holds part of
// a character carries the whole character; one that the post-processor added carries none (Start = End = 0).
type Piece struct{ ID, Start, End int }

// Tokenizer converts between text and token ids.
type Tokenizer struct {
	added         *addedTokens
	norm          normalizer    // nil: text stays as it is
	pre           preTokenizer  // nil: a text is one piece
	model         model         //
	post          postProcessor // nil: nothing is added
	dec           decoder       // nil: tokens are joined by spaces
	bos, eos, pad int
	pool          sync.Pool // of *scratch
}

// model turns one piece of text into tokens.
type model interface {
	// encode appends the tokens of s, with offsets into s raised by base.
	encode(dst []Piece, s string, base int, w *scratch) []Piece
	id(token string) (int, bool)
	token(id int) (string, bool)
	// count is the number of tokens, limit the largest id plus one.
	count() int
	limit() int
}

// Option changes how a text is encoded.
type Option func(*settings)

type settings struct{ special, literal, offsets bool }

// WithSpecial lets the post-processor add its tokens, such as begin and end of sequence.
func WithSpecial() Option { return func(s *settings) { s.special = true } }

// WithoutParsingSpecial reads special tokens written in the text as plain text, so that text of a user cannot
// smuggle them in.
func WithoutParsingSpecial() Option { return func(s *settings) { s.literal = true } }

// Encode returns the tokens of text, which may be up to 2 GiB long.
func (t *Tokenizer) Encode(text string, opts ...Option) []Piece {
	s := choose(opts)
	s.offsets = true
	return t.run(text, s)
}

// IDs returns the ids of the tokens of text. It is faster than Encode where a normalizer changes the text.
func (t *Tokenizer) IDs(text string, opts ...Option) []int {
	pieces := t.run(text, choose(opts))
	ids := make([]int, len(pieces))
	for i, p := range pieces {
		ids[i] = p.ID
	}
	return ids
}

func choose(opts []Option) settings {
	var s settings
	for _, o := range opts {
		o(&s)
	}
	return s
}

// cut is a part of a text between pre-tokenizers: an added token where id >= 0, else text for the model.
type cut struct{ start, end, id int32 }

// encode runs normalizer, pre-tokenizer and model.
func (t *Tokenizer) encode(input string, s settings) []Piece {
	whole := validText(input, s.offsets)
	pieces := make([]Piece, 0, len(whole.s)/3+4)
	w, ok := t.pool.Get().(*scratch)
	if !ok {
		w = &scratch{cache: newWordCache()}
	}
	defer t.pool.Put(w)

	outer := t.added.raw.find(nil, whole.s, s.literal)
	for _, o := range outer {
		part := whole.part(int(o.start), int(o.end))
		if o.id >= 0 {
			pieces = append(pieces, part.piece(int(o.id), 0, len(part.s)))
			continue
		}
		if t.norm != nil {
			t.norm.normalize(&part)
		}
		cuts := t.added.normalized.find(w.cuts[0][:0], part.s, s.literal)
		other := w.cuts[1]
		if t.pre != nil {
			cuts, other = t.pre.split(&part, cuts, other[:0])
		}
		first := len(pieces)
		for _, c := range cuts {
			switch {
			case c.id >= 0:
				pieces = append(pieces, Piece{int(c.id), int(c.start), int(c.end)})
			case c.start < c.end:
				pieces = t.model.encode(pieces, part.s[c.start:c.end], int(c.start), w)
			}
		}
		if s.offsets {
			part.locate(pieces[first:])
		}
		w.cuts[0], w.cuts[1] = cuts, other
	}
	return pieces
}

// run encodes a text and applies the post-processor.
func (t *Tokenizer) run(text string, s settings) []Piece {
	pieces := t.encode(text, s)
	if t.post == nil {
		return pieces
	}
	seqs := t.post.process([]sequence{{text: text, pieces: pieces}}, t, s)
	if len(seqs) == 1 {
		return seqs[0].pieces
	}
	var out []Piece
	for _, q := range seqs {
		out = append(out, q.pieces...)
	}
	return out
}

// Pair holds two texts that were encoded as one sequence, as models that compare texts read them. For each token
// it has the type id, and the text that the token is from: 0, 1, or -1 for one that the post-processor added.
type Pair struct {
	Pieces       []Piece
	Types, Texts []int
}

// EncodePair encodes two texts as one sequence; offsets point into the text that a token is from.
func (t *Tokenizer) EncodePair(a, b string, opts ...Option) Pair {
	s := choose(opts)
	s.offsets = true
	seqs := []sequence{{text: a, pieces: t.encode(a, s)}, {text: b, pieces: t.encode(b, s), number: 1}}
	for i := range seqs {
		seqs[i].types = repeat(i, len(seqs[i].pieces))
	}
	if t.post != nil {
		seqs = t.post.process(seqs, t, s)
	}
	var p Pair
	for _, q := range seqs {
		p.Pieces = append(p.Pieces, q.pieces...)
		p.Types = append(p.Types, q.types...)
		p.Texts = append(p.Texts, repeat(q.number, len(q.pieces))...)
	}
	return p
}

// Decode returns the text of ids; ids without a token are left out. With skipSpecial the special tokens are too.
func (t *Tokenizer) Decode(ids []int, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		token, ok := t.lookup(id)
		if !ok || skipSpecial && t.added.special[token] {
			continue
		}
		tokens = append(tokens, token)
	}
	return decodeTokens(t.dec, tokens)
}

func (t *Tokenizer) lookup(id int) (string, bool) {
	if s, ok := t.added.byID[id]; ok {
		return s, true
	}
	return t.model.token(id)
}

// Size returns the size of the vocabulary with the added tokens: the largest id plus one.
func (t *Tokenizer) Size() int { return max(t.model.limit(), t.added.limit) }

// ID returns the id of a token as it is written in the vocabulary.
func (t *Tokenizer) ID(token string) (int, bool) {
	if id, ok := t.added.byText[token]; ok {
		return id, true
	}
	return t.model.id(token)
}

// Token returns a token as it is written in the vocabulary, or "" where no token has this id.
func (t *Tokenizer) Token(id int) string {
	s, _ := t.lookup(id)
	return s
}

// IsSpecial tells whether id is a special token, such as the begin of a sequence.
func (t *Tokenizer) IsSpecial(id int) bool {
	s, ok := t.lookup(id)
	return ok && t.added.special[s]
}

// BOS returns the id of the token that begins a sequence, or -1.
func (t *Tokenizer) BOS() int { return t.bos }

// EOS returns the id of the token that ends a sequence, or -1.
func (t *Tokenizer) EOS() int { return t.eos }

// Pad returns the id of the padding token, or -1.
func (t *Tokenizer) Pad() int { return t.pad }

// validText wraps the input, with each maximal invalid part of UTF-8 (WHATWG's rule) replaced by U+FFFD.
func validText(input string, track bool) text {
	t := text{s: input, track: track}
	if utf8.ValidString(input) {
		return t
	}
	e := newEditor(&t, len(input)+16)
	for i := 0; i < len(input); {
		r, n := utf8.DecodeRuneInString(input[i:])
		if r == utf8.RuneError && n == 1 {
			n = invalidPart(input[i:])
		}
		e.put(r, span{int32(i), int32(i + n)})
		i += n
	}
	return e.text()
}

// invalidPart returns the length of the longest prefix of s that begins a code point but does not end it, at least 1.
func invalidPart(s string) int {
	lo, hi, need := byte(0x80), byte(0xBF), 0
	switch c := s[0]; {
	case c >= 0xC2 && c <= 0xDF:
		need = 1
	case c == 0xE0:
		lo, need = 0xA0, 2
	case c == 0xED:
		hi, need = 0x9F, 2
	case c >= 0xE1 && c <= 0xEF:
		need = 2
	case c == 0xF0:
		lo, need = 0x90, 3
	case c == 0xF4:
		hi, need = 0x8F, 3
	case c >= 0xF1 && c <= 0xF3:
		need = 3
	}
	n := 1
	for n <= need && n < len(s) && s[n] >= lo && s[n] <= hi {
		lo, hi = 0x80, 0xBF
		n++
	}
	return n
}
