package evals

import (
	"context"
	"strings"

	"tunesmith/chat"
	"tunesmith/generate"
	"tunesmith/token"
	"tunesmith/tune"
)

// Prompt is a question with examples before it.
type Prompt struct {
	Description string // of the task; stands first
	Shots       []Shot
	Question    string
}

// Shot is an example with its answer.
type Shot struct{ Question, Answer string }

// Style says how prompts are laid out.
type Style struct {
	Chat   bool   // through the model's chat template
	Turns  bool   // with the template, each example is a turn of its own
	System string // text of the system message
}

// Text lays the prompt out as plain text: examples are apart by an empty line, an answer follows its question after a
// space.
func (p Prompt) Text() string {
	return p.Description + p.examples() + p.Question
}

func (p Prompt) examples() string {
	var b strings.Builder
	for _, s := range p.Shots {
		b.WriteString(s.Question + " " + s.Answer + "\n\n")
	}
	return b.String()
}

// Messages lays the prompt out as a conversation.
func (p Prompt) Messages(s Style) []chat.Message {
	var out []chat.Message
	system := s.System
	if system != "" && p.Description != "" {
		system += "\n\n"
	}
	if system += p.Description; system != "" {
		out = append(out, chat.Message{Role: "system", Content: system})
	}
	if !s.Turns {
		return append(out, chat.Message{Role: "user", Content: p.examples() + p.Question})
	}
	for _, x := range p.Shots {
		out = append(out, chat.Message{Role: "user", Content: x.Question}, chat.Message{Role: "assistant", Content: x.Answer})
	}
	return append(out, chat.Message{Role: "user", Content: p.Question})
}

// Render returns the text that a model gets, up to where it is to answer, and what stands between that and the answer.
func (p Prompt) Render(t tune.Text, s Style) (text, delimiter string, err error) {
	if !s.Chat {
		return p.Text(), " ", nil
	}
	if t.Template == nil {
		_, err := t.Prompt(nil)
		return "", "", err
	}
	r, err := t.Template.Render(chat.Conversation{Messages: p.Messages(s)}, true)
	return r.Text, "", err
}

// Continue lets a model continue a text greedily, up to the first of the stops, which is cut off.
func Continue(ctx context.Context, g *generate.Generator, t tune.Text, text string, special bool, most int, stops []string) (string, error) {
	var options []token.Option
	if special {
		options = append(options, token.WithSpecial())
	}
	found := ""
	cut := func(s string) (string, bool) {
		first := -1
		for _, stop := range stops {
			if i := strings.Index(s, stop); i >= 0 && (first < 0 || i < first) {
				first = i
			}
		}
		if first < 0 {
			return s, false
		}
		return s[:first], true
	}
	stopped := false
	out, err := g.Generate(ctx, [][]int{t.Tokenizer.IDs(text, options...)}, generate.Options{
		MaxTokens: most, Stop: t.Stops(),
		Until: func(_ int, ids []int) bool {
			found, stopped = cut(t.Tokenizer.Decode(ids, true))
			return stopped
		},
	})
	if err != nil || stopped {
		return found, err
	}
	found, _ = cut(t.Tokenizer.Decode(out[0].IDs, true))
	return found, nil
}
