package trainer

import (
	"slices"

	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/tune"
)

// Groups sorts the trained parameters of a model into groups of the optimizer: biases and the weights of norms do not
// decay, and grafts may have some learn at other rates. of gives each parameter's group by its name.
func Groups(a *model.Adapted, decay float64) (groups []optim.Group, of map[string]int) {
	of = map[string]int{}
	for _, p := range a.Sites.Trainable() {
		g := optim.Group{LRScale: 1}
		if optim.Decays(p.Name) {
			g.WeightDecay = decay
		}
		for _, graft := range a.Grafts {
			if s, ok := graft.(tune.RateScaler); ok {
				g.LRScale *= s.RateScale(p)
			}
		}
		i := slices.Index(groups, g)
		if i < 0 {
			i, groups = len(groups), append(groups, g)
		}
		of[p.Name] = i
	}
	return groups, of
}
