package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tunesmith/internal/archtest"
)

// TestDataGuide does what the guides to data say: it writes their files and runs every command.
func TestDataGuide(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	for _, page := range []string{"docs/guides/data.md", "docs/guides/zh/data.md"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(archtest.Root(), page))
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			files := map[string][]string{"jsonl": {"messy.jsonl", "questions.jsonl"}, "yaml": {"run.yaml"}}
			for _, f := range archtest.Fences(string(text)) {
				if names := files[f.Lang]; len(names) > 0 {
					files[f.Lang] = names[1:]
					if err := os.WriteFile(names[0], []byte(f.Text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			ran := 0
			for _, c := range archtest.Commands(string(text)) {
				args := strings.Fields(c.Text)
				code, out := program(args[1:]...)
				if code != 0 || args[0] != "tunesmith" {
					t.Errorf("line %d: %s: code %d\n%s", c.Line, c.Text, code, out)
				}
				ran++
			}
			if ran < 10 {
				t.Errorf("want the guide's commands run, have %d", ran)
			}
			kept, err := os.ReadFile("clean.jsonl")
			if err != nil || !strings.Contains(string(kept), "[EMAIL]") || !strings.Contains(string(kept), "café") || strings.Count(string(kept), "\n") != 7 {
				t.Errorf("%v: clean.jsonl:\n%s", err, kept)
			}
		})
	}
}
