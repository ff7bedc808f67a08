package token

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sequence is a run of tokens of one text, or of tokens that a post-processor added.
type sequence struct {
	text   string
	pieces []Piece
	types  []int // type id of each piece
	number int   // 0 for the first text, 1 for the second, -1 for added tokens
}

// postProcessor adjusts the tokens of one or two texts and, where asked to, adds tokens around them.
type postProcessor interface {
	process(seqs []sequence, t *Tokenizer, opt settings) []sequence
}

type postSequence []postProcessor

func (p postSequence) process(seqs []sequence, t *Tokenizer, opt settings) []sequence {
	for _, each := range p {
		seqs = each.process(seqs, t, opt)
	}
	return seqs
}

func repeat(id, n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = id
	}
	return ids
}

func addedSequence(ids []int, typ int) sequence {
	s := sequence{number: -1, types: repeat(typ, len(ids))}
	for _, id := range ids {
		s.pieces = append(s.pieces, Piece{ID: id})
	}
	return s
}

// postTrim takes the white space that tokens begin or end with out of their offsets.
type postTrim struct{ trim, prefix bool }

func (p *postTrim) process(seqs []sequence, t *Tokenizer, opt settings) []sequence {
	if p.trim && opt.offsets {
		for _, s := range seqs {
			for i := range s.pieces {
				piece := &s.pieces[i]
				token := t.Token(piece.ID)
				if _, added := t.added.byID[piece.ID]; added {
					token = s.text[piece.Start:piece.End] // with the white space that it swallowed
				}
				p.trimPiece(piece, i == 0, token, s.text)
			}
		}
	}
	return seqs
}

// trimPiece counts white space in the token and moves the offsets by as many characters of the text. One space
// at the head of the first token is taken for the prefix that the pre-tokenizer put there.
func (p *postTrim) trimPiece(piece *Piece, first bool, token, s string) {
	blank := func(r rune) bool { return r == byteRunes[' '] || unicode.IsSpace(r) }
	count := func(s string) int { return utf8.RuneCountInString(s) }
	lead := count(token) - count(strings.TrimLeftFunc(token, blank))
	trail := count(token) - count(strings.TrimRightFunc(token, blank))
	if (first || piece.Start == 0) && p.prefix && lead == 1 {
		lead = 0
	}
	for ; lead > 0 && piece.Start < piece.End; lead-- {
		_, n := utf8.DecodeRuneInString(s[piece.Start:])
		piece.Start = min(piece.Start+n, piece.End)
	}
	if count(s[:piece.End]) < trail {
		return
	}
	for ; trail > 0 && piece.Start < piece.End; trail-- {
		_, n := utf8.DecodeLastRuneInString(s[:piece.End])
		piece.End = max(piece.End-n, piece.Start)
	}
}

// postBert is [CLS] A [SEP] B [SEP].
type postBert struct{ cls, sep int }

func (p *postBert) process(seqs []sequence, _ *Tokenizer, opt settings) []sequence {
	if !opt.special {
		return seqs
	}
	out := []sequence{addedSequence([]int{p.cls}, 0)}
	for i, s := range seqs {
		s.types = repeat(i, len(s.pieces))
		out = append(out, s, addedSequence([]int{p.sep}, i))
	}
	return out
}

// postRoberta is <s> A </s></s> B </s>, all of type 0.
type postRoberta struct {
	cls, sep int
	trim     postTrim
}

func (p *postRoberta) process(seqs []sequence, t *Tokenizer, opt settings) []sequence {
	seqs = p.trim.process(seqs, t, opt)
	for i := range seqs {
		seqs[i].types = repeat(0, len(seqs[i].pieces))
	}
	if !opt.special {
		return seqs
	}
	out := []sequence{addedSequence([]int{p.cls}, 0)}
	for i, s := range seqs {
		if i > 0 {
			out = append(out, addedSequence([]int{p.sep}, 0))
		}
		out = append(out, s, addedSequence([]int{p.sep}, 0))
	}
	return out
}

