package methods

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tunesmith/federation"
	"tunesmith/recipes"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// fedLines are records with two kinds of answers, so that clients can differ.
func fedLines(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	for i := range n {
		answer := "red"
		if i%2 == 1 {
			answer = "blue"
		}
		fmt.Fprintf(&b, `{"messages":[{"role":"user","content":"zqx secret %d likes"},{"role":"assistant","content":"%s"}]}`+"\n", i, answer)
	}
	path := filepath.Join(t.TempDir(), "train.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fedSession(t *testing.T, path string, sets ...string) (*trainer.Session, *federation.Settings) {
	t.Helper()
	all := append([]string{
		"model=tinybase", "data=[{path: " + path + "}]", "topology.method=federated", "parameters.rank=4", "parameters.alpha=8",
		"topology.rounds=2", "topology.local_steps=2", "topology.clients=3", "batch_size=4", "learning_rate=3e-3", "schedule=constant",
		"precision=fp32", "eval.share=0.2", "epochs=0", "max_steps=4",
	}, sets...)
	r, err := tune.Schema().Load("", all)
	if err != nil {
		t.Fatal(err)
	}
	base, err := recipes.Base()
	if err != nil {
		t.Fatal(err)
	}
	s, err := trainer.Prepare(t.Context(), r.Value, trainer.Files{Model: base})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	m, ok := r.Value.Topology.Options.(federation.Method)
	if !ok {
		t.Fatal("the topology is no federation")
	}
	return s, m.Federation()
}

func simulate(t *testing.T, s *trainer.Session, set *federation.Settings, tap func(from, to string, data []byte)) federation.Simulated {
	t.Helper()
	m, err := federation.NewMachine(s, set, "base")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		log = slog.Default()
	}
	out, err := federation.Simulation{Machine: m, Dir: t.TempDir(), Tap: tap, Log: log}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFederatedStrategies: every strategy makes its rounds, and the loss falls where it averages.
func TestFederatedStrategies(t *testing.T) {
	path := fedLines(t, 60)
	for _, name := range federation.Strategies() {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "flexlora" && name != "scaffold" {
				t.Skip("trains for seconds")
			}
			sets := []string{"topology.strategy=" + name, "topology.rounds=3"}
			switch name {
			case "scaffold":
				sets = append(sets, "optimizer=sgd", "learning_rate=0.1")
			case "fedkseed":
				sets = append(sets, "learning_rate=1e-4", "topology.seeds=8")
			case "bulyan", "krum", "multikrum":
				sets = append(sets, "topology.clients=4")
			case "fedadam", "fedyogi", "fedadagrad":
				sets = append(sets, "topology.server_rate=0.003")
			}
			s, set := fedSession(t, path, sets...)
			out := simulate(t, s, set, nil)
			h := out.History
			if len(h) != 3 || len(h[2].Took) != set.Clients {
				t.Fatalf("want 3 rounds of %d clients, have %+v", set.Clients, h)
			}
			first, last := h[0].HeldMean, meanLoss(out)
			if !(last < first) {
				t.Errorf("held-out loss: want below %g, have %g", first, last)
			}
			if name == "fedit" && h[1].Mismatch == 0 {
				t.Error("want a mismatch of averaged factors above 0")
			}
		})
	}
}

func meanLoss(out federation.Simulated) float64 {
	var sum float64
	for _, l := range out.Alone {
		sum += l
	}
	return sum / float64(len(out.Alone))
}

// TestFederatedModes: clients of their own speed, drawn ones, and those that go on for themselves.
func TestFederatedModes(t *testing.T) {
	if testing.Short() {
		t.Skip("runs four federations")
	}
	path := fedLines(t, 60)
	for name, sets := range map[string][]string{
		"asynchronous": {"topology.asynchronous=2"},
		"drawn":        {"topology.clients_per_round=2"},
		"personal":     {"topology.personal_steps=3", "topology.partition.kind=classes", "topology.clients=2"},
		"sparse":       {"topology.compression=topk", "topology.keep_share=0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			s, set := fedSession(t, path, append(sets, "topology.rounds=4")...)
			out := simulate(t, s, set, nil)
			first, last := math.Log(float64(s.Text.Tokenizer.Size())), meanLoss(out)
			if h := out.History; len(h) != 4 || name != "sparse" && name != "personal" && len(h[3].Took) != 2 {
				t.Errorf("have %+v", h)
			}
			if !(last < first) {
				t.Errorf("held-out loss: want below %g, have %g", first, last)
			}
			if name != "personal" {
				return
			}
			for c, own := range out.Own {
				if !(own < out.Alone[c]) {
					t.Errorf("%s: want its own steps to help, have %g after %g", c, own, out.Alone[c])
				}
			}
			if len(out.Own) != 2 {
				t.Errorf("want 2 personal losses, have %v", out.Own)
			}
		})
	}
}

