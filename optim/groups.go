package optim

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// undecayed matches the names of parameters that are not decayed: biases and the weights of norms. The last
// alternative is GPT-2's short name of a LayerNorm.
var undecayed = regexp.MustCompile(`bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)|(?:^|\.)ln_\w+(?:$|\.)`)

// Decays tells whether weight decay applies to a parameter by default: to all but biases and norms, which is the
// rule of the Trainer of transformers. Embeddings, output projections and adapters do decay.
func Decays(name string) bool { return !undecayed.MatchString(strings.ToLower(name)) }

var (
	block     = regexp.MustCompile(`(?:^|\.)(?:layers?|h|blocks?)\.(\d+)(?:\.|$)`)
	embedding = regexp.MustCompile(`embed|(?:^|\.)w[tp]e(?:\.|$)`)
)

// Depth returns the place of a parameter in a model of so many blocks: 0 for embeddings, i+1 for block i, and
// layers+1 for what follows the blocks.
func Depth(name string, layers int) int {
	if m := block.FindStringSubmatch(name); m != nil {
		if i, err := strconv.Atoi(m[1]); err == nil && i < layers {
			return i + 1
		}
	}
	if embedding.MatchString(name) {
		return 0
	}
	return layers + 1
}

// Grouping says how parameters are grouped.
type Grouping struct {
	WeightDecay float64 // of the parameters that decay
	LayerDecay  float64 // learning rate of a block relative to that of the next one above; 0 and 1 are the same rate for all
	Layers      int     // blocks of the model, for LayerDecay
}

// Assign returns the groups that the named parameters need, and the group of each. A parameter's rate is
// LayerDecay^(Layers+1−depth) of the full one.
func (gr Grouping) Assign(names []string) (groups []Group, index []int) {
	at := map[Group]int{}
	index = make([]int, len(names))
	for i, name := range names {
		g := Group{LRScale: 1}
		if Decays(name) {
			g.WeightDecay = gr.WeightDecay
		}
		if gr.LayerDecay != 0 {
			g.LRScale = math.Pow(gr.LayerDecay, float64(gr.Layers+1-Depth(name, gr.Layers)))
		}
		j, ok := at[g]
		if !ok {
			j = len(groups)
			at[g] = j
			groups = append(groups, g)
		}
		index[i] = j
	}
	return groups, index
}
