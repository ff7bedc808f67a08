package token

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func allMatches(m matcher, s string) []string {
	out := []string{}
	m.matches(s, func(i, j int) { out = append(out, s[i:j]) })
	return out
}

// TestRegex holds what Oniguruma 6.9 does in Ruby's syntax.
func TestRegex(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          []string
	}{
		{`a{2}+`, "aaaaa", []string{"aaaa"}},
		{`a{1,2}+`, "aaaaa", []string{"aaaaa"}},
		{`a{2}?`, "aaaaa", []string{"aa", "aa", ""}},
		{`a{1,2}?b`, "aaab", []string{"aab"}},
		{`^b`, "a\nb\nbb", []string{"b", "b"}},
		{`b$`, "ab\nb\nbb", []string{"b", "b", "b"}},
		{`(?m)a.b`, "a\nb", []string{"a\nb"}},
		{`a.b`, "a\nb", []string{}},
		{`\h+`, "xyzabc0 F", []string{"abc0", "F"}},
		{`[a-z&&[^b]]+`, "abcab", []string{"a", "ca"}},
		{`\R`, "a\r\nb\nc", []string{"\r\n", "\n"}},
		{`(?i:k)`, "K\u212ak", []string{"K", "\u212a", "k"}},
		{`(?i:'s)`, "'S'ſ", []string{"'S", "'ſ"}},
		{`(?i)a(?-i)b|c`, "AbABC", []string{"Ab"}},
		{`[[:punct:]]+`, "a$+<.!b", []string{"$+<.!"}},
		{`\p{Punct}+`, "a$+<.!b", []string{".!"}},
		{`\p{Alpha}+`, "abc１2é", []string{"abc", "é"}},
		{`(?<=a)b`, "ab bb", []string{"b"}},
		{`(?<!a)b`, "ab bb", []string{"b", "b"}},
		{`(?<=a|bc)d`, "ad bcd cd", []string{"d", "d"}},
		{`(?>a+)ab`, "aaab", []string{}},
		{`a++ab`, "aaab", []string{}},
		{`\bfoo\b`, "foo food", []string{"foo"}},
		{`\p{^L}+`, "ab12", []string{"12"}},
		{`\P{L}+`, "ab12", []string{"12"}},
		{`\p{Han}`, "中a", []string{"中"}},
		{`\x{4e00}\u4e00`, "一一", []string{"一一"}},
		{`[]a]`, "a]", []string{"a", "]"}},
		{`a{,2}`, "aaa", []string{"aa", "a"}},
		{`a{x}`, "a{x}", []string{"a{x}"}},
		{`(?#c)a`, "a", []string{"a"}},
		{`(?x) \p{L} + # c`, "ab", []string{"ab"}},
		{`[\w-]+`, "a-b", []string{"a-b"}},
		{`\w`, "½a", []string{"½", "a"}},
		{`[\w]`, "½a", []string{"a"}},
		{`(a*)*b`, "aab", []string{"aab"}},
		{`(a|ab)(c|bcd)`, "abcd", []string{"abcd"}},
		{`a*?b`, "aab", []string{"aab"}},
		{`(?<name>a)b`, "ab", []string{"ab"}},
		{`\A.|.\z`, "abc", []string{"a", "c"}},
		{`[^\r\n\p{L}\p{N}]?+\p{L}++`, "a-b", []string{"a", "-b"}},
	} {
		m, err := compileRegex(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if d := cmp.Diff(c.want, allMatches(m, c.text)); d != "" {
			t.Errorf("%s on %q (-want +have):\n%s", c.pattern, c.text, d)
		}
	}
}

func TestRegexErrors(t *testing.T) {
	for _, c := range []struct{ pattern, want string }{
		{`(a`, "missing )"},
		{`a)`, "unmatched )"},
		{`[a`, "missing ]"},
		{`*a`, "nothing before"},
		{`a\`, "backslash at the end"},
		{`(a)\1`, `\1 is not supported`},
		{`\p{Nope}`, `property "Nope" is not known`},
		{`\p{L`, "missing } of a property"},
		{`[z-a]`, "bad range"},
		{`[a-\d]`, "bad range"},
		{`a{5,2}`, "the smaller first"},
		{`a{99999}`, "up to 1000"},
		{`(?s)a`, "(?s is not supported"},
		{`(?~a)`, "(?~ is not supported"},
		{`(?<=a+)b`, "look-behind of unbounded length"},
		{`\x{110000}`, "code point"},
		{`(((a{900}){900}){900})`, "instructions"},
		{strings.Repeat("(", 1000), "deeper than"},
		{strings.Repeat("[", 1000), "deeper than"},
		{"a" + strings.Repeat("*", 1000), "within each other"},
	} {
		_, err := compileRegex(c.pattern)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: want an error with %q, have %v", c.pattern, c.want, err)
		}
	}
}

// TestRegexSteps checks that a pattern of exponential time ends.
func TestRegexSteps(t *testing.T) {
	m, err := compileRegex(`(a|aa)+$`)
	if err != nil {
		t.Fatal(err)
	}
	if got := allMatches(m, strings.Repeat("a", 60)+"b"); len(got) != 0 {
		t.Errorf("want no match, have %q", got)
	}
}

// TestScanners compares the scanners with the machine on the patterns that they stand for.
func TestScanners(t *testing.T) {
	parts := rapid.SampledFrom([]string{
		" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "a", "B", "ſ", "é", "ǅ", "ʰ", "中", "か", "ー", "ß", "\u0301", "\u0e33",
		"1", "٣", "½", "Ⅷ", "'", "'s", "'LL", "'ſ", "’", ".", "-", "/", "$", "+", "€", "。", "\u200b", "\u200d", "\x00", "👍", "🏽", "\U000e0041", "_", "`",
	})
	for _, pattern := range []string{
		patternGPT2, patternLlama3, patternCL100k, patternQwen2, patternO200k, patternTekken, patternThrees, patternKana, patternDeepSeek,
	} {
		known := knownPattern(pattern)
		if known == nil {
			t.Errorf("no scanner for %s", pattern)
			continue
		}
		m, err := compileRegex(pattern)
		if err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			s := strings.Join(rapid.SliceOfN(parts, 0, 20).Draw(t, "text"), "")
			if d := cmp.Diff(allMatches(m, s), allMatches(known, s)); d != "" {
				t.Fatalf("%s on %q (-machine +scanner):\n%s", pattern, s, d)
			}
		})
	}
}
