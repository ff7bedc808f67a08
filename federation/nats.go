package federation

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Over NATS JetStream each member has one subject on the way up or down. Messages are kept on disk until they are
// acknowledged, so that either side may be away. What is longer than a NATS message travels in parts that name the hash
// of the whole.

// partSize is the length of a part: half of what a NATS server takes by default.
const partSize = 512 << 10

// ackWait is how long a part may stay unacknowledged before it comes again, to another start of the same member.
const ackWait = 10 * time.Second

// Headers of a part.
const (
	wholeHeader = "Tunesmith-Whole" // hash of the whole message
	partHeader  = "Tunesmith-Part"  // number of the part, and of all: 0/3
)

// Name is the form of names of federations and members: they are parts of subjects.
var Name = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

func upStream(id string) string          { return "FED_" + id + "_UP" }
func downStream(id string) string        { return "FED_" + id + "_DOWN" }
func upSubject(id, name string) string   { return "fed." + id + ".up." + name }
func downSubject(id, name string) string { return "fed." + id + ".down." + name }
func inbox(name string) string           { return "_INBOX_" + name }

// Permissions are the subjects that a client may publish to and subscribe to: its own and no other's.
func Permissions(id, client string) (publish, subscribe []string) {
	down := downStream(id)
	return []string{
		upSubject(id, client),
		"$JS.API.CONSUMER.INFO." + down + "." + client,
		"$JS.API.CONSUMER.MSG.NEXT." + down + "." + client,
		"$JS.ACK." + down + "." + client + ".>",
	}, []string{inbox(client) + ".>"}
}

// Address is how a member reaches the NATS server.
type Address struct {
	URL        string
	TLS        *tls.Config
	Federation string
	Name       string
	Log        *slog.Logger
}

// natsLink is a member's connection.
type natsLink struct {
	Address
	conn     *nats.Conn
	js       jetstream.JetStream
	consumer jetstream.Consumer
	messages jetstream.MessagesContext
	parts    map[string]*whole
	violated chan error
	said     time.Time // when it last said that it waits
}

// whole is a message whose parts are arriving.
type whole struct {
	parts [][]byte
	left  int
	acks  []jetstream.Msg
	kept  time.Time // when it was last said that the parts are in use
}

// DialServer connects the server and makes the streams of the federation, with a place for each client.
func DialServer(ctx context.Context, a Address, clients []string) (Link, error) {
	l, err := dial(ctx, a)
	if err != nil {
		return nil, err
	}
	for _, c := range []jetstream.StreamConfig{
		{Name: upStream(a.Federation), Subjects: []string{upSubject(a.Federation, "*")}},
		{Name: downStream(a.Federation), Subjects: []string{downSubject(a.Federation, "*")}},
	} {
		c.Retention, c.Storage = jetstream.WorkQueuePolicy, jetstream.FileStorage
		if _, err := l.js.CreateOrUpdateStream(ctx, c); err != nil {
			return nil, errors.Join(fmt.Errorf("nats: stream %s: %w", c.Name, err), l.Close())
		}
	}
	place := func(stream, name, subject string) (jetstream.Consumer, error) {
		c, err := l.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
			Durable: name, FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: -1,
		})
		if err != nil {
			return nil, fmt.Errorf("nats: place of %s: %w", name, err)
		}
		return c, nil
	}
	for _, name := range clients {
		if _, err := place(downStream(a.Federation), name, downSubject(a.Federation, name)); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if l.consumer, err = place(upStream(a.Federation), ServerName, upSubject(a.Federation, "*")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// DialClient connects a client to the place that the server has made for it, and waits until there is one.
func DialClient(ctx context.Context, a Address) (Link, error) {
	l, err := dial(ctx, a)
	if err != nil {
		return nil, err
	}
	for {
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		l.consumer, err = l.js.Consumer(try, downStream(a.Federation), a.Name)
		cancel()
		if err == nil {
			return l, nil
		}
		select {
		case v := <-l.violated:
			return nil, errors.Join(v, l.Close())
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), l.Close())
		case <-time.After(time.Second):
			l.wait()
		}
	}
}

// wait says now and then that the server is not there.
func (l *natsLink) wait() {
	if time.Since(l.said) > 15*time.Second {
		l.said = time.Now()
		l.Log.Info("waiting for the server", "member", l.Name, "address", l.URL)
	}
}

// dial connects, and waits for a server that is not there yet; one that refuses this member is an error.
func dial(ctx context.Context, a Address) (*natsLink, error) {
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	l := &natsLink{Address: a, parts: map[string]*whole{}, violated: make(chan error, 1)}
	for {
		var err error
		l.conn, err = nats.Connect(a.URL, nats.Secure(a.TLS), nats.Name(a.Name), nats.CustomInboxPrefix(inbox(a.Name)), nats.MaxReconnects(-1),
			nats.ReconnectWait(500*time.Millisecond), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				if errors.Is(err, nats.ErrPermissionViolation) {
					select {
					case l.violated <- fmt.Errorf("nats: the server does not allow %s this: %w", a.Name, err):
					default:
					}
				}
				a.Log.Warn("nats", "member", a.Name, "error", err)
			}))
		if err == nil {
			break
		}
		var refused *net.OpError
		away := errors.Is(err, nats.ErrNoServers) || errors.As(err, &refused) && refused.Op == "dial"
		if !away {
			return nil, fmt.Errorf("nats: %s refuses %s: %w; its certificate has to be of this federation's authority", a.URL, a.Name, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("nats: nobody answers at %s: %w", a.URL, context.Cause(ctx))
		case <-time.After(time.Second):
			l.wait()
		}
	}
	var err error
	if l.js, err = jetstream.New(l.conn); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Send implements Link.
