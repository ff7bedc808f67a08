package jinja_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/jinja"
)

func Example() {
	t, err := jinja.Parse("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}")
	if err != nil {
		fmt.Println(err)
		return
	}
	messages, _ := jinja.FromJSON([]byte(`[{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Hello"}]`))
	res, err := t.Render(map[string]jinja.Value{"messages": messages}, jinja.Options{})
	fmt.Print(res.Text, err)
	// Output:
	// <user>Hi
	// <assistant>Hello
	// <nil>
}

func TestGenerations(t *testing.T) {
	for _, c := range []struct {
		source, text string
		parts        []string
		exact        bool
	}{
		{"a{% generation %}bc{% endgeneration %}d", "abcd", []string{"bc"}, true},
		{"{% for i in [1, 2] %}é{% generation %}{{ i }}{% endgeneration %}{% endfor %}", "é1é2", []string{"1", "2"}, true},
		{"{% generation %}\nx\n{%- endgeneration %}\ny", "xy", []string{"x"}, true},
		{"no block", "no block", nil, true},
		{"{% set q %}a{% generation %}b{% endgeneration %}{% endset %}{{ q }}", "ab", nil, false},
	} {
		res, err := render(c.source, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.source, err)
		}
		if res.Text != c.text || res.Exact != c.exact {
			t.Errorf("%s: got %q, exact %v", c.source, res.Text, res.Exact)
		}
		if !c.exact {
			continue
		}
		var parts []string
		for _, g := range res.Generations {
			parts = append(parts, res.Text[g.Start:g.End])
		}
		if diff := cmp.Diff(c.parts, parts); diff != "" {
			t.Errorf("%s: %s", c.source, diff)
		}
	}
}

// TestHidden holds what Jinja's compilation of names does to templates that assign a name of the caller.
func TestHidden(t *testing.T) {
	vars := map[string]jinja.Value{"x": "ctx"}
	for source, want := range map[string]string{
		"{{ x }}{% set x = 1 %}{{ x }}":                                        "ctx1",
		"{% for i in [1] %}{{ x }}{% endfor %}{% set x = 1 %}":                 "",
		"{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% set x = 1 %}":         "",
		"{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}":         "1",
		"{% if false %}{% set x = 1 %}{% endif %}{{ x }}":                      "ctx",
		"{% set x %}[{{ x }}]{% endset %}{{ x }}":                              "[]",
		"{% for i in [1, 2] %}{{ x }}{% set x = i %}{{ x }}{% endfor %}":       "ctx1ctx2",
		"{% for i in [1, 2] %}{% set x = i %}{% endfor %}{{ x }}":              "ctx",
		"{% with x = 2 %}{{ x }}{% endwith %}{{ x }}":                          "2ctx",
		"{% block b %}{{ x }}{% set x = 3 %}{% endblock %}{{ x }}":             "ctxctx",
		"{% if x %}{% set y = 1 %}{% else %}{% set y = 2 %}{% endif %}{{ y }}": "1",
	} {
		res, err := render(source, vars)
		if err != nil || res.Text != want {
			t.Errorf("%s: got %q, %v; want %q", source, res.Text, err, want)
		}
	}
}

func TestErrorLine(t *testing.T) {
	for source, line := range map[string]int{
		"a\n{{ x.y }}": 2,
		"\n\n{% if %}": 3,
		"{% if true %}\n\n{{ 1 + 'a' }}\n{% endif %}": 3,
		"{{ f(\n1) }}":      1,
		"a\r\nb\r\n{{ @ }}": 3,
		"{% macro m() %}\n{{ u.v }}\n{% endmacro %}\n\n{{ m() }}": 2,
		"{% set x %}\nabc": 2,
	} {
		_, err := render(source, nil)
		var e *jinja.Error
		if !errors.As(err, &e) || e.Line != line {
			t.Errorf("%q: got %v, want line %d", source, err, line)
		}
	}
}

