package federation

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	randv2 "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tunesmith/checkpoint"
	"tunesmith/internal/atomicfile"
	"tunesmith/privacy"
)

// Server leads a federation: it draws clients, sends them work, joins what they send. Its directory holds the state
// after each round and the updates of the round under way, so that one that is killed goes on with the same bits.
type Server struct {
	Federation string
	Key        ed25519.PrivateKey
	Members    Members
	Tokens     map[string][sha256.Size]byte // hashes of the clients' join tokens; nil asks for none
	Machine    *Machine
	Link       Link
	Dir        string
	Log        *slog.Logger
	// Progress, where it is set, sees every round when it is stored.
	Progress func(Round)
	Traffic  Traffic
	// Waits leaves nobody behind: in a simulation a client is silent while it waits for the machine.
	Waits bool

	settings *Settings
	strategy Strategy
	state    serverState
	secret   []byte // of cohorts and noise
	joined   map[string][]Shape
	seen     map[string]time.Time
	refused  map[string]Code
	said     map[string]bool // who has the last parameters
}

// serverState is what a server has stored.
type serverState struct {
	Round    int                 `json:"round"` // that are done
	History  []Round             `json:"history"`
	Books    *privacy.Accountant `json:"books,omitempty"`
	Adaptive *privacy.Adaptive   `json:"adaptive,omitempty"`
	Scalars  []float64           `json:"scalars,omitempty"`
	global   []Tensor
}

// Round is what happened in a round.
type Round struct {
	Number   int                `json:"round"`
	Drawn    []string           `json:"drawn"`
	Took     []string           `json:"took"` // whose updates were used
	Late     []string           `json:"late,omitempty"`
	Refused  map[string]string  `json:"refused,omitempty"` // with the reason
	Loss     float64            `json:"loss"`
	Held     map[string]float64 `json:"held,omitempty"` // losses of the model before the round by client
	HeldMean float64            `json:"held_mean,omitempty"`
	Mismatch float64            `json:"mismatch,omitempty"` // of averaging factors one by one
	Epsilon  float64            `json:"epsilon,omitempty"`
	Clip     float64            `json:"clip,omitempty"`
	Sent     map[Kind]int64     `json:"sent"`
	Received map[Kind]int64     `json:"received"`
	Seconds  float64            `json:"seconds"`
}

// Names of the server's files.
const (
	secretFile = "secret.key"
	roundsDir  = "rounds"
)

// Run leads the federation from where it stands to its end and returns the last parameters.
func (s *Server) Run(ctx context.Context) ([]Tensor, error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.settings = s.Machine.settings
	s.joined, s.seen, s.refused, s.said = map[string][]Shape{}, map[string]time.Time{}, map[string]Code{}, map[string]bool{}
	if err := s.load(); err != nil {
		return nil, err
	}
	for _, name := range s.Members.Clients() {
		if err := s.send(ctx, name, Message{Kind: KindHello}); err != nil {
			return nil, err
		}
	}
	for s.state.Round < s.settings.Rounds {
		err := s.play(ctx)
		if errors.Is(err, privacy.ErrBudget) {
			s.Log.Warn("the federation ends early", "round", s.state.Round, "error", err)
			break
		}
		if err != nil {
			return nil, err
		}
	}
	err := s.finish(ctx)
	return s.state.global, err
}

// History returns the rounds that are done.
func (s *Server) History() []Round { return s.state.History }

func (s *Server) load() (err error) {
	if s.secret, err = secretOf(filepath.Join(s.Dir, secretFile)); err != nil {
		return err
	}
	if s.strategy, err = NewStrategy(s.settings.Strategy, s.options()); err != nil {
		return err
	}
	s.state = serverState{global: s.Machine.Start()}
	if s.settings.Strategy == seeds {
		s.state.Scalars = make([]float64, s.settings.Seeds)
	}
	if p := s.settings.Privacy; p.Level == "client" {
		s.state.Books = s.settings.accountant()
		s.state.Adaptive = &privacy.Adaptive{Limit: p.Clip, Quantile: p.Quantile, Rate: 0.2}
	}
	dir, _, err := checkpoint.Latest(filepath.Join(s.Dir, statesDir))
	if err != nil || dir == "" {
		return err
	}
	in, err := checkpoint.LoadState(dir)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(in.Meta["server"], &s.state); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	byName := map[string]checkpoint.Tensor{}
	lists := map[string]bool{}
	for _, t := range in.Tensors {
		byName[t.Name] = t
		list, _, _ := strings.Cut(t.Name, ":")
		lists[list] = true
	}
	const global = "global"
	if s.state.global = pick(byName, global+":", s.Machine.start); s.state.global == nil {
		return fmt.Errorf("%s: it holds the parameters of another run", dir)
	}
	own := map[string][]Tensor{}
	for list := range lists {
		if list != global {
			own[list] = pick(byName, list+":", s.Machine.start)
		}
	}
	s.Log.Info("the federation goes on", "round", s.state.Round)
	return s.strategy.Restore(own)
}

