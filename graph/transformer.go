package graph

// Legend of shapes: B batch rows, T positions, S keys, P prefix keys, H query heads, G key/value heads, D head
// dimension, C channels, V vocabulary, N selected positions.

// Embed looks up rows: W (V, C), ids (…), result (…, C). The row PadID gets no gradient, as in PyTorch's
// padding_idx; −1 is none. An id outside of the vocabulary is an error of the run.
type Embed struct{ PadID int }

// EmbedGrad is the gradient of the table: inputs dy (…, C), ids (…), result (V, C).
type EmbedGrad struct{ V, PadID int }

// RMSNorm is y = x / √(mean(x²) + Eps) · (w + Offset) over the last axis (Zhang and Sennrich 2019); Gemma's Offset
// is 1.
type RMSNorm struct{ Eps, Offset float32 }

// RMSNormGrad has inputs dy, x, w and results dx, dw.
type RMSNormGrad struct{ Eps, Offset float32 }

// LayerNorm is y = (x − mean) / √(var + Eps) · w + b over the last axis; the third input, b, may be absent.
type LayerNorm struct{ Eps float32 }

// LayerNormGrad has inputs dy, x, w and results dx, dw, db.
type LayerNormGrad struct{ Eps float32 }

// RoPE rotates pairs of channels by position · InvFreq (Su et al. 2021): x (B, T, H, D), positions (B, T). It
// rotates the first 2·len(InvFreq) channels of a head and passes the others. The pair of channel i is i +
// len(InvFreq), or the neighbour where Interleaved is set. Cosine and sine are multiplied by Factor. Inverse turns
// the other way, which is the gradient.
type RoPE struct {
	InvFreq     []float32
	Factor      float32
	Interleaved bool
	Inverse     bool
}

// Attention is softmax(Scale · q·kᵀ)·v per head: q (B, T, H, D), k and v (B, P+T, G, D), H a multiple of G, and,
// as fourth input where it is present, segments (B, T). The first Prefix keys are seen by every query. Of the
// others query i sees key j where j ≤ i if Causal, j > i − Window if Window > 0, and both have the same segment.
// Softcap > 0 limits the scores to Softcap·tanh(score / Softcap). Results: out (B, T, H, D) and the logarithm of
// the softmax's denominator (B, H, T).
type Attention struct {
	Causal  bool
	Window  int
	Prefix  int
	Softcap float32
	Scale   float32
}

// AttentionGrad has the inputs dout, q, k, v, out, lse and segments where present; results dq, dk, dv.
type AttentionGrad struct{ Attention }

// GatedAct is y = f(gate) · up with f of SiLU, Gelu, GeluTanh, ReLU (Shazeer 2020).
type GatedAct struct{ Fn Fn }

// GatedActGrad has inputs dy, gate, up and results dgate, dup.
type GatedActGrad struct{ Fn Fn }

// Dropout zeroes elements with probability Rate and divides the others by 1 − Rate. The second input, key (2), is
// the low and high half of a number that changes with the seed and the step; DropoutKeep says which elements stay.
// Its gradient is itself.
type Dropout struct {
	Rate float32
	Salt uint32 // number of the dropout in the graph
}

// TokenLogProb gives per selected position the log-probability of its target: h (N, C), W (V, C), targets (N), and
// as fourth input where present a bias (V). Logits are Scale · (h·Wᵀ + bias), then limited by Softcap where it is
// not 0. A target of −1 gives 0 and costs nothing. Results: log-prob of the target (N) and the mean of the log-probs over the
// vocabulary (N), which label smoothing uses.
type TokenLogProb struct{ Scale, Softcap float32 }

// TokenLogProbGrad has the inputs of TokenLogProb behind dlogp (N) and, where Smooth is set, dmean (N); results dh
// (N, C), dW (V, C) and dbias (V).
type TokenLogProbGrad struct {
	TokenLogProb
	Smooth bool
}

// CacheAppend writes x (B, T, G, D) into a cache (B, S, G, D) at rows start[b] … start[b]+T−1 and gives the cache.
type CacheAppend struct{}

// CachedAttention is Attention of queries at index start[b] + i over a cache: q (B, T, H, D), k and v caches (B,
// S, G, D), start (B). Query and key indices count the prefix too, and Causal is always true.
type CachedAttention struct{ Attention }

// Lookup returns the rows of a table by id; see Embed.
func Lookup(w, ids *Node, padID int) *Node { return add(Embed{padID}, w, ids) }