// TestFederatedOneClient: one client that keeps its optimizer is central training, bit for bit.
func TestFederatedOneClient(t *testing.T) {
	path := fedLines(t, 40)
	s, set := fedSession(t, path, "topology.clients=1", "topology.keep_optimizer=true", "eval.share=0", "schedule=linear")
	out := simulate(t, s, set, nil)
	central, _ := fedSession(t, path, "eval.share=0", "schedule=linear")
	run, err := runs.Create(t.TempDir(), "central", nil, runs.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	central.Run = run
	if err := central.Train(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, p := range central.Params() {
		if !slices.Equal(p.Value, out.Final[i].Values) {
			t.Fatalf("%s: the values differ from those of central training", p.Name)
		}
	}
}

// TestFederatedSame: the same run twice has the same bits, and so has one of masked sums, but for what it rounds.
func TestFederatedSame(t *testing.T) {
	path := fedLines(t, 60)
	final := func(sets ...string) []federation.Tensor {
		s, set := fedSession(t, path, sets...)
		return simulate(t, s, set, nil).Final
	}
	a, b, plain := final("topology.secure=true"), final("topology.secure=true"), final("topology.partition.kind=iid")
	for i := range a {
		if !slices.Equal(a[i].Values, b[i].Values) {
			t.Fatalf("%s: two runs of masked sums differ", a[i].Name)
		}
		for k, v := range a[i].Values {
			if d := math.Abs(float64(v - plain[i].Values[k])); d > 1e-4 {
				t.Fatalf("%s: masked sums are off by %g", a[i].Name, d)
			}
		}
	}
}

// TestFederatedAudit reads every byte on the wire: neither the clients' texts nor their tokens are in it.
func TestFederatedAudit(t *testing.T) {
	if testing.Short() {
		t.Skip("runs four federations")
	}
	path := fedLines(t, 60)
	for _, sets := range [][]string{nil, {"topology.secure=true"}, {"topology.compression=int8"}, {"topology.privacy.level=example", "topology.privacy.epsilon=50"}} {
		s, set := fedSession(t, path, sets...)
		var wire []byte
		kinds := map[string]bool{}
		simulate(t, s, set, func(from, to string, data []byte) {
			wire = append(wire, data...)
			if from != federation.ServerName {
				kinds[from] = true
			}
		})
		if len(kinds) != set.Clients || len(wire) < 1000 {
			t.Fatalf("want bytes of %d clients, have %d bytes of %d", set.Clients, len(wire), len(kinds))
		}
		for _, text := range []string{"zqx", "secret", "likes", "blue"} {
			if strings.Contains(string(wire), text) {
				t.Errorf("%v: %q is on the wire", sets, text)
			}
		}
		for i := range s.Examples.Len() {
			e, err := s.Examples.Example(i)
			if err != nil {
				t.Fatal(err)
			}
			var as16, as32, as64, text []byte
			for _, id := range e.IDs {
				as16 = append(as16, byte(id), byte(id>>8))
				as32 = append(as32, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
				as64 = append(as64, byte(id), byte(id>>8), byte(id>>16), byte(id>>24), 0, 0, 0, 0)
				text = fmt.Appendf(text, "%d,", id)
			}
			for form, b := range map[string][]byte{"16-bit": as16, "32-bit": as32, "64-bit": as64, "decimal": text} {
				if strings.Contains(string(wire), string(b[:len(b)/2])) {
					t.Errorf("%v: example %d is on the wire as %s tokens", sets, i, form)
				}
			}
		}
	}
}

// TestFederatedHostile: members that lie, repeat, or work on something else are named and left out, and the rounds go on
// without them.
func TestFederatedHostile(t *testing.T) {
	path := fedLines(t, 40)
	s, set := fedSession(t, path, "topology.patience=2s", "topology.max_norm=1000", "topology.local_steps=1")
	m, err := federation.NewMachine(s, set, "base")
	if err != nil {
		t.Fatal(err)
	}
	keys, members := map[string]ed25519.PrivateKey{}, federation.Members{}
	for _, name := range []string{federation.ServerName, "good-1", "good-2", "nan", "short", "huge", "forged", "repeats", "tokenizer", "base"} {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[name], members[name] = private, public
	}
	bus := federation.NewBus()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	send := func(name string, m federation.Message) {
		m.Federation, m.Sender = "fed", name
		b, err := m.Seal(keys[name])
		if err != nil {
			t.Error(err)
		}
		if name == "forged" && m.Kind == federation.KindUpdate {
			b[len(b)/2] ^= 1
		}
		_ = bus.Link(name).Send(ctx, federation.ServerName, b) // the test ends with the context
	}
	body := func(values float32) []byte {
		var b []byte
		for _, t := range m.Start() {
			for range t.Values {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(values))
			}
		}
		return b
	}
	liar := func(name string) {
		facts := m.Facts()
		switch name {
		case "tokenizer":
			facts.Tokenizer = "another"
		case "base":
			facts.Base = "another"
		}
		send(name, federation.Message{Kind: federation.KindJoin, Join: &facts})
		var first *federation.Message
		for {
			d, err := bus.Link(name).Receive(ctx)
			if err != nil {
				return
			}
			in, err := federation.OpenMessage(d.Data, d.From, members)
			if err != nil || in.Kind != federation.KindTrain {
				continue
			}
			out := federation.Message{Kind: federation.KindUpdate, Round: in.Round, Task: in.Task, Report: &federation.Report{Examples: 1}, Body: in.Body}
			switch name {
			case "nan":
				out.Body = body(float32(math.NaN()))
			case "short":
				out.Body = out.Body[:len(out.Body)-3]
			case "huge":
				out.Body = body(100)
			case "repeats":
				if first == nil {
					first = &out
				}
				out = *first
			}
			send(name, out)
		}
	}
	for name := range members {
		switch {
		case name == federation.ServerName:
		case strings.HasPrefix(name, "good"):
			l, err := federation.NewLearner(m, name, []byte("secret"), s.Examples, s.Held)
			if err != nil {
				t.Fatal(err)
			}
			c := &federation.Client{Name: name, Key: keys[name], Members: members, Federation: "fed", Learner: l, Link: bus.Link(name), Dir: t.TempDir()}
			go func() {
				if _, err := c.Run(ctx); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", name, err)
				}
			}()
		default:
			go liar(name)
		}
	}
	server := &federation.Server{Federation: "fed", Key: keys[federation.ServerName], Members: members, Machine: m, Link: bus.Link(federation.ServerName), Dir: t.TempDir()}
	if _, err := server.Run(ctx); err != nil {
		t.Fatal(err)
	}
	h := server.History()
	for i, r := range h {
		for name, want := range map[string]string{"nan": "no number", "short": "more bytes", "huge": "max_norm", "tokenizer": "another tokenizer", "base": "another base model"} {
			if !strings.Contains(r.Refused[name], want) {
				t.Errorf("round %d, %s: want refused with %q, have %q", i+1, name, want, r.Refused[name])
			}
		}
		want := []string{"good-1", "good-2"}
		late := []string{"forged"}
		if i == 0 {
			want = append(want, "repeats")
		} else {
			late = append(late, "repeats")
		}
		if !slices.Equal(r.Took, want) || !slices.Equal(r.Late, late) {
			t.Errorf("round %d: want %v taken and %v late, have %v and %v", i+1, want, late, r.Took, r.Late)
		}
	}
	if len(h) != set.Rounds {
		t.Errorf("want %d rounds, have %d", set.Rounds, len(h))
	}
}

// TestFederatedBudget: work that would pass the declared ε is refused before it is done, with the reason.
func TestFederatedBudget(t *testing.T) {
	s, set := fedSession(t, fedLines(t, 30), "topology.privacy.level=example", "topology.privacy.epsilon=0.1", "topology.privacy.noise=0.5")
	m, err := federation.NewMachine(s, set, "base")
	if err != nil {
		t.Fatal(err)
	}
	_, err = federation.Simulation{Machine: m, Dir: t.TempDir()}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "privacy budget is spent") {
		t.Errorf("want the budget named, have %v", err)
	}
	// The server's own budget ends the federation early and keeps what there is.
	s, set = fedSession(t, fedLines(t, 30), "topology.privacy.level=client", "topology.privacy.epsilon=9", "topology.privacy.noise=1", "topology.rounds=50", "topology.local_steps=1")
	out := simulate(t, s, set, nil)
	if n := len(out.History); n == 0 || n == 50 || out.History[n-1].Epsilon > 9 {
		t.Errorf("want some rounds within ε 9, have %d, the last %+v", n, out.History[max(0, n-1)])
	}
}

// TestFederatedResumes: a federation that stops after each round, server and clients, ends with the bits of one that
// nobody disturbed.
func TestFederatedResumes(t *testing.T) {
	path := fedLines(t, 40)
	sets := []string{"topology.compression=int8", "topology.keep_optimizer=true", "topology.strategy=fedadam", "topology.server_rate=0.01"}
	s, set := fedSession(t, path, sets...)
	whole := simulate(t, s, set, nil)
	dir := t.TempDir()
	var out federation.Simulated
	for try := range 2 {
		s, set := fedSession(t, path, sets...)
		m, err := federation.NewMachine(s, set, "base")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		out, err = federation.Simulation{Machine: m, Dir: dir, Progress: func(r federation.Round) {
			if try == 0 {
				stop() // in the middle of the next round's work
			}
		}}.Run(ctx)
		stop()
		if (err == nil) != (try == 1) {
			t.Fatalf("try %d: have %v", try, err)
		}
	}
	for i := range whole.Final {
		if !slices.Equal(whole.Final[i].Values, out.Final[i].Values) {
			t.Fatalf("%s: the values differ from those of the undisturbed run", out.Final[i].Name)
		}
	}
}
