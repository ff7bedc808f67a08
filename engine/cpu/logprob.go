package cpu

import (
	"math"

	"tunesmith/engine/cpu/kernel"
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
	headRows  = 256 // rows of them, by worker
)

// head is a TokenLogProb with what its gradient takes over from it.
type head struct {
	op      graph.TokenLogProb
	n, c, v int
	h       *value
	w       vocabulary
	targets *value
	bias    *value // nil for none
	mean    bool   // the mean of the logits is asked for
	j       *value // (R, C); nil where nothing asks for it
	lse     *value // (R)
	compact *value // h of the active rows

	active []int32
	count  int // R of this run
	rows   []headRow
}

// headRow is the running state of a position.
type headRow struct {
	top          float32
	target, tilt float32 // logit of the target and its slope
	id           int32   // of the target
	sum, total   float64 // of e^(z − top); of z
}

const headRowWords = 8 // of 4 bytes

func (p *planner) newHead(op graph.TokenLogProb, in []*graph.Node) *head {
	t := &head{op: op, n: in[0].Dim(0), c: in[0].Dim(1), v: in[1].Dim(0)}
	t.active, t.rows = make([]int32, t.n), make([]headRow, t.n)
	p.ownSize += (1 + headRowWords) * t.n
	t.compact, t.lse = p.temporary(t.n*t.c), p.temporary(t.n)
	return t
}

// ask asks for the inputs and returns what is read.
func (t *head) ask(p *planner, in []*graph.Node) (read []*value, err error) {
	p.checkRange("target", in[2], -1, t.v)
	t.h, t.targets = p.use(in[0]), p.use(in[2])
	read = []*value{t.h}
	if t.w, err = p.vocabulary(in[1]); t.w.value != nil {
		read = append(read, t.w.value)
	}
	if len(in) > 3 {
		t.bias = p.use(in[3])
		read = append(read, t.bias)
	}
	return read, err
}

// scratch is a worker's: a tile of logits, the left operand of theirs, and what the products need.
func (t *head) scratch(workers int) int {
	rows := min(headRows, (t.n+workers-1)/workers)
	return rows*vocabTile + t.w.leftScratch(rows) + t.w.productScratch(rows)
}

// buffers is scratch cut up.
type buffers struct{ logits, left, product []float32 }

func (t *head) buffers(scratch []float32, rows int) buffers {
	cut := func(n int) []float32 {
		part := scratch[:n]
		scratch = scratch[n:]
		return part
	}
	return buffers{cut(rows * vocabTile), cut(t.w.leftScratch(rows)), scratch}
}

func (p *planner) lowerTokenLogProb(n *graph.Node, op graph.TokenLogProb) error {
	t := p.heads[n]
	if t == nil {
		t = p.newHead(op, n.In)
	}
	read, err := t.ask(p, n.In)
	if err != nil {
		return err
	}
	logp, mean := p.wanted(n, 0), p.wanted(n, 1)
	t.mean = mean != nil
	in := &instr{node: n, in: read, out: []*value{t.compact, t.lse}, scratch: t.scratch(p.Workers)}
	for _, v := range []*value{logp, mean, t.j} {
		if v != nil {
			in.out = append(in.out, v)
		}
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
					t.rows[t.count] = headRow{top: float32(math.Inf(-1)), id: y}
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

// logits computes the tile v0 … v1−1, with its scale and limit.
func (t *head) logits(z []float32, x leftRows, v0, v1 int, scratch []float32) {
	t.w.logits(z, x, v0, v1, scratch)
	width := v1 - v0
	for r := range x.rows {
		z := z[r*width : (r+1)*width]
		if t.bias != nil {
			kernel.Add(z, z, t.bias.f()[v0:v1])
		}
		if t.op.Scale != 1 {
			kernel.Scale(z, z, t.op.Scale)
		}
		if limit := t.op.Softcap; limit != 0 {
			kernel.Scale(z, z, 1/limit)
			kernel.Tanh(z, z)
			kernel.Scale(z, z, limit)
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
	if t.j != nil {
		j = t.j.f()[r0*t.c : r1*t.c]
		clear(j)
	}
	b := t.buffers(scratch, r1-r0)
	x := t.w.left(t.compact.f()[r0*t.c:r1*t.c], r1-r0, b.left)
	for v0 := 0; v0 < t.v; v0 += vocabTile {
		v1 := min(v0+vocabTile, t.v)
		width := v1 - v0
		z := b.logits[:(r1-r0)*width]
		t.logits(z, x, v0, v1, b.product)
		for r := r0; r < r1; r++ {
			at := r - r0
			row := t.rows[r].fold(t, z[at*width:(at+1)*width], v0)
			if row != 1 && j != nil && v0 > 0 {
				kernel.Scale(j[at*t.c:(at+1)*t.c], j[at*t.c:(at+1)*t.c], row)
			}
		}
		if j != nil {
			t.w.weighted(j, z, r1-r0, v0, v1, b.product)
		}
	}
	lse := t.lse.f()
	for r := r0; r < r1; r++ {
		row := t.rows[r]
		lse[r] = float32(float64(row.top) + math.Log(row.sum))
		if j != nil {
			j, w := j[(r-r0)*t.c:(r-r0+1)*t.c], scratch[:t.c]
			t.w.row(w, int(row.id))
			kernel.Scale(j, j, float32(-1/row.sum))
			kernel.Axpy(j, w, row.tilt)
		}
	}
}

// fold takes a tile of logits into the row's state, turns them into e^(z − top) times their slope where J is asked
// for, and returns the factor of what was added up before.
func (row *headRow) fold(t *head, z []float32, v0 int) (factor float32) {
	if y := int(row.id) - v0; y >= 0 && y < len(z) {
		row.target, row.tilt = z[y], t.slope(z[y])
	}
	if t.mean {
		row.total += kernel.Sum(z)
	}
	factor = 1
	if top := kernel.Max(z); top > row.top {
		f := math.Exp(float64(row.top - top))
		row.sum *= f
		row.top, factor = top, float32(f)
	}
	if t.op.Softcap == 0 || t.j == nil {
		kernel.ExpSub(z, z, row.top, 1)
		row.sum += kernel.Sum(z)
		if t.op.Scale != 1 && t.j != nil {
			kernel.Scale(z, z, t.op.Scale)
		}
		return factor
	}
	for i, x := range z {
		e := math.Exp(float64(x - row.top))
		row.sum += e
		z[i] = float32(e) * t.slope(x)
	}
	return factor
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
			t.j = p.temporary(t.n * t.c)
			p.emit(t.scaleJ(n, dlogp, dh))
			return nil
		}
	}
	read, err := t.ask(p, in)
	if err != nil {
		return err
	}
	ins := &instr{node: n, in: append(read, dlogp), scratch: t.scratch(p.Workers)}
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
	tile := p.temporary(t.n * vocabTile)
	ins.temp = append(ins.temp, tile)
	var dhc *value // dh of the active rows
	if dh != nil {
		dhc = p.temporary(t.n * t.c)
		ins.temp = append(ins.temp, dhc)
	}
	ins.bind = func(prog *program) []phase {
		var phases []phase
		if forward == nil {
			phases = t.forward(prog)
		}
		return append(phases, t.backward(prog, dlogp, dmean, dh, dw, db, tile, dhc)...)
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
					kernel.Scale(dh[at*t.c:(at+1)*t.c], j[r*t.c:(r+1)*t.c], d[at])
				}
			},
		}
	}}
}