// attacks are templates that reach for the host or for all the memory and time there is.
var attacks = []string{
	"{{ ''.__class__.__mro__[1].__subclasses__() }}",
	"{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
	"{{ cycler.__init__.__globals__.os.popen('id').read() }}",
	"{{ joiner.__init__.__globals__['os'] }}",
	"{{ namespace.__init__.__globals__['os'] }}",
	"{{ lipsum.__globals__['os'].popen('id').read() }}",
	"{{ range.__class__.__base__ }}",
	"{{ dict.__class__.__mro__ }}",
	"{{ dict.mro() }}",
	"{{ ().__class__.__bases__[0].__subclasses__()[59] }}",
	"{{ [].__class__ | attr('__base__') }}",
	"{{ (x|attr('__class__')).__mro__ }}",
	"{{ '{0.__class__.__mro__}'.format(1) }}",
	"{{ '{0.__class__.__init__.__globals__[os]}'.format(cycler) }}",
	"{{ ''|attr('format')|attr('__globals__') }}",
	"{% set ns = namespace(__class__=1) %}{{ ns }}",
	"{% include '/etc/passwd' %}",
	"{% import 'os' as os %}{{ os.system('id') }}",
	"{% from 'os' import system %}{{ system('id') }}",
	"{% extends '/etc/passwd' %}",
	"{{ range(10**9)|list }}",
	"{{ range(10**30)|list }}",
	"{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
	"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
	"{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaaaaaa') }}",
	"{% for a in [[1]] recursive %}{{ loop([a, a]) }}{% endfor %}",
	"{{ 'a' * 10**12 }}",
	"{{ 'a' * 10**9 * 10**9 }}",
	"{{ [1] * 10**12 }}",
	"{{ 9**9**9**9 }}",
	"{{ (10**300000)**300000 }}",
	"{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
	"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
	"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
	"{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
	"{% set ns = namespace(x=(1,)) %}{% for i in range(99) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
	"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
	"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|pprint }}",
	"{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns == [ns] }}{{ ns.x|tojson }}",
	"{{ '%1000000000d' % 1 }}",
	"{{ '{:1000000000}'.format(1) }}",
	"{{ '%.*f' % (10**9, 1.0) }}",
	"{{ 'x'.center(10**12) }}{{ 'x'.zfill(10**12) }}{{ 'x'.ljust(10**12) }}",
	"{{ 'a\n'|indent(10**9) }}",
	"{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
	"{{ ('b' * 1000000).join('a' * 1000000) }}",
	"{{ 'a'.expandtabs(10**12) }}{{ '\t'.expandtabs(10**12) }}",
	"{{ 1|tojson(indent=10**12) }}",
	"{{ [1]|batch(10**12, 0)|list }}",
	"{{ [1]|slice(10**12, 0)|list }}",
	"{{ ('a' * 1000000)|wordwrap(1) }}",
	"{{ 1.5|round(10**9) }}{{ 15|round(-10**9) }}",
	"{{ ('(' * 100000)|urlize }}",
	"{{ ('<' * 1000000)|striptags }}",
	"{{ '{' * 1000000 }}{{ ('{' * 100000).format(1) }}",
	strings.Repeat("(", 100000),
	"{{ " + strings.Repeat("[", 100000),
	"{{ " + strings.Repeat("not ", 100000) + "x }}",
	"{{ " + strings.Repeat("-", 100000) + "1 }}",
	"{{ 1" + strings.Repeat("+1", 100000) + " }}",
	"{{ x" + strings.Repeat(".a", 100000) + " }}",
	"{{ x" + strings.Repeat("|d", 100000) + " }}",
	"{{ 1" + strings.Repeat(" if 1 else 1", 100000) + " }}",
	strings.Repeat("{% if 1 %}", 100000),
	strings.Repeat("{% for x in [[1]] %}", 2000) + strings.Repeat("{% endfor %}", 2000),
	"{{ " + strings.Repeat("9", 1<<20) + " }}",
	strings.Repeat("{{ 1 }}", 1<<17) + "{{",
	strings.Repeat("{", 1<<20),
}

// TestAttacks renders each attack. It must end soon, in an error or in harmless text, without much memory.
func TestAttacks(t *testing.T) {
	for _, source := range attacks {
		name := source
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			var res jinja.Result
			tmpl, err := jinja.Parse(source)
			if err == nil {
				var o jinja.Options
				if testing.Short() {
					o.Limits.Steps = jinja.DefaultLimits.Steps / 10
				}
				res, err = tmpl.Render(map[string]jinja.Value{"x": "text"}, o)
			}
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > 1<<30 {
				t.Errorf("allocated %d MiB", made>>20)
			}
			for _, leak := range []string{"root:", "uid=", "<class", "subprocess"} {
				if strings.Contains(res.Text, leak) {
					t.Errorf("the text holds %q", leak)
				}
			}
			if err == nil && len(res.Text) > jinja.DefaultLimits.Bytes {
				t.Errorf("%d bytes of text", len(res.Text))
			}
		})
	}
}

// TestRefused holds attacks that must fail as the sandbox of Jinja2 fails.
func TestRefused(t *testing.T) {
	for _, source := range attacks[:10] {
		_, err := render(source, map[string]jinja.Value{"x": "text"})
		var e *jinja.Error
		if !errors.As(err, &e) || e.Kind != "SecurityError" && e.Kind != "UndefinedError" {
			t.Errorf("%s: got %v, want a refusal", source, err)
		}
	}
}

func TestLimits(t *testing.T) {
	tmpl, err := jinja.Parse("{% for i in range(1000) %}{{ i }}{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []jinja.Limits{{Steps: 500}, {Bytes: 100}} {
		if _, err := tmpl.Render(nil, jinja.Options{Limits: l}); !jinja.IsLimit(err) {
			t.Errorf("%+v: got %v, want a limit", l, err)
		}
	}
	if _, err := tmpl.Render(nil, jinja.Options{Limits: jinja.Limits{Steps: 20000, Bytes: 20000}}); err != nil {
		t.Error(err)
	}
	if jinja.IsLimit(errors.New("other")) {
		t.Error("another error is taken for a limit")
	}
}

