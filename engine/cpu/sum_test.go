package cpu

import (
	"math"
	"testing"

	"tunesmith/engine"
	"tunesmith/graph"
)

// TestSumOfReshapedProducts adds products whose rows have other lengths than the sum's.
func TestSumOfReshapedProducts(t *testing.T) {
	b, err := open(engine.Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const rows, parts, width = 6, 4, 3
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.Float, rows, parts*width)
		w := g.Input("w", graph.Float, parts*width, parts*width)
		u := g.Input("u", graph.Float, width, width)
		small := graph.Project(graph.Reshape(x, rows*parts, width), u)
		g.Output("y", graph.Plus(graph.Project(x, w), graph.Reshape(small, rows, parts*width)))
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Compile(g, engine.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(math.Sin(float64(3*i + n)))
		}
		return out
	}
	n := parts * width
	x, w, u := fill(rows*n), fill(n*n), fill(width*width)
	if err := p.Run(t.Context(), engine.Feeds{"x": x, "w": w, "u": u}); err != nil {
		t.Fatal(err)
	}
	for i, have := range p.Output("y") {
		r, c := i/n, i%n
		var want float64
		for k := range n {
			want += float64(x[r*n+k]) * float64(w[c*n+k])
		}
		for k := range width {
			want += float64(x[r*n+c/width*width+k]) * float64(u[c%width*width+k])
		}
		if math.Abs(float64(have)-want) > 1e-5 {
			t.Fatalf("element %d: want %g, have %g", i, want, have)
		}
	}
}