// postTemplate lays out texts and added tokens as its templates say.
type postTemplate struct{ single, pair []templatePart }

// templatePart is text number 0 or 1, or the added tokens ids where number is -1.
type templatePart struct {
	number, typ int
	ids         []int
}

func (p *postTemplate) process(seqs []sequence, _ *Tokenizer, opt settings) []sequence {
	template := p.single
	if len(seqs) == 2 {
		template = p.pair
	}
	if template == nil {
		return seqs
	}
	var out []sequence
	for _, part := range template {
		switch {
		case part.number >= 0:
			s := seqs[part.number]
			s.types = repeat(part.typ, len(s.pieces))
			out = append(out, s)
		case opt.special:
			out = append(out, addedSequence(part.ids, part.typ))
		}
	}
	return out
}

func newPostProcessor(c *component) (postProcessor, error) {
	switch c.kind {
	case "Sequence":
		return sequenceOf(c, "processors", newPostProcessor, func(p []postProcessor) postProcessor { return postSequence(p) })
	case "ByteLevel":
		return &postTrim{c.flag("trim_offsets", true), c.flag("add_prefix_space", true)}, c.err()
	case "BertProcessing":
		cls, sep := c.tokenAndID("cls"), c.tokenAndID("sep")
		return &postBert{cls, sep}, c.err()
	case "RobertaProcessing":
		cls, sep := c.tokenAndID("cls"), c.tokenAndID("sep")
		return &postRoberta{cls, sep, postTrim{c.flag("trim_offsets", true), c.flag("add_prefix_space", true)}}, c.err()
	case "TemplateProcessing":
		return newTemplate(c)
	}
	return nil, c.unknown("Sequence", "ByteLevel", "BertProcessing", "RobertaProcessing", "TemplateProcessing")
}

func newTemplate(c *component) (*postTemplate, error) {
	type part struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	}
	var raw struct {
		Single, Pair []struct{ Sequence, SpecialToken *part }
		Special      map[string]struct {
			IDs []int `json:"ids"`
		}
	}
	c.decode("single", &raw.Single)
	c.decode("pair", &raw.Pair)
	c.decode("special_tokens", &raw.Special)
	if err := c.err(); err != nil {
		return nil, err
	}
	build := func(parts []struct{ Sequence, SpecialToken *part }, texts int) ([]templatePart, error) {
		var out []templatePart
		seen := 0
		for i, p := range parts {
			switch {
			case p.Sequence != nil:
				number := strings.Index("AB", p.Sequence.ID)
				if len(p.Sequence.ID) != 1 || number < 0 || number >= texts {
					return nil, fmt.Errorf("TemplateProcessing: part %d: want sequence A%s, have %q", i, map[int]string{2: " or B"}[texts], p.Sequence.ID)
				}
				seen |= 1 << number
				out = append(out, templatePart{number: number, typ: p.Sequence.TypeID})
			case p.SpecialToken != nil:
				tok, ok := raw.Special[p.SpecialToken.ID]
				if !ok {
					return nil, fmt.Errorf("TemplateProcessing: part %d: token %q is not in special_tokens", i, p.SpecialToken.ID)
				}
				out = append(out, templatePart{number: -1, typ: p.SpecialToken.TypeID, ids: tok.IDs})
			default:
				return nil, fmt.Errorf("TemplateProcessing: part %d: want Sequence or SpecialToken", i)
			}
		}
		if seen != 1<<texts-1 {
			return nil, fmt.Errorf("TemplateProcessing: the template for %d text(s) leaves a text out", texts)
		}
		return out, nil
	}
	t := &postTemplate{}
	var err error
	if t.single, err = build(raw.Single, 1); err != nil {
		return nil, err
	}
	if len(raw.Pair) > 0 {
		t.pair, err = build(raw.Pair, 2)
	}
	return t, err
}
