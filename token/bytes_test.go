package token

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tunesmith/internal/golden"
)

// TestGoldenBytes: the bytes of the tokens of a text are the text, for every tokenizer that loses nothing of it.
func TestGoldenBytes(t *testing.T) {
	dir := filepath.Join(golden.Dir(t, "tokenizers"), "tokenizers")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	const text = "Hello wörld, 你好世界 😀\n  two spaces"
	exact := 0
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			tok, err := Open(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Skip(err)
			}
			ids := tok.IDs(text)
			var b strings.Builder
			for _, id := range ids {
				b.WriteString(tok.Bytes(id))
			}
			if tok.Decode(ids, false) != text {
				return // it normalises, or has no token for some characters
			}
			if have := strings.TrimPrefix(b.String(), " "); have != text {
				t.Errorf("want %q, have %q", text, have)
			}
			exact++
		})
	}
	if exact == 0 {
		t.Error("no tokenizer keeps the text")
	}
	t.Logf("%d tokenizers", exact)
}
