package federation

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// Strategy makes the next global parameters from the updates of a round. What it remembers between rounds is its
// State. Updates come sorted by client.
type Strategy interface {
	// Aggregate returns the parameters after the round (from 1). The updates hold whole parameters, not differences.
	Aggregate(round int, global []Tensor, updates []Update) ([]Tensor, error)
	// State returns what the next round depends on: lists of tensors by name. Restore goes back to it.
	State() map[string][]Tensor
	Restore(map[string][]Tensor) error
}

// Options are the settings of all strategies; each reads its own. Zero is the strategy's default where zero would mean
// nothing, the field is a pointer where it does not.
type Options struct {
	Rate      float64  // of the server's step
	Momentum  *float64 // FedAvgM, DiLoCo
	Beta1     *float64 // FedAdam, FedYogi
	Beta2     *float64
	Tau       float64  // keeps the adaptive step finite
	Trim      *float64 // share that a trimmed mean cuts off at each end
	Malicious int      // clients that may lie: Krum, MultiKrum, Bulyan
	Select    int      // clients that MultiKrum keeps; 0 is all honest ones
	Fairness  *float64 // q of q-FedAvg
	LocalRate float64  // learning rate of the clients, for q-FedAvg
	Clients   int      // of the federation, for SCAFFOLD
	Products  Products // of the factored strategies
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func orNumber(v, otherwise float64) float64 {
	if v == 0 {
		return otherwise
	}
	return v
}

// kind is an entry of the list of strategies.
type kind struct {
	name string
	doc  string
	new  func(Options) Strategy
	// linear strategies need only the weighted sum of the updates, which secure aggregation gives.
	linear bool
	// products need parameters that come in pairs of factors.
	products bool
}

// seeds is the strategy that sends scalars instead of parameters.
const seeds = "fedkseed"

var kinds = []kind{
	{name: "fedavg", doc: "mean weighted by examples", linear: true, new: func(Options) Strategy { return average{} }},
	{name: "fedprox", doc: "the mean; clients are held near the global model by mu", linear: true, new: func(Options) Strategy { return average{} }},
	{name: "scaffold", doc: "the mean; control variates take the clients' drift out", new: newScaffold},
	{name: "fedavgm", doc: "the mean with momentum on the server", linear: true, new: newMomentum},
	{name: "diloco", doc: "Nesterov momentum on the server, for long local work", linear: true, new: newNesterov},
	{name: "fedadam", doc: "Adam on the server", linear: true, new: func(o Options) Strategy { return newAdaptive(o, adam) }},
	{name: "fedyogi", doc: "Yogi on the server", linear: true, new: func(o Options) Strategy { return newAdaptive(o, yogi) }},
	{name: "fedadagrad", doc: "Adagrad on the server", linear: true, new: func(o Options) Strategy { return newAdaptive(o, adagrad) }},
	{name: "fedmedian", doc: "median of each value", new: func(Options) Strategy { return median{} }},
	{name: "fedtrimmedavg", doc: "mean of each value without the extremes", new: func(o Options) Strategy { return trimmed{share: or(o.Trim, 0.2)} }},
	{name: "krum", doc: "the one update nearest to its neighbours", new: func(o Options) Strategy { return krum{o.Malicious, 1} }},
	{name: "multikrum", doc: "mean of the updates nearest to their neighbours", new: func(o Options) Strategy { return krum{o.Malicious, o.Select} }},
	{name: "bulyan", doc: "trimmed mean of what MultiKrum chose", new: func(o Options) Strategy { return bulyan{o.Malicious} }},
	{name: "qfedavg", doc: "clients with a high loss count more", new: func(o Options) Strategy { return fair{or(o.Fairness, 0.2), orNumber(o.LocalRate, 0.1)} }},
	{name: "fedit", doc: "mean of the factors one by one, which is not the mean of their products", linear: true, products: true, new: func(Options) Strategy { return average{} }},
	{name: "ffa", doc: "the first factor is frozen and the mean of the second is exact", linear: true, products: true, new: func(Options) Strategy { return average{} }},
	{name: "rolora", doc: "rounds train one factor and the other by turns, each mean exact", linear: true, products: true, new: func(Options) Strategy { return average{} }},
	{name: "flexlora", doc: "exact mean of the products, cut to each client's rank by singular values", products: true, new: func(o Options) Strategy { return products{o.Products} }},
	{name: seeds, doc: "seeds and scalars instead of parameters, for slow links", linear: true, new: func(Options) Strategy { return average{} }},
}

// Strategies returns the names of all strategies.
func Strategies() []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.name)
	}
	return out
}

func findKind(name string) (kind, error) {
	if i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name }); i >= 0 {
		return kinds[i], nil
	}
	names := Strategies()
	return kind{}, fmt.Errorf("strategy: want one of %s, have %q%s", strings.Join(names, ", "), name, nearest.Hint(name, names))
}

// NewStrategy returns a strategy by its name.
func NewStrategy(name string, o Options) (Strategy, error) {
	k, err := findKind(name)
	if err != nil {
		return nil, err
	}
	return k.new(o), nil
}

// stateless is a strategy that remembers nothing.
type stateless struct{}

// State implements Strategy.
func (stateless) State() map[string][]Tensor { return nil }

// Restore implements Strategy.
func (stateless) Restore(map[string][]Tensor) error { return nil }

// remember is the memory of a strategy whose lists of tensors match the parameters.
type remember map[string][]Tensor

// State implements Strategy.
func (r remember) State() map[string][]Tensor { return r }

// Restore implements Strategy.
func (r remember) Restore(s map[string][]Tensor) error {
	clear(r)
	for name, tensors := range s {
		r[name] = clone(tensors)
	}
	return nil
}

// get returns the list of that name, zeros at first.
func (r remember) get(name string, like []Tensor) []Tensor {
	if r[name] == nil {
		r[name] = empty(like)
	}
	return r[name]
}

// average is FedAvg (McMahan et al. 2017, arXiv 1602.05629), and the server's side of FedProx (Li et al. 2020,
// 1812.06127).
type average struct{ stateless }

// Aggregate implements Strategy.
func (average) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	p, err := weights(updates)
	if err != nil {
		return nil, err
	}
	return round32(global, mean(updates, p)), nil
}
