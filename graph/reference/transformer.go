package reference

import (
	"fmt"
	"math"

	"tunesmith/graph"
)

func embed(n *graph.Node, in [][]float64) ([]float64, error) {
	out := make([]float64, n.Size())
	c := n.Dim(-1)
	for r, id := range in[1] {
		id := int(id)
		switch op := n.Op.(type) {
		case graph.Embed:
			if v := n.In[0].Dim(0); id < 0 || id >= v {
				return nil, fmt.Errorf("id %d is outside of the vocabulary of %d", id, v)
			}
			copy(out[r*c:(r+1)*c], in[0][id*c:])
		case graph.EmbedGrad:
			for i := range c {
				if id != op.PadID {
					out[id*c+i] += in[0][r*c+i]
				}
			}
		}
	}
	return out, nil
}

// norm is RMSNorm and LayerNorm with their gradients. With x̂ = (x − mean)·s, s = 1/√(var + ε), and g = dy·w, dx is
// s·(g − mean(g) − x̂·mean(g·x̂)); RMSNorm has neither mean.
func norm(n *graph.Node, in [][]float64) [][]float64 {
	var eps, offset float64
	var centred, backward bool
	switch op := n.Op.(type) {
	case graph.RMSNorm:
		eps, offset = float64(op.Eps), float64(op.Offset)
	case graph.RMSNormGrad:
		eps, offset, backward = float64(op.Eps), float64(op.Offset), true
	case graph.LayerNorm:
		eps, centred = float64(op.Eps), true
	case graph.LayerNormGrad:
		eps, centred, backward = float64(op.Eps), true, true
	}
	x, w := in[0], in[1]
	if backward {
		x, w = in[1], in[2]
	}
	c := len(w)
	y, dw, db := make([]float64, len(x)), make([]float64, c), make([]float64, c)
	for r := 0; r < len(x); r += c {
		mean, square := 0.0, 0.0
		for _, v := range x[r : r+c] {
			mean += v / float64(c)
		}
		if !centred {
			mean = 0
		}
		for _, v := range x[r : r+c] {
			square += (v - mean) * (v - mean) / float64(c)
		}
		s := 1 / math.Sqrt(square+eps)
		if !backward {
			for i := range c {
				y[r+i] = (x[r+i] - mean) * s * (w[i] + offset)
				if centred && len(in) > 2 {
					y[r+i] += in[2][i]
				}
			}
			continue
		}
		meanG, meanGX := 0.0, 0.0
		for i := range c {
			hat := (x[r+i] - mean) * s
			g := in[0][r+i] * (w[i] + offset)
			meanG += g / float64(c)
			meanGX += g * hat / float64(c)
			dw[i] += in[0][r+i] * hat
			db[i] += in[0][r+i]
		}
		if !centred {
			meanG = 0
		}
		for i := range c {
			hat := (x[r+i] - mean) * s
			y[r+i] = s * (in[0][r+i]*(w[i]+offset) - meanG - hat*meanGX)
		}
	}
	return [][]float64{y, dw, db}[:len(n.Types)]
}

func rotate(op graph.RoPE, n *graph.Node, in [][]float64) []float64 {
	heads, d := n.Dim(2), n.Dim(3)
	out := append([]float64(nil), in[0]...)
	half := len(op.InvFreq)
	for r := range len(out) / d {
		pos := in[1][r/heads]
		for i, f := range op.InvFreq {
			a, b := r*d+i, r*d+i+half
			if op.Interleaved {
				a, b = r*d+2*i, r*d+2*i+1
			}
			sin, cos := math.Sincos(pos * float64(f))
			if op.Inverse {
				sin = -sin
			}
			sin, cos = sin*float64(op.Factor), cos*float64(op.Factor)
			out[a], out[b] = in[0][a]*cos-in[0][b]*sin, in[0][b]*cos+in[0][a]*sin
		}
	}
	return out
}

// tokens is what TokenLogProb and its gradient compute per position with a target.
type tokens struct {
	op      graph.TokenLogProb
	h, w    []float64
	targets []float64
	bias    []float64
	c, v    int
}

func newTokens(op graph.TokenLogProb, in [][]float64) tokens {
	t := tokens{op: op, h: in[0], w: in[1], targets: in[2]}
	t.c = len(t.h) / max(len(t.targets), 1)
	t.v = len(t.w) / t.c
	if len(in) > 3 {
		t.bias = in[3]
	}
	return t
}

// row returns the logits of position r, their slopes with respect to h·w + bias, and the log of the denominator.
func (t tokens) row(r int) (logits, slopes []float64, lse float64) {
	logits, slopes = make([]float64, t.v), make([]float64, t.v)
	top := math.Inf(-1)
	for j := range t.v {
		z := 0.0
		for i := range t.c {
			z += t.h[r*t.c+i] * t.w[j*t.c+i]
		}
		if t.bias != nil {
			z += t.bias[j]
		}
		z *= float64(t.op.Scale)
		slopes[j] = float64(t.op.Scale)
		if cap := float64(t.op.Softcap); cap != 0 {
			y := math.Tanh(z / cap)
			z = cap * y
			slopes[j] *= 1 - y*y
		}
		logits[j] = z
		top = max(top, z)
	}
	for _, z := range logits {
		lse += math.Exp(z - top)
	}
	return logits, slopes, top + math.Log(lse)
}

func tokenLogProb(op graph.TokenLogProb, n *graph.Node, in [][]float64) [][]float64 {
	t := newTokens(op, in)
	logp, mean := make([]float64, n.Size()), make([]float64, n.Size())
	for r, y := range t.targets {
		if y < 0 {
			continue
		}
		logits, _, lse := t.row(r)
		logp[r] = logits[int(y)] - lse
		for _, z := range logits {
			mean[r] += (z - lse) / float64(t.v)
		}
	}
	return [][]float64{logp, mean}
}

func tokenLogProbGrad(op graph.TokenLogProbGrad, n *graph.Node, in [][]float64) [][]float64 {
	dlogp, dmean := in[0], make([]float64, len(in[0]))
	in = in[1:]
	if op.Smooth {
		dmean, in = in[0], in[1:]
	}
	t := newTokens(op.TokenLogProb, in)
	dh, dw, db := make([]float64, len(t.h)), make([]float64, len(t.w)), make([]float64, t.v)
	for r, y := range t.targets {
		if y < 0 {
			continue
		}
		logits, slopes, lse := t.row(r)
		for j, z := range logits {
			p := math.Exp(z - lse)
			d := dlogp[r]*(choose(j == int(y), 1, 0)-p) + dmean[r]*(1/float64(t.v)-p)
			d *= slopes[j]
			db[j] += d
			for i := range t.c {
				dh[r*t.c+i] += d * t.w[j*t.c+i]
				dw[j*t.c+i] += d * t.h[r*t.c+i]
			}
		}
	}
	return [][]float64{dh, dw, db}
}
