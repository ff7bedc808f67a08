package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
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

	"tunesmith/quant"
)

// someState returns a state whose every byte depends on the step.
func someState(step int) State {
	r := rand.New(rand.NewPCG(uint64(step), 0))
	values := make([]float32, 1000)
	for i := range values {
		values[i] = math.Float32frombits(r.Uint32()) // NaN, infinities and denormals too
	}
	position := make([]byte, 16)
	for i := range position {
		position[i] = byte(r.Uint32())
	}
	return State{
		Step: step,
		Tensors: []Tensor{
			{Name: "position", Shape: []int{2}, Format: quant.I64, Data: position},
			Float32Tensor("empty", []int{0}, nil),
			Float32Tensor("param:w", []int{10, 100}, values),
			{Name: "rng", Shape: []int{16}, Format: quant.U8, Data: position},
		},
		Meta: map[string]json.RawMessage{"loss": json.RawMessage(fmt.Sprint(r.Float64())), "none": json.RawMessage("null")},
	}
}

func mustSave(t *testing.T, root string, step int) string {
	t.Helper()
	dir, err := SaveState(root, someState(step))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantState(t *testing.T, dir string, step int) {
	t.Helper()
	got, err := LoadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(someState(step), got); d != "" {
		t.Error(d)
	}
}

// quiet silences the warnings of damaged checkpoints and returns what they say.
func quiet(t *testing.T) *bytes.Buffer {
	var b bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	return &b
}

func TestStateRoundTripsBitForBit(t *testing.T) {
	root := filepath.Join(t.TempDir(), "checkpoints")
	if dir, step, err := Latest(root); dir != "" || step != 0 || err != nil {
		t.Errorf("latest of nothing: have %q, %d, %v", dir, step, err)
	}
	dir := mustSave(t, root, 7)
	wantState(t, dir, 7)
	if latest, step, err := Latest(root); latest != dir || step != 7 || err != nil {
		t.Errorf("latest: want %q, have %q, %d, %v", dir, latest, step, err)
	}
	if _, err := SaveState(root, State{Step: -1}); err == nil {
		t.Error("a negative step was saved")
	}
	if _, err := LoadState(filepath.Join(root, "step-000008")); err == nil || !strings.Contains(err.Error(), "step-000008: it is not complete") {
		t.Errorf("missing state: have %v", err)
	}
}

func TestStateOfTheSameStepIsReplaced(t *testing.T) {
	root := t.TempDir()
	s := someState(4)
	s.Step = 3
	if _, err := SaveState(root, s); err != nil {
		t.Fatal(err)
	}
	wantState(t, mustSave(t, root, 3), 3)
	wantEntries(t, root, "step-000003")
}

func TestFailedSaveLeavesTheOldState(t *testing.T) {
	root := t.TempDir()
	dir := mustSave(t, root, 3)
	bad := someState(3)
	bad.Tensors[2].Data = bad.Tensors[2].Data[1:]
	if _, err := SaveState(root, bad); err == nil || !strings.Contains(err.Error(), "param:w") {
		t.Errorf("have %v", err)
	}
	bad = someState(3)
	bad.Meta["loss"] = json.RawMessage("{")
	if _, err := SaveState(root, bad); err == nil {
		t.Error("bad JSON was saved")
	}
	wantState(t, dir, 3)
	wantEntries(t, root, "step-000003")
}

// TestDamageIsFound flips bits and cuts each file at many places: no damage goes unnoticed, its file is named, and
// the state before is the latest.
func TestDamageIsFound(t *testing.T) {
	root := t.TempDir()
	before := mustSave(t, root, 1)
	dir := mustSave(t, root, 2)
	for _, name := range []string{stateTensors, stateMeta, stateManifest} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damage := func(what string, b []byte) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := LoadState(dir)
			switch {
			case err != nil && !strings.Contains(err.Error(), name) && name != stateManifest:
				t.Errorf("%s of %s: another file is blamed: %v", what, name, err)
			case err == nil && !cmp.Equal(got, someState(2)):
				t.Errorf("%s of %s: another state is loaded", what, name)
			case err == nil && name != stateManifest:
				t.Errorf("%s of %s: no error", what, name)
			}
		}
		step := max(1, len(whole)/200)
		for at := 0; at < len(whole); at += step {
			flipped := bytes.Clone(whole)
			flipped[at] ^= 1 << (at % 8)
			damage(fmt.Sprintf("a flipped bit in byte %d", at), flipped)
			damage(fmt.Sprintf("a cut at byte %d", at), whole[:at])
		}
		damage("a byte more", append(bytes.Clone(whole), '!'))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		warnings := quiet(t)
		if latest, step, err := Latest(root); latest != before || step != 1 || err != nil {
			t.Errorf("without %s: want step 1, have %q, %d, %v", name, latest, step, err)
		}
		if !strings.Contains(warnings.String(), name) || !strings.Contains(warnings.String(), "step-000002") {
			t.Errorf("without %s: the warning says %s", name, warnings)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		wantState(t, dir, 2)
	}
}

