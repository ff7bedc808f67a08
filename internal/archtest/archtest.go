// Package archtest reads the repository's tree and judges it: which room imports which, what stands where, and what
// every file owes its reader. The laws are its tests; a room that is not there yet breaks none.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the repository's module.
const Module = "tunesmith"

// Tree is the Go code of a module.
type Tree struct {
	Root  string
	Fset  *token.FileSet
	Files []File // sorted by path
}

// File is one parsed Go file.
type File struct {
	Path string // slash-separated, from the root
	Dir  string // its folder, "." for the root
	Test bool
	AST  *ast.File
	Text string
}

// Root returns the folder of the module's go.mod, seen from this file.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Load parses all Go files below root, but for other modules, test data and what is hidden.
func Load(root string) (*Tree, error) {
	tree := &Tree{Root: root, Fset: token.NewFileSet()}
	err := walk(root, func(path string) error {
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(tree.Fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		dir, name := ".", path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			dir, name = path[:i], path[i+1:]
		}
		tree.Files = append(tree.Files, File{path, dir, strings.HasSuffix(name, "_test.go"), f, string(text)})
		return nil
	})
	return tree, err
}

// walk visits the files below root by their path from it.
func walk(root string, visit func(path string) error) error {
	return filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && full != root {
			_, err := os.Stat(filepath.Join(full, "go.mod"))
			if err == nil || strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" {
				return filepath.SkipDir
			}
		}
		if !d.Type().IsRegular() {
			return nil
		}
		path, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		return visit(path)
	})
}

// Imports returns the paths that a file imports.
func (f File) Imports() []string {
	var out []string
	for _, s := range f.AST.Imports {
		if path, err := strconv.Unquote(s.Path.Value); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// Generated reports whether a program wrote the file.
func (f File) Generated() bool { return ast.IsGenerated(f.AST) }

// Line returns path:line of a position.
func (t *Tree) Line(pos token.Pos) string {
	p := t.Fset.Position(pos)
	return filepath.ToSlash(p.Filename) + ":" + strconv.Itoa(p.Line)
}

// Dirs returns the folders with Go files, sorted.
func (t *Tree) Dirs() []string {
	var out []string
	for _, f := range t.Files {
		out = append(out, f.Dir)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Fence is a fenced block of a Markdown text.
type Fence struct {
	Lang string // the word after the fence: sh, yaml, go
	Text string
	Line int // of its first line of text
}

// Fences returns the fenced blocks of a Markdown text in their order. Blocks inside a list may be indented.
func Fences(markdown string) []Fence {
	var out []Fence
	var open *Fence
	indent, mark := 0, ""
	for i, line := range strings.Split(markdown, "\n") {
		text := strings.TrimLeft(line, " ")
		if open == nil {
			ticks := len(text) - len(strings.TrimLeft(text, "`"))
			if ticks >= 3 {
				mark, indent = text[:ticks], len(line)-len(text)
				lang, _, _ := strings.Cut(strings.TrimSpace(text[ticks:]), " ")
				open = &Fence{Lang: lang, Line: i + 2}
			}
			continue
		}
		if strings.TrimRight(text, " ") == mark {
			out = append(out, *open)
			open = nil
			continue
		}
		open.Text += strings.Repeat(" ", max(0, len(line)-len(text)-indent)) + text + "\n"
	}
	return out
}

// Commands returns the commands of the sh blocks of a Markdown text, one string each, with lines that end in a
// backslash joined. Comments and the prompt "$ " are left out; a block with prompts shows output on its other lines.
func Commands(markdown string) []Fence {
	var out []Fence
	for _, f := range Fences(markdown) {
		if f.Lang != "sh" {
			continue
		}
		prompts := strings.HasPrefix(f.Text, "$ ") || strings.Contains(f.Text, "\n$ ")
		command, start := "", 0
		for i, line := range strings.Split(strings.TrimSuffix(f.Text, "\n"), "\n") {
			line = strings.TrimSpace(line)
			if command == "" {
				start = f.Line + i
				rest, prompted := strings.CutPrefix(line, "$ ")
				if line == "" || strings.HasPrefix(line, "#") || prompts && !prompted {
					continue
				}
				line = rest
			}
			head, more := strings.CutSuffix(line, `\`)
			command += head
			if !more {
				out = append(out, Fence{Lang: "sh", Text: command, Line: start})
				command = ""
			}
		}
	}
	return out
}
