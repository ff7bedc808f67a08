// Package cpu runs graphs on the processor. A program is planned whole before it runs: which values share memory,
// where each lies in one arena, which element functions and products become one instruction. It runs on one worker
// per core; a worker's share of an instruction is a fixed range, and no sum depends on how the ranges fall, so that
// the bits of a result are the same for any number of workers.
package cpu

import (
	"errors"
	"runtime"
	"sync"

	"tunesmith/engine"
	"tunesmith/engine/cpu/kernel"
)

func init() {
	engine.Register("cpu", func(o engine.Options) (engine.Backend, error) { return open(o) })
}

// backend is what the programs of one engine share: threads, packed weights, and working memory.
type backend struct {
	engine.Options
	pool    *pool
	weights weights

	mu     sync.Mutex // one program runs at a time
	closed bool

	// Working memory, as large as the largest program needs, and the program whose instructions are bound to it. A
	// program that runs after another binds itself anew.
	arena   []float32
	scratch [][]float32 // by worker
	current *program
}

func open(o engine.Options) (*backend, error) {
	if err := kernel.Err(); err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	b := &backend{Options: o, pool: newPool(o.Workers), scratch: make([][]float32, o.Workers)}
	b.weights.format = kernel.F32
	if o.Precision != engine.FP32 {
		b.weights.format = kernel.MixedFormat()
	}
	return b, nil
}

// Name implements engine.Backend.
func (b *backend) Name() string { return "cpu/" + string(kernel.Active()) }

// Close implements engine.Backend.
func (b *backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.pool.close()
		b.arena, b.scratch, b.current = nil, nil, nil
	}
	return nil
}

var errClosed = errors.New("the engine is closed")

// reserve makes the working memory at least as large as asked, and unbinds the program that uses it.
func (b *backend) reserve(arena, scratch int) {
	if b.current != nil {
		b.current.phases = nil
		b.current = nil
	}
	if len(b.arena) < arena {
		if b.arena != nil {
			b.arena = nil
			runtime.GC() // the old one makes room for the new one
		}
		b.arena = aligned(arena)
	}
	for i := range b.scratch {
		if len(b.scratch[i]) < scratch {
			b.scratch[i] = nil
			b.scratch[i] = aligned(scratch)
		}
	}
}
