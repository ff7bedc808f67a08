package judge

import (
	"context"
	"fmt"
	"math"
	"slices"

	"tunesmith/chat"
	"tunesmith/generate"
	"tunesmith/tune"
)

// Local asks a model in this process.
type Local struct {
	Generator *generate.Generator
	Text      tune.Text
}

// Ask implements Asker. Models whose template knows no system turn get its text before the question.
func (l *Local) Ask(ctx context.Context, q Request) (Reply, error) {
	var messages []chat.Message
	for _, m := range q.Messages {
		messages = append(messages, chat.Message{Role: m.Role, Content: m.Content})
	}
	ids, err := l.Text.Prompt(messages)
	if err != nil && len(messages) > 1 && messages[0].Role == "system" {
		joined := messages[0].Content + "\n\n" + messages[1].Content
		ids, err = l.Text.Prompt([]chat.Message{{Role: "user", Content: joined}})
	}
	if err != nil {
		return Reply{}, fmt.Errorf("judge's prompt: %w", err)
	}
	r := Reply{In: len(ids)}
	if q.LogProbs > 0 {
		logits, err := l.Generator.NextLogits(ctx, [][]int{ids})
		if err != nil {
			return Reply{}, err
		}
		r.Top, r.Out = l.top(logits[0], q.LogProbs), 1
		return r, nil
	}
	out, err := l.Generator.Generate(ctx, [][]int{ids}, generate.Options{MaxTokens: q.MaxTokens, Stop: l.Text.Stops()})
	if err != nil {
		return Reply{}, err
	}
	r.Text, r.Out = l.Text.Tokenizer.Decode(out[0].IDs, true), len(out[0].IDs)
	return r, nil
}

// top returns the log-probabilities of the likeliest tokens, and of the two marks wherever they stand: in this process
// all of them are known. Forms of one text are added up.
func (l *Local) top(logits []float32, n int) map[string]float64 {
	wide := make([]float64, len(logits))
	order := make([]int, len(logits))
	for i, v := range logits {
		wide[i], order[i] = float64(v), i
	}
	total := logSum(wide)
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case wide[a] > wide[b]:
			return -1
		case wide[a] < wide[b]:
			return 1
		}
		return a - b
	})
	out := map[string]float64{}
	for rank, id := range order {
		text := l.Text.Bytes(int32(id))
		if mark := text == "1" || text == "2" || text == " 1" || text == " 2"; rank >= n && !mark {
			continue
		}
		p := wide[id] - total
		if old, ok := out[text]; ok {
			p = math.Max(old, p) + math.Log1p(math.Exp(-math.Abs(old-p)))
		}
		out[text] = p
	}
	return out
}
