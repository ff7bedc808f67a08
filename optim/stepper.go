package optim

import (
	"fmt"
	"math"
	"slices"

	"tunesmith/quant"
)

// rule is the formula of one optimizer; the stepper does what all have in common. Exactly one of elements and
// tensor is set.
type rule struct {
	// buffers lists the state of one parameter.
	buffers func(shape []int) []buffer
	// begin, where set, advances what all parameters share to update t = 1, 2, ….
	begin func(t int, lr float64)
	// elements returns the update t of one group, for any part of a parameter: w, g and s are equally long.
	elements func(t int, lr, decay float64) func(w, g []float32, s [][]float32)
	// tensor returns the update t of one group, for whole parameters.
	tensor func(t int, lr, decay float64) func(p Param, s [][]float32)
	// carried are the numbers that begin changes, by name.
	carried map[string]*float64
	// average, where set, computes the weights to evaluate with from those that are trained.
	average func(dst, w []float32, s [][]float32)
}

// buffer describes one tensor of state: filled with a value, or a copy of the parameter.
type buffer struct {
	name  string
	shape []int
	fill  float32
	copy  bool
	book  *quant.Book8 // of a buffer that is kept in 8 bits; it starts at zero
}

func (b buffer) len() int { return size(b.shape) }

// like lists buffers of the parameter's own shape, filled with zeros.
func like(names ...string) func(shape []int) []buffer {
	return func(shape []int) []buffer {
		var out []buffer
		for _, n := range names {
			out = append(out, buffer{name: n, shape: shape})
		}
		return out
	}
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// stepper runs a rule over parameters.
type stepper struct {
	name     string
	rule     rule
	groups   []Group
	parallel Parallel

	t        int
	params   []Param             // names and shapes, as of the first step
	state    [][][]float32       // by parameter and buffer
	coded    [][]quant.Blockwise // the same, of parameters whose state is in 8 bits
	encode   func(q quant.Blockwise, x []float32)
	spans    []span
	restored *State // waits for the parameters
}

func (s *stepper) Name() string { return s.name }

func (s *stepper) Floats(params []Param) int {
	n := 0
	for _, p := range params {
		for _, b := range s.rule.buffers(p.Shape) {
			n += b.floats()
		}
	}
	return n
}

func (s *stepper) Step(params []Param, lr float64) error {
	if err := s.bind(params); err != nil {
		return fmt.Errorf("optimizer %s: %w", s.name, err)
	}
	if !(lr >= 0) || math.IsInf(lr, 1) {
		return fmt.Errorf("optimizer %s: learning rate: want a number >= 0, have %v", s.name, lr)
	}
	for _, p := range params {
		if len(p.Grad) != len(p.Value) {
			return fmt.Errorf("optimizer %s: parameter %s: want %d gradients, have %d", s.name, p.Name, len(p.Value), len(p.Grad))
		}
	}
	s.t++
	if s.rule.begin != nil {
		s.rule.begin(s.t, lr)
	}
	if s.rule.tensor != nil {
		updates := make([]func(Param, [][]float32), len(s.groups))
		for i, g := range s.groups {
			updates[i] = s.rule.tensor(s.t, lr*g.LRScale, g.WeightDecay)
		}
		for i, p := range params {
			updates[p.Group](p, s.state[i])
		}
		return nil
	}
	updates := make([]func(w, g []float32, s [][]float32), len(s.groups))
	for i, g := range s.groups {
		updates[i] = s.rule.elements(s.t, lr*g.LRScale, g.WeightDecay)
	}
	s.parallel(len(s.spans), func(lo, hi int) {
		var parts [4][]float32
		var space []float32
		for _, sp := range s.spans[lo:hi] {
			p := params[sp.param]
			if n := len(s.coded[sp.param]); n > 0 {
				if space == nil {
					space = make([]float32, len(parts)*chunk)
				}
				s.updateCoded(sp, func(state [][]float32) { updates[p.Group](p.Value[sp.lo:sp.hi], p.Grad[sp.lo:sp.hi], state) }, space)
				continue
			}
			state := parts[:0]
			for _, b := range s.state[sp.param] {
				state = append(state, b[sp.lo:sp.hi])
			}
			updates[p.Group](p.Value[sp.lo:sp.hi], p.Grad[sp.lo:sp.hi], state)
		}
	})
	return nil
}

// bind checks the parameters, and makes or restores their state at the first step.
func (s *stepper) bind(params []Param) error {
	for i, p := range params {
		if n := size(p.Shape); len(p.Value) != n {
			return fmt.Errorf("parameter %s: shape %v has %d elements, have %d values", p.Name, p.Shape, n, len(p.Value))
		}
		if p.Group < 0 || p.Group >= len(s.groups) {
			return fmt.Errorf("parameter %s: want a group below %d, have %d", p.Name, len(s.groups), p.Group)
		}
		if s.params != nil && (i >= len(s.params) || s.params[i].Name != p.Name || !slices.Equal(s.params[i].Shape, p.Shape)) {
			return fmt.Errorf("parameter %s %v: not the list of the first step; make a new optimizer where other parameters train", p.Name, p.Shape)
		}
	}
	if s.params != nil {
		if len(params) != len(s.params) {
			return fmt.Errorf("want the %d parameters of the first step, have %d", len(s.params), len(params))
		}
		return nil
	}
	if err := s.allocate(params); err != nil {
		return err
	}
	s.restored, s.spans = nil, spans(params)
	s.params = make([]Param, len(params))
	for i, p := range params {
		s.params[i] = Param{Name: p.Name, Shape: slices.Clone(p.Shape)}
	}
	return nil
}

// allocate makes the state, with the numbers of a restored one where there is one.
func (s *stepper) allocate(params []Param) error {
	type key struct{ param, name string }
	saved := map[key]StateTensor{}
	if s.restored != nil {
		for _, t := range s.restored.Tensors {
			saved[key{t.Param, t.Name}] = t
		}
	}
	state, coded := make([][][]float32, len(params)), make([][]quant.Blockwise, len(params))
	seen := map[string]bool{}
	used := 0
	for i, p := range params {
		if seen[p.Name] {
			return fmt.Errorf("parameter %s: two have this name", p.Name)
		}
		seen[p.Name] = true
		// from returns the saved tensor of a buffer, nil where the state is new.
		from := func(b buffer) (*StateTensor, error) {
			if s.restored == nil {
				return nil, nil
			}
			t, ok := saved[key{p.Name, b.name}]
			n := len(t.Data) + len(t.Codes)
			switch {
			case !ok:
				return nil, fmt.Errorf("parameter %s: the saved state has no %s; it belongs to another optimizer or other parameters", p.Name, b.name)
			case !slices.Equal(t.Shape, b.shape) || n != b.len() || (b.book == nil) != (t.Codes == nil):
				return nil, fmt.Errorf("parameter %s: saved %s: want shape %v, have %v with %d elements", p.Name, b.name, b.shape, t.Shape, n)
			}
			used++
			return &t, nil
		}
		for _, b := range s.rule.buffers(p.Shape) {
			if b.book != nil {
				q, err := b.coded(from)
				if err != nil {
					return err
				}
				coded[i] = append(coded[i], q)
				continue
			}
			t, err := from(b)
			if err != nil {
				return err
			}
			data := make([]float32, b.len())
			switch {
			case t != nil:
				copy(data, t.Data)
			case b.copy:
				copy(data, p.Value)
			case b.fill != 0:
				for j := range data {
					data[j] = b.fill
				}
			}
			state[i] = append(state[i], data)
		}
	}
	if s.restored != nil && used != len(s.restored.Tensors) {
		return fmt.Errorf("the saved state has %d tensors, of which %d belong to the parameters", len(s.restored.Tensors), used)
	}
	s.state, s.coded = state, coded
	return nil
}

// averaging is a stepper whose rule has weights of its own for evaluation.
type averaging struct{ *stepper }

func (a averaging) Average(params []Param, dst [][]float32) error {
	if err := a.bind(params); err != nil {
		return fmt.Errorf("optimizer %s: %w", a.name, err)
	}
	if len(dst) != len(params) {
		return fmt.Errorf("optimizer %s: want %d slices to write to, have %d", a.name, len(params), len(dst))
	}
	for i, p := range params {
		if len(dst[i]) != len(p.Value) {
			return fmt.Errorf("optimizer %s: parameter %s: want %d elements to write to, have %d", a.name, p.Name, len(p.Value), len(dst[i]))
		}
		a.rule.average(dst[i], p.Value, a.state[i])
	}
	return nil
}

func (s *stepper) State() State {
	if s.restored != nil {
		return *s.restored
	}
	out := State{Counters: map[string]int64{"step": int64(s.t)}}
	for name, v := range s.rule.carried {
		out.Counters[name+"_bits"] = int64(math.Float64bits(*v))
	}
	for i, p := range s.params {
		for j, b := range s.rule.buffers(p.Shape) {
			if b.book == nil {
				out.Tensors = append(out.Tensors, StateTensor{Param: p.Name, Name: b.name, Shape: b.shape, Data: s.state[i][j]})
				continue
			}
			q, scales := s.coded[i][j], b.scales()
			out.Tensors = append(out.Tensors, StateTensor{Param: p.Name, Name: b.name, Shape: b.shape, Codes: q.Codes},
				StateTensor{Param: p.Name, Name: scales.name, Shape: scales.shape, Data: q.Absmax})
		}
	}
	return out
}

func (s *stepper) Restore(st State) error {
	t, ok := st.Counters["step"]
	if !ok || t < 0 {
		return fmt.Errorf("optimizer %s: the saved state has no step", s.name)
	}
	for name := range s.rule.carried {
		if _, ok := st.Counters[name+"_bits"]; !ok {
			return fmt.Errorf("optimizer %s: the saved state has no %s; it belongs to another optimizer", s.name, name)
		}
	}
	for name, v := range s.rule.carried {
		*v = math.Float64frombits(uint64(st.Counters[name+"_bits"]))
	}
	s.t, s.params, s.state, s.coded = int(t), nil, nil, nil
	if t == 0 {
		s.restored = nil
		return nil
	}
	c := State{Counters: map[string]int64{}}
	for name, v := range st.Counters {
		c.Counters[name] = v
	}
	for _, t := range st.Tensors {
		c.Tensors = append(c.Tensors, StateTensor{t.Param, t.Name, slices.Clone(t.Shape), slices.Clone(t.Data), slices.Clone(t.Codes)})
	}
	s.restored = &c
	return nil
}
