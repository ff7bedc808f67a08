// Package site names the places of a model where a method can change the computation. A model builds its
// projections, norms, sub-layers, key/value pairs, embedding and head through a Scope; a method grafts onto them by
// implementing the interfaces of this package that it needs. Neither knows the other.
//
// Parameters are named as in the checkpoint ("model.layers.0.self_attn.q_proj.weight"). What a method adds is named
// as in the adapter's file, so that the file is those tensors and nothing else.
package site

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"tunesmith/graph"
	"tunesmith/quant"
)

// Linear is one projection of the model.
type Linear struct {
	Path    string // module path, such as "model.layers.0.self_attn.q_proj"
	In, Out int
	Bias    bool
	Head    bool // the output projection to the vocabulary
	// Transposed weights stand as (in, out) in the file, as those of GPT-2's Conv1D.
	Transposed bool
}

// weight returns the shape of the projection's weight in the file.
func (l Linear) weight() []int {
	if l.Transposed {
		return []int{l.In, l.Out}
	}
	return []int{l.Out, l.In}
}

// A method implements those of these interfaces that it needs.
type (
	// LinearGrafter changes the result y of a projection of x.
	LinearGrafter interface {
		GraftLinear(s *Scope, l Linear, x, y *graph.Node) *graph.Node
	}
	// SublayerGrafter changes the result y of an attention or feed-forward block before it joins the residual stream x.
	SublayerGrafter interface {
		GraftSublayer(s *Scope, path string, x, y *graph.Node) *graph.Node
	}
	// Prefixer puts n virtual positions in front of every row; the rows' own positions move up by shift.
	Prefixer interface {
		Prefix() (n, shift int)
	}
	// KVGrafter is a Prefixer that gives the keys and values (n, G, D) of its virtual positions in each layer.
	KVGrafter interface {
		GraftKV(s *Scope, path string, k, v *graph.Node) (pk, pv *graph.Node)
	}
	// PromptGrafter is a Prefixer that gives the embeddings (n, C) of its virtual positions, which pass through the
	// model like those of tokens.
	PromptGrafter interface {
		GraftPrompt(s *Scope, path string) *graph.Node
	}
	// AttentionGrafter changes the attention's result y of rotated queries q (B, T, H, D), before the output projection.
	AttentionGrafter interface {
		GraftAttention(s *Scope, path string, q, y *graph.Node) *graph.Node
	}
	// EmbedGrafter changes the embedded input.
	EmbedGrafter interface {
		GraftEmbed(s *Scope, path string, ids, x *graph.Node) *graph.Node
	}
	// HeadGrafter changes the output projection of h (…, C) by w (V, C); both may get more channels.
	HeadGrafter interface {
		GraftHead(s *Scope, l Linear, h, w *graph.Node) (*graph.Node, *graph.Node)
	}
	// ParamGrafter puts another parameter in the place of one of the model's; nil keeps it. The path is that of the
	// module that uses it, which for tied weights differs from the parameter's name.
	ParamGrafter interface {
		GraftParam(s *Scope, path string, p Param) *graph.Node
	}
	// BaseStorer keeps frozen parameters of the model in another storage than their file's.
	BaseStorer interface {
		// StoreBase returns what encodes the values of a parameter whose storage is have; nil for one that stays as it is.
		StoreBase(p Param, have quant.Format) (func(values []float32) (quant.Format, []byte), error)
	}
	// Selector says which of the model's own parameters train.
	Selector interface {
		TrainBase(name string) bool
	}
)

// Inputs are what a model computes from. B rows of T positions.
type Inputs struct {
	IDs       *graph.Node // (B, T)
	Positions *graph.Node // (B, T)
	Segments  *graph.Node // (B, T), or nil where a row is one sequence; −1 is padding
	// Start (B) is the index in the key/value caches of each row's first position; nil without caches.
	Start *graph.Node
	// Length is the number of positions that a row may come to with caches, which some scalings of positions depend on.
	Length int
	// CacheLen is the caches' length in positions.
	CacheLen int
	// Lead has the pass fill the caches' beginning with the virtual positions, which later passes then find there.
	Lead bool
	// DropKey (2) feeds the dropouts; nil switches them off, as for evaluation.
	DropKey *graph.Node
	// Recompute keeps only what enters a layer for the backward pass.
	Recompute bool
}

// Scope is where in a model the builder stands.
type Scope struct {
	*graph.Graph
	In     Inputs
	grafts []any
	map_   *Map
	lead   *lead // the virtual tokens' way through the model; nil without them
	bare   bool  // this is that way
	routes []Route
	memo   map[string]*graph.Node
}

// lead is the virtual tokens in front of every row. No token before them exists, so that what they are in each layer
// depends on nothing else: they pass through the model once for all rows, which see them as keys and values.
type lead struct {
	scope *Scope
	x     *graph.Node               // (1, n, C)
	kv    map[string][2]*graph.Node // (n, G, D) of each layer
}

