// Package objective holds the losses as functions that build graph nodes, and the arithmetic of rewards around them.
// Shapes: N positions, B answers or pairs, T positions of an answer, V vocabulary.
package objective

import "tunesmith/graph"

// CrossEntropy returns Σ w · ((1 − ε) · −logp + ε · −mean) over N positions: the token losses with label smoothing ε
// (Szegedy et al. 2016), where mean is the mean log-probability over the vocabulary. Positions without a target have
// weight 0.
func CrossEntropy(logpN, meanN, weightsN *graph.Node, smoothing float32) *graph.Node {
	score := graph.Scale(logpN, smoothing-1)
	if smoothing != 0 {
		score = graph.Plus(score, graph.Scale(meanN, -smoothing))
	}
	return graph.Sum(graph.Times(score, weightsN))
}
