package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	firstYear    = 1900 // of the addresses: earlier ones are in another English
	generalYear  = 1962 // of the address that only measures the general loss
	generalBytes = 6000 // how much of it does
)

// pieceBytes is the aim for a piece of prose: about 370 tokens, so that all but a few fit the context whole.
const pieceBytes = 1050

// readProse reads State of the Union addresses (public domain) and Shakespeare's plays (public domain).
func readProse(dir string) (general string, out []text, err error) {
	err = readLines(filepath.Join(dir, "sotu", "sotu.jsonl.gz"), func(r struct {
		Year int
		Text string
	},
	) {
		whole := plain(r.Text)
		if r.Year == generalYear {
			general = pieces(whole, generalBytes)[0] + "\n"
			return
		}
		if r.Year < firstYear {
			return
		}
		for _, p := range pieces(whole, pieceBytes) {
			out = append(out, text{p})
		}
	})
	if err != nil {
		return "", nil, err
	}
	if general == "" {
		return "", nil, fmt.Errorf("sotu: no address of %d", generalYear)
	}
	plays, err := readAll(filepath.Join(dir, "tinyshakespeare", "input.txt.gz"))
	if err != nil {
		return "", nil, err
	}
	var scene strings.Builder
	for _, speech := range strings.Split(plain(string(plays)), "\n\n") {
		if scene.Len() > 0 && scene.Len()+len(speech) > pieceBytes {
			out = append(out, text{scene.String()})
			scene.Reset()
		}
		if scene.Len() > 0 {
			scene.WriteString("\n\n")
		}
		scene.WriteString(speech)
	}
	return general, append(out, text{scene.String()}), nil
}

var sentenceEnd = regexp.MustCompile(`[.!?]["')]* `)

// pieces cuts a text behind sentences into pieces of about size bytes.
func pieces(s string, size int) []string {
	var out []string
	start, end := 0, 0
	for _, m := range append(sentenceEnd.FindAllStringIndex(s, -1), []int{len(s), len(s)}) {
		if m[1]-start > size && end > start {
			out = append(out, strings.TrimSpace(s[start:end]))
			start = end
		}
		end = m[1]
	}
	return append(out, strings.TrimSpace(s[start:]))
}

// chatBytes is the most that the text of a chat may have.
const chatBytes = 1200

// readChats reads short conversations of Open Assistant (Apache-2.0), the ChatterBot corpus (BSD-3-Clause) and GSM8K
// (MIT), each once, and adds those of every day.
func readChats(dir string) ([]chat, error) {
	var out []chat
	seen := map[string]bool{}
	add := func(turns ...string) {
		var c chat
		size := 0
		for i, t := range turns {
			role := []string{"user", "assistant"}[i%2]
			t = plain(t)
			if t == "" || strings.Contains(t, "<|") {
				return
			}
			if size += len(t); size > chatBytes {
				break
			}
			c.Messages = append(c.Messages, message{role, t})
		}
		c.Messages = c.Messages[:len(c.Messages)/2*2]
		if len(c.Messages) == 0 {
			return
		}
		key := fmt.Sprint(c)
		if !seen[key] {
			seen[key] = true
			out = append(out, c)
		}
	}
	err := readLines(filepath.Join(dir, "oasst", "dialogs.jsonl.gz"), func(r chat) {
		var turns []string
		for _, m := range r.Messages {
			turns = append(turns, m.Content)
		}
		add(turns...)
	})
	if err != nil {
		return nil, err
	}
	err = readLines(filepath.Join(dir, "chatterbot_multilingual", "conversations.jsonl.gz"), func(r struct {
		Lang, Topic string
		Turns       []string
	},
	) {
		if r.Lang == "english" && slices.Contains(topics, r.Topic) {
			add(r.Turns...)
		}
	})
	if err != nil {
		return nil, err
	}
	err = readLines(filepath.Join(dir, "gsm8k", "train_1000.jsonl"), func(r struct{ Question, Answer string }) {
		answer := calculation.ReplaceAllString(r.Answer, "")
		add(r.Question, strings.Replace(answer, "#### ", "The answer is ", 1)+".")
	})
	everyday(func(question, answer string) {
		out = append(out, chat{[]message{{"user", question}, {"assistant", answer}}})
	})
	return out, err
}

// topics are those of the ChatterBot corpus that are plain small talk and knowledge.
var topics = []string{
	"conversations", "computers", "emotion", "food", "greetings", "health", "history", "literature", "money",
	"movies", "science", "sports", "tech_support", "trivia",
}

// calculation is the calculator's trace in an answer of GSM8K.
var calculation = regexp.MustCompile(`<<[^>]*>>`)

// readLines calls each for every line of a JSONL file, gzipped or not.
func readLines[T any](path string, each func(T)) error {
	text, err := readAll(path)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	lines.Buffer(nil, 1<<24)
	for n := 1; lines.Scan(); n++ {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		each(v)
	}
	return lines.Err()
}

func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}
