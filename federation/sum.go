package federation

import (
	"context"
	"errors"
	"fmt"
	"math"
	randv2 "math/rand/v2"
	"slices"
	"time"

	"tunesmith/privacy"
	"tunesmith/secure"
)

// sumTries is how often a round tries again to add up updates that it may not see.
const sumTries = 3

// secureRound adds the clients' changes without seeing one.
func (s *Server) secureRound(ctx context.Context, r *round) error {
	all := r.Drawn
	err := s.present(ctx, r)
	if err != nil {
		return err
	}
	for range sumTries {
		clear(r.waiting)
		for _, name := range all {
			if _, bad := r.Refused[name]; !bad {
				r.waiting[name] = true
			}
		}
		if err = s.trySum(ctx, r); err == nil || !errors.Is(err, secure.ErrTooFew) {
			return err
		}
		s.Log.Error("the sum stays closed", "round", r.Number, "error", err)
	}
	return fmt.Errorf("%w; nothing of any client was revealed. Start the missing clients, or lower the threshold", err)
}

// threshold is how many of the drawn clients have to stay.
func (s *Server) threshold(r *round) int {
	n := len(r.Drawn)
	return max(2, int(math.Ceil(s.settings.Threshold*float64(n)-1e-9)), n/2+1)
}

// present waits until as many of the drawn clients have joined as a sum needs.
func (s *Server) present(ctx context.Context, r *round) error {
	for {
		here, gone := 0, 0
		for _, name := range r.Drawn {
			if s.refused[name] != "" {
				gone++
			} else if s.joined[name] != nil {
				here++
			}
		}
		switch need := s.threshold(r); {
		case here >= need:
			return nil
		case len(r.Drawn)-gone < need:
			return fmt.Errorf("%w: %d of %d drawn clients are refused, the threshold is %d", secure.ErrTooFew, gone, len(r.Drawn), need)
		}
		m, d, ok, err := s.next(ctx, time.Now().Add(time.Second))
		if err != nil {
			return err
		}
		if ok && m.Kind != KindJoin && m.Kind != KindBye && m.Kind != KindProgress {
			if err := d.Ack(); err != nil { // of a sum that is over
				return err
			}
		}
	}
}