func (s *Server) options() Options {
	o := s.settings.options(s.Machine.rate, s.Machine.products)
	o.Clients = len(s.Members.Clients())
	return o
}

// Secret returns the secret of a member's directory, from which its noise is drawn; it is made where there is none.
func Secret(dir string) ([]byte, error) { return secretOf(filepath.Join(dir, secretFile)) }

// secretOf reads a key, or makes it.
func secretOf(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		return key, atomicfile.WriteFile(path, key)
	}
	return key, err
}

// commit stores the state after a round, and then what it does not need any more.
func (s *Server) commit(r Round) error {
	s.state.Round = r.Number
	s.state.History = append(s.state.History, r)
	meta, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	out := checkpoint.State{Step: s.state.Round, Meta: map[string]json.RawMessage{"server": meta}}
	add := func(list string, tensors []Tensor) {
		for _, t := range tensors {
			out.Tensors = append(out.Tensors, checkpoint.Float32Tensor(list+":"+t.Name, t.Shape, t.Values))
		}
	}
	add("global", s.state.global)
	memory := s.strategy.State()
	for _, list := range sortedKeys(memory) {
		add(list, memory[list])
	}
	root := filepath.Join(s.Dir, statesDir)
	if _, err := checkpoint.SaveState(root, out); err != nil {
		return err
	}
	if err := checkpoint.Prune(root, 2); err != nil {
		return err
	}
	if s.Progress != nil {
		s.Progress(r)
	}
	return os.RemoveAll(filepath.Join(s.Dir, roundsDir))
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (s *Server) send(ctx context.Context, to string, m Message) error {
	m.Federation, m.Sender = s.Federation, ServerName
	b, err := m.Seal(s.Key)
	if err != nil {
		return err
	}
	s.Traffic.add(&s.Traffic.Sent, m.Kind, len(b))
	return s.Link.Send(ctx, to, b)
}

// next waits until the time for a message that belongs to the work, answers those that do not, and returns false when
// the time is over.
func (s *Server) next(ctx context.Context, until time.Time) (m Message, d Delivery, ok bool, err error) {
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		d, err := s.Link.Receive(wait)
		if err != nil {
			if ctx.Err() == nil && wait.Err() != nil {
				return m, d, false, nil
			}
			return m, d, false, err
		}
		m, err := OpenMessage(d.Data, d.From, s.Members)
		if err == nil && m.Federation != s.Federation {
			err = fmt.Errorf("message of %q: want one of federation %s, have one of %q", d.From, s.Federation, m.Federation)
		}
		if err != nil {
			s.Log.Warn("a message is left aside", "error", err)
			if err := d.Ack(); err != nil {
				return m, d, false, err
			}
			continue
		}
		s.Traffic.add(&s.Traffic.Received, m.Kind, len(d.Data))
		s.seen[d.From] = time.Now()
		switch m.Kind {
		case KindJoin:
			if err := s.welcome(ctx, m); err != nil {
				return m, d, false, err
			}
			return m, d, true, d.Ack()
		case KindBye:
			s.said[m.Sender] = true
			return m, d, true, d.Ack()
		case KindProgress:
			if err := d.Ack(); err != nil {
				return m, d, false, err
			}
			return m, d, true, nil
		}
		return m, d, true, nil
	}
}

// welcome takes a client that works on the same things, and refuses others.
func (s *Server) welcome(ctx context.Context, m Message) error {
	shapes, code := s.judge(m)
	if code != "" {
		s.refused[m.Sender] = code
		s.Log.Error("a client is refused", "client", m.Sender, "reason", meaning[code])
		return s.send(ctx, m.Sender, Message{Kind: KindRefused, Code: code})
	}
	delete(s.refused, m.Sender)
	if s.joined[m.Sender] == nil {
		s.Log.Info("a client has joined", "client", m.Sender)
	}
	s.joined[m.Sender] = shapes
	return s.send(ctx, m.Sender, Message{Kind: KindWelcome})
}

