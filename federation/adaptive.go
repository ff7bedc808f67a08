package federation

import "math"

// momentum is FedAvgM (Hsu et al. 2019, arXiv 1909.06335).
type momentum struct {
	remember
	rate, momentum float64
}

func newMomentum(o Options) Strategy {
	return &momentum{remember{}, orNumber(o.Rate, 1), or(o.Momentum, 0)}
}

// Aggregate implements Strategy.
func (m *momentum) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	p, err := weights(updates)
	if err != nil {
		return nil, err
	}
	w := mean(updates, p)
	b := m.get("momentum", global)
	out := empty(global)
	for i, t := range global {
		for k, v := range t.Values {
			g := float64(v) - w[i][k]
			g += m.momentum * float64(b[i].Values[k])
			b[i].Values[k] = float32(g)
			out[i].Values[k] = float32(float64(v) - m.rate*g)
		}
	}
	return out, nil
}

// nesterov is the outer optimizer of DiLoCo (Douillard et al. 2023, arXiv 2311.08105): the change of a round is a
// gradient for SGD with Nesterov's momentum.
type nesterov struct {
	remember
	rate, momentum float64
}

func newNesterov(o Options) Strategy {
	return &nesterov{remember{}, orNumber(o.Rate, 0.7), or(o.Momentum, 0.9)}
}

// Aggregate implements Strategy.
func (n *nesterov) Aggregate(_ int, global []Tensor, updates []Update) ([]Tensor, error) {
	p, err := weights(updates)
	if err != nil {
		return nil, err
	}
	w := mean(updates, p)
	b := n.get("momentum", global)
	out := empty(global)
	for i, t := range global {
		for k, v := range t.Values {
			g := float64(v) - w[i][k]
			m := n.momentum*float64(b[i].Values[k]) + g
			b[i].Values[k] = float32(m)
			out[i].Values[k] = float32(float64(v) - n.rate*(g+n.momentum*m))
		}
	}
	return out, nil
}

// rule is how an adaptive strategy keeps the squares of the changes.
type rule uint8

const (
	adam rule = iota
	yogi
	adagrad
)

// adaptive is FedAdam, FedYogi or FedAdagrad (Reddi et al. 2021, arXiv 2003.00295) with Flower's constants, FedAdam's
// bias correction by the number of the round plus one among them.
type adaptive struct {
	remember
	rule                    rule
	rate, beta1, beta2, tau float64
}

func newAdaptive(o Options, r rule) Strategy {
	a := &adaptive{remember{}, r, o.Rate, or(o.Beta1, 0.9), or(o.Beta2, 0.99), orNumber(o.Tau, 1e-3)}
	switch r {
	case yogi:
		a.rate = orNumber(o.Rate, 0.01)
	case adagrad:
		a.beta1 = 0
		fallthrough
	default:
		a.rate = orNumber(o.Rate, 0.1)
	}
	return a
}

// Aggregate implements Strategy.
func (a *adaptive) Aggregate(round int, global []Tensor, updates []Update) ([]Tensor, error) {
	p, err := weights(updates)
	if err != nil {
		return nil, err
	}
	w := mean(updates, p)
	rate := a.rate
	if a.rule == adam {
		t := float64(round + 1)
		rate *= math.Sqrt(1-math.Pow(a.beta2, t)) / (1 - math.Pow(a.beta1, t))
	}
	ms, vs := a.get("mean", global), a.get("square", global)
	out := empty(global)
	for i, t := range global {
		for k, x := range t.Values {
			d := w[i][k] - float64(x)
			m := a.beta1*float64(ms[i].Values[k]) + (1-a.beta1)*d
			v, d2 := float64(vs[i].Values[k]), d*d
			switch a.rule {
			case adam:
				v = a.beta2*v + (1-a.beta2)*d2
			case yogi:
				v -= (1 - a.beta2) * d2 * sign(v-d2)
			case adagrad:
				v += d2
			}
			ms[i].Values[k], vs[i].Values[k] = float32(m), float32(v)
			out[i].Values[k] = float32(float64(x) + rate*m/(math.Sqrt(v)+a.tau))
		}
	}
	return out, nil
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// scaffold is SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378). The server keeps the mean of the clients' control
// variates; a client steps by its gradient plus the difference of the mean and its own.
type scaffold struct {
	remember
	clients int
}

func newScaffold(o Options) Strategy { return &scaffold{remember{}, o.Clients} }

// controlName is the server's control variate among a strategy's state.
const controlName = "control"

// Aggregate implements Strategy.
func (s *scaffold) Aggregate(round int, global []Tensor, updates []Update) ([]Tensor, error) {
	if len(updates) == 0 {
		return nil, errNoUpdates
	}
	c := s.get(controlName, global)
	all := float64(max(s.clients, len(updates)))
	for i := range c {
		for k := range c[i].Values {
			var sum float64
			for _, u := range updates {
				if u.Control != nil {
					sum += float64(u.Control[i].Values[k])
				}
			}
			c[i].Values[k] = float32(float64(c[i].Values[k]) + sum/all)
		}
	}
	return average{}.Aggregate(round, global, updates)
}

// Drift returns the change c⁺ − c of a client's control variate after steps of SGD at a rate from the global parameters
// to its own (option II of the paper): (global − own)/(steps·rate) − server.
func Drift(global, own, server []Tensor, steps int, rate float64) []Tensor {
	out := empty(global)
	f := 1 / (float64(steps) * rate)
	for i := range out {
		for k := range out[i].Values {
			d := (float64(global[i].Values[k]) - float64(own[i].Values[k])) * f
			out[i].Values[k] = float32(d - float64(server[i].Values[k]))
		}
	}
	return out
}