// backward computes the tiles of the logits' gradient from the denominators and multiplies each where it is.
func (t *head) backward(prog *program, dlogp, dmean, dh, dw, db, tile, dhc *value) []phase {
	var phases []phase
	if dh != nil {
		phases = append(phases, func(worker, workers int) {
			lo, hi := share(t.count, 1, worker, workers)
			clear(dhc.f()[lo*t.c : hi*t.c])
		})
	}
	for v0 := 0; v0 < t.v; v0 += vocabTile {
		v1 := min(v0+vocabTile, t.v)
		width := v1 - v0
		phases = append(phases, func(worker, workers int) {
			lo, hi := share(t.count, 1, worker, workers)
			d := tile.f()
			for r := lo; r < hi; r += headRows {
				t.gradRows(r, min(r+headRows, hi), v0, v1, d, dlogp, dmean, dhc, prog.scratch(worker))
			}
		})
		if dw == nil && db == nil {
			continue
		}
		phases = append(phases, func(worker, workers int) {
			d := tile.f()
			lo, hi := share(width, 4, worker, workers)
			if dw != nil {
				kernel.MatMul(dw.f()[v0*t.c:], t.c, kernel.RowMajor(d, width).T(), kernel.RowMajor(t.compact.f(), t.c), t.count,
					kernel.Range{M0: lo, M1: hi, N1: t.c}, false, prog.scratch(worker))
			}
			if db != nil {
				db := db.f()[v0+lo : v0+hi]
				clear(db)
				for r := range t.count {
					kernel.Add(db, db, d[r*width+lo:])
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

// gradRows computes a tile of the gradients of rows of logits, times their slopes, and adds its product with W to dh.
func (t *head) gradRows(r0, r1, v0, v1 int, d []float32, dlogp, dmean, dhc *value, scratch []float32) {
	b := t.buffers(scratch, r1-r0)
	width := v1 - v0
	z := d[r0*width : r1*width]
	t.logits(z, t.w.left(t.compact.f()[r0*t.c:r1*t.c], r1-r0, b.left), v0, v1, b.product)
	for r := r0; r < r1; r++ {
		at := t.active[r]
		var m float32
		if dmean != nil {
			m = dmean.f()[at]
		}
		t.gradRow(z[(r-r0)*width:(r-r0+1)*width], r, v0, dlogp.f()[at], m)
	}
	if dhc != nil {
		t.w.weighted(dhc.f()[r0*t.c:r1*t.c], z, r1-r0, v0, v1, b.product)
	}
}

// gradRow turns a row of logits into their gradient times their slope.
func (t *head) gradRow(z []float32, r, v0 int, dlogp, dmean float32) {
	lse := t.lse.f()[r]
	y := int(t.rows[r].id) - v0
	each := dmean / float32(t.v)
	if t.op.Softcap == 0 && t.op.Scale == 1 {
		kernel.ExpSub(z, z, lse, -(dlogp + dmean))
		if each != 0 {
			for i := range z {
				z[i] += each
			}
		}
		if y >= 0 && y < len(z) {
			z[y] += dlogp
		}
		return
	}
	for i, x := range z {
		d := each - (dlogp+dmean)*float32(math.Exp(float64(x-lse)))
		if i == y {
			d += dlogp
		}
		z[i] = d * t.slope(x)
	}
}
