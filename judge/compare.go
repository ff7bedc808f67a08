package judge

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Comparer lets a model say which of two answers is better.
type Comparer struct {
	Asker  Asker
	Model  string
	Rubric string // what makes an answer good; Rubrics has some
	// Text reads the verdict from what the model writes rather than from the probabilities of its first token.
	Text bool
}

// ErrNoVerdict is a reply that decides nothing, such as a refusal.
var ErrNoVerdict = errors.New("the judge gave no verdict")

// Compare asks in both orders and joins the views.
func (c *Comparer) Compare(ctx context.Context, prompt, a, b string) (Verdict, error) {
	first, err := c.prefer(ctx, prompt, a, b)
	if err != nil {
		return Verdict{}, err
	}
	second, err := c.prefer(ctx, prompt, b, a)
	if err != nil {
		return Verdict{}, err
	}
	return Average(first, second), nil
}

// likeliest is how many first tokens are looked at; servers give at most twenty.
const likeliest = 20

// prefer returns the probability that the first answer is the better one.
func (c *Comparer) prefer(ctx context.Context, prompt, first, second string) (float64, error) {
	q := Request{Model: c.Model, MaxTokens: 1, LogProbs: likeliest}
	ending := "Which response is better? Reply with the number alone, 1 or 2."
	if c.Text {
		q.MaxTokens, q.LogProbs = 512, 0
		ending = "Compare the two responses in a few sentences. Then end with your verdict on a line of its own: [[1]], [[2]], or [[tie]]."
	}
	q.Messages = []Message{
		{"system", c.Rubric},
		{"user", fmt.Sprintf("<prompt>\n%s\n</prompt>\n\n<response_1>\n%s\n</response_1>\n\n<response_2>\n%s\n</response_2>\n\n%s", prompt, first, second, ending)},
	}
	r, err := c.Asker.Ask(ctx, q)
	if err != nil {
		return 0, err
	}
	if len(r.Top) > 0 {
		return readMarks(r.Top)
	}
	return readVerdict(r.Text)
}

// readMarks adds up the forms of the two marks among the likeliest tokens.
func readMarks(top map[string]float64) (float64, error) {
	var one, two []float64
	for token, l := range top {
		switch strings.TrimSpace(token) {
		case "1":
			one = append(one, l)
		case "2":
			two = append(two, l)
		}
	}
	if len(one)+len(two) == 0 {
		return 0, fmt.Errorf("%w: neither 1 nor 2 is among its likeliest tokens", ErrNoVerdict)
	}
	return PreferFirst(one, two), nil
}

var verdicts = regexp.MustCompile(`(?i)\[\[\s*(1|2|tie)\s*\]\]`)

// readVerdict reads the last verdict of a text, or a text that is a mark alone.
func readVerdict(text string) (float64, error) {
	mark := strings.Trim(strings.TrimSpace(text), ".")
	if all := verdicts.FindAllStringSubmatch(text, -1); len(all) > 0 {
		mark = strings.ToLower(all[len(all)-1][1])
	}
	switch mark {
	case "1":
		return 1, nil
	case "2":
		return 0, nil
	case "tie":
		return 0.5, nil
	}
	return 0, fmt.Errorf("%w: %.80q", ErrNoVerdict, text)
}

// Revise lets a model criticise an answer by a principle and write it anew (Bai et al. 2022, arXiv 2212.08073).
func Revise(ctx context.Context, a Asker, model, principle, prompt, answer string) (critique, revised string, err error) {
	ask := func(text string) (string, error) {
		r, err := a.Ask(ctx, Request{Model: model, MaxTokens: 1024, Messages: []Message{{"user", text}}})
		return strings.TrimSpace(r.Text), err
	}
	question := fmt.Sprintf("<prompt>\n%s\n</prompt>\n\n<response>\n%s\n</response>\n\n", prompt, answer)
	if critique, err = ask(question + "Criticise the response by this principle, in a few sentences: " + principle); err != nil {
		return "", "", err
	}
	revised, err = ask(question + "<critique>\n" + critique + "\n</critique>\n\nWrite the response anew so that the critique no longer applies. Give the new response alone.")
	if err == nil && revised == "" {
		err = fmt.Errorf("%w: the revised answer is empty", ErrNoVerdict)
	}
	return critique, revised, err
}
