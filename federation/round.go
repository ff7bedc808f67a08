package federation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tunesmith/internal/atomicfile"
	"tunesmith/privacy"
)

// round is a round under way.
type round struct {
	Round
	began   time.Time
	waiting map[string]bool      // drawn, and neither answered nor refused
	tasks   map[string]string    // digests of the work that was given out,
	given   map[string]time.Time // and when it was
	updates []Update
	within  int // that needed no clipping
	noise   float64
}

// play makes one round, or in the asynchronous mode one step.
func (s *Server) play(ctx context.Context) error {
	before := *s.bytes()
	r := &round{Round: Round{Number: s.state.Round + 1, Refused: map[string]string{}}, began: time.Now(), waiting: map[string]bool{}, tasks: map[string]string{}, given: map[string]time.Time{}}
	var books []privacy.Event
	if s.state.Books != nil {
		books = slices.Clone(s.state.Books.History)
	}
	err := s.make(ctx, r)
	if err != nil {
		if s.state.Books != nil {
			s.state.Books.History = books // the round did not happen
		}
		return fmt.Errorf("round %d: %w", r.Number, err)
	}
	now := s.bytes()
	r.Sent, r.Received = difference(now.Sent, before.Sent), difference(now.Received, before.Received)
	r.Seconds = time.Since(r.began).Seconds()
	return s.commit(r.Round)
}

// bytes returns a copy of what was counted so far.
func (s *Server) bytes() *Traffic {
	s.Traffic.mu.Lock()
	defer s.Traffic.mu.Unlock()
	return &Traffic{Sent: maps.Clone(s.Traffic.Sent), Received: maps.Clone(s.Traffic.Received)}
}

func difference(now, before map[Kind]int64) map[Kind]int64 {
	out := map[Kind]int64{}
	for k, n := range now {
		if d := n - before[k]; d > 0 {
			out[k] = d
		}
	}
	return out
}

func (s *Server) make(ctx context.Context, r *round) (err error) {
	if r.noise, err = s.protect(); err != nil {
		return err
	}
	r.Drawn, r.Clip = s.draw(r.Number), s.clipOf()
	if s.settings.Asynchronous > 0 {
		r.Drawn = s.Members.Clients()
	}
	for _, name := range r.Drawn {
		r.waiting[name] = true
	}
	switch {
	case s.settings.Secure:
		err = s.secureRound(ctx, r)
	case s.settings.Asynchronous > 0:
		err = s.buffer(ctx, r)
	default:
		err = s.plainRound(ctx, r)
	}
	if err != nil {
		return err
	}
	r.Late = sortedKeys(r.waiting)
	if len(r.Late) > 0 {
		s.Log.Warn("late clients", "round", r.Number, "clients", strings.Join(r.Late, ", "))
	}
	if s.state.Books != nil {
		r.Epsilon, err = s.state.Books.Spent()
	}
	return err
}

// plainRound gives out work, takes the updates and joins them.
func (s *Server) plainRound(ctx context.Context, r *round) error {
	if err := s.stored(r); err != nil {
		return err
	}
	for name := range maps.Clone(r.waiting) {
		if err := s.give(ctx, r, name); err != nil {
			return err
		}
	}
	enough := s.settings.perRound(len(r.Drawn))
	if s.settings.Oversample == 1 {
		enough = len(r.Drawn)
	}
	err := s.collect(ctx, r, KindUpdate, func() int { return len(r.updates) }, enough, func(m Message, raw []byte) error {
		return s.take(r, m, raw)
	})
	if err != nil {
		return err
	}
	return s.aggregate(r)
}

// give sends a client that has joined its work.
func (s *Server) give(ctx context.Context, r *round, name string) error {
	if code, ok := s.refused[name]; ok {
		r.refuse(name, meaning[code])
		return nil
	}
	if s.joined[name] == nil {
		return nil // it gets its work when it joins
	}
	body, err := s.body(name)
	if err != nil {
		return err
	}
	// One that answers a hello has often just joined by itself.
	if time.Since(r.given[name]) < 3*time.Second {
		return nil
	}
	r.given[name] = time.Now()
	r.tasks[name] = TaskOf(r.Number, body)
	return s.send(ctx, name, Message{Kind: KindTrain, Round: r.Number, Task: r.tasks[name], Clip: r.Clip, Body: body})
}

func (r *round) refuse(name, why string) {
	delete(r.waiting, name)
	r.Refused[name] = why
}

