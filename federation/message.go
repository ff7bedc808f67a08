package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"tunesmith/secure"
)

// Kind is what a message says. There are no others, and no message has room for free text: what a client may say is in
// the fields of Message.
type Kind string

// Kinds of messages: from clients,
const (
	KindJoin     Kind = "join"     // a client is here, with the digests of what it works on
	KindProgress Kind = "progress" // a client works
	KindUpdate   Kind = "update"   // a client's result
	KindRefuse   Kind = "refuse"   // a client will not do a task, by a code
	KindKeys     Kind = "keys"     // secure: public keys
	KindShares   Kind = "shares"   // secure: sealed shares for the others
	KindReveal   Kind = "reveal"   // secure: shares that open the sum
	KindBye      Kind = "bye"      // a client has the last parameters
)

// and from the server.
const (
	KindHello     Kind = "hello" // the server is here: join, or join again
	KindWelcome   Kind = "welcome"
	KindRefused   Kind = "refused"   // the client is not part of the federation, by a code
	KindTrain     Kind = "train"     // work on the global parameters
	KindAdvertise Kind = "advertise" // secure: asks for keys
	KindCohort    Kind = "cohort"    // secure: the keys of all
	KindOpen      Kind = "open"      // secure: who survived
	KindDone      Kind = "done"      // the last global parameters
)

// Code is why something is refused.
type Code string

// Codes of refusals.
const (
	CodeBase      Code = "base"      // another base model
	CodeTokenizer Code = "tokenizer" // another tokenizer
	CodeTemplate  Code = "template"  // another chat template
	CodeSettings  Code = "settings"  // another run file
	CodeShapes    Code = "shapes"    // other parameters
	CodeToken     Code = "token"     // a wrong join token
	CodeBudget    Code = "budget"    // the privacy budget is spent
	CodeDiverged  Code = "diverged"  // the local loss is no number
	CodeSecure    Code = "secure"    // secure aggregation cannot go on safely
	CodeFailed    Code = "failed"    // the work failed; the client's log says why
)

var meaning = map[Code]string{
	CodeBase: "it has another base model", CodeTokenizer: "it has another tokenizer", CodeTemplate: "it has another chat template",
	CodeSettings: "it has other settings", CodeShapes: "it trains other parameters", CodeToken: "its join token is wrong",
	CodeBudget: "its privacy budget is spent", CodeDiverged: "its training diverged", CodeSecure: "secure aggregation cannot go on safely", CodeFailed: "its work failed",
}

// Message is everything that can be said. Digests, names and codes are texts of a fixed form; all else are numbers. The
// body holds parameters in the run's codec.
type Message struct {
	Kind       Kind   `json:"kind"`
	Federation string `json:"federation"` // id of the run
	Sender     string `json:"sender"`
	Round      int    `json:"round,omitempty"`
	Attempt    int    `json:"attempt,omitempty"` // at a secure sum
	Task       string `json:"task,omitempty"`    // digest of the round and the parameters that were worked on
	Code       Code   `json:"code,omitempty"`

	Join      *Facts            `json:"join,omitempty"`
	Token     []byte            `json:"token,omitempty"`
	Step      int               `json:"step,omitempty"`
	Report    *Report           `json:"report,omitempty"`
	Clip      float64           `json:"clip,omitempty"` // limit of the client's change in this round
	Parties   int               `json:"parties,omitempty"`
	Threshold int               `json:"threshold,omitempty"`
	Keys      []secure.Keys     `json:"keys,omitempty"`
	Envelopes []secure.Envelope `json:"envelopes,omitempty"`
	Survivors []string          `json:"survivors,omitempty"`
	Reveal    *secure.Reveal    `json:"reveal,omitempty"`

	Body []byte `json:"-"`
}

// Facts are what a client shows of itself when it joins.
type Facts struct {
	Base      string  `json:"base"`      // digests
	Tokenizer string  `json:"tokenizer"` //
	Template  string  `json:"template"`  //
	Settings  string  `json:"settings"`  //
	Shapes    []Shape `json:"shapes"`
}

// Shape is a trained parameter without its values.
type Shape struct {
	Name string `json:"name"`
	Dims []int  `json:"dims"`
}

