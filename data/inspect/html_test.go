package inspect

import (
	"bytes"
	"strings"
	"testing"

	"tunesmith/data"
)

func TestHTML(t *testing.T) {
	e := fixed{IDs: []int32{0, 1, 2, 3}, Train: []bool{false, false, true, true}}
	_, _, report := inspect(t, Options{Render: e, Sample: 1}, nil, write(t, pair("Say café <b>", "cafÃ©"), pair("x", ""), `{"no": 1}`))
	text := []string{"<|user|>", "\xe4", "\xbd", "\xa0\n"}
	for lang, want := range map[string][]string{
		"en": {"Data report: t", "&lt;|user|&gt;", "你", `class="on"`, "mojibake", "median"},
		"zh": {"数据报告", "中位数", "空回答"},
	} {
		var b bytes.Buffer
		if err := report.HTML(&b, "t", lang, func(id int32) string { return text[id] }); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: %q is not on the page", lang, w)
			}
		}
		if strings.Contains(b.String(), "<b>\"") || strings.Contains(b.String(), "http") {
			t.Errorf("%s: text of a record is markup, or the page loads something", lang)
		}
	}
}

func TestReadableTokens(t *testing.T) {
	for _, parts := range [][]string{{"a", "b"}, {"\xe4", "\xbd", "\xa0"}, {"x\xe4", "\xbd\xa0y"}, {"\xff", "z"}, {"\xe4"}, {"\xf0\x9f", "\x98", "\x80!"}} {
		var tokens []data.Token
		for _, p := range parts {
			tokens = append(tokens, data.Token{Text: p})
		}
		var have strings.Builder
		for _, tok := range readable(tokens) {
			have.WriteString(tok.Text)
		}
		if want := strings.ToValidUTF8(strings.Join(parts, ""), "\ufffd"); have.String() != want {
			t.Errorf("%q: want %q, have %q", parts, want, have.String())
		}
	}
}
