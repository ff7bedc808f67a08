package graph

// Gradient returns the gradient of a scalar with respect to each of the nodes, in the order given; it is nil where
// the scalar does not depend on the node. It adds nodes only where a trainable parameter lies below.
//
// Values inside a recomputed region are not kept for the backward pass: the region's nodes are built again, from
// the values that enter it, just before the first gradient that uses them.
func Gradient(loss *Node, of []*Node) []*Node {
	g := loss.graph
	if loss.Size() != 1 {
		loss.fail("the gradient is taken of a scalar, this has %d elements", loss.Size())
	}
	b := backward{grads: map[*Node][]*Node{}, replayed: map[*Node]*Node{}}
	b.accumulate(loss, 0, g.Floats([]float32{1}, loss.Shape()...))
	for id := loss.ID; id >= 0; id-- {
		n := g.Nodes[id]
		dy, ok := b.grads[n]
		if !ok || !n.needs || len(n.In) == 0 {
			continue
		}
		g.path = []string{n.Path}
		if p, ok := n.Op.(Pick); ok {
			b.accumulate(n.In[0], p.Index, dy[0])
			continue
		}
		for i, dx := range n.Op.vjp(b.replay(n), dy) {
			if dx != nil && n.In[i].needs {
				b.accumulate(n.In[i], 0, dx)
			}
		}
	}
	g.path = nil
	out := make([]*Node, len(of))
	for i, n := range of {
		if dy := b.grads[n]; dy != nil {
			out[i] = dy[0]
		}
	}
	return out
}

type backward struct {
	grads    map[*Node][]*Node // per node, the gradient of each result
	replayed map[*Node]*Node
}

func (b *backward) accumulate(n *Node, result int, d *Node) {
	if b.grads[n] == nil {
		b.grads[n] = make([]*Node, len(n.Types))
	}
	if old := b.grads[n][result]; old != nil {
		d = Plus(old, d)
	}
	b.grads[n][result] = d
}

// replay returns n itself, or, inside a recomputed region, its copy built from the region's inputs.
func (b *backward) replay(n *Node) *Node {
	if n.Region == 0 || len(n.In) == 0 {
		return n
	}
	if again, ok := b.replayed[n]; ok {
		return again
	}
	in := make([]*Node, len(n.In))
	for i, x := range n.In {
		in[i] = x
		if x.Region == n.Region {
			in[i] = b.replay(x)
		}
	}
	again := n.graph.add(n.Op, in...)
	again.Path = n.Path
	b.replayed[n] = again
	return again
}
