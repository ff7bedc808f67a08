// Package ifeval verifies instructions that a program can check, those of IFEval (Zhou et al. 2023, arXiv 2311.07911):
// lengths, keywords, letter case, formats, languages. The conventions are those of lm-evaluation-harness.
package ifeval

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// Instruction is an instruction's name and arguments.
type Instruction struct {
	ID   string
	Args Args
}

// Args are the arguments of all kinds of instructions; each kind reads its own.
type Args struct {
	Relation        string   `json:"relation"` // "less than" or "at least", as the other relations
	Keywords        []string `json:"keywords"`
	Keyword         string   `json:"keyword"`
	Frequency       int      `json:"frequency"`
	ForbiddenWords  []string `json:"forbidden_words"`
	Letter          string   `json:"letter"`
	LetterFrequency int      `json:"let_frequency"`
	LetterRelation  string   `json:"let_relation"`
	Language        string   `json:"language"`
	Sentences       int      `json:"num_sentences"`
	Paragraphs      int      `json:"num_paragraphs"`
	Words           int      `json:"num_words"`
	NthParagraph    int      `json:"nth_paragraph"`
	FirstWord       string   `json:"first_word"`
	Placeholders    int      `json:"num_placeholders"`
	Postscript      string   `json:"postscript_marker"`
	Bullets         int      `json:"num_bullets"`
	Highlights      int      `json:"num_highlights"`
	Sections        int      `json:"num_sections"`
	Splitter        string   `json:"section_spliter"`
	Prompt          string   `json:"prompt_to_repeat"`
	End             string   `json:"end_phrase"`
	Capitals        int      `json:"capital_frequency"`
	CapitalRelation string   `json:"capital_relation"`
}

// UnmarshalJSON reads arguments; null stands for none, and whole numbers may be written as floating-point ones.
func (a *Args) UnmarshalJSON(text []byte) error {
	type plain Args
	var raw map[string]any
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	for k, v := range raw {
		if f, ok := v.(float64); ok {
			raw[k] = int(f)
		}
	}
	whole, err := json.Marshal(raw)
	if err != nil {
		return err
	}
	return json.Unmarshal(whole, (*plain)(a))
}

// IDs returns the names of the instructions that are known, sorted.
func IDs() []string {
	var out []string
	for id := range verifiers {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Validate reports an instruction that cannot be verified.
func (i Instruction) Validate() error {
	v, ok := verifiers[i.ID]
	if !ok {
		return fmt.Errorf("instruction: want one of IFEval's %d, have %q%s", len(verifiers), i.ID, nearest.Hint(i.ID, IDs()))
	}
	if missing := v.missing(i.Args); missing != "" {
		return fmt.Errorf("instruction %s: want %s", i.ID, missing)
	}
	return nil
}

// Result says which instructions a response follows.
type Result struct{ Strict, Loose []bool }

// All reports whether all instructions are followed.
func All(list []bool) bool { return !slices.Contains(list, false) }

// Verify checks a response: strictly as it stands, and loosely, where it is enough that it follows an instruction
// without its first line, its last line or its asterisks.
func Verify(instructions []Instruction, response string) (Result, error) {
	var r Result
	for _, i := range instructions {
		if err := i.Validate(); err != nil {
			return r, err
		}
		v := verifiers[i.ID]
		follows := func(text string) bool { return strings.TrimSpace(text) != "" && v.follows(i.Args, text) }
		r.Strict = append(r.Strict, follows(response))
		r.Loose = append(r.Loose, slices.ContainsFunc(variants(response), follows))
	}
	return r, nil
}

// variants are the forms of a response that loose verification takes.
func variants(response string) []string {
	lines := strings.Split(response, "\n")
	n := len(lines)
	join := func(from, to int) string { return strings.TrimSpace(strings.Join(lines[min(from, to):to], "\n")) }
	out := []string{response, join(1, n), join(0, n-1), join(1, max(n-1, 1))}
	for _, s := range slices.Clone(out) {
		out = append(out, strings.ReplaceAll(s, "*", ""))
	}
	return out
}
