package token

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kinds of pieces in a sentencepiece model; GGUF's token types are the same.
const (
	kindNormal      = 1
	kindUnknown     = 2
	kindControl     = 3
	kindUserDefined = 4
	kindUnused      = 5
	kindByte        = 6
)

// Types of sentencepiece models.
const (
	typeUnigram = 1
	typeBPE     = 2
	typeWord    = 3
	typeChar    = 4
)

// spModel is what a sentencepiece model says (sentencepiece_model.proto), with the defaults of its fields.
type spModel struct {
	pieces             []string
	scores             []float32
	kinds              []int
	modelType          int
	byteFallback       bool
	suffix             bool // spaces end words instead of beginning them
	unk, bos, eos, pad int
	unkSurface         string
	charsmap           []byte
	dummyPrefix        bool
	removeExtraSpaces  bool
	escapeSpaces       bool
}

const spaceMark = "▁"

func defaultModel() *spModel {
	return &spModel{
		modelType: typeUnigram, unk: 0, bos: 1, eos: 2, pad: -1, unkSurface: " \u2047 ",
		dummyPrefix: true, removeExtraSpaces: true, escapeSpaces: true,
	}
}

// field is one field of a protobuf message.
type field struct {
	number protowire.Number
	value  uint64
	bytes  []byte
}

func (f field) int() int   { return int(int32(f.value)) }
func (f field) bool() bool { return f.value != 0 }

// eachField calls f for every field of a message.
func eachField(b []byte, f func(field) error) error {
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		x := field{number: number}
		switch wire {
		case protowire.VarintType:
			x.value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			x.value = uint64(v)
		case protowire.BytesType:
			x.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, wire, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(x); err != nil {
			return err
		}
	}
	return nil
}

// ParseModel reads a sentencepiece model (.model): BPE, Unigram, char or word. Like sentencepiece itself it takes
// special tokens written in a text as text.
func ParseModel(data []byte) (*Tokenizer, error) {
	m, err := readModel(data)
	if err != nil {
		return nil, fmt.Errorf("sentencepiece model: %w", err)
	}
	t, err := m.tokenizer(nil)
	if err != nil {
		return nil, fmt.Errorf("sentencepiece model: %w", err)
	}
	t.setAdded(t.bos >= 0, t.bos < 0)
	return t, nil
}

func readModel(data []byte) (*spModel, error) {
	m := defaultModel()
	err := eachField(data, func(f field) error {
		switch f.number {
		case 1:
			return m.readPiece(f.bytes)
		case 2:
			return eachField(f.bytes, m.readTrainer)
		case 3:
			return eachField(f.bytes, m.readNormalizer)
		case 5:
			return eachField(f.bytes, func(f field) error {
				if f.number == 2 && len(f.bytes) > 0 {
					return errors.New("a denormalizer is not supported")
				}
				return nil
			})
		}
		return nil
	})
	return m, err
}

func (m *spModel) readPiece(b []byte) error {
	piece, score, kind := "", float32(0), kindNormal
	err := eachField(b, func(f field) error {
		switch f.number {
		case 1:
			piece = string(f.bytes)
		case 2:
			score = math.Float32frombits(uint32(f.value))
		case 3:
			kind = f.int()
		}
		return nil
	})
	m.pieces, m.scores, m.kinds = append(m.pieces, piece), append(m.scores, score), append(m.kinds, kind)
	return err
}

func (m *spModel) readTrainer(f field) error {
	switch f.number {
	case 3:
		m.modelType = f.int()
	case 24:
		m.suffix = f.bool()
	case 35:
		m.byteFallback = f.bool()
	case 40:
		m.unk = f.int()
	case 41:
		m.bos = f.int()
	case 42:
		m.eos = f.int()
	case 43:
		m.pad = f.int()
	case 44:
		m.unkSurface = string(f.bytes)
	}
	return nil
}

func (m *spModel) readNormalizer(f field) error {
	switch f.number {
	case 2:
		m.charsmap = f.bytes
	case 3:
		m.dummyPrefix = f.bool()
	case 4:
		m.removeExtraSpaces = f.bool()
	case 5:
		m.escapeSpaces = f.bool()
	}
	return nil
}

