package data

import "fmt"

// readAlpaca reads instruction, input, output, and perhaps system and history. The user's text is the instruction
// and, on a line of its own, the input if there is one; the prompt texts of Stanford's Alpaca are a template's
// business. Answers in the history are trained too, as LLaMA-Factory does.
func readAlpaca(f *fields) (Record, error) {
	t, err := f.alpacaPrompt()
	if err != nil {
		return Record{}, err
	}
	output, err := f.text("output", false)
	if err != nil {
		return Record{}, err
	}
	if blank(output) {
		f.warn("'output' is empty: nothing to train")
	}
	t.add(assistant, output, true)
	return Record{Kind: Chat, Messages: t.messages, Train: t.train}, nil
}

func (t *turns) add(role, content string, train bool) {
	t.messages = append(t.messages, Message{Role: role, Content: content})
	t.train = append(t.train, train)
	t.names = append(t.names, role)
}

// alpacaPrompt reads what stands before the answer.
func (f *fields) alpacaPrompt() (turns, error) {
	var t turns
	instruction, err := f.text("instruction", false)
	if err != nil {
		return t, err
	}
	input, err := f.text("input", true)
	if err != nil {
		return t, err
	}
	sys, err := f.text("system", true)
	if err != nil {
		return t, err
	}
	if sys != "" {
		t.add(system, sys, false)
	}
	if err := f.history(&t); err != nil {
		return t, err
	}
	switch {
	case instruction == "":
		instruction = input
	case input != "":
		instruction += "\n" + input
	}
	if blank(instruction) {
		f.warn("instruction is empty")
	}
	t.add(user, instruction, false)
	return t, nil
}

// history reads earlier turns, a list of pairs of question and answer.
func (f *fields) history(t *turns) error {
	path, value, ok := f.lookup("history")
	if s, isText := value.(string); !ok || isText && f.textual && blank(s) {
		return nil
	}
	pairs, err := asList(path, value)
	if err != nil {
		return err
	}
	for i, p := range pairs {
		at := fmt.Sprintf("%s[%d]", path, i)
		pair, err := asList(at, p)
		if err != nil {
			return err
		}
		if len(pair) != 2 {
			return bad("write [question, answer]", "%s: want a pair, have %s", at, plural(len(pair), "element"))
		}
		for j, role := range []string{user, assistant} {
			text, err := asText(fmt.Sprintf("%s[%d]", at, j), pair[j])
			if err != nil {
				return err
			}
			t.add(role, text, role == assistant)
		}
	}
	return nil
}
