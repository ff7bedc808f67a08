package evals

import (
	"context"
	"fmt"
	"math"
	"unicode/utf8"
)

// Choice is a question with several answers of which the model finds one the likeliest.
type Choice struct {
	Context string
	// Answers continue the context; each begins with what divides it from the context, mostly a space.
	Answers []string
	// Gold is the right answer; Labels, where it is set, marks several right ones.
	Gold   int
	Labels []int
}

// Chosen is what a model finds of a choice.
type Chosen struct {
	Sums []float64 // log-likelihood of each answer
	Bare []float64 // without the context; nil where it was not asked for
	Choice
}

// Choose measures the answers. With bare it measures them without the context too, for MutualInformation.
func (s *Ranker) Choose(ctx context.Context, c Choice, bare bool) (Chosen, error) {
	out := Chosen{Choice: c}
	for _, a := range c.Answers {
		sum, _, err := s.Continuation(ctx, c.Context, a)
		if err != nil {
			return out, err
		}
		out.Sums = append(out.Sums, sum)
		if !bare {
			continue
		}
		if sum, _, err = s.Continuation(ctx, "", a); err != nil {
			return out, err
		}
		out.Bare = append(out.Bare, sum)
	}
	return out, nil
}

// right returns 1 where the largest score, of several such the first, is that of the right answer.
func (c Chosen) right(score func(i int) float64) float64 {
	best := 0
	for i := range c.Sums {
		if score(i) > score(best) {
			best = i
		}
	}
	if best == c.Gold {
		return 1
	}
	return 0
}

// Accuracy is 1 where the likeliest answer is right.
func (c Chosen) Accuracy() float64 { return c.right(func(i int) float64 { return c.Sums[i] }) }

// PerCharacter is Accuracy by the likelihood per character of the answer, so that long answers are not at a loss.
func (c Chosen) PerCharacter() float64 {
	return c.right(func(i int) float64 { return c.Sums[i] / float64(utf8.RuneCountInString(c.text(i))) })
}

// PerByte is Accuracy by the likelihood per byte.
func (c Chosen) PerByte() float64 {
	return c.right(func(i int) float64 { return c.Sums[i] / float64(len(c.text(i))) })
}

// text returns an answer without the space before it.
func (c Chosen) text(i int) string {
	a := c.Answers[i]
	if len(a) > 1 && a[0] == ' ' {
		return a[1:]
	}
	return a
}

// MutualInformation is Accuracy by how much likelier the context makes an answer.
func (c Chosen) MutualInformation() float64 {
	return c.right(func(i int) float64 { return c.Sums[i] - c.Bare[i] })
}

// Truthful is the share of the probability of all answers that lies on the right ones (mc2 of TruthfulQA).
func (c Chosen) Truthful() float64 {
	most := math.Inf(-1)
	for _, s := range c.Sums {
		most = max(most, s)
	}
	var right, all float64
	for i, s := range c.Sums {
		p := math.Exp(s - most)
		all += p
		if c.Labels[i] == 1 {
			right += p
		}
	}
	return right / all
}

// Validate reports what is wrong with a choice.
func (c Choice) Validate() error {
	switch {
	case len(c.Answers) < 2:
		return fmt.Errorf("want at least two choices, have %d", len(c.Answers))
	case c.Gold < 0 || c.Gold >= len(c.Answers):
		return fmt.Errorf("want a right choice from 0 to %d, have %d", len(c.Answers)-1, c.Gold)
	case c.Labels != nil && len(c.Labels) != len(c.Answers):
		return fmt.Errorf("want %d labels, have %d", len(c.Answers), len(c.Labels))
	}
	return nil
}
