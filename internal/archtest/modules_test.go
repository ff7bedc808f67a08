package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// most is the largest number of direct dependencies.
const most = 35

// TestDependencies is law 6: the modules that the code imports are those of docs/dependencies.md, each with its
// version, reason, licence and exit plan.
func TestDependencies(t *testing.T) {
	tree := load(t)
	required := requirements(t, tree.Root)
	used := map[string]bool{}
	for _, f := range tree.Files {
		for _, path := range f.Imports() {
			first, _, _ := strings.Cut(path, "/")
			if !strings.Contains(first, ".") {
				continue // the standard library, or ours
			}
			module := longest(path, required)
			if module == "" {
				t.Errorf("%s: go.mod requires no module of %s", f.Path, path)
				continue
			}
			used[module] = true
		}
	}
	text, err := os.ReadFile(filepath.Join(tree.Root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := table(string(text))
	for module := range used {
		if _, ok := listed[module]; !ok {
			t.Errorf("docs/dependencies.md: want a row for %s", module)
		}
	}
	if len(listed) > most {
		t.Errorf("docs/dependencies.md: want at most %d modules, have %d", most, len(listed))
	}
	// Before the program is put together, modules that its missing rooms will use stand in the table.
	_, err = os.Stat(filepath.Join(tree.Root, "internal", "cli"))
	assembled := err == nil
	for module, row := range listed {
		if len(row) != 5 || slices.Contains(row, "") {
			t.Errorf("docs/dependencies.md: %s: want module, version, why, licence and exit plan, have %q", module, row)
			continue
		}
		if row[1] != required[module] {
			t.Errorf("docs/dependencies.md: %s: want version %s as in go.mod, have %s", module, required[module], row[1])
		}
		if assembled && !used[module] {
			t.Errorf("docs/dependencies.md: nothing imports %s", module)
		}
	}
}

// requirements returns the versions of the modules that go.mod requires.
func requirements(t *testing.T, root string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "require "), "//")
		if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[1], "v") {
			out[f[0]] = f[1]
		}
	}
	return out
}

// longest returns the module that a package belongs to.
func longest(path string, modules map[string]string) string {
	best := ""
	for m := range modules {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

// table returns the rows of the first table of a Markdown text by their first cell, without its head.
func table(text string) map[string][]string {
	out := map[string][]string{}
	rows := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if rows > 0 {
				break
			}
			continue
		}
		rows++
		if rows <= 2 {
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(c), "`"))
		}
		out[cells[0]] = cells
	}
	return out
}

func TestTable(t *testing.T) {
	have := fmt.Sprint(table("text\n\n| module | version |\n|---|---|\n| `a/b` | v1 |\n\n| c | d |\n"))
	if want := "map[a/b:[a/b v1]]"; have != want {
		t.Errorf("want %s, have %s", want, have)
	}
}
