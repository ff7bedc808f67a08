// Command prepare builds what the embedded base model is trained on, from public-domain and permissively licensed
// files, always to the same bytes:
//
//	go run ./recipes/tinybase/prepare ../shared/data runs/tinybase-data
//
// It writes prose.jsonl and chats.jsonl. With -recipes DIR it also writes what of the recipes comes from the same
// files: the text for the general loss, which the model never sees, and the vocabulary, learned from prose and chats.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"tunesmith/internal/atomicfile"
	"tunesmith/token"
)

// special are the model's special tokens, in the order of their ids.
var special = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"}

const vocabulary = 1024

func main() {
	recipes := flag.String("recipes", "", "folder of the recipes: write general.txt and tinybase/tokenizer.json too")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: prepare [-recipes DIR] DATA_DIR OUT_DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := prepare(os.Stdout, flag.Arg(0), flag.Arg(1), *recipes); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func prepare(log io.Writer, from, to, recipes string) error {
	general, prose, err := readProse(from)
	if err != nil {
		return err
	}
	chats, err := readChats(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := writeLines(filepath.Join(to, "prose.jsonl"), prose); err != nil {
		return err
	}
	if err := writeLines(filepath.Join(to, "chats.jsonl"), chats); err != nil {
		return err
	}
	fmt.Fprintf(log, "%d pieces of prose, %d chats\n", len(prose), len(chats))
	if recipes == "" {
		return nil
	}
	if err := atomicfile.WriteFile(filepath.Join(recipes, "general.txt"), []byte(general)); err != nil {
		return err
	}
	text, err := token.TrainBPE(texts(prose, chats), token.BPETraining{Size: vocabulary, Special: special, MinCount: 2})
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(recipes, "tinybase", "tokenizer.json"), text)
}

// text is a record of prose, chat one of a conversation.
type (
	text struct {
		Text string `json:"text"`
	}
	chat struct {
		Messages []message `json:"messages"`
	}
	message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
)

// chatShare is how often a chat counts for the vocabulary: chats are few, and the model is to be asked in them.
const chatShare = 3

func texts(prose []text, chats []chat) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, p := range prose {
			if !yield(p.Text) {
				return
			}
		}
		for range chatShare {
			for _, c := range chats {
				for _, m := range c.Messages {
					if !yield(m.Role) || !yield("\n"+m.Content) {
						return
					}
				}
			}
		}
	}
}

func writeLines[T any](path string, list []T) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, v := range list {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return atomicfile.WriteFile(path, b.Bytes())
}

// plain writes a text with ASCII quotes and dashes and single spaces, line ends kept.
func plain(s string) string {
	s = typography.Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

var typography = strings.NewReplacer("“", `"`, "”", `"`, "‘", "'", "’", "'", "–", "-", "—", "-", "…", "...", "\r", "", "\u00a0", " ", "`", "'")
