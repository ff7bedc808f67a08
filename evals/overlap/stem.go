package overlap

import "strings"

// irregular are the words that the extended algorithm knows by heart.
var irregular = map[string]string{
	"sky": "sky", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news", "innings": "inning", "inning": "inning",
	"outings": "outing", "outing": "outing", "cannings": "canning", "canning": "canning", "howe": "howe", "proceed": "proceed",
	"exceed": "exceed", "succeed": "succeed",
}

// Stem returns the stem of an English word in lower case by Porter's algorithm (1980) with the extensions of NLTK, which
// rouge_score uses.
func Stem(word string) string {
	if s, ok := irregular[word]; ok {
		return s
	}
	if len(word) <= 2 {
		return word
	}
	for _, step := range []func(string) string{plural, past, yToI, double, single, suffixes, finalE} {
		word = step(word)
	}
	return word
}

// consonants tells for each letter whether it is a consonant; y is one at the start and after a vowel.
func consonants(w string) []bool {
	out := make([]bool, len(w))
	for i := range w {
		switch w[i] {
		case 'a', 'e', 'i', 'o', 'u':
		case 'y':
			out[i] = i == 0 || !out[i-1]
		default:
			out[i] = true
		}
	}
	return out
}

// measure counts the changes from a vowel to a consonant.
func measure(w string) int {
	n := 0
	c := consonants(w)
	for i := 1; i < len(c); i++ {
		if c[i] && !c[i-1] {
			n++
		}
	}
	return n
}

func hasVowel(w string) bool {
	for _, c := range consonants(w) {
		if !c {
			return true
		}
	}
	return false
}

// short reports whether a word ends in consonant, vowel, consonant other than w, x and y, or is a vowel and a consonant.
func short(w string) bool {
	c := consonants(w)
	n := len(w)
	if n == 2 {
		return !c[0] && c[1]
	}
	return n > 2 && c[n-3] && !c[n-2] && c[n-1] && !strings.ContainsRune("wxy", rune(w[n-1]))
}

// rule replaces a suffix.
type rule struct{ suffix, by string }

// apply uses the first rule whose suffix the word has, if the measure of what is left is above least.
func apply(w string, least int, rules []rule) string {
	for _, r := range rules {
		if stem, ok := strings.CutSuffix(w, r.suffix); ok {
			if measure(stem) > least {
				return stem + r.by
			}
			return w
		}
	}
	return w
}

func plural(w string) string {
	switch {
	case strings.HasSuffix(w, "ies") && len(w) == 4:
		return w[:3]
	case strings.HasSuffix(w, "sses"), strings.HasSuffix(w, "ies"):
		return w[:len(w)-2]
	case strings.HasSuffix(w, "ss"):
		return w
	}
	return strings.TrimSuffix(w, "s")
}

func past(w string) string {
	if stem, ok := strings.CutSuffix(w, "ied"); ok {
		if len(w) == 4 {
			return stem + "ie"
		}
		return stem + "i"
	}
	if stem, ok := strings.CutSuffix(w, "eed"); ok {
		if measure(stem) > 0 {
			return stem + "ee"
		}
		return w
	}
	stem, ok := strings.CutSuffix(w, "ed")
	if !ok || !hasVowel(stem) {
		if stem, ok = strings.CutSuffix(w, "ing"); !ok || !hasVowel(stem) {
			return w
		}
	}
	n := len(stem)
	switch {
	case strings.HasSuffix(stem, "at"), strings.HasSuffix(stem, "bl"), strings.HasSuffix(stem, "iz"):
		return stem + "e"
	case n > 1 && stem[n-1] == stem[n-2] && consonants(stem)[n-1]:
		if strings.ContainsRune("lsz", rune(stem[n-1])) {
			return stem
		}
		return stem[:n-1]
	case measure(stem) == 1 && short(stem):
		return stem + "e"
	}
	return stem
}

func yToI(w string) string {
	stem, ok := strings.CutSuffix(w, "y")
	if ok && len(stem) > 1 && consonants(stem)[len(stem)-1] {
		return stem + "i"
	}
	return w
}

func double(w string) string {
	if stem, ok := strings.CutSuffix(w, "alli"); ok && measure(stem) > 0 {
		return double(stem + "al")
	}
	if strings.HasSuffix(w, "logi") {
		if measure(w[:len(w)-3]) > 0 {
			return w[:len(w)-1]
		}
		return w
	}
	return apply(w, 0, []rule{
		{"ational", "ate"},
		{"tional", "tion"},
		{"enci", "ence"},
		{"anci", "ance"},
		{"izer", "ize"},
		{"bli", "ble"},
		{"alli", "al"},
		{"entli", "ent"},
		{"eli", "e"},
		{"ousli", "ous"},
		{"ization", "ize"},
		{"ation", "ate"},
		{"ator", "ate"},
		{"alism", "al"},
		{"iveness", "ive"},
		{"fulness", "ful"},
		{"ousness", "ous"},
		{"aliti", "al"},
		{"iviti", "ive"},
		{"biliti", "ble"},
		{"fulli", "ful"},
	})
}

func single(w string) string {
	return apply(w, 0, []rule{{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}})
}

func suffixes(w string) string {
	var rules []rule
	for _, s := range strings.Fields("al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize") {
		rules = append(rules, rule{s, ""})
	}
	out := apply(w, 1, rules)
	if stem, ok := strings.CutSuffix(w, "ion"); ok && out == stem && !strings.HasSuffix(stem, "s") && !strings.HasSuffix(stem, "t") {
		return w
	}
	return out
}

func finalE(w string) string {
	if stem, ok := strings.CutSuffix(w, "e"); ok && (measure(stem) > 1 || measure(stem) == 1 && !short(stem)) {
		w = stem
	}
	if strings.HasSuffix(w, "ll") && measure(w[:len(w)-1]) > 1 {
		w = w[:len(w)-1]
	}
	return w
}
