package data

import (
	"bytes"
	"encoding/json"
)

// written is a message with what a file says of its training.
type written struct {
	Message
	Weight *int `json:"weight,omitempty"` // 0 for an answer that is not trained
}

// MarshalJSON writes the record as a line of the canonical form of its kind, which is read back as an equal record:
// conversations as messages, the others under the names that TRL uses.
func (r Record) MarshalJSON() ([]byte, error) {
	var v any
	switch r.Kind {
	case Chat:
		messages := make([]written, len(r.Messages))
		for i, m := range r.Messages {
			messages[i].Message = m
			if m.Role == assistant && i < len(r.Train) && !r.Train[i] {
				messages[i].Weight = new(int)
			}
		}
		v = struct {
			Messages []written         `json:"messages"`
			Tools    []json.RawMessage `json:"tools,omitempty"`
		}{messages, r.Tools}
	case Completion:
		v = struct {
			Prompt     string `json:"prompt"`
			Completion string `json:"completion"`
		}{r.Prompt.Text, r.Answer.Text}
	case Text:
		v = struct {
			Text string `json:"text"`
		}{r.Text}
	case Preference:
		v = struct {
			Prompt   Part              `json:"prompt"`
			Chosen   Part              `json:"chosen"`
			Rejected Part              `json:"rejected"`
			Margin   *float64          `json:"margin,omitempty"`
			Tools    []json.RawMessage `json:"tools,omitempty"`
		}{r.Prompt, r.Chosen, r.Rejected, r.Margin, r.Tools}
	case Feedback:
		v = struct {
			Prompt     Part              `json:"prompt"`
			Completion Part              `json:"completion"`
			Label      bool              `json:"label"`
			Tools      []json.RawMessage `json:"tools,omitempty"`
		}{r.Prompt, r.Answer, r.Label, r.Tools}
	case Stepwise:
		texts, labels := make([]string, len(r.Steps)), make([]bool, len(r.Steps))
		for i, s := range r.Steps {
			texts[i], labels[i] = s.Text, s.Label
		}
		v = struct {
			Prompt      string   `json:"prompt"`
			Completions []string `json:"completions"`
			Labels      []bool   `json:"labels"`
		}{r.Prompt.Text, texts, labels}
	case PromptOnly:
		v = struct {
			Prompt Part              `json:"prompt"`
			Tools  []json.RawMessage `json:"tools,omitempty"`
		}{r.Prompt, r.Tools}
	case Segmented:
		type segment struct {
			Text  string `json:"text"`
			Label bool   `json:"label"`
		}
		segments := make([]segment, len(r.Segments))
		for i, s := range r.Segments {
			segments[i] = segment{s.Text, s.Train}
		}
		v = struct {
			Segments []segment `json:"segments"`
		}{segments}
	}
	return marshal(v)
}

// MarshalJSON writes text, or a list of messages.
func (p Part) MarshalJSON() ([]byte, error) {
	if p.IsText() {
		return marshal(p.Text)
	}
	return marshal(p.Messages)
}

// marshal writes JSON that leaves the characters of HTML as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Line returns the record's canonical form with its line end.
func (r Record) Line() ([]byte, error) {
	b, err := r.MarshalJSON()
	return append(b, '\n'), err
}

// EachText replaces every text of a record by what change makes of it. Texts that tell functions and their arguments
// stay as they are.
func (r Record) EachText(change func(string) string) Record {
	messages := func(list []Message) []Message {
		if list == nil {
			return nil
		}
		out := make([]Message, len(list))
		for i, m := range list {
			m.Content, m.Reasoning = change(m.Content), change(m.Reasoning)
			out[i] = m
		}
		return out
	}
	r.Messages, r.Text = messages(r.Messages), change(r.Text)
	for _, p := range []*Part{&r.Prompt, &r.Answer, &r.Chosen, &r.Rejected} {
		*p = Part{change(p.Text), messages(p.Messages)}
	}
	steps := make([]Step, len(r.Steps))
	for i, s := range r.Steps {
		steps[i] = Step{change(s.Text), s.Label}
	}
	segments := make([]Segment, len(r.Segments))
	for i, s := range r.Segments {
		segments[i] = Segment{change(s.Text), s.Train}
	}
	r.Steps, r.Segments = steps, segments
	return r
}

// Asked returns what a record asks: the messages before the last answer without those of the system, or the prompt.
func (r Record) Asked() string {
	if r.Kind != Chat {
		return r.Prompt.join("")
	}
	last := len(r.Messages)
	for i, m := range r.Messages {
		if m.Role == assistant {
			last = i
		}
	}
	return Part{Messages: r.Messages[:last]}.join(system)
}

// Answers returns the texts that a record would teach: its answers, the better one where two are compared, or the text.
func (r Record) Answers() []string {
	var out []string
	trained := func(list []Message, train []bool) {
		for i, m := range list {
			if m.Role == assistant && (i >= len(train) || train[i]) {
				out = append(out, m.Content)
			}
		}
	}
	part := func(p Part) {
		if p.IsText() {
			out = append(out, p.Text)
		} else {
			trained(p.Messages, nil)
		}
	}
	switch r.Kind {
	case Chat:
		trained(r.Messages, r.Train)
	case Completion, Feedback:
		part(r.Answer)
	case Text:
		out = []string{r.Text}
	case Preference:
		part(r.Chosen)
	case Stepwise:
		for _, s := range r.Steps {
			out = append(out, s.Text)
		}
	case Segmented:
		for _, s := range r.Segments {
			if s.Train {
				out = append(out, s.Text)
			}
		}
	}
	return out
}

// Content returns all of a record's texts, each on lines of its own.
func (r Record) Content() string {
	var b bytes.Buffer
	r.EachText(func(s string) string {
		if s != "" {
			b.WriteString(s)
			b.WriteByte('\n')
		}
		return s
	})
	return b.String()
}

// join joins the texts of a part, without those of a role.
func (p Part) join(without string) string {
	if p.IsText() {
		return p.Text
	}
	var b bytes.Buffer
	for _, m := range p.Messages {
		if m.Role != without && m.Content != "" {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(m.Content)
		}
	}
	return b.String()
}
