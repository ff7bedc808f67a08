package data

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// Format is a form that records have in files. The empty format means: look at the first record.
type Format string

// The formats.
const (
	Auto             Format = ""
	Messages         Format = "messages"          // OpenAI: messages of role and content
	ShareGPT         Format = "sharegpt"          // conversations of from and value
	Texts            Format = "turns"             // messages that are texts, of user and assistant in turn; never guessed
	Alpaca           Format = "alpaca"            // instruction, input, output
	PromptCompletion Format = "prompt_completion" // prompt, completion
	PlainText        Format = "text"              // text
	Preferences      Format = "preference"        // chosen, rejected, perhaps prompt
	PreferencesHH    Format = "preference_hh"     // chosen, rejected as transcripts with Human: and Assistant:
	KTO              Format = "kto"               // prompt, completion, label
	StepwiseForm     Format = "stepwise"          // prompt, completions, labels
	Prompts          Format = "prompt_only"       // prompt
	SegmentsForm     Format = "segments"          // segments of label and text
)

// form is how one format is read: the columns that a record must have, and the function that reads it.
type form struct {
	format   Format
	required []string
	read     func(*fields) (Record, error)
}

// forms lists the formats that can be named; detect says in which order they are tried.
var forms = []form{
	{Messages, []string{"messages"}, readConversation},
	{ShareGPT, []string{"messages"}, readConversation},
	{Texts, []string{"messages"}, readTexts},
	{Alpaca, []string{"instruction", "output"}, readAlpaca},
	{PromptCompletion, []string{"prompt", "completion"}, readPromptCompletion},
	{PlainText, []string{"text"}, readText},
	{Preferences, []string{"chosen", "rejected"}, readPreference},
	{PreferencesHH, []string{"chosen", "rejected"}, readTranscripts},
	{KTO, []string{"label"}, readFeedback},
	{StepwiseForm, []string{"prompt", "completions", "labels"}, readStepwise},
	{Prompts, []string{"prompt"}, readPrompt},
	{SegmentsForm, []string{"segments"}, readSegments},
}

// Formats returns the names that a data set's format may have.
func Formats() []string {
	names := make([]string, len(forms))
	for i, f := range forms {
		names[i] = string(f.format)
	}
	return names
}

// lookup finds a form by its format.
func lookup(f Format) (form, error) {
	for _, form := range forms {
		if form.format == f {
			return form, nil
		}
	}
	return form{}, fmt.Errorf("format %q is unknown%s; known are %s", f, nearest.Hint(string(f), Formats()), strings.Join(Formats(), ", "))
}

// aliases are the names under which columns are found when the data set does not map them. The first is ours.
var aliases = map[string][]string{
	"messages":    {"messages", "conversations", "conversation"},
	"tools":       {"tools", "functions"},
	"system":      {"system", "system_prompt"},
	"instruction": {"instruction", "question", "query"},
	"input":       {"input", "context"},
	"output":      {"output", "response", "answer"},
	"completion":  {"completion", "response"},
	"label":       {"label", "kto_tag"},
	"chosen":      {"chosen", "preferred_output", "preferred_completion"},
	"rejected":    {"rejected", "non_preferred_output", "non_preferred_completion", "rejected_response", "rejected_messages"},
}

// known are all column names that a mapping may give a place to.
var known = []string{
	"messages", "tools", "system", "instruction", "input", "output", "history", "text", "prompt", "completion",
	"chosen", "rejected", "label", "margin", "probability", "completions", "labels", "segments",
}

// fields reads the columns of one row under the names that the data set gives them.
type fields struct {
	row      *object
	format   Format
	columns  map[string]string // our name -> the file's
	roles    map[string]string // the file's role -> ours, besides the usual ones
	tags     tags
	exact    bool // columns that are not mapped are absent
	textual  bool
	warnings []string
}

// tags are the keys of a message that hold its role and content; empty means role or from, content or value.
type tags struct{ role, content string }

// lookup returns the file's name of a column and its value; ok is false if it is absent or null.
func (f *fields) lookup(column string) (name string, value any, ok bool) {
	if mapped, isMapped := f.columns[column]; isMapped || f.exact {
		if mapped == "" {
			return column, nil, false
		}
		value, _ = f.row.get(mapped)
		return mapped, value, value != nil
	}
	names := aliases[column]
	if names == nil {
		names = []string{column}
	}
	for _, n := range names {
		if v, present := f.row.get(n); present && v != nil {
			return n, v, true
		}
	}
	return column, nil, false
}

func (f *fields) has(column string) bool {
	_, _, ok := f.lookup(column)
	return ok
}

func (f *fields) warn(format string, args ...any) {
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}

// need returns a column that the format cannot do without.
func (f *fields) need(column string) (name string, value any, err error) {
	name, value, ok := f.lookup(column)
	if ok {
		return name, value, nil
	}
	return name, nil, f.lacks(column, name)
}

// lacks explains a missing column.
func (f *fields) lacks(column, name string) error {
	names := append([]string{name}, aliases[column]...)
	if f.exact || f.columns[column] != "" {
		names = names[:1]
	}
	for _, n := range names {
		if _, present := f.row.get(n); present {
			return bad("write the text, or remove the record", "'%s' is null: want %s", n, wanted(column))
		}
	}
	if other := detect(&fields{row: f.row, textual: f.textual}); other != Auto && other != f.format && f.columns == nil {
		return &mixedError{other}
	}
	e := bad(fmt.Sprintf("add it, or map it: columns: {%s: <its name in the file>}", column), "%s record lacks '%s' (has %s)", f.format, name, quoted(f.row.keys))
	if near := nearest.Names(name, f.row.keys); len(near) > 0 && column == name {
		e.Reason = fmt.Sprintf("%s record lacks '%s' (found '%s': did you mean '%s'?)", f.format, name, near[0], name)
		e.Remedy = fmt.Sprintf("rename '%s' to '%s', or map it: columns: {%s: %s}", near[0], name, column, near[0])
	}
	return e
}