// New returns the outermost scope of a graph. Grafts act in the order given.
func New(g *graph.Graph, in Inputs, grafts ...any) *Scope {
	s := &Scope{Graph: g, In: in, grafts: grafts, map_: newMap()}
	shift := 0
	for _, g := range grafts {
		if t, ok := g.(Prefixer); ok {
			n, by := t.Prefix()
			s.map_.Prefix += n
			shift += by
		}
	}
	if shift != 0 {
		s.In.Positions = graph.Shift(in.Positions, float32(shift))
	}
	if s.map_.Prefix > 0 && in.Start != nil {
		s.In.Start, s.In.CacheLen = graph.Shift(in.Start, float32(s.map_.Prefix)), in.CacheLen+s.map_.Prefix
	}
	return s
}

// Map returns what has been built through the scope so far.
func (s *Scope) Map() *Map { return s.map_ }

// Name returns the name of something at the current place: the path and the given name.
func (s *Scope) Name(name string) string {
	if p := s.Path(); p != "" {
		return p + "." + name
	}
	return name
}

// Memo returns the node that f builds when it is first asked for, for what several places of the model use.
func (s *Scope) Memo(key string, f func() *graph.Node) *graph.Node {
	n, ok := s.memo[key]
	if !ok {
		if s.memo == nil {
			s.memo = map[string]*graph.Node{}
		}
		n = f()
		s.memo[key] = n
	}
	return n
}

// Training reports whether dropouts are active.
func (s *Scope) Training() bool { return s.In.DropKey != nil }

// base returns one of the model's own parameters, for the module at path: its name is the module's path and the
// given leaf ("weight", "bias") unless shared names another module whose parameter it is.
func (s *Scope) base(path, leaf, shared string, shape ...int) *graph.Node {
	return s.own(path+"."+leaf, Param{Name: cmp.Or(shared, path) + "." + leaf, Shape: shape, Base: true})
}

// own returns the node of one of the model's own parameters, which the module's parameter at path is.
func (s *Scope) own(path string, p Param) *graph.Node {
	for _, g := range s.grafts {
		if t, ok := g.(Selector); ok && t.TrainBase(p.Name) {
			p.Trainable = true
		}
	}
	for _, g := range s.grafts {
		if t, ok := g.(ParamGrafter); ok {
			if n := t.GraftParam(s, path, p); n != nil {
				s.map_.declare(p)
				return n
			}
		}
	}
	return s.Declare(p)
}

// Declare returns the node of a parameter and records it in the map.
func (s *Scope) Declare(p Param) *graph.Node {
	s.map_.declare(p)
	return s.Graph.Param(p.Name, p.Trainable, p.Shape...)
}

// BaseWeight returns the weight node (out, in) of a module built before, for methods that compute with it.
func (s *Scope) BaseWeight(l Linear) *graph.Node {
	w := s.base(l.Path, "weight", "", l.weight()...)
	if l.Transposed {
		w = graph.Permute(w, 1, 0)
	}
	return w
}

// BaseBias returns the bias node of a module that has one.
func (s *Scope) BaseBias(l Linear) *graph.Node { return s.base(l.Path, "bias", "", l.Out) }

// Linear builds the projection of x (…, in) named name at the current place to out features.
func (s *Scope) Linear(name string, x *graph.Node, out int, bias bool) *graph.Node {
	return s.linear(name, Linear{In: x.Dim(-1), Out: out, Bias: bias}, x)
}

// Conv1D builds a projection whose weight the file holds as (in, out).
func (s *Scope) Conv1D(name string, x *graph.Node, out int, bias bool) *graph.Node {
	return s.linear(name, Linear{In: x.Dim(-1), Out: out, Bias: bias, Transposed: true}, x)
}

func (s *Scope) linear(name string, l Linear, x *graph.Node) (y *graph.Node) {
	l.Path = s.Name(name)
	s.map_.linear(l)
	s.Scope(name, func() {
		if w := s.base(l.Path, "weight", "", l.weight()...); l.Transposed {
			y = graph.ProjectT(x, w)
		} else {
			y = graph.Project(x, w)
		}
		if l.Bias {
			y = graph.Plus(y, s.base(l.Path, "bias", "", l.Out))
		}
		for _, g := range s.grafts {
			if t, ok := g.(LinearGrafter); ok {
				y = t.GraftLinear(s, l, x, y)
			}
		}
	})
	return y
}

// RMSNorm builds an RMS norm over the last axis; see graph.RMSNorm.
func (s *Scope) RMSNorm(name string, x *graph.Node, eps, offset float32) (y *graph.Node) {
	path := s.Name(name)
	s.map_.norm(path)
	s.Scope(name, func() {
		w := Param{Name: path + ".weight", Shape: []int{x.Dim(-1)}, Base: true, Init: constant(1 - offset)}
		y = graph.NormRMS(x, s.own(w.Name, w), eps, offset)
	})
	return y
}

