package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// Python maps case by Unicode's full rules (ß becomes SS), which package cases knows; ASCII takes the short way.
// A cases.Caser has state, so each call makes its own.

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func lower(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return cases.Lower(language.Und).String(s)
}

func upper(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return cases.Upper(language.Und).String(s)
}

func casefold(s string) string { return cases.Fold().String(s) }

// titleRune maps one character to title case.
func titleRune(c rune) string {
	if t := unicode.ToTitle(c); t != c || c < 0x80 {
		return string(t)
	}
	if !unicode.IsLower(c) {
		return string(c)
	}
	return cases.Title(language.Und).String(string(c))
}

// capitalize makes the first character title case and the others lower case.
func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return titleFirst(s[:n]) + lower(s)[len(lower(s[:n])):]
}

func titleFirst(s string) string {
	for _, c := range s {
		return titleRune(c)
	}
	return ""
}

// cased reports whether Unicode gives the character a case.
func cased(c rune) bool {
	return unicode.IsUpper(c) || unicode.IsLower(c) || unicode.IsTitle(c) || unicode.In(c, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

func isLower(c rune) bool { return unicode.IsLower(c) || unicode.Is(unicode.Other_Lowercase, c) }

func isUpper(c rune) bool { return unicode.IsUpper(c) || unicode.Is(unicode.Other_Uppercase, c) }

// title is Python's str.title: a letter after a cased letter is lower, any other title case.
func title(s string) string {
	var b strings.Builder
	inWord := false
	for _, c := range s {
		if inWord {
			b.WriteString(lower(string(c)))
		} else {
			b.WriteString(titleRune(c))
		}
		inWord = cased(c)
	}
	return b.String()
}

func swapcase(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case isUpper(c):
			b.WriteString(lower(string(c)))
		case isLower(c):
			b.WriteString(upper(string(c)))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// allCased reports whether s has a cased character and all of them are ok.
func allCased(s string, ok func(rune) bool) bool {
	found := false
	for _, c := range s {
		if cased(c) {
			if !ok(c) {
				return false
			}
			found = true
		}
	}
	return found
}

func isTitle(s string) bool {
	found, inWord := false, false
	for _, c := range s {
		switch {
		case isUpper(c) || unicode.IsTitle(c):
			if inWord {
				return false
			}
			found, inWord = true, true
		case isLower(c):
			if !inWord {
				return false
			}
		default:
			inWord = false
		}
	}
	return found
}

// all reports whether s is not empty and every character is ok.
func all(s string, ok func(rune) bool) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return !ok(c) }) < 0
}

func isDecimal(c rune) bool { return unicode.Is(unicode.Nd, c) }

// isDigitRune also takes the digits that stand in circles, above or below the line.
func isDigitRune(c rune) bool { return isDecimal(c) || unicode.Is(otherDigits, c) }

func isNumeric(c rune) bool { return unicode.IsNumber(c) || unicode.Is(cjkNumerals, c) }

func isAlnum(c rune) bool { return unicode.IsLetter(c) || isNumeric(c) }

// otherDigits have the Unicode property Numeric_Type=Digit.
var otherDigits = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0xb2, Hi: 0xb3, Stride: 1},
		{Lo: 0xb9, Hi: 0xb9, Stride: 1},
		{Lo: 0x1369, Hi: 0x1371, Stride: 1},
		{Lo: 0x19da, Hi: 0x19da, Stride: 1},
		{Lo: 0x2070, Hi: 0x2070, Stride: 1},
		{Lo: 0x2074, Hi: 0x2079, Stride: 1},
		{Lo: 0x2080, Hi: 0x2089, Stride: 1},
		{Lo: 0x2460, Hi: 0x2468, Stride: 1},
		{Lo: 0x2474, Hi: 0x247c, Stride: 1},
		{Lo: 0x2488, Hi: 0x2490, Stride: 1},
		{Lo: 0x24ea, Hi: 0x24ea, Stride: 1},
		{Lo: 0x24f5, Hi: 0x24fd, Stride: 1},
		{Lo: 0x24ff, Hi: 0x24ff, Stride: 1},
		{Lo: 0x2776, Hi: 0x277e, Stride: 1},
		{Lo: 0x2780, Hi: 0x2788, Stride: 1},
		{Lo: 0x278a, Hi: 0x2792, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x10a40, Hi: 0x10a43, Stride: 1},
		{Lo: 0x10e60, Hi: 0x10e68, Stride: 1},
		{Lo: 0x11052, Hi: 0x1105a, Stride: 1},
		{Lo: 0x1f100, Hi: 0x1f10a, Stride: 1},
	},
	LatinOffset: 2,
}

// cjkNumerals are ideographs with a numeric value.
var cjkNumerals = func() *unicode.RangeTable {
	t := &unicode.RangeTable{}
	for _, c := range sorted("〇一二三四五六七八九十百千万億兆零壹贰貳叁參肆伍陆陸柒捌玖拾佰仟萬亿两兩廿卅卌") {
		t.R16 = append(t.R16, unicode.Range16{Lo: uint16(c), Hi: uint16(c), Stride: 1})
	}
	return t
}()
