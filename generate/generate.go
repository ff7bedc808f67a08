// Package generate continues token sequences with a model: a prefill that reads the prompt in pieces, a key/value
// cache, sampling, and stop rules.
package generate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/site"
)

// chunk is the most positions that one prefill pass reads.
const chunk = 256

// Options say how tokens are chosen and when to stop. The zero value is greedy decoding without end.
type Options struct {
	MaxTokens int    // 0: until a stop rule or the context ends it
	Stop      []int  // token ids that end a row; they are not part of the result
	Seed      uint64 // of the sampling
	Sampling
	// Until is asked after each token of a row, with all tokens of the row so far; true ends the row and drops the
	// token. It serves stop texts.
	Until func(row int, ids []int) bool
	// Emit sees each kept token as soon as it is there.
	Emit func(row, id int)
}

// Why says what ended a row.
type Why string

// The ends of a row.
const (
	Stopped   Why = "stop"    // a stop token or text
	Length    Why = "length"  // MaxTokens
	Exhausted Why = "context" // the model's context is full
)

// Result is a row's continuation.
type Result struct {
	IDs []int
	Why Why
	End int // the stop token that ended the row, 0 where none did
}

// Generator continues prompts with one model and its grafts. It is not safe for concurrent use.
type Generator struct {
	model    *model.Adapted
	backend  engine.Backend
	programs *engine.Cache
	caches   map[string]*engine.Store // by batch and length: the store's tensors and caches of that size
}

// New returns a generator.
func New(m *model.Adapted, backend engine.Backend) *Generator {
	return &Generator{model: m, backend: backend, programs: engine.NewCache(8), caches: map[string]*engine.Store{}}
}

