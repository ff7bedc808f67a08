package federation

import (
	"context"
	"fmt"
	"math"
	"time"
)

// buffer is a step of the asynchronous mode (FedBuff, Nguyen et al. 2022, arXiv 2106.06639): clients work at their own
// speed, each from the parameters that were there when it began; when enough updates have come they move the parameters,
// old ones by less.
func (s *Server) buffer(ctx context.Context, r *round) error {
	give := func(name string) error {
		delete(r.waiting, name)
		if s.joined[name] == nil || s.refused[name] != "" {
			return nil
		}
		body, err := s.body(name)
		if err != nil {
			return err
		}
		return s.send(ctx, name, Message{Kind: KindTrain, Round: r.Number, Task: TaskOf(r.Number, body), Clip: r.Clip, Body: body})
	}
	if r.Number == 1 || len(s.joined) == 0 {
		for name := range s.joined {
			if err := give(name); err != nil {
				return err
			}
		}
	}
	var factors []float64
	for len(r.updates) < s.settings.Asynchronous {
		m, d, ok, err := s.next(ctx, time.Now().Add(s.settings.Patience))
		if err != nil {
			return err
		}
		if !ok {
			if len(s.joined) > 0 && len(r.updates) >= s.settings.Least {
				break
			}
			continue
		}
		switch m.Kind {
		case KindJoin:
			if err := give(m.Sender); err != nil {
				return err
			}
			continue
		case KindUpdate:
			age := r.Number - m.Round
			u, err := s.late(m, age)
			if err != nil {
				s.Log.Error("an answer is refused", "client", m.Sender, "round", m.Round, "error", err)
				r.Refused[m.Sender] = err.Error()
			} else {
				r.updates = append(r.updates, u)
				factors = append(factors, 1/math.Sqrt(1+float64(age)))
			}
			if err := d.Ack(); err != nil {
				return err
			}
			if len(r.updates) < s.settings.Asynchronous {
				if err := give(m.Sender); err != nil {
					return err
				}
			} else {
				defer s.giveLater(ctx, r, m.Sender)
			}
			continue
		case KindRefuse:
			r.Refused[m.Sender] = meaning[m.Code]
		}
		if m.Kind != KindBye && m.Kind != KindProgress {
			if err := d.Ack(); err != nil {
				return err
			}
		}
	}
	clear(r.waiting)
	var all float64
	for i, u := range r.updates {
		factors[i] *= float64(u.Examples)
		all += factors[i]
		r.Took = append(r.Took, u.Client)
	}
	r.Loss = MeanLoss(r.updates)
	rate := orNumber(s.settings.ServerRate, 1)
	next := clone(s.state.global)
	for i := range next {
		for k := range next[i].Values {
			var move float64
			for c, u := range r.updates {
				move += factors[c] / all * float64(u.Tensors[i].Values[k])
			}
			next[i].Values[k] += float32(rate * move)
		}
	}
	s.state.global = next
	return nil
}

// giveLater sends the client whose update has completed a step its next work, from the new parameters.
func (s *Server) giveLater(ctx context.Context, r *round, name string) {
	body, err := s.body(name)
	if err == nil {
		err = s.send(ctx, name, Message{Kind: KindTrain, Round: r.Number + 1, Task: TaskOf(r.Number+1, body), Clip: r.Clip, Body: body})
	}
	if err != nil {
		s.Log.Error("a client gets no work", "client", name, "error", err)
	}
}

// oldest is the age in steps beyond which an update says too little about the parameters of today.
const oldest = 20

// late reads an update that may be some steps old; its tensors hold the change alone.
func (s *Server) late(m Message, age int) (Update, error) {
	if age < 0 || age > oldest {
		return Update{}, fmt.Errorf("its update is %d steps old, want at most %d", age, oldest)
	}
	u, _, err := s.decode(m, 0)
	return u, err
}