// wanted names the type of a column.
func wanted(column string) string {
	switch column {
	case "messages", "history", "completions", "labels", "segments", "tools":
		return "a list"
	case "label":
		return "true or false"
	}
	return "text"
}

// mixedError is a record that has the form of another format than the records before it.
type mixedError struct{ format Format }

func (e *mixedError) Error() string {
	return fmt.Sprintf("record has %s keys", e.format)
}

// quoted lists names for a message.
func quoted(names []string) string {
	if len(names) == 0 {
		return "no columns"
	}
	var b strings.Builder
	for i, n := range names[:min(12, len(names))] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "'%s'", clip(n, 40))
	}
	if len(names) > 12 {
		b.WriteString(", …")
	}
	return b.String()
}

// text returns a column that must be text; an absent column is empty if it is optional.
func (f *fields) text(column string, optional bool) (string, error) {
	name, value, ok := f.lookup(column)
	if !ok {
		if optional {
			return "", nil
		}
		return "", f.lacks(column, name)
	}
	return asText(name, value)
}

func asText(path string, value any) (string, error) {
	s, ok := value.(string)
	if !ok {
		return "", bad("write it in double quotes", "%s: want text, have %s", path, typeName(value))
	}
	return s, nil
}

func asList(path string, value any) ([]any, error) {
	list, ok := value.([]any)
	if !ok {
		if s, isText := value.(string); isText && strings.HasPrefix(strings.TrimSpace(s), "[") {
			return nil, bad("write the list itself, without quotes around it", "%s: want a list, have text (JSON inside a string?)", path)
		}
		return nil, bad("write [ ... ]", "%s: want a list, have %s", path, typeName(value))
	}
	return list, nil
}

func asObject(path string, value any) (*object, error) {
	o, ok := value.(*object)
	if !ok {
		return nil, bad(`write {"key": value, ...}`, "%s: want an object, have %s", path, typeName(value))
	}
	return o, nil
}

// boolean returns a column that is true or false; files without types spell it.
func (f *fields) boolean(path string, value any) (bool, error) {
	if s, ok := value.(string); ok && f.textual {
		switch strings.ToLower(s) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	}
	b, ok := value.(bool)
	if !ok {
		return false, bad("write true or false without quotes", "%s: want true or false, have %s", path, typeName(value))
	}
	return b, nil
}

// detect tells the format of a row by its columns, or Auto when it knows none.
func detect(f *fields) Format {
	_, label, labelled := f.lookup("label")
	_, isBool := label.(bool)
	switch {
	case f.has("chosen") || f.has("rejected"):
		_, chosen, _ := f.lookup("chosen")
		_, rejected, _ := f.lookup("rejected")
		if isTranscript(chosen) && isTranscript(rejected) && !f.has("prompt") {
			return PreferencesHH
		}
		return Preferences
	case f.has("completions") && f.has("labels"):
		return StepwiseForm
	case labelled && (f.has("prompt") && f.has("completion") || (isBool || f.row.has("kto_tag")) && (f.has("messages") || f.has("instruction"))):
		return KTO
	case f.has("messages"):
		name, messages, _ := f.lookup("messages")
		return messageStyle(name, messages)
	case f.has("segments"):
		return SegmentsForm
	case f.has("prompt") && f.has("completion"):
		return PromptCompletion
	case f.has("instruction") || f.row.has("output"):
		return Alpaca
	case f.has("text"):
		return PlainText
	case f.has("prompt"):
		return Prompts
	}
	return Auto
}

// messageStyle tells messages of role and content from conversations of from and value.
func messageStyle(name string, messages any) Format {
	if list, ok := messages.([]any); ok {
		for _, m := range list {
			if o, ok := m.(*object); ok {
				if o.has("from") || o.has("value") {
					return ShareGPT
				}
				if o.has("role") || o.has("content") {
					return Messages
				}
			}
		}
	}
	if name == "messages" {
		return Messages
	}
	return ShareGPT
}

// unknownForm explains that no format fits a row.
func unknownForm(row *object) *Problem {
	p := bad("name the format, and map its columns: columns: {instruction: <name in the file>}; formats are "+strings.Join(Formats(), ", "),
		"cannot tell the format from the columns %s", quoted(row.keys))
	var all []string
	all = append(all, known...)
	for _, names := range aliases {
		all = append(all, names...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for _, key := range row.keys {
		if near := nearest.Names(key, all); len(near) > 0 && !slices.Contains(all, key) {
			p.Reason += fmt.Sprintf(" (found '%s': did you mean '%s'?)", clip(key, 40), near[0])
			break
		}
	}
	return p
}

// rawList returns an optional list (or a text that holds a JSON list) as raw JSON, element by element.
func (f *fields) rawList(column string) ([]json.RawMessage, error) {
	name, value, ok := f.lookup(column)
	if !ok {
		return nil, nil
	}
	if s, isText := value.(string); isText {
		if blank(s) {
			return nil, nil
		}
		v, _, err := parseJSON(s)
		if err != nil {
			return nil, bad("write a JSON list", "%s is not JSON: %v", name, err)
		}
		value = v
	}
	list, err := asList(name, value)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	for _, e := range list {
		raw = append(raw, appendJSON(nil, e))
	}
	return raw, nil
}
