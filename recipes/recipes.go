// Package recipes holds what the program carries with it: run files to start from, the embedded base model, the data
// of the demo, and the text for the general loss.
package recipes

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/internal/atomicfile"
	"tunesmith/internal/nearest"
)

//go:embed *.yaml general.txt demo/*.jsonl
var files embed.FS

//go:embed tinybase/tinybase.gguf
var base []byte

// Base writes the embedded base model to the user's cache, once, and returns its path. The file is named by its
// hash, so that programs with other bases do not disturb each other.
func Base() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return keep(filepath.Join(cache, "tunesmith"))
}

// keep writes the base to a folder unless it stands there whole.
func keep(dir string) (string, error) {
	sum := sha256.Sum256(base)
	file := filepath.Join(dir, fmt.Sprintf("tinybase-%x.gguf", sum[:8]))
	if have, err := os.ReadFile(file); err == nil && sha256.Sum256(have) == sum {
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("embedded base model: %w", err)
	}
	if err := atomicfile.WriteFile(file, base); err != nil {
		return "", fmt.Errorf("embedded base model: %w", err)
	}
	return file, nil
}

// General returns the text for the general loss, which shows what a run forgets: English prose that the embedded base
// was not trained on.
func General() string {
	b, err := files.ReadFile("general.txt")
	if err != nil {
		panic(err) // embedded
	}
	return string(b)
}

// Names returns the names of the recipes, sorted.
func Names() []string {
	var out []string
	for _, file := range glob("*.yaml") {
		out = append(out, strings.TrimSuffix(file, ".yaml"))
	}
	return out
}

// Open returns the text of a recipe, which is a commented run file.
func Open(name string) (string, error) {
	b, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return "", fmt.Errorf("recipe: want one of %s, have %q%s", strings.Join(Names(), ", "), name, nearest.Hint(name, Names()))
	}
	return string(b), nil
}

// WriteDemo writes the demo's run file to dir/demo.yaml, and its data below dir under the paths that stand in it.
func WriteDemo(dir string) error {
	to := map[string]string{"demo.yaml": "demo.yaml"}
	for _, file := range glob("demo/*.jsonl") {
		to[file] = path.Join("recipes", file)
	}
	for from, name := range to {
		b, err := files.ReadFile(from)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		if err := os.WriteFile(file, b, 0o666); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	return nil
}

// glob returns the embedded files of a pattern, sorted.
func glob(pattern string) []string {
	list, err := fs.Glob(files, pattern)
	if err != nil {
		panic(err) // a pattern of this file
	}
	slices.Sort(list)
	return list
}
