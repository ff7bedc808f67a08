package graph

// Fn names an elementwise function of one or two values.
type Fn uint8

// Functions of one value, then of two.
const (
	Neg Fn = iota
	Exp
	Log
	Sqrt
	Square
	Reciprocal
	Tanh
	Sigmoid
	LogSigmoid // −softplus(−x)
	Softplus   // log(1 + eˣ)
	SiLU       // x·σ(x)
	Gelu       // x·Φ(x), exact, by erf
	GeluTanh   // Gelu by its tanh approximation (Hendrycks and Gimpel 2016)
	ReLU
	Abs
	Sign // −1, 0 or 1; its gradient is 0

	Add
	Sub
	Mul
	Div
	Min // the gradient of a tie goes to the first input
	Max
	Less   // 1 where a < b, else 0; no gradient
	LessEq // 1 where a ≤ b
	Equal  // 1 where a = b
)

var fnNames = [...]string{
	"Neg", "Exp", "Log", "Sqrt", "Square", "Reciprocal", "Tanh", "Sigmoid", "LogSigmoid", "Softplus", "SiLU", "Gelu",
	"GeluTanh", "ReLU", "Abs", "Sign", "Add", "Sub", "Mul", "Div", "Min", "Max", "Less", "LessEq", "Equal",
}

func (f Fn) String() string { return fnNames[f] }

// Unary is y = f(x), element by element.
type Unary struct{ Fn Fn }

// UnaryGrad is dx = dy · f′(x); inputs dy, x.
type UnaryGrad struct{ Fn Fn }

// Affine is y = Mul·x + Add with two constants, which are whole where x is integers.
type Affine struct{ Mul, Add float32 }

// Clamp is y = min(max(x, Lo), Hi); the gradient is 1 inside, borders included, 0 outside.
type Clamp struct{ Lo, Hi float32 }

// Binary is y = f(a, b) with NumPy's broadcasting: shapes are aligned at their ends and a dimension of 1 repeats.
type Binary struct{ Fn Fn }

// Where is y = a where the condition is not 0, else b; all three have one shape.
type Where struct{}

// Apply returns f(x) for a function of one value.
func Apply(f Fn, x *Node) *Node { return add(Unary{f}, x) }

// Combine returns f(a, b) for a function of two values, broadcasting.
func Combine(f Fn, a, b *Node) *Node { return add(Binary{f}, a, b) }

// Plus returns a + b.
func Plus(a, b *Node) *Node { return Combine(Add, a, b) }

// Minus returns a − b.
func Minus(a, b *Node) *Node { return Combine(Sub, a, b) }

// Times returns a · b, element by element.
func Times(a, b *Node) *Node { return Combine(Mul, a, b) }

// Over returns a / b.
func Over(a, b *Node) *Node { return Combine(Div, a, b) }

// Scale returns c·x.
func Scale(x *Node, c float32) *Node {
	if c == 1 {
		return x
	}
	return add(Affine{Mul: c}, x)
}

// Shift returns x + c; x may be integers.
func Shift(x *Node, c float32) *Node { return add(Affine{Mul: 1, Add: c}, x) }

// Bound returns x clamped to lo … hi.
func Bound(x *Node, lo, hi float32) *Node { return add(Clamp{lo, hi}, x) }

// Select returns a where cond is not 0, else b.
func Select(cond, a, b *Node) *Node { return add(Where{}, cond, a, b) }

// Softcap returns c·tanh(x/c), the soft limit of Gemma 2's logits; c = 0 is no limit.
func Softcap(x *Node, c float32) *Node {
	if c == 0 {
		return x
	}
	return Scale(Apply(Tanh, Scale(x, 1/c)), c)
}

// String implements Op.
func (o Unary) String() string { return o.Fn.String() }

// String implements Op.
func (o UnaryGrad) String() string { return o.Fn.String() + "Grad" }

// String implements Op.
func (Affine) String() string { return "Affine" }

// String implements Op.
func (Clamp) String() string { return "Clamp" }

// String implements Op.
func (o Binary) String() string { return o.Fn.String() }

// String implements Op.
func (Where) String() string { return "Where" }

func (o Unary) infer(n *Node) []Type {
	if o.Fn >= Add {
		n.fail("%v is not a function of one value", o.Fn)
	}
	n.want(0, Float, -1)
	return float(n.In[0].Shape()...)
}