// Generate continues every prompt. A prompt without tokens, or one that leaves no room in the model's context, is an
// error.
func (g *Generator) Generate(ctx context.Context, prompts [][]int, o Options) ([]Result, error) {
	if len(prompts) == 0 {
		return nil, nil
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	longest := 0
	limit := g.model.Config.MaxPositions - g.model.Sites.Prefix
	for i, p := range prompts {
		if len(p) == 0 {
			return nil, fmt.Errorf("prompt %d has no tokens; give it at least a start token", i)
		}
		if len(p) >= limit {
			return nil, fmt.Errorf("prompt %d has %d tokens, the model's context ends at %d", i, len(p), limit)
		}
		longest = max(longest, len(p))
	}
	length := limit
	if o.MaxTokens > 0 {
		length = min(limit, longest+o.MaxTokens)
	}
	b := batch{Generator: g, rows: len(prompts), length: (length+chunk)/chunk*chunk + chunk, o: o}
	if edge := g.model.Config.Rope.Edge() - g.model.Sites.Prefix; edge > 0 && length > edge {
		return b.oneByOne(ctx, prompts, length, edge)
	}
	return b.run(ctx, prompts, length)
}

// oneByOne continues rows whose rotation changes at a length of its own for each of them: a row that comes to the edge
// is read again from its beginning.
func (b *batch) oneByOne(ctx context.Context, prompts [][]int, end, edge int) ([]Result, error) {
	results := make([]Result, len(prompts))
	for i, p := range prompts {
		row := *b
		row.rows, row.edge, row.number = 1, edge, i
		out, err := row.run(ctx, [][]int{p}, end)
		if err != nil {
			return results, err
		}
		results[i] = out[0]
	}
	return results, nil
}

// batch is one call of Generate.
type batch struct {
	*Generator
	rows   int
	length int // of the caches
	o      Options
	// edge is the length of rows up to which the keys of the caches hold, 0 for any; see oneByOne.
	edge   int
	beyond bool // the caches hold the keys of rows longer than that
	number int  // of the first row among all prompts
}

func (b *batch) run(ctx context.Context, prompts [][]int, end int) ([]Result, error) {
	b.beyond = b.edge > 0 && len(prompts[0]) > b.edge
	logits, err := b.prefill(ctx, prompts)
	if err != nil {
		return nil, err
	}
	results := make([]Result, b.rows)
	samplers := make([]*sampler, b.rows)
	ids, start, pos := make([]int32, b.rows), make([]int32, b.rows), make([]int32, b.rows)
	for i, p := range prompts {
		samplers[i] = newSampler(b.o.Sampling, p, rand.New(rand.NewPCG(b.o.Seed, uint64(b.number+i))))
	}
	v := b.model.Config.Vocab
	for {
		open := false
		for i := range results {
			r := &results[i]
			if r.Why != "" {
				continue
			}
			b.next(r, i, samplers[i].pick(logits[i*v:(i+1)*v]), len(prompts[i]), end)
			if r.Why == "" {
				open = true
				n := len(prompts[i]) + len(r.IDs) - 1
				ids[i], start[i], pos[i] = int32(r.IDs[len(r.IDs)-1]), int32(n), int32(n)
			}
		}
		if !open {
			return results, nil
		}
		if b.edge > 0 && !b.beyond && int(pos[0]) >= b.edge {
			b.beyond = true
			if logits, err = b.prefill(ctx, [][]int{slices.Concat(prompts[0], results[0].IDs)}); err != nil {
				return results, err
			}
			continue
		}
		p, err := b.program(1, false)
		if err != nil {
			return nil, err
		}
		last := make([]int32, b.rows)
		for i := range last {
			last[i] = int32(i)
		}
		if err := p.Run(ctx, engine.Feeds{"ids": ids, "positions": pos, "start": start, "last": last}); err != nil {
			return results, err
		}
		logits = p.Output("logits")
	}
}

// next takes a chosen token into a row or ends the row.
func (b *batch) next(r *Result, row, id, prompt, end int) {
	for _, stop := range b.o.Stop {
		if id == stop {
			r.Why, r.End = Stopped, id
			return
		}
	}
	r.IDs = append(r.IDs, id)
	if b.o.Until != nil && b.o.Until(b.number+row, r.IDs) {
		r.IDs, r.Why = r.IDs[:len(r.IDs)-1], Stopped
		return
	}
	if b.o.Emit != nil {
		b.o.Emit(b.number+row, id)
	}
	switch {
	case b.o.MaxTokens > 0 && len(r.IDs) >= b.o.MaxTokens:
		r.Why = Length
	case prompt+len(r.IDs) >= end:
		r.Why = Exhausted
	}
}

// prefill reads the prompts and returns the logits after the last token of each.
func (b *batch) prefill(ctx context.Context, prompts [][]int) ([]float32, error) {
	v := b.model.Config.Vocab
	out := make([]float32, b.rows*v)
	longest := 0
	for _, p := range prompts {
		longest = max(longest, len(p))
	}
	for at := 0; at < longest; at += chunk {
		t := min(chunk, (longest-at+31)/32*32)
		p, err := b.program(t, at == 0)
		if err != nil {
			return nil, err
		}
		ids, pos := make([]int32, b.rows*t), make([]int32, b.rows*t)
		start, last := make([]int32, b.rows), make([]int32, b.rows)
		for i, prompt := range prompts {
			for j := range t {
				if at+j < len(prompt) {
					ids[i*t+j], pos[i*t+j] = int32(prompt[at+j]), int32(at+j)
				}
			}
			start[i] = int32(at)
			last[i] = int32(i*t + min(max(len(prompt)-1-at, 0), t-1))
		}
		if err := p.Run(ctx, engine.Feeds{"ids": ids, "positions": pos, "start": start, "last": last}); err != nil {
			return nil, err
		}
		logits := p.Output("logits")
		for i, prompt := range prompts {
			if n := len(prompt) - 1; n >= at && n < at+t {
				copy(out[i*v:(i+1)*v], logits[i*v:(i+1)*v])
			}
		}
	}
	return out, nil
}

// program returns the compiled pass of t positions a row; the first also puts the virtual positions into the caches.
func (b *batch) program(t int, first bool) (engine.Program, error) {
	size := fmt.Sprintf("%d×%d", b.rows, b.length)
	longest := 0
	if b.beyond {
		longest = b.edge + 1
	}
	return b.programs.Get(fmt.Sprintf("%s/%d/%t/%d", size, t, first, longest), func() (engine.Program, error) {
		var found *site.Map
		g, err := graph.Build(func(g *graph.Graph) {
			s := site.New(g, site.Inputs{
				IDs:       g.Input("ids", graph.Int, b.rows, t),
				Positions: g.Input("positions", graph.Int, b.rows, t),
				Start:     g.Input("start", graph.Int, b.rows),
				CacheLen:  b.length,
				Lead:      first,
				Length:    longest,
			}, b.model.Grafts...)
			h := b.model.Hidden(s)
			last := graph.Rows(graph.Reshape(h, b.rows*t, h.Dim(2)), g.Input("last", graph.Int, b.rows))
			g.Output("logits", b.model.Logits(s, last))
			found = s.Map()
		})
		if err != nil {
			return nil, err
		}
		store, err := b.withCaches(size, found.States)
		if err != nil {
			return nil, err
		}
		return b.backend.Compile(g, store)
	})
}

// withCaches returns the store with caches of one size.
func (b *batch) withCaches(size string, states []site.State) (*engine.Store, error) {
	if s, ok := b.caches[size]; ok {
		return s, nil
	}
	s := engine.NewStore()
	for _, t := range b.model.Store.All() {
		if err := s.Add(t); err != nil {
			return nil, err
		}
	}
	for _, c := range states {
		n := 1
		for _, d := range c.Shape {
			n *= d
		}
		if err := s.Add(&engine.Tensor{Name: c.Name, Shape: c.Shape, Values: make([]float32, n)}); err != nil {
			return nil, err
		}
	}
	b.caches = map[string]*engine.Store{size: s} // only the last size is kept
	return s, nil
}

// NextLogits returns the logits of the token after each prompt.
func (g *Generator) NextLogits(ctx context.Context, prompts [][]int) ([][]float32, error) {
	longest, limit := 0, g.model.Config.MaxPositions-g.model.Sites.Prefix
	for i, p := range prompts {
		if len(p) == 0 || len(p) >= limit {
			return nil, fmt.Errorf("prompt %d has %d tokens: want 1 … %d", i, len(p), limit-1)
		}
		longest = max(longest, len(p))
	}
	b := batch{Generator: g, rows: len(prompts), length: (longest+chunk)/chunk*chunk + chunk}
	logits, err := b.prefill(ctx, prompts)
	if err != nil {
		return nil, err
	}
	v := g.model.Config.Vocab
	out := make([][]float32, len(prompts))
	for i := range out {
		out[i] = logits[i*v : (i+1)*v]
	}
	return out, nil
}
