package quality

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// Mend repairs text that was written in one encoding and read in another: UTF-8 read as Latin-1, Windows-1252 or GBK,
// several times over too, and GBK read as Latin-1. It returns the text and true where the whole of it reads well the
// other way, else the text as it is and false. Text with U+FFFD has lost bytes and is never mended.
func Mend(text string) (string, bool) {
	if ascii(text) || strings.ContainsRune(text, utf8.RuneError) {
		return text, false
	}
	mended := text
	for range 3 {
		b, ok := western(mended)
		if !ok || !utf8.Valid(b) || ascii(string(b)) {
			break
		}
		mended = string(b)
	}
	if mended != text {
		return mended, true
	}
	if s, ok := utf8FromGBK(text); ok {
		return s, true
	}
	return gbkFromLatin(text)
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// western returns the bytes that a text was read from as Latin-1 or Windows-1252; where both could be, the character
// tells which.
func western(text string) ([]byte, bool) {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r < 0x100 {
			b = append(b, byte(r))
			continue
		}
		c, ok := charmap.Windows1252.EncodeRune(r)
		if !ok {
			return nil, false
		}
		b = append(b, c)
	}
	return b, true
}

// utf8FromGBK reads text whose GBK bytes are UTF-8. Chinese text is now and then valid UTF-8 by chance, each pair of
// bytes with a probability of about 0.18; so a short text is mended only where Han characters stand inside Latin words
// and give Latin letters.
func utf8FromGBK(text string) (string, bool) {
	encoded, err := simplifiedchinese.GBK.NewEncoder().String(text)
	if err != nil || ascii(encoded) || !utf8.ValidString(encoded) {
		return text, false
	}
	evidence, latin := 0, true
	for _, r := range encoded {
		switch n := utf8.RuneLen(r); {
		case n > 1:
			evidence += 1 << (n - 2)
			latin = latin && (unicode.Is(unicode.Latin, r) || r < 0x180)
			if unicode.In(r, unicode.C, unicode.Co) {
				return text, false
			}
		}
	}
	if evidence >= 4 || latin && beside(text) {
		return encoded, true
	}
	return text, false
}

// beside reports whether a character beyond ASCII touches an ASCII letter.
func beside(text string) bool {
	last := rune(0)
	for _, r := range text {
		if r >= 0x80 && letter(last) || last >= 0x80 && letter(r) {
			return true
		}
		last = r
	}
	return false
}

func letter(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' }

// gbkFromLatin reads text whose Latin-1 bytes are GBK. Western text holds single accented letters, whose second byte
// would be ASCII, while misread Chinese comes in runs of letters and symbols.
func gbkFromLatin(text string) (string, bool) {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r >= 0x100 {
			return text, false
		}
		b = append(b, byte(r))
	}
	evidence, against := 0, 0
	for i := 0; i < len(b); {
		if b[i] < 0x80 {
			i++
			continue
		}
		j := i
		symbols := 0
		for j < len(b) && b[j] >= 0x80 {
			if b[j] < 0xc0 || b[j] == 0xd7 || b[j] == 0xf7 {
				symbols++
			}
			j++
		}
		switch n := j - i; {
		case n%2 == 1: // the last of them takes the ASCII character that follows for its second byte
			against++
			if n > 2 {
				evidence += n / 2
			}
		case n >= 4, symbols == n && (i > 0 && letter(rune(b[i-1])) || j < len(b) && letter(rune(b[j]))):
			evidence += n
		case symbols > 0:
			evidence++
		}
		i = j
	}
	if evidence <= 2*against {
		return text, false
	}
	decoded, err := simplifiedchinese.GBK.NewDecoder().Bytes(b)
	if err != nil || strings.ContainsRune(string(decoded), utf8.RuneError) {
		return text, false
	}
	back, err := simplifiedchinese.GBK.NewEncoder().Bytes(decoded)
	return string(decoded), err == nil && string(back) == string(b)
}
