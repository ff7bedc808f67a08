package methods

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// LlamaAdapter lets the last layers attend to trained prompts beside the text, by an attention of its own behind a gate
// that starts closed.
//
//	a + gate · softmax(q·(W_k·P)ᵀ/√d)·(W_v·P),  P (tokens, hidden) of each layer, gate starts at 0
//
// Zhang et al. 2023 (arXiv 2303.16199). The first step starts from the base, which a prefix does not; it needs keys and
// values made by projections of their own. Names and files are PEFT's.
type LlamaAdapter struct {
	Tokens int `yaml:"tokens" doc:"prompts of a layer" min:"1" max:"65536"`
	Layers int `yaml:"layers" doc:"number of the last layers that get them; 0 is all" min:"0"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "llama_adapter", PEFT: "ADAPTION_PROMPT", Rate: 1e-2,
		Doc: "adds a gated attention over trained prompts to the last layers",
		New: func() any { return &LlamaAdapter{Tokens: 10} },
	})
}

// Graft implements tune.Parameters.
func (o *LlamaAdapter) Graft(m *site.Map) (any, error) {
	layers := o.Layers
	if layers == 0 {
		layers = m.Layers
	}
	if layers > m.Layers {
		return nil, fmt.Errorf("layers: want at most the model's %d, have %d", m.Layers, layers)
	}
	g := &llamaAdapter{LlamaAdapter: *o, layers: layers, at: map[string]source{}}
	for _, kv := range m.KVs {
		if site.IndexOf(kv.Path) < m.Layers-layers {
			continue
		}
		find := func(name string) (site.Linear, error) {
			i := slices.IndexFunc(m.Linears, func(l site.Linear) bool { return l.Path == kv.Path+"."+name })
			if i < 0 {
				return site.Linear{}, fmt.Errorf("%s: want the projections k_proj and v_proj, which this model does not have; take prefix", kv.Path)
			}
			return m.Linears[i], nil
		}
		k, err := find("k_proj")
		if err != nil {
			return nil, err
		}
		v, err := find("v_proj")
		if err != nil {
			return nil, err
		}
		g.at[kv.Path] = source{kv, k, v}
	}
	return g, nil
}

// source is where the keys and values of a layer's prompts come from.
type source struct {
	site.KV
	k, v site.Linear
}

// llamaAdapter is the graft.
type llamaAdapter struct {
	LlamaAdapter
	layers int
	at     map[string]source
}

// GraftAttention implements site.AttentionGrafter. Legend: q (B, T, H, D), G heads of keys, M = H/G, n prompts.
func (g *llamaAdapter) GraftAttention(s *site.Scope, path string, q, y *graph.Node) *graph.Node {
	at, ok := g.at[path]
	if !ok {
		return y
	}
	name := tune.PEFTPrefix + path
	n := g.Tokens
	prompts := s.Declare(site.Param{Name: name + ".adaption_prompt", Shape: []int{1, n, at.k.In}, Trainable: true, Init: normal(1)})
	gate := s.Declare(site.Param{Name: name + ".adaption_gate", Shape: []int{1}, Trainable: true, Init: zeros})
	heads := func(l site.Linear) *graph.Node { // (G, n, D)
		x := graph.Project(graph.Reshape(prompts, n, l.In), s.BaseWeight(l))
		if l.Bias {
			x = graph.Plus(x, s.BaseBias(l))
		}
		return graph.Permute(graph.Reshape(x, n, at.Heads, at.HeadDim), 1, 0, 2)
	}
	b, t, m, d := q.Dim(0), q.Dim(1), at.Queries/at.Heads, at.HeadDim
	grouped := graph.Permute(graph.Reshape(q, b*t, at.Heads, m, d), 1, 0, 2, 3)
	scores := graph.Product(graph.Reshape(grouped, at.Heads, b*t*m, d), heads(at.k), false, true)
	a := graph.Product(graph.Softmax(graph.Scale(scores, float32(1/math.Sqrt(float64(d))))), heads(at.v), false, false)
	a = graph.Permute(graph.Reshape(a, at.Heads, b*t, m, d), 1, 0, 2, 3)
	return graph.Plus(y, graph.Times(graph.Reshape(a, y.Shape()...), gate))
}

// ReadPEFT implements tune.PEFTReader.
func (o *LlamaAdapter) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = LlamaAdapter{Tokens: key(&r, "adapter_len", 0), Layers: key(&r, "adapter_layers", 0)}
	if o.Tokens < 1 || o.Tokens > 1<<16 || o.Layers < 1 {
		r.fail(fmt.Errorf("adapter_len, adapter_layers: want >= 1, have %d and %d", o.Tokens, o.Layers))
	}
	if name := key(&r, "target_modules", "self_attn"); !strings.HasSuffix(name, "attn") {
		r.fail(fmt.Errorf("target_modules: want self_attn, have %q", name))
	}
	return r.err
}

// PEFT implements tune.PEFTWriter.
func (g *llamaAdapter) PEFT() map[string]any {
	return map[string]any{"peft_type": "ADAPTION_PROMPT", "adapter_len": g.Tokens, "adapter_layers": g.layers, "target_modules": "self_attn"}
}
