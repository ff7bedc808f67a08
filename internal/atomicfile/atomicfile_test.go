package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, text := range []string{"first", "", "a longer second"} {
		if err := WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("want %q, have %q, %v", text, b, err)
		}
	}
	// A name that cannot be replaced leaves nothing behind.
	taken := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, []byte("y")); err == nil {
		t.Error("a folder was replaced by a file")
	}
	wantNames(t, dir, "a.json", "folder")
	if err := WriteFile(filepath.Join(dir, "none", "b"), nil); err == nil {
		t.Error("a file in a missing folder was written")
	}
}

func TestWriteKeepsTheOldFileOnFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err := Write(path, func(w io.Writer) error {
		if _, err := w.Write([]byte("half of the n")); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("want the error of fill, have %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("want the old content, have %q", b)
	}
	wantNames(t, dir, "a")
}

func TestWriteDir(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "step-1")
	fill := func(name, text string) func(string) error {
		return func(tmp string) error {
			if target, ok := Temporary(filepath.Base(tmp)); !ok || target != "step-1" {
				t.Errorf("Temporary(%q) = %q, %v", tmp, target, ok)
			}
			if err := os.Mkdir(filepath.Join(tmp, "sub"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(tmp, "sub", name), []byte(text), 0o644)
		}
	}
	if err := WriteDir(path, fill("a", "1")); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(path, fill("b", "2")); err != nil {
		t.Fatal(err)
	}
	wantNames(t, filepath.Join(path, "sub"), "b")
	stop := errors.New("stop")
	if err := WriteDir(path, func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("want the error of fill, have %v", err)
	}
	wantNames(t, filepath.Join(path, "sub"), "b")
	wantNames(t, dir, "step-1")

	file := filepath.Join(dir, "file")
	if err := WriteFile(file, nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(file, func(string) error { return nil }); err == nil {
		t.Error("a file was replaced by a folder")
	}
	wantNames(t, dir, "file", "step-1")
}

func TestTemporary(t *testing.T) {
	for name, want := range map[string]string{
		"a": "", ".a": "", "a.tmp-1": "", ".tmp-1": "", ".a.tmp-1": "a", ".a.tmp-1.tmp-2": "a.tmp-1",
	} {
		if target, ok := Temporary(name); target != want || ok != (want != "") {
			t.Errorf("Temporary(%q) = %q, %v, want %q", name, target, ok, want)
		}
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if len(have) != len(want) {
		t.Fatalf("%s: want %v, have %v", dir, want, have)
	}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("%s: want %v, have %v", dir, want, have)
		}
	}
}
