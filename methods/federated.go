package methods

import (
	"tunesmith/federation"
	"tunesmith/tune"
)

// Federated lets several owners of data tune one model together: each trains on its own machine, only trained
// parameters travel, and a server joins them round by round. Any parameters method and any objective do the local work.
//
//	w ← strategy(w, w₁ … wₙ),  in the plain case Σ nₖ/n · wₖ  after local steps from w at each client k
//
// McMahan et al. 2017 (arXiv 1602.05629), Reddi et al. 2021 (2003.00295), Bonawitz et al. 2017 for sums that hide their
// terms. It stops where the clients' data have nothing in common: then each does better alone, or with personal steps.
type Federated struct {
	federation.Settings
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.TopologyAxis, Name: "federated", Goals: []string{"owners"},
		Doc: "several owners of data tune one model together, and the data stay where they are",
		New: func() any { return &Federated{federation.Default()} },
	})
}

// Federation implements federation.Method.
func (f *Federated) Federation() *federation.Settings { return &f.Settings }

var (
	_ federation.Method = (*Federated)(nil)
	_ tune.Factored     = (*lora)(nil)
)
