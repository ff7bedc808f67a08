package judge

import (
	"embed"
	"fmt"
	"os"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

//go:embed rubrics/*.txt
var rubrics embed.FS

// Rubrics returns the names of the built-in rubrics; those that end in .zh are Chinese.
func Rubrics() []string {
	entries, _ := rubrics.ReadDir("rubrics")
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".txt"))
	}
	slices.Sort(out)
	return out
}

// OpenRubric returns a built-in rubric by its name, or the text of a file.
func OpenRubric(name string) (string, error) {
	if text, err := rubrics.ReadFile("rubrics/" + name + ".txt"); err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("rubric: %q is no file and none of %s%s: %w", name, strings.Join(Rubrics(), ", "), nearest.Hint(name, Rubrics()), err)
	}
	if strings.TrimSpace(string(text)) == "" {
		return "", fmt.Errorf("rubric: %s is empty", name)
	}
	return strings.TrimSpace(string(text)), nil
}

// Principles are the lines of a rubric or constitution that are no comments.
func Principles(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}
