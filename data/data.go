// Package data carries a file's records to the batches that a step trains on: file, [Record], [Example], [Batch].
//
// Reading is strict. Whatever is wrong with a record, or is cut from it later, stands in a [Ledger] with file, line,
// reason and remedy; nothing is lost silently. Reading streams: a file is never held whole, and one record is at
// most [Source].MaxRecord bytes long.
//
// Files: json.go, csv.go, jsonl.go, parquet.go and open.go turn bytes into rows; format.go and its neighbours turn
// rows into records; render.go makes examples; store.go keeps them; pack.go, batch.go and loader.go make batches.
package data

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Kind says what a record is made of, and so which fields of [Record] are set.
type Kind uint8

// The kinds of records.
const (
	Chat       Kind = iota // Messages, Train, Tools
	Completion             // Prompt and Answer, both text
	Text                   // Text
	Preference             // Prompt, Chosen, Rejected, perhaps Margin
	Feedback               // Prompt, Answer, Label (the unpaired form that KTO trains on)
	Stepwise               // Prompt (text), Steps
	PromptOnly             // Prompt
	Segmented              // Segments
)

// kindNames are the names in reports and in normalised JSON.
var kindNames = [...]string{"sft", "prompt_completion", "text", "preference", "kto", "stepwise", "prompt_only", "segments"}

// String returns the name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// Position is where a record stands: the line where it begins (0 where lines mean nothing, as in Parquet) and its
// number among the records of the file, both counted from 1.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Record int    `json:"record,omitempty"`
}

// String is file:line, or the file and the record's number where there are no lines.
func (p Position) String() string {
	switch {
	case p.Line > 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	case p.Record > 0:
		return fmt.Sprintf("%s: record %d", p.File, p.Record)
	}
	return p.File
}

// Record is one sample of a data set, independent of the form that its file has. Kind says which fields are set.
type Record struct {
	Pos  Position
	Kind Kind
	Task string // the name of the data set in a mixture

	Messages []Message         // the conversation
	Train    []bool            // per message: is it trained
	Tools    []json.RawMessage // descriptions of functions, as in the file

	Text     string
	Prompt   Part
	Answer   Part
	Chosen   Part
	Rejected Part
	Margin   *float64 // how much better Chosen is, where the file says so
	// Probability is how certain it is that Chosen is better, where the file says so.
	Probability *float64
	Label       bool
	Steps       []Step
	Segments    []Segment
}

// Part is one side of a record: messages, or text that no chat template touches.
type Part struct {
	Text     string
	Messages []Message
}

// IsText reports whether the part is plain text.
func (p Part) IsText() bool { return p.Messages == nil }

// Step is one step of a solution and whether it is right.
type Step struct {
	Text  string
	Label bool
}

// Segment is a stretch of text and whether it is trained.
type Segment struct {
	Text  string
	Train bool
}

// blank reports whether s holds nothing but white space.
func blank(s string) bool { return strings.TrimSpace(s) == "" }
