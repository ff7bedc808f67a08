package checkpoint

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func someState(step int) State {
	values := []float32{1, float32(math.Inf(1)), math.Float32frombits(0x7fc00001), -0.0, math.SmallestNonzeroFloat32}
	return State{Step: step, Tensors: []Tensor{Float32Tensor("w", []int{5}, values)},
		Meta: map[string]json.RawMessage{"position": json.RawMessage(`{"epoch":1}`)}}
}

func TestStateRoundTripsBitForBit(t *testing.T) {
	root := t.TempDir()
	want := someState(7)
	dir, err := SaveState(root, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDamageIsNamedAndPassedOver(t *testing.T) {
	root := t.TempDir()
	for _, step := range []int{1, 2} {
		if _, err := SaveState(root, someState(step)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(stepDir(root, 2), stateTensors)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func() []byte{
		func() []byte { return b[:len(b)-1] },
		func() []byte { c := append([]byte(nil), b...); c[len(c)/2] ^= 1; return c },
	} {
		if err := os.WriteFile(path, damage(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadState(stepDir(root, 2)); err == nil || !strings.Contains(err.Error(), stateTensors) {
			t.Errorf("have %v", err)
		}
		if _, step, err := Latest(root); err != nil || step != 1 {
			t.Errorf("latest: want step 1, have %d, %v", step, err)
		}
	}
	if _, err := SaveState(root, someState(2)); err != nil {
		t.Fatal(err)
	}
	if _, step, _ := Latest(root); step != 2 {
		t.Errorf("a damaged state was not replaced")
	}
}

func TestPrune(t *testing.T) {
	root := t.TempDir()
	for step := range 6 {
		if _, err := SaveState(root, someState(step)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, ".step-000009.tmp-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Prune(root, 2, 1); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(root)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if d := cmp.Diff([]string{"step-000001", "step-000004", "step-000005"}, names); d != "" {
		t.Error(d)
	}
}