func (s *Server) judge(m Message) ([]Shape, Code) {
	if s.Tokens != nil {
		want, have := s.Tokens[m.Sender], sha256.Sum256(m.Token)
		if subtle.ConstantTimeCompare(want[:], have[:]) != 1 {
			return nil, CodeToken
		}
	}
	own := s.Machine.facts
	switch {
	case m.Join == nil || m.Join.Base != own.Base:
		return nil, CodeBase
	case m.Join.Tokenizer != own.Tokenizer:
		return nil, CodeTokenizer
	case m.Join.Template != own.Template:
		return nil, CodeTemplate
	case m.Join.Settings != own.Settings:
		return nil, CodeSettings
	}
	if slices.EqualFunc(m.Join.Shapes, own.Shapes, func(a, b Shape) bool { return a.Name == b.Name && slices.Equal(a.Dims, b.Dims) }) {
		return m.Join.Shapes, ""
	}
	// A lower rank is fine where the strategy can cut products.
	if _, ok := s.strategy.(products); ok && len(m.Join.Shapes) == len(own.Shapes) {
		if like, err := tensorsOf(m.Join.Shapes); err == nil {
			if _, err := s.Machine.products.Cut(s.Machine.start, like); err == nil {
				return m.Join.Shapes, ""
			}
		}
	}
	return nil, CodeShapes
}

// draw returns the clients of a round: a function of the seed and the round's number alone, or, where privacy counts on
// nobody knowing it, of the server's secret.
func (s *Server) draw(round int) []string {
	all := s.Members.Clients()
	n := s.settings.perRound(len(all))
	if s.settings.Privacy.Level == "client" && n < len(all) {
		noise := privacy.NewNoise(s.secret, fmt.Sprintf("cohort %d", round))
		rate := float64(n) / float64(len(all))
		return slices.DeleteFunc(all, func(string) bool { return noise.Uniform() >= rate })
	}
	rng := randv2.New(randv2.NewPCG(seedOf(s.Machine.session.Config.Seed, "cohort", round), 0))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	drawn := all[:s.settings.drawn(len(all))]
	slices.Sort(drawn)
	return drawn
}

// body is what a client starts a round from.
func (s *Server) body(name string) ([]byte, error) {
	if s.state.Scalars != nil {
		return encodeScalars(s.state.Scalars), nil
	}
	tensors := s.state.global
	if shapes := s.joined[name]; len(s.Machine.products) > 0 && shapes != nil {
		like, err := tensorsOf(shapes)
		if err != nil {
			return nil, err
		}
		if tensors, err = s.Machine.products.Cut(tensors, like); err != nil {
			return nil, err
		}
	}
	body, _, err := Codec{Name: "fp32"}.Encode(tensors, 0)
	if err != nil {
		return nil, err
	}
	if s.settings.Strategy == "scaffold" {
		control := s.strategy.State()[controlName]
		if control == nil {
			control = empty(s.state.global)
		}
		more, _, err := Codec{Name: "fp32"}.Encode(control, 0)
		if err != nil {
			return nil, err
		}
		body = append(body, more...)
	}
	return body, nil
}

// finish gives the last parameters to all clients and waits until they have them.
func (s *Server) finish(ctx context.Context) error {
	if s.state.Scalars != nil {
		s.state.global = replay(s.Machine.start, s.state.Scalars, s.Machine.rate)
	}
	give := func(name string) error {
		body, err := s.body(name)
		if err != nil {
			return err
		}
		if s.settings.Strategy == "scaffold" {
			body = body[:len(body)/2]
		}
		return s.send(ctx, name, Message{Kind: KindDone, Round: s.state.Round, Body: body})
	}
	given := map[string]bool{}
	end := time.Now().Add(s.settings.Patience)
	for {
		open := false
		for name := range s.joined {
			if !given[name] {
				if err := give(name); err != nil {
					return err
				}
				given[name] = true
			}
			open = open || !s.said[name]
		}
		if !open && len(s.joined) > 0 || time.Now().After(end) {
			return nil
		}
		m, d, ok, err := s.next(ctx, time.Now().Add(min(time.Second, s.settings.Patience)))
		if err != nil {
			return err
		}
		if ok && m.Kind != KindJoin && m.Kind != KindBye && m.Kind != KindProgress {
			if err := d.Ack(); err != nil {
				return err
			}
		}
	}
}

// clipOf is the limit of a client's change in a round, 0 for none.
func (s *Server) clipOf() float64 {
	if s.state.Adaptive == nil {
		return 0
	}
	return s.state.Adaptive.Limit
}

// protect enters a round into the books before it begins and returns the noise multiplier of its sum.
func (s *Server) protect() (float64, error) {
	if s.settings.Privacy.Level != "client" {
		return 0, nil
	}
	all := len(s.Members.Clients())
	rate := float64(s.settings.perRound(all)) / float64(all)
	z, err := s.settings.noise(rate, s.settings.Rounds)
	if err != nil {
		return 0, err
	}
	if err := s.state.Books.Spend(privacy.Event{Noise: z, Rate: rate, Steps: 1}); err != nil {
		return 0, err
	}
	if s.settings.Privacy.Quantile > 0 {
		s.state.Adaptive.Count = math.Max(1, rate*float64(all)/20)
		z = s.state.Adaptive.Multiplier(z)
	}
	return z, nil
}
