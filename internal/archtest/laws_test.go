package archtest

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

var cached = sync.OnceValues(func() (*Tree, error) { return Load(Root()) })

func load(t *testing.T) *Tree {
	t.Helper()
	tree, err := cached()
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) == 0 {
		t.Fatal("want Go files, have none")
	}
	return tree
}

// TestPackageComments is law 2: each package says once what it is.
func TestPackageComments(t *testing.T) {
	tree := load(t)
	where := map[string][]string{}
	for _, f := range tree.Files {
		if !f.Test && f.AST.Doc != nil {
			where[f.Dir] = append(where[f.Dir], f.Path)
		}
	}
	for _, f := range tree.Files {
		name, doc := f.AST.Name.Name, f.AST.Doc.Text()
		if start := "Package " + name + " "; !f.Test && f.AST.Doc != nil && name != "main" && !strings.HasPrefix(doc, start) {
			t.Errorf("%s: want a comment that starts with %q", f.Path, start)
		}
	}
	for _, dir := range tree.Dirs() {
		code := slices.ContainsFunc(tree.Files, func(f File) bool { return f.Dir == dir && !f.Test })
		if code && len(where[dir]) != 1 {
			t.Errorf("%s: want one package comment, have %d: %v", dir, len(where[dir]), where[dir])
		}
	}
}

// TestPackageNames keeps out rooms whose name says nothing.
func TestPackageNames(t *testing.T) {
	for _, f := range load(t).Files {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "manager", "misc"}, f.AST.Name.Name) {
			t.Errorf("%s: a package called %s does not say what it holds", f.Path, f.AST.Name.Name)
		}
	}
}

// TestComments is law 7: every exported symbol says what it is.
func TestComments(t *testing.T) {
	tree := load(t)
	for _, f := range tree.Files {
		if f.Test || f.Generated() {
			continue
		}
		for _, pos := range bare(f.AST) {
			t.Errorf("%s: an exported symbol stands without a comment", tree.Line(pos))
		}
	}
}

// bare returns the exported symbols of a file that have no comment.
func bare(f *ast.File) []token.Pos {
	var out []token.Pos
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
				out = append(out, d.Pos())
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && (d.Doc == nil || len(d.Specs) > 1) {
						out = append(out, s.Pos())
					}
				case *ast.ValueSpec:
					exported := slices.ContainsFunc(s.Names, func(n *ast.Ident) bool { return n.IsExported() })
					if exported && s.Doc == nil && s.Comment == nil && d.Doc == nil {
						out = append(out, s.Pos())
					}
				}
			}
		}
	}
	return out
}

// exportedReceiver reports whether a function belongs to no type or to an exported one, and is no method that only
// satisfies a well-known interface.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	if slices.Contains([]string{"String", "Error", "Unwrap", "Len", "Less", "Swap"}, d.Name.Name) {
		return false
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// TestSize: a file past 600 lines, or a method past 300, says that a room is missing.
func TestSize(t *testing.T) {
	tree := load(t)
	for _, f := range tree.Files {
		limit := 600
		switch {
		case f.Generated():
			continue
		case f.Path == "cmd/tunesmith/main.go":
			limit = 50
		case f.Dir == "methods" && !f.Test:
			limit = 300
		}
		if lines := strings.Count(f.Text, "\n"); lines > limit {
			t.Errorf("%s: want at most %d lines, have %d", f.Path, limit, lines)
		}
	}
}

// unsafeIn lists where unsafe may be imported, and why.
var unsafeIn = map[string]string{
	"engine/cpu":        "the arena holds tensors of several types in one block of memory",
	"engine/cpu/kernel": "operands of assembly kernels are addresses",
	"engine/xla":        "plugins are called through C function tables",
	"checkpoint":        "mapped files are read as slices of their element type",
}

