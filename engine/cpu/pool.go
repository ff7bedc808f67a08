package cpu

import (
	"math"
	"sync"
	"sync/atomic"
	"unsafe"
)

// phase is a worker's share of a piece of work. All workers end a phase before any begins the next.
type phase func(worker, workers int)

// pool is the workers: goroutines that live as long as the engine. The caller of run is worker 0.
type pool struct {
	workers int
	gate    barrier

	// The work, written by worker 0 before the gate that starts it.
	phases []phase
	stop   func() bool  // asked by worker 0 after each phase
	last   atomic.Int64 // the phase after which it said true; read by others while worker 0 may be a phase ahead
	quit   bool
}

func newPool(workers int) *pool {
	p := &pool{workers: workers}
	p.gate.init(workers)
	for w := 1; w < workers; w++ {
		go func() {
			for {
				p.gate.wait()
				if p.quit {
					return
				}
				p.work(w)
			}
		}()
	}
	return p
}

// run runs the phases in their order; where stop says true after one, the rest is left out.
func (p *pool) run(phases []phase, stop func() bool) {
	p.phases, p.stop = phases, stop
	p.last.Store(math.MaxInt64)
	p.gate.wait()
	p.work(0)
	p.phases, p.stop = nil, nil
}

func (p *pool) work(worker int) {
	for i, f := range p.phases {
		f(worker, p.workers)
		if worker == 0 && p.stop != nil && p.stop() {
			p.last.Store(int64(i))
		}
		p.gate.wait()
		if int64(i) >= p.last.Load() {
			break
		}
	}
	p.gate.wait() // nobody reads the work of this run any more
}

func (p *pool) close() {
	p.quit = true
	p.gate.wait()
}

// barrier lets its parties go on when all have come. Waiting, a party spins for the length of a short phase, then
// sleeps.
type barrier struct {
	parties int32
	come    atomic.Int32
	round   atomic.Uint32
	mu      sync.Mutex
	next    sync.Cond
}

const spins = 20000

func (b *barrier) init(parties int) {
	b.parties = int32(parties)
	b.next.L = &b.mu
}

func (b *barrier) wait() {
	round := b.round.Load()
	if b.come.Add(1) == b.parties {
		b.come.Store(0)
		b.mu.Lock()
		b.round.Add(1)
		b.mu.Unlock()
		b.next.Broadcast()
		return
	}
	for range spins {
		if b.round.Load() != round {
			return
		}
	}
	b.mu.Lock()
	for b.round.Load() == round {
		b.next.Wait()
	}
	b.mu.Unlock()
}

// share returns a worker's range of n things that come in grains, the same for the same numbers.
func share(n, grain, worker, workers int) (lo, hi int) {
	grains := (n + grain - 1) / grain
	return min(grains*worker/workers*grain, n), min(grains*(worker+1)/workers*grain, n)
}

// align is the number of floats of a cache line, on which buffers begin.
const align = 16

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// aligned returns n zeros that begin at a cache line.
func aligned(n int) []float32 {
	if n == 0 {
		return nil
	}
	s := make([]float32, n+align-1)
	off := 0
	if r := uintptr(unsafe.Pointer(&s[0])) / 4 % align; r != 0 {
		off = align - int(r)
	}
	s = s[off : off+n : off+n]
	preferHugePages(s)
	return s
}
