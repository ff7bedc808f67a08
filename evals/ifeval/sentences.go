package ifeval

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// abbreviations are written with a period that ends no sentence.
var abbreviations = set(`mr mrs ms dr prof st jr sr vs inc ltd co corp bros gen col capt cmdr lt sgt maj adm sen rep gov
	rev hon pres jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun u.s u.k u.n ph.d a.m p.m
	d.c n.y l.a b.c a.d no fig vol ave blvd rd mt ft`)

// starters are words that are mostly written small, so that a capital after an abbreviation begins a sentence.
var starters = set(`the a an he she it they we you i this that these those there his her their its our in on at by for from
	of to with and but or so if when while as after before because however then now not no what who how why where which is are
	was were be do does did can could will would may might must should my your one some many most all`)

func set(text string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(text) {
		out[w] = true
	}
	return out
}

// Sentences counts the sentences of an English text: after a period, an exclamation or a question mark with white space
// behind it, but not after an abbreviation, an initial before a name, or dots that go on.
func Sentences(text string) int {
	fields := strings.Fields(text)
	n := 0
	open := false
	for i, f := range fields {
		open = true
		next := ""
		if i+1 < len(fields) {
			next = fields[i+1]
		}
		if ends(f, next) {
			n++
			open = false
		}
	}
	if open {
		n++
	}
	return n
}

// ends reports whether a sentence ends with a word, before the next one.
func ends(word, next string) bool {
	body := strings.TrimRight(word, `)"'}]*”’»`)
	last, size := utf8.DecodeLastRuneInString(body)
	if size == 0 || !strings.ContainsRune(".!?", last) {
		return false
	}
	if last != '.' {
		return true
	}
	head := strings.TrimLeft(strings.TrimSuffix(body, "."), `("'{[*“‘«`)
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(next, `("'{[*“‘«`))
	starts := unicode.IsUpper(first) && starters[strings.ToLower(strings.TrimFunc(next, func(r rune) bool { return !unicode.IsLetter(r) }))]
	switch letters := []rune(head); {
	case strings.HasSuffix(head, "."): // an ellipsis
		return starts
	case abbreviations[strings.ToLower(head)]:
		return starts
	case len(letters) == 1 && unicode.IsLetter(letters[0]) && unicode.IsUpper(first) && len([]rune(strings.Trim(next, ".,"))) > 1:
		return starts
	case strings.TrimFunc(head, func(r rune) bool { return unicode.IsDigit(r) || r == '.' || r == ',' }) == "" && head != "":
		return !unicode.IsLower(first)
	}
	return true
}