// collect waits for the answers of those who are waited for: until all have answered, or enough, or those who are
// missing have been silent for too long.
func (s *Server) collect(ctx context.Context, r *round, kind Kind, have func() int, enough int, take func(m Message, raw []byte) error) error {
	for {
		switch {
		case len(r.waiting) == 0 || have() >= enough:
			if least := s.least(); have() < least {
				return fmt.Errorf("want at least %d answers, have %d; %s", least, have(), reasons(r.Refused))
			}
			return nil
		case have() >= s.least() && s.silent(r):
			return nil
		}
		m, d, ok, err := s.next(ctx, time.Now().Add(min(time.Second, s.settings.Patience/4)))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		switch m.Kind {
		case KindJoin:
			if r.waiting[m.Sender] && kind == KindUpdate && !s.settings.Secure {
				if err := s.give(ctx, r, m.Sender); err != nil {
					return err
				}
			} else if code, bad := s.refused[m.Sender]; bad && r.waiting[m.Sender] {
				r.refuse(m.Sender, meaning[code])
			}
			continue
		case KindBye, KindProgress:
			continue
		case KindRefuse:
			if r.waiting[m.Sender] && m.Round == r.Number {
				r.refuse(m.Sender, meaning[m.Code])
				s.Log.Error("a client refuses its work", "client", m.Sender, "round", m.Round, "reason", meaning[m.Code])
				if m.Code == CodeBudget {
					s.refused[m.Sender] = m.Code
				}
			}
		case kind:
			if !r.waiting[m.Sender] || m.Round != r.Number {
				s.Log.Warn("a late or repeated message is left aside", "client", m.Sender, "kind", m.Kind, "round", m.Round)
				break
			}
			if err := take(m, d.Data); err != nil {
				s.Log.Error("an answer is refused", "client", m.Sender, "round", m.Round, "error", err)
				r.refuse(m.Sender, err.Error())
				break
			}
			delete(r.waiting, m.Sender)
		default:
			s.Log.Warn("a message out of turn is left aside", "client", m.Sender, "kind", m.Kind, "round", m.Round)
		}
		if err := d.Ack(); err != nil {
			return err
		}
	}
}

func (s *Server) least() int {
	switch {
	case s.settings.Privacy.Level == "client" && !s.settings.Secure:
		return 0 // a round without anybody is one of noise
	case s.settings.Secure:
		return 0 // the threshold decides
	}
	return s.settings.Least
}

// silent reports whether all who are waited for have said nothing for too long.
func (s *Server) silent(r *round) bool {
	if s.Waits {
		return false
	}
	for name := range r.waiting {
		last := s.seen[name]
		if last.Before(r.began) {
			last = r.began
		}
		if time.Since(last) < s.settings.Patience {
			return false
		}
	}
	return true
}

func reasons(refused map[string]string) string {
	if len(refused) == 0 {
		return "no client refused"
	}
	var out []string
	for _, name := range sortedKeys(refused) {
		out = append(out, name+": "+refused[name])
	}
	return "refused: " + strings.Join(out, "; ")
}

// take checks an update and stores it.
func (s *Server) take(r *round, m Message, raw []byte) error {
	if m.Task != r.tasks[m.Sender] {
		return errors.New("its update is not for the parameters that it was given")
	}
	u, within, err := s.decode(m, r.Clip)
	if err != nil {
		return err
	}
	if raw != nil {
		path := filepath.Join(s.Dir, roundsDir, fmt.Sprint(r.Number), m.Sender)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(path, raw); err != nil {
			return err
		}
	}
	r.updates = append(r.updates, u)
	if within {
		r.within++
	}
	if m.Report.HeldN > 0 {
		if r.Held == nil {
			r.Held = map[string]float64{}
		}
		r.Held[m.Sender] = m.Report.Held
	}
	r.Epsilon = max(r.Epsilon, m.Report.Epsilon)
	return nil
}

// decode reads an update of a client and checks all that it says.
func (s *Server) decode(m Message, clip float64) (u Update, within bool, err error) {
	if m.Report == nil || m.Report.Examples < 1 {
		return u, false, errors.New("its update does not say how many examples it has")
	}
	u = Update{Client: m.Sender, Examples: m.Report.Examples, Loss: m.Report.Loss}
	if s.state.Scalars != nil {
		var ok bool
		if u.Scalars, ok = decodeScalars(m.Body, s.settings.Seeds); !ok {
			return u, false, fmt.Errorf("its update: want finite numbers of %d seeds", s.settings.Seeds)
		}
		return u, false, nil
	}
	like, err := tensorsOf(s.joined[m.Sender])
	if err != nil {
		return u, false, err
	}
	body := m.Body
	plain := Codec{Name: "fp32"}
	if s.settings.Strategy == "scaffold" {
		n := m.Report.Controls
		if n < 0 || n > len(body) {
			return u, false, fmt.Errorf("its update: want a control variate of at most %d bytes, have %d", len(body), n)
		}
		if u.Control, err = plain.Decode(body[len(body)-n:], like, 0); err != nil {
			return u, false, fmt.Errorf("its control variate: %w", err)
		}
		body = body[:len(body)-n]
	}
	codec := s.settings.codec()
	seed := seedOf(s.Machine.session.Config.Seed, "codec", m.Sender, m.Round)
	got, err := codec.Decode(body, like, seed)
	if err != nil {
		return u, false, fmt.Errorf("its update: %w", err)
	}
	if err := errors.Join(finite(got), finite(u.Control)); err != nil {
		return u, false, fmt.Errorf("its update is no number: %w", err)
	}
	base, err := s.Machine.products.Cut(s.state.global, like)
	if err != nil {
		return u, false, err
	}
	whole := codec.lossless() && clip == 0 && s.settings.Asynchronous == 0
	change := got
	if whole {
		change = minus(got, base)
	}
	norm := privacy.Norm(values(change))
	if s.settings.MaxNorm > 0 && norm > s.settings.MaxNorm {
		return u, false, fmt.Errorf("its change has a norm of %.4g, above max_norm %.4g", norm, s.settings.MaxNorm)
	}
	if clip > 0 {
		within = norm <= clip
		privacy.Clip(values(change), clip)
	}
	switch {
	case whole:
		u.Tensors = got
	case s.settings.Asynchronous > 0:
		u.Tensors = change // from parameters that may be gone
	default:
		u.Tensors = plus(base, change)
	}
	return u, within, nil
}

