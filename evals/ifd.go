package evals

import (
	"context"
	"errors"
	"fmt"
	"math"

	"tunesmith/engine"
	"tunesmith/model"
)

// IFD is how hard a model finds an answer with its instruction and without it (Li et al. 2023, arXiv 2308.12032).
// An instruction that helps makes the ratio smaller than 1; above 1 the answer does not follow from it.
type IFD struct {
	Given  float64 `json:"loss_given_prompt"` // mean loss of the answer's tokens behind the prompt
	Alone  float64 `json:"loss_alone"`        // mean loss behind nothing
	Tokens int     `json:"tokens"`            // of the answer
}

// Perplexities is the ratio of the perplexities, the paper's definition.
func (i IFD) Perplexities() float64 { return math.Exp(i.Given - i.Alone) }

// Losses is the ratio of the mean losses, which the paper's program computes. It lies nearer to 1.
func (i IFD) Losses() float64 { return i.Given / i.Alone }

// Scorer measures the losses of answers. The passes of one length are compiled once.
type Scorer struct {
	model   *model.Adapted
	backend engine.Backend
	cache   *engine.Cache
}

// NewScorer returns a scorer of a model.
func NewScorer(m *model.Adapted, b engine.Backend) *Scorer {
	return &Scorer{m, b, engine.NewCache(16)}
}

// IFD scores an answer behind a prompt. start, such as the token that begins every text, comes before both the prompt
// and the answer alone; it may be empty, and then the first token of the answer counts only where a prompt comes
// before it.
func (s *Scorer) IFD(ctx context.Context, start, prompt, answer []int) (IFD, error) {
	out := IFD{Tokens: len(answer)}
	var err error
	if out.Given, err = s.Loss(ctx, append(start[:len(start):len(start)], prompt...), answer); err != nil {
		return out, err
	}
	out.Alone, err = s.Loss(ctx, start, answer)
	return out, err
}

// Loss returns the mean loss of an answer's tokens behind those of before.
func (s *Scorer) Loss(ctx context.Context, before, answer []int) (float64, error) {
	n := len(before) + len(answer)
	if limit := s.model.Config.MaxPositions; n > limit {
		return 0, fmt.Errorf("%d tokens do not fit into the model's %d", n, limit)
	}
	count := min(len(answer), n-1)
	if count < 1 {
		return 0, errors.New("the answer has no token to predict")
	}
	cols := min((n+31)/32*32, s.model.Config.MaxPositions)
	program, err := s.cache.Get(fmt.Sprint(cols), func() (engine.Program, error) { return lossProgram(s.model, s.backend, cols) })
	if err != nil {
		return 0, err
	}
	ids, pos, targets := make([]int32, cols), make([]int32, cols), make([]int32, cols)
	for i := range cols {
		pos[i], targets[i] = int32(i), -1
		switch {
		case i < len(before):
			ids[i] = int32(before[i])
		case i < n:
			ids[i] = int32(answer[i-len(before)])
		}
	}
	for i := n - count; i < n; i++ {
		targets[i-1] = ids[i]
	}
	if err := program.Run(ctx, engine.Feeds{"ids": ids, "positions": pos, "targets": targets}); err != nil {
		return 0, err
	}
	return float64(program.Output("sum")[0]) / float64(count), nil
}
