package nearest

import "testing"

func TestNames(t *testing.T) {
	known := []string{"rank", "alpha", "dropout", "learning_rate"}
	for _, c := range []struct{ name, want string }{
		{"rnak", ", did you mean rank?"},
		{"learning_rat", ", did you mean learning_rate?"},
		{"drop", ", did you mean dropout?"},
		{"zzzz", ""},
	} {
		if got := Hint(c.name, known); got != c.want {
			t.Errorf("Hint(%q): want %q, have %q", c.name, c.want, got)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"中文", "中", 1}} {
		if got := Distance(c.a, c.b); got != c.want {
			t.Errorf("Distance(%q, %q): want %d, have %d", c.a, c.b, c.want, got)
		}
	}
}