// stored takes the updates that a server which was killed had stored.
func (s *Server) stored(r *round) error {
	dir := filepath.Join(s.Dir, roundsDir, fmt.Sprint(r.Number))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // nothing is stored
	}
	for _, e := range entries {
		name := e.Name()
		if !r.waiting[name] {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		m, err := OpenMessage(raw, name, s.Members)
		if err != nil {
			s.Log.Warn("a stored update is left aside", "client", name, "error", err)
			continue
		}
		if s.joined[name] == nil {
			s.joined[name] = s.Machine.facts.Shapes
			if len(s.Machine.products) > 0 && s.settings.Strategy == "flexlora" {
				delete(s.joined, name) // its rank is not known before it joins
				continue
			}
		}
		body, err := s.body(name)
		if err != nil {
			return err
		}
		r.tasks[name] = TaskOf(r.Number, body)
		if err := s.take(r, m, nil); err != nil {
			s.Log.Warn("a stored update is left aside", "client", name, "error", err)
			continue
		}
		delete(r.waiting, name)
	}
	return nil
}

// aggregate joins the updates of a round.
func (s *Server) aggregate(r *round) error {
	sortUpdates(r.updates)
	for _, u := range r.updates {
		r.Took = append(r.Took, u.Client)
	}
	r.HeldMean = meanOf(r.Held)
	if len(r.updates) > 0 {
		r.Loss = MeanLoss(r.updates)
	}
	if s.state.Scalars != nil {
		w, err := weights(r.updates)
		if err != nil {
			return err
		}
		for c, u := range r.updates {
			for i, g := range u.Scalars {
				s.state.Scalars[i] += w[c] * g
			}
		}
		return nil
	}
	updates := r.updates
	if s.state.Adaptive != nil {
		updates = []Update{s.blurred(r)}
	}
	if s.settings.Strategy == "fedit" && len(updates) > 1 {
		var err error
		if r.Mismatch, err = s.Machine.products.Mismatch(updates); err != nil {
			return err
		}
	}
	next, err := s.strategy.Aggregate(r.Number, s.state.global, updates)
	if err != nil {
		return err
	}
	if err := finite(next); err != nil {
		return fmt.Errorf("the new parameters are no numbers: %w; lower server_rate", err)
	}
	s.state.global = next
	return nil
}

func meanOf(m map[string]float64) float64 {
	var sum float64
	for _, name := range sortedKeys(m) {
		sum += m[name]
	}
	return sum / float64(max(1, len(m)))
}

// blurred is one update that stands for the noisy mean of clipped changes. It divides by the number that a round has on
// average: by the true one, a client's presence would show.
func (s *Server) blurred(r *round) Update {
	sum := privacy.Sum{Limit: r.Clip}
	for _, t := range s.state.global {
		sum.Values = append(sum.Values, make([]float64, len(t.Values)))
	}
	for _, u := range r.updates {
		sum.Add(values(minus(u.Tensors, s.state.global)))
	}
	return s.release(r, sum, r.within, len(r.updates))
}

// release adds the noise to a sum of clipped changes and moves the limit.
func (s *Server) release(r *round, sum privacy.Sum, within, terms int) Update {
	noise := privacy.NewNoise(s.secret, fmt.Sprintf("round %d", r.Number))
	sum.Blur(r.noise, noise)
	expected := float64(max(1, s.settings.perRound(len(s.Members.Clients()))))
	out := Update{Client: "all", Examples: 1, Loss: r.Loss, Tensors: clone(s.state.global)}
	for i := range out.Tensors {
		for k := range out.Tensors[i].Values {
			out.Tensors[i].Values[k] += float32(sum.Values[i][k] / expected)
		}
	}
	if s.settings.Privacy.Quantile > 0 {
		s.state.Adaptive.Update(within, terms, noise)
	}
	return out
}
