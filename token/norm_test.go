package token

import (
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// TestForms compares the normalization forms, which keep offsets, with those of x/text, which do not.
func TestForms(t *testing.T) {
	for _, f := range []struct {
		name string
		form form
	}{{"NFC", nfc}, {"NFD", nfd}, {"NFKC", form{norm.NFKC, true}}, {"NFKD", form{norm.NFKD, false}}} {
		t.Run(f.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("aeoqAKs가각ᄀ힣ᅡᆨ\u0301\u0323\u0302\u0307\u030a\u0344\u0958\ufb1d\u212b\U0001d15eﬁ①ｱﾞ")))).Filter(utf8.ValidString).Draw(t, "text")
				in := text{s: s, track: true}
				f.form.normalize(&in)
				want := f.form.form.String(s)
				for _, r := range s {
					if notCompatible.has(r) {
						return // left alone on purpose
					}
				}
				if in.s != want {
					t.Fatalf("%+q: want %+q, have %+q", s, want, in.s)
				}
				if in.at != nil && len(in.at) != len(in.s) {
					t.Fatalf("%+q: %d bytes have %d places", s, len(in.s), len(in.at))
				}
			})
		})
	}
}