// NormRMS returns the RMS norm of x; see RMSNorm.
func NormRMS(x, w *Node, eps, offset float32) *Node { return add(RMSNorm{eps, offset}, x, w) }

// NormLayer returns the layer norm of x; b may be nil.
func NormLayer(x, w, b *Node, eps float32) *Node {
	if b == nil {
		return add(LayerNorm{eps}, x, w)
	}
	return add(LayerNorm{eps}, x, w, b)
}

// Rotate applies rotary positions; see RoPE.
func Rotate(x, positions *Node, r RoPE) *Node { return add(r, x, positions) }

// Attend returns the attention's output; segments may be nil.
func Attend(q, k, v, segments *Node, a Attention) *Node {
	if segments == nil {
		return pick(add(a, q, k, v), 0)
	}
	return pick(add(a, q, k, v, segments), 0)
}

// Gate returns f(gate) · up.
func Gate(f Fn, gate, up *Node) *Node { return add(GatedAct{f}, gate, up) }

// Drop applies dropout with its own mask; key is described at Dropout.
func Drop(x, key *Node, rate float32) *Node {
	if rate == 0 {
		return x
	}
	x.graph.dropouts++
	return add(Dropout{rate, x.graph.dropouts}, x, key)
}

// LogProbs returns the log-probability of the targets and the mean log-probability over the vocabulary; bias may
// be nil. See TokenLogProb.
func LogProbs(h, w, targets, bias *Node, o TokenLogProb) (logp, mean *Node) {
	in := []*Node{h, w, targets}
	if bias != nil {
		in = append(in, bias)
	}
	n := add(o, in...)
	return pick(n, 0), pick(n, 1)
}

// Append writes x into a cache; see CacheAppend.
func Append(cache, x, start *Node) *Node { return add(CacheAppend{}, cache, x, start) }

// AttendCached returns attention over caches; see CachedAttention.
func AttendCached(q, k, v, start *Node, a Attention) *Node {
	a.Causal = true
	return add(CachedAttention{a}, q, k, v, start)
}

