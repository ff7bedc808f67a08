package optim

import (
	"encoding/json"
	"math"
)

// greedy raises the rate while the metric becomes better and lowers it while it does not (GreedyLR, arXiv
// 2512.14527, as in transformers).
type greedy struct {
	o MetricOptions
	s metricState
}

func newGreedy(o MetricOptions) MetricSchedule {
	o.Factor, o.Mode, o.ThresholdMode = or(o.Factor, 0.95), or(o.Mode, "min"), or(o.ThresholdMode, "abs")
	o.MaxLR, o.WindowSize = or(o.MaxLR, 1), or(o.WindowSize, 50)
	g := &greedy{o: o}
	g.reset()
	return g
}

// reset returns to the first rate and forgets all metrics.
func (g *greedy) reset() {
	g.s = metricState{LR: g.o.LR, UntilReset: deref(g.o.ResetStart, 500)}
}

func (g *greedy) LR() float64                  { return g.s.LR }
func (g *greedy) MarshalJSON() ([]byte, error) { return json.Marshal(g.s) }
func (g *greedy) UnmarshalJSON(b []byte) error { return g.s.restore(b) }

func (g *greedy) Observe(metric float64) float64 {
	s := &g.s
	if g.o.Smooth && !math.IsNaN(metric) && !math.IsInf(metric, 0) {
		metric = s.mean(metric, g.o.WindowSize)
	}
	switch {
	case s.Cooldown > 0:
		s.Cooldown, s.Bad, s.Good = s.Cooldown-1, 0, 0
		return s.LR
	case s.Warmup > 0:
		s.Warmup, s.Bad, s.Good = s.Warmup-1, 0, 0
		return s.LR
	case s.improves(metric, g.o, 1e-6):
		s.Best, s.Bad, s.Good = &metric, 0, s.Good+1
	default:
		s.Bad, s.Good = s.Bad+1, 0
	}
	patience := deref(g.o.Patience, 10)
	switch {
	case s.Good > patience:
		if higher := min(s.LR/g.o.Factor, g.o.MaxLR); higher-s.LR > smallest {
			s.LR = higher
		}
		s.Warmup, s.Good, s.UntilReset = g.o.Warmup, 0, deref(g.o.ResetStart, 500)
	case s.Bad > patience:
		lowest := deref(g.o.MinLR, 1e-3)
		s.fall(g.o.Factor, lowest)
		if s.LR <= lowest {
			s.UntilReset--
		}
		if s.LR <= lowest && s.UntilReset <= 0 {
			g.reset()
		}
		s.Cooldown, s.Bad = g.o.Cooldown, 0
	}
	return s.LR
}

// mean is that of the last metrics, size of them at most.
func (m *metricState) mean(metric float64, size int) float64 {
	m.Window = append(m.Window, metric)
	m.Sum += metric
	if len(m.Window) > size {
		m.Sum -= m.Window[0]
		m.Window = m.Window[1:]
	}
	return m.Sum / float64(len(m.Window))
}
