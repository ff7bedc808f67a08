package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// charsmap is sentencepiece's compiled rules of normalization: a double-array trie (Darts) from strings to places
// in a list of replacements that end in NUL.
type charsmap struct {
	units []uint32
	to    string
}

func newCharsmap(blob []byte) (*charsmap, error) {
	if len(blob) < 4 {
		return nil, fmt.Errorf("want at least 4 bytes, have %d", len(blob))
	}
	n := int(binary.LittleEndian.Uint32(blob))
	blob = blob[4:]
	if n > len(blob) || n%4 != 0 || n == 0 {
		return nil, fmt.Errorf("trie of %d bytes: want a multiple of 4, from 4 to %d", n, len(blob))
	}
	m := &charsmap{units: make([]uint32, n/4), to: string(blob[n:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(blob[4*i:])
	}
	if !utf8.ValidString(m.to) {
		return nil, errors.New("replacements are not UTF-8")
	}
	return m, nil
}

// find returns the replacement for the longest or the shortest key that begins s, and the key's length, 0 for none.
func (m *charsmap) find(s string, longest bool) (to string, n int) {
	offset := func(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }
	at := offset(m.units[0])
	for i := range len(s) {
		c := uint32(s[i])
		at ^= c
		if c == 0 || at >= uint32(len(m.units)) || m.units[at]&(1<<31|0xFF) != c {
			break
		}
		unit := m.units[at]
		at ^= offset(unit)
		if unit>>8&1 == 0 || at >= uint32(len(m.units)) {
			continue
		}
		if k := m.units[at] & (1<<31 - 1); k <= uint32(len(m.to)) {
			to, _, _ = strings.Cut(m.to[k:], "\x00")
			n = i + 1
		}
		if n > 0 && !longest {
			break
		}
	}
	return to, n
}

// precompiled applies a charsmap as the Hugging Face library does, which is not what sentencepiece does: a short
// grapheme cluster, else a character, is replaced as a whole by what its shortest key gives.
type precompiled struct{ m *charsmap }

func (p precompiled) normalize(t *text) {
	changes := make([]change, 0, len(t.s))
	changed := false
	try := func(s string) bool {
		to, n := p.m.find(s, false)
		if n == 0 {
			return false
		}
		changed = true
		more := utf8.RuneCountInString(to) - utf8.RuneCountInString(s)
		for _, r := range to {
			changes = append(changes, change{r: r})
		}
		for i := range max(more, 0) {
			changes[len(changes)-1-i].kind = 1
		}
		if more < 0 && len(changes) > 0 {
			changes[len(changes)-1].kind += more
		}
		return true
	}
	for i := 0; i < len(t.s); {
		n := cluster(t.s[i:])
		if g := t.s[i : i+n]; n >= 6 || !try(g) {
			for k, r := range g {
				if !try(g[k : k+utf8.RuneLen(r)]) {
					changes = append(changes, change{r: r})
				}
			}
		}
		i += n
	}
	if changed {
		t.transform(changes)
	}
}

// cluster returns the length of the extended grapheme cluster (UAX 29) that begins s. Clusters of Hangul, flags,
// emoji and Indic conjuncts, which have six bytes or more, may come in parts: precompiled treats those alike.
func cluster(s string) int {
	r, n := utf8.DecodeRuneInString(s)
	if r == '\r' && strings.HasPrefix(s[n:], "\n") {
		return 2
	}
	if breaksAround(r) {
		return n
	}
	for isPrepended(r) && n < len(s) {
		next, w := utf8.DecodeRuneInString(s[n:])
		if breaksAround(next) {
			return n
		}
		r = next
		n += w
	}
	pictograph := r == '©' || r == '®'
	for n < len(s) {
		next, w := utf8.DecodeRuneInString(s[n:])
		joined := pictograph && r == 0x200D && (next == '©' || next == '®' || next >= 0x203C && unicode.Is(unicode.So, next))
		if !isExtending(next) && !joined {
			break
		}
		r = next
		n += w
	}
	return n
}

// breaksAround holds for Grapheme_Cluster_Break = Control, CR and LF.
func breaksAround(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) ||
		unicode.Is(unicode.Cf, r) && r != 0x200C && r != 0x200D && !isPrepended(r) && !isExtending(r)
}

// isPrepended holds for Grapheme_Cluster_Break = Prepend.
func isPrepended(r rune) bool {
	switch r {
	case 0xD4E, 0x111C2, 0x111C3, 0x1193F, 0x11941, 0x11A3A, 0x11D46, 0x11F02:
		return true
	}
	return unicode.Is(unicode.Prepended_Concatenation_Mark, r) || r >= 0x11A84 && r <= 0x11A89
}

// isExtending holds for Grapheme_Cluster_Break = Extend, ZWJ and SpacingMark.
func isExtending(r rune) bool {
	if r < 0x300 {
		return false
	}
	switch {
	case r == 0x200D, r == 0xE33, r == 0xEB3, r >= 0x1F3FB && r <= 0x1F3FF:
		return true
	case r == 0x102B, r == 0x102C, r == 0x1038, r >= 0x1062 && r <= 0x1064, r >= 0x1067 && r <= 0x106D, r == 0x1083,
		r >= 0x1087 && r <= 0x108C, r == 0x108F, r >= 0x109A && r <= 0x109C, r == 0x1A61, r == 0x1A63, r == 0x1A64,
		r == 0xAA7B, r == 0xAA7D, r == 0x11720, r == 0x11721:
		return false // Mc, but not SpacingMark
	}
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Mc, unicode.Other_Grapheme_Extend)
}
