package model

import (
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/graph"
	"tunesmith/site"
)

// Mixtures of experts on llama's blocks: Mixtral (Jiang et al. 2024, arXiv 2401.04088), Qwen's with an expert for all
// tokens beside the chosen ones, or with normed heads, and OLMoE (2409.02060) with clipped projections. Legend: R rows,
// N routed rows, C channels, E experts.

// Mixture is the setting of the experts.
type Mixture struct {
	Experts  int // 0 for a dense model
	PerToken int
	Width    int // of an expert
	Shared   int // width of the expert that sees all tokens; 0 for none
	// Normalize divides the weights of the chosen experts by their sum.
	Normalize bool
	// Sparse marks the layers with experts; nil for all.
	Sparse []bool
	// Balance is router_aux_loss_coef, the weight that the checkpoint suggests for the loss of that name.
	Balance float64
}

// maxExperts is the most experts that a layer may have.
const maxExperts = 1 << 14

func (x Mixture) fits(layers int) bool {
	return x.Experts > 0 && x.Experts <= maxExperts && x.PerToken > 0 && x.PerToken <= x.Experts && x.Width > 0 && x.Width <= 1<<22 &&
		x.Shared >= 0 && x.Shared <= 1<<22 && (x.Sparse == nil || len(x.Sparse) == layers)
}

// layout is how a checkpoint holds the experts.
type layout struct {
	stacked bool // one tensor for all experts of a layer, gate and up in one
	module  string
}

// expertNames are the experts' projections where each has a tensor of its own.
type expertNames struct{ gate, up, down string }

