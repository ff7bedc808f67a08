// Package model builds the architectures: one file per family of model_type, on the sites that methods graft onto.
// It reads a Hugging Face directory or a GGUF file and refuses what it does not know to be right: an unknown
// model_type, a missing, an extra or a mis-shaped tensor.
package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/graph"
	"tunesmith/internal/nearest"
	"tunesmith/site"
)

// architecture is what a model_type needs of its own.
type architecture struct {
	Type string
	// Block builds layer number layer at the scope "model.layers.N".
	Block func(m *Model, s *site.Scope, layer int, xBTC *graph.Node) *graph.Node
	// HeadNorm norms each head of queries and keys.
	HeadNorm bool
	// configure reads what the family has beside the common fields.
	configure func(c *Config, f *fields)
}

var architectures = map[string]architecture{}

func register(a architecture) { architectures[a.Type] = a }

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
	gguf   *ggufNames // how the file names and orders tensors; nil for Hugging Face files
	survey *site.Map
}

// New returns a model of the config without weights, for instance to train one from random values.
func New(c Config) (*Model, error) {
	a, err := lookup(c.Type)
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	m := &Model{Config: c, arch: a}
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
	c := m.Config
	s.Scope("model", func() {
		x = s.Embed("embed_tokens", c.Vocab, c.Hidden, c.PadID)
		for i := range c.Layers {
			if each != nil {
				each(x)
			}
			s.Layer(fmt.Sprintf("layers.%d", i), func() {
				x = s.Stream(x, func(s *site.Scope, x *graph.Node) *graph.Node { return m.arch.Block(m, s, i, x) })
			})
		}
		if each != nil {
			each(x)
		}
		x = s.RMSNorm("norm", x, c.NormEps, 0)
	})
	return x
}

// head returns the operands of the output projection.
func (m *Model) head(s *site.Scope, h *graph.Node) (h2, w *graph.Node) {
	tied := ""
	if m.Config.Tied {
		tied = "model.embed_tokens"
	}
	return s.Head("lm_head", tied, h, m.Config.Vocab)
}

// Logits builds the vocabulary's logits (…, V) of hidden states (…, C).
func (m *Model) Logits(s *site.Scope, h *graph.Node) *graph.Node {
	return graph.Project(m.head(s, h))
}

// LogProbs builds the log-probability of each target (N) after hidden states (N, C), and the mean log-probability
// over the vocabulary. It never holds the logits of more than a few rows.
func (m *Model) LogProbs(s *site.Scope, hNC, targetsN *graph.Node) (logp, mean *graph.Node) {
	h, w := m.head(s, hNC)
	return graph.LogProbs(h, w, targetsN, nil, graph.TokenLogProb{Scale: 1})
}
