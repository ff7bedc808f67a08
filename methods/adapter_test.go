package methods

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/tune"
)

type edgeCase struct {
	Name, What, Directory, Result string
	Error                         string
	Good                          any `json:"equals_good_logits"`
}

// TestGoldenAdapterFiles opens every adapter directory of golden/peft/edge. What PEFT refuses is refused, what it reads
// is read with the same result, and what it reads in silence although tensors are missing, extra or no numbers is
// refused too.
func TestGoldenAdapterFiles(t *testing.T) {
	dir := golden.Dir(t, "peft")
	var all struct {
		Base  string
		Cases []edgeCase
	}
	golden.JSON(t, filepath.Join(dir, "edge", "edge.json"), &all)
	values := golden.Load(t, filepath.Join(dir, "edge", "edge.safetensors"))
	ids := values["input_ids"]
	b := batchOf(ids.Shape[0], ids.Shape[1], ids.I32, ids.I32, values["attention_mask"].I32, nil, nil)
	m, backend := openModel(t, filepath.Join(dir, all.Base)), openBackend(t)
	good := filepath.Join(dir, "edge", "good")
	for _, c := range all.Cases {
		if c.Directory == "" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			path := filepath.Join(dir, c.Directory)
			if c.Result == "error" && sameFiles(t, path, good) {
				for _, base := range golden.Cases(t, dir, "config.json") {
					if other, err := model.Open(filepath.Join(dir, base)); err == nil && other.Config.Hidden != m.Config.Hidden {
						refused(t, other, path) // the fault is the base
					}
				}
				return
			}
			if c.Result == "error" || faulty(t, path, good) {
				refused(t, m, path)
				return
			}
			a, _ := withAdapter(t, m, path)
			want, ok := c.Good.(float64)
			if !ok {
				t.Fatalf("PEFT has no number of logits: %v", c.Good)
			}
			have := golden.MaxAbs(keep(b.Segments, pass(t, backend, a, b)["logits"]), keep(b.Segments, values["good_logits"].F32))
			if math.Abs(have-want) > 2e-4 {
				t.Errorf("distance to the logits of the good adapter: want %.5f, have %.5f", want, have)
			}
		})
	}
}

// refused checks that an adapter does not load, and that the model is as before.
func refused(t *testing.T, m *model.Model, dir string) {
	t.Helper()
	ad, err := tune.OpenAdapter(dir)
	if err == nil {
		defer ad.Close()
		graft, graftErr := ad.Options.Graft(m.Map())
		err = graftErr
		if err == nil {
			a, adaptErr := m.Adapt(1, graft)
			if adaptErr != nil {
				t.Fatal(adaptErr)
			}
			before := slices.Clone(a.Trained()[0].Values)
			err = ad.Fill(a.Store, a.Sites)
			if err != nil && !slices.Equal(before, a.Trained()[0].Values) {
				t.Error("a part of the adapter was filled in before the error")
			}
		}
	}
	if err == nil {
		t.Error("want an error, have none")
		return
	}
	t.Log(err)
}

// faulty reports whether an adapter's tensors are others than the good adapter's, or no numbers, or in no file that is
// read.
func faulty(t *testing.T, dir, good string) bool {
	t.Helper()
	const file = "adapter_model.safetensors"
	if !exists(dir, file) {
		return true
	}
	var have []string
	for name, v := range golden.Load(t, filepath.Join(dir, file)) {
		have = append(have, strings.Replace(name, ".default.", ".", 1))
		if slices.ContainsFunc(v.F32, func(x float32) bool { return math.IsNaN(float64(x)) }) {
			return true
		}
	}
	slices.Sort(have)
	return !slices.Equal(have, sortedKeys(golden.Load(t, filepath.Join(good, file))))
}

func sameFiles(t *testing.T, a, b string) bool {
	t.Helper()
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		if x, y := content(t, filepath.Join(a, name)), content(t, filepath.Join(b, name)); x == "" || x != y {
			return false
		}
	}
	return true
}
