package token

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// unigram cuts a piece into the tokens of greatest total score (Kudo 2018), found by Viterbi's algorithm. Unknown
// characters score below every token; neighbouring ones are one token.
type unigram struct {
	tokens   []string
	scores   []float64
	trie     trie
	unk      int32 // -1: none
	unkScore float64
	single   bool        // sums are rounded to float32
	fallback *[256]int32 // tokens <0x00> to <0xFF>, set where all unknown bytes are spelt with them
}

// unkPenalty is how far below the least score an unknown character lies.
const unkPenalty = 10

func newUnigram(tokens []string, scores []float64, unk int) (*unigram, error) {
	m := &unigram{tokens: tokens, scores: scores, unk: int32(unk)}
	least := 0.0
	for id, s := range tokens {
		if math.IsNaN(scores[id]) || math.IsInf(scores[id], 0) {
			return nil, fmt.Errorf("token %d (%q): want a finite score, have %v", id, s, scores[id])
		}
		if len(s) > tokenMost {
			return nil, fmt.Errorf("token %d: %w", id, errTooLong(s))
		}
		if id == 0 || scores[id] < least {
			least = scores[id]
		}
		if s != "" {
			m.trie.add(s, int32(id))
		}
	}
	m.unkScore = least - unkPenalty
	return m, nil
}

// setFallback spells unknown characters as byte tokens, where the vocabulary holds them all.
func (m *unigram) setFallback() {
	f := new([256]int32)
	for b := range f {
		id, ok := m.id(byteToken(byte(b)))
		if !ok {
			return
		}
		f[b] = int32(id)
	}
	m.fallback = f
}

func newModelUnigram(c *component) (*unigram, error) {
	var entries []unigramEntry
	c.decode("vocab", &entries)
	unk := c.int("unk_id", -1)
	fallback := c.flag("byte_fallback", false)
	if c.first == nil && (unk < 0 || unk >= len(entries)) {
		c.fail("unk_id: want the id of one of the %d tokens for what the vocabulary lacks, have %d", len(entries), unk)
	}
	if c.first != nil {
		return nil, c.err()
	}
	tokens, scores := make([]string, len(entries)), make([]float64, len(entries))
	for i, e := range entries {
		tokens[i], scores[i] = e.token, e.score
	}
	m, err := newUnigram(tokens, scores, unk)
	if err != nil {
		return nil, fmt.Errorf("model Unigram: %w", err)
	}
	if fallback {
		m.setFallback()
	}
	return m, nil
}

// unigramEntry is [token, score].
type unigramEntry struct {
	token string
	score float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *unigramEntry) UnmarshalJSON(b []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("want [token, score], have %s", b)
	}
	if err := json.Unmarshal(pair[0], &e.token); err != nil {
		return err
	}
	return json.Unmarshal(pair[1], &e.score)
}

func (m *unigram) id(token string) (int, bool) {
	id, n := m.trie.longest(token)
	if n < len(token) || n == 0 {
		i := slices.Index(m.tokens, token)
		return i, token == "" && i >= 0
	}
	return int(id), true
}

func (m *unigram) token(id int) (string, bool) {
	if id < 0 || id >= len(m.tokens) {
		return "", false
	}
	return m.tokens[id], true
}

func (m *unigram) count() int { return len(m.tokens) }
func (m *unigram) limit() int { return len(m.tokens) }

// arrival is the best way to a place in the text: the token that ends there, where it begins, and the score so far.
type arrival struct {
	score float64
	id    int32
	start int32 // -1: not reached
}

func (m *unigram) encode(dst []Piece, s string, base int, w *scratch) []Piece {
	best := append(w.arrivals[:0], arrival{})
	for range len(s) {
		best = append(best, arrival{start: -1})
	}
	w.arrivals = best
	for i := 0; i < len(s); {
		_, width := utf8.DecodeRuneInString(s[i:])
		whole := false // a token covers just this character
		reach := func(j int, id int32, score float64) {
			score += best[i].score
			if m.single {
				score = float64(float32(score))
			}
			if a := &best[j]; a.start < 0 || score > a.score {
				*a = arrival{score, id, int32(i)}
			}
		}
		node := int32(0)
		for j := i; j < len(s) && m.trie.edges != nil; j++ {
			if node = m.trie.next(node, s[j]); node < 0 {
				break
			}
			if id := m.trie.value[node]; id >= 0 {
				reach(j+1, id, m.scores[id])
				whole = whole || j+1 == i+width
			}
		}
		if !whole {
			reach(i+width, m.unk, m.unkScore)
		}
		i += width
	}
	first := len(dst)
	for end := len(s); end > 0; {
		a := best[end]
		start := int(a.start)
		for a.id == m.unk && start > 0 && best[start].id == m.unk {
			start = int(best[start].start)
		}
		dst = m.put(dst, s[start:end], a.id, base+start)
		end = start
	}
	slices.Reverse(dst[first:])
	return dst
}

// put appends a token, or what stands for an unknown text, last byte first.
func (m *unigram) put(dst []Piece, s string, id int32, start int) []Piece {
	p := Piece{int(id), start, start + len(s)}
	if id != m.unk {
		return append(dst, p)
	}
	if known, ok := m.id(s); ok {
		p.ID = known
		return append(dst, p)
	}
	if m.fallback == nil {
		return append(dst, p)
	}
	for i := len(s) - 1; i >= 0; i-- {
		p.ID = int(m.fallback[s[i]])
		dst = append(dst, p)
	}
	return dst
}