// LayerNorm builds a layer norm over the last axis; see graph.LayerNorm.
func (s *Scope) LayerNorm(name string, x *graph.Node, eps float32, bias bool) (y *graph.Node) {
	path := s.Name(name)
	s.map_.norm(path)
	s.Scope(name, func() {
		w, b := s.base(path, "weight", "", x.Dim(-1)), (*graph.Node)(nil)
		if bias {
			b = s.base(path, "bias", "", x.Dim(-1))
		}
		y = graph.NormLayer(x, w, b, eps)
	})
	return y
}

// HeadNorms builds a layer norm without bias for each head of x (B, T, H, D), with weights of its own: the modules
// name.0, name.1 …
func (s *Scope) HeadNorms(name string, x *graph.Node, eps float32) *graph.Node {
	heads, d := x.Dim(2), x.Dim(3)
	var weights []*graph.Node
	s.Scope(name, func() {
		for i := range heads {
			path := s.Name(strconv.Itoa(i))
			s.map_.norm(path)
			weights = append(weights, s.base(path, "weight", "", d))
		}
	})
	ones := make([]float32, d)
	constant(1)(ones, nil, nil)
	return graph.Times(graph.NormLayer(x, s.Floats(ones, d), nil, eps), graph.Reshape(graph.Join(0, weights...), heads, d))
}

// constant fills a parameter with one value.
func constant(v float32) Init {
	return func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			dst[i] = v
		}
	}
}

// Positions looks up the learned positions: a table of n rows of c channels.
func (s *Scope) Positions(name string, n, c int) (x *graph.Node) {
	path := s.Name(name)
	s.Scope(name, func() { x = graph.Lookup(s.base(path, "weight", "", n, c), s.In.Positions, -1) })
	return x
}

// Embed looks up the ids in a table of v rows and multiplies them by scale; padID is the row without gradient, −1 for
// none. Virtual tokens are not scaled.
func (s *Scope) Embed(name string, v, c, padID int, scale float32) (x *graph.Node) {
	path := s.Name(name)
	s.map_.Embedding, s.map_.Vocab, s.map_.Hidden, s.map_.EmbedScale = path, v, c, scale
	s.Scope(name, func() {
		x = graph.Lookup(s.base(path, "weight", "", v, c), s.In.IDs, padID)
		for _, g := range s.grafts {
			if t, ok := g.(EmbedGrafter); ok {
				x = t.GraftEmbed(s, path, s.In.IDs, x)
			}
		}
		x = graph.Scale(x, scale)
		s.start(path)
	})
	return x
}

// start sets out with the virtual tokens, where the pass has to compute them.
func (s *Scope) start(path string) {
	if s.In.Start != nil && !s.In.Lead {
		return
	}
	var parts []*graph.Node
	for _, g := range s.grafts {
		if t, ok := g.(PromptGrafter); ok {
			parts = append(parts, t.GraftPrompt(s, path))
		}
	}
	if len(parts) == 0 {
		return
	}
	x := graph.Join(0, parts...)
	n := x.Dim(0)
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(i)
	}
	in := Inputs{Positions: s.Ints(positions, 1, n), DropKey: s.In.DropKey}
	s.lead = &lead{
		scope: &Scope{Graph: s.Graph, In: in, grafts: s.grafts, map_: newMap(), bare: true},
		x:     graph.Reshape(x, 1, n, x.Dim(1)), kv: map[string][2]*graph.Node{},
	}
	s.lead.scope.lead = s.lead
}

// Stream runs a part of the model on the residual stream x, and before it on the virtual tokens in front of the rows,
// where there are any.
func (s *Scope) Stream(x *graph.Node, f func(s *Scope, x *graph.Node) *graph.Node) *graph.Node {
	if s.lead != nil {
		s.lead.x = f(s.lead.scope, s.lead.x)
	}
	return f(s, x)
}

// Sublayer lets methods change the result y of a block before it joins the residual stream x.
func (s *Scope) Sublayer(name string, x, y *graph.Node) *graph.Node {
	path := s.Name(name)
	s.map_.sublayer(path)
	for _, g := range s.grafts {
		if t, ok := g.(SublayerGrafter); ok {
			y = t.GraftSublayer(s, path, x, y)
		}
	}
	return y
}

