package ifeval

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// verifier checks one kind of instruction.
type verifier struct {
	follows func(a Args, text string) bool
	needs   func(a Args) string // what the arguments lack; nil where none are needed
}

func (v verifier) missing(a Args) string {
	if v.needs == nil {
		return ""
	}
	return v.needs(a)
}

// compare tells whether a count keeps a relation.
func compare(n int, relation string, to int) bool {
	if relation == "less than" {
		return n < to
	}
	return n >= to
}

// want makes a check of arguments.
func want(what string, ok func(a Args) bool) func(a Args) string {
	return func(a Args) string {
		if ok(a) {
			return ""
		}
		return what
	}
}

func related(relation string) bool { return relation == "less than" || relation == "at least" }

var verifiers = map[string]verifier{
	"keywords:existence": {existence, want("keywords", func(a Args) bool { return len(a.Keywords) > 0 })},
	"keywords:frequency": {func(a Args, text string) bool {
		return compare(len(pattern(strings.TrimSpace(a.Keyword)).FindAllStringIndex(text, -1)), a.Relation, a.Frequency)
	}, want("a keyword with a relation", func(a Args) bool { return a.Keyword != "" && related(a.Relation) })},
	"keywords:forbidden_words": {forbidden, want("forbidden words", func(a Args) bool { return len(a.ForbiddenWords) > 0 })},
	"keywords:letter_frequency": {func(a Args, text string) bool {
		return compare(strings.Count(strings.ToLower(text), strings.ToLower(a.Letter)), a.LetterRelation, a.LetterFrequency)
	}, want("a letter with a relation", func(a Args) bool { return utf8.RuneCountInString(a.Letter) == 1 && related(a.LetterRelation) })},
	"language:response_language": {func(a Args, text string) bool {
		found, known := Language(text)
		return !known || found == a.Language || found == "zh" && strings.HasPrefix(a.Language, "zh-")
	}, want("a language", func(a Args) bool { return a.Language != "" })},
	"length_constraints:number_sentences": {func(a Args, text string) bool {
		return compare(Sentences(text), a.Relation, a.Sentences)
	}, want("a number of sentences with a relation", func(a Args) bool { return related(a.Relation) })},
	"length_constraints:number_words": {func(a Args, text string) bool {
		return compare(len(words.FindAllString(text, -1)), a.Relation, a.Words)
	}, want("a number of words with a relation", func(a Args) bool { return related(a.Relation) })},
	"length_constraints:number_paragraphs":        {paragraphs, nil},
	"length_constraints:nth_paragraph_first_word": {firstWord, want("a first word", func(a Args) bool { return a.FirstWord != "" })},
	"detectable_content:number_placeholders": {func(a Args, text string) bool {
		return len(placeholders.FindAllString(text, -1)) >= a.Placeholders
	}, nil},
	"detectable_content:postscript": {postscript, want("a marker of the postscript", func(a Args) bool { return a.Postscript != "" })},
	"detectable_format:number_bullet_lists": {func(a Args, text string) bool {
		return len(stars.FindAllString(text, -1))+len(dashes.FindAllString(text, -1)) == a.Bullets
	}, nil},
	"detectable_format:constrained_response": {func(_ Args, text string) bool {
		return slices.ContainsFunc([]string{"My answer is yes.", "My answer is no.", "My answer is maybe."}, func(s string) bool { return strings.Contains(text, s) })
	}, nil},
	"detectable_format:number_highlighted_sections": {highlights, nil},
	"detectable_format:multiple_sections": {func(a Args, text string) bool {
		re, err := regexp.Compile(space + `?` + strings.TrimSpace(a.Splitter) + space + `?\d+` + space + `?`)
		if err != nil {
			re = regexp.MustCompile(regexp.QuoteMeta(strings.TrimSpace(a.Splitter)) + space + `?\d+`)
		}
		return len(re.FindAllString(text, -1)) >= a.Sections
	}, want("what begins a section", func(a Args) bool { return a.Splitter != "" })},
	"detectable_format:json_format": {isJSON, nil},
	"detectable_format:title": {func(_ Args, text string) bool {
		return slices.ContainsFunc(titles.FindAllString(text, -1), func(t string) bool {
			return strings.TrimSpace(strings.TrimRight(strings.TrimLeft(t, "<"), ">")) != ""
		})
	}, nil},
	"combination:two_responses": {twoResponses, nil},
	"combination:repeat_prompt": {func(a Args, text string) bool {
		return strings.HasPrefix(fold(text), fold(a.Prompt))
	}, want("a prompt to repeat", func(a Args) bool { return a.Prompt != "" })},
	"startend:end_checker": {func(a Args, text string) bool {
		return strings.HasSuffix(strings.ToLower(strings.Trim(strings.TrimSpace(text), `"`)), fold(a.End))
	}, want("a phrase for the end", func(a Args) bool { return a.End != "" })},
	"startend:quotation": {func(_ Args, text string) bool {
		text = strings.TrimSpace(text)
		return len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"'
	}, nil},
	"change_case:capital_word_frequency": {func(a Args, text string) bool {
		return compare(capitals(text), a.CapitalRelation, a.Capitals)
	}, want("a number of capital words with a relation", func(a Args) bool { return related(a.CapitalRelation) })},
	"change_case:english_capital":   {func(_ Args, text string) bool { return cased(text, unicode.IsUpper, unicode.IsLower) && english(text) }, nil},
	"change_case:english_lowercase": {func(_ Args, text string) bool { return cased(text, unicode.IsLower, unicode.IsUpper) && english(text) }, nil},
	"punctuation:no_comma":          {func(_ Args, text string) bool { return !strings.Contains(text, ",") }, nil},
}

