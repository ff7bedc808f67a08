package archtest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = "# Title\n" +
	"```sh\n# build it\ngo build \\\n  ./cmd/tunesmith\n\n$HOME/x --set a='b'\n```\n" +
	"1. a list\n" +
	"   ```yaml\n   a:\n     b: 1\n   ```\n" +
	"````md\n```sh\nnot a command\n```\n````\n" +
	"```sh\n$ tunesmith version\ntunesmith 1.0\n$ echo \\\n   more\n```\n" +
	"```\nplain\n```\n" +
	"```sh\nnever closed\n"

func TestFences(t *testing.T) {
	want := []Fence{
		{"sh", "# build it\ngo build \\\n  ./cmd/tunesmith\n\n$HOME/x --set a='b'\n", 3},
		{"yaml", "a:\n  b: 1\n", 11},
		{"md", "```sh\nnot a command\n```\n", 15},
		{"sh", "$ tunesmith version\ntunesmith 1.0\n$ echo \\\n   more\n", 20},
		{"", "plain\n", 26},
	}
	if diff := cmp.Diff(want, Fences(page)); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestCommands(t *testing.T) {
	want := []Fence{
		{"sh", "go build ./cmd/tunesmith", 4},
		{"sh", "$HOME/x --set a='b'", 7},
		{"sh", "tunesmith version", 20},
		{"sh", "echo more", 22},
	}
	if diff := cmp.Diff(want, Commands(page)); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestJudgePage(t *testing.T) {
	good := "# LoRA\n"
	for _, h := range headings {
		good += "\n## " + h + "\ntext\n"
		if h == "Example" {
			good += "```yaml\n## What it does\nmodel: m\n```\n"
		}
	}
	if wrong := judgePage(good); len(wrong) > 0 {
		t.Errorf("want no complaint, have %v", wrong)
	}
	if wrong := judgePage("# LoRA\n## Formula\n"); len(wrong) != 2 {
		t.Errorf("want two complaints, have %v", wrong)
	}
}