// tokenizer builds the pipeline. The added tokens are cut out of the text before it.
func (m *spModel) tokenizer(added []addedToken) (*Tokenizer, error) {
	s := &sentencePiece{kinds: m.kinds, unk: -1}
	s.tokens, s.ids = m.pieces, make(map[string]int32, len(m.pieces))
	for id, p := range m.pieces {
		if p == "" {
			return nil, fmt.Errorf("piece %d is empty", id)
		}
		if len(p) > tokenMost {
			return nil, fmt.Errorf("piece %d: %w", id, errTooLong(p))
		}
		if old, twice := s.ids[p]; twice {
			return nil, fmt.Errorf("piece %q stands twice, as %d and %d", p, old, id)
		}
		s.ids[p] = int32(id)
		if m.kinds[id] == kindUnknown {
			s.unk = int32(id)
		}
		if m.kinds[id] == kindUserDefined {
			s.user.add(p, int32(id))
		}
	}
	if s.unk < 0 {
		return nil, errors.New("no piece of type unknown")
	}
	if m.byteFallback {
		s.fallback = new([256]int32)
		for b := range s.fallback {
			id, ok := s.ids[byteToken(byte(b))]
			if !ok {
				return nil, fmt.Errorf("byte_fallback without the piece %s", byteToken(byte(b)))
			}
			s.fallback[b] = id
		}
	}
	var err error
	switch m.modelType {
	case typeUnigram:
		s.inner, err = m.unigram(s)
	case typeBPE:
		s.inner = m.bpe(s)
	case typeWord, typeChar:
		s.inner = &wholePieces{s, m.modelType == typeWord}
	default:
		err = fmt.Errorf("model_type %d is not supported (known: 1 unigram, 2 bpe, 3 word, 4 char)", m.modelType)
	}
	if err != nil {
		return nil, err
	}
	n := &spNormalizer{
		user: &s.user, prefix: m.dummyPrefix && !m.suffix, suffix: m.dummyPrefix && m.suffix,
		squeeze: m.removeExtraSpaces, space: " ",
	}
	if m.escapeSpaces {
		n.space = spaceMark
	}
	if len(m.charsmap) > 0 {
		if n.rules, err = newCharsmap(m.charsmap); err != nil {
			return nil, fmt.Errorf("precompiled_charsmap: %w", err)
		}
	}
	t := &Tokenizer{norm: n, model: s, dec: &spDecoder{s, m.unkSurface, m.dummyPrefix || m.removeExtraSpaces, m.removeExtraSpaces}}
	t.added = newAddedTokens(added, s, nil)
	for id, k := range m.kinds {
		if k == kindControl || k == kindUnknown {
			t.added.special[m.pieces[id]] = true
		}
	}
	inRange := func(id int) int {
		if id < 0 || id >= len(m.pieces) {
			return -1
		}
		return id
	}
	t.bos, t.eos, t.pad = inRange(m.bos), inRange(m.eos), inRange(m.pad)
	return t, nil
}

// sentencePiece is the model of a sentencepiece file.
type sentencePiece struct {
	vocabulary
	kinds    []int
	unk      int32
	user     trie         // user-defined pieces, which are always taken whole
	fallback *[256]int32  // pieces <0x00> to <0xFF>
	inner    pieceEncoder // by the type of the model
}

type pieceEncoder interface {
	encode(dst []Piece, s string, base int, w *scratch) []Piece
}

func (s *sentencePiece) encode(dst []Piece, text string, base int, w *scratch) []Piece {
	return s.inner.encode(dst, text, base, w)
}

// put appends a piece, or what stands for an unknown one: its bytes, or the unknown piece, one for neighbours.
func (s *sentencePiece) put(dst []Piece, first int, id int32, text string, start int) []Piece {
	p := Piece{int(id), start, start + len(text)}
	if id != s.unk {
		return append(dst, p)
	}
	if s.fallback != nil {
		for i := range len(text) {
			p.ID = int(s.fallback[text[i]])
			dst = append(dst, p)
		}
		return dst
	}
	if n := len(dst); n > first && dst[n-1].ID == p.ID {
		dst[n-1].End = p.End
		return dst
	}
	return append(dst, p)
}

// lookup returns the id of a piece of text, or the unknown one.
func (s *sentencePiece) lookup(text string) int32 {
	if id, ok := s.ids[text]; ok {
		return id
	}
	return s.unk
}

// unigram builds the model of type Unigram, which computes in float32.
func (m *spModel) unigram(s *sentencePiece) (*unigram, error) {
	u := &unigram{tokens: m.pieces, scores: make([]float64, len(m.pieces)), single: true, unk: s.unk, fallback: s.fallback}
	least, most := float32(math.MaxFloat32), float32(0x1p-126)
	for id, p := range m.pieces {
		if v := float64(m.scores[id]); math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("piece %d (%q): want a finite score, have %v", id, p, v)
		}
		if m.kinds[id] == kindNormal {
			least, most = min(least, m.scores[id]), max(most, m.scores[id])
		}
	}
	for id, p := range m.pieces {
		switch m.kinds[id] {
		case kindNormal:
			u.scores[id] = float64(m.scores[id])
		case kindUserDefined: // scored so high that it is always taken
			u.scores[id] = float64(float32(len(p))*most) - 0.1
		default:
			continue
		}
		u.trie.add(p, int32(id))
	}
	u.unkScore = float64(least - unkPenalty)
	return u, nil
}