func TestConcurrentRender(t *testing.T) {
	tmpl, err := jinja.Parse("{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ 'ß'|upper }}")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			l := make(jinja.List, n)
			for i := range l {
				l[i] = 1
			}
			for range 200 {
				res, err := tmpl.Render(map[string]jinja.Value{"l": l}, jinja.Options{})
				if want := fmt.Sprintf("%dSS", n); err != nil || res.Text != want {
					t.Errorf("got %q, %v; want %q", res.Text, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestFromJSON(t *testing.T) {
	for source, want := range map[string]string{
		`{"b": 1, "a": [1.0, 1e3, -0, 12345678901234567890, "é\n", null, true], "b": 2}`: `{'b': 2, 'a': [1.0, 1000.0, 0, 12345678901234567890, 'é\n', None, True]}`,
		`[]`:       `[]`,
		` "x" `:    `x`,
		`1e999`:    `inf`,
		`{"a":{}}`: `{'a': {}}`,
	} {
		v, err := jinja.FromJSON([]byte(source))
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		res, err := render("{{ v }}", map[string]jinja.Value{"v": v})
		if err != nil || res.Text != want {
			t.Errorf("%s: got %s, %v; want %s", source, res.Text, err, want)
		}
	}
	for _, bad := range []string{``, `{`, `[1,`, `[1] x`, `{"a"}`, `nul`, strings.Repeat("[", 100000), strings.Repeat("9", 5000)} {
		if v, err := jinja.FromJSON([]byte(bad)); err == nil {
			t.Errorf("%.20s: got %v, want an error", bad, v)
		}
	}
}

func TestDict(t *testing.T) {
	d := jinja.NewDict()
	d.Set("b", 1)
	d.Set("a", 2)
	c := d.Clone()
	c.Set("b", 3)
	c.Set("z", nil)
	e := c.Without(func(_ string, v jinja.Value) bool { return v == nil })
	if diff := cmp.Diff([]string{"b", "a"}, e.Keys()); diff != "" {
		t.Error(diff)
	}
	if v, _ := d.Get("b"); v != 1 || d.Len() != 2 {
		t.Errorf("the clone changed its origin: %v, %d keys", v, d.Len())
	}
	if _, ok := e.Get("z"); ok {
		t.Error("Without kept a key")
	}
}

// FuzzRender looks for panics and for templates that run on and on.
func FuzzRender(f *testing.F) {
	for _, s := range attacks {
		if len(s) < 1000 {
			f.Add(s)
		}
	}
	f.Add("{%- for m in ms -%}{% if m.role == 'user' %}{{ '<|' ~ m.role + '|>' }}{%- generation %}{{ m['content']|trim }}{% endgeneration %}{% endif %}{% endfor %}")
	f.Add("{% macro r(v, d=0) %}{% if v is mapping %}{% for k, x in v|dictsort %}{{ k }}{{ r(x, d+1) }}{% endfor %}{% else %}{{ v|tojson(indent=2) }}{% endif %}{% endmacro %}{{ r(d) }}")
	f.Add("{{ '%5.2f|%s' % (1.5, [1]) }}{{ '{:>5}{0!r}'.format('a') }}{{ l[::-1]|sort|join(',') }}{{ 'aßB'.title() }}")
	f.Add("{% set ns = namespace(a=1) %}{% set ns.a = [ns] %}{{ ns }}{{ ns.a[0].a|length }}{{ strftime_now('%d %b %Y') }}")
	ms, err := jinja.FromJSON([]byte(`[{"role": "user", "content": " a\u00e9 "}, {"role": "assistant", "content": "b", "tool_calls": [{"f": 1.5}]}]`))
	if err != nil {
		f.Fatal(err)
	}
	vars := map[string]jinja.Value{"ms": ms, "l": jinja.List{3, "x", nil, 1.5}, "d": ms.(jinja.List)[1], "s": "héllo"}
	f.Fuzz(func(t *testing.T, source string) {
		tmpl, err := jinja.Parse(source)
		if err != nil {
			return
		}
		o := jinja.Options{Now: frozen, Limits: jinja.Limits{Steps: 100_000, Bytes: 1 << 20}}
		start := time.Now()
		a, errA := tmpl.Render(vars, o)
		if took := time.Since(start); took > 5*time.Second {
			t.Fatalf("took %v", took)
		}
		b, errB := tmpl.Render(vars, o)
		if a.Text != b.Text || fmt.Sprint(errA) != fmt.Sprint(errB) {
			t.Fatalf("two renderings differ: %q, %v and %q, %v", a.Text, errA, b.Text, errB)
		}
	})
}

// FuzzFromJSON looks for panics.
func FuzzFromJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x",null,true]}`, `[[[]]]`, `"\ud800"`, `1e400`, `-0`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := jinja.FromJSON(data)
		if err != nil {
			return
		}
		if _, err := render("{{ v|tojson }}", map[string]jinja.Value{"v": v}); err != nil {
			t.Fatal(err)
		}
	})
}
