// Package recipes holds run files that work, the embedded base model and the demo's data.
package recipes

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tunesmith/internal/atomicfile"
)

//go:embed all:tinybase *.yaml
var files embed.FS

// Base writes the embedded base model to the user's cache, once, and returns its path.
func Base() (string, error) {
	b, err := files.ReadFile("tinybase/tinybase.gguf")
	if err != nil {
		return "", errors.New("recipes: this build has no embedded base model")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	path := filepath.Join(cache, "tunesmith", fmt.Sprintf("tinybase-%x.gguf", sha256.Sum256(b))[:len("tinybase-")+12]+".gguf")
	if have, err := os.ReadFile(path); err == nil && sha256.Sum256(have) == sha256.Sum256(b) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return "", fmt.Errorf("recipes: %w", err)
	}
	return path, atomicfile.WriteFile(path, b)
}

// General returns the text for the general loss, which shows what a run forgets.
func General() string {
	b, _ := files.ReadFile("general.txt") // embedded
	return string(b)
}

// WriteDemo writes the demo's run file and data to a directory.
func WriteDemo(dir string) error {
	for _, name := range []string{"demo.yaml", "demo/train.jsonl", "demo/test.jsonl"} {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("recipes: %w", err)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return fmt.Errorf("recipes: %w", err)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			return fmt.Errorf("recipes: %w", err)
		}
	}
	return nil
}
