package data

import "fmt"

// readText reads documents of plain text.
func readText(f *fields) (Record, error) {
	text, err := f.text("text", false)
	if err != nil {
		return Record{}, err
	}
	if blank(text) {
		f.warn("text is empty")
	}
	return Record{Kind: Text, Text: text}, nil
}

// part reads a column that is text or messages.
func (f *fields) part(column string) (Part, error) {
	path, value, err := f.need(column)
	if err != nil {
		return Part{}, err
	}
	if text, ok := value.(string); ok {
		return Part{Text: text}, nil
	}
	p, _, err := f.spoken(path, value)
	return p, err
}

// spoken reads messages, or one message that stands without a list.
func (f *fields) spoken(path string, value any) (Part, turns, error) {
	if o, ok := value.(*object); ok {
		value = []any{o}
	}
	if _, ok := value.([]any); !ok {
		return Part{}, turns{}, bad("write text in quotes, or a list of messages", "%s: want text or a list of messages, have %s", path, typeName(value))
	}
	t, err := f.turns(path, value)
	if err == nil && len(t.messages) == 0 {
		err = bad("add a message, or remove the record", "%s: no messages", path)
	}
	return Part{Messages: t.messages}, t, err
}

// readPromptCompletion reads prompt and completion: both text, which no chat template touches, or both messages,
// which are one conversation of which only the completion is trained.
func readPromptCompletion(f *fields) (Record, error) {
	prompt, err := f.part("prompt")
	if err != nil {
		return Record{}, err
	}
	path, value, err := f.need("completion")
	if err != nil {
		return Record{}, err
	}
	if text, ok := value.(string); ok != prompt.IsText() {
		return Record{}, mixedParts("prompt", path)
	} else if ok {
		if blank(text) {
			f.warn("'%s' is empty: nothing to train", path)
		}
		return Record{Kind: Completion, Prompt: prompt, Answer: Part{Text: text}}, nil
	}
	_, t, err := f.spoken(path, value)
	if err != nil {
		return Record{}, err
	}
	tools, err := f.rawList("tools")
	if err != nil {
		return Record{}, err
	}
	t.messages = append(prompt.Messages, t.messages...)
	t.train = append(make([]bool, len(prompt.Messages)), t.train...)
	for _, m := range t.messages {
		t.names = append(t.names, m.Role)
	}
	t.names = t.names[len(t.names)-len(t.messages):]
	if err := f.checkTurns(path, t); err != nil {
		return Record{}, err
	}
	return Record{Kind: Chat, Messages: t.messages, Train: t.train, Tools: tools}, nil
}

func mixedParts(a, b string) error {
	return bad("write both as text, or both as messages", "%s and %s: one is text, the other messages", a, b)
}

// readPrompt reads prompts without answers.
func readPrompt(f *fields) (Record, error) {
	prompt, err := f.part("prompt")
	return Record{Kind: PromptOnly, Prompt: prompt}, err
}

// readStepwise reads a prompt and the steps of a solution, each with a label.
func readStepwise(f *fields) (Record, error) {
	prompt, err := f.text("prompt", false)
	if err != nil {
		return Record{}, err
	}
	var lists [2][]any
	var paths [2]string
	for i, column := range []string{"completions", "labels"} {
		path, value, err := f.need(column)
		if err != nil {
			return Record{}, err
		}
		if lists[i], err = asList(path, value); err != nil {
			return Record{}, err
		}
		paths[i] = path
	}
	if len(lists[0]) != len(lists[1]) {
		return Record{}, bad("write one label for each step", "%s has %d elements, %s has %d", paths[0], len(lists[0]), paths[1], len(lists[1]))
	}
	if len(lists[0]) == 0 {
		return Record{}, bad("add a step, or remove the record", "%s is empty", paths[0])
	}
	r := Record{Kind: Stepwise, Prompt: Part{Text: prompt}}
	for i := range lists[0] {
		text, err := asText(fmt.Sprintf("%s[%d]", paths[0], i), lists[0][i])
		if err != nil {
			return Record{}, err
		}
		label, err := f.boolean(fmt.Sprintf("%s[%d]", paths[1], i), lists[1][i])
		if err != nil {
			return Record{}, err
		}
		r.Steps = append(r.Steps, Step{text, label})
	}
	return r, nil
}

// readSegments reads pieces of text that say themselves whether they are trained.
func readSegments(f *fields) (Record, error) {
	path, value, err := f.need("segments")
	if err != nil {
		return Record{}, err
	}
	list, err := asList(path, value)
	if err != nil {
		return Record{}, err
	}
	r, trained := Record{Kind: Segmented}, false
	for i, element := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		o, err := asObject(at, element)
		if err != nil {
			return Record{}, err
		}
		v, _ := o.get("text")
		text, err := asText(at+".text", v)
		if err != nil {
			return Record{}, err
		}
		v, _ = o.get("label")
		label, err := f.boolean(at+".label", v)
		if err != nil {
			return Record{}, err
		}
		trained = trained || label && text != ""
		r.Segments = append(r.Segments, Segment{text, label})
	}
	if !trained {
		return Record{}, bad("label a segment true, or remove the record", "%s: no segment is labelled true: nothing to train", path)
	}
	return r, nil
}