// wholePieces looks every word or every character up.
type wholePieces struct {
	s     *sentencePiece
	words bool
}

func (w *wholePieces) encode(dst []Piece, s string, base int, _ *scratch) []Piece {
	first := len(dst)
	for i := 0; i < len(s); {
		n := w.s.head(s[i:])
		if w.words {
			n = len(s) - i
			if k := strings.Index(s[i+1:], spaceMark); k >= 0 {
				n = k + 1
			}
		}
		dst = w.s.put(dst, first, w.s.lookup(s[i:i+n]), s[i:i+n], base+i)
		i += n
	}
	return dst
}

// head returns the length of the user-defined piece or else the character that begins s.
func (s *sentencePiece) head(text string) int {
	if _, n := s.user.longest(text); n > 0 {
		return n
	}
	return runeLen(text)
}

// spNormalizer is sentencepiece's: rules of a charsmap but for user-defined pieces, then spaces.
type spNormalizer struct {
	rules          *charsmap // nil: none
	user           *trie
	prefix, suffix bool   // a space is put at the head or at the end
	squeeze        bool   // of neighbouring spaces one is kept, and none at the ends
	space          string // what a space is written as
}

func (n *spNormalizer) normalize(t *text) {
	s := t.s
	i := 0
	if n.squeeze {
		for i < len(s) {
			to, w := n.head(s[i:])
			if to != " " {
				break
			}
			i += w
		}
	}
	if i == len(s) {
		*t = t.slice(i, i)
		return
	}
	e := newEditor(t, len(s)+len(s)/4+8)
	if n.prefix {
		e.insert(n.space, i)
	}
	blank := n.squeeze // what is written so far ends with a space
	for i < len(s) {
		if k := n.plain(s[i:]); k > 0 {
			e.copy(i, i+k)
			i += k
			blank = false
			continue
		}
		to, w := n.head(s[i:])
		if blank {
			to = strings.TrimLeft(to, " ")
		}
		if to != "" {
			e.replace(strings.ReplaceAll(to, " ", n.space), i, i+w)
			blank = n.squeeze && to[len(to)-1] == ' '
		}
		i += w
	}
	if n.squeeze {
		for strings.HasSuffix(string(e.out[max(0, len(e.out)-len(n.space)):]), n.space) {
			e.cut(len(n.space))
		}
	}
	if n.suffix {
		e.insert(n.space, len(s))
	}
	*t = e.text()
}

// plain returns how much of the head of s stays as it is for sure: all up to a space where there are no rules.
func (n *spNormalizer) plain(s string) int {
	if n.rules != nil || n.user.edges != nil {
		return 0
	}
	if k := strings.IndexByte(s, ' '); k >= 0 {
		return k
	}
	return len(s)
}

// head returns what the head of s is replaced by, and its length.
func (n *spNormalizer) head(s string) (string, int) {
	if _, w := n.user.longest(s); w > 0 {
		return s[:w], w
	}
	if n.rules != nil {
		if to, w := n.rules.find(s, true); w > 0 {
			return to, w
		}
	}
	w := runeLen(s)
	return s[:w], w
}

// spDecoder is sentencepiece's: control pieces are invisible, runs of byte pieces are read as UTF-8, and a space
// at the head is dropped where the normalizer puts or removes one.
type spDecoder struct {
	s          *sentencePiece
	unkSurface string
	trim       bool // drop a space mark at the head
	squeeze    bool // of pieces that are empty then, go on dropping
}

func (d *spDecoder) decode(tokens []string) []string {
	var out strings.Builder
	var run []byte
	flush := func() {
		for len(run) > 0 { // a byte that begins no character is U+FFFD by itself
			n := runeLen(string(run[:min(4, len(run))]))
			out.WriteString(lossy(string(run[:n])))
			run = run[n:]
		}
	}
	head, marked := true, false // at the head of the text, and past the mark there
	for _, tok := range tokens {
		kind := kindNormal
		if id, ok := d.s.ids[tok]; ok {
			kind = d.s.kinds[id]
		}
		if b, ok := parseByteToken(tok); ok && kind == kindByte {
			run = append(run, b)
			continue
		}
		flush()
		if marked || out.Len() > 0 {
			head = false
		}
		marked = false
		switch kind {
		case kindControl:
			continue
		case kindUnknown:
			out.WriteString(d.unkSurface)
			continue
		}
		if head && d.trim {
			tok, marked = strings.CutPrefix(tok, spaceMark)
			marked = marked && !d.squeeze
		}
		out.WriteString(strings.ReplaceAll(tok, spaceMark, " "))
	}
	flush()
	return []string{out.String()}
}