func (l *natsLink) Send(ctx context.Context, to string, data []byte) error {
	subject := upSubject(l.Federation, l.Name)
	if l.Name == ServerName {
		subject = downSubject(l.Federation, to)
	}
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	n := max(1, (len(data)+partSize-1)/partSize)
	for i := range n {
		m := nats.NewMsg(subject)
		m.Header.Set(wholeHeader, hash)
		m.Header.Set(partHeader, fmt.Sprintf("%d/%d", i, n))
		m.Data = data[i*partSize : min(len(data), (i+1)*partSize)]
		if err := l.publish(ctx, m); err != nil {
			return fmt.Errorf("nats: sending to %s: %w", to, err)
		}
	}
	return nil
}

// publish waits until the stream has stored a part; while the server is away it tries again.
func (l *natsLink) publish(ctx context.Context, m *nats.Msg) error {
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := l.js.PublishMsg(try, m)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case v := <-l.violated:
			return v
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(300 * time.Millisecond):
		}
		if errors.Is(err, nats.ErrMaxPayload) {
			return err
		}
	}
}

// Receive implements Link.
func (l *natsLink) Receive(ctx context.Context) (Delivery, error) {
	for {
		if l.messages == nil {
			var err error
			if l.messages, err = l.consumer.Messages(jetstream.PullMaxMessages(1)); err != nil {
				return Delivery{}, fmt.Errorf("nats: receiving: %w", err)
			}
		}
		m, err := l.messages.Next(jetstream.NextContext(ctx))
		switch {
		case ctx.Err() != nil:
			return Delivery{}, context.Cause(ctx)
		case errors.Is(err, jetstream.ErrNoHeartbeat):
			continue // the server is away; the connection comes back by itself
		case err != nil:
			l.messages.Stop()
			l.messages = nil
			select {
			case <-ctx.Done():
				return Delivery{}, context.Cause(ctx)
			case <-time.After(300 * time.Millisecond):
			}
			continue
		}
		d, done, err := l.add(m)
		if err != nil {
			l.Log.Warn("a message is left aside", "member", l.Name, "error", err)
			if err := m.Ack(); err != nil {
				return d, err
			}
			continue
		}
		if done {
			return d, nil
		}
	}
}

// add takes a part and returns the whole when it is there.
func (l *natsLink) add(m jetstream.Msg) (Delivery, bool, error) {
	from := ServerName
	if l.Name == ServerName {
		from = m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
	}
	hash := m.Headers().Get(wholeHeader)
	var i, n int
	if _, err := fmt.Sscanf(m.Headers().Get(partHeader), "%d/%d", &i, &n); err != nil || i < 0 || i >= n || n > maxBody/partSize || len(hash) != 64 {
		return Delivery{}, false, fmt.Errorf("message of %q: its part is none: %q of %q", from, m.Headers().Get(partHeader), hash)
	}
	key := from + " " + hash
	w := l.parts[key]
	if w == nil {
		const most = 256 // of one sender and all others together, wholes that are not complete
		if len(l.parts) >= most {
			clear(l.parts) // what is needed comes again
		}
		w = &whole{parts: make([][]byte, n), left: n, kept: time.Now()}
		l.parts[key] = w
	}
	if len(w.parts) != n {
		return Delivery{}, false, fmt.Errorf("message of %q: want part of %d, have part of %d", from, len(w.parts), n)
	}
	w.acks = append(w.acks, m)
	if w.parts[i] == nil {
		w.parts[i] = append([]byte{}, m.Data()...)
		w.left--
	}
	if w.left > 0 {
		if time.Since(w.kept) > ackWait/3 { // over a slow link the first parts wait long for the last
			w.kept = time.Now()
			for _, m := range w.acks {
				if err := m.InProgress(); err != nil {
					return Delivery{}, false, err
				}
			}
		}
		return Delivery{}, false, nil
	}
	delete(l.parts, key)
	var data []byte
	for _, p := range w.parts {
		data = append(data, p...)
	}
	ack := func() error {
		var errs []error
		for _, m := range w.acks {
			errs = append(errs, m.Ack())
		}
		return errors.Join(errs...)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hash {
		return Delivery{}, false, errors.Join(fmt.Errorf("message of %q: its parts do not make the whole that they name", from), ack())
	}
	return Delivery{From: from, Data: data, Ack: ack}, true, nil
}

// Close implements Link.
func (l *natsLink) Close() error {
	if l.messages != nil {
		l.messages.Stop()
	}
	if l.conn == nil {
		return nil
	}
	err := l.conn.FlushTimeout(time.Second)
	l.conn.Close()
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrConnectionReconnecting) {
		return nil // the other side is gone already
	}
	return err
}
