package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFresh: the files are what the generator writes today.
func TestFresh(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"train.jsonl", "test.jsonl"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(name); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is stale (%v): run go generate ./recipes/demo", name, err)
		}
	}
}

// TestApart: no request and no item of the test is in the training data.
func TestApart(t *testing.T) {
	var known []string
	for _, d := range desks {
		known = append(known, d.train...)
	}
	for _, d := range desks {
		for _, r := range d.test {
			if slices.Contains(known, r) {
				t.Errorf("%s: %q is in the training data", d.name, r)
			}
		}
		if len(d.train) < 10 || len(d.test) < 5 {
			t.Errorf("%s: want 10 requests to train on and 5 to test, have %d and %d", d.name, len(d.train), len(d.test))
		}
	}
	train, err := os.ReadFile("train.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range testItems {
		if bytes.Contains(train, []byte(" "+item+" ")) || bytes.Contains(train, []byte(" "+item+".")) {
			t.Errorf("item %q is in the training data", item)
		}
	}
	for n, line := range strings.Split(strings.TrimSpace(string(train)), "\n") {
		if strings.Contains(line, "{item}") {
			t.Errorf("train.jsonl:%d: an item is not filled in", n+1)
		}
	}
}
