package methods

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
			if !(last < first) && name != "fedkseed" {
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
