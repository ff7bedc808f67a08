package cpu

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/internal/nearest"
)

// program implements engine.Program.
type program struct {
	backend *backend
	instrs  []*instr
	prepare []func()
	checks  []func() error
	feeds   map[string]*feed
	outputs map[string]*value
	values  []*value // roots in the arena and in the outputs' memory
	tensors []*engine.Tensor
	stored  map[*engine.Tensor]*value
	storage map[*engine.Tensor]bool
	states  map[*engine.Tensor]bool
	forms   []*form

	arenaSize, outputSize, scratchSize, ownSize int // floats

	outputMemory []float32
	phases       []phase // bound to the backend's memory, nil where it is not
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Run implements engine.Program.
func (p *program) Run(ctx context.Context, in engine.Feeds) error {
	b := p.backend
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	if err := p.check(in); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.refresh()
	p.packStale()
	if p.phases == nil {
		p.bind()
	}
	for name, f := range p.feeds {
		if v, ok := in[name].([]float32); ok && f.value != nil {
			copy(f.value.f(), v)
		}
	}
	b.pool.run(p.phases, func() bool { return ctx.Err() != nil })
	return ctx.Err()
}

// check takes the integers of the feeds and refuses what the program cannot run with.
func (p *program) check(in engine.Feeds) error {
	for _, name := range sortedKeys(in) {
		if p.feeds[name] == nil {
			return fmt.Errorf("feed %q: the graph has no input of that name%s", name, nearest.Hint(name, sortedKeys(p.feeds)))
		}
	}
	for _, name := range sortedKeys(p.feeds) {
		f := p.feeds[name]
		if f.value == nil {
			continue
		}
		fed, ok := in[name]
		if !ok {
			return fmt.Errorf("feed %q: missing", name)
		}
		size := 0
		kind := graph.Float
		switch v := fed.(type) {
		case []float32:
			size = len(v)
		case []int32:
			size, kind = len(v), graph.Int
		default:
			return fmt.Errorf("feed %q: want []float32 or []int32, have %T", name, fed)
		}
		if kind != f.node.Kind() || size != f.node.Size() {
			return fmt.Errorf("feed %q: want %d values of kind %v for shape %v, have %d of kind %v", name, f.node.Size(),
				f.node.Kind(), f.node.Shape(), size, kind)
		}
		if v, ok := fed.([]int32); ok {
			copy(f.value.i(), v)
		}
	}
	for _, f := range p.prepare {
		f()
	}
	for _, f := range p.checks {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// refresh follows tensors whose values were put elsewhere since the last run.
func (p *program) refresh() {
	for t, v := range p.stored {
		if len(t.Values) > 0 && &t.Values[0] != &v.floats[0] {
			v.floats = t.Values
			p.phases = nil
		}
	}
}

// bind gives every value its memory and every instruction its values.
func (p *program) bind() {
	b := p.backend
	b.reserve(p.arenaSize, p.scratchSize)
	for _, v := range p.values {
		memory := b.arena
		if v.class == output {
			memory = p.outputMemory
		}
		v.floats = memory[v.offset : v.offset+v.size]
	}
	p.phases = []phase{func(int, int) {}}
	for _, in := range p.instrs {
		p.phases = append(p.phases, in.bind(p)...)
	}
	b.current = p
}

// scratch returns a worker's own memory, of undefined content.
func (p *program) scratch(worker int) []float32 { return p.backend.scratch[worker] }

// Output implements engine.Program.
func (p *program) Output(name string) []float32 {
	v, ok := p.outputs[name]
	if !ok {
		return nil
	}
	r := v.root()
	return p.outputMemory[r.offset : r.offset+v.size]
}

// Memory implements engine.Program.
func (p *program) Memory() engine.Memory {
	m := engine.Memory{
		Activations: int64(p.arenaSize+p.outputSize+p.ownSize) * 4,
		Workspace:   int64(p.scratchSize*p.backend.Workers) * 4,
	}
	class := func(t *engine.Tensor) *int64 {
		switch {
		case t.Trainable:
			return &m.Trainable
		case p.states[t]:
			return &m.Activations
		}
		return &m.Weights
	}
	for _, t := range p.tensors {
		*class(t) += int64(len(t.Values)) * 4
		if p.storage[t] || t.Release == nil { // else nothing holds the storage in memory between runs
			*class(t) += int64(len(t.Data))
		}
	}
	for _, f := range p.forms {
		*class(f.tensor) += f.bytes()
	}
	return m
}
