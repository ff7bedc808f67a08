package methods

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tunesmith/data"
	"tunesmith/device"
	"tunesmith/recipes"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// newDevice makes a device on the embedded base whose system is a fake one.
func newDevice(t *testing.T, sets ...string) *device.Device {
	t.Helper()
	root := t.TempDir()
	power(t, root, true)
	dir := filepath.Join(t.TempDir(), "phone")
	all := append([]string{"model=tinybase", "data=[{path: new.jsonl}]", "topology.method=ondevice", "topology.root=" + root}, (&OnDevice{}).Sets()...)
	r, err := tune.Schema().Load("", append(all, sets...))
	if err != nil {
		t.Fatal(err)
	}
	base, err := recipes.Base()
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Init(dir, r.Value, base); err != nil {
		t.Fatal(err)
	}
	return openDevice(t, dir)
}

func openDevice(t *testing.T, dir string) *device.Device {
	t.Helper()
	d, err := device.Open(dir, func(string) (string, error) { return recipes.Base() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// power connects a device to its charger, or not.
func power(t *testing.T, root string, on bool) {
	t.Helper()
	dir := filepath.Join(root, "sys/class/power_supply/usb")
	battery := filepath.Join(root, "sys/class/power_supply/battery")
	online := "0"
	if on {
		online = "1"
	}
	err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(battery, 0o755),
		os.WriteFile(filepath.Join(dir, "type"), []byte("USB"), 0o644), os.WriteFile(filepath.Join(dir, "online"), []byte(online), 0o644),
		os.WriteFile(filepath.Join(battery, "type"), []byte("Battery"), 0o644), os.WriteFile(filepath.Join(battery, "status"), []byte("Discharging"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// talks are conversations in which a name answers in one way.
func talks(from, n int, answer string) []data.Record {
	var out []data.Record
	for i := from; i < from+n; i++ {
		out = append(out, data.Record{Kind: data.Chat, Train: []bool{false, true}, Messages: []data.Message{
			{Role: "user", Content: fmt.Sprintf("where is parcel %d", i)}, {Role: "assistant", Content: fmt.Sprintf(answer, i)},
		}})
	}
	return out
}

func adaptation(records []data.Record) device.Adaptation {
	return device.Adaptation{Records: records, General: func() io.Reader { return strings.NewReader(recipes.General()) }}
}

// An adaptation that is stopped by the policy goes on bit for bit, and stops within two seconds.
func TestDeferredAdaptation(t *testing.T) {
	if testing.Short() {
		t.Skip("trains twice")
	}
	sets := []string{"epochs=4", "topology.max_forget=1", "save_every=0"}
	straight := newDevice(t, sets...)
	want, err := straight.Adapt(t.Context(), adaptation(talks(0, 60, "parcel %d is on its way my friend")))
	if err != nil || !want.Taken {
		t.Fatalf("have %+v, %v", want, err)
	}
	d := newDevice(t, sets...)
	root := d.Root
	var off time.Time
	for stop := 3; stop <= 9; stop += 6 {
		a := adaptation(nil)
		if stop == 3 {
			a.Records = talks(0, 60, "parcel %d is on its way my friend")
		}
		a.Progress = func(p trainer.Progress) {
			if p.Step == stop {
				power(t, root, false)
				off = time.Now()
				time.Sleep(300 * time.Millisecond) // a step of a larger model
			}
		}
		if _, err := d.Adapt(t.Context(), a); !errors.Is(err, device.ErrDeferred) {
			t.Fatalf("want a deferred adaptation, have %v", err)
		}
		if spent := time.Since(off); spent > 2*time.Second {
			t.Errorf("it stopped %v after the power went", spent)
		}
		if _, err := d.Adapt(t.Context(), adaptation(nil)); !errors.Is(err, device.ErrDeferred) {
			t.Errorf("without power it goes on: %v", err)
		}
		power(t, root, true)
	}
	if leak := grep(t, d.Dir, "on its way"); leak != "" {
		t.Errorf("%s holds the owner's text", leak)
	}
	have, err := d.Adapt(t.Context(), adaptation(nil))
	if err != nil || !have.Resumed || !have.Taken {
		t.Fatalf("have %+v, %v", have, err)
	}
	if have.Generation.Digest != want.Generation.Digest || have.After[runs.Eval] != want.After[runs.Eval] {
		t.Errorf("want generation %s with loss %v, have %s with %v", want.Generation.Digest, want.After, have.Generation.Digest, have.After)
	}
	if s, err := d.Status(); err != nil || s.Pending || s.Current != 1 || s.Replay == 0 {
		t.Errorf("have %+v, %v", s, err)
	}
}

// grep returns the first file below a directory that holds a text.
func grep(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), text) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What does not fit is made leaner or refused before the first step, with what would fit.
func TestMemoryOfADevice(t *testing.T) {
	records := talks(0, 10, "parcel %d is on its way")
	d := newDevice(t, "max_steps=2", "batch_size=4", "gradient_accumulation=1", "recompute=false", "topology.memory=1MiB")
	_, err := d.Adapt(t.Context(), adaptation(records))
	if !errors.Is(err, device.ErrMemory) || !strings.Contains(err.Error(), "the leanest plan needs") || !strings.Contains(err.Error(), "memory in the settings") {
		t.Fatalf("have %v", err)
	}
	sizes := map[int]device.Bytes{}
	for _, most := range []device.Bytes{1 << 40, 0} {
		d := newDevice(t, "max_steps=2", "batch_size=8", "gradient_accumulation=1", "recompute=false", "topology.max_forget=9")
		d.Memory = most
		if most == 0 { // a little less than the run as it stands
			d.Memory = sizes[0] - 1
		}
		r, err := d.Adapt(t.Context(), adaptation(records))
		if err != nil {
			t.Fatal(err)
		}
		sizes[len(r.Fit.Changes)] = r.Fit.Total()
		if r.Fit.Total() > r.Fit.Limit.Bytes {
			t.Errorf("%v planned of %v", r.Fit.Total(), r.Fit.Limit)
		}
	}
	if len(sizes) != 2 {
		t.Errorf("want a leaner run under a tighter limit, have %v", sizes)
	}
}

// A base with other content is refused by name.
func TestBaseOfADevice(t *testing.T) {
	d := newDevice(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(other, []byte("GGUF"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := device.Open(d.Dir, func(string) (string, error) { return other, nil })
	if err == nil || !strings.Contains(err.Error(), "has changed: want digest") {
		t.Errorf("have %v", err)
	}
}

// A generation that forgets too much, or learns nothing, is not taken.
func TestGateOfADevice(t *testing.T) {
	records := talks(0, 12, "parcel %d is on its way")
	d := newDevice(t, "max_steps=3", "topology.min_gain=100")
	r, err := d.Adapt(t.Context(), adaptation(records))
	if err != nil || r.Taken || !strings.Contains(r.Reason, "new held-out data") {
		t.Errorf("have %+v, %v", r, err)
	}
	if s, err := d.Status(); err != nil || s.Current != 0 || s.Pending || s.Replay != 0 {
		t.Errorf("have %+v, %v", s, err)
	}
	d = newDevice(t, "max_steps=30", "learning_rate=0.05", "gradient_accumulation=1", "topology.max_forget=0")
	r, err = d.Adapt(t.Context(), adaptation(records))
	if err != nil || r.Taken || !strings.Contains(r.Reason, "above the base's, want at most 0") {
		t.Errorf("have %+v, %v", r, err)
	}
}

// Records of an earlier adaptation that are replayed are forgotten less.
func TestReplayForgetsLess(t *testing.T) {
	if testing.Short() {
		t.Skip("trains four times")
	}
	loss := map[string]float64{}
	for _, share := range []string{"0", "2"} {
		d := newDevice(t, "epochs=0", "max_steps=40", "learning_rate=3e-3", "gradient_accumulation=2", "topology.max_forget=9", "topology.replay="+share)
		for i, answer := range []string{"it left the harbour, number %d", "%d was eaten by a whale"} {
			r, err := d.Adapt(t.Context(), adaptation(talks(100*i, 30, answer)))
			if err != nil || !r.Taken {
				t.Fatalf("have %+v, %v", r, err)
			}
		}
		// The first domain once more, as the held-out data of a run that makes no step that counts.
		c := *d.Config
		c.Adapter, c.MaxSteps = d.Adapter(2), 1
		s, err := trainer.Prepare(t.Context(), &c, trainer.Files{Model: d.Model, Records: talks(0, 4, "x %d"), Held: talks(50, 20, "it left the harbour, number %d")})
		if err != nil {
			t.Fatal(err)
		}
		losses, err := s.Losses(t.Context())
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		loss[share] = losses[runs.Eval]
	}
	if !(loss["2"] < loss["0"]-0.1) || math.IsNaN(loss["2"]) {
		t.Errorf("loss on the first domain: %.3f with replay, %.3f without", loss["2"], loss["0"])
	}
}
