package tune

import (
	"tunesmith/chat"
	"tunesmith/data"
	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/token"
)

// Objective is a method of the objective axis.
type Objective interface {
	// Renderer returns what turns records into examples with the model's tokenizer and chat template.
	Renderer(t Text) (data.Renderer, error)
	// Loss returns the sum over the batch of the weighted losses of the supervised tokens. The trainer divides it by
	// the sum of the weights over the whole accumulation.
	Loss(f Forward) *graph.Node
}

// Text is the text side of a model.
type Text struct {
	Tokenizer *token.Tokenizer
	Template  *chat.Template // nil for a model without one
}

// Model is what an objective needs of a model.
type Model interface {
	Hidden(s *site.Scope) *graph.Node
	LogProbs(s *site.Scope, hNC, targetsN *graph.Node) (logp, mean *graph.Node)
}

// Forward is a batch on its way through a model. N is rows × columns of the batch.
type Forward struct {
	Model   Model
	Scope   *site.Scope
	Targets *graph.Node // (N), −1 for none
	Weights *graph.Node // (N)
}
