// Package reference computes graphs in double precision by the plainest loops, one function a family of operations.
// It is what engines are tested against, and what finite differences test the gradients with; nothing else uses it.
package reference

import (
	"fmt"
	"math"

	"tunesmith/graph"
)

// Run computes the outputs of g. Parameters and states are read from params, and states are changed in place; feeds
// are []float64, []float32 or []int32.
func Run(g *graph.Graph, params map[string][]float64, feeds map[string]any) (map[string][]float64, error) {
	m := machine{params: params, feeds: feeds, values: make([][][]float64, len(g.Nodes))}
	for _, n := range g.Nodes {
		if err := m.run(n); err != nil {
			return nil, fmt.Errorf("%v: %w", n, err)
		}
		for i, v := range m.values[n.ID] {
			if len(v) != n.Types[i].Size() {
				return nil, fmt.Errorf("%v: result %d has %d values, its type %v has %d", n, i, len(v), n.Types[i].Shape, n.Types[i].Size())
			}
		}
	}
	out := map[string][]float64{}
	for _, o := range g.Outputs {
		out[o.Name] = append([]float64(nil), m.values[o.Node.ID][0]...)
	}
	return out, nil
}

// machine holds the results of every node. Integers are held as doubles, which is exact.
type machine struct {
	params map[string][]float64
	feeds  map[string]any
	values [][][]float64
}

func (m *machine) run(n *graph.Node) error {
	in := make([][]float64, len(n.In))
	for i, x := range n.In {
		in[i] = m.values[x.ID][0]
	}
	var out [][]float64
	var err error
	switch op := n.Op.(type) {
	case graph.Input:
		out, err = one(doubles(m.feeds[op.Name]))
	case graph.Param:
		out = [][]float64{m.params[op.Name]}
	case graph.State:
		out = [][]float64{m.params[op.Name]}
	case graph.Constant:
		if op.Float != nil || n.Kind() == graph.Float {
			out, err = one(doubles(op.Float))
		} else {
			out, err = one(doubles(op.Int))
		}
	case graph.Pick:
		out = [][]float64{m.values[n.In[0].ID][op.Index]}
	case graph.StopGradient, graph.ReshapeTo:
		out = in[:1]

	case graph.Unary:
		out = [][]float64{each(in[0], func(x float64) float64 { return apply(op.Fn, x) })}
	case graph.UnaryGrad:
		out = [][]float64{zip(in[0], in[1], func(dy, x float64) float64 { return dy * slope(op.Fn, x) })}
	case graph.Affine:
		out = [][]float64{each(in[0], func(x float64) float64 { return float64(op.Mul)*x + float64(op.Add) })}
	case graph.Clamp:
		out = [][]float64{each(in[0], func(x float64) float64 { return min(max(x, float64(op.Lo)), float64(op.Hi)) })}
	case graph.Binary:
		a, b := spread(in[0], n.In[0].Shape(), n.Shape()), spread(in[1], n.In[1].Shape(), n.Shape())
		out = [][]float64{zip(a, b, func(a, b float64) float64 { return combine(op.Fn, a, b) })}
	case graph.Where:
		out = [][]float64{make([]float64, n.Size())}
		for i, c := range in[0] {
			out[0][i] = choose(c != 0, in[1][i], in[2][i])
		}
	case graph.GatedAct:
		out = [][]float64{zip(in[0], in[1], func(gate, up float64) float64 { return apply(op.Fn, gate) * up })}
	case graph.GatedActGrad:
		dy, gate, up := in[0], in[1], in[2]
		out = [][]float64{make([]float64, len(dy)), make([]float64, len(dy))}
		for i := range dy {
			out[0][i] = dy[i] * up[i] * slope(op.Fn, gate[i])
			out[1][i] = dy[i] * apply(op.Fn, gate[i])
		}
	case graph.Dropout:
		out = [][]float64{dropout(op, in[0], in[1])}
	case graph.Reduce:
		out = [][]float64{reduce(op, in[0], n)}

	case graph.Transpose, graph.Slice, graph.Pad, graph.Concat, graph.Broadcast, graph.GatherRows, graph.ScatterRows:
		out = [][]float64{reshape(n, in)}
	case graph.Linear, graph.LinearT, graph.Outer, graph.MatMul:
		out = [][]float64{product(n, in)}

	case graph.Embed, graph.EmbedGrad:
		out, err = one(embed(n, in))
	case graph.RMSNorm, graph.RMSNormGrad, graph.LayerNorm, graph.LayerNormGrad:
		out = norm(n, in)
	case graph.RoPE:
		out = [][]float64{rotate(op, n, in)}
	case graph.Attention:
		out = attention(op, n, in)
	case graph.AttentionGrad:
		out = attentionGrad(op, n, in)
	case graph.CacheAppend:
		out = [][]float64{cacheAppend(n, in)}
	case graph.CachedAttention:
		out = [][]float64{cachedAttention(op, n, in)}
	case graph.TokenLogProb:
		out = tokenLogProb(op, n, in)
	case graph.TokenLogProbGrad:
		out = tokenLogProbGrad(op, n, in)
	case graph.TopK:
		out = [][]float64{topK(op, n, in)}
	case graph.Capacity:
		out = [][]float64{capacity(op, n, in[0])}
	case graph.Route:
		out = route(n, in[0])
	case graph.Dispatch:
		out = [][]float64{dispatch(n, in)}
	case graph.Collect:
		out = [][]float64{collect(n, in)}
	case graph.CollectGrad:
		out = collectGrad(n, in)
	case graph.GroupedLinear, graph.GroupedLinearT, graph.GroupedOuter:
		out = grouped(n, in)
	default:
		err = fmt.Errorf("no implementation of %T", op)
	}
	m.values[n.ID] = out
	return err
}