// DropoutKeep reports whether element i of the dropout with the salt stays. It is the definition of the mask for
// every engine: splitmix64 of a counter under the key, compared with the rate.
func DropoutKeep(key uint64, salt uint32, i uint64, rate float32) bool {
	z := key + (uint64(salt)<<40+i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return uint32(z>>32) >= uint32(min(float64(rate)*(1<<32), 1<<32-1))
}

// String implements Op.
func (Embed) String() string { return "Embed" }

// String implements Op.
func (EmbedGrad) String() string { return "EmbedGrad" }

// String implements Op.
func (RMSNorm) String() string { return "RMSNorm" }

// String implements Op.
func (RMSNormGrad) String() string { return "RMSNormGrad" }

// String implements Op.
func (LayerNorm) String() string { return "LayerNorm" }

// String implements Op.
func (LayerNormGrad) String() string { return "LayerNormGrad" }

// String implements Op.
func (RoPE) String() string { return "RoPE" }

// String implements Op.
func (Attention) String() string { return "Attention" }

// String implements Op.
func (AttentionGrad) String() string { return "AttentionGrad" }

// String implements Op.
func (GatedAct) String() string { return "GatedAct" }

// String implements Op.
func (GatedActGrad) String() string { return "GatedActGrad" }

// String implements Op.
func (Dropout) String() string { return "Dropout" }

// String implements Op.
func (TokenLogProb) String() string { return "TokenLogProb" }

// String implements Op.
func (TokenLogProbGrad) String() string { return "TokenLogProbGrad" }

// String implements Op.
func (CacheAppend) String() string { return "CacheAppend" }

// String implements Op.
func (CachedAttention) String() string { return "CachedAttention" }

func (Embed) infer(n *Node) []Type {
	n.want(0, Float, 2)
	n.want(1, Int, -1)
	return float(append(clone(n.In[1].Shape()), n.In[0].Dim(1))...)
}

func (o EmbedGrad) infer(n *Node) []Type { return float(o.V, n.In[0].Dim(-1)) }

// vector fails unless input i is a vector as long as the last axis of input 0.
func (n *Node) vector(i int) {
	n.want(i, Float, 1)
	if n.In[0].Rank() == 0 || n.In[i].Dim(0) != n.In[0].Dim(-1) {
		n.fail("input %d has %d elements, the last axis of the first has %d", i, n.In[i].Dim(0), n.In[0].Dim(-1))
	}
}

func (RMSNorm) infer(n *Node) []Type {
	n.vector(1)
	return float(n.In[0].Shape()...)
}

func (RMSNormGrad) infer(n *Node) []Type {
	return []Type{n.In[1].Types[0], n.In[2].Types[0]}
}

func (LayerNorm) infer(n *Node) []Type {
	for i := 1; i < len(n.In); i++ {
		n.vector(i)
	}
	return float(n.In[0].Shape()...)
}

func (LayerNormGrad) infer(n *Node) []Type {
	return []Type{n.In[1].Types[0], n.In[2].Types[0], n.In[2].Types[0]}
}

func (o RoPE) infer(n *Node) []Type {
	n.want(0, Float, 4)
	n.want(1, Int, 2)
	x := n.In[0]
	if !same(x.Shape()[:2], n.In[1].Shape()) {
		n.fail("positions differ from the first two dimensions")
	}
	if 2*len(o.InvFreq) > x.Dim(3) {
		n.fail("%d frequencies rotate more than the head's %d channels", len(o.InvFreq), x.Dim(3))
	}
	return float(x.Shape()...)
}

func (o Attention) infer(n *Node) []Type {
	for i := range 3 {
		n.want(i, Float, 4)
	}
	q, k := n.In[0], n.In[1]
	if !same(k.Shape(), n.In[2].Shape()) {
		n.fail("keys and values differ in shape")
	}
	if q.Dim(0) != k.Dim(0) || q.Dim(3) != k.Dim(3) || k.Dim(2) == 0 || q.Dim(2)%k.Dim(2) != 0 {
		n.fail("want equal batch and head dimension, and query heads a multiple of key heads")
	}
	if k.Dim(1) != q.Dim(1)+o.Prefix {
		n.fail("want %d keys (%d prefix + %d queries), have %d", q.Dim(1)+o.Prefix, o.Prefix, q.Dim(1), k.Dim(1))
	}
	if len(n.In) > 3 {
		n.want(3, Int, 2)
		if !same(n.In[3].Shape(), q.Shape()[:2]) {
			n.fail("segments differ from the first two dimensions")
		}
	}
	return []Type{q.Types[0], {Shape: []int{q.Dim(0), q.Dim(2), q.Dim(1)}, Kind: Float}}
}

func (AttentionGrad) infer(n *Node) []Type {
	return []Type{n.In[1].Types[0], n.In[2].Types[0], n.In[3].Types[0]}
}

func (o GatedAct) infer(n *Node) []Type {
	switch o.Fn {
	case SiLU, Gelu, GeluTanh, ReLU:
	default:
		n.fail("gate function %v is not one of SiLU, Gelu, GeluTanh, ReLU", o.Fn)
	}
	if !same(n.In[0].Shape(), n.In[1].Shape()) {
		n.fail("gate and up differ in shape")
	}
	return float(n.In[0].Shape()...)
}

func (GatedActGrad) infer(n *Node) []Type {
	return []Type{n.In[1].Types[0], n.In[2].Types[0]}
}

func (o Dropout) infer(n *Node) []Type {
	n.want(0, Float, -1)
	n.want(1, Int, 1)
	if o.Rate <= 0 || o.Rate >= 1 {
		n.fail("rate %v is not between 0 and 1", o.Rate)
	}
	return float(n.In[0].Shape()...)
}

func (TokenLogProb) infer(n *Node) []Type {
	n.want(0, Float, 2)
	n.want(1, Float, 2)
	n.want(2, Int, 1)
	h, w := n.In[0], n.In[1]
	if h.Dim(1) != w.Dim(1) || n.In[2].Dim(0) != h.Dim(0) {
		n.fail("want hidden (N, C), vocabulary (V, C), targets (N)")
	}
	if len(n.In) > 3 {
		n.want(3, Float, 1)
		if n.In[3].Dim(0) != w.Dim(0) {
			n.fail("bias has %d elements, the vocabulary %d", n.In[3].Dim(0), w.Dim(0))
		}
	}
	t := Type{Shape: []int{h.Dim(0)}, Kind: Float}
	return []Type{t, t}
}

func (o TokenLogProbGrad) infer(n *Node) []Type {
	in := n.In[1:]
	if o.Smooth {
		in = in[1:]
	}
	return []Type{in[0].Types[0], in[1].Types[0], {Shape: []int{in[1].Dim(0)}, Kind: Float}}
}

func (CacheAppend) infer(n *Node) []Type {
	n.want(0, Float, 4)
	n.want(1, Float, 4)
	n.want(2, Int, 1)
	c, x := n.In[0], n.In[1]
	if c.Dim(0) != x.Dim(0) || !same(c.Shape()[2:], x.Shape()[2:]) || x.Dim(1) > c.Dim(1) || n.In[2].Dim(0) != c.Dim(0) {
		n.fail("want cache (B, S, G, D), new rows (B, T ≤ S, G, D), start (B)")
	}
	return c.Types
}

func (CachedAttention) infer(n *Node) []Type {
	for i := range 3 {
		n.want(i, Float, 4)
	}
	q, k := n.In[0], n.In[1]
	n.want(3, Int, 1)
	if !same(k.Shape(), n.In[2].Shape()) || q.Dim(0) != k.Dim(0) || q.Dim(3) != k.Dim(3) || q.Dim(2)%k.Dim(2) != 0 {
		n.fail("want queries (B, T, H, D) and caches (B, S, G, D) with H a multiple of G")
	}
	return float(q.Shape()...)
}

func (o Embed) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{add(EmbedGrad{n.In[0].Dim(0), o.PadID}, dy[0], n.In[1]), nil}
}

