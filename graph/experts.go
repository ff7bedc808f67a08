package graph

// Mixtures of experts: a router scores E experts for each of R rows, every row goes to some of them, and the experts'
// matrices see only the rows that come to them. Legend: R rows, E experts, N routed rows (R times the experts per row),
// C, M and K channels. Places and bounds are whole numbers held as real ones, which is exact below 2²⁴.

// TopK gives a mask (R, E) of the K largest scores (R, E) of each row; of equal ones the first counts. The second
// input, segments (R), may be absent: rows of a negative one, which are padding, go nowhere. It has no gradient.
type TopK struct{ K int }

// Capacity keeps of a mask (R, E), for each expert in each sequence of Rows rows, the first Limit ones.
type Capacity struct{ Limit, Rows int }

// Route sorts the ones of a mask (R, E), at most K a row, by expert and row. Results: the row at each place (N), −1
// behind the last; the first place of each expert and, behind them, the number of all (E+1); and the place of each pair
// of row and expert (R, E), −1 for none.
type Route struct{ K int }

// Dispatch gathers the rows of x (R, C) by place: (N, C), zeros behind the last. Inputs: x, and the mask, rows and
// places of a Route.
type Dispatch struct{}

// Collect is y[r] = Σ_e w[r, e] · x[place[r, e]] over the experts of the row: x (N, C), w (R, E), place (R, E), y (R, C).
type Collect struct{}

// CollectGrad has inputs dy, x, w, place and results dx and dw.
type CollectGrad struct{}

// GroupedLinear is x·Wᵀ where the rows between two bounds have a matrix of their own: x (N, K), bounds (E+1), then E
// matrices (M, K), or one of (E, M, K); result (N, M), zeros behind the last bound.
type GroupedLinear struct{}

// GroupedLinearT is x·W: x (N, M), result (N, K). It is the input gradient of GroupedLinear.
type GroupedLinearT struct{}

// GroupedOuter is the weight gradient of GroupedLinear: inputs dy (N, M), x (N, K), bounds; results E matrices (M, K),
// or one of (E, M, K) where Stacked is set. An expert without rows gets zeros.
type GroupedOuter struct {
	Experts int
	Stacked bool
}

// Top returns the mask of the k largest scores of each row; segments may be nil. See TopK.
func Top(scores, segments *Node, k int) *Node {
	if segments == nil {
		return add(TopK{k}, scores)
	}
	return add(TopK{k}, scores, segments)
}

// Limited returns the mask with at most limit rows for an expert in each sequence of so many rows; see Capacity.
func Limited(mask *Node, limit, rows int) *Node { return add(Capacity{limit, rows}, mask) }

// Routing is where rows go.
type Routing struct{ Mask, Rows, Bounds, Places *Node }

// Routed returns the routing by a mask of at most k experts a row.
func Routed(mask *Node, k int) Routing {
	n := add(Route{k}, mask)
	return Routing{mask, pick(n, 0), pick(n, 1), pick(n, 2)}
}

// Dispatch returns the rows of x in the order of the experts.
func (r Routing) Dispatch(x *Node) *Node { return add(Dispatch{}, x, r.Mask, r.Rows, r.Places) }

// Collect returns the sums of each row's results x, times the weights w.
func (r Routing) Collect(x, w *Node) *Node { return add(Collect{}, x, w, r.Places) }

// Project returns the product of dispatched rows with their expert's matrix: one for each expert, or all in one.
func (r Routing) Project(x *Node, w ...*Node) *Node {
	return add(GroupedLinear{}, append([]*Node{x, r.Bounds}, w...)...)
}

// ProjectT returns the product with the matrices transposed.
func (r Routing) ProjectT(x *Node, w ...*Node) *Node {
	return add(GroupedLinearT{}, append([]*Node{x, r.Bounds}, w...)...)
}

// String implements Op.
func (TopK) String() string { return "TopK" }

// String implements Op.
func (Capacity) String() string { return "Capacity" }

// String implements Op.
func (Route) String() string { return "Route" }

// String implements Op.
func (Dispatch) String() string { return "Dispatch" }

// String implements Op.
func (Collect) String() string { return "Collect" }

// String implements Op.
func (CollectGrad) String() string { return "CollectGrad" }

// String implements Op.
func (GroupedLinear) String() string { return "GroupedLinear" }

// String implements Op.
func (GroupedLinearT) String() string { return "GroupedLinearT" }

// String implements Op.
func (GroupedOuter) String() string { return "GroupedOuter" }

func (o TopK) infer(n *Node) []Type {
	n.want(0, Float, 2)
	if o.K < 1 || o.K > n.In[0].Dim(1) {
		n.fail("want 1 … %d experts a row, have %d", n.In[0].Dim(1), o.K)
	}
	if len(n.In) > 1 {
		n.want(1, Int, -1)
		if n.In[1].Size() != n.In[0].Dim(0) {
			n.fail("want a segment for each of %d rows, have %d", n.In[0].Dim(0), n.In[1].Size())
		}
	}
	return float(n.In[0].Shape()...)
}

func (o Capacity) infer(n *Node) []Type {
	n.want(0, Float, 2)
	if o.Limit < 1 || o.Rows < 1 || n.In[0].Dim(0)%o.Rows != 0 {
		n.fail("want a limit above 0 and whole sequences, have a limit of %d and sequences of %d rows", o.Limit, o.Rows)
	}
	return float(n.In[0].Shape()...)
}

