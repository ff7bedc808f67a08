package federation

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tunesmith/privacy"
	"tunesmith/secure"
	"tunesmith/trainer"
)

// Client takes part in a federation with a learner. Its directory holds what it has to remember, so that one that is
// killed goes on with the same bits.
type Client struct {
	Name       string
	Key        ed25519.PrivateKey
	Members    Members
	Federation string
	Token      []byte
	Learner    *Learner
	Link       Link
	Dir        string
	Log        *slog.Logger

	settings *Settings
	state    state
	party    *secure.Party
	session  string // of the party
	card     Card
	last     time.Time // of the last sign of progress
}

// ErrRefused is a client that the server does not take.
var ErrRefused = errors.New("the server refuses this client")

// Run takes part until the federation is done and returns the last global parameters.
func (c *Client) Run(ctx context.Context) ([]Tensor, error) {
	c.settings = c.Learner.settings
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := c.load(); err != nil {
		return nil, err
	}
	if err := c.join(ctx); err != nil {
		return nil, err
	}
	for {
		d, err := c.Link.Receive(ctx)
		if err != nil {
			return nil, err
		}
		m, err := OpenMessage(d.Data, d.From, c.Members)
		if err == nil && (d.From != ServerName || m.Federation != c.Federation) {
			err = fmt.Errorf("message of %q: want one of the server of federation %s", d.From, c.Federation)
		}
		if err != nil {
			c.Log.Warn("a message is left aside", "client", c.Name, "error", err)
			if err := d.Ack(); err != nil {
				return nil, err
			}
			continue
		}
		// A client that is killed at its work joins again, and the server gives it the work again. Only the last message
		// has to stay until it is used.
		if m.Kind != KindDone {
			if err := d.Ack(); err != nil {
				return nil, err
			}
		}
		final, err := c.handle(ctx, m)
		if err != nil {
			return nil, err
		}
		if err := c.writeCard(); err != nil {
			return nil, err
		}
		if final != nil {
			if err := d.Ack(); err != nil {
				return nil, err
			}
		}
		if final != nil {
			return final, nil
		}
	}
}

func (c *Client) join(ctx context.Context) error {
	facts := c.Learner.Facts()
	return c.send(ctx, Message{Kind: KindJoin, Join: &facts, Token: c.Token})
}

// send seals a message and sends it to the server.
func (c *Client) send(ctx context.Context, m Message) error {
	m.Federation, m.Sender = c.Federation, c.Name
	b, err := m.Seal(c.Key)
	if err != nil {
		return err
	}
	c.card.count(m, len(b))
	return c.Link.Send(ctx, ServerName, b)
}

// refuse says why a task is not done. The reason in words stays here.
func (c *Client) refuse(ctx context.Context, m Message, code Code, why error) error {
	c.Log.Error("refused", "client", c.Name, "round", m.Round, "error", why)
	return c.send(ctx, Message{Kind: KindRefuse, Round: m.Round, Attempt: m.Attempt, Task: m.Task, Code: code})
}

// handle answers a message of the server. It returns the last parameters when all is done.
func (c *Client) handle(ctx context.Context, m Message) ([]Tensor, error) {
	switch m.Kind {
	case KindHello:
		return nil, c.join(ctx)
	case KindWelcome:
		c.Log.Info("joined", "client", c.Name, "federation", c.Federation)
	case KindRefused:
		return nil, fmt.Errorf("%w: %s", ErrRefused, meaning[m.Code])
	case KindTrain:
		return nil, c.work(ctx, m)
	case KindAdvertise, KindCohort, KindOpen:
		if err := c.sum(ctx, m); err != nil {
			return nil, c.refuse(ctx, m, CodeSecure, err)
		}
	case KindDone:
		if err := c.send(ctx, Message{Kind: KindBye}); err != nil {
			return nil, err
		}
		if c.settings.Strategy == seeds {
			s, ok := decodeScalars(m.Body, c.settings.Seeds)
			if !ok {
				return nil, errors.New("the last message does not hold the numbers of all seeds")
			}
			return replay(c.Learner.start, s, c.Learner.rate), nil
		}
		return Codec{Name: "fp32"}.Decode(m.Body, c.Learner.start, 0)
	default:
		c.Log.Warn("a message is left aside", "client", c.Name, "kind", m.Kind)
	}
	return nil, nil
}