func (o UnaryGrad) infer(n *Node) []Type {
	if !same(n.In[0].Shape(), n.In[1].Shape()) {
		n.fail("want equal shapes")
	}
	return float(n.In[1].Shape()...)
}

func (o Affine) infer(n *Node) []Type {
	if n.In[0].Kind() == Int && (o.Mul != float32(int32(o.Mul)) || o.Add != float32(int32(o.Add))) {
		n.fail("integers stay integers: want whole constants, have %g and %g", o.Mul, o.Add)
	}
	return []Type{{Shape: n.In[0].Shape(), Kind: n.In[0].Kind()}}
}
func (Clamp) infer(n *Node) []Type { n.want(0, Float, -1); return float(n.In[0].Shape()...) }

func (o Binary) infer(n *Node) []Type {
	if o.Fn < Add || o.Fn > Equal {
		n.fail("%v is not a function of two values", o.Fn)
	}
	n.want(0, Float, -1)
	n.want(1, Float, -1)
	shape, ok := broadcast(n.In[0].Shape(), n.In[1].Shape())
	if !ok {
		n.fail("shapes do not broadcast")
	}
	return float(shape...)
}

// broadcast returns the common shape of a and b by NumPy's rule.
func broadcast(a, b []int) ([]int, bool) {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := clone(a)
	off := len(a) - len(b)
	for i, d := range b {
		switch {
		case out[off+i] == d || d == 1:
		case out[off+i] == 1:
			out[off+i] = d
		default:
			return nil, false
		}
	}
	return out, true
}

func (Where) infer(n *Node) []Type {
	for i := range 3 {
		n.want(i, Float, -1)
		if !same(n.In[i].Shape(), n.In[0].Shape()) {
			n.fail("want three equal shapes")
		}
	}
	return float(n.In[0].Shape()...)
}

func (o Unary) vjp(n *Node, dy []*Node) []*Node {
	x := n.In[0]
	switch o.Fn {
	case Neg:
		return []*Node{Scale(dy[0], -1)}
	case Exp:
		return []*Node{Times(dy[0], n)}
	case Sign:
		return []*Node{nil}
	}
	return []*Node{add(UnaryGrad(o), dy[0], x)}
}

func (UnaryGrad) vjp(n *Node, _ []*Node) []*Node { return noSecond(n) }

// noSecond refuses the gradient of an operation that is itself part of a gradient.
func noSecond(n *Node) []*Node {
	n.fail("has no gradient of its own: second derivatives are not supported")
	return nil
}

func (o Affine) vjp(_ *Node, dy []*Node) []*Node { return []*Node{Scale(dy[0], o.Mul)} }

func (o Clamp) vjp(n *Node, dy []*Node) []*Node {
	x := n.In[0]
	g := n.graph
	inside := Times(Combine(LessEq, g.Scalar(o.Lo), x), Combine(LessEq, x, g.Scalar(o.Hi)))
	return []*Node{Times(dy[0], inside)}
}

func (o Binary) vjp(n *Node, dy []*Node) []*Node {
	a, b, d := n.In[0], n.In[1], dy[0]
	var da, db func() *Node
	switch o.Fn {
	case Add:
		da, db = func() *Node { return d }, func() *Node { return d }
	case Sub:
		da, db = func() *Node { return d }, func() *Node { return Scale(d, -1) }
	case Mul:
		da, db = func() *Node { return Times(d, b) }, func() *Node { return Times(d, a) }
	case Div:
		da = func() *Node { return Over(d, b) }
		db = func() *Node { return Scale(Times(d, Over(n, b)), -1) }
	case Min:
		first := Combine(LessEq, a, b)
		da, db = func() *Node { return Times(d, first) }, func() *Node { return Times(d, Shift(Scale(first, -1), 1)) }
	case Max:
		first := Combine(LessEq, b, a)
		da, db = func() *Node { return Times(d, first) }, func() *Node { return Times(d, Shift(Scale(first, -1), 1)) }
	default:
		return []*Node{nil, nil}
	}
	out := []*Node{nil, nil}
	if a.needs {
		out[0] = SumTo(da(), a.Shape())
	}
	if b.needs {
		out[1] = SumTo(db(), b.Shape())
	}
	return out
}

func (Where) vjp(n *Node, dy []*Node) []*Node {
	zero := BroadcastTo(n.graph.Scalar(0), n.Shape())
	return []*Node{nil, Select(n.In[0], dy[0], zero), Select(n.In[0], zero, dy[0])}
}
