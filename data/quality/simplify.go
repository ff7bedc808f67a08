package quality

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Simplify brings a text into the form that datatrove compares: lower case, numbers as 0, punctuation as blanks, blanks
// collapsed, no diacritics.
func Simplify(text string) string {
	rs := []rune(strings.ToLower(text))
	var b strings.Builder
	blank := false
	for i := 0; i < len(rs); {
		r := rs[i]
		switch {
		case unicode.Is(unicode.Nd, r):
			i = number(rs, i)
			b.WriteByte('0')
			blank = false
			continue
		case punctuation(r) || space(r):
			if !blank {
				b.WriteByte(' ')
			}
			blank = true
		default:
			b.WriteRune(r)
			blank = false
		}
		i++
	}
	bare := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, norm.NFD.String(b.String()))
	return strings.TrimFunc(bare, space)
}

// number returns where the number that begins at i ends: digits, and a mark with digits behind it.
func number(rs []rune, i int) int {
	digits := func(i int) int {
		for i < len(rs) && unicode.Is(unicode.Nd, rs[i]) {
			i++
		}
		return i
	}
	i = digits(i)
	if i+1 < len(rs) && strings.ContainsRune(".,،٫⎖⎗⎘", rs[i]) && unicode.Is(unicode.Nd, rs[i+1]) {
		return digits(i + 1)
	}
	return i
}

// marks are the characters that datatrove takes for punctuation, beside the control characters.
const marks = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"

func punctuation(r rune) bool {
	if r < 32 || r >= 127 && r < 160 {
		return r != '\t' && r != '\n'
	}
	return strings.ContainsRune(marks, r)
}

// Hash64 is the 64-bit xxHash of a text with seed 0, datatrove's hash of shingles.
func Hash64(s string) uint64 {
	const p1, p2, p3, p4, p5 = 0x9e3779b185ebca87, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, 0x85ebca77c2b2ae63, 0x27d4eb2f165667c5
	round := func(acc, lane uint64) uint64 { return bits.RotateLeft64(acc+lane*p2, 31) * p1 }
	b, n := []byte(s), uint64(len(s))
	h := uint64(p5)
	if len(b) >= 32 {
		var prime1, prime2 uint64 = p1, p2
		v := [4]uint64{prime1 + prime2, prime2, 0, -prime1}
		for ; len(b) >= 32; b = b[32:] {
			for i := range v {
				v[i] = round(v[i], binary.LittleEndian.Uint64(b[8*i:]))
			}
		}
		h = bits.RotateLeft64(v[0], 1) + bits.RotateLeft64(v[1], 7) + bits.RotateLeft64(v[2], 12) + bits.RotateLeft64(v[3], 18)
		for _, x := range v {
			h = (h^round(0, x))*p1 + p4
		}
	}
	h += n
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(b)), 27)*p1 + p4
	}
	if len(b) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(b))*p1, 23)*p2 + p3
		b = b[4:]
	}
	for _, x := range b {
		h = bits.RotateLeft64(h^uint64(x)*p5, 11) * p1
	}
	h = (h ^ h>>33) * p2
	h = (h ^ h>>29) * p3
	return h ^ h>>32
}
