package token

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

// Vectors of one tokenizer. Offsets count characters; nil strings mean "equal to the field before".
type vectors struct {
	Vectors []struct {
		I                  int     `json:"i"`
		IDs                []int   `json:"ids"`
		Offsets            []int   `json:"offsets"`
		IDsSpecial         []int   `json:"ids_special"`
		OffsetsSpecial     []int   `json:"offsets_special"`
		Decoded            *string `json:"decoded"`
		DecodedSkip        *string `json:"decoded_skip_special"`
		IDsSpecialsAsTexts []int   `json:"ids_specials_as_text"`
	} `json:"vectors"`
	PreTokenized []struct {
		I          int      `json:"i"`
		Normalized *string  `json:"normalized"`
		Pieces     [][3]any `json:"pieces"`
	} `json:"pre_tokenized"`
	Long  []longVector `json:"long"`
	Pairs []struct {
		A, B        string
		IDs         []int  `json:"ids"`
		TypeIDs     []int  `json:"type_ids"`
		SequenceIDs []*int `json:"sequence_ids"`
		SpecialMask []int  `json:"special_mask"`
	} `json:"pairs"`
	Stream []struct {
		IDs     []int     `json:"ids"`
		Skip    bool      `json:"skip_special_tokens"`
		Chunks  []*string `json:"chunks"`
		Decoded *string   `json:"decoded"`
		Error   string    `json:"error"`
	} `json:"stream"`
}

type longVector struct {
	Repeat     string   `json:"repeat"`
	Times      int      `json:"times"`
	Count      int      `json:"n_ids"`
	Runs       [][2]int `json:"ids_rle"`
	LastOffset []int    `json:"last_offset"`
}

type texts struct {
	Texts []struct{ Category, Text string }
}

// later names the cases of families that are still to come, with the reason. It only shrinks.
var later = map[string]string{}

func TestGoldenTokenizers(t *testing.T) {
	dir := golden.Dir(t, "tokenizers")
	var all texts
	golden.JSON(t, filepath.Join(dir, "texts.json"), &all)
	for name, path := range vectorFiles(t, filepath.Join(dir, "vectors")) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if why, ok := later[name]; ok {
				t.Skip(why)
			}
			tok, err := Open(tokenizerFile(t, dir, name))
			if err != nil {
				t.Fatal(err)
			}
			var v vectors
			golden.JSON(t, path, &v)
			c := &checker{t: t, tok: tok}
			c.vectors(v, all)
			c.preTokenized(v, all)
			for _, l := range v.Long {
				c.long(l)
			}
			c.pairs(v)
			c.streams(v)
		})
	}
}

func vectorFiles(t *testing.T, dir string) map[string]string {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(paths) == 0 {
		t.Fatalf("no vectors in %s", dir)
	}
	out := map[string]string{}
	for _, p := range paths {
		out[strings.TrimSuffix(filepath.Base(p), ".json")] = p
	}
	return out
}