func TestLatestOfDamagedOnly(t *testing.T) {
	quiet(t)
	root := t.TempDir()
	if err := os.Remove(filepath.Join(mustSave(t, root, 1), stateMeta)); err != nil {
		t.Fatal(err)
	}
	if dir, _, err := Latest(root); err == nil || !strings.Contains(err.Error(), stateMeta) {
		t.Errorf("want an error, have %q, %v", dir, err)
	}
}

func TestPrune(t *testing.T) {
	quiet(t)
	root := t.TempDir()
	for step := range 7 {
		mustSave(t, root, step)
	}
	// A damaged state is none of the last two.
	if err := os.Truncate(filepath.Join(stepDir(root, 6), stateTensors), 5); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".step-000009.tmp-0123", "step-9", "notes"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Prune(root, 0); err == nil {
		t.Error("all states may go")
	}
	if err := Prune(root, 2, 1); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, root, "notes", "step-000001", "step-000004", "step-000005", "step-000006", "step-9")
	if steps, err := Steps(root); err != nil || !cmp.Equal(steps, []int{1, 4, 5, 6}) {
		t.Errorf("steps: have %v, %v", steps, err)
	}
	if err := Prune(filepath.Join(root, "none"), 2); err != nil {
		t.Errorf("nothing to prune: %v", err)
	}
}

func wantEntries(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Error(d)
	}
}

// Environment of a process that saves.
const (
	writerEnv = "TUNESMITH_TEST_CHECKPOINT_WRITER" // the folder to save into without end
	onceEnv   = "TUNESMITH_TEST_CHECKPOINT_ONCE"   // the only step to save
)

// TestMain is also the process that other tests kill: it saves, prunes and saves again.
func TestMain(m *testing.M) {
	root := os.Getenv(writerEnv)
	if root == "" {
		os.Exit(m.Run())
	}
	if step, err := strconv.Atoi(os.Getenv(onceEnv)); err == nil {
		if _, err = SaveState(root, someState(step)); err == nil {
			err = Prune(root, 2)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	_, step, err := Latest(root)
	for n := 2 * step; err == nil; n++ {
		if _, err = SaveState(root, someState(n/2)); err == nil { // each state twice: new, and replaced
			err = Prune(root, 2, 1)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestKilledWriter kills a process that saves at random instants. At each there is a whole state to continue from,
// not older than the one that was there before.
func TestKilledWriter(t *testing.T) {
	quiet(t)
	root := t.TempDir()
	kills := 40
	if testing.Short() {
		kills = 5
	}
	newest := mustSave(t, root, 1)
	r := rand.New(rand.NewPCG(1, 2))
	saved := func() bool { return newest != stepDir(root, 1) }
	for n := 0; n < kills || !saved() && n < 10*kills; n++ { // a busy machine may kill before the first save
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+root)
		var message bytes.Buffer
		cmd.Stderr = &message
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20*time.Millisecond + time.Duration(r.Int64N(int64(60*time.Millisecond))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || message.Len() > 0 && !strings.Contains(message.String(), "WARN") {
			t.Fatalf("the writer ended by itself: %v, %s", err, &message)
		}
		dir, step, err := Latest(root)
		if err != nil || dir < newest {
			t.Fatalf("want a state not older than %s, have %q, %v", newest, dir, err)
		}
		wantState(t, dir, step)
		newest = dir
	}
	if !saved() {
		t.Error("the writer never got to save")
	}
	t.Logf("%d kills, newest state %s", kills, filepath.Base(newest))
}
