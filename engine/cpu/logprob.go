package cpu

import (
	"math"

	"tunesmith/graph"
)

// The vocabulary's product goes over tiles of the vocabulary, for the positions with a target only: a worker has
// some of the positions and for each a running maximum, sum and weighted sum of the vocabulary's rows, as flash
// attention has. So no more logits than a tile are held, the vocabulary is read once, and the gradient of the hidden
// states is there at the end of the forward pass: J = W[target] − softmax·W.
//
// Legend of shapes: N positions, R positions with a target, C channels, V vocabulary.

const (
	vocabTile = 512 // columns of logits that are held
	headRows  = 512 // rows of them, by worker
)

// head is a TokenLogProb with what its gradient takes over from it.
type head struct {
	op      graph.TokenLogProb
	n, c, v int
	h, w    *value
	targets *value
	bias    *value // nil for none
	wantJ   bool
	j       *value // (R, C), where wanted
	lse     *value // (R)
	active  []int32
	count   int // R of this run
	rows    []headRow
	compact *value // h of the active rows
}

// headRow is the running state of a position.
type headRow struct {
	top          float32
	sum, total   float64 // of e^(z − top); of z
	target, tilt float32 // logit of the target and its slope
	targetID     int32
}

func (p *planner) newHead(op graph.TokenLogProb, in []*graph.Node) *head {
	t := &head{op: op, n: in[0].Dim(0), c: in[0].Dim(1), v: in[1].Dim(0)}
	t.active, t.rows = make([]int32, t.n), make([]headRow, t.n)
	p.intSize += 9 * t.n
	t.compact, t.lse = p.temporary(t.n*t.c), p.temporary(t.n)
	return t
}

// ask asks for the inputs.
func (p *planner) askHead(t *head, in []*graph.Node) {
	p.checkRange("target", in[2], -1, t.v)
	t.h, t.w, t.targets = p.use(in[0]), p.use(in[1]), p.use(in[2])
	if len(in) > 3 {
		t.bias = p.use(in[3])
	}
}

func (t *head) inputs() []*value {
	in := []*value{t.h, t.w}
	if t.bias != nil {
		in = append(in, t.bias)
	}
	return in
}

func (t *head) scratch(workers int) int {
	return min(headRows, (t.n+workers-1)/workers) * vocabTile
}

func (p *planner) lowerTokenLogProb(n *graph.Node, op graph.TokenLogProb) error {
	t := p.heads[n]
	if t == nil {
		t = p.newHead(op, n.In)
	}
	p.askHead(t, n.In)
	logp, mean := p.wanted(n, 0), p.wanted(n, 1)
	in := &instr{node: n, in: t.inputs(), scratch: t.scratch(p.Workers)}
	for _, v := range []*value{logp, mean} {
		if v != nil {
			in.out = append(in.out, v)
		}
	}
	in.out = append(in.out, t.compact, t.lse)
	if t.wantJ {
		in.out = append(in.out, t.j)
	}
	in.bind = func(prog *program) []phase {
		return append(t.forward(prog), func(worker, workers int) {
			if worker == 0 {
				t.results(logp, mean)
			}
		})
	}
	p.emit(in)
	return nil
}

// forward finds the active rows and runs over the vocabulary.
func (t *head) forward(prog *program) []phase {
	h, compact, targets := t.h.f(), t.compact.f(), t.targets.i()
	return []phase{
		func(worker, workers int) {
			if worker > 0 {
				return
			}
			t.count = 0
			for i, y := range targets[:t.n] {
				if y >= 0 {
					t.active[t.count] = int32(i)
					t.rows[t.count] = headRow{top: float32(math.Inf(-1)), targetID: y}
					t.count++
				}
			}
		},
		func(worker, workers int) {
			lo, hi := share(t.count, 1, worker, workers)
			for r := lo; r < hi; r++ {
				at := int(t.active[r])
				copy(compact[r*t.c:(r+1)*t.c], h[at*t.c:])
			}
			for r := lo; r < hi; r += headRows {
				t.forwardRows(r, min(r+headRows, hi), prog.scratch(worker))
			}
		},
	}
}