// TestForbidden keeps C out of the build, unsafe in its places and assembly with the kernels.
func TestForbidden(t *testing.T) {
	tree := load(t)
	for _, f := range tree.Files {
		for _, path := range f.Imports() {
			switch {
			case path == "C":
				t.Errorf("%s: the build has no C", f.Path)
			case path == "unsafe" && unsafeIn[f.Dir] == "":
				t.Errorf("%s: unsafe stands only in %v", f.Path, sortedKeys(unsafeIn))
			}
		}
		if strings.Contains(f.Text, "\n//go:"+"linkname ") && unsafeIn[f.Dir] == "" {
			t.Errorf("%s: linkname reaches into other packages", f.Path)
		}
	}
	err := walk(tree.Root, func(path string) error {
		path = filepath.ToSlash(path)
		if slices.Contains([]string{".s", ".c", ".h", ".cc", ".cu", ".S"}, filepath.Ext(path)) &&
			(!strings.HasSuffix(path, ".s") || parent(path) != "engine/cpu/kernel") {
			t.Errorf("%s: assembly stands only in engine/cpu/kernel", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// methodNames are the methods' names that mean nothing else. The other names of methods (full, adapter, prefix,
// instruction, multitask, federated …) are also words of the field, so that a search for them proves nothing.
var methodNames = []string{"lora", "qlora", "rslora", "dora", "ptuningv2", "bitfit", "softprompt", "rlhf", "rlaif", "dpo", "ondevice"}

// namesAllowed lists the files outside the methods' rooms that may name one, and why.
var namesAllowed = map[string]string{}

// TestMethodNames is law 3: a method is known by name only to its own file, to recipes and to the docs.
func TestMethodNames(t *testing.T) {
	tree := load(t)
	seen := map[string]bool{}
	for _, f := range tree.Files {
		first, _, _ := strings.Cut(f.Path, "/")
		if f.Test || slices.Contains([]string{"methods", "recipes", "docs"}, first) || f.Dir == "internal/archtest" {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			text := ""
			switch n := n.(type) {
			case *ast.ImportSpec:
				return false
			case *ast.Ident:
				text = n.Name
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					text = n.Value
				}
			}
			if name := names(text); name != "" {
				seen[f.Path] = true
				if namesAllowed[f.Path] == "" {
					t.Errorf("%s: %s names the method %s", tree.Line(n.Pos()), clip(text), name)
				}
			}
			return true
		})
	}
	for path := range namesAllowed {
		if !seen[path] {
			t.Errorf("%s names no method any more: take it off the list", path)
		}
	}
}

// names returns the method that an identifier or text names at the start of one of its words, or "".
func names(text string) string {
	lower := strings.ToLower(text)
	for _, name := range methodNames {
		for from := 0; ; {
			i := strings.Index(lower[from:], name)
			if i < 0 {
				break
			}
			at := from + i
			// The start of a word: after no letter, or a capital after a small letter.
			if at == 0 || !letter(lower[at-1]) || text[at] != lower[at] && text[at-1] == lower[at-1] {
				return name
			}
			from = at + 1
		}
	}
	return ""
}

func letter(b byte) bool { return b >= 'a' && b <= 'z' || b >= 0x80 }

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func TestNames(t *testing.T) {
	for text, want := range map[string]string{
		"loraRank": "lora", "LoRA": "lora", "newLoRA": "lora", `"lora_A.weight"`: "lora", "exploration": "", "DPOLoss": "dpo",
		"endpoint": "", "useQLoRA": "qlora", "adapter": "", "Explorative": "", `"peft_type: LORA"`: "lora", "pseudoRandom": "",
	} {
		if have := names(text); have != want {
			t.Errorf("%s: want %q, have %q", text, want, have)
		}
	}
}

// headings are what every page of a method says, in this order.
var headings = []string{"What it does", "Formula", "Options", "Example", "When it works", "Where it stops", "Files", "Sources"}

// TestMethodPages is law 4: a method has a file, a test and a page; the page's one YAML block is a recipe.
func TestMethodPages(t *testing.T) {
	tree := load(t)
	for _, f := range tree.Files {
		if f.Dir != "methods" || f.Test {
			continue
		}
		for _, name := range registered(f.AST) {
			if want := "methods/" + name + ".go"; f.Path != want {
				t.Errorf("%s: the method %s stands in %s", f.Path, name, want)
			}
			test := "methods/" + name + "_test.go"
			if !slices.ContainsFunc(tree.Files, func(f File) bool { return f.Path == test }) {
				t.Errorf("%s: want a test beside it, %s", f.Path, test)
			}
			if _, err := os.Stat(filepath.Join(tree.Root, "docs", "methods")); err != nil {
				t.Log("docs/methods is not there yet")
				continue
			}
			page := "docs/methods/" + name + ".md"
			text, err := os.ReadFile(filepath.Join(tree.Root, page))
			if err != nil {
				t.Errorf("%s: want the page %s", f.Path, page)
				continue
			}
			for _, wrong := range judgePage(string(text)) {
				t.Errorf("%s: %s", page, wrong)
			}
		}
	}
}

var heading = regexp.MustCompile(`(?m)^## (.+)$`)

// judgePage returns what a method's page lacks.
func judgePage(text string) []string {
	var out, have []string
	prose := text
	yaml := 0
	for _, f := range Fences(text) {
		prose = strings.Replace(prose, f.Text, "", 1)
		if f.Lang == "yaml" {
			yaml++
		}
	}
	for _, m := range heading.FindAllStringSubmatch(prose, -1) {
		have = append(have, m[1])
	}
	if !slices.Equal(have, headings) {
		out = append(out, "want the headings "+strings.Join(headings, ", ")+"; have "+strings.Join(have, ", "))
	}
	if yaml != 1 {
		out = append(out, "want one yaml block, the recipe")
	}
	return out
}

// registered returns the names of the methods that a file registers.
func registered(f *ast.File) []string {
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Register" || len(call.Args) != 1 {
			return true
		}
		ast.Inspect(call.Args[0], func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, isName := kv.Key.(*ast.Ident)
			value, isText := kv.Value.(*ast.BasicLit)
			if isName && isText && key.Name == "Name" {
				out = append(out, strings.Trim(value.Value, `"`))
			}
			return true
		})
		return false
	})
	return out
}
