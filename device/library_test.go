package device

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tunesmith/checkpoint"
	"tunesmith/data"
)

// adapterOf writes an adapter of random values.
func adapterOf(seed uint64) func(dir string) error {
	return func(dir string) error {
		rng := rand.New(rand.NewPCG(seed, 7))
		var tensors []checkpoint.Tensor
		for _, name := range []string{"b.weight", "a.weight"} {
			values := make([]float32, 300)
			for i := range values {
				values[i] = float32(rng.NormFloat64())
			}
			tensors = append(tensors, checkpoint.Float32Tensor(name, []int{30, 10}, values))
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(`{"peft_type": "X"}`), 0o644); err != nil {
			return err
		}
		return checkpoint.WriteSafetensors(filepath.Join(dir, weightsFile), tensors, nil)
	}
}

const base = "b45e"

// add makes a generation on top of the current one and switches to it.
func add(t *testing.T, l Library, seed uint64) Generation {
	t.Helper()
	current, err := l.Current()
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.Add(Generation{Parent: current, Base: base, Source: fmt.Sprint(seed)}, adapterOf(seed))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Switch(g.Number); err != nil {
		t.Fatal(err)
	}
	return g
}

func numbersOf(t *testing.T, l Library) []int {
	t.Helper()
	list, err := l.List()
	if err != nil {
		t.Fatal(err)
	}
	out := []int{}
	for _, g := range list {
		out = append(out, g.Number)
	}
	return out
}

