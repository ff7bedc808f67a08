package data

import (
	"reflect"
	"strings"
	"unicode/utf8"
)

// readPreference reads a better and a worse answer to one prompt. The prompt is a column, messages (all of them, or
// with OpenAI's input all of input.messages), instruction and input, or the common start of the two answers.
func readPreference(f *fields) (Record, error) {
	r := Record{Kind: Preference}
	chosenPath, chosen, err := f.need("chosen")
	if err != nil {
		if f.has("messages") && f.has("rejected") {
			return f.lastAnswer()
		}
		return r, err
	}
	rejectedPath, rejected, err := f.need("rejected")
	if err != nil {
		return r, err
	}
	if r.Margin, err = f.quantity("margin"); err != nil {
		return r, err
	}
	if r.Probability, err = f.quantity("probability"); err != nil {
		return r, err
	}
	if p := r.Probability; p != nil && !(*p >= 0 && *p <= 1) {
		return r, bad("write how certain it is that chosen is better, from 0 to 1", "probability: want 0 to 1, have %g", *p)
	}
	var prompt turns
	var text string
	given := true
	switch _, in, _ := f.lookup("input"); {
	case f.has("prompt"):
		path, value, _ := f.lookup("prompt")
		if s, ok := value.(string); ok {
			text = s
		} else if _, prompt, err = f.spoken(path, value); err != nil {
			return r, err
		}
	case f.has("messages"):
		path, value, _ := f.lookup("messages")
		if _, prompt, err = f.spoken(path, value); err == nil {
			prompt, err = f.withSystem(prompt)
		}
	case isObject(in):
		messages, _ := in.(*object).get("messages")
		if _, prompt, err = f.spoken("input.messages", messages); err == nil {
			r.Tools, err = (&fields{row: in.(*object)}).rawList("tools")
		}
	case f.has("instruction"):
		prompt, err = f.alpacaPrompt()
	default:
		given = false
	}
	if err != nil {
		return r, err
	}
	if r.Tools == nil {
		if r.Tools, err = f.rawList("tools"); err != nil {
			return r, err
		}
	}
	c, cText := chosen.(string)
	w, wText := rejected.(string)
	switch {
	case cText != wText:
		return r, mixedParts(chosenPath, rejectedPath)
	case cText && !given:
		n := commonStart(c, w)
		if n == 0 {
			return r, differentPrompts(chosenPath, rejectedPath, "texts")
		}
		r.Prompt.Text, r.Chosen.Text, r.Rejected.Text = c[:n], c[n:], w[n:]
	case cText && prompt.messages == nil:
		r.Prompt.Text, r.Chosen.Text, r.Rejected.Text = text, c, w
	case cText:
		r.Prompt.Messages = prompt.messages
		r.Chosen.Messages = []Message{{Role: assistant, Content: c}}
		r.Rejected.Messages = []Message{{Role: assistant, Content: w}}
	default:
		if r.Chosen, _, err = f.spoken(chosenPath, chosen); err != nil {
			return r, err
		}
		if r.Rejected, _, err = f.spoken(rejectedPath, rejected); err != nil {
			return r, err
		}
		if err = r.splitPrompt(given, text, prompt.messages, chosenPath, rejectedPath); err != nil {
			return r, err
		}
	}
	return f.checkPair(r, chosenPath, rejectedPath)
}

func isObject(v any) bool {
	_, ok := v.(*object)
	return ok
}

func differentPrompts(chosen, rejected, what string) error {
	return bad("give both the same prompt, or add a column 'prompt'", "%s and %s start with different %s", chosen, rejected, what)
}

// splitPrompt settles the prompt of two answers that are messages. Both may repeat the whole conversation, whether or
// not the prompt is given too; then their common start is the prompt.
func (r *Record) splitPrompt(given bool, text string, prompt []Message, chosenPath, rejectedPath string) error {
	c, w := r.Chosen.Messages, r.Rejected.Messages
	n := 0
	for n < min(len(c), len(w))-1 && reflect.DeepEqual(c[n], w[n]) {
		n++
	}
	switch {
	case c[0].Role == assistant && given && prompt == nil:
		r.Prompt.Messages = []Message{{Role: user, Content: text}}
		return nil
	case c[0].Role == assistant && given:
		r.Prompt.Messages = prompt
		return nil
	case n == 0:
		return differentPrompts(chosenPath, rejectedPath, "messages")
	}
	r.Prompt.Messages, r.Chosen.Messages, r.Rejected.Messages = c[:n:n], c[n:], w[n:]
	return nil
}

// commonStart is the length of the prompt that two texts share: up to the first difference, and without the space
// before it, which belongs to the answers (TRL's rule).
func commonStart(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	if n == len(a) || n == len(b) { // one begins the other: leave each a last character
		_, size := utf8.DecodeLastRuneInString(a[:n])
		n -= size
	}
	for n > 0 && n < len(a) && !utf8.RuneStart(a[n]) {
		n--
	}
	if n > 0 && a[n-1] == ' ' {
		n--
	}
	return n
}

// quantity reads a number that a record may leave out.
func (f *fields) quantity(column string) (*float64, error) {
	name, value, ok := f.lookup(column)
	if !ok {
		return nil, nil
	}
	if s, isText := value.(string); isText && f.textual {
		if blank(s) {
			return nil, nil
		}
		if v, _, err := parseJSON(s); err == nil {
			value = v
		}
	}
	n, ok := value.(number)
	if !ok {
		return nil, bad("write a number", "%s: want a number, have %s", name, typeName(value))
	}
	m := n.float()
	return &m, nil
}

