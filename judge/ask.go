package judge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Message is one turn of a request.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Request is a question to a language model. Its fields are all that a reply depends on.
type Request struct {
	Model     string    `json:"model"`
	Messages  []Message `json:"messages"`
	MaxTokens int       `json:"max_tokens"`
	LogProbs  int       `json:"top_logprobs,omitempty"` // of the first token, so many likeliest; 0 for none
}

// Reply is what the model says.
type Reply struct {
	Text string             `json:"text"`
	Top  map[string]float64 `json:"top,omitempty"` // log-probabilities of the likeliest first tokens
	In   int                `json:"in"`            // tokens of the request
	Out  int                `json:"out"`           // tokens of the reply
}

// Asker answers requests: an endpoint, a model in this process, or one of them with a ledger before it.
type Asker interface {
	Ask(ctx context.Context, r Request) (Reply, error)
}

// Price is what a model's tokens cost, in one currency for each million.
type Price struct {
	In  float64 `yaml:"in" doc:"of a million tokens asked" min:"0"`
	Out float64 `yaml:"out" doc:"of a million tokens answered" min:"0"`
}

// Cost returns what a reply cost.
func (p Price) Cost(r Reply) float64 { return (p.In*float64(r.In) + p.Out*float64(r.Out)) / 1e6 }

// ErrBudget is a request that would go beyond the budget.
var ErrBudget = errors.New("the budget is spent")

// Recorded asks through a ledger: what was asked before costs nothing and is answered with the same bytes.
type Recorded struct {
	Asker  Asker
	Ledger *Ledger
	Price  Price
	Budget float64 // most that may be spent, the ledger's earlier costs included; 0 is no limit
}

// Ask implements Asker.
func (r *Recorded) Ask(ctx context.Context, q Request) (Reply, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return Reply{}, err
	}
	key := keyOf(text)
	if reply, ok := r.Ledger.Find(key); ok {
		return reply, nil
	}
	if spent := r.Ledger.Spent(); r.Budget > 0 && spent >= r.Budget {
		return Reply{}, fmt.Errorf("%w: %.4f of %.4f; raise budget and run again, nothing is asked twice", ErrBudget, spent, r.Budget)
	}
	reply, err := r.Asker.Ask(ctx, q)
	if err != nil {
		return reply, err
	}
	return reply, r.Ledger.Add(Entry{Key: key, Request: text, Reply: reply, Cost: r.Price.Cost(reply)})
}