// trySum makes one attempt at a sum.
func (s *Server) trySum(ctx context.Context, r *round) error {
	attempt := randv2.IntN(math.MaxInt32) + 1 // no session has the name of one before
	head := Message{Round: r.Number, Attempt: attempt, Federation: s.Federation}
	session := []byte(sessionOf(head))
	threshold := s.threshold(r)

	// All who are here advertise keys.
	var keys []secure.Keys
	if err := s.gather(ctx, r, r.Drawn, Message{Kind: KindAdvertise}, head, KindKeys, func(m Message) error {
		if len(m.Keys) != 1 || m.Keys[0].Name != m.Sender {
			return errors.New("want its own keys alone")
		}
		if err := m.Keys[0].Verify(session, s.Members[m.Sender]); err != nil {
			return err
		}
		keys = append(keys, m.Keys[0])
		return nil
	}); err != nil {
		return err
	}
	slices.SortFunc(keys, func(a, b secure.Keys) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	if len(keys) < threshold {
		return fmt.Errorf("%w: %d clients are here, the threshold is %d", secure.ErrTooFew, len(keys), threshold)
	}
	// They share their secrets.
	sealed := map[string][]secure.Envelope{} // by receiver
	var shared []secure.Keys
	if err := s.gather(ctx, r, secure.Order(keys), Message{Kind: KindCohort, Keys: keys, Threshold: threshold}, head, KindShares, func(m Message) error {
		if len(m.Envelopes) != len(keys)-1 {
			return fmt.Errorf("want %d envelopes, have %d", len(keys)-1, len(m.Envelopes))
		}
		for _, e := range m.Envelopes {
			if e.From != m.Sender {
				return errors.New("an envelope is not its own")
			}
			sealed[e.To] = append(sealed[e.To], e)
		}
		at := slices.IndexFunc(keys, func(k secure.Keys) bool { return k.Name == m.Sender })
		shared = append(shared, keys[at])
		return nil
	}); err != nil {
		return err
	}
	n := size(s.state.global) + 2
	sum, err := secure.NewSum(session, shared, threshold, n)
	if err != nil {
		return err
	}
	// They work, and send what they have learned under their masks.
	body, err := s.body("")
	if err != nil {
		return err
	}
	task := Message{Kind: KindTrain, Task: TaskOf(r.Number, body), Clip: r.Clip, Parties: len(keys), Body: body}
	if err := s.gatherEach(ctx, r, secure.Order(shared), func(name string) Message {
		m := task
		m.Envelopes = sealed[name]
		return m
	}, head, KindUpdate, func(m Message) error {
		if len(m.Body) != 4*n {
			return fmt.Errorf("its update: want %d bytes, have %d", 4*n, len(m.Body))
		}
		return sum.Add(m.Sender, intsOf(m.Body))
	}); err != nil {
		return err
	}
	alive := sum.Survivors()
	if len(alive) < threshold {
		return fmt.Errorf("%w: %d clients sent updates, the threshold is %d", secure.ErrTooFew, len(alive), threshold)
	}
	// Those who are left open the sum.
	var reveals []secure.Reveal
	if err := s.gather(ctx, r, alive, Message{Kind: KindOpen, Survivors: alive}, head, KindReveal, func(m Message) error {
		if m.Reveal == nil || m.Reveal.Name != m.Sender {
			return errors.New("want its own shares")
		}
		reveals = append(reveals, *m.Reveal)
		return nil
	}); err != nil {
		return err
	}
	ints, err := sum.Open(reveals, secure.Order(keys))
	if err != nil {
		return err
	}
	for _, name := range r.Drawn {
		if _, bad := r.Refused[name]; !bad && !slices.Contains(alive, name) {
			r.waiting[name] = true // late
		}
	}
	return s.useSum(r, secure.Fixed{Limit: s.settings.SumLimit, Parties: len(keys)}.Decode(ints), alive)
}

// gather asks clients the same and takes their answers of this attempt.
func (s *Server) gather(ctx context.Context, r *round, names []string, ask, head Message, kind Kind, take func(Message) error) error {
	return s.gatherEach(ctx, r, names, func(string) Message { return ask }, head, kind, take)
}

func (s *Server) gatherEach(ctx context.Context, r *round, names []string, ask func(name string) Message, head Message, kind Kind, take func(Message) error) error {
	clear(r.waiting)
	for _, name := range names {
		if _, bad := r.Refused[name]; bad {
			continue
		}
		if code, bad := s.refused[name]; bad {
			r.Refused[name] = meaning[code]
			continue
		}
		r.waiting[name] = true
		m := ask(name)
		m.Round, m.Attempt = head.Round, head.Attempt
		if err := s.send(ctx, name, m); err != nil {
			return err
		}
	}
	taken := 0
	return s.collect(ctx, r, kind, func() int { return taken }, len(names), func(m Message, _ []byte) error {
		if m.Attempt != head.Attempt {
			return fmt.Errorf("its answer belongs to another attempt")
		}
		if err := take(m); err != nil {
			return err
		}
		taken++
		return nil
	})
}

// useSum makes the next parameters of a sum of changes.
func (s *Server) useSum(r *round, x []float64, alive []string) error {
	n := float64(len(alive))
	limit := s.settings.SumLimit
	within, loss := int(math.Round(x[len(x)-2]/limit)), x[len(x)-1]/limit*lossScale/n
	r.Took, r.Loss = alive, loss
	sum := privacy.Sum{Limit: r.Clip}
	for _, t := range s.state.global {
		sum.Values = append(sum.Values, x[:len(t.Values)])
		x = x[len(t.Values):]
	}
	u := Update{Client: "all", Examples: 1, Loss: loss, Tensors: clone(s.state.global)}
	if s.state.Adaptive != nil {
		u = s.release(r, sum, within, len(alive))
	} else {
		for i := range u.Tensors {
			for k := range u.Tensors[i].Values {
				u.Tensors[i].Values[k] += float32(sum.Values[i][k] / n)
			}
		}
	}
	next, err := s.strategy.Aggregate(r.Number, s.state.global, []Update{u})
	if err != nil {
		return err
	}
	s.state.global = next
	return nil
}
