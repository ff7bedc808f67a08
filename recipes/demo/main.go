// Command demo writes the data of the demo: messages of a shop's customers, and the desk that each goes to. All
// texts stand in wordings.go; what is asked in the test is worded in other ways than in training.
//
//	go generate ./recipes/demo
package main

//go:generate go run . .

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"tunesmith/internal/atomicfile"
)

// Lines of a desk.
const (
	trainLines = 120
	testLines  = 10
)

func main() {
	dir := "recipes/demo"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := write(dir); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// conversation is a line to train on, question one of the task.
type (
	conversation struct {
		Messages []message `json:"messages"`
	}
	message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	question struct {
		Prompt string `json:"prompt"`
		Answer string `json:"answer"`
	}
)

func write(dir string) error {
	var train []conversation
	var test []question
	for _, d := range desks {
		for _, text := range messages(d.train, trainItems, trainLines, d.name+"/train") {
			train = append(train, conversation{[]message{{"user", text}, {"assistant", d.name}}})
		}
		for _, text := range messages(d.test, testItems, testLines, d.name+"/test") {
			test = append(test, question{text, d.name})
		}
	}
	return errors.Join(
		writeLines(filepath.Join(dir, "train.jsonl"), train),
		writeLines(filepath.Join(dir, "test.jsonl"), interleave(test, len(desks))),
	)
}

func writeLines[T any](path string, list []T) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, v := range list {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return atomicfile.WriteFile(path, b.Bytes())
}

// interleave deals a list of n equal blocks out in turn, so that the first lines show every desk.
func interleave[T any](list []T, n int) []T {
	var out []T
	for i := range len(list) / n {
		for k := range n {
			out = append(out, list[k*len(list)/n+i])
		}
	}
	return out
}

// vowel is where the article is an.
var vowel = regexp.MustCompile(`\b([Aa]) ([aeiou])`)

// messages makes n different messages from requests, in turn, with greeting, item and thanks drawn by name.
func messages(requests, items []string, n int, name string) []string {
	var seed [32]byte
	copy(seed[:], name)
	rng := rand.New(rand.NewChaCha8(seed))
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	seen := map[string]bool{}
	var out []string
	for i := 0; len(out) < n; i++ {
		request := strings.ReplaceAll(requests[i%len(requests)], "{item}", pick(items))
		request = vowel.ReplaceAllString(request, "${1}n $2")
		text := strings.TrimSpace(pick(greetings) + " " + request + " " + pick(endings))
		if !seen[text] {
			seen[text] = true
			out = append(out, text)
		}
	}
	return out
}
