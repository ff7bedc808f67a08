package trainer

import (
	"errors"
	"testing"
)

func TestDrift(t *testing.T) {
	var d drift
	for range 50 {
		if err := d.add(2); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 { // a few bad batches are no divergence
		if err := d.add(30); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for range 200 {
		if err = d.add(30); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrDiverged) {
		t.Errorf("want ErrDiverged, have %v", err)
	}
	var falling drift
	for loss := 8.0; loss > 1; loss *= 0.99 {
		if err := falling.add(loss); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSplitOptim(t *testing.T) {
	name, param, ok := splitOptim("optim:exp_avg:model.layers.0.weight")
	if !ok || name != "exp_avg" || param != "model.layers.0.weight" {
		t.Errorf("have %q, %q, %v", name, param, ok)
	}
	if _, _, ok := splitOptim("param:x"); ok {
		t.Error("a parameter is taken for the optimizer's")
	}
}

func TestTextBatches(t *testing.T) {
	ids := make([]int, 10)
	for i := range ids {
		ids[i] = i
	}
	out := textBatches(ids, 4)
	if len(out) != 3 || out[0].Supervised != 3 || out[2].Cols != 2 {
		t.Fatalf("have %+v", out)
	}
	if b := out[1]; b.IDs[0] != 4 || b.Targets[0] != 5 || b.Targets[3] != -1 || b.Weights[3] != 0 {
		t.Errorf("have %+v", b)
	}
}
