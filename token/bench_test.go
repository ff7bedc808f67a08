package token

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tunesmith/internal/golden"
)

// corpora reads about 4 MB of English and of Chinese text.
func corpora(b *testing.B) map[string]string {
	unzip := func(path string) []byte {
		f, err := os.Open(path)
		if err != nil {
			b.Skip(err)
		}
		defer f.Close()
		r, err := gzip.NewReader(f)
		if err != nil {
			b.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	english := string(unzip(filepath.Join(golden.Data(b, "tinyshakespeare"), "input.txt.gz"))) +
		string(unzip(filepath.Join(golden.Data(b, "tinystories"), "tiny_stories_first_1000.txt.gz")))
	var chinese strings.Builder
	for line := range bytes.Lines(unzip(filepath.Join(golden.Data(b, "kdconv_zh"), "dialogs.jsonl.gz"))) {
		var d struct{ Messages []string }
		if json.Unmarshal(line, &d) == nil {
			chinese.WriteString(strings.Join(d.Messages, "\n") + "\n")
		}
	}
	return map[string]string{"english": english, "chinese": chinese.String()}
}

// cpuSeconds is the processor time of this process, which other load on the machine changes little.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func BenchmarkEncode(b *testing.B) {
	dir := golden.Dir(b, "tokenizers")
	for text, s := range corpora(b) {
		s = s[:min(len(s), 2<<20)]
		s = strings.ToValidUTF8(s, "")
		for _, path := range []string{
			filepath.Join(golden.Data(b, "tokenizers"), "qwen3_tokenizer.json.gz"),
			filepath.Join(golden.Data(b, "tokenizers"), "gpt2_tokenizer.json.gz"),
			filepath.Join(dir, "tokenizers", "smollm2_gguf.json.gz"),
			filepath.Join(dir, "tokenizers", "llama3.json"),
			filepath.Join(dir, "tokenizers", "llama2.json"),
			filepath.Join(dir, "tokenizers", "t5_unigram.json.gz"),
			filepath.Join(dir, "tokenizers", "bert_uncased.json"),
			filepath.Join(dir, "tokenizers", "deepseek.json"),
			filepath.Join(dir, "sp", "bpe_llama2.model"),
		} {
			name, _, _ := strings.Cut(filepath.Base(path), ".")
			b.Run(name+"/"+text, func(b *testing.B) {
				t, err := Open(path)
				if err != nil {
					b.Skip(err)
				}
				b.SetBytes(int64(len(s)))
				n := len(t.Encode(s))
				before := cpuSeconds()
				for b.Loop() {
					n = len(t.Encode(s))
				}
				b.ReportMetric(float64(len(s))*float64(b.N)/1e6/(cpuSeconds()-before), "MB/cpu-s")
				b.ReportMetric(float64(len(s))/float64(n), "bytes/token")
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"qwen3_tokenizer.json.gz", "gpt2_tokenizer.json.gz"} {
		path := filepath.Join(golden.Data(b, "tokenizers"), name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Open(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
