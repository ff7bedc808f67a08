package evals

import (
	"context"
	"errors"
	"math"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/site"
)

// Window is the length of the pieces in which a text's loss is measured, where nothing else is asked for.
const Window = 256

// Loss returns the mean loss per token over a text, measured in pieces of n tokens, and how many tokens count: all but
// the first of each piece.
func Loss(ctx context.Context, m *model.Adapted, b engine.Backend, ids []int, n int) (loss float64, tokens int, err error) {
	n = min(n, m.Config.MaxPositions-m.Sites.Prefix)
	programs := map[int]engine.Program{}
	var sum float64
	for at := 0; at+2 <= len(ids); at += n {
		part := ids[at:min(at+n, len(ids))]
		t := len(part)
		p, ok := programs[t]
		if !ok {
			if p, err = lossProgram(m, b, t); err != nil {
				return 0, 0, err
			}
			programs[t] = p
		}
		feed, pos, targets := make([]int32, t), make([]int32, t), make([]int32, t)
		for i, id := range part {
			feed[i], pos[i], targets[i] = int32(id), int32(i), -1
			if i+1 < t {
				targets[i] = int32(part[i+1])
			}
		}
		if err := p.Run(ctx, engine.Feeds{"ids": feed, "positions": pos, "targets": targets}); err != nil {
			return 0, 0, err
		}
		sum += float64(p.Output("sum")[0])
		tokens += t - 1
	}
	if tokens == 0 {
		return 0, 0, errors.New("loss: the text has fewer than two tokens")
	}
	return sum / float64(tokens), tokens, nil
}

func lossProgram(m *model.Adapted, b engine.Backend, t int) (engine.Program, error) {
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, 1, t), Positions: g.Input("positions", graph.Int, 1, t)}, m.Grafts...)
		h := m.Hidden(s)
		logp, _ := m.LogProbs(s, graph.Reshape(h, t, h.Dim(2)), g.Input("targets", graph.Int, t))
		g.Output("sum", graph.Scale(graph.Sum(logp), -1))
	})
	if err != nil {
		return nil, err
	}
	return b.Compile(g, m.Store)
}

// Perplexity is e to the loss.
func Perplexity(loss float64) float64 { return math.Exp(loss) }
