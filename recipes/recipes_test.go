package recipes

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBaseIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	file, err := keep(dir)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, base) {
		t.Fatalf("%s: want the embedded base, have %d bytes, %v", file, len(have), err)
	}
	if err := os.WriteFile(file, have[:100], 0o666); err != nil {
		t.Fatal(err)
	}
	if again, err := keep(dir); err != nil || again != file {
		t.Fatalf("want %s again, have %s, %v", file, again, err)
	}
	if have, _ = os.ReadFile(file); !bytes.Equal(have, base) {
		t.Errorf("want a damaged file replaced, have %d bytes of %d", len(have), len(base))
	}
}

func TestBaseCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := keep(file); err == nil {
		t.Error("want an error where the folder is a file")
	}
}

// TestBaseSize: the base goes into every binary.
func TestBaseSize(t *testing.T) {
	if n := len(base); n < 500_000 || n > 2_000_000 {
		t.Errorf("want a base of 0.5 to 2 MB, have %d bytes", n)
	}
	if !bytes.HasPrefix(base, []byte("GGUF")) {
		t.Errorf("want a GGUF file, have %q", base[:4])
	}
}

func TestGeneral(t *testing.T) {
	if text := General(); len(text) < 4000 || !strings.HasSuffix(text, ".\n") {
		t.Errorf("want some thousand bytes of whole sentences, have %d", len(text))
	}
}

func TestOpen(t *testing.T) {
	for _, name := range Names() {
		text, err := Open(name)
		if err != nil || !strings.Contains(text, "\nmodel: ") {
			t.Errorf("%s: want a run file, have %.40q, %v", name, text, err)
		}
	}
	if _, err := Open("lore"); err == nil || !strings.Contains(err.Error(), "did you mean lora") {
		t.Errorf("want a hint at lora, have %v", err)
	}
}

func TestWriteDemo(t *testing.T) {
	dir := t.TempDir()
	if err := WriteDemo(dir); err != nil {
		t.Fatal(err)
	}
	run, err := os.ReadFile(filepath.Join(dir, "demo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"recipes/demo/train.jsonl", "recipes/demo/test.jsonl"} {
		if !bytes.Contains(run, []byte(": "+name+" ")) {
			t.Errorf("demo.yaml: want %s in it", name)
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
			if !json.Valid(line) {
				t.Errorf("%s:%d: no JSON", name, i+1)
			}
		}
	}
}
