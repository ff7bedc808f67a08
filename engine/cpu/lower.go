package cpu

import (
	"fmt"
	"math"

	"tunesmith/graph"
)

// grain is the fewest elements of element work that are worth a worker.
const grain = 1024

// lower turns a node that something asks for into instructions, and asks for what it reads.
func (p *planner) lower(n *graph.Node) error {
	if n.Kind() == graph.Int {
		return p.lowerInt(n)
	}
	switch op := n.Op.(type) {
	case graph.Input:
		p.feeds[op.Name].value = p.wanted(n, 0)
	case graph.Param:
		return p.lowerStored(n, op.Name, false)
	case graph.State:
		return p.lowerStored(n, op.Name, true)
	case graph.Constant:
		p.wanted(n, 0).ready(op.Float)
	case graph.Pick:
		p.alias(n, p.result(n.In[0], op.Index))
	case graph.StopGradient, graph.ReshapeTo:
		p.alias(n, p.use(n.In[0]))

	case graph.Binary:
		if !p.lowerSum(n) {
			p.lowerElements(n)
		}
	case graph.Affine:
		if !p.lowerSum(n) {
			p.lowerElements(n)
		}
	case graph.Unary, graph.UnaryGrad, graph.Clamp, graph.Where, graph.GatedAct, graph.Dropout, graph.Broadcast:
		p.lowerElements(n)
	case graph.GatedActGrad:
		p.lowerGatedActGrad(n, op)

	case graph.Reduce:
		p.lowerReduce(n, op)
	case graph.Transpose:
		p.lowerTranspose(n, op)
	case graph.Slice:
		p.lowerSlice(n, op)
	case graph.Pad:
		p.lowerPad(n, op)
	case graph.Concat:
		p.lowerConcat(n, op)
	case graph.GatherRows:
		p.lowerGatherRows(n)
	case graph.ScatterRows:
		p.lowerScatterRows(n, p.use(n.In[0]), p.use(n.In[1]), noRow)

	case graph.Linear, graph.LinearT, graph.Outer:
		p.lowerSum(n)
	case graph.MatMul:
		p.lowerMatMul(n, op)

	case graph.Embed:
		return p.lowerEmbed(n)
	case graph.EmbedGrad:
		p.checkRange("token id", n.In[1], 0, op.V)
		p.lowerScatterRows(n, p.use(n.In[0]), p.use(n.In[1]), int32(op.PadID))
	case graph.RMSNorm:
		p.lowerRMSNorm(n, op)
	case graph.RMSNormGrad:
		p.lowerRMSNormGrad(n, op)
	case graph.LayerNorm:
		p.lowerLayerNorm(n, op)
	case graph.LayerNormGrad:
		p.lowerLayerNormGrad(n, op)
	case graph.RoPE:
		p.lowerRoPE(n, op)
	case graph.Attention:
		p.lowerAttention(n, op)
	case graph.AttentionGrad:
		p.lowerAttentionGrad(n, op)
	case graph.TokenLogProb:
		return p.lowerTokenLogProb(n, op)
	case graph.TokenLogProbGrad:
		return p.lowerTokenLogProbGrad(n, op)
	case graph.TopK:
		p.lowerTopK(n, op)
	case graph.Capacity:
		p.lowerCapacity(n, op)
	case graph.Route:
		p.lowerRoute(n)
	case graph.Dispatch:
		p.lowerDispatch(n)
	case graph.Collect:
		p.lowerCollect(n)
	case graph.CollectGrad:
		p.lowerCollectGrad(n)
	case graph.GroupedLinear:
		return p.lowerGrouped(n, false)
	case graph.GroupedLinearT:
		return p.lowerGrouped(n, true)
	case graph.GroupedOuter:
		p.lowerGroupedOuter(n, op)
	case graph.CacheAppend:
		p.lowerCacheAppend(n)
	case graph.CachedAttention:
		p.lowerCachedAttention(n, op)
	default:
		return fmt.Errorf("the CPU engine has no implementation of %T", op)
	}
	return nil
}

// lowerStored binds a parameter or a state to its tensor's values in single precision. A weight that is only read
// in another form is never asked for here.
func (p *planner) lowerStored(n *graph.Node, name string, state bool) error {
	t, err := p.tensor(n, name)
	if err != nil {
		return err
	}
	v := p.wanted(n, 0)
	if (state || t.Trainable) && t.Values == nil {
		return fmt.Errorf("%q changes, but has no single-precision values", name)
	}
	if state {
		p.states[t] = true
	}
	if t.Values != nil {
		p.stored[t] = v
		v.ready(t.Values)
		return nil
	}
	v.ready(p.form(t, plain).floats)
	return nil
}

// lowerInt plans integers: they are computed before all else at every run, so that a run that is impossible can be
// refused before it has changed anything.
func (p *planner) lowerInt(n *graph.Node) error {
	v := p.wanted(n, 0)
	switch op := n.Op.(type) {
	case graph.Constant:
		v.ints = op.Int
		return nil
	case graph.ReshapeTo, graph.StopGradient, graph.Pick:
		p.alias(n, p.use(n.In[0]))
		return nil
	case graph.Input:
		p.feeds[op.Name].value = v
	case graph.Slice, graph.Concat:
		p.prepare = append(p.prepare, copyParts(p, n, op))
	case graph.Affine:
		x, mul, shift := p.use(n.In[0]), int32(op.Mul), int32(op.Add)
		p.prepare = append(p.prepare, func() {
			for i, a := range x.i()[:v.size] {
				v.ints[i] = mul*a + shift
			}
		})
	default:
		return fmt.Errorf("the CPU engine computes no integers by %T", op)
	}
	v.ints = make([]int32, v.size)
	p.ownSize += v.size
	return nil
}

// anyBelow is the lower bound of integers whose negative values all mean "none".
const anyBelow = math.MinInt32

// checkRange has every run refused in which a value of the integer node is not within lo … hi−1.
func (p *planner) checkRange(what string, n *graph.Node, lo, hi int) {
	v := p.use(n)
	p.checks = append(p.checks, func() error {
		for at, i := range v.i()[:v.size] {
			if int(i) < lo || int(i) >= hi {
				if lo == anyBelow {
					return fmt.Errorf("%s %d at place %d: want at most %d", what, i, at, hi-1)
				}
				return fmt.Errorf("%s %d at place %d: want %d … %d", what, i, at, lo, hi-1)
			}
		}
		return nil
	})
}
