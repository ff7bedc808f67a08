package trainer

import (
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/tune"
)

// headGraft trains the output projection of a classifier beside whatever else trains.
type headGraft struct{ weight string }

// HeadGraft returns the graft that trains the head of a classifier.
func HeadGraft(m *model.Model) any { return headGraft{m.Map().Output.Path + ".weight"} }

// TrainBase implements site.Selector.
func (h headGraft) TrainBase(name string) bool { return name == h.weight }

// Merge implements tune.Merger: the trained values are the weight.
func (h headGraft) Merge(_, name string, w []float32, value func(string) []float32) (bool, error) {
	if name != h.weight {
		return false, nil
	}
	return true, tune.Replace(w, value(name), name)
}

func paramOfBase(p site.Param) bool { return p.Base }