// logits computes the tile v0 … v1−1 of the rows, with their scale and limit.
func (t *head) logits(z []float32, r0, r1, v0, v1 int) {
	w := t.w.f()
	width := v1 - v0
	multiply(z, width, t.compact.f()[r0*t.c:], t.c, 1, w[v0*t.c:], 1, t.c, 0, r1-r0, 0, width, t.c, 1, false)
	for r := range r1 - r0 {
		z := z[r*width : (r+1)*width]
		if t.bias != nil {
			accumulate(z, t.bias.f()[v0:v1])
		}
		if t.op.Scale != 1 {
			affine(z, z, t.op.Scale, 0)
		}
		if limit := t.op.Softcap; limit != 0 {
			for i, x := range z {
				z[i] = limit * float32(math.Tanh(float64(x/limit)))
			}
		}
	}
}

// slope is the derivative of a logit with respect to h·w + bias.
func (t *head) slope(z float32) float32 {
	if t.op.Softcap == 0 {
		return t.op.Scale
	}
	y := z / t.op.Softcap
	return t.op.Scale * (1 - y*y)
}

func (t *head) forwardRows(r0, r1 int, scratch []float32) {
	var j []float32
	if t.wantJ {
		j = t.j.f()[r0*t.c : r1*t.c]
		clear(j)
	}
	for v0 := 0; v0 < t.v; v0 += vocabTile {
		v1 := min(v0+vocabTile, t.v)
		width := v1 - v0
		z := scratch[:(r1-r0)*width]
		t.logits(z, r0, r1, v0, v1)
		for r := r0; r < r1; r++ {
			z := z[(r-r0)*width : (r-r0+1)*width]
			row := &t.rows[r]
			top := row.top
			for _, x := range z {
				top = max(top, x)
				row.total += float64(x)
			}
			if y := int(row.targetID) - v0; y >= 0 && y < width {
				row.target, row.tilt = z[y], t.slope(z[y])
			}
			if top > row.top {
				f := math.Exp(float64(row.top - top))
				row.sum *= f
				if t.wantJ && v0 > 0 {
					affine(j[(r-r0)*t.c:(r-r0+1)*t.c], j[(r-r0)*t.c:(r-r0+1)*t.c], float32(f), 0)
				}
				row.top = top
			}
			for i, x := range z {
				e := math.Exp(float64(x - top))
				row.sum += e
				z[i] = float32(e) * t.slope(x)
			}
		}
		if t.wantJ {
			multiply(j, t.c, z, width, 1, t.w.f()[v0*t.c:], t.c, 1, 0, r1-r0, 0, t.c, width, 1, true)
		}
	}
	w, lse := t.w.f(), t.lse.f()
	for r := r0; r < r1; r++ {
		row := t.rows[r]
		lse[r] = float32(float64(row.top) + math.Log(row.sum))
		if t.wantJ {
			j, w := j[(r-r0)*t.c:(r-r0+1)*t.c], w[int(row.targetID)*t.c:]
			f := float32(1 / row.sum)
			for i, x := range j {
				j[i] = row.tilt*w[i] - x*f
			}
		}
	}
}

// results writes the log-probabilities to their positions.
func (t *head) results(logp, mean *value) {
	for i, v := range []*value{logp, mean} {
		if v == nil {
			continue
		}
		to := v.f()
		clear(to)
		for r, at := range t.active[:t.count] {
			row := t.rows[r]
			lse := float64(row.top) + math.Log(row.sum)
			if i == 0 {
				to[at] = float32(float64(row.target) - lse)
			} else {
				to[at] = float32(row.total/float64(t.v) - lse)
			}
		}
	}
}

// partner returns the TokenLogProb of the same inputs, nil where none is computed.
func (p *planner) partner(in []*graph.Node) *graph.Node {
	for _, n := range p.g.Nodes {
		if _, ok := n.Op.(graph.TokenLogProb); ok && p.uses[n.ID] > 0 && len(n.In) == len(in) {
			same := true
			for i := range in {
				same = same && n.In[i] == in[i]
			}
			if same {
				return n
			}
		}
	}
	return nil
}

