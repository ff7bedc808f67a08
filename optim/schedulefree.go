package optim

// Averager is an optimizer whose best weights are not those that it trains.
type Averager interface {
	// Average writes the weights to evaluate and to save with, for one parameter, into dst.
	Average(p Param, dst []float32)
}
