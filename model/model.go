// Package model builds the architectures: one file per family of model_type, on the sites that methods graft onto.
// It reads a Hugging Face directory or a GGUF file and refuses what it does not know to be right: an unknown
// model_type, a missing, an extra or a mis-shaped tensor.
package model

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/graph"
	"tunesmith/internal/nearest"
	"tunesmith/site"
)

// architecture is what a model_type needs of its own.
type architecture struct {
	Type   string
	class  string // the stem of its classes' names in transformers
	causal string // and their end for language models; ForCausalLM where empty
	// Block builds layer number layer at its scope on the residual stream (B, T, C).
	Block    func(m *Model, s *site.Scope, layer int, x *graph.Node) *graph.Node
	norm     norm
	names    names
	rope     ropeKeys
	tied     bool // where the config does not say
	rooted   bool // the embedding is multiplied by √Hidden
	headBias bool
	module   string // the scope of experts that have tensors of their own; mlp where empty
	// keys are the entries of config.json, finish sets what depends on others, write writes what keys cannot.
	keys   func(c *Config) []key
	finish func(c *Config, f *fields)
	write  func(c Config, m map[string]any)
	gguf   ggufForm
}

// names are those of the modules around the layers.
type names struct{ base, embed, positions, layers, norm, head, tokenHead string }

// defaults fills in the names that most families have.
func (n names) defaults() names {
	return names{
		base: cmp.Or(n.base, "model"), embed: cmp.Or(n.embed, "embed_tokens"), positions: n.positions, layers: cmp.Or(n.layers, "layers"),
		norm: cmp.Or(n.norm, "norm"), head: cmp.Or(n.head, "lm_head"), tokenHead: cmp.Or(n.tokenHead, "score"),
	}
}

var architectures = map[string]architecture{}

func register(a architecture) {
	a.names, a.causal, a.module = a.names.defaults(), cmp.Or(a.causal, "ForCausalLM"), cmp.Or(a.module, "mlp")
	architectures[a.Type] = a
}

func lookup(modelType string) (architecture, error) {
	a, ok := architectures[modelType]
	if !ok {
		known := slices.Sorted(maps.Keys(architectures))
		return a, fmt.Errorf("model_type: want one of %s, have %q%s", strings.Join(known, ", "), modelType,
			nearest.Hint(modelType, known))
	}
	return a, nil
}

// Types returns the model types that can be built, sorted.
func Types() []string { return slices.Sorted(maps.Keys(architectures)) }

// Model is an architecture with its weights' file.
type Model struct {
	Config Config
	Path   string          // directory or file that it was opened from
	File   checkpoint.File // nil for a model that was made from a Config alone
	arch   architecture
	bare   bool // the file's names lack that of the body, as those of a checkpoint without a head
	gguf   bool // the file is one
	layout layout
	survey *site.Map

	newHead bool // the classifier's weight is in no file
}

// New returns a model of the config without weights, for instance to train one from random values.
func New(c Config) (*Model, error) { return build(c, nil) }

// build returns the model whose experts stand as in the file; nil for none.
func build(c Config, file checkpoint.File) (*Model, error) {
	a, err := lookup(c.Type)
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	m := &Model{Config: c, arch: a, layout: a.layoutOf(file)}
	m.survey, err = m.Survey()
	return m, err
}

// Map returns the sites and parameters of the bare model.
func (m *Model) Map() *site.Map { return m.survey }

// Survey builds the model for one position with the grafts and returns the places and parameters met.
func (m *Model) Survey(grafts ...any) (*site.Map, error) {
	var found *site.Map
	_, err := graph.Build(func(g *graph.Graph) {
		in := site.Inputs{
			IDs:       g.Input("ids", graph.Int, 1, 1),
			Positions: g.Input("positions", graph.Int, 1, 1),
			DropKey:   g.Input("dropout", graph.Int, 2),
		}
		s := site.New(g, in, grafts...)
		m.Logits(s, m.Hidden(s))
		found = s.Map()
	})
	return found, err
}

// Hidden builds the blocks and the final norm and returns the hidden states (B, T, C).
func (m *Model) Hidden(s *site.Scope) *graph.Node { return m.hidden(s, nil) }

// hidden calls each, where it is not nil, with the input of every block and the last block's output.
func (m *Model) hidden(s *site.Scope, each func(x *graph.Node)) (x *graph.Node) {
	c, n := m.Config, m.arch.names
	s.Scope(n.base, func() {
		scale := float32(1)
		if m.arch.rooted {
			scale = float32(math.Sqrt(float64(c.Hidden)))
		}
		x = s.Stream(s.Embed(n.embed, c.Vocab, c.Hidden, c.PadID, scale), func(s *site.Scope, x *graph.Node) *graph.Node {
			if c.Embedding != 0 {
				x = graph.Scale(x, c.Embedding)
			}
			if n.positions != "" {
				x = graph.Plus(x, s.Positions(n.positions, c.MaxPositions, c.Hidden))
			}
			return x
		})
		for i := range c.Layers {
			if each != nil {
				each(x)
			}
			s.Layer(fmt.Sprintf("%s.%d", n.layers, i), func() {
				x = s.Stream(x, func(s *site.Scope, x *graph.Node) *graph.Node { return m.arch.Block(m, s, i, x) })
			})
		}
		if each != nil {
			each(x)
		}
		x = m.norm(s, n.norm, x)
	})
	return x
}

// head is the operands of the output projection.
type head struct{ h, w, bias *graph.Node }

func (m *Model) head(s *site.Scope, h *graph.Node) head {
	c, n := m.Config, m.arch.names
	if c.Head.Kind != "" {
		return m.classifier(s, h)
	}
	tied := ""
	if c.Tied {
		tied = n.base + "." + n.embed
	}
	var o head
	o.h, o.w = s.Head(n.head, tied, h, c.Vocab)
	if m.arch.headBias {
		o.bias = s.HeadBias(n.head, c.Vocab)
	}
	return o
}

// logitScale is the factor of the logits.
func (c Config) logitScale() float32 {
	if c.Logit == 0 {
		return 1
	}
	return 1 / c.Logit
}

// Logits builds the logits (…, V) of hidden states (…, C): the vocabulary's, or the labels' of a classifier.
func (m *Model) Logits(s *site.Scope, h *graph.Node) *graph.Node {
	o := m.head(s, h)
	y := graph.Project(o.h, o.w)
	if o.bias != nil {
		y = graph.Plus(y, o.bias)
	}
	if m.Config.Head.Kind != "" {
		return y
	}
	return graph.Softcap(graph.Scale(y, m.Config.logitScale()), m.Config.LogitCap)
}

// LogProbs builds the log-probability of each target (N) after hidden states (N, C), and the mean log-probability
// over the vocabulary, or over the labels of a classifier. It never holds the logits of more than a few rows.
func (m *Model) LogProbs(s *site.Scope, hNC, targetsN *graph.Node) (logp, mean *graph.Node) {
	o, op := m.head(s, hNC), graph.TokenLogProb{Scale: 1}
	if m.Config.Head.Kind == "" {
		op = graph.TokenLogProb{Scale: m.Config.logitScale(), Softcap: m.Config.LogitCap}
	}
	return graph.LogProbs(o.h, o.w, targetsN, o.bias, op)
}
