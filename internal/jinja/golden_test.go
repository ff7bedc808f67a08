package jinja_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tunesmith/internal/golden"
	"tunesmith/internal/jinja"
)

// frozen is the clock of the reference renderings.
func frozen() time.Time { return time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC) }

// vars reads a context, keeping the order of keys.
func vars(t testing.TB, raw json.RawMessage) map[string]jinja.Value {
	t.Helper()
	out := map[string]jinja.Value{}
	if len(raw) == 0 {
		return out
	}
	v, err := jinja.FromJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	d := v.(*jinja.Dict)
	for _, k := range d.Keys() {
		out[k], _ = d.Get(k)
	}
	return out
}

func render(source string, vars map[string]jinja.Value) (jinja.Result, error) {
	t, err := jinja.Parse(source)
	if err != nil {
		return jinja.Result{}, err
	}
	return t.Render(vars, jinja.Options{Now: frozen})
}

// TestGoldenJinja compares with what Jinja2 made of small templates: the text, or the exception's class and, for
// raise_exception, its message.
func TestGoldenJinja(t *testing.T) {
	dir := golden.Dir(t, "chat")
	var cases []struct {
		ID       int
		Template string
		Context  json.RawMessage
		Output   string
		Error    string
		Message  string
	}
	golden.JSON(t, filepath.Join(dir, "jinja_cases.json"), &cases)
	for _, c := range cases {
		t.Run(strconv.Itoa(c.ID), func(t *testing.T) {
			res, err := render(c.Template, vars(t, c.Context))
			checkOutcome(t, c.Template, res.Text, err, c.Output, c.Error, c.Message)
		})
	}
}

// TestCases is the same for templates of our own, rendered once with Jinja2 3.1.6.
func TestCases(t *testing.T) {
	var groups []struct {
		Context json.RawMessage
		Cases   []struct{ Template, Output, Error string }
	}
	golden.JSON(t, filepath.Join("testdata", "cases.json"), &groups)
	for k, g := range groups {
		for i, c := range g.Cases {
			t.Run(fmt.Sprintf("%d.%d", k, i), func(t *testing.T) {
				res, err := render(c.Template, vars(t, g.Context))
				checkOutcome(t, c.Template, res.Text, err, c.Output, c.Error, "")
			})
		}
	}
}

func checkOutcome(t *testing.T, source, text string, err error, want, kind, message string) {
	t.Helper()
	if kind == "" {
		if err != nil {
			t.Fatalf("%s\n got error %v\nwant %q", source, err, want)
		}
		if text != want {
			t.Fatalf("%s\n got %q\nwant %q", source, text, want)
		}
		return
	}
	e, ok := err.(*jinja.Error)
	if !ok {
		t.Fatalf("%s\n got %q\nwant %s: %s", source, text, kind, message)
	}
	if e.Kind != kind {
		t.Fatalf("%s\n got %s: %s\nwant %s: %s", source, e.Kind, e.Message, kind, message)
	}
	if e.Line == 0 {
		t.Errorf("%s: error without a line", source)
	}
	if kind == "TemplateError" && e.Message != message {
		t.Fatalf("%s\n got %s\nwant %s", source, e.Message, message)
	}
}