func one(v []float64, err error) ([][]float64, error) { return [][]float64{v}, err }

func doubles(v any) ([]float64, error) {
	switch v := v.(type) {
	case []float64:
		return v, nil
	case []float32:
		return convert(v), nil
	case []int32:
		return convert(v), nil
	}
	return nil, fmt.Errorf("want []float64, []float32 or []int32, have %T", v)
}

func convert[T float32 | int32](v []T) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

func each(x []float64, f func(float64) float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = f(v)
	}
	return out
}

func zip(a, b []float64, f func(a, b float64) float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = f(a[i], b[i])
	}
	return out
}

func choose(c bool, a, b float64) float64 {
	if c {
		return a
	}
	return b
}

func apply(f graph.Fn, x float64) float64 {
	switch f {
	case graph.Neg:
		return -x
	case graph.Exp:
		return math.Exp(x)
	case graph.Log:
		return math.Log(x)
	case graph.Sqrt:
		return math.Sqrt(x)
	case graph.Square:
		return x * x
	case graph.Reciprocal:
		return 1 / x
	case graph.Tanh:
		return math.Tanh(x)
	case graph.Sigmoid:
		return 1 / (1 + math.Exp(-x))
	case graph.LogSigmoid:
		return -softplus(-x)
	case graph.Softplus:
		return softplus(x)
	case graph.SiLU:
		return x / (1 + math.Exp(-x))
	case graph.Gelu:
		return x * math.Erfc(-x/math.Sqrt2) / 2
	case graph.GeluTanh:
		return x / 2 * (1 + math.Tanh(geluInner(x)))
	case graph.ReLU:
		return max(x, 0)
	case graph.Abs:
		return math.Abs(x)
	case graph.Sign:
		return choose(x > 0, 1, choose(x < 0, -1, 0))
	}
	return math.NaN()
}

func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func geluInner(x float64) float64 { return math.Sqrt(2/math.Pi) * (x + 0.044715*x*x*x) }

// slope is the derivative of apply.
func slope(f graph.Fn, x float64) float64 {
	sigmoid := 1 / (1 + math.Exp(-x))
	switch f {
	case graph.Neg:
		return -1
	case graph.Exp:
		return math.Exp(x)
	case graph.Log:
		return 1 / x
	case graph.Sqrt:
		return 0.5 / math.Sqrt(x)
	case graph.Square:
		return 2 * x
	case graph.Reciprocal:
		return -1 / (x * x)
	case graph.Tanh:
		return 1 - math.Tanh(x)*math.Tanh(x)
	case graph.Sigmoid:
		return sigmoid * (1 - sigmoid)
	case graph.LogSigmoid:
		return 1 - sigmoid
	case graph.Softplus:
		return sigmoid
	case graph.SiLU:
		return sigmoid * (1 + x*(1-sigmoid))
	case graph.Gelu:
		return math.Erfc(-x/math.Sqrt2)/2 + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	case graph.GeluTanh:
		t := math.Tanh(geluInner(x))
		return (1+t)/2 + x/2*(1-t*t)*math.Sqrt(2/math.Pi)*(1+3*0.044715*x*x)
	case graph.ReLU:
		return choose(x > 0, 1, 0)
	case graph.Abs:
		return apply(graph.Sign, x)
	case graph.Sign:
		return 0
	}
	return math.NaN()
}

func combine(f graph.Fn, a, b float64) float64 {
	switch f {
	case graph.Add:
		return a + b
	case graph.Sub:
		return a - b
	case graph.Mul:
		return a * b
	case graph.Div:
		return a / b
	case graph.Min:
		return min(a, b)
	case graph.Max:
		return max(a, b)
	case graph.Less:
		return choose(a < b, 1, 0)
	case graph.LessEq:
		return choose(a <= b, 1, 0)
	case graph.Equal:
		return choose(a == b, 1, 0)
	}
	return math.NaN()
}

func dropout(op graph.Dropout, x, key []float64) []float64 {
	k := uint64(uint32(int32(key[0]))) | uint64(uint32(int32(key[1])))<<32
	out := make([]float64, len(x))
	for i := range x {
		if graph.DropoutKeep(k, op.Salt, uint64(i), op.Rate) {
			out[i] = x[i] / (1 - float64(op.Rate))
		}
	}
	return out
}
