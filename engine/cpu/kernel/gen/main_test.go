package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestFilesAreFresh(t *testing.T) {
	want := files()
	for name, text := range want {
		have, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || !bytes.Equal(have, text) {
			t.Errorf("%s differs from what gen writes: run go generate in engine/cpu/kernel (%v)", name, err)
		}
	}
	found, _ := filepath.Glob(filepath.Join("..", "*_amd64.s"))
	for _, path := range found {
		if want[filepath.Base(path)] == nil {
			t.Errorf("%s is not written by gen", path)
		}
	}
}
