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

func TestAdapterCount(t *testing.T) {
	with := func(f func(o *Adapter)) *Adapter {
		o := &Adapter{Name: "a", Places: "feed_forward", Input: "sum", Reduction: 16, Function: "relu", Scale: 1, Scaling: "fixed", Init: "zero"}
		f(o)
		return o
	}
	checkCounts(t, []countCase{ // places · (2 · hidden · m + m + hidden), m = hidden / reduction
		{"Pfeiffer", smollm2, with(func(*Adapter) {}), 1_262_520},
		{"Houlsby", smollm2, with(func(o *Adapter) { o.Places = "both" }), 2_525_040},
		{"Pfeiffer on Llama-3 8B", llama8b, with(func(*Adapter) {}), 67_248_128},
		{"parallel", smollm2, with(func(o *Adapter) { o.Input, o.Reduction = "residual", 2 }), 9_979_200},
		{"Houlsby, 64 wide", smollm2, with(func(o *Adapter) { o.Places, o.Reduction = "both", 9 }), 4_462_080},
	})
}

func TestAdapterRefuses(t *testing.T) {
	m := small(t)
	refuses(t, m, &Adapter{Name: "a.b"}, `name: want letters and digits without points, have "a.b"`)
	refuses(t, m, &Adapter{Name: "a", LeaveOut: []int{2}}, "leave_out: want numbers from 0 to 1, have 2")
	refuses(t, m, &Adapter{Name: "a", Reduction: 16, LeaveOut: []int{0, 1}}, "leave_out: [0 1] leaves no layer")
	refuses(t, m, &Adapter{Name: "a", Reduction: 0.01}, "reduction: want at least 0.25 in layer 0, have 0.01")
}