func (o Route) infer(n *Node) []Type {
	n.want(0, Float, 2)
	r, e := n.In[0].Dim(0), n.In[0].Dim(1)
	if o.K < 1 || o.K > e || r*o.K >= 1<<24 {
		n.fail("want 1 … %d experts a row and fewer than 2²⁴ routed rows, have %d and %d", e, o.K, r*o.K)
	}
	return []Type{{Shape: []int{r * o.K}, Kind: Float}, {Shape: []int{e + 1}, Kind: Float}, {Shape: []int{r, e}, Kind: Float}}
}

func (Dispatch) infer(n *Node) []Type {
	n.want(0, Float, 2)
	n.want(2, Float, 1)
	if n.In[0].Dim(0) != n.In[1].Dim(0) || !same(n.In[1].Shape(), n.In[3].Shape()) {
		n.fail("want x (R, C), mask (R, E), rows (N), places (R, E)")
	}
	return float(n.In[2].Dim(0), n.In[0].Dim(1))
}

func (Collect) infer(n *Node) []Type {
	n.want(0, Float, 2)
	n.want(1, Float, 2)
	if !same(n.In[1].Shape(), n.In[2].Shape()) {
		n.fail("want x (N, C), weights (R, E), places (R, E)")
	}
	return float(n.In[1].Dim(0), n.In[0].Dim(1))
}

func (CollectGrad) infer(n *Node) []Type { return []Type{n.In[1].Types[0], n.In[2].Types[0]} }

// experts returns the experts' matrices (M, K) of a grouped product.
func (n *Node) experts() (m, k int) {
	n.want(0, Float, 2)
	n.want(1, Float, 1)
	w := n.In[2:]
	experts := n.In[1].Dim(0) - 1
	if len(w) == 1 && w[0].Rank() == 3 {
		if w[0].Dim(0) != experts {
			n.fail("want matrices of %d experts, have %d", experts, w[0].Dim(0))
		}
		return w[0].Dim(1), w[0].Dim(2)
	}
	if len(w) != experts {
		n.fail("want %d matrices, have %d", experts, len(w))
	}
	for i := range w {
		n.want(i+2, Float, 2)
		if !same(w[i].Shape(), w[0].Shape()) {
			n.fail("matrix %d differs in shape from the first", i)
		}
	}
	return w[0].Dim(0), w[0].Dim(1)
}

func (GroupedLinear) infer(n *Node) []Type {
	m, k := n.experts()
	if n.In[0].Dim(1) != k {
		n.fail("last dimension of the input and of the matrices differ")
	}
	return float(n.In[0].Dim(0), m)
}

func (GroupedLinearT) infer(n *Node) []Type {
	m, k := n.experts()
	if n.In[0].Dim(1) != m {
		n.fail("last dimension of the input and first of the matrices differ")
	}
	return float(n.In[0].Dim(0), k)
}

func (o GroupedOuter) infer(n *Node) []Type {
	m, k := n.In[0].Dim(1), n.In[1].Dim(1)
	if o.Stacked {
		return float(o.Experts, m, k)
	}
	var out []Type
	for range o.Experts {
		out = append(out, float(m, k)...)
	}
	return out
}

func (TopK) vjp(n *Node, _ []*Node) []*Node     { return make([]*Node, len(n.In)) }
func (Capacity) vjp(n *Node, _ []*Node) []*Node { return make([]*Node, len(n.In)) }
func (Route) vjp(n *Node, _ []*Node) []*Node    { return make([]*Node, len(n.In)) }

func (Dispatch) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{add(Collect{}, dy[0], n.In[1], n.In[3]), nil, nil, nil}
}

func (Collect) vjp(n *Node, dy []*Node) []*Node {
	d := add(CollectGrad{}, dy[0], n.In[0], n.In[1], n.In[2])
	return results(n, d, 0, 1)
}

func (GroupedLinear) vjp(n *Node, dy []*Node) []*Node {
	return grouped(n, GroupedLinearT{}, dy[0], dy[0], n.In[0])
}

func (GroupedLinearT) vjp(n *Node, dy []*Node) []*Node {
	return grouped(n, GroupedLinear{}, dy[0], n.In[0], dy[0])
}

// grouped returns the gradients of a grouped product: that of the input by the op of dy, those of the matrices from what
// stands for the rows m (N, M) and k (N, K).
func grouped(n *Node, op Op, dy, m, k *Node) []*Node {
	out := make([]*Node, len(n.In))
	w := n.In[2:]
	if n.In[0].needs {
		out[0] = add(op, append([]*Node{dy, n.In[1]}, w...)...)
	}
	var outer *Node
	for i, x := range w {
		if !x.needs {
			continue
		}
		if outer == nil {
			outer = add(GroupedOuter{n.In[1].Dim(0) - 1, x.Rank() == 3}, m, k, n.In[1])
		}
		out[i+2] = pick(outer, i)
	}
	return out
}

func (CollectGrad) vjp(n *Node, _ []*Node) []*Node  { return noSecond(n) }
func (GroupedOuter) vjp(n *Node, _ []*Node) []*Node { return noSecond(n) }