// tokenizerFile finds the tokenizer that vectors were made with: beside them, or among the data sets.
func tokenizerFile(t *testing.T, dir, name string) string {
	for _, pattern := range []string{
		filepath.Join(dir, "tokenizers", name+".json*"),
		filepath.Join(golden.Data(t, "tokenizers"), strings.TrimSuffix(name, "_full")+"*tokenizer.json*"),
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("no tokenizer file for the vectors %q", name)
	return ""
}

// checker reports the first few differences of a tokenizer.
type checker struct {
	t   *testing.T
	tok *Tokenizer
	bad int
}

func (c *checker) equal(what, text string, want, have any) bool {
	c.t.Helper()
	if cmp.Equal(want, have) {
		return true
	}
	if c.bad++; c.bad <= 5 {
		c.t.Errorf("%s of %.200q:\nwant %v\nhave %v", what, text, want, have)
	}
	return false
}

// split returns ids and character offsets.
func split(pieces []Piece, text string) (ids, offsets []int) {
	ids, offsets = make([]int, len(pieces)), make([]int, 0, 2*len(pieces))
	for i, p := range pieces {
		ids[i] = p.ID
		offsets = append(offsets, utf8.RuneCountInString(text[:p.Start]), utf8.RuneCountInString(text[:p.End]))
	}
	return ids, offsets
}

func (c *checker) vectors(v vectors, all texts) {
	for _, w := range v.Vectors {
		category, text := all.Texts[w.I].Category, all.Texts[w.I].Text
		ids, offsets := split(c.tok.Encode(text), text)
		if !c.equal("ids", text, w.IDs, ids) {
			continue
		}
		c.equal("offsets", text, w.Offsets, offsets)
		c.equal("IDs", text, w.IDs, c.tok.IDs(text))
		special, specialOffsets := split(c.tok.Encode(text, WithSpecial()), text)
		if w.IDsSpecial == nil {
			w.IDsSpecial = w.IDs
		}
		c.equal("ids with special tokens", text, w.IDsSpecial, special)
		c.equal("IDs with special tokens", text, w.IDsSpecial, c.tok.IDs(text, WithSpecial()))
		if w.OffsetsSpecial != nil {
			c.equal("offsets with special tokens", text, w.OffsetsSpecial, specialOffsets)
		}
		if w.IDsSpecialsAsTexts != nil {
			c.equal("ids with special tokens as text", text, w.IDsSpecialsAsTexts, c.tok.IDs(text, WithoutParsingSpecial()))
		}
		decoded := text
		if w.Decoded != nil {
			decoded = *w.Decoded
		}
		c.equal("decoded", text, decoded, c.tok.Decode(w.IDs, false))
		if w.DecodedSkip != nil {
			decoded = *w.DecodedSkip
		}
		c.equal("decoded without special tokens", text, decoded, c.tok.Decode(w.IDs, true))
		if code, ok := strings.CutPrefix(category, "invalid_utf8:"); ok {
			raw, err := hex.DecodeString(code)
			if err != nil {
				c.t.Fatal(err)
			}
			c.equal("ids of bytes", text, w.IDs, c.tok.IDs(string(raw)))
		}
	}
}

func (c *checker) preTokenized(v vectors, all texts) {
	for _, w := range v.PreTokenized {
		input := all.Texts[w.I].Text
		part := text{s: input, track: true}
		if c.tok.norm != nil {
			c.tok.norm.normalize(&part)
		}
		want := input
		if w.Normalized != nil {
			want = *w.Normalized
		}
		c.equal("normalized", input, want, part.s)
		if w.Pieces == nil || c.tok.pre == nil {
			continue
		}
		s := part.s
		part = text{s: s, track: true}
		cuts, _ := c.tok.pre.split(&part, []cut{{0, int32(len(s)), -1}}, nil)
		have := [][3]any{}
		for _, k := range cuts {
			if k.start == k.end {
				continue
			}
			p := part.piece(0, int(k.start), int(k.end))
			piece := part.s[k.start:k.end]
			if m, ok := c.tok.model.(*bpe); ok && m.bytes != nil {
				spelt := text{s: piece}
				byteAlphabet{}.normalize(&spelt)
				piece = spelt.s
			}
			have = append(have, [3]any{piece, float64(utf8.RuneCountInString(s[:p.Start])), float64(utf8.RuneCountInString(s[:p.End]))})
		}
		c.equal("pieces", input, w.Pieces, have)
	}
}

func (c *checker) long(w longVector) {
	text := strings.Repeat(w.Repeat, w.Times)
	pieces := c.tok.Encode(text)
	if !c.equal("number of ids", text, w.Count, len(pieces)) {
		return
	}
	at := 0
	for _, run := range w.Runs {
		for range run[1] {
			if !c.equal("id", text, run[0], pieces[at].ID) {
				return
			}
			at++
		}
	}
	if n := len(pieces); n > 0 && w.LastOffset != nil {
		_, last := split(pieces[n-1:], text)
		c.equal("last offset", text, w.LastOffset, last)
	}
}

func (c *checker) pairs(v vectors) {
	for _, w := range v.Pairs {
		p := c.tok.EncodePair(w.A, w.B, WithSpecial())
		ids, _ := split(nil, "")
		mask, texts := []int{}, []*int{}
		for i, piece := range p.Pieces {
			ids = append(ids, piece.ID)
			if p.Texts[i] < 0 {
				mask, texts = append(mask, 1), append(texts, nil)
			} else {
				mask, texts = append(mask, 0), append(texts, &p.Texts[i])
			}
		}
		c.equal("ids of the pair", w.A+"|"+w.B, w.IDs, ids)
		c.equal("type ids of the pair", w.A+"|"+w.B, w.TypeIDs, append([]int{}, p.Types...))
		c.equal("special mask of the pair", w.A+"|"+w.B, w.SpecialMask, mask)
		c.equal("sequence ids of the pair", w.A+"|"+w.B, w.SequenceIDs, texts)
	}
}

func (c *checker) streams(v vectors) {
	for _, w := range v.Stream {
		s := c.tok.Stream(w.Skip)
		var whole, released strings.Builder
		for i, id := range w.IDs {
			chunk := s.Push(id)
			if !utf8.ValidString(chunk) {
				c.t.Errorf("stream of %v: chunk %d splits a code point: %q", w.IDs, i, chunk)
			}
			whole.WriteString(chunk)
			if w.Chunks == nil {
				continue
			}
			want := ""
			if w.Chunks[i] != nil {
				want = *w.Chunks[i]
			}
			released.WriteString(want)
			c.equal("chunk of the stream", c.tok.Token(id), want, chunk)
		}
		whole.WriteString(s.Flush())
		// The library's own chunks contradict its text where a run of byte tokens turns out invalid too late.
		if w.Decoded != nil && w.Error == "" && strings.HasPrefix(*w.Decoded, released.String()) {
			c.equal("whole stream", *w.Decoded, *w.Decoded, whole.String())
		}
	}
}

func TestGoldenSentencePiece(t *testing.T) {
	dir := golden.Dir(t, "tokenizers")
	var all texts
	golden.JSON(t, filepath.Join(dir, "texts.json"), &all)
	for name, path := range vectorFiles(t, filepath.Join(dir, "sp_vectors")) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok, err := Open(modelFile(t, dir, name))
			if err != nil {
				t.Fatal(err)
			}
			var v struct {
				Size    int `json:"vocab_size"`
				BOS     int `json:"bos_id"`
				EOS     int `json:"eos_id"`
				Pad     int `json:"pad_id"`
				Vectors []struct {
					I          int      `json:"i"`
					IDs        []int    `json:"ids"`
					Decoded    *string  `json:"decoded"`
					Normalized *string  `json:"normalized"`
					Pieces     []string `json:"pieces"`
				} `json:"vectors"`
				Long []longVector `json:"long"`
			}
			golden.JSON(t, path, &v)
			c := &checker{t: t, tok: tok}
			c.equal("size, bos, eos, pad", "", []int{v.Size, v.BOS, v.EOS, v.Pad}, []int{tok.Size(), tok.BOS(), tok.EOS(), tok.Pad()})
			for _, w := range v.Vectors {
				s := all.Texts[w.I].Text
				pieces := tok.Encode(s)
				ids, _ := split(pieces, s)
				c.equal("ids", s, w.IDs, ids)
				for i, p := range pieces {
					if p.Start > p.End || i > 0 && p.Start < pieces[i-1].Start {
						t.Errorf("offsets of %q: %v", s, pieces)
						break
					}
				}
				decoded := s
				if w.Decoded != nil {
					decoded = *w.Decoded
				}
				c.equal("decoded", s, decoded, tok.Decode(w.IDs, false))
				stream, whole := tok.Stream(false), ""
				for _, id := range w.IDs {
					whole += stream.Push(id)
				}
				c.equal("stream", s, decoded, whole+stream.Flush())
				if w.Normalized != nil {
					n := text{s: s, track: true}
					tok.norm.normalize(&n)
					c.equal("normalized", s, *w.Normalized, n.s)
				}
				for i, p := range w.Pieces {
					if i < len(ids) && tok.Token(ids[i]) != p && ids[i] != int(tok.model.(*sentencePiece).unk) {
						c.equal("piece", s, p, tok.Token(ids[i]))
					}
				}
			}
			for _, l := range v.Long {
				c.long(l)
			}
		})
	}
}

