package data

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkRead reads chat records of about 1 kB as JSON lines and as one array.
func BenchmarkRead(b *testing.B) {
	record := func(i int) string {
		return fmt.Sprintf(`{"messages":[{"role":"user","content":"Question %d? %s"},{"role":"assistant","content":"Answer \"%d\".\n%s"}],"id":%d}`, i, strings.Repeat("why so ", 60), i, strings.Repeat("because ", 60), i)
	}
	const records = 20_000
	var lines, array strings.Builder
	array.WriteString("[")
	for i := range records {
		lines.WriteString(record(i) + "\n")
		if i > 0 {
			array.WriteString(",\n")
		}
		array.WriteString(record(i))
	}
	array.WriteString("]")
	for name, text := range map[string]string{"a.jsonl": lines.String(), "a.json": array.String()} {
		path := filepath.Join(b.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := Open(Source{Path: path}, &Ledger{})
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for {
					_, err := r.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != records {
					b.Fatalf("%d records", n)
				}
			}
		})
	}
}
