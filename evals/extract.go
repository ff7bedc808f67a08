package evals

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// NoAnswer is what an extraction gives where it finds nothing.
const NoAnswer = "[invalid]"

// Extraction finds the answer in a response.
type Extraction struct {
	pattern *regexp.Regexp
	last    bool
}

// The extractions of GSM8K: strict wants the form of the training data, flexible takes the last number, and reasoned
// that of chain-of-thought prompts.
var (
	GSM8KStrict   = Extraction{pattern: regexp.MustCompile(`#### (\-?[0-9\.\,]+)`)}
	GSM8KFlexible = Extraction{pattern: regexp.MustCompile(`(-?[$0-9.,]{2,})|(-?[0-9]+)`), last: true}
	GSM8KReasoned = Extraction{pattern: regexp.MustCompile(`The answer is (\-?[0-9\.\,]+).`)}
)

// Extract returns the answer in a response, or NoAnswer.
func (e Extraction) Extract(response string) string {
	found := e.pattern.FindAllStringSubmatch(response, -1)
	if len(found) == 0 {
		return NoAnswer
	}
	match := found[0]
	if e.last {
		match = found[len(found)-1]
	}
	for _, group := range match[1:] {
		if group != "" {
			return strings.TrimSpace(group)
		}
	}
	return NoAnswer
}

// Match says how an answer is compared with the right one.
type Match struct {
	Ignore            []string // regular expressions of what is taken out of both first, in this order
	IgnoreCase        bool
	IgnorePunctuation bool // that of ASCII
	IgnoreNumbers     bool
}

// GSM8KMatch is the comparison of GSM8K.
var GSM8KMatch = Match{Ignore: []string{",", `\$`, `(?s).*#### `, `\.$`}, IgnoreCase: true}

// Equal reports whether an answer is the right one.
func (m Match) Equal(answer, right string) (bool, error) {
	a, err := m.normal(answer)
	if err != nil {
		return false, err
	}
	b, err := m.normal(right)
	return a == b, err
}

const asciiPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

func (m Match) normal(s string) (string, error) {
	for _, pattern := range m.Ignore {
		// An end of the text is also before its last line break, as in Python.
		keep := ""
		if head, ok := strings.CutSuffix(pattern, "$"); ok && !strings.HasSuffix(head, `\`) {
			pattern, keep = head+`(?P<end>\n?)\z`, "${end}"
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return "", fmt.Errorf("match: %w", err)
		}
		s = re.ReplaceAllString(s, keep)
	}
	if m.IgnoreCase {
		s = strings.ToLower(s)
	}
	if m.IgnorePunctuation {
		s = without(s, asciiPunctuation)
	}
	if m.IgnoreNumbers {
		s = without(s, "0123456789")
	}
	return strings.TrimRight(s, "\x00"), nil
}

func without(s, chars string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && strings.ContainsRune(chars, r) {
			return -1
		}
		return r
	}, s)
}

// Majority returns the answer that most responses give, of several such the first.
func Majority(answers []string) string {
	counts := map[string]int{}
	for _, a := range answers {
		counts[a]++
	}
	best := ""
	for _, a := range answers {
		if best == "" || counts[a] > counts[best] {
			best = a
		}
	}
	return best
}
