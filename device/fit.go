package device

import (
	"fmt"
	"math"
	"runtime/debug"

	"tunesmith/engine"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// reserve is what a process takes beside its plan: the program, its stacks, tokenizer, data and what the garbage
// collector has not given back yet.
const reserve = 32 << 20

// Fit is how an adaptation was made to fit into memory.
type Fit struct {
	Limit   Limit
	Memory  engine.Memory // planned
	Changes []string      // of the run file, in the form of --set
}

// Total is what the adaptation takes.
func (f Fit) Total() Bytes { return Bytes(f.Memory.Total() + reserve) }

// lean are the changes of a run that save memory, from those that cost nothing to the one that costs most. Each keeps
// what those before it have changed, and none changes what is learned from.
var lean = []struct {
	name   string
	change func(c *tune.Run) bool // reports whether it changed anything
}{
	{"batch_size=1, gradient_accumulation times as many", func(c *tune.Run) bool {
		if c.BatchSize == 1 {
			return false
		}
		c.BatchSize, c.Accumulation = 1, c.BatchSize*c.Accumulation
		return true
	}},
	{"recompute=true", func(c *tune.Run) bool {
		was := c.Recompute
		c.Recompute = true
		return !was
	}},
	{"forward_only=true", func(c *tune.Run) bool {
		was := c.ForwardOnly
		c.ForwardOnly, c.Recompute = true, false
		return !was
	}},
}

// fit plans the run, and leaner forms of it until one keeps the limit, unless the run has begun: then it stays as it is.
// The session that is returned has taken no step.
func (d *Device) fit(c *tune.Run, begun bool, prepare func(*tune.Run) (*trainer.Session, error)) (*trainer.Session, Fit, error) {
	f := Fit{Limit: d.Limit()}
	smallest := Bytes(math.MaxInt64)
	for i := -1; i < len(lean); i++ {
		if i >= 0 {
			if !lean[i].change(c) {
				continue
			}
			f.Changes = append(f.Changes, lean[i].name)
		}
		s, err := prepare(c)
		if err != nil {
			return nil, f, err
		}
		f.Memory = s.Plan()
		if f.Total() <= f.Limit.Bytes {
			debug.SetMemoryLimit(int64(f.Limit.Bytes))
			return s, f, nil
		}
		smallest = min(smallest, f.Total())
		if err := s.Close(); err != nil {
			return nil, f, err
		}
		if begun {
			break
		}
	}
	m := f.Memory
	err := fmt.Errorf("%w: the leanest plan needs %s (weights %s, trained %s, activations %s, workspace %s, program %s), the limit is %s; raise it to %s, choose a smaller base, or lower max_length from %d",
		ErrMemory, smallest, Bytes(m.Weights), Bytes(m.Trainable), Bytes(m.Activations), Bytes(m.Workspace), Bytes(reserve), f.Limit, smallest, c.MaxLength)
	return nil, f, err
}
