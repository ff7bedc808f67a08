package graph

// Cost is what running a node takes: floating-point operations and elements moved. A multiply and an add count as
// two operations.
type Cost struct {
	FLOPs    int64
	Elements int64
}

// CostOf returns the cost of one node. Attention counts the pairs of a causal mask once, without segments.
func CostOf(n *Node) Cost {
	var c Cost
	for _, t := range n.Types {
		c.Elements += int64(t.Size())
	}
	for _, x := range n.In {
		c.Elements += int64(x.Size())
	}
	out := int64(n.Size())
	switch op := n.Op.(type) {
	case Input, Param, State, Constant, Pick, StopGradient, ReshapeTo:
		return Cost{}
	case Linear, LinearT:
		c.FLOPs = 2 * out * int64(n.In[0].Dim(-1))
	case Outer:
		c.FLOPs = 2 * out * int64(rows(n.In[0].Shape()))
	case MatMul:
		inner := n.In[0].Dim(-1)
		if op.TransA {
			inner = n.In[0].Dim(-2)
		}
		c.FLOPs = 2 * out * int64(inner)
	case Attention:
		c.FLOPs = 4 * op.pairs(n.In[0]) * int64(n.In[0].Dim(3))
	case AttentionGrad:
		c.FLOPs = 10 * op.pairs(n.In[1]) * int64(n.In[1].Dim(3))
	case CachedAttention:
		c.FLOPs = 4 * out * int64(n.In[1].Dim(1))
	case GroupedLinear, GroupedLinearT:
		c.FLOPs = 2 * out * int64(n.In[0].Dim(1))
	case GroupedOuter:
		c.FLOPs = 2 * int64(n.In[0].Size()) * int64(n.In[1].Dim(1))
	case TokenLogProb:
		c.FLOPs = 2 * int64(n.In[0].Size()) * int64(n.In[1].Dim(0))
	case TokenLogProbGrad:
		c.FLOPs = 4 * int64(n.Size()) * int64(n.Types[1].Shape[0])
	default:
		c.FLOPs = out
	}
	return c
}

// pairs returns the number of query/key pairs that attention computes, over all heads and rows.
func (o Attention) pairs(q *Node) int64 {
	b, t, h := int64(q.Dim(0)), int64(q.Dim(1)), int64(q.Dim(2))
	seen := t * t
	if o.Causal {
		seen = t * (t + 1) / 2
		if w := int64(o.Window); w > 0 && w < t {
			seen = w*(w+1)/2 + (t-w)*w
		}
	}
	return b * h * (seen + t*int64(o.Prefix))
}
