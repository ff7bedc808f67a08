package methods

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/data"
	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/graph"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/trainer"
	"tunesmith/tune"
)

func openBackend(t *testing.T, precision ...engine.Precision) engine.Backend {
	t.Helper()
	b, err := engine.Open("cpu", engine.Options{Precision: append(precision, engine.FP32)[0]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func openModel(t *testing.T, dir string) *model.Model {
	t.Helper()
	m, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func adapt(t *testing.T, m *model.Model, p tune.Parameters) (*model.Adapted, any) {
	t.Helper()
	graft, err := p.Graft(m.Map())
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.Adapt(1, graft)
	if err != nil {
		t.Fatal(err)
	}
	return a, graft
}

func openAdapter(t *testing.T, dir string) *tune.Adapter {
	t.Helper()
	a, err := tune.OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// withAdapter opens an adapter directory on a model.
func withAdapter(t *testing.T, m *model.Model, dir string) (*model.Adapted, any) {
	t.Helper()
	ad := openAdapter(t, dir)
	a, graft := adapt(t, m, ad.Options)
	if err := ad.Fill(a.Store, a.Sites); err != nil {
		t.Fatal(err)
	}
	return a, graft
}

// batchOf makes a batch of golden rows; mask, positions and segments may be absent.
func batchOf(rows, cols int, ids, labels, mask, positions, segments []int32) data.Batch {
	b := data.Batch{Rows: rows, Cols: cols, IDs: ids, Positions: positions, Segments: segments}
	n := rows * cols
	if b.Positions == nil {
		for i := range n {
			b.Positions = append(b.Positions, int32(i%cols))
		}
	}
	if b.Segments == nil {
		b.Segments = make([]int32, n)
	}
	b.Targets, b.Weights = make([]int32, n), make([]float32, n)
	for i := range n {
		if mask != nil && mask[i] == 0 {
			b.Segments[i] = -1
		} else {
			b.Tokens++
		}
		b.Targets[i] = -1
		if i%cols != cols-1 && labels[i+1] >= 0 {
			b.Targets[i], b.Weights[i] = labels[i+1], 1
			b.Supervised++
		}
	}
	return b
}

// batches are the steps of a case of golden/peft: input_ids, attention_mask and labels (steps, rows, columns).
func batches(values map[string]golden.Tensor) []data.Batch {
	ids := values["input_ids"]
	rows, cols := ids.Shape[1], ids.Shape[2]
	var out []data.Batch
	for i := range ids.Shape[0] {
		part := func(name string) []int32 { return values[name].I32[i*rows*cols : (i+1)*rows*cols] }
		out = append(out, batchOf(rows, cols, part("input_ids"), part("labels"), part("attention_mask"), nil, nil))
	}
	return out
}

// pass runs a model on a batch and returns the logits, the mean loss, and the gradient of every trained parameter as
// "grad.NAME".
func pass(t *testing.T, backend engine.Backend, a *model.Adapted, b data.Batch) map[string][]float32 {
	t.Helper()
	return passWith(t, backend, a, b, func(*site.Inputs) {})
}

// passWith is pass with other inputs.
func passWith(t *testing.T, backend engine.Backend, a *model.Adapted, b data.Batch, change func(*site.Inputs)) map[string][]float32 {
	t.Helper()
	trained := a.Sites.Trainable()
	g, err := graph.Build(func(g *graph.Graph) {
		in := site.Inputs{
			IDs:       g.Input("ids", graph.Int, b.Rows, b.Cols),
			Positions: g.Input("positions", graph.Int, b.Rows, b.Cols),
			Segments:  g.Input("segments", graph.Int, b.Rows, b.Cols),
		}
		change(&in)
		s := site.New(g, in, a.Grafts...)
		h := a.Hidden(s)
		g.Output("logits", a.Logits(s, h))
		logp, _ := a.LogProbs(s, graph.Reshape(h, -1, h.Dim(-1)), g.Input("targets", graph.Int, b.Rows*b.Cols))
		loss := graph.Scale(graph.Sum(logp), -1/float32(b.Supervised))
		g.Output("loss", loss)
		var nodes []*graph.Node
		for _, p := range trained {
			nodes = append(nodes, g.Param(p.Name, true, p.Shape...))
		}
		for i, d := range graph.Gradient(loss, nodes) {
			if d != nil {
				g.Output("grad."+trained[i].Name, d)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := backend.Compile(g, a.Store)
	if err != nil {
		t.Fatal(err)
	}
	feeds := engine.Feeds{"ids": b.IDs, "positions": b.Positions, "segments": b.Segments, "targets": b.Targets}
	if err := p.Run(t.Context(), feeds); err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for _, name := range []string{"logits", "loss"} {
		out[name] = slices.Clone(p.Output(name))
	}
	for _, x := range trained {
		out["grad."+x.Name] = slices.Clone(p.Output("grad." + x.Name))
	}
	return out
}

// sameLogits compares logits where there is no padding, by tolerance class E3.
func sameLogits(t *testing.T, what string, b data.Batch, have, want []float32) {
	t.Helper()
	if len(have) != len(want) {
		t.Errorf("%s: want %d values, have %d", what, len(want), len(have))
		return
	}
	x, y := keep(b.Segments, have), keep(b.Segments, want)
	if d, rel := golden.MaxAbs(x, y), golden.RelL2(x, y); !(d <= 2e-4 && rel <= 2e-5) {
		t.Errorf("%s: largest difference %.2g, relative %.2g, want <= 2e-4 and 2e-5", what, d, rel)
	}
}

func near(t *testing.T, what string, have, want []float32, most float64) {
	t.Helper()
	if d := golden.RelL2(have, want); !(d <= most) {
		t.Errorf("%s: relative error %.2g, want <= %g", what, d, most)
	}
}

func nearNumber(t *testing.T, what string, have, want, most float64) {
	t.Helper()
	if d := math.Abs(have - want); !(d <= most*math.Max(1, math.Abs(want))) {
		t.Errorf("%s: want %.7f, have %.7f", what, want, have)
	}
}

func exists(dir string, names ...string) bool {
	m, _ := filepath.Glob(filepath.Join(append([]string{dir}, names...)...))
	return len(m) > 0
}

// keep returns the values of the positions that are no padding.
func keep(segments []int32, x []float32) []float32 {
	n := len(x) / len(segments)
	var out []float32
	for i, s := range segments {
		if s >= 0 {
			out = append(out, x[i*n:(i+1)*n]...)
		}
	}
	return out
}

// content returns what a file holds, "" where there is none.
func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// fill puts golden values, whose names begin with the prefix, into the trained tensors.
func fill(t *testing.T, a *model.Adapted, values map[string]golden.Tensor, name func(param string) string) {
	t.Helper()
	for _, x := range a.Trained() {
		v, ok := values[name(x.Name)]
		if !ok {
			t.Fatalf("no golden value %q", name(x.Name))
		}
		copy(x.Values, v.F32)
		x.Touch()
	}
}

// smollm2 and llama8b are shapes for counts; they hold no weights.
func smollm2(t *testing.T) *model.Model { return shaped(t, 576, 1536, 30, 9, 3, 49152, true) }
func llama8b(t *testing.T) *model.Model { return shaped(t, 4096, 14336, 32, 32, 8, 128256, false) }

func shaped(t *testing.T, hidden, intermediate, layers, heads, kv, vocab int, tied bool) *model.Model {
	t.Helper()
	m, err := model.New(model.Config{
		Type: "llama", Hidden: hidden, Intermediate: intermediate, Layers: layers, Heads: heads, KVHeads: kv, HeadDim: hidden / heads, Vocab: vocab,
		MaxPositions: 8192, NormEps: 1e-5, Activation: "silu", Tied: tied, PadID: -1, BOS: -1, Windows: make([]int, layers),
		Rope: model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 8192, MaxPositions: 8192},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// countCase is a formula of a method's page on one shape.
type countCase struct {
	name    string
	shape   func(*testing.T) *model.Model
	options tune.Parameters
	want    int
}

func checkCounts(t *testing.T, cases []countCase) {
	t.Helper()
	for _, c := range cases {
		m := c.shape(t)
		graft, err := c.options.Graft(m.Map())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		sites, err := m.Survey(graft)
		if err != nil {
			t.Fatal(err)
		}
		if have, _ := trainer.Counts(sites); have != c.want {
			t.Errorf("%s: want %d trained values, have %d", c.name, c.want, have)
		}
	}
}

// refuses checks the error that options give on a model.
func refuses(t *testing.T, m *model.Model, o tune.Parameters, want string) {
	t.Helper()
	graft, err := o.Graft(m.Map())
	if err == nil {
		_, err = m.Adapt(1, graft)
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%+v: want %q, have %v", o, want, err)
	}
}
