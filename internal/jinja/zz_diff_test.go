package jinja_test

import (
	"encoding/json"
	"os"
	"testing"

	"tunesmith/internal/jinja"
)

func TestZZDiff(t *testing.T) {
	path := os.Getenv("DIFF")
	if path == "" {
		t.Skip()
	}
	b, _ := os.ReadFile(path)
	var cases []struct {
		Template string
		Context  json.RawMessage
		Output   *string
		Error    string
		Message  string
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	bad, msg := 0, 0
	for _, c := range cases {
		res, err := render(c.Template, vars(t, c.Context))
		if c.Error == "" {
			if err != nil {
				bad++
				t.Errorf("%q\n got error %v\nwant %q", c.Template, err, *c.Output)
			} else if res.Text != *c.Output {
				bad++
				t.Errorf("%q\n got %q\nwant %q", c.Template, res.Text, *c.Output)
			}
			continue
		}
		e, ok := err.(*jinja.Error)
		if !ok {
			bad++
			t.Errorf("%q\n got %q\nwant %s: %s", c.Template, res.Text, c.Error, c.Message)
		} else if e.Kind != c.Error {
			bad++
			t.Errorf("%q\n got %s: %s\nwant %s: %s", c.Template, e.Kind, e.Message, c.Error, c.Message)
		} else if e.Message != c.Message {
			msg++
			if os.Getenv("MSG") != "" {
				t.Logf("%q\n  msg %s\n want %s", c.Template, e.Message, c.Message)
			}
		}
	}
	t.Logf("%d cases, %d bad, %d messages differ", len(cases), bad, msg)
}