// checkPair looks at both answers of a pair.
func (f *fields) checkPair(r Record, chosenPath, rejectedPath string) (Record, error) {
	for _, side := range []struct {
		path string
		part Part
	}{{chosenPath, r.Chosen}, {rejectedPath, r.Rejected}} {
		if m := side.part.Messages; m != nil && m[len(m)-1].Role != assistant {
			return r, bad("end it with the assistant's answer", "%s: last turn is '%s': no answer to prefer", side.path, m[len(m)-1].Role)
		}
	}
	if reflect.DeepEqual(r.Chosen, r.Rejected) {
		f.warn("%s and %s are equal: no gradient comes from the pair", chosenPath, rejectedPath)
	}
	return r, nil
}

// lastAnswer reads a conversation whose last answer is the chosen one, beside a column with the rejected answer.
func (f *fields) lastAnswer() (Record, error) {
	r := Record{Kind: Preference}
	path, value, _ := f.lookup("messages")
	_, t, err := f.spoken(path, value)
	if err != nil {
		return r, err
	}
	if t, err = f.withSystem(t); err != nil {
		return r, err
	}
	rejectedPath, rejected, _ := f.lookup("rejected")
	if s, ok := rejected.(string); ok {
		r.Rejected.Messages = []Message{{Role: assistant, Content: s}}
	} else if r.Rejected, _, err = f.spoken(rejectedPath, rejected); err != nil {
		return r, err
	}
	last := len(t.messages) - 1
	if last == 0 {
		return r, bad("add the question before the answer", "%s holds one message only", path)
	}
	r.Prompt.Messages, r.Chosen.Messages = t.messages[:last:last], t.messages[last:]
	if w := r.Rejected.Messages; len(w) > 1 && len(w) == len(t.messages) {
		return r, r.splitPrompt(false, "", nil, path, rejectedPath)
	}
	if r.Tools, err = f.rawList("tools"); err != nil {
		return r, err
	}
	return f.checkPair(r, path, rejectedPath)
}

const (
	humanMark     = "\n\nHuman: "
	assistantMark = "\n\nAssistant: "
)

func isTranscript(v any) bool {
	s, ok := v.(string)
	return ok && strings.HasPrefix(s, humanMark[:len(humanMark)-1])
}

// readTranscripts reads pairs of whole dialogues written as text with "\n\nHuman: " and "\n\nAssistant: " before the
// turns, as Anthropic's HH-RLHF has them.
func readTranscripts(f *fields) (Record, error) {
	r := Record{Kind: Preference}
	for _, side := range []struct {
		column string
		part   *Part
	}{{"chosen", &r.Chosen}, {"rejected", &r.Rejected}} {
		text, err := f.text(side.column, false)
		if err != nil {
			return r, err
		}
		if side.part.Messages = transcript(text); side.part.Messages == nil {
			return r, bad(`begin it with "\n\nHuman: "`, "%s does not begin with a turn of Human", side.column)
		}
	}
	if err := r.splitPrompt(false, "", nil, "chosen", "rejected"); err != nil {
		return r, err
	}
	return f.checkPair(r, "chosen", "rejected")
}

// transcript cuts a dialogue into its turns. A mark at the very end (an empty answer) has no space after it.
func transcript(s string) []Message {
	var m []Message
	for s != "" {
		var role string
		if rest, ok := strings.CutPrefix(s, humanMark[:len(humanMark)-1]); ok {
			role, s = user, rest
		} else if rest, ok := strings.CutPrefix(s, assistantMark[:len(assistantMark)-1]); ok {
			role, s = assistant, rest
		} else {
			return nil
		}
		end := len(s)
		for _, mark := range []string{humanMark, assistantMark} {
			if i := strings.Index(s, mark[:len(mark)-1]); i >= 0 {
				end = min(end, i)
			}
		}
		m = append(m, Message{Role: role, Content: strings.TrimPrefix(s[:end], " ")})
		s = s[end:]
	}
	return m
}

// readFeedback reads one answer and whether it is good: prompt and completion, or a conversation that ends with the
// answer, or instruction and output.
func readFeedback(f *fields) (Record, error) {
	r := Record{Kind: Feedback}
	name, value, err := f.need("label")
	if err != nil {
		return r, err
	}
	if r.Label, err = f.boolean(name, value); err != nil {
		return r, err
	}
	if r.Tools, err = f.rawList("tools"); err != nil {
		return r, err
	}
	switch {
	case f.has("messages"):
		path, value, _ := f.lookup("messages")
		_, t, err := f.spoken(path, value)
		if err != nil {
			return r, err
		}
		if t, err = f.withSystem(t); err != nil {
			return r, err
		}
		last := len(t.messages) - 1
		if t.messages[last].Role != assistant || last == 0 {
			return r, bad("end it with the answer that the label is about", "%s: want a question and an answer at the end", path)
		}
		r.Prompt.Messages, r.Answer.Messages = t.messages[:last:last], t.messages[last:]
	case f.has("prompt"):
		if r.Prompt, err = f.part("prompt"); err != nil {
			return r, err
		}
		if r.Answer, err = f.part("completion"); err != nil {
			return r, err
		}
		if r.Prompt.IsText() != r.Answer.IsText() {
			return r, mixedParts("prompt", "completion")
		}
	default:
		t, err := f.alpacaPrompt()
		if err != nil {
			return r, err
		}
		output, err := f.text("output", false)
		if err != nil {
			return r, err
		}
		r.Prompt.Messages, r.Answer.Messages = t.messages, []Message{{Role: assistant, Content: output}}
	}
	return r, nil
}
