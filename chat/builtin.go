package chat

import (
	"embed"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

// sources are templates for models that carry none: the forms that the models of that name were trained on, and
// plain ones for base models.
//
//go:embed builtin/*.jinja
var sources embed.FS

// prelude stands before each of them.
const prelude = "text.jinja"

// builtins parses the built-in templates, once. Where one names BOS or EOS, Encode and Prompt take those of the
// tokenizer; alone it renders them as Llama 2 writes them.
var builtins = sync.OnceValue(func() map[string]*Template {
	files, err := sources.ReadDir("builtin")
	if err != nil {
		panic(err)
	}
	read := func(name string) string {
		b, err := sources.ReadFile(path.Join("builtin", name))
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	out := map[string]*Template{}
	for _, f := range files {
		if f.Name() == prelude {
			continue
		}
		t, err := NewTemplate(read(prelude)+read(f.Name()), Special{BOS: "<s>", EOS: "</s>"})
		if err != nil {
			panic(fmt.Sprintf("%s: %v", f.Name(), err))
		}
		t.adapts = true
		out[strings.TrimSuffix(f.Name(), ".jinja")] = t
	}
	return out
})

// Builtin returns a built-in template.
func Builtin(name string) (*Template, bool) {
	t, ok := builtins()[name]
	return t, ok
}

// Builtins lists the names of the built-in templates, sorted.
func Builtins() []string { return slices.Sorted(maps.Keys(builtins())) }
