package methods

import (
	"fmt"

	"tunesmith/chat"
	"tunesmith/data"
	"tunesmith/graph"
	"tunesmith/objective"
	"tunesmith/tune"
)

// Instruction teaches a model to answer as the examples do: it raises the probability of the answers' tokens, the
// end of the turn included, and leaves the questions alone.
//
//	loss = −Σ w·log p(tokenₜ | tokens before) / Σ w  over the trained tokens
//
// Wei et al. 2021 (arXiv 2109.01652), Ouyang et al. 2022 (2203.02155). It shows what is right and never what is
// wrong; where answers can only be ranked, take a preference method.
type Instruction struct {
	TrainOn   string  `yaml:"train_on" doc:"tokens that are trained: the last answer, all answers, or everything" enum:"last,answers,everything"`
	Smoothing float64 `yaml:"label_smoothing" doc:"share of each target spread over the vocabulary" min:"0" below:"1"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ObjectiveAxis, Name: "instruction", Default: true,
		Doc: "learns the answers of conversations, or plain text, token by token",
		New: func() any { return &Instruction{TrainOn: "answers"} },
	})
}

// turns are the values of train_on as package chat knows them.
var turns = map[string]chat.Turns{"last": chat.LastTurn, "answers": chat.AllTurns, "everything": chat.AllTokens}

// Renderer implements tune.Objective.
func (o *Instruction) Renderer(t tune.Text) (data.Renderer, error) {
	which, ok := turns[o.TrainOn]
	if !ok {
		return nil, fmt.Errorf("train_on: want last, answers or everything, have %q", o.TrainOn)
	}
	return data.Rendering{Tokenizer: t.Tokenizer, Template: t.Template, Turns: which}, nil
}

// Loss implements tune.Objective.
func (o *Instruction) Loss(f tune.Forward) *graph.Node {
	h := f.Model.Hidden(f.Scope)
	logp, mean := f.Model.LogProbs(f.Scope, graph.Reshape(h, -1, h.Dim(-1)), f.Targets)
	return objective.CrossEntropy(logp, mean, f.Weights, float32(o.Smoothing))
}