// TaskOf is the digest of a round's work: its number and the parameters that it starts from.
func TaskOf(round int, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "round %d\n", round)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// work does a round's task, or sends its result again.
func (c *Client) work(ctx context.Context, m Message) error {
	switch {
	case m.Task != TaskOf(m.Round, m.Body):
		return c.refuse(ctx, m, CodeFailed, errors.New("the task's parameters do not have the digest that it names"))
	case m.Round < c.state.round && c.settings.Asynchronous == 0:
		c.Log.Warn("an old task is left aside", "client", c.Name, "round", m.Round)
		return nil
	case m.Round != c.state.round || m.Task != c.state.task:
		began := time.Now()
		err := c.learn(ctx, m)
		switch {
		case errors.Is(err, privacy.ErrBudget):
			return c.refuse(ctx, m, CodeBudget, err)
		case errors.Is(err, trainer.ErrDiverged):
			return c.refuse(ctx, m, CodeDiverged, err)
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			return c.refuse(ctx, m, CodeFailed, err)
		}
		c.Log.Info("trained", "client", c.Name, "round", m.Round, "seconds", time.Since(began).Seconds())
	}
	out := Message{Kind: KindUpdate, Round: m.Round, Attempt: m.Attempt, Task: m.Task, Report: c.state.report, Body: c.state.body}
	if c.settings.Secure {
		hidden, err := c.hide(m)
		if err != nil {
			return c.refuse(ctx, m, CodeSecure, err)
		}
		out.Body = hidden
	}
	return c.send(ctx, out)
}

// learn does a task and stores the result before anything of it is sent.
func (c *Client) learn(ctx context.Context, m Message) error {
	job := Job{Round: m.Round, Progress: func(step int) {
		if time.Since(c.last) < time.Second {
			return
		}
		c.last = time.Now()
		if err := c.send(ctx, Message{Kind: KindProgress, Round: m.Round, Task: m.Task, Step: step}); err != nil {
			c.Log.Warn("a sign of progress is lost", "client", c.Name, "error", err)
		}
	}}
	if err := c.read(m.Body, &job); err != nil {
		return err
	}
	next := c.state.copy()
	learned, err := c.Learner.Learn(ctx, job, &next.memory)
	if err != nil {
		return err
	}
	if c.settings.Privacy.Level != "none" {
		learned.Report.Loss, learned.Report.Held, learned.Report.HeldN = 0, 0, 0
	}
	next.round, next.task, next.report = m.Round, m.Task, &learned.Report
	if next.body, err = c.write(m, job, learned, &next); err != nil {
		return err
	}
	if c.settings.Secure {
		next.report = nil // the sum has all that the server may know
	}
	if err := next.save(c.Dir); err != nil {
		return err
	}
	c.state = next
	c.card.Epsilon = learned.Report.Epsilon
	return nil
}

// read takes the body of a task apart.
func (c *Client) read(body []byte, job *Job) (err error) {
	if c.settings.Strategy == seeds {
		var ok bool
		if job.Scalars, ok = decodeScalars(body, c.settings.Seeds); !ok {
			return fmt.Errorf("want the numbers of %d seeds, have %d bytes", c.settings.Seeds, len(body))
		}
		return nil
	}
	plain := Codec{Name: "fp32"}
	n := plain.Bytes(size(c.Learner.start))
	if c.settings.Strategy == "scaffold" && len(body) == 2*n {
		if job.Control, err = plain.Decode(body[n:], c.Learner.start, 0); err != nil {
			return err
		}
		body = body[:n]
	}
	job.Global, err = plain.Decode(body, c.Learner.start, 0)
	return err
}

// write puts a result into the form of the wire.
func (c *Client) write(m Message, job Job, l Learned, next *state) ([]byte, error) {
	if l.Scalars != nil && !c.settings.Secure {
		return encodeScalars(l.Scalars), nil
	}
	if err := finite(l.Tensors); err != nil {
		return nil, fmt.Errorf("%w: %w", trainer.ErrDiverged, err)
	}
	change := minus(l.Tensors, job.Global)
	within := 0.0
	if m.Clip > 0 && privacy.Clip(values(change), m.Clip) <= m.Clip {
		within = 1
	}
	if c.settings.Secure {
		return c.plain(change, within, l.Report.Loss, m)
	}
	codec := c.settings.codec()
	seed := seedOf(c.Learner.session.Config.Seed, "codec", c.Name, m.Round)
	if codec.lossless() && m.Clip == 0 && c.settings.Asynchronous == 0 {
		body, _, err := codec.Encode(l.Tensors, seed) // whole: differences of floats would not give back the same bits
		if err == nil && l.Control != nil {
			control, _, e := codec.Encode(l.Control, seed)
			l.Report.Controls = len(control)
			next.report = &l.Report
			body, err = append(body, control...), e
		}
		return body, err
	}
	if l.Control != nil {
		return nil, errors.New("scaffold sends whole parameters; want compression fp32 and no privacy of clients")
	}
	return next.memory.Rest.Encode(codec, change, seed)
}