func init() {
	register(architecture{
		Type: "mixtral", class: "Mixtral", norm: rmsNorm, rope: ropeKeys{thetaOf: 1e6},
		Block: func(m *Model, s *site.Scope, layer int, x *graph.Node) *graph.Node {
			k := llamaBlock
			k.mlp, k.feedForward = m.layout.module, mixture(expertNames{"w1", "w3", "w2"})
			return k.build(m, s, layer, x)
		},
		module: "block_sparse_moe",
		keys: func(c *Config) []key {
			keys := append(rms(c), mixtureKeys(c)...)
			keys = append(keys, key{name: "num_local_experts", to: &c.Mixture.Experts, otherwise: 8})
			return with(keys, map[string]any{"rms_norm_eps": 1e-5, "max_position_embeddings": 4096 * 32, "num_experts_per_tok": 2})
		},
		finish: func(c *Config, f *fields) {
			c.Mixture.Width, c.Mixture.Normalize = c.Intermediate, true
			f.window(c, 0, always)
		},
		write: writeWindow,
	})
	register(architecture{
		Type: "qwen2_moe", class: "Qwen2Moe", norm: rmsNorm, Block: sparse(llamaBlock).build,
		keys: func(c *Config) []key {
			keys := append(append(rms(c), mixtureKeys(c)...), qwenMixtureKeys(c)...)
			keys = append(keys, key{name: "num_experts", to: &c.Mixture.Experts, otherwise: 60}, key{name: "qkv_bias", to: &c.QKVBias, otherwise: true},
				key{name: "shared_expert_intermediate_size", to: &c.Mixture.Shared, otherwise: 5632})
			return with(renamed(keys, map[string]string{"head_dim": ""}), map[string]any{"num_experts_per_tok": 4, "moe_intermediate_size": 1408})
		},
		finish: func(c *Config, f *fields) {
			f.sparse(c)
			if f.flag("use_sliding_window", false) {
				until := f.number("max_window_layers", 28)
				f.window(c, 4096, func(layer int) bool { return layer%2 == 0 && layer < until })
			}
		},
		write: writeQwenMixture,
	})
	register(architecture{
		Type: "qwen3_moe", class: "Qwen3Moe", norm: rmsNorm, Block: sparse(headNormed(llamaBlock, rmsNorm)).build,
		keys: func(c *Config) []key {
			keys := append(append(biasedKeys(c), mixtureKeys(c)...), qwenMixtureKeys(c)...)
			return with(keys, map[string]any{"num_experts_per_tok": 8, "moe_intermediate_size": 768})
		},
		finish: func(c *Config, f *fields) {
			c.OutBias = c.QKVBias
			c.Mixture.Experts = f.number("num_experts", f.number("num_local_experts", 128))
			f.sparse(c)
			if f.flag("use_sliding_window", false) {
				f.window(c, 4096, always)
			}
		},
		write: func(c Config, m map[string]any) {
			writeQwenMixture(c, m)
			m["num_experts"] = c.Mixture.Experts
		},
	})
	olmoe := llamaBlock
	olmoe.feedForward = mixture(projNames)
	olmoe.attention.norm, olmoe.attention.qNorm, olmoe.attention.kNorm = wholeNorm, "q_norm", "k_norm"
	register(architecture{
		Type: "olmoe", class: "Olmoe", norm: rmsNorm, Block: olmoe.build,
		keys: func(c *Config) []key {
			keys := append(append(biasedKeys(c), mixtureKeys(c)...), key{name: "num_experts", to: &c.Mixture.Experts, otherwise: 64},
				key{name: "norm_topk_prob", to: &c.Mixture.Normalize, otherwise: false}, key{name: "clip_qkv", to: &c.ClipQKV, otherwise: 0.0, none: true})
			return with(renamed(keys, map[string]string{"head_dim": ""}),
				map[string]any{"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "num_experts_per_tok": 8, "router_aux_loss_coef": 0.01})
		},
		finish: func(c *Config, _ *fields) { c.OutBias, c.Mixture.Width = c.QKVBias, c.Intermediate },
	})
}

// The names of the stacked tensors in transformers 5.
const gateUp, down = "gate_up_proj", "down_proj"

var projNames = expertNames{"gate_proj", "up_proj", "down_proj"}

// sparse gives a block experts in the layers that have them.
func sparse(k block) block {
	experts := mixture(projNames)
	k.feedForward = func(m *Model, s *site.Scope, layer int, h *graph.Node) *graph.Node {
		if x := m.Config.Mixture; x.Sparse != nil && !x.Sparse[layer] {
			return gated(m, s, layer, h)
		}
		return experts(m, s, layer, h)
	}
	return k
}

func mixtureKeys(c *Config) []key {
	return []key{
		{name: "num_experts_per_tok", to: &c.Mixture.PerToken, otherwise: 2},
		{name: "router_aux_loss_coef", to: &c.Mixture.Balance, otherwise: 0.001},
	}
}

func qwenMixtureKeys(c *Config) []key {
	return []key{
		{name: "moe_intermediate_size", to: &c.Mixture.Width, otherwise: 1408},
		{name: "norm_topk_prob", to: &c.Mixture.Normalize, otherwise: false},
	}
}

// sparse reads which layers have experts.
func (f *fields) sparse(c *Config) {
	every := max(f.number("decoder_sparse_step", 1), 1)
	var dense []int
	f.get("mlp_only_layers", "a list of layers", &dense)
	for i := range c.Layers {
		if has := (i+1)%every == 0; !has {
			dense = append(dense, i)
		}
	}
	for _, i := range dense {
		if c.Mixture.Sparse == nil {
			c.Mixture.Sparse = make([]bool, c.Layers)
			for j := range c.Mixture.Sparse {
				c.Mixture.Sparse[j] = true
			}
		}
		if i >= 0 && i < c.Layers {
			c.Mixture.Sparse[i] = false
		}
	}
}

func writeQwenMixture(c Config, m map[string]any) {
	dense := []int{}
	for i, has := range c.Mixture.Sparse {
		if !has {
			dense = append(dense, i)
		}
	}
	m["decoder_sparse_step"], m["mlp_only_layers"] = 1, dense
	m["use_sliding_window"] = c.window() > 0
	if c.window() > 0 {
		writeLayerTypes(c, m)
	}
}

// mixture builds the feed-forward of experts: each row goes to the best of them, whose results are summed by the
// router's weights.
func mixture(names expertNames) feedForward {
	return func(m *Model, s *site.Scope, _ int, h *graph.Node) *graph.Node {
		c := m.Config.Mixture
		xRC := graph.Reshape(h, -1, h.Dim(-1))
		route := s.Router("gate", xRC, c.Experts, c.PerToken, false)
		routing := graph.Routed(route.Mask, c.PerToken)
		yNC := m.experts(s, names, routing, routing.Dispatch(xRC))
		y := graph.Reshape(routing.Collect(yNC, weights(route, c.Normalize)), h.Shape()...)
		if c.Shared > 0 {
			var shared *graph.Node
			s.Scope("shared_expert", func() { shared = gatedMLP(m, s, h, c.Shared) })
			gate := graph.Apply(graph.Sigmoid, s.Linear("shared_expert_gate", h, 1, false))
			y = graph.Plus(y, graph.Times(shared, gate))
		}
		return y
	}
}

// weights returns the probabilities of the chosen experts, divided by their sum with normalize. A row that goes nowhere
// has none.
func weights(r site.Route, normalize bool) *graph.Node {
	w := graph.Times(r.Probs, r.Mask)
	if !normalize {
		return w
	}
	sum := graph.Reshape(graph.Sum(w, 1), -1, 1)
	nowhere := graph.Combine(graph.LessEq, sum, sum.Graph().Scalar(0))
	return graph.Over(w, graph.Plus(sum, nowhere))
}

// experts builds the experts of dispatched rows (N, C).
func (m *Model) experts(s *site.Scope, names expertNames, r graph.Routing, x *graph.Node) (y *graph.Node) {
	c := m.Config
	width := c.Mixture.Width
	s.Scope("experts", func() {
		stack := strings.Replace(s.Path(), "."+m.layout.module+".", ".mlp.", 1) + "."
		project := func(e site.Experts, x *graph.Node) *graph.Node {
			e.Count, e.Stacked, e.Stack = c.Mixture.Experts, m.layout.stacked, stack+e.Stack
			return s.Experts(e, r, x)
		}
		var gate, up *graph.Node
		if m.layout.stacked {
			both := project(site.Experts{Name: gateUp, Out: 2 * width, Stack: gateUp, StackRows: 2 * width}, x)
			gate, up = graph.SliceAxis(both, 1, 0, width), graph.SliceAxis(both, 1, width, 2*width)
			names.down = down
		} else {
			gate = project(site.Experts{Name: names.gate, Out: width, Stack: gateUp, StackRows: 2 * width}, x)
			up = project(site.Experts{Name: names.up, Out: width, Stack: gateUp, First: width, StackRows: 2 * width}, x)
		}
		y = project(site.Experts{Name: names.down, Out: c.Hidden, Stack: down, StackRows: c.Hidden}, graph.Gate(m.activation(), gate, up))
	})
	return y
}

// layoutOf finds how a file holds the experts: stacked, which transformers 5 names by mlp for all families, or one by
// one.
func (a architecture) layoutOf(file checkpoint.File) layout {
	l := layout{module: a.module}
	if file == nil {
		return l
	}
	for _, name := range file.Names() {
		if strings.HasSuffix(name, ".mlp.experts.gate_up_proj") {
			return layout{stacked: true, module: "mlp"}
		}
	}
	return l
}

// Balance builds the load-balancing loss over all layers with experts (Fedus et al. 2021, arXiv 2101.03961, in
// transformers' form): E · Σ_e F_e · P_e, where F_e is how often e was chosen for each token and P_e its mean
// probability, over all tokens but padding. It is PerToken where the load is even; nil without routes.
func Balance(routes []site.Route) *graph.Node {
	var chosen, probs, rows *graph.Node
	for _, r := range routes {
		valid := validRows(r)
		chosen = plus(chosen, graph.Sum(r.Chosen, 0))
		probs = plus(probs, graph.Sum(graph.Times(r.Probs, graph.Reshape(valid, -1, 1)), 0))
		rows = plus(rows, graph.Sum(valid))
	}
	if rows == nil {
		return nil
	}
	dot := graph.Sum(graph.Times(chosen, probs))
	return graph.Scale(graph.Over(dot, graph.Times(rows, rows)), float32(routes[0].Experts))
}

// validRows has a 1 for each row (R) that was routed, a 0 for padding.
func validRows(r site.Route) *graph.Node {
	return graph.Scale(graph.Sum(r.Chosen, 1), 1/float32(r.PerToken))
}

// RouterZ builds the loss that keeps the routers' logits small (Zoph et al. 2022, arXiv 2202.08906): the mean of
// logsumexp² over all tokens but padding and all layers; nil without routes.
func RouterZ(routes []site.Route) *graph.Node {
	var sum, rows *graph.Node
	for _, r := range routes {
		valid := validRows(r)
		z := graph.LogSumExp(r.Logits, 1)
		sum = plus(sum, graph.Sum(graph.Times(valid, graph.Times(z, z))))
		rows = plus(rows, graph.Sum(valid))
	}
	if rows == nil {
		return nil
	}
	return graph.Over(sum, rows)
}

// plus adds to a sum that may be empty.
func plus(sum, x *graph.Node) *graph.Node {
	if sum == nil {
		return x
	}
	return graph.Plus(sum, x)
}