func shapesOf(tensors []Tensor) []Shape {
	var out []Shape
	for _, t := range tensors {
		out = append(out, Shape{t.Name, t.Shape})
	}
	return out
}

// tensorsOf returns zeros of the shapes.
func tensorsOf(shapes []Shape) ([]Tensor, error) {
	const most = 1 << 33
	var out []Tensor
	for _, s := range shapes {
		n := 1
		for _, d := range s.Dims {
			if d < 0 || d > 1<<31 || n*d > most {
				return nil, fmt.Errorf("parameter %s: impossible shape %v", s.Name, s.Dims)
			}
			n *= d
		}
		out = append(out, Tensor{s.Name, s.Dims, make([]float32, n)})
	}
	return out, nil
}

// Report are the numbers beside an update.
type Report struct {
	Examples int     `json:"examples"`
	Loss     float64 `json:"loss"`               // of the training in the round
	Held     float64 `json:"held"`               // of the global model before, on the client's held-out examples
	HeldN    int     `json:"held_examples"`      //
	Epsilon  float64 `json:"epsilon,omitempty"`  // that the client's examples have given away
	Controls int     `json:"controls,omitempty"` // bytes of the body that are a change of a control variate
}

// Limits of what is read.
const (
	maxHeader = 64 << 20
	maxBody   = 8 << 30
)

// Seal writes a message and signs it.
func (m Message) Seal(key ed25519.PrivateKey) ([]byte, error) {
	head, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("federation: message %s: %w", m.Kind, err)
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, len(head)+len(m.Body)+4+ed25519.SignatureSize), uint32(len(head)))
	b = append(append(b, head...), m.Body...)
	return append(b, ed25519.Sign(key, b)...), nil
}

// ErrForged is a message whose signature is not its sender's.
var ErrForged = errors.New("the signature is not the sender's: the message has been changed on its way or is forged")

// OpenMessage reads a message of a member. The sender is known from the connection; that of the message has to be the
// same, and its signature the sender's.
func OpenMessage(data []byte, sender string, members Members) (m Message, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("message of %q: %w", sender, err)
		}
	}()
	key, ok := members[sender]
	if !ok {
		return m, errors.New("it is no member of this federation")
	}
	if len(data) < 4+ed25519.SignatureSize || uint64(len(data)) > maxBody {
		return m, fmt.Errorf("want %d to %d bytes, have %d", 4+ed25519.SignatureSize, uint64(maxBody), len(data))
	}
	signed, signature := data[:len(data)-ed25519.SignatureSize], data[len(data)-ed25519.SignatureSize:]
	if !ed25519.Verify(key, signed, signature) {
		return m, ErrForged
	}
	n := int(binary.LittleEndian.Uint32(signed))
	if n > maxHeader || n > len(signed)-4 {
		return m, fmt.Errorf("want a head of at most %d bytes, have %d", min(maxHeader, len(signed)-4), n)
	}
	d := json.NewDecoder(bytes.NewReader(signed[4 : 4+n]))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("head: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return m, errors.New("head: something follows the message")
	}
	if m.Sender != sender {
		return m, fmt.Errorf("it says that %q sent it", m.Sender)
	}
	m.Body = signed[4+n:]
	return m, nil
}

// Members are the public keys of the server and the clients by name.
type Members map[string]ed25519.PublicKey

// ServerName is the name of the server among the members.
const ServerName = "server"

// Clients returns the names of all clients, sorted.
func (m Members) Clients() []string {
	out := slices.Sorted(maps.Keys(m))
	return slices.DeleteFunc(out, func(n string) bool { return n == ServerName })
}

// Link carries sealed messages between the server and its clients. A message that Send has taken arrives at least once,
// even if the receiver is not there yet; the receiver acknowledges it when it will not need it again.
type Link interface {
	Send(ctx context.Context, to string, data []byte) error
	// Receive waits for the next message.
	Receive(ctx context.Context) (Delivery, error)
	Close() error
}

// Delivery is a message that has arrived.
type Delivery struct {
	From string
	Data []byte
	Ack  func() error
}
