package methods

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// tokenRows trains single rows of the embedding, and with them those of an output projection that shares it. The
// trained tensor holds the rows themselves; the frozen table stays, and the difference is added where a row is used.
type tokenRows struct {
	ids           []int
	modules       []string // that use the table: the embedding, and a tied output projection
	vocab, hidden int
	alone         bool // they are all that trains, and PEFT names them so
}

func newTokenRows(ids []int, m *site.Map) (tokenRows, error) {
	t := tokenRows{ids: ids, modules: []string{m.Embedding}, vocab: m.Vocab, hidden: m.Hidden}
	if m.Tied != "" {
		t.modules = append(t.modules, m.Output.Path)
	}
	for i, id := range ids {
		if id < 0 || id >= m.Vocab || slices.Contains(ids[:i], id) {
			return t, fmt.Errorf("train_tokens: want different ids below %d, have %d at place %d", m.Vocab, id, i)
		}
	}
	return t, nil
}

// holds reports whether rows of the module's weight train.
func (t tokenRows) holds(module string) bool {
	return len(t.ids) > 0 && slices.Contains(t.modules, module)
}

func (t tokenRows) name(tensor string) string {
	if t.alone {
		return tune.PEFTPrefix + t.modules[0] + "." + tensor
	}
	return tune.PEFTPrefix + t.modules[0] + ".token_adapter." + tensor
}

// mask declares the frozen table (V, n) that holds a 1 where token id has trained row n.
func (t tokenRows) mask(s *site.Scope) *graph.Node {
	ones := func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		for n, id := range t.ids {
			dst[id*len(t.ids)+n] = 1
		}
	}
	return s.Declare(site.Param{Name: t.name("rows"), Shape: []int{t.vocab, len(t.ids)}, Init: ones})
}

// change declares the trained rows and returns their difference (n, C) to the table's.
func (t tokenRows) change(s *site.Scope) *graph.Node {
	n, c := len(t.ids), t.hidden
	start := func(dst []float32, _ *rand.Rand, base func(string) []float32) {
		table := base(t.modules[0] + ".weight")
		for i, id := range t.ids {
			copy(dst[i*c:(i+1)*c], table[id*c:])
		}
	}
	ids := make([]int32, n)
	for i, id := range t.ids {
		ids[i] = int32(id)
	}
	table := s.BaseWeight(site.Linear{Path: t.modules[0], Out: t.vocab, In: c})
	rows := s.Declare(site.Param{Name: t.name("trainable_tokens_delta"), Shape: []int{n, c}, Trainable: true, Init: start})
	return graph.Minus(rows, graph.Lookup(table, s.Ints(ids, n), -1))
}

// merge writes the trained rows into a table.
func (t tokenRows) merge(w []float32, value func(string) []float32) {
	rows := value(t.name("trainable_tokens_delta"))
	for i, id := range t.ids {
		copy(w[id*t.hidden:], rows[i*t.hidden:(i+1)*t.hidden])
	}
}