func TestRollback(t *testing.T) {
	l := Library{t.TempDir()}
	if _, _, err := l.Rollback(); err == nil || !strings.Contains(err.Error(), "nothing to take back") {
		t.Errorf("have %v", err)
	}
	one, _ := add(t, l, 1), add(t, l, 2)
	bytes := func(n int) string {
		b, err := os.ReadFile(filepath.Join(l.Adapter(n), weightsFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := bytes(1)
	from, to, err := l.Rollback()
	if err != nil || from != 2 || to != 1 {
		t.Fatalf("have %d → %d, %v", from, to, err)
	}
	if g, err := l.Verify(1); err != nil || g.Digest != one.Digest || bytes(1) != before {
		t.Errorf("generation 1 is not what it was: %+v, %v", g, err)
	}
	three := add(t, l, 3)
	if three.Number != 3 || three.Parent != 1 {
		t.Errorf("have %+v", three)
	}
	// The branch that was taken back goes first, the ancestors stay.
	if err := l.Prune(2); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 3}, numbersOf(t, l)); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	if err := l.Prune(1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Rollback(); err == nil || !strings.Contains(err.Error(), "--to") {
		t.Errorf("have %v", err)
	}
	if current, err := l.Current(); err != nil || current != 3 {
		t.Errorf("a rollback that fails changed the generation to %d, %v", current, err)
	}
	if err := l.Switch(0); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedGeneration(t *testing.T) {
	l := Library{t.TempDir()}
	add(t, l, 1)
	add(t, l, 2)
	path := filepath.Join(l.Adapter(1), weightsFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Rollback(); err == nil || !strings.Contains(err.Error(), "generation 1 is damaged") {
		t.Errorf("have %v", err)
	}
}

func TestPatch(t *testing.T) {
	sender, receiver := Library{t.TempDir()}, Library{t.TempDir()}
	for _, l := range []Library{sender, receiver} {
		add(t, l, 1)
	}
	add(t, sender, 2)
	sizes := map[string]int64{}
	for _, o := range []PatchOptions{{}, {Int8: true}, {Density: 0.1}, {Int8: true, Density: 0.1}} {
		name := fmt.Sprintf("%+v", o)
		p, err := sender.NewPatch(1, 2, o)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "p")
		if err := p.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes[name] = info.Size()
		read, err := OpenPatch(path)
		if err != nil {
			t.Fatal(err)
		}
		g, err := receiver.Apply(read, base)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if g.Digest != p.Target {
			t.Errorf("%s: want digest %s, have %s", name, p.Target, g.Digest)
		}
		if target, _ := sender.Get(2); o == (PatchOptions{}) && g.Digest != target.Digest {
			t.Errorf("an exact patch gives %s, want %s", g.Digest, target.Digest)
		}
		want, _ := readAdapter(sender.Adapter(2))
		have, _ := readAdapter(receiver.Adapter(g.Number))
		for i := range want.values {
			for k := range want.values[i] {
				if d := math.Abs(float64(want.values[i][k] - have.values[i][k])); o.Int8 && o.Density == 0 && d > 8.0/127/2 {
					t.Fatalf("%s: value %d is %g off", name, k, d)
				}
			}
		}
		if again, err := receiver.Apply(read, base); err != nil || again.Number != g.Number {
			t.Errorf("%s: applied again: %+v, %v", name, again, err)
		}
		if _, _, err := receiver.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
	if sizes["{Int8:true Density:0}"] > sizes["{Int8:false Density:0}"]/2 || sizes["{Int8:true Density:0.1}"] > sizes["{Int8:true Density:0}"]*3/4 {
		t.Errorf("sizes: %v", sizes)
	}
}

// A patch whose base, parent or result is another changes nothing.
func TestPatchRefused(t *testing.T) {
	sender, receiver := Library{t.TempDir()}, Library{t.TempDir()}
	add(t, sender, 1)
	add(t, sender, 2)
	add(t, receiver, 1)
	p, err := sender.NewPatch(1, 2, PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receiver.Apply(p, "another"); err == nil || !strings.Contains(err.Error(), "the patch is for the base b45e…") {
		t.Errorf("have %v", err)
	}
	p.changes[0][0].value++
	if _, err := receiver.Apply(p, base); err == nil || !strings.Contains(err.Error(), "want an adapter of digest") {
		t.Errorf("have %v", err)
	}
	p.changes[0][0].value--
	add(t, receiver, 5)
	if _, err := receiver.Apply(p, base); err == nil || !strings.Contains(err.Error(), "the patch is for the generation") {
		t.Errorf("have %v", err)
	}
	if diff := cmp.Diff([]int{1, 2}, numbersOf(t, receiver)); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	whole, err := sender.NewPatch(0, 2, PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fresh := Library{t.TempDir()}
	target, _ := sender.Get(2)
	if g, err := fresh.Apply(whole, base); err != nil || g.Digest != target.Digest {
		t.Errorf("from the bare base: %+v, %v", g, err)
	}
}

// The whole life of a process that is killed: applying a patch and taking it back, again and again.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DEVICE_APPLY"); dir != "" {
		l := Library{dir}
		for {
			p, err := OpenPatch(filepath.Join(dir, "p"))
			if err == nil {
				_, err = l.Apply(p, base)
			}
			if err == nil {
				_, _, err = l.Rollback()
			}
			if err == nil {
				err = l.Prune(1)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	os.Exit(m.Run())
}

// TestKillDuringApply kills such processes at any instant: what is in use is the old generation or the new one, whole.
func TestKillDuringApply(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 10
	}
	l := Library{t.TempDir()}
	one := add(t, l, 1)
	add(t, l, 2)
	p, err := l.NewPatch(1, 2, PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteFile(filepath.Join(l.dir, "p")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Rollback(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "DEVICE_APPLY="+l.dir)
		var out strings.Builder
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(15+rng.IntN(40)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if out.Len() > 0 {
			t.Fatalf("kill %d: %s", i, out.String())
		}
		n, err := l.Current()
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		g, err := l.Verify(n)
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if g.Digest != one.Digest && g.Digest != p.Target {
			t.Fatalf("kill %d: generation %d is neither the old one nor the new one", i, n)
		}
		seen[g.Digest]++
	}
	if !testing.Short() && len(seen) < 2 {
		t.Errorf("the kills met %v: want the old and the new generation", seen)
	}
}

func TestReplay(t *testing.T) {
	records := func(from, n int) []data.Record {
		var out []data.Record
		for i := range n {
			out = append(out, data.Record{Kind: data.Text, Text: strconv.Itoa(from + i)})
		}
		return out
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// Over many buffers each of 100 records is kept about as often as any other.
	counts := make([]int, 100)
	const buffers = 600
	for b := range buffers {
		r := NewReplay(20, 0)
		for i := range 4 {
			r.Add(fmt.Sprint(b, i), records(25*i, 25), now)
		}
		for _, m := range r.Kept {
			n, _ := strconv.Atoi(m.Record.Text)
			counts[n]++
		}
		if len(r.Kept) != 20 {
			t.Fatalf("want 20 records, have %d", len(r.Kept))
		}
	}
	for n, have := range counts { // the deviation of a count is about 10
		if want := buffers * 20 / 100; have < want-45 || have > want+45 {
			t.Errorf("record %d is kept in %d buffers, want about %d", n, have, want)
		}
	}
	r := NewReplay(20, 10*24*time.Hour)
	r.Add("a", records(0, 100), now)
	kept := cmp.Diff(r.Kept, r.Kept)
	r.Add("a", records(0, 100), now)
	if r.Seen != 100 || kept != "" {
		t.Errorf("records of one adaptation were added twice")
	}
	first, second := r.Draw(5, 3), r.Draw(5, 3)
	if diff := cmp.Diff(first, second); diff != "" || len(first) != 5 {
		t.Errorf("the draw is no function of the seed:\n%s", diff)
	}
	r.Add("b", records(100, 5), now.Add(11*24*time.Hour))
	if len(r.Kept) != 5 {
		t.Errorf("want the 5 records that have not expired, have %d", len(r.Kept))
	}
	path := filepath.Join(t.TempDir(), replayFile)
	key := filepath.Join(t.TempDir(), keyFile)
	v, err := openVault(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := []data.Record{{Kind: data.Text, Text: "meet me at the harbour"}}
	r.Add("c", secret, now.Add(11*24*time.Hour))
	if err := v.write(path, r); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(b), "harbour") {
		t.Fatalf("the text can be read: %v", err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	again := NewReplay(20, 0)
	if err := v.read(path, again); err != nil || len(again.Kept) != len(r.Kept) || again.Seen != r.Seen {
		t.Errorf("have %+v, %v", again, err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.read(path, again); err == nil || !strings.Contains(err.Error(), "it was changed") {
		t.Errorf("have %v", err)
	}
	if err := os.WriteFile(key, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openVault(key); err == nil {
		t.Error("a key of another length is taken")
	}
}

func FuzzParsePatch(f *testing.F) {
	l := Library{f.TempDir()}
	g, err := l.Add(Generation{Base: base}, adapterOf(1))
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range []PatchOptions{{}, {Int8: true, Density: 0.01}} {
		p, err := l.NewPatch(0, g.Number, o)
		if err != nil {
			f.Fatal(err)
		}
		path := filepath.Join(f.TempDir(), "p")
		if err := p.WriteFile(path); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePatch(b)
		if err != nil {
			return
		}
		for i, list := range p.changes {
			size := checkpoint.Tensor{Shape: p.Tensors[i].Shape}.Size()
			for _, c := range list {
				if c.at < 0 || c.at >= size {
					t.Fatalf("change at %d of %d", c.at, size)
				}
			}
		}
	})
}
