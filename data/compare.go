package data

import (
	"fmt"
	"slices"

	"tunesmith/chat"
)

// Compared makes examples of two sequences: the better and the worse answer to a prompt.
type Compared struct {
	Rendering
	Certain bool // take the first answer to be the better one for certain, whatever probability a record states
}

// Render implements [Renderer].
func (c Compared) Render(r Record) (Example, []string, error) {
	if r.Kind != Preference {
		return Example{}, nil, bad("give a prompt with chosen and rejected, or choose an objective for such records", "a record of kind %s compares no answers", r.Kind)
	}
	chosen, warnings, err := c.answer(r, r.Chosen, "chosen")
	if err != nil {
		return chosen, warnings, err
	}
	rejected, more, err := c.answer(r, r.Rejected, "rejected")
	if err != nil {
		return rejected, more, err
	}
	if slices.Equal(chosen.IDs, rejected.IDs) {
		return Example{}, nil, bad("remove the pair", "chosen and rejected are equal as tokens: no gradient comes from the pair")
	}
	if a, b := chosen.given(), rejected.given(); a != b || !slices.Equal(chosen.IDs[:a], rejected.IDs[:b]) {
		warnings = append(warnings, "the prompt has other tokens before the chosen than before the rejected answer: end it at a border between words, or use messages")
	}
	out := Join(chosen, rejected)
	out.Label = 1
	if !c.Certain && r.Probability != nil {
		out.Label = float32(*r.Probability)
	}
	if r.Margin != nil {
		out.Margin = float32(*r.Margin)
	}
	return out, append(warnings, more...), nil
}

// answer renders one answer, which has to say something.
func (r Rendering) answer(rec Record, p Part, name string) (Example, []string, error) {
	empty := p.IsText() && blank(p.Text)
	for _, m := range p.Messages {
		empty = m.Role == assistant && blank(m.Content) && m.Reasoning == "" && m.ToolCalls == nil
	}
	if empty {
		return Example{}, nil, bad("give an answer, or remove the record", "%s is empty", name)
	}
	return r.RenderAnswer(rec, p)
}

// given returns how many tokens stand before the first that is trained.
func (e Example) given() int { return max(0, slices.Index(e.Train, true)) }

// Judged makes examples of one answer that is good, label 1, or bad, label 0.
type Judged struct{ Rendering }

// Render implements [Renderer].
func (j Judged) Render(r Record) (Example, []string, error) {
	if r.Kind != Feedback {
		return Example{}, nil, bad("give a prompt, a completion and a label, or choose an objective for such records", "a record of kind %s labels no answer", r.Kind)
	}
	e, warnings, err := j.answer(r, r.Answer, "the answer")
	if r.Label {
		e.Label = 1
	}
	return e, warnings, err
}

// Mismatched gives each example a second sequence: its prompt with the answer of the next example that has another
// prompt, cut to the length of the longest sequence.
func Mismatched(s *Store) (*Store, error) {
	out := NewStore("", s.limit)
	for i := range s.Len() {
		e, err := s.Example(i)
		if err != nil {
			return nil, err
		}
		prompt := e.IDs[:e.given()]
		other := e
		for k := 1; k < s.Len(); k++ {
			if other, err = s.Example((i + k) % s.Len()); err != nil {
				return nil, err
			}
			if !slices.Equal(prompt, other.IDs[:other.given()]) {
				break
			}
		}
		wrong := Example{Weight: e.Weight, IDs: slices.Concat(prompt, other.IDs[other.given():])}
		wrong.Train = slices.Concat(make([]bool, len(prompt)), other.Train[other.given():])
		if n := min(len(wrong.IDs), s.Widest()); n > len(prompt) {
			wrong.IDs, wrong.Train = wrong.IDs[:n], wrong.Train[:n]
		}
		if err := out.Add(Join(e, wrong)); err != nil {
			return nil, fmt.Errorf("pairs of prompts and other answers: %w", err)
		}
	}
	return out, nil
}

// Asked makes examples of prompts with the answer that is expected, which a reward may look at; what is to be sampled
// stands in no data.
type Asked struct{ Rendering }

// Render implements [Renderer]. The tokens that are trained are those of the expected answer; of a record without one,
// the token that ends an answer.
func (a Asked) Render(r Record) (Example, []string, error) {
	switch r.Kind {
	case Chat, Completion:
		a.Turns = chat.LastTurn
		return a.Rendering.Render(r)
	case PromptOnly:
		empty := Part{}
		if !r.Prompt.IsText() {
			empty.Messages = []Message{{Role: assistant}}
		}
		return a.RenderAnswer(r, empty)
	}
	return Example{}, nil, bad("give prompts, or conversations whose last answer is the expected one", "a record of kind %s asks nothing", r.Kind)
}
