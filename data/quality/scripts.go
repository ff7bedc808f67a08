package quality

import (
	"maps"
	"slices"
	"unicode"
)

// common are the scripts that are looked at first.
var common = []string{"Latin", "Han", "Hiragana", "Katakana", "Hangul", "Cyrillic", "Greek", "Arabic", "Devanagari"}

// Scripts counts the letters of a text by the name of their Unicode script. Marks, digits and punctuation are none.
func Scripts(text string) map[string]int {
	counts := map[string]int{}
	for _, r := range text {
		switch {
		case r < 0x80 && (r|0x20 >= 'a' && r|0x20 <= 'z'):
			counts["Latin"]++
		case r >= 0x80 && unicode.IsLetter(r):
			counts[Script(r)]++
		}
	}
	return counts
}

// Script returns the name of a character's script.
func Script(r rune) string {
	for _, name := range common {
		if unicode.Is(unicode.Scripts[name], r) {
			return name
		}
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return name
		}
	}
	return "Unknown"
}

// Dominant returns the script with most letters, the first by its name of those with equally many, "" for none.
func Dominant(counts map[string]int) string {
	best := ""
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if best == "" || counts[name] > counts[best] {
			best = name
		}
	}
	return best
}