// modelFile finds the sentencepiece model that vectors were made with.
func modelFile(t *testing.T, dir, name string) string {
	data, file, _ := strings.Cut(name, "_")
	for _, path := range []string{filepath.Join(dir, "sp", name+".model"), filepath.Join(dir, "..", "..", "data", data, file+".model")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("no sentencepiece model for the vectors %q", name)
	return ""
}

// TestGoldenGGUF puts the vocabulary of byte-level and sentencepiece tokenizers into GGUF's form and checks the
// vectors again.
func TestGoldenGGUF(t *testing.T) {
	dir := golden.Dir(t, "tokenizers")
	var all texts
	golden.JSON(t, filepath.Join(dir, "texts.json"), &all)
	for name, path := range vectorFiles(t, filepath.Join(dir, "vectors")) {
		data, err := readFile(tokenizerFile(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bos := -1
		if t, err := Parse(data); err == nil {
			if ids := t.IDs("", WithSpecial()); len(ids) == 1 {
				bos = ids[0]
			}
		}
		meta, err := GGUFMetadata(data, bos, -1, -1)
		if err != nil {
			continue // GGUF has no form for it
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok, err := FromGGUF(meta)
			if err != nil {
				t.Fatal(err)
			}
			var v vectors
			golden.JSON(t, path, &v)
			c := &checker{t: t, tok: tok}
			c.vectors(v, all)
		})
	}
	for name, path := range vectorFiles(t, filepath.Join(dir, "sp_vectors")) {
		data, err := readFile(modelFile(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		m, err := readModel(data)
		if err != nil {
			t.Fatal(err)
		}
		if m.suffix || m.modelType != typeBPE && m.modelType != typeUnigram || slices.Contains(m.kinds, kindUserDefined) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok, err := FromGGUF(modelMetadata(m))
			if err != nil {
				t.Fatal(err)
			}
			var v vectors
			golden.JSON(t, path, &v)
			c := &checker{t: t, tok: tok}
			for _, w := range v.Vectors {
				if s := all.Texts[w.I].Text; slices.ContainsFunc(tok.added.raw.find(nil, s, false), func(c cut) bool { return c.id >= 0 }) {
					continue // sentencepiece takes special tokens for text
				}
				c.equal("ids", all.Texts[w.I].Text, w.IDs, tok.IDs(all.Texts[w.I].Text))
			}
		})
	}
}

// modelMetadata is a sentencepiece model in GGUF's keys.
func modelMetadata(m *spModel) map[string]any {
	kinds, rules := []int32{}, []any{}
	for _, k := range m.kinds {
		kinds = append(kinds, int32(k))
	}
	for _, b := range m.charsmap {
		rules = append(rules, b)
	}
	const key = "tokenizer.ggml."
	return map[string]any{
		key + "model": map[int]string{typeBPE: "llama", typeUnigram: "t5"}[m.modelType], key + "tokens": m.pieces,
		key + "scores": m.scores, key + "token_type": kinds, key + "add_space_prefix": m.dummyPrefix,
		key + "remove_extra_whitespaces": m.removeExtraSpaces, key + "precompiled_charsmap": rules,
		key + "bos_token_id": uint32(max(m.bos, 0)),
	}
}