// space is Python's \s.
const space = `[\s\x{1c}-\x{1f}\x{85}\p{Z}]`

var (
	words        = regexp.MustCompile(`[\p{L}\p{N}_]+`)
	placeholders = regexp.MustCompile(`\[.*?\]`)
	stars        = regexp.MustCompile(`(?m)^` + space + `*\*[^*].*$`)
	dashes       = regexp.MustCompile(`(?m)^` + space + `*-.*$`)
	single       = regexp.MustCompile(`\*[^\n*]*\*`)
	double       = regexp.MustCompile(`\*\*[^\n*]*\*\*`)
	titles       = regexp.MustCompile(`<<[^\n]+>>`)
	divider      = regexp.MustCompile(space + `?\*\*\*` + space + `?`)
)

func fold(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// pattern compiles a keyword, which is a regular expression where it can be one.
func pattern(keyword string) *regexp.Regexp {
	re, err := regexp.Compile("(?i)" + keyword)
	if err != nil {
		return regexp.MustCompile("(?i)" + regexp.QuoteMeta(keyword))
	}
	return re
}

func existence(a Args, text string) bool {
	for _, k := range a.Keywords {
		if !pattern(k).MatchString(text) {
			return false
		}
	}
	return true
}

// forbidden looks for whole words.
func forbidden(a Args, text string) bool {
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }
	border := func(at int) bool {
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at:])
		return (at > 0 && word(before)) != (at < len(text) && word(after))
	}
	for _, w := range a.ForbiddenWords {
		re := pattern(w)
		for at := 0; at <= len(text); {
			m := re.FindStringIndex(text[at:])
			if m == nil {
				break
			}
			if border(at+m[0]) && border(at+m[1]) {
				return false
			}
			_, size := utf8.DecodeRuneInString(text[at+m[0]:])
			at += m[0] + max(size, 1)
		}
	}
	return true
}

func paragraphs(a Args, text string) bool {
	list := divider.Split(text, -1)
	n := len(list)
	for i, p := range list {
		if strings.TrimSpace(p) != "" {
			continue
		}
		if i > 0 && i < len(list)-1 {
			return false
		}
		n--
	}
	return n == a.Paragraphs
}

