package methods

import (
	"fmt"
	"slices"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// TrainableTokens trains the embeddings of chosen tokens, and with them the rows of an output projection that shares the
// table; it folds into them.
//
//	E[id] ← trained rows, for ids chosen; all other rows stay
//
// For tokens that are new to the model, such as the marks of a chat template. It teaches nothing else. Names and files
// are PEFT's.
type TrainableTokens struct {
	Tokens []int `yaml:"tokens" doc:"ids of the tokens whose embeddings train" required:"true" example:"[0, 1, 2]"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "trainable_tokens", PEFT: "TRAINABLE_TOKENS", Rate: 1e-3,
		Doc: "trains the embeddings of chosen tokens; merges into the table",
		New: func() any { return &TrainableTokens{} }, Sample: func() any { return &TrainableTokens{Tokens: []int{0, 1, 2, 3, 4, 5}} },
	})
}

// Graft implements tune.Parameters.
func (o *TrainableTokens) Graft(m *site.Map) (any, error) {
	if len(o.Tokens) == 0 {
		return nil, fmt.Errorf("tokens: want ids of the tokens that train, have none")
	}
	rows, err := newTokenRows(o.Tokens, m)
	if err != nil {
		return nil, err
	}
	rows.alone = true
	return &trainableTokens{*o, rows}, nil
}

// trainableTokens is the graft.
type trainableTokens struct {
	TrainableTokens
	rows tokenRows
}

// GraftEmbed implements site.EmbedGrafter.
func (t *trainableTokens) GraftEmbed(s *site.Scope, path string, ids, x *graph.Node) *graph.Node {
	if !t.rows.holds(path) {
		return x
	}
	return graph.Plus(x, graph.ProjectT(graph.Lookup(t.rows.mask(s), ids, -1), t.rows.change(s)))
}

// GraftHead implements site.HeadGrafter.
func (t *trainableTokens) GraftHead(s *site.Scope, at site.Linear, h, w *graph.Node) (*graph.Node, *graph.Node) {
	if !t.rows.holds(at.Path) {
		return h, w
	}
	return graph.Join(-1, h, graph.Project(h, t.rows.change(s))), graph.Join(1, w, t.rows.mask(s))
}

// Merge implements tune.Merger.
func (t *trainableTokens) Merge(path, _ string, w []float32, value func(string) []float32) (bool, error) {
	module, leaf := tune.ModuleOf(path)
	if leaf != "weight" || !t.rows.holds(module) {
		return false, nil
	}
	t.rows.merge(w, value)
	return true, nil
}

// ReadPEFT implements tune.PEFTReader.
func (o *TrainableTokens) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = TrainableTokens{Tokens: key(&r, "token_indices", []int(nil))}
	if names := r.modules("target_modules"); len(names) > 1 || len(names) == 1 && !slices.Contains([]string{"embed_tokens", "wte", "embed_in", "word_embeddings"}, names[0]) {
		r.fail(fmt.Errorf("target_modules: want the embedding alone, have %v", names))
	}
	return r.err
}

// PEFT implements tune.PEFTWriter.
func (t *trainableTokens) PEFT() map[string]any {
	_, name := tune.ModuleOf(t.rows.modules[0])
	return map[string]any{"peft_type": "TRAINABLE_TOKENS", "target_modules": []string{name}, "token_indices": t.Tokens, "init_weights": true}
}