func (o RMSNorm) vjp(n *Node, dy []*Node) []*Node {
	d := add(RMSNormGrad(o), dy[0], n.In[0], n.In[1])
	return results(n, d, 0, 1)
}

// results picks the results of a gradient operation for the inputs of n that need one; place[i] is the result that
// is the gradient of input i, −1 for none.
func results(n, d *Node, place ...int) []*Node {
	out := make([]*Node, len(n.In))
	for i := range n.In {
		if i < len(place) && place[i] >= 0 && n.In[i].needs {
			out[i] = pick(d, place[i])
		}
	}
	return out
}

func (o LayerNorm) vjp(n *Node, dy []*Node) []*Node {
	d := add(LayerNormGrad(o), dy[0], n.In[0], n.In[1])
	return results(n, d, 0, 1, 2)
}

func (o RoPE) vjp(n *Node, dy []*Node) []*Node {
	o.Inverse = !o.Inverse
	return []*Node{add(o, dy[0], n.In[1]), nil}
}

func (o Attention) vjp(n *Node, dy []*Node) []*Node {
	if dy[1] != nil {
		n.fail("the gradient of the softmax's denominator is not supported")
	}
	in := []*Node{dy[0], n.In[0], n.In[1], n.In[2], pick(n, 0), pick(n, 1)}
	d := add(AttentionGrad{o}, append(in, n.In[3:]...)...)
	return results(n, d, 0, 1, 2)
}

func (o GatedAct) vjp(n *Node, dy []*Node) []*Node {
	d := add(GatedActGrad(o), dy[0], n.In[0], n.In[1])
	return results(n, d, 0, 1)
}

func (o Dropout) vjp(n *Node, dy []*Node) []*Node {
	return []*Node{add(o, dy[0], n.In[1]), nil}
}

func (o TokenLogProb) vjp(n *Node, dy []*Node) []*Node {
	var in []*Node
	if dy[0] == nil {
		dy[0] = BroadcastTo(n.graph.Scalar(0), n.Shape())
	}
	in = append(in, dy[0])
	if dy[1] != nil {
		in = append(in, dy[1])
	}
	d := add(TokenLogProbGrad{o, dy[1] != nil}, append(in, n.In...)...)
	return results(n, d, 0, 1, -1, 2)
}

func (EmbedGrad) vjp(n *Node, _ []*Node) []*Node        { return noSecond(n) }
func (RMSNormGrad) vjp(n *Node, _ []*Node) []*Node      { return noSecond(n) }
func (LayerNormGrad) vjp(n *Node, _ []*Node) []*Node    { return noSecond(n) }
func (AttentionGrad) vjp(n *Node, _ []*Node) []*Node    { return noSecond(n) }
func (GatedActGrad) vjp(n *Node, _ []*Node) []*Node     { return noSecond(n) }
func (TokenLogProbGrad) vjp(n *Node, _ []*Node) []*Node { return noSecond(n) }
func (CacheAppend) vjp(n *Node, _ []*Node) []*Node      { return noSecond(n) }
func (CachedAttention) vjp(n *Node, _ []*Node) []*Node  { return noSecond(n) }
