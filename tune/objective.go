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

// An objective implements those of these interfaces that it needs.
type (
	// Feeder has inputs of its own, which Loss asks for by Forward.Input: what they are for a batch.
	Feeder interface {
		Feeds(b data.Batch) map[string]any
	}
	// Counter divides the sum of the losses by something else than the weights of the tokens, such as the number of
	// pairs.
	Counter interface {
		Count(b data.Batch) float64
	}
	// Referrer compares with the model as it was before training. online is its choice to compute the reference at
	// every step rather than once, before the first.
	Referrer interface {
		Reference() (needed, online bool)
	}
	// Rearranger makes other examples of those that were read, such as pairs of answers to different prompts.
	Rearranger interface {
		Rearrange(examples *data.Store) (*data.Store, error)
	}
	// Watcher looks at the metrics of a step and returns a warning, or nothing.
	Watcher interface {
		Warn(values map[string]float64) string
	}
	// Tempered takes probabilities at a temperature.
	Tempered interface {
		Temperature() float64
	}
	// Header is trained on a model with so many outputs in the place of its vocabulary, 0 for the vocabulary itself.
	Header interface {
		Head() int
	}
	// Measurer names the metrics that tell how good the model is, for the table before and after.
	Measurer interface {
		Measures() []Measure
	}
)

// Measure is a metric of an objective that is worth comparing before and after.
type Measure struct {
	Name   string // as in Forward.Metric
	Title  string
	Better string // "up" or "down"
	Share  bool   // shown in percent
}

// Text is the text side of a model.
type Text struct {
	Tokenizer *token.Tokenizer
	Template  *chat.Template // nil for a model without one
}

// Model is what an objective needs of a model.
type Model interface {
	Hidden(s *site.Scope) *graph.Node
	Logits(s *site.Scope, h *graph.Node) *graph.Node
	LogProbs(s *site.Scope, hNC, targetsN *graph.Node) (logp, mean *graph.Node)
}

// Forward is a batch on its way through a model. N is rows × columns of the batch.
type Forward struct {
	Model   Model
	Scope   *site.Scope
	Targets *graph.Node // (N), −1 for none
	Weights *graph.Node // (N)

	Rows, Cols int
	Sequences  int // rows of an example, at least 1
	// Record takes a metric; see Metric.
	Record func(name string, sum, count *graph.Node)
}

// Input returns one of the objective's own inputs; see Feeder.
func (f Forward) Input(name string, shape ...int) *graph.Node {
	return f.Scope.Input("own/"+name, graph.Float, shape...)
}

// IntInput is Input for whole numbers.
func (f Forward) IntInput(name string, shape ...int) *graph.Node {
	return f.Scope.Input("own/"+name, graph.Int, shape...)
}

// Reference returns the log-probabilities (N) of the targets under the reference model; see Referrer.
func (f Forward) Reference() *graph.Node {
	return f.Scope.Input("reference", graph.Float, f.Rows*f.Cols)
}

// LogProbs returns the log-probabilities (rows, columns) of the targets, 0 where there is none.
func (f Forward) LogProbs() *graph.Node { return f.LogProbsAt(1) }

// LogProbsAt is LogProbs of the distributions at a temperature: of logits divided by it.
func (f Forward) LogProbsAt(temperature float64) *graph.Node {
	h := f.Model.Hidden(f.Scope)
	if temperature != 1 { // the logits are linear in the hidden states
		h = graph.Scale(h, float32(1/temperature))
	}
	logp, _ := f.Model.LogProbs(f.Scope, graph.Reshape(h, -1, h.Dim(-1)), f.Targets)
	return graph.Reshape(logp, f.Rows, f.Cols)
}

// Metric notes a value of the batch: a sum, and what it is a mean over, nil for what the loss is divided by.
func (f Forward) Metric(name string, sum, count *graph.Node) {
	if f.Record != nil {
		f.Record(name, graph.Detach(sum), count)
	}
}
