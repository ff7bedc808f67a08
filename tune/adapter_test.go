package tune

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	"tunesmith/site"
)

// gain is a method that trains one vector for each linear.
type gain struct{ names []string }

func (g *gain) ReadPEFT(c PEFTConfig) (err error) {
	g.names, err = Key(c, "names", []string(nil))
	return err
}

func (g *gain) Graft(*site.Map) (any, error) { return g, nil }

func (g *gain) PEFT() map[string]any { return map[string]any{"peft_type": "GAIN", "names": g.names} }

// gains registers the method and returns its places on a model, and a store with values.
func gains(t *testing.T) (*gain, *site.Map, *engine.Store) {
	t.Helper()
	was := slices.Clone(registry)
	t.Cleanup(func() { registry = was })
	Register(Method{Axis: ParametersAxis, Name: "gain", PEFT: "GAIN", New: func() any { return &gain{} }})
	g := &gain{names: []string{"a", "b"}}
	m, store := &site.Map{}, engine.NewStore()
	add := func(name string, trainable bool, values ...float32) {
		m.Params = append(m.Params, site.Param{Name: name, Shape: []int{len(values)}, Trainable: trainable})
		if err := store.Add(&engine.Tensor{Name: name, Shape: []int{len(values)}, Values: values, Trainable: trainable}); err != nil {
			t.Fatal(err)
		}
	}
	add("a.weight", false, 1, 2)
	add(PEFTPrefix+"a.gain", true, 3, 4)
	add(PEFTPrefix+"b.gain", true, 5, 6, 7)
	return g, m, store
}

