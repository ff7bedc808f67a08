package quality

import (
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestGoldenPrivate(t *testing.T) {
	type found struct {
		Type, Match string
		Valid       bool
		StartChar   int `json:"start_char"`
		StartByte   int `json:"start_byte"`
		EndByte     int `json:"end_byte"`
	}
	var file struct {
		Cases []struct {
			Text, Redacted string
			Expected       []found
		}
	}
	read(t, "pii.json", &file)
	for _, c := range file.Cases {
		t.Run("", func(t *testing.T) {
			have := []found{}
			for _, p := range FindPrivate(c.Text) {
				have = append(have, found{p.Type, p.Match, p.Valid, utf8.RuneCountInString(c.Text[:p.Start]), p.Start, p.End})
			}
			if d := cmp.Diff(c.Expected, have); d != "" {
				t.Errorf("%q: -want +have:\n%s", c.Text, d)
			}
			if have := Redact(c.Text); have != c.Redacted {
				t.Errorf("want %q, have %q", c.Redacted, have)
			}
		})
	}
}

func FuzzPrivate(f *testing.F) {
	for _, s := range []string{"", "::1 a@b.cc +86 13812345678", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "\xff@\xfe.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		last := 0
		for _, p := range FindPrivate(s) {
			if p.Start < last || p.End <= p.Start || p.End > len(s) || s[p.Start:p.End] != p.Match {
				t.Fatalf("%q: %+v", s, p)
			}
			last = p.End
		}
		Redact(s)
	})
}