func (p *planner) lowerTokenLogProbGrad(n *graph.Node, op graph.TokenLogProbGrad) error {
	dlogp := p.use(n.In[0])
	in := n.In[1:]
	var dmean *value
	if op.Smooth {
		dmean, in = p.use(in[0]), in[1:]
	}
	dh, dw, db := p.wanted(n, 0), p.wanted(n, 1), p.wanted(n, 2)
	t := p.newHead(op.TokenLogProb, in)
	forward := p.partner(in)
	if forward != nil {
		p.heads[forward] = t
		p.result(forward, 0)
		if dh != nil && dw == nil && db == nil && !op.Smooth {
			t.wantJ, t.j = true, p.temporary(t.n*t.c)
			p.emit(t.scaleJ(n, dlogp, dh))
			return nil
		}
	}
	p.askHead(t, in)
	ins := &instr{node: n, in: append(t.inputs(), dlogp), scratch: t.scratch(p.Workers)}
	if dmean != nil {
		ins.in = append(ins.in, dmean)
	}
	if forward == nil {
		ins.temp = append(ins.temp, t.compact, t.lse)
	} else {
		ins.in = append(ins.in, t.compact, t.lse)
	}
	for _, v := range []*value{dh, dw, db} {
		if v != nil {
			ins.out = append(ins.out, v)
		}
	}
	tile, dhc := p.temporary(t.n*vocabTile), p.temporary(t.n*t.c)
	ins.temp = append(ins.temp, tile, dhc)
	ins.bind = func(prog *program) []phase {
		var phases []phase
		if forward == nil {
			phases = t.forward(prog)
		}
		return append(phases, t.backward(dlogp, dmean, dh, dw, db, tile, dhc)...)
	}
	p.emit(ins)
	return nil
}

// scaleJ is the gradient of the hidden states where J is there already.
func (t *head) scaleJ(n *graph.Node, dlogp, dh *value) *instr {
	return &instr{node: n, in: []*value{dlogp, t.j}, out: []*value{dh}, bind: func(*program) []phase {
		d, j, dh := dlogp.f(), t.j.f(), dh.f()
		return []phase{
			func(worker, workers int) {
				lo, hi := share(len(dh), grain, worker, workers)
				clear(dh[lo:hi])
			},
			func(worker, workers int) {
				lo, hi := share(t.count, 1, worker, workers)
				for r := lo; r < hi; r++ {
					at := int(t.active[r])
					affine(dh[at*t.c:(at+1)*t.c], j[r*t.c:(r+1)*t.c], d[at], 0)
				}
			},
		}
	}}
}

// backward computes the tiles of the logits' gradient from the denominators and multiplies each where it is.
func (t *head) backward(dlogp, dmean, dh, dw, db, tile, dhc *value) []phase {
	phases := []phase{func(worker, workers int) {
		if worker == 0 {
			clear(dhc.f())
		}
	}}
	for v0 := 0; v0 < t.v; v0 += vocabTile {
		v1 := min(v0+vocabTile, t.v)
		width := v1 - v0
		phases = append(phases, func(worker, workers int) {
			lo, hi := share(t.count, 1, worker, workers)
			d := tile.f()
			t.logits(d[lo*width:], lo, hi, v0, v1)
			for r := lo; r < hi; r++ {
				at := t.active[r]
				var m float32
				if dmean != nil {
					m = dmean.f()[at]
				}
				t.gradRow(d[r*width:(r+1)*width], r, v0, dlogp.f()[at], m)
			}
		}, func(worker, workers int) {
			d := tile.f()
			if dh != nil {
				lo, hi := share(t.count, 1, worker, workers)
				multiply(dhc.f(), t.c, d, width, 1, t.w.f()[v0*t.c:], t.c, 1, lo, hi, 0, t.c, width, 1, true)
			}
			lo, hi := share(width, 4, worker, workers)
			if dw != nil {
				multiply(dw.f()[v0*t.c:], t.c, d, 1, width, t.compact.f(), t.c, 1, lo, hi, 0, t.c, t.count, 1, false)
			}
			if db != nil {
				db := db.f()[v0+lo : v0+hi]
				clear(db)
				for r := range t.count {
					accumulate(db, d[r*width+lo:])
				}
			}
		})
	}
	if dh != nil {
		phases = append(phases, func(worker, workers int) {
			lo, hi := share(dh.size, grain, worker, workers)
			clear(dh.f()[lo:hi])
		}, func(worker, workers int) {
			lo, hi := share(t.count, 1, worker, workers)
			for r := lo; r < hi; r++ {
				at := int(t.active[r])
				copy(dh.f()[at*t.c:(at+1)*t.c], dhc.f()[r*t.c:])
			}
		})
	}
	return phases
}

// gradRow turns a row of logits into their gradient times their slope.
func (t *head) gradRow(z []float32, r, v0 int, dlogp, dmean float32) {
	lse := t.lse.f()[r]
	y := int(t.rows[r].targetID) - v0
	each := dmean / float32(t.v)
	for i, x := range z {
		d := each - (dlogp+dmean)*float32(math.Exp(float64(x-lse)))
		if i == y {
			d += dlogp
		}
		z[i] = d * t.slope(x)
	}
}