// Attention builds the attention of q (B, T, H, D) over k and v (B, T, G, D) with the prefixes that methods add, in
// one go or, with caches, behind what the caches hold. Its path is the current place.
func (s *Scope) Attention(q, k, v *graph.Node, a graph.Attention) *graph.Node {
	path := s.Path()
	s.map_.kv(KV{Path: path, Queries: q.Dim(2), Heads: k.Dim(2), HeadDim: k.Dim(3)})
	y := s.attend(path, q, k, v, a)
	for _, g := range s.grafts {
		if t, ok := g.(AttentionGrafter); ok {
			y = t.GraftAttention(s, path, q, y)
		}
	}
	return y
}

func (s *Scope) attend(path string, q, k, v *graph.Node, a graph.Attention) *graph.Node {
	if s.In.Start != nil && !s.In.Lead {
		a.Prefix = s.map_.Prefix
		return s.cached(path, q, k, v, nil, nil, a)
	}
	pk, pv := s.prefix(path, k, v)
	for _, x := range pk {
		a.Prefix += x.Dim(1)
	}
	if s.bare {
		row := func(x *graph.Node) *graph.Node { return graph.Reshape(x, x.Shape()[1:]...) }
		s.lead.kv[path] = [2]*graph.Node{row(k), row(v)}
	}
	if s.In.Start != nil {
		return s.cached(path, q, k, v, pk, pv, a)
	}
	return graph.Attend(q, graph.Join(1, append(pk, k)...), graph.Join(1, append(pv, v)...), s.In.Segments, a)
}

// prefix returns what stands in front of the keys k and values v of a layer: what methods give, then the virtual tokens.
func (s *Scope) prefix(path string, k, v *graph.Node) (pk, pv []*graph.Node) {
	for _, g := range s.grafts {
		if t, ok := g.(KVGrafter); ok {
			if x, y := t.GraftKV(s, path, k, v); x != nil {
				pk, pv = append(pk, s.rows(x, k)), append(pv, s.rows(y, v))
			}
		}
	}
	if s.lead != nil && !s.bare {
		kv := s.lead.kv[path]
		pk, pv = append(pk, s.rows(kv[0], k)), append(pv, s.rows(kv[1], v))
	}
	return pk, pv
}

// rows repeats a prefix (n, G, D) for every row of like (B, …).
func (s *Scope) rows(x, like *graph.Node) *graph.Node {
	shape := append([]int{like.Dim(0)}, x.Shape()...)
	return graph.BroadcastTo(graph.Reshape(x, append([]int{1}, x.Shape()...)...), shape)
}

// cached appends k and v to the layer's caches and attends over them. A prefix stands at the caches' beginning; Start
// counts it.
func (s *Scope) cached(path string, q, k, v *graph.Node, pk, pv []*graph.Node, a graph.Attention) *graph.Node {
	shape := []int{k.Dim(0), s.In.CacheLen, k.Dim(2), k.Dim(3)}
	ck, cv := s.State(path+".cache_k", shape...), s.State(path+".cache_v", shape...)
	s.map_.state(path+".cache_k", shape)
	s.map_.state(path+".cache_v", shape)
	if len(pk) > 0 {
		zero := s.Ints(make([]int32, k.Dim(0)), k.Dim(0))
		ck, cv = graph.Append(ck, graph.Join(1, pk...), zero), graph.Append(cv, graph.Join(1, pv...), zero)
	}
	return graph.AttendCached(q, graph.Append(ck, k, s.In.Start), graph.Append(cv, v, s.In.Start), s.In.Start, a)
}

// Head returns the operands of the output projection named name of h (…, C) to v rows: the hidden states and the
// weight, changed by the methods. tied names the module whose weight it shares, empty for none.
func (s *Scope) Head(name, tied string, h *graph.Node, v int) (h2, w *graph.Node) {
	l := Linear{Path: s.Name(name), In: h.Dim(-1), Out: v, Head: true}
	s.map_.head(l, tied)
	s.Scope(name, func() {
		w = s.base(l.Path, "weight", tied, v, l.In)
		for _, g := range s.grafts {
			if t, ok := g.(HeadGrafter); ok {
				h, w = t.GraftHead(s, l, h, w)
			}
		}
	})
	return h, w
}

// HeadBias returns the bias of the output projection named name to v rows.
func (s *Scope) HeadBias(name string, v int) *graph.Node {
	s.map_.Output.Bias = true
	return s.base(s.Name(name), "bias", "", v)
}

// Layer runs f at the place name, as a recomputed region where the inputs ask for it.
func (s *Scope) Layer(name string, f func()) {
	s.map_.Layers++
	s.Scope(name, func() {
		if s.In.Recompute {
			s.Recompute(f)
		} else {
			f()
		}
	})
}

// IndexOf returns the number of the layer in a module path such as "model.layers.3.mlp", or −1.
func IndexOf(path string) int {
	parts := strings.Split(path, ".")
	for _, p := range parts {
		var n int
		if _, err := fmt.Sscanf(p, "%d", &n); err == nil && fmt.Sprint(n) == p {
			return n
		}
	}
	return -1
}