func firstWord(a Args, text string) bool {
	list := strings.Split(text, "\n\n")
	n := len(list)
	for _, p := range list {
		if strings.TrimSpace(p) == "" {
			n--
		}
	}
	if a.NthParagraph < 1 || a.NthParagraph > n {
		return false
	}
	fields := strings.Fields(list[a.NthParagraph-1])
	if len(fields) == 0 {
		return false
	}
	word := strings.TrimLeft(strings.TrimLeft(fields[0], "'"), `"`)
	if i := strings.IndexAny(word, `.,?!'"`); i >= 0 {
		word = word[:i]
	}
	return n == a.Paragraphs && strings.EqualFold(word, a.FirstWord)
}

func postscript(a Args, text string) bool {
	var form string
	switch marker := strings.TrimSpace(a.Postscript); marker {
	case "P.P.S":
		form = `p\.` + space + `?p\.` + space + `?s`
	case "P.S.":
		form = `p\.` + space + `?s\.`
	default:
		form = strings.ToLower(marker)
	}
	re, err := regexp.Compile(form)
	if err != nil {
		return strings.Contains(strings.ToLower(text), strings.ToLower(a.Postscript))
	}
	return re.MatchString(strings.ToLower(text))
}

func highlights(a Args, text string) bool {
	n := 0
	for _, h := range single.FindAllString(text, -1) {
		if strings.TrimSpace(strings.Trim(h, "*")) != "" {
			n++
		}
	}
	for _, h := range double.FindAllString(text, -1) {
		if strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(h, "**"), "**")) != "" {
			n++
		}
	}
	return n >= a.Highlights
}

func isJSON(_ Args, text string) bool {
	text = strings.TrimSpace(text)
	for _, fence := range []string{"```json", "```Json", "```JSON", "```"} {
		text = strings.TrimPrefix(text, fence)
	}
	text = strings.TrimSpace(strings.TrimSuffix(text, "```"))
	if slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, text) {
		return true // as Python has it
	}
	return json.Valid([]byte(text))
}

func twoResponses(_ Args, text string) bool {
	list := strings.Split(text, "******")
	var found []string
	for i, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			found = append(found, s)
		} else if i > 0 && i < len(list)-1 {
			return false
		}
	}
	return len(found) == 2 && found[0] != found[1]
}

// cased reports whether a text has letters of one case and none of the other.
func cased(text string, is, isNot func(rune) bool) bool {
	found := false
	for _, r := range text {
		if isNot(r) || unicode.IsTitle(r) {
			return false
		}
		found = found || is(r)
	}
	return found
}

func english(text string) bool {
	found, known := Language(text)
	return !known || found == "en"
}

var (
	apart       = regexp.MustCompile(`[;@#$%&?!()\[\]{}<>"“”«»…` + "`" + `]|--|\.\.\.|[:,](?:\D|$)`)
	contraction = regexp.MustCompile(`(?i)(n't|'s|'m|'d|'ll|'re|'ve|')$`)
	joined      = map[string]int{"CANNOT": 3, "GIMME": 3, "GONNA": 3, "GOTTA": 3, "LEMME": 3, "WANNA": 3}
)

// capitals counts the words in capitals as the tokenizer of the Penn Treebank splits them: a contraction is two words.
func capitals(text string) int {
	upper := func(w string) bool { return cased(w, unicode.IsUpper, unicode.IsLower) }
	n := 0
	for _, part := range strings.Fields(apart.ReplaceAllStringFunc(text, func(s string) string {
		if s[0] == ':' || s[0] == ',' {
			return " " + s[1:]
		}
		return " "
	})) {
		w := strings.TrimRight(part, ".")
		if m := contraction.FindStringIndex(w); m != nil && m[0] > 0 {
			if upper(w[m[0]:]) {
				n++
			}
			w = w[:m[0]]
		}
		if upper(w) {
			n++
			if joined[w] > 0 {
				n++
			}
		}
	}
	return n
}
