package runs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func create(t *testing.T, root, name string) *Run {
	t.Helper()
	r, err := Create(root, name, []byte("seed: 1\n"), Manifest{Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCreate(t *testing.T) {
	root := filepath.Join(t.TempDir(), "runs")
	r := create(t, root, "first")
	if got := contents(t, filepath.Join(r.Dir(), ConfigFile)); got != "seed: 1\n" {
		t.Errorf("run.yaml: have %q", got)
	}
	if m, err := ReadManifest(r.Dir()); err != nil || m.Name != "first" || m.Seed != 1 {
		t.Errorf("manifest: have %+v, %v", m, err)
	}
	if _, err := Create(root, "first", nil, Manifest{}); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "resume it, or choose another name") {
		t.Errorf("want ErrExists, have %v", err)
	}
	for i := 2; i < 4; i++ {
		next, err := CreateNext(root, "first", nil, Manifest{})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("first-", i); next.Name() != want {
			t.Errorf("want %s, have %s", want, next.Name())
		}
		next.Close()
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 3 {
		t.Errorf("want three folders, have %v, %v", entries, err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"", "run name: want 1 to 100 bytes, have 0"},
		{strings.Repeat("a", 101), "run name: want 1 to 100 bytes, have 101"},
		{"../up", `run name "../up": want a folder name without "/"`},
		{`a\b`, `run name "a\\b": want a folder name without "\\"`},
		{"a:b", `run name "a:b": want a folder name without ":"`},
		{"a\nb", `run name "a\nb": want a folder name without "\n"`},
		{"..", `run name "..": want no dot at the start or end and no space around it`},
		{" a", `run name " a": want no dot at the start or end and no space around it`},
		{"模型 v1.2", ""},
	} {
		got := ""
		if err := checkName(c.name); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: want %q, have %q", c.name, c.want, got)
		}
	}
}

func TestRecordsReadBack(t *testing.T) {
	r := create(t, t.TempDir(), "a")
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	metrics := []Metric{
		{Step: 1, Split: Train, Loss: 2.345678901234567, LR: 1e-300, GradNorm: Number(math.Inf(1)), Tokens: 12, Time: at},
		{Step: 1, Split: Eval, Loss: 0.1, Values: map[string]Number{"accuracy": 0.5, "margin": Number(math.Inf(-1))}, Time: at},
		{Step: 3, Split: Train, Loss: 1, Epoch: 0.5, TokensPerSecond: 300.5, Time: at},
	}
	events := []Event{{Time: at, Kind: EventStart, Message: "a <b>\nc"}, {Time: at, Step: 3, Kind: EventOutcome, Outcome: []Outcome{{"task score", 0.1, 0.9, "up", "%"}}}}
	samples := []Sample{{Step: 3, Prompt: "你好", Want: "w", Before: "\u2028", After: "a"}}
	for _, m := range metrics {
		if err := r.Metric(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range events {
		if err := r.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Sample(samples[0]); err != nil {
		t.Fatal(err)
	}
	got, err := Metrics(r.Dir())
	if diff := cmp.Diff(metrics, got); diff != "" || err != nil {
		t.Errorf("metrics: %v\n%s", err, diff)
	}
	gotEvents, err := Events(r.Dir())
	if diff := cmp.Diff(events, gotEvents); diff != "" || err != nil {
		t.Errorf("events: %v\n%s", err, diff)
	}
	gotSamples, err := Samples(r.Dir())
	if diff := cmp.Diff(samples, gotSamples); diff != "" || err != nil {
		t.Errorf("samples: %v\n%s", err, diff)
	}
	if err := r.Metric(Metric{Step: 2, Split: Train}); err == nil || !strings.Contains(err.Error(), "want a step from 3 on, have 2") {
		t.Errorf("a step back was taken: %v", err)
	}
	if err := r.Metric(Metric{Step: 4, Split: Train, Loss: Number(math.NaN())}); err != nil {
		t.Fatal(err)
	}
	got, err = Metrics(r.Dir())
	if err != nil || len(got) != 4 || !math.IsNaN(float64(got[3].Loss)) {
		t.Errorf("want a loss that is no number, have %+v, %v", got, err)
	}
}

// TestTornLine cuts the file at each byte of its last line: opening keeps exactly the complete lines.
func TestTornLine(t *testing.T) {
	root := t.TempDir()
	r := create(t, root, "a")
	for i := range 3 {
		if err := r.Metric(Metric{Step: i, Split: Train, Loss: 1}); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	path := filepath.Join(r.Dir(), MetricsFile)
	whole := contents(t, path)
	two := whole[:strings.LastIndex(whole[:len(whole)-1], "\n")+1]
	for _, tail := range append(tails(whole[len(two):]), "\x00\x00\x00", "\x00\x00\n", "{\"step\":\n") {
		if err := os.WriteFile(path, []byte(two+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Open(r.Dir())
		if err != nil {
			t.Fatalf("tail %q: %v", tail, err)
		}
		if got := contents(t, path); got != two {
			t.Errorf("tail %q: want two lines, have %q", tail, got)
		}
		if err := r.Metric(Metric{Step: 2, Split: Train, Loss: 1}); err != nil {
			t.Error(err)
		}
		if got, err := Metrics(r.Dir()); err != nil || len(got) != 3 {
			t.Errorf("tail %q: want three metrics, have %d, %v", tail, len(got), err)
		}
		r.Close()
	}
	if err := os.WriteFile(path, []byte("x\n"+whole), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.Dir()); err == nil || !strings.Contains(err.Error(), "metrics.jsonl:1: want one JSON value") {
		t.Errorf("a broken first line was taken: %v", err)
	}
	if _, err := Metrics(r.Dir()); err == nil || !strings.Contains(err.Error(), "metrics.jsonl:1: ") {
		t.Errorf("a broken first line was read: %v", err)
	}
}

// tails are all proper prefixes of a line.
func tails(line string) []string {
	var out []string
	for i := range len(line) {
		out = append(out, line[:i])
	}
	return out
}

// record is a stand-in for training: losses depend on the step alone, but for the time fields.
func record(t *testing.T, r *Run, from, to int) {
	t.Helper()
	for s := from; s <= to; s++ {
		err := r.Metric(Metric{Step: s, Split: Train, Loss: Number(math.Exp(-float64(s))), TokensPerSecond: Number(time.Now().UnixNano())})
		if err == nil && s%3 == 0 {
			err = errors.Join(r.Metric(Metric{Step: s, Split: Eval, Loss: Number(s)}), r.Sample(Sample{Step: s, Prompt: "p"}))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// timeless is a file of lines without the time fields.
func timeless(t *testing.T, path string) string {
	t.Helper()
	var b strings.Builder
	scanner := bufio.NewScanner(strings.NewReader(contents(t, path)))
	for scanner.Scan() {
		var m map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		for _, f := range TimeFields {
			delete(m, f)
		}
		line, _ := json.Marshal(m)
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func TestResumedRunHasTheSameFiles(t *testing.T) {
	root := t.TempDir()
	straight := create(t, root, "straight")
	record(t, straight, 1, 10)
	for k := range 8 { // the checkpoint that the run goes on from
		r := create(t, root, fmt.Sprint("stopped", k))
		record(t, r, 1, 7)
		r.Close()
		r, err := Open(r.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Rewind(k); err != nil {
			t.Fatal(err)
		}
		record(t, r, k+1, 10)
		r.Close()
		for _, name := range []string{MetricsFile, SamplesFile} {
			want, got := timeless(t, filepath.Join(straight.Dir(), name)), timeless(t, filepath.Join(r.Dir(), name))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("resumed at %d: %s differs:\n%s", k, name, diff)
			}
		}
	}
}

// TestMain runs the program of the tests as another process where a variable says so: it opens the run and writes
// metrics until it is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("RUNS_TEST_WRITE")
	if dir == "" {
		os.Exit(m.Run())
	}
	r, err := Open(dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for s := 1; ; s++ {
		if err := r.Metric(Metric{Step: s, Split: Train, Loss: Number(s)}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if s == 1 {
			fmt.Println("writing")
		}
	}
}

func TestKilledWriter(t *testing.T) {
	r := create(t, t.TempDir(), "a")
	r.Close()
	for i := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "RUNS_TEST_WRITE="+r.Dir())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if line != "writing\n" {
			t.Fatalf("the writer says %q, %v", line, err)
		}
		if i == 0 {
			want := fmt.Sprintf("in use by process %d on ", cmd.Process.Pid)
			if _, err := Open(r.Dir()); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), want) {
				t.Errorf("want ErrLocked with %q, have %v", want, err)
			}
			if info, err := Describe(r.Dir()); err != nil || info.Status != Running {
				t.Errorf("want a running run, have %v, %v", info.Status, err)
			}
		}
		time.Sleep(time.Duration(i*7) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		r, err := Open(r.Dir())
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		metrics, err := Metrics(r.Dir())
		if err != nil || len(metrics) == 0 {
			t.Fatalf("after a kill: %d metrics, %v", len(metrics), err)
		}
		for j, m := range metrics {
			if m.Step != j+1 || float64(m.Loss) != float64(j+1) {
				t.Fatalf("line %d: have %+v", j+1, m)
			}
		}
		if err := r.Rewind(0); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if info, err := Describe(r.Dir()); err != nil || info.Status != Interrupted {
		t.Errorf("want an interrupted run, have %v, %v", info.Status, err)
	}
}

func TestLockIsPerProcessAndFreed(t *testing.T) {
	r := create(t, t.TempDir(), "a")
	if _, err := Open(r.Dir()); !errors.Is(err, ErrLocked) {
		t.Errorf("want ErrLocked, have %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(r.Dir())
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not a run") {
		t.Errorf("an empty folder was opened: %v", err)
	}
}

func TestList(t *testing.T) {
	root := t.TempDir()
	if list, err := List(filepath.Join(root, "none")); err != nil || len(list) != 0 {
		t.Errorf("a missing folder: have %v, %v", list, err)
	}
	for i, kinds := range [][]string{{EventStart}, {EventStart, EventFinish}, {EventStart, EventError, EventResume}, {EventCancel}, {EventError}} {
		r, err := Create(root, fmt.Sprint("r", i), nil, Manifest{Created: time.Unix(int64(i), 0)})
		if err != nil {
			t.Fatal(err)
		}
		record(t, r, 1, 4)
		for _, k := range kinds {
			if err := r.Event(Event{Kind: k}); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
	}
	if err := os.MkdirAll(filepath.Join(root, "other", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "broken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "broken", ManifestFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	list, err := List(root)
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("want the error of the broken run, have %v", err)
	}
	var got []string
	for _, i := range list {
		got = append(got, fmt.Sprintf("%s %s %d %.3f", i.Name, i.Status, i.Step, float64(i.Loss)))
	}
	want := []string{"r4 failed 4 0.018", "r3 cancelled 4 0.018", "r2 interrupted 4 0.018", "r1 finished 4 0.018", "r0 interrupted 4 0.018"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestManifest(t *testing.T) {
	m, err := NewManifest("v1")
	if err != nil || len(m.Binary.SHA256) != 64 || m.Binary.Bytes == 0 {
		t.Errorf("have %+v, %v", m, err)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := HashFile(path)
	want := File{path, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"} // FIPS 180-2, B.1
	if err != nil || f != want {
		t.Errorf("want %v, have %v, %v", want, f, err)
	}
	if _, err := HashFile(path + "x"); err == nil {
		t.Error("a missing file has a hash")
	}
}

func FuzzOpenLog(f *testing.F) {
	f.Add([]byte("{\"step\":1}\n{\"step\":2}\n"), 1)
	f.Add([]byte("{\"step\":1}\n{\"st"), 0)
	f.Add([]byte("\x00\x00\n\n"), -1)
	f.Add([]byte("[]\n5\n"), 3)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte, step int) {
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := openLog(path)
		if err != nil {
			return
		}
		defer l.f.Close()
		kept := contents(t, path)
		if !strings.HasPrefix(string(content), kept) || int64(len(kept)) != l.size {
			t.Fatalf("of %q this is kept: %q, size %d", content, kept, l.size)
		}
		if err := l.append(struct{}{}); err != nil {
			t.Fatal(err)
		}
		if err := l.cut(step); err == nil && !strings.HasPrefix(kept+"{}\n", contents(t, path)) {
			t.Fatalf("cut has changed lines: %q", contents(t, path))
		}
	})
}

func Example() {
	root, err := os.MkdirTemp("", "runs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	r, err := Create(root, "tickets", []byte("seed: 1\n"), Manifest{Seed: 1})
	if err != nil {
		panic(err)
	}
	err = errors.Join(
		r.Metric(Metric{Step: 1, Split: Train, Loss: 2.5, LR: 1e-4}),
		r.Event(Event{Step: 1, Kind: EventFinish}),
		r.Close())
	if err != nil {
		panic(err)
	}
	list, err := List(root)
	if err != nil {
		panic(err)
	}
	for _, i := range list {
		fmt.Println(i.Name, i.Status, i.Step, i.Loss)
	}
	// Output: tickets finished 1 2.5
}
