package evals

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/token"
)

// Ranker measures how likely a model finds texts.
type Ranker struct {
	model   *model.Adapted
	backend engine.Backend
	token   *token.Tokenizer
	length  int
	special bool
	cache   *engine.Cache
	last    []int32        // input of the run whose outputs stand in program
	rows    []int32        // of which the outputs are
	program engine.Program // nil before the first run
}

// RankerOptions say how texts become tokens.
type RankerOptions struct {
	Length int // longest input in tokens; 0 is the model's context
	// Special adds to a context the tokens that the tokenizer puts around a text, such as the one that begins it.
	Special bool
}

// NewRanker returns a ranker.
func NewRanker(m *model.Adapted, b engine.Backend, t *token.Tokenizer, o RankerOptions) *Ranker {
	limit := m.Config.MaxPositions - m.Sites.Prefix
	if o.Length > 0 {
		limit = min(limit, o.Length)
	}
	return &Ranker{model: m, backend: b, token: t, length: limit, special: o.Special, cache: engine.NewCache(16)}
}

// prefix is the token before a text without a context.
func (s *Ranker) prefix() (int, error) {
	for _, id := range []int{s.token.BOS(), s.token.EOS()} {
		if id >= 0 {
			return id, nil
		}
	}
	return 0, errors.New("the tokenizer has no token that begins or ends a text; give each text a context")
}

func (s *Ranker) ids(text string) []int {
	if s.special {
		return s.token.IDs(text, token.WithSpecial())
	}
	return s.token.IDs(text)
}

// Continuation returns the log-likelihood of a continuation after a context, and whether greedy decoding gives it.
// White space at the end of the context belongs to the continuation, and so does a token that lies over the border.
func (s *Ranker) Continuation(ctx context.Context, before, after string) (sum float64, greedy bool, err error) {
	if before == "" {
		first, err := s.prefix()
		if err != nil {
			return 0, false, err
		}
		all := s.ids(after)
		if len(all) > 0 && all[0] == first {
			return s.score(ctx, all, 1)
		}
		return s.score(ctx, append([]int{first}, all...), 1)
	}
	trimmed := strings.TrimRightFunc(before, unicode.IsSpace)
	after = before[len(trimmed):] + after
	head := len(s.ids(trimmed))
	all := s.ids(trimmed + after)
	if head == 0 || head >= len(all) {
		return 0, false, fmt.Errorf("the continuation %q after %d tokens has none of its own", after, head)
	}
	return s.score(ctx, all, head)
}

// score returns the log-likelihood of the tokens from a place on, after those before it. What does not fit into the
// context is cut from the start.
func (s *Ranker) score(ctx context.Context, ids []int, from int) (sum float64, greedy bool, err error) {
	if cut := len(ids) - 1 - s.length; cut > 0 {
		ids, from = ids[cut:], from-cut
	}
	if from < 1 {
		return 0, false, fmt.Errorf("a continuation does not fit into the context of %d tokens", s.length)
	}
	n := len(ids) - 1
	rows := n - from + 1 // the outputs that are read
	cols := (n + 31) / 32 * 32
	in, pos := make([]int32, cols), make([]int32, cols)
	for i := range cols {
		pos[i] = int32(i)
		if i < n {
			in[i] = int32(ids[i])
		}
	}
	at, targets := make([]int32, (rows+7)/8*8), make([]int32, (rows+7)/8*8)
	for i := range at {
		targets[i] = -1
		if i < rows {
			at[i], targets[i] = int32(from-1+i), int32(ids[from+i])
		}
	}
	// Answers of one token have one input: it runs once for all of them.
	if s.program == nil || !slices.Equal(s.last, in) || !slices.Equal(s.rows, at) {
		p, err := s.compile(cols, len(at))
		if err != nil {
			return 0, false, err
		}
		s.program = nil
		if err := p.Run(ctx, engine.Feeds{"ids": in, "positions": pos, "rows": at}); err != nil {
			return 0, false, err
		}
		s.program, s.last, s.rows = p, in, at
	}
	logits := s.program.Output("logits")
	v := len(logits) / len(at)
	greedy = true
	for i := range rows {
		logp, first := logSoftmax(logits[i*v:(i+1)*v], int(targets[i]))
		sum += logp
		greedy = greedy && first
	}
	return sum, greedy, nil
}

// logSoftmax returns the log-probability of a token, and whether it is the likeliest.
func logSoftmax(logits []float32, id int) (logp float64, first bool) {
	most := logits[0]
	best := 0
	for i, x := range logits {
		if x > most {
			most, best = x, i
		}
	}
	var sum float64
	for _, x := range logits {
		sum += math.Exp(float64(x - most))
	}
	return float64(logits[id]-most) - math.Log(sum), best == id
}

// compile returns the program that computes the logits of some rows of a text.
func (s *Ranker) compile(cols, rows int) (engine.Program, error) {
	return s.cache.Get(fmt.Sprintf("%d/%d", cols, rows), func() (engine.Program, error) {
		g, err := graph.Build(func(g *graph.Graph) {
			sc := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, 1, cols), Positions: g.Input("positions", graph.Int, 1, cols)}, s.model.Grafts...)
			h := s.model.Hidden(sc)
			picked := graph.Lookup(graph.Reshape(h, cols, h.Dim(2)), g.Input("rows", graph.Int, rows), -1)
			g.Output("logits", s.model.Logits(sc, picked))
		})
		if err != nil {
			return nil, err
		}
		return s.backend.Compile(g, s.model.Store)
	})
}

var whiteSpace = regexp.MustCompile(`[\s\x{1c}-\x{1f}\x{85}\p{Z}]+`)

// Text returns the log-likelihood of a whole text, each token scored once: the first window after the token that begins
// a text, each next full one after one token of context, and the last one with as much context as fits.
func (s *Ranker) Text(ctx context.Context, text string) (Likelihood, error) {
	l := Likelihood{Words: len(whiteSpace.Split(text, -1)), Bytes: len(text)}
	first, err := s.prefix()
	if err != nil {
		return l, err
	}
	ids := s.ids(text)
	for at := 0; at < len(ids); {
		n := min(s.length, len(ids)-at)
		from := at - 1 // of the context
		if n < s.length && at > 0 {
			from = max(at+n-s.length-1, 0)
		}
		var window []int
		if at == 0 {
			window = append([]int{first}, ids[:n]...)
			from = -1
		} else {
			window = ids[from : at+n]
		}
		sum, _, err := s.score(ctx, window, at-from)
		if err != nil {
			return l, err
		}
		l.Sum += sum
		at += n
	}
	return l, nil
}
