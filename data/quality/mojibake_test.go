package quality

import (
	"testing"
	"unicode/utf8"
)

func TestGoldenMojibake(t *testing.T) {
	var file struct {
		Cases []struct {
			Original, Via, Text string
			Mojibake            bool
			Repaired            *string
		}
	}
	read(t, "mojibake.json", &file)
	for _, c := range file.Cases {
		t.Run(c.Original+"/"+c.Via, func(t *testing.T) {
			have, mended := Mend(c.Text)
			switch {
			case c.Repaired != nil && (!mended || have != *c.Repaired):
				t.Errorf("%q: want %q, have %q, %v", c.Text, *c.Repaired, have, mended)
			case c.Repaired == nil && (mended || have != c.Text):
				t.Errorf("%q: want it as it is, have %q", c.Text, have)
			}
		})
	}
}

func TestMendLeavesCleanText(t *testing.T) {
	for _, s := range []string{
		"茅台酒很有名", "学习", "AI学习", "déçu", "«Bonjour», dit-il", "¿Qué? ¡No!", "Über", "SÃO PAULO", "25 °C ± 1", "naïve Zoë’s œuvre",
		"人工智能", "Ægir þjóð", "ПРИВЕТ", "½ cup", "£5–£7", "日本語テキスト", "ÀÉÎÕÜ", "ŁÓDŹ",
	} {
		if have, mended := Mend(s); mended {
			t.Errorf("%q became %q", s, have)
		}
	}
}

func FuzzMend(f *testing.F) {
	for _, s := range []string{"cafÃ©", "caf茅", "ÖÐÎÄ", "\xff", "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if have, mended := Mend(s); !mended && have != s || utf8.ValidString(s) && !utf8.ValidString(have) {
			t.Fatalf("%q became %q, %v", s, have, mended)
		}
	})
}
