package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	directive = regexp.MustCompile(`(?m)^//go:generate `)
)

// TestGenerated is law 8: a generated file is what its generator writes today. The generators run in a copy of the
// tree.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the generators")
	}
	tree := load(t)
	dirs := map[string]bool{}
	for _, f := range tree.Files {
		if directive.MatchString(f.Text) {
			dirs[f.Dir] = true
		}
	}
	var made []string
	err := walk(tree.Root, func(path string) error {
		path = filepath.ToSlash(path)
		if !strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".s") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(tree.Root, path))
		if err != nil {
			return err
		}
		head, _, _ := bytes.Cut(text, []byte("\npackage "))
		if !generated.Match(head[:min(len(head), 400)]) {
			return nil
		}
		made = append(made, path)
		for dir := parent(path); ; dir = parent(dir) {
			if dirs[dir] {
				return nil
			}
			if dir == "." {
				t.Errorf("%s: want a go:generate directive in its folder or above that writes it", path)
				return nil
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) == 0 {
		t.Skip("nothing is generated yet")
	}
	work := t.TempDir()
	copyTree(t, tree.Root, work)
	for dir := range dirs {
		cmd := exec.Command("go", "generate", "./"+dir)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go generate ./%s: %v\n%s", dir, err, out)
		}
	}
	for _, path := range made {
		want, err := os.ReadFile(filepath.Join(work, path))
		if err != nil {
			t.Error(err)
			continue
		}
		have, err := os.ReadFile(filepath.Join(tree.Root, path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is stale: run go generate ./%s", path, parent(path))
		}
	}
}

// copyTree copies the module's sources.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := walk(from, func(path string) error {
		switch filepath.Ext(path) {
		case ".go", ".s", ".mod", ".sum", ".tmpl", ".json", ".yaml", ".md", ".txt":
		default:
			return nil
		}
		text, err := os.ReadFile(filepath.Join(from, path))
		if err != nil {
			return err
		}
		target := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
