package cpu

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"tunesmith/engine"
	"tunesmith/graph"
)

// decoder builds cached attention of t queries over a cache of s.
func decoder(t testing.TB, b, q, s, prefix, window int) *graph.Graph {
	g, err := graph.Build(func(g *graph.Graph) {
		start := g.Input("start", graph.Int, b)
		x := g.Input("q", graph.Float, b, q, 4, 8)
		k := graph.Append(g.State("k", b, s, 2, 8), g.Input("k in", graph.Float, b, q, 2, 8), start)
		v := graph.Append(g.State("v", b, s, 2, 8), g.Input("v in", graph.Float, b, q, 2, 8), start)
		g.Output("y", graph.AttendCached(x, k, v, start, graph.Attention{Scale: 0.3, Window: window, Prefix: prefix}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func wave(n int, f float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(math.Sin(f * float64(i+1)))
	}
	return v
}

// TestCache feeds a sequence in pieces over a cache and compares with attention over the whole.
func TestCache(t *testing.T) {
	const b, total, prefix = 2, 90, 3
	q, k, v := wave(b*total*32, 0.37), wave(b*(prefix+total)*16, 0.73), wave(b*(prefix+total)*16, 1.1)
	for _, window := range []int{0, 7} {
		whole, err := graph.Build(func(g *graph.Graph) {
			g.Output("y", graph.Attend(g.Input("q", graph.Float, b, total, 4, 8), g.Input("k", graph.Float, b, prefix+total, 2, 8),
				g.Input("v", graph.Float, b, prefix+total, 2, 8), nil,
				graph.Attention{Causal: true, Scale: 0.3, Window: window, Prefix: prefix}))
		})
		if err != nil {
			t.Fatal(err)
		}
		e := openWith(t, 2)
		defer e.Close()
		want := runOn(t, e, whole, engine.NewStore(), engine.Feeds{"q": q, "k": k, "v": v})["y"]

		s := engine.NewStore()
		for name, from := range map[string][]float32{"k": k, "v": v} {
			cache := make([]float32, b*100*16)
			for i := range b {
				copy(cache[i*100*16:], from[i*(prefix+total)*16:][:prefix*16])
			}
			if err := s.Add(&engine.Tensor{Name: name, Shape: []int{b, 100, 2, 8}, Values: cache}); err != nil {
				t.Fatal(err)
			}
		}
		at := 0
		for _, n := range []int{1, 70, 1, 3, 15} {
			part := func(x []float32, rows, first, width int) (out []float32) {
				for i := range b {
					out = append(out, x[(i*rows+first)*width:(i*rows+first+n)*width]...)
				}
				return out
			}
			p, err := e.Compile(decoder(t, b, n, 100, prefix, window), s)
			if err != nil {
				t.Fatal(err)
			}
			start := int32(prefix + at)
			feeds := engine.Feeds{
				"start": []int32{start, start}, "q": part(q, total, at, 32),
				"k in": part(k, prefix+total, prefix+at, 16), "v in": part(v, prefix+total, prefix+at, 16),
			}
			if err := p.Run(context.Background(), feeds); err != nil {
				t.Fatal(err)
			}
			wide := make([]float64, 0)
			for _, x := range part(want, total, at, 32) {
				wide = append(wide, float64(x))
			}
			close32(t, "y", p.Output("y"), wide, 1e-5)
			at += n
		}
	}
}

func TestRefusedRunsChangeNothing(t *testing.T) {
	e := openWith(t, 2)
	defer e.Close()
	s := engine.NewStore()
	for _, name := range []string{"k", "v"} {
		if err := s.Add(&engine.Tensor{Name: name, Shape: []int{1, 10, 2, 8}, Values: wave(160, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	g := decoder(t, 1, 4, 10, 0, 0)
	p, err := e.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	good := func() engine.Feeds {
		return engine.Feeds{"start": []int32{0}, "q": wave(128, 1), "k in": wave(64, 2), "v in": wave(64, 3)}
	}
	for _, tt := range []struct {
		want   string
		change func(f engine.Feeds)
	}{
		{"cache position 7 at place 0: want 0 … 6", func(f engine.Feeds) { f["start"] = []int32{7} }},
		{"cache position -1 at place 0: want 0 … 6", func(f engine.Feeds) { f["start"] = []int32{-1} }},
		{`feed "q": missing`, func(f engine.Feeds) { delete(f, "q") }},
		{`feed "qq": the graph has no input of that name, did you mean q?`, func(f engine.Feeds) { f["qq"] = f["q"] }},
		{`feed "q": want 128 values of kind float for shape [1 4 4 8], have 3 of kind float`, func(f engine.Feeds) { f["q"] = wave(3, 1) }},
		{`feed "q": want 128 values of kind float for shape [1 4 4 8], have 1 of kind int`, func(f engine.Feeds) { f["q"] = []int32{1} }},
		{`feed "q": want []float32 or []int32, have []float64`, func(f engine.Feeds) { f["q"] = []float64{1} }},
	} {
		f := good()
		tt.change(f)
		err := p.Run(context.Background(), f)
		if err == nil || err.Error() != tt.want {
			t.Errorf("want error %q\nhave       %v", tt.want, err)
		}
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Run(cancelled, good()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled run: want %v, have %v", context.Canceled, err)
	}
	k, _ := s.Get("k")
	if !slices.Equal(k.Values, wave(160, 1)) {
		t.Error("a refused run has changed the cache")
	}
	if err := p.Run(context.Background(), good()); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(k.Values, wave(160, 1)) {
		t.Error("a run has not changed the cache")
	}
	e.Close()
	if err := p.Run(context.Background(), good()); !errors.Is(err, errClosed) {
		t.Errorf("run on a closed engine: want %v, have %v", errClosed, err)
	}
}

// patience is a context that ends after some questions.
type patience struct {
	context.Context
	left int
}

func (p *patience) Err() error {
	if p.left--; p.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelBetweenInstructions(t *testing.T) {
	g, s, feeds := odd.step(t, 1, 20)
	e := openWith(t, 3)
	defer e.Close()
	p, err := e.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(context.Background(), feeds); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(p.Output("0.q.a"))
	for questions := range 200 {
		if err := p.Run(&patience{context.Background(), questions / 2}, feeds); !errors.Is(err, context.Canceled) {
			t.Fatalf("want %v, have %v", context.Canceled, err)
		}
	}
	if err := p.Run(context.Background(), feeds); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Output("0.q.a"), want) {
		t.Error("a run after cancelled ones differs")
	}
}

func TestRefusedIndices(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		w := g.Param("w", true, 4, 3)
		h := graph.Lookup(w, g.Input("ids", graph.Int, 2), -1)
		logp, _ := graph.LogProbs(h, w, g.Input("targets", graph.Int, 2), nil, graph.TokenLogProb{Scale: 1})
		g.Output("y", graph.Rows(graph.Reshape(logp, 2, 1), g.Input("rows", graph.Int, 2)))
	})
	if err != nil {
		t.Fatal(err)
	}
	e := openWith(t, 1)
	defer e.Close()
	s := storeOf(t, g, map[string][]float64{"w": make([]float64, 12)})
	p, err := e.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want               string
		ids, targets, rows []int32
	}{
		{"", []int32{0, 3}, []int32{-1, 3}, []int32{-5, 1}},
		{"token id 4 at place 1: want 0 … 3", []int32{0, 4}, []int32{0, 0}, []int32{0, 0}},
		{"token id -1 at place 0: want 0 … 3", []int32{-1, 0}, []int32{0, 0}, []int32{0, 0}},
		{"target 4 at place 0: want -1 … 3", []int32{0, 0}, []int32{4, 0}, []int32{0, 0}},
		{"target -2 at place 1: want -1 … 3", []int32{0, 0}, []int32{0, -2}, []int32{0, 0}},
		{"row index 2 at place 0: want at most 1", []int32{0, 0}, []int32{0, 0}, []int32{2, 0}},
	} {
		err := p.Run(context.Background(), engine.Feeds{"ids": tt.ids, "targets": tt.targets, "rows": tt.rows})
		have := ""
		if err != nil {
			have = err.Error()
		}
		if have != tt.want {
			t.Errorf("want error %q, have %q", tt.want, have)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	e := openWith(t, 1)
	defer e.Close()
	g, err := graph.Build(func(g *graph.Graph) {
		g.Scope("layers.0", func() { g.Output("y", graph.Apply(graph.Exp, g.Param("w", false, 2, 3))) })
	})
	if err != nil {
		t.Fatal(err)
	}
	s := engine.NewStore()
	_, err = e.Compile(g, s)
	if want := `layers.0: %0=Param[2 3]: "w" is not in the store`; err == nil || err.Error() != want {
		t.Errorf("want error %q, have %v", want, err)
	}
	if err := s.Add(&engine.Tensor{Name: "w", Shape: []int{3, 2}, Values: make([]float32, 6)}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Compile(g, s)
	if want := `layers.0: %0=Param[2 3]: "w": the graph has shape [2 3], the store [3 2]`; err == nil || err.Error() != want {
		t.Errorf("want error %q, have %v", want, err)
	}
}

// TestOutputsAreOwn has outputs that are a feed, a parameter, a constant and each other.
func TestOutputsAreOwn(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		w, x := g.Param("w", true, 2), g.Input("x", graph.Float, 2)
		y := graph.Plus(w, x)
		g.Output("w", w)
		g.Output("x", x)
		g.Output("c", g.Floats([]float32{5, 6}, 2))
		g.Output("y", y)
		g.Output("same", graph.Reshape(y, 2, 1))
		g.Output("z", graph.Scale(y, 2))
	})
	if err != nil {
		t.Fatal(err)
	}
	e := openWith(t, 1)
	defer e.Close()
	s := storeOf(t, g, map[string][]float64{"w": {1, 2}})
	p, err := e.Compile(g, s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Run(context.Background(), engine.Feeds{"x": []float32{10, 20}}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]float32{"w": {1, 2}, "x": {10, 20}, "c": {5, 6}, "y": {11, 22}, "same": {11, 22}, "z": {22, 44}} {
			have := p.Output(name)
			if !slices.Equal(have, want) {
				t.Errorf("%s: want %v, have %v", name, want, have)
			}
			clear(have)
		}
	}
	if p.Output("none") != nil {
		t.Error("an unknown output: want nil")
	}
}
