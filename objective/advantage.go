package objective

import (
	"math"
	"slices"
)

// TopEntropy returns 1 at the positions of the mask whose entropy is in the top share of them, 0 elsewhere (Wang et al.
// 2025, arXiv 2506.01939). The border is a quantile with linear interpolation.
func TopEntropy(entropies, mask []float32, share float64) []float32 {
	var valid []float64
	for i, m := range mask {
		if m != 0 {
			valid = append(valid, float64(entropies[i]))
		}
	}
	out := make([]float32, len(mask))
	if len(valid) == 0 {
		return out
	}
	slices.Sort(valid)
	at := (1 - share) * float64(len(valid)-1)
	low := int(at)
	border := valid[low]
	if low+1 < len(valid) {
		border += (at - float64(low)) * (valid[low+1] - valid[low])
	}
	for i, m := range mask {
		if m != 0 && entropies[i] >= float32(border) {
			out[i] = 1
		}
	}
	return out
}

// Grouping says how rewards of several answers to each prompt become advantages.
type Grouping struct {
	Group     int       // answers to a prompt
	Weights   []float64 // of the rewards' functions; 1 where there are none
	Scale     string    // group, batch or none: the standard deviation that advantages are divided by
	EachFirst bool      // normalise each function in its group before they are added (GDPO, 2601.05242)
	LeaveOut  bool      // the baseline of an answer is the mean of the others (RLOO) rather than of all
	Clamp     []float64 // lowest and highest reward, where there are bounds
	Whiten    bool      // normalise the advantages over the batch
}

const advantageEps = 1e-4

// Advantages returns the advantage of each answer. rewards[f][i] is what function f says of answer i, NaN where it says
// nothing; an answer of which none says anything is in no mean and has advantage 0. Answers to one prompt are
// neighbours.
func (o Grouping) Advantages(rewards [][]float64) []float64 {
	if o.EachFirst {
		return o.eachFirst(rewards)
	}
	total := o.total(rewards)
	if len(o.Clamp) == 2 {
		for i, x := range total {
			total[i] = math.Max(o.Clamp[0], math.Min(o.Clamp[1], x)) // what is no number stays so
		}
	}
	out := make([]float64, len(total))
	for lo := 0; lo < len(total); lo += o.Group {
		group := total[lo:min(lo+o.Group, len(total))]
		mean, deviation, n := moments(group)
		for i, x := range group {
			switch {
			case math.IsNaN(x):
			case o.LeaveOut && n == 1:
				group[i] = math.NaN() // nothing to compare with
			case o.LeaveOut:
				out[lo+i] = x - (mean*float64(n)-x)/float64(n-1)
			case o.Scale == "group":
				out[lo+i] = (x - mean) / (deviation + advantageEps)
			default:
				out[lo+i] = x - mean
			}
		}
	}
	if o.Scale == "batch" {
		_, deviation, _ := moments(total)
		for i := range out {
			out[i] /= deviation + advantageEps
		}
	}
	if o.Whiten {
		whiten(out, total)
	}
	return out
}

// total is the weighted sum over the functions that say something, NaN where none does.
func (o Grouping) total(rewards [][]float64) []float64 {
	out := make([]float64, len(rewards[0]))
	for i := range out {
		any := false
		for f, r := range rewards {
			if !math.IsNaN(r[i]) {
				any = true
				out[i] += o.weight(f) * r[i]
			}
		}
		if !any {
			out[i] = math.NaN()
		}
	}
	return out
}

func (o Grouping) weight(f int) float64 {
	if f < len(o.Weights) {
		return o.Weights[f]
	}
	return 1
}

// eachFirst normalises each function within its groups, adds them, and normalises the sum over the batch.
func (o Grouping) eachFirst(rewards [][]float64) []float64 {
	normal := make([][]float64, len(rewards))
	for f, r := range rewards {
		normal[f] = slices.Clone(r)
		for lo := 0; lo < len(r); lo += o.Group {
			group := normal[f][lo:min(lo+o.Group, len(r))]
			mean, deviation, _ := moments(group)
			for i := range group {
				group[i] = (group[i] - mean) / (deviation + advantageEps)
			}
		}
	}
	total := o.total(normal)
	out := make([]float64, len(total))
	for i, x := range total {
		if !math.IsNaN(x) {
			out[i] = x
		}
	}
	whiten(out, total)
	return out
}

// whiten gives the elements mean 0 and deviation 1, those that like says nothing of aside: they become 0.
func whiten(x, like []float64) {
	var known []float64
	for i, l := range like {
		if !math.IsNaN(l) {
			known = append(known, x[i])
		}
	}
	mean, deviation, _ := moments(known)
	for i, l := range like {
		if math.IsNaN(l) {
			x[i] = 0
		} else {
			x[i] = (x[i] - mean) / (deviation + advantageEps)
		}
	}
}

// moments returns the mean and the sample deviation of the elements that are numbers, and how many there are; the
// deviation of fewer than two is 0.
func moments(x []float64) (mean, deviation float64, n int) {
	for _, v := range x {
		if !math.IsNaN(v) {
			mean += v
			n++
		}
	}
	if n == 0 {
		return 0, 0, 0
	}
	mean /= float64(n)
	if n == 1 {
		return mean, 0, 1
	}
	for _, v := range x {
		if !math.IsNaN(v) {
			deviation += (v - mean) * (v - mean)
		}
	}
	return mean, math.Sqrt(deviation / float64(n-1)), n
}
