package reference

import (
	"math"

	"tunesmith/graph"
)

// scores is attention on tensors q (B, T, H, D) and k, v (B, S, G, D).
type scores struct {
	op               graph.Attention
	b, t, s, h, g, d int
	sees             func(b, i, j int) bool // query i sees key j
}

func newScores(op graph.Attention, q, k *graph.Node) scores {
	return scores{op: op, b: q.Dim(0), t: q.Dim(1), s: k.Dim(1), h: q.Dim(2), g: k.Dim(2), d: q.Dim(3)}
}

// trained sets the rule of Attention; segments may be nil.
func (a scores) trained(segments []float64) scores {
	a.sees = func(b, i, j int) bool {
		if j < a.op.Prefix {
			return true
		}
		j -= a.op.Prefix
		return (!a.op.Causal || j <= i) && (a.op.Window <= 0 || j > i-a.op.Window) &&
			(segments == nil || segments[b*a.t+i] == segments[b*a.t+j])
	}
	return a
}

func (a scores) query(b, i, h int) int { return ((b*a.t+i)*a.h + h) * a.d }
func (a scores) key(b, j, h int) int   { return ((b*a.s+j)*a.g + h/(a.h/a.g)) * a.d }

// row returns the probabilities of one query, the slopes of the scores with respect to q·k, and the log of the
// denominator.
func (a scores) row(q, k []float64, b, i, h int) (p, slopes []float64, lse float64) {
	p, slopes = make([]float64, a.s), make([]float64, a.s)
	top := math.Inf(-1)
	for j := range a.s {
		if !a.sees(b, i, j) {
			p[j] = math.Inf(-1)
			continue
		}
		z := 0.0
		for c := range a.d {
			z += q[a.query(b, i, h)+c] * k[a.key(b, j, h)+c]
		}
		z *= float64(a.op.Scale)
		slopes[j] = float64(a.op.Scale)
		if limit := float64(a.op.Softcap); limit > 0 {
			y := math.Tanh(z / limit)
			z = limit * y
			slopes[j] *= 1 - y*y
		}
		p[j] = z
		top = max(top, z)
	}
	for _, z := range p {
		lse += math.Exp(z - top)
	}
	lse = top + math.Log(lse)
	return each(p, func(z float64) float64 { return math.Exp(z - lse) }), slopes, lse
}

func (a scores) rows(f func(b, i, h int)) {
	for b := range a.b {
		for i := range a.t {
			for h := range a.h {
				f(b, i, h)
			}
		}
	}
}

func (a scores) forward(q, k, v []float64) (out, lse []float64) {
	out, lse = make([]float64, len(q)), make([]float64, a.b*a.h*a.t)
	a.rows(func(b, i, h int) {
		p, _, l := a.row(q, k, b, i, h)
		lse[(b*a.h+h)*a.t+i] = l
		for j := range a.s {
			for c := range a.d {
				out[a.query(b, i, h)+c] += p[j] * v[a.key(b, j, h)+c]
			}
		}
	})
	return out, lse
}

func attention(op graph.Attention, n *graph.Node, in [][]float64) [][]float64 {
	var segments []float64
	if len(in) > 3 {
		segments = in[3]
	}
	out, lse := newScores(op, n.In[0], n.In[1]).trained(segments).forward(in[0], in[1], in[2])
	return [][]float64{out, lse}
}

func attentionGrad(op graph.AttentionGrad, n *graph.Node, in [][]float64) [][]float64 {
	var segments []float64
	if len(in) > 6 {
		segments = in[6]
	}
	a := newScores(op.Attention, n.In[1], n.In[2]).trained(segments)
	dout, q, k, v := in[0], in[1], in[2], in[3]
	dq, dk, dv := make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	a.rows(func(b, i, h int) {
		p, slopes, _ := a.row(q, k, b, i, h)
		dp, mean := make([]float64, a.s), 0.0
		at := a.query(b, i, h)
		for j := range a.s {
			for c := range a.d {
				dp[j] += dout[at+c] * v[a.key(b, j, h)+c]
				dv[a.key(b, j, h)+c] += p[j] * dout[at+c]
			}
			mean += p[j] * dp[j]
		}
		for j := range a.s {
			ds := p[j] * (dp[j] - mean) * slopes[j]
			for c := range a.d {
				dq[at+c] += ds * k[a.key(b, j, h)+c]
				dk[a.key(b, j, h)+c] += ds * q[at+c]
			}
		}
	})
	return [][]float64{dq, dk, dv}
}

func cacheAppend(n *graph.Node, in [][]float64) []float64 {
	rows, cache := n.In[1].Size()/n.Dim(0), n.Size()/n.Dim(0)
	width := n.Dim(2) * n.Dim(3)
	for b, start := range in[2] {
		copy(in[0][b*cache+int(start)*width:], in[1][b*rows:(b+1)*rows])
	}
	return in[0]
}

func cachedAttention(op graph.CachedAttention, n *graph.Node, in [][]float64) []float64 {
	a := newScores(op.Attention, n.In[0], n.In[1])
	a.sees = func(b, i, j int) bool {
		i += int(in[3][b])
		return j < op.Prefix || j <= i && (op.Window <= 0 || j > i-op.Window)
	}
	out, _ := a.forward(in[0], in[1], in[2])
	return out
}
