//go:build e2e

package cli

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// federationOf makes a federation of two clients with data of their own.
func federationOf(t *testing.T, bin, name string) (dir string, data []string) {
	t.Helper()
	root := t.TempDir()
	for c := range 2 {
		var b strings.Builder
		for i := range 40 {
			fmt.Fprintf(&b, `{"messages":[{"role":"user","content":"client %d asks %d"},{"role":"assistant","content":"it is %d"}]}`+"\n", c, i, i+c)
		}
		data = append(data, filepath.Join(root, fmt.Sprintf("%d.jsonl", c)))
		if err := os.WriteFile(data[c], []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := filepath.Join(root, "run.yaml")
	yaml := "model: tinybase\ndata: [{path: train.jsonl}]\ntopology: {method: federated, rounds: 5, local_steps: 4, keep_optimizer: true, compression: int8}\nparameters: {method: lora, rank: 4, dropout: 0.1}\nbatch_size: 4\nlearning_rate: 0.003\n"
	if err := os.WriteFile(run, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(root, name)
	if out, err := exec.Command(bin, "federate", "init", dir, run, "--clients", "north,south", "--address", address).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir, data
}

// TestKilledFederation kills the server and the clients at random instants and compares the model of every member with
// that of a federation which nobody disturbed.
func TestKilledFederation(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "tunesmith")
	if out, err := exec.Command("go", "build", "-tags=nats", "-o", bin, "tunesmith/cmd/tunesmith").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	results := func(dir string) [][]byte {
		var out [][]byte
		for _, part := range []string{"server", "clients/north", "clients/south"} {
			b, err := os.ReadFile(filepath.Join(dir, part, "adapter", "adapter_model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b)
		}
		return out
	}
	run := func(name string, kills int) (dir string, made int, spent time.Duration) {
		dir, data := federationOf(t, bin, name)
		began := time.Now()
		var mu sync.Mutex
		var group sync.WaitGroup
		for i, args := range [][]string{
			{"federate", "server", filepath.Join(dir, "server")},
			{"federate", "client", filepath.Join(dir, "clients", "north"), "--data", data[0]},
			{"federate", "client", filepath.Join(dir, "clients", "south"), "--data", data[1]},
		} {
			group.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 5))
				for {
					c := exec.Command(bin, args...)
					var out bytes.Buffer
					c.Stdout, c.Stderr = &out, &out
					if err := c.Start(); err != nil {
						t.Error(err)
						return
					}
					done := make(chan error, 1)
					go func() { done <- c.Wait() }()
					mu.Lock()
					kill := made < kills
					mu.Unlock()
					if kill {
						select {
						case err := <-done:
							if err != nil {
								t.Errorf("%v: %v\n%s", args, err, out.String())
							}
							return
						case <-time.After(500*time.Millisecond + time.Duration(rng.Int64N(int64(4*time.Second)))):
							_ = c.Process.Kill() // it may have ended by itself
							<-done
							mu.Lock()
							made++
							mu.Unlock()
							continue
						}
					}
					if err := <-done; err != nil {
						t.Errorf("%v: %v\n%s", args, err, out.String())
					}
					return
				}
			})
		}
		group.Wait()
		return dir, made, time.Since(began)
	}
	whole, _, spent := run("whole", 0)
	killed, made, longer := run("killed", 30)
	t.Logf("undisturbed in %v; %d kills in %v", spent, made, longer)
	want, have := results(whole), results(killed)
	for i := range want {
		if !bytes.Equal(want[i], have[i]) {
			t.Errorf("member %d: the adapter differs from that of the undisturbed federation", i)
		}
		if !bytes.Equal(want[0], want[i]) {
			t.Errorf("member %d: another adapter than the server's", i)
		}
	}
}
