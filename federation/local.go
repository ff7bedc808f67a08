package federation

// correction is what the strategies add to the gradient of local work.
type correction struct {
	proximal float64 // μ of FedProx
	control  bool    // SCAFFOLD
}

// correct changes a gradient in place: FedProx adds μ(w − global), SCAFFOLD takes the client's control variate off and
// adds the server's.
func correct(grad, w, global, own, server []float32, c correction) {
	if c.proximal > 0 {
		mu := float32(c.proximal)
		for i := range grad {
			grad[i] += mu * (w[i] - global[i])
		}
	}
	if c.control {
		for i := range grad {
			grad[i] += server[i] - own[i]
		}
	}
}
