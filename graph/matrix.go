package graph

// Linear is y = x·Wᵀ: x (…, K), W (N, K), y (…, N). W may be stored in any format that the engine knows.
type Linear struct{}

// LinearT is y = x·W: x (…, N), W (N, K), y (…, K). It is the input gradient of Linear.
type LinearT struct{}

// Outer is W = dyᵀ·x summed over all rows: dy (…, N), x (…, K), W (N, K). It is the weight gradient of Linear.
type Outer struct{}

// MatMul is the batched product of the last two axes; the leading axes are equal. TransA and TransB read an
// operand with its last two axes exchanged.
type MatMul struct{ TransA, TransB bool }

// Project returns x·Wᵀ.
func Project(x, w *Node) *Node { return add(Linear{}, x, w) }

// ProjectT returns x·W, with W in the same layout (N, K) as for Project.
func ProjectT(x, w *Node) *Node { return add(LinearT{}, x, w) }

// Product returns the batched product of a and b.
func Product(a, b *Node, transA, transB bool) *Node { return add(MatMul{transA, transB}, a, b) }

// String implements Op.
func (Linear) String() string { return "Linear" }

// String implements Op.
func (LinearT) String() string { return "LinearT" }

// String implements Op.
func (Outer) String() string { return "Outer" }

// String implements Op.
func (MatMul) String() string { return "MatMul" }

func (Linear) infer(n *Node) []Type {
	n.want(0, Float, -1)
	n.want(1, Float, 2)
	x, w := n.In[0], n.In[1]
	if x.Rank() == 0 || x.Dim(-1) != w.Dim(1) {
		n.fail("last dimension of the input and of the weight differ")
	}
	out := clone(x.Shape())
	out[len(out)-1] = w.Dim(0)
	return float(out...)
}

func (LinearT) infer(n *Node) []Type {
	n.want(0, Float, -1)
	n.want(1, Float, 2)
	x, w := n.In[0], n.In[1]
	if x.Rank() == 0 || x.Dim(-1) != w.Dim(0) {
		n.fail("last dimension of the input and first of the weight differ")
	}
	out := clone(x.Shape())
	out[len(out)-1] = w.Dim(1)
	return float(out...)
}

func (Outer) infer(n *Node) []Type {
	dy, x := n.In[0], n.In[1]
	if dy.Rank() == 0 || x.Rank() == 0 || rows(dy.Shape()) != rows(x.Shape()) {
		n.fail("numbers of rows differ")
	}
	return float(dy.Dim(-1), x.Dim(-1))
}

func (o MatMul) infer(n *Node) []Type {
	n.want(0, Float, -1)
	n.want(1, Float, n.In[0].Rank())
	a, b := clone(n.In[0].Shape()), clone(n.In[1].Shape())
	r := len(a)
	if r < 2 || !same(a[:r-2], b[:r-2]) {
		n.fail("leading dimensions differ")
	}
	if o.TransA {
		a[r-2], a[r-1] = a[r-1], a[r-2]
	}
	if o.TransB {
		b[r-2], b[r-1] = b[r-1], b[r-2]
	}
	if a[r-1] != b[r-2] {
		n.fail("inner dimensions %d and %d differ", a[r-1], b[r-2])
	}
	return float(append(a[:r-1], b[r-1])...)
}

func (Linear) vjp(n *Node, dy []*Node) []*Node {
	x, w := n.In[0], n.In[1]
	out := []*Node{nil, nil}
	if w.needs {
		out[1] = add(Outer{}, dy[0], x)
	}
	if x.needs {
		out[0] = ProjectT(dy[0], w)
	}
	return out
}

func (LinearT) vjp(n *Node, dy []*Node) []*Node {
	x, w := n.In[0], n.In[1]
	out := []*Node{nil, nil}
	if w.needs {
		out[1] = add(Outer{}, x, dy[0])
	}
	if x.needs {
		out[0] = Project(dy[0], w)
	}
	return out
}

func (Outer) vjp(n *Node, dW []*Node) []*Node {
	dy, x := n.In[0], n.In[1]
	out := []*Node{nil, nil}
	if dy.needs {
		out[0] = Project(x, dW[0])
	}
	if x.needs {
		out[1] = ProjectT(dy, dW[0])
	}
	return out
}

func (o MatMul) vjp(n *Node, dy []*Node) []*Node {
	a, b, d := n.In[0], n.In[1], dy[0]
	out := []*Node{nil, nil}
	if a.needs {
		if o.TransA {
			out[0] = Product(b, d, o.TransB, true)
		} else {
			out[0] = Product(d, b, false, !o.TransB)
		}
	}
	if b.needs {
		if o.TransB {
			out[1] = Product(d, a, true, o.TransA)
		} else {
			out[1] = Product(a, d, !o.TransA, false)
		}
	}
	return out
}