// lossScale is what training losses are divided by in a secure sum, so that they stay below 1.
const lossScale = 64

// plain is the vector of a secure sum before it is hidden: the change, whether it was within the clipping limit, and
// the loss.
func (c *Client) plain(change []Tensor, within, loss float64, m Message) ([]byte, error) {
	x := make([]float64, 0, size(change)+2)
	for _, t := range change {
		for _, v := range t.Values {
			x = append(x, float64(v))
		}
	}
	limit := c.settings.SumLimit
	x = append(x, within*limit, loss/lossScale*limit)
	if m.Parties < 1 {
		return nil, errors.New("the task does not say for how many parties the sum is")
	}
	ints, err := secure.Fixed{Limit: limit, Parties: m.Parties}.Encode(x)
	if err != nil {
		return nil, err
	}
	return appendInts(nil, ints), nil
}

func appendInts(b []byte, x []uint32) []byte {
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func intsOf(b []byte) []uint32 {
	out := make([]uint32, len(b)/4)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return out
}

// sessionOf names one attempt at a secure sum; no other has the same.
func sessionOf(m Message) string { return fmt.Sprintf("%s %d %d", m.Federation, m.Round, m.Attempt) }

// sum answers the steps of a secure sum but for the masked update itself.
func (c *Client) sum(ctx context.Context, m Message) (err error) {
	session := sessionOf(m)
	answer := Message{Round: m.Round, Attempt: m.Attempt}
	if m.Kind != KindAdvertise && (c.party == nil || c.session != session) {
		return fmt.Errorf("this client has no keys for sum %q; it has been started since", session)
	}
	switch m.Kind {
	case KindAdvertise:
		if c.session == session {
			return fmt.Errorf("sum %q is asked for a second time", session)
		}
		if c.party, err = secure.NewParty(c.Name, []byte(session), c.Key); err != nil {
			return err
		}
		c.session = session
		answer.Kind, answer.Keys = KindKeys, []secure.Keys{c.party.Advertise()}
	case KindCohort:
		for _, k := range m.Keys {
			if err := k.Verify([]byte(session), c.Members[k.Name]); err != nil {
				return err
			}
		}
		answer.Kind = KindShares
		if answer.Envelopes, err = c.party.Share(m.Keys, m.Threshold); err != nil {
			return err
		}
	case KindOpen:
		r, err := c.party.Reveal(m.Survivors)
		if err != nil {
			return err
		}
		answer.Kind, answer.Reveal = KindReveal, &r
	}
	return c.send(ctx, answer)
}

// hide masks the stored vector for the attempt that a task belongs to.
func (c *Client) hide(m Message) ([]byte, error) {
	if c.party == nil || c.session != sessionOf(m) {
		return nil, fmt.Errorf("this client has no keys for sum %q; it has been started since", sessionOf(m))
	}
	hidden, err := c.party.Mask(intsOf(c.state.body), m.Envelopes)
	if err != nil {
		return nil, err
	}
	return appendInts(nil, hidden), nil
}

// Card says what has left a client's machine.
type Card struct {
	Client     string         `json:"client"`
	Federation string         `json:"federation"`
	Rounds     int            `json:"rounds"`
	Messages   map[Kind]int   `json:"messages"`
	Bytes      map[Kind]int64 `json:"bytes"`
	Contents   []string       `json:"contents"`
	Epsilon    float64        `json:"epsilon,omitempty"` // of the client's examples
	Secure     bool           `json:"secure"`
	Privacy    string         `json:"privacy"`
	Form       string         `json:"form"`
}

func (c *Card) count(m Message, n int) {
	if c.Messages == nil {
		c.Messages, c.Bytes = map[Kind]int{}, map[Kind]int64{}
	}
	c.Messages[m.Kind]++
	c.Bytes[m.Kind] += int64(n)
	text, _ := json.Marshal(m) // as in Seal, where an error is reported
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(text, &fields)
	for field := range fields {
		if entry := string(m.Kind) + "." + field; !slices.Contains(c.Contents, entry) {
			c.Contents = append(c.Contents, entry)
		}
	}
	if entry := string(m.Kind) + ".parameters"; len(m.Body) > 0 && !slices.Contains(c.Contents, entry) {
		c.Contents = append(c.Contents, entry)
	}
	slices.Sort(c.Contents)
}