func TestSaveAdapter(t *testing.T) {
	g, m, store := gains(t)
	dir := filepath.Join(t.TempDir(), "adapter")
	info := AdapterInfo{Base: "some/model", Revision: "v1", Contract: "c0ffee", Version: "0.1", Card: "Trained on nothing.\n"}
	for range 2 { // the second time over the first
		if err := SaveAdapter(dir, g, m, store, info); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, adapterConfig))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "auto_mapping": null,
  "base_model_name_or_path": "some/model",
  "inference_mode": true,
  "names": [
    "a",
    "b"
  ],
  "peft_type": "GAIN",
  "peft_version": "` + peftVersion + `",
  "revision": "v1",
  "task_type": "CAUSAL_LM"
}
`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	card, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.HasPrefix(string(card), "---\nbase_model: \"some/model\"\nlibrary_name: peft\n") || !strings.HasSuffix(string(card), "\nTrained on nothing.\n") {
		t.Errorf("%v, card:\n%s", err, card)
	}
	file, err := checkpoint.Open(filepath.Join(dir, adapterWeights))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if file.Metadata()["format"] != "pt" {
		t.Errorf("metadata: %v", file.Metadata())
	}
	a, err := OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if a.Base != "some/model" || a.Contract != "c0ffee" || a.Version != "0.1" || a.Method.Name != "gain" {
		t.Errorf("have %+v", a)
	}
	_, other, fresh := gains(t)
	for _, x := range fresh.Trainable() {
		clear(x.Values)
	}
	if err := a.Fill(fresh, other); err != nil {
		t.Fatal(err)
	}
	for _, x := range store.Trainable() {
		y, _ := fresh.Get(x.Name)
		if !slices.Equal(x.Values, y.Values) || y.Version() == 0 {
			t.Errorf("%s: want %v, have %v", x.Name, x.Values, y.Values)
		}
	}
}

func TestFillRefuses(t *testing.T) {
	g, m, store := gains(t)
	inf := []float32{1, 2}
	inf[1] /= 0 * inf[0]
	for _, c := range []struct {
		change func(tensors map[string][]float32)
		want   []string
	}{
		{func(x map[string][]float32) { delete(x, PEFTPrefix+"b.gain") }, []string{`"base_model.model.b.gain" of shape [3] is missing`}},
		{func(x map[string][]float32) { x["c"] = inf[:1] }, []string{`"c" of shape [1] is none that the method trains`}},
		{func(x map[string][]float32) { x[PEFTPrefix+"a.gain"] = inf[:1] }, []string{`want shape [2], have [1]`, "some/model"}},
		{func(x map[string][]float32) { x[PEFTPrefix+"a.gain"] = inf }, []string{"value 1 is +Inf"}},
		{func(x map[string][]float32) { x[PEFTPrefix+"z.base_layer.weight"] = inf[:1] }, []string{"no module of the model"}},
		{func(x map[string][]float32) { x[PEFTPrefix+"a.base_layer.weight"] = inf[:1] }, []string{"a vocabulary that has grown"}},
		{func(x map[string][]float32) {
			for i := range 14 {
				x["extra"+string(rune('a'+i))] = inf[:1]
			}
		}, []string{"and 4 more tensors"}},
	} {
		tensors := map[string][]float32{}
		for _, x := range store.Trainable() {
			tensors[x.Name] = x.Values
		}
		c.change(tensors)
		dir := t.TempDir()
		if err := SaveAdapter(dir, g, m, store, AdapterInfo{Base: "some/model"}); err != nil {
			t.Fatal(err)
		}
		var list []checkpoint.Tensor
		for name, v := range tensors {
			list = append(list, checkpoint.Float32Tensor(name, []int{len(v)}, v))
		}
		if err := checkpoint.WriteSafetensors(filepath.Join(dir, adapterWeights), list, nil); err != nil {
			t.Fatal(err)
		}
		a, err := OpenAdapter(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		_, sites, fresh := gains(t)
		err = a.Fill(fresh, sites)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("want %q, have %v", want, err)
			}
		}
		for _, x := range fresh.All() {
			if x.Version() != 0 {
				t.Errorf("%s was filled before the error", x.Name)
			}
		}
	}
}

// TestFillBase: a base weight that an adapter carries takes the place of the model's.
func TestFillBase(t *testing.T) {
	testFillBase(t, "a", nil, []float32{8, 9})
	testFillBase(t, "head", nil, []float32{8, 9})
	// The method keeps something of the module's weight.
	testFillBase(t, "a", []site.Param{{Name: PEFTPrefix + "a.start", Shape: []int{1}}}, []float32{1, 2})
}

func testFillBase(t *testing.T, module string, kept []site.Param, want []float32) {
	t.Helper()
	g, m, store := gains(t)
	m.Tied, m.Output.Path, m.Params = "a", "head", append(m.Params, kept...)
	dir := t.TempDir()
	if err := SaveAdapter(dir, g, m, store, AdapterInfo{}); err != nil {
		t.Fatal(err)
	}
	list := []checkpoint.Tensor{checkpoint.Float32Tensor(PEFTPrefix+module+".base_layer.weight", []int{2}, []float32{8, 9})}
	for _, x := range store.Trainable() { // with the adapter's name, as PEFT has it in memory
		list = append(list, checkpoint.Float32Tensor(x.Name+".default", x.Shape, x.Values))
	}
	if err := checkpoint.WriteSafetensors(filepath.Join(dir, adapterWeights), list, nil); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Fill(store, m); err != nil {
		t.Fatal(err)
	}
	if x, _ := store.Get("a.weight"); !slices.Equal(x.Values, want) {
		t.Errorf("%s: want %v, have %v", module, want, x.Values)
	}
}

func TestOpenAdapterRefuses(t *testing.T) {
	gains(t)
	dir := t.TempDir()
	if _, err := OpenAdapter(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), adapterWeights) {
		t.Errorf("have %v", err)
	}
	for _, c := range []struct {
		config map[string]any
		file   string
		want   string
	}{
		{map[string]any{}, "", "peft_type: want one of GAIN"},
		{map[string]any{"peft_type": "GAIN", "names": 3}, "", "names: want"},
		{map[string]any{"peft_type": "GAIN", "task_type": "SEQ_CLS"}, "", "task_type: want CAUSAL_LM or none"},
		{map[string]any{"peft_type": "GAIN"}, "", "holds no"},
		{map[string]any{"peft_type": "GAIN"}, "adapter_model.bin", "pickles"},
	} {
		dir := t.TempDir()
		text, err := json.Marshal(c.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, adapterConfig), text, 0o666); err != nil {
			t.Fatal(err)
		}
		if c.file != "" {
			if err := os.WriteFile(filepath.Join(dir, c.file), nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenAdapter(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: want %q, have %v", c.config, c.want, err)
		}
	}
	if err := SaveAdapter(filepath.Join(dir, "x"), struct{}{}, &site.Map{}, engine.NewStore(), AdapterInfo{}); err == nil {
		t.Error("a method without files was saved")
	}
}
