package token

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes a text before it is cut.
type normalizer interface {
	normalize(t *text)
}

type normSequence []normalizer

func (n normSequence) normalize(t *text) {
	for _, each := range n {
		each.normalize(t)
	}
}

// form is one of Unicode's normalization forms.
type form struct {
	form    norm.Form
	compose bool
}

var nfc, nfd = form{norm.NFC, true}, form{norm.NFD, false}

func (n form) normalize(t *text) {
	if n == nfc && plainNFC(t.s) || n.form.IsNormalString(t.s) {
		return
	}
	changes := decompose(t.s, n.form)
	if n.compose {
		changes = compose(changes)
	}
	t.transform(changes)
}

// plainNFC tells whether a text has nothing but characters that stay alone under NFC: those before the combining
// marks, punctuation, and the most common of Chinese and Japanese. It is a quick way for most texts.
func plainNFC(s string) bool {
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if !(r < 0x300 || r >= 0x4E00 && r <= 0x9FFF || r >= 0x3000 && r <= 0x3098 || r >= 0x2010 && r <= 0x205E ||
			r >= 0xFF01 && r <= 0xFF5E) {
			return false
		}
		i += n
	}
	return true
}

// decompose writes every character as its full decomposition, marks in canonical order. What a character brings
// beyond its first is inserted.
func decompose(s string, f norm.Form) []change {
	out := make([]change, 0, len(s))
	canonical := norm.NFD
	if f == norm.NFKC || f == norm.NFKD {
		canonical = norm.NFKD
	}
	ready := 0 // out[ready:] are marks that may still move
	order := func() {
		slices.SortStableFunc(out[ready:], func(a, b change) int { return int(combining(a.r)) - int(combining(b.r)) })
	}
	for i, r := range s {
		rs := decomposeHangul(r)
		if full := canonical.PropertiesString(s[i : i+utf8.RuneLen(r)]).Decomposition(); len(full) > 0 && !notCompatible.has(r) {
			rs = []rune(string(full))
		}
		for k, d := range rs {
			if combining(d) == 0 {
				order()
				ready = len(out) + 1
			}
			out = append(out, change{r: d, kind: min(k, 1)})
		}
	}
	order()
	return out
}

func combining(r rune) uint8 {
	if r < 0x300 {
		return 0
	}
	var b [utf8.UTFMax]byte
	return norm.NFD.Properties(b[:utf8.EncodeRune(b[:], r)]).CCC()
}

// Hangul syllables are composed by arithmetic (The Unicode Standard, 3.12).
const (
	hangulS, hangulL, hangulV, hangulT = 0xAC00, 0x1100, 0x1161, 0x11A7
	countL, countV, countT             = 19, 21, 28
)

func decomposeHangul(r rune) []rune {
	s := r - hangulS
	if s < 0 || s >= countL*countV*countT {
		return []rune{r}
	}
	out := []rune{hangulL + s/(countV*countT), hangulV + s%(countV*countT)/countT}
	if t := s % countT; t > 0 {
		out = append(out, hangulT+t)
	}
	return out
}

// composePair returns the primary composite of two characters, 0 for none.
func composePair(a, b rune) rune {
	switch {
	case a >= hangulL && a < hangulL+countL && b >= hangulV && b < hangulV+countV:
		return hangulS + ((a-hangulL)*countV+(b-hangulV))*countT
	case a >= hangulS && a < hangulS+countL*countV*countT && (a-hangulS)%countT == 0 && b > hangulT && b < hangulT+countT:
		return a + b - hangulT
	case b < 0x300:
		return 0
	}
	s := norm.NFC.String(string(a) + string(b))
	if r, n := utf8.DecodeRuneInString(s); n == len(s) {
		return r
	}
	return 0
}

// compose joins characters to composites; a composite takes the place of its first character and drops the rest.
func compose(in []change) []change {
	out := in[:0]
	starter := -1 // index in out that characters compose with
	var last uint8
	for _, c := range in {
		class := combining(c.r)
		if starter >= 0 && (len(out) == starter+1 || last < class && last != 0) {
			if r := composePair(out[starter].r, c.r); r != 0 {
				out[starter].r = r
				out[starter].kind += c.kind - 1
				continue
			}
		}
		if class == 0 {
			starter = len(out)
		}
		last = class
		out = append(out, c)
	}
	return out
}

func newNormalizer(c *component) (normalizer, error) {
	switch c.kind {
	case "Sequence":
		return sequenceOf(c, "normalizers", newNormalizer, func(n []normalizer) normalizer { return normSequence(n) })
	case "NFC":
		return nfc, nil
	case "NFD":
		return nfd, nil
	case "NFKC":
		return form{norm.NFKC, true}, nil
	case "NFKD":
		return form{norm.NFKD, false}, nil
	case "Lowercase":
		return lowercase{}, nil
	case "StripAccents":
		return keep(func(r rune) bool { return !isMark(r) }), nil
	case "Strip":
		return strip{c.flag("strip_left", true), c.flag("strip_right", true)}, c.err()
	case "Prepend":
		return prefix(c.text("prepend", "")), c.err()
	case "Replace":
		m, err := c.matcher()
		return &replace{m, c.text("content", "")}, err
	case "BertNormalizer":
		lower := c.flag("lowercase", true)
		return bertNormalizer(c.flag("clean_text", true), c.flag("handle_chinese_chars", true), c.flag("strip_accents", lower), lower), c.err()
	case "Nmt":
		return normSequence{keep(func(r rune) bool { return !nmtControl(r) }), mapRunes(nmtSpace)}, nil
	case "ByteLevel":
		return byteAlphabet{}, nil
	case "Precompiled":
		var blob []byte // base64 in JSON
		c.decode("precompiled_charsmap", &blob)
		if c.first != nil {
			return nil, c.err()
		}
		m, err := newCharsmap(blob)
		if err != nil {
			return nil, fmt.Errorf("precompiled_charsmap of Precompiled: %w", err)
		}
		return precompiled{m}, nil
	}
	return nil, c.unknown("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Prepend",
		"Replace", "BertNormalizer", "Nmt", "ByteLevel", "Precompiled")
}

func bertNormalizer(clean, han, accents, lower bool) normalizer {
	var n normSequence
	if clean {
		n = append(n, keep(func(r rune) bool { return !isControl(r) }), mapRunes(func(r rune) rune {
			if isSpace(r) {
				return ' '
			}
			return r
		}))
	}
	if han {
		n = append(n, aroundHan{})
	}
	if accents {
		n = append(n, nfd, keep(func(r rune) bool { return !isNonspacing(r) }))
	}
	if lower {
		n = append(n, lowercase{})
	}
	return n
}
