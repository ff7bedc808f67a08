package federation

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tunesmith/internal/golden"
)

// drawnTensors returns tensors of a product of the rank and a vector, with random values.
func drawnTensors(rng *rand.Rand, rank int) []Tensor {
	fill := func(name string, shape ...int) Tensor {
		n := 1
		for _, d := range shape {
			n *= d
		}
		t := Tensor{name, shape, make([]float32, n)}
		for i := range t.Values {
			t.Values[i] = float32(rng.NormFloat64())
		}
		return t
	}
	return []Tensor{fill("a", rank, 7), fill("b", 9, rank), fill("bias", 9)}
}

var testProducts = Products{{A: "a", B: "b", Scale: 2}}

func drawnUpdates(ranks ...int) []Update {
	rng := rand.New(rand.NewPCG(1, 2))
	var out []Update
	for i, r := range ranks {
		out = append(out, Update{Client: fmt.Sprint(i), Examples: 10 * (i + 1), Tensors: drawnTensors(rng, r)})
	}
	return out
}

// meanProduct is the dense weighted mean of B·A.
func meanProduct(t *testing.T, updates []Update) []float32 {
	t.Helper()
	w, err := weights(updates)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, 9*7)
	for c, u := range updates {
		for i, v := range dense(u.Tensors) {
			out[i] += float32(w[c]) * v
		}
	}
	return out
}

func dense(tensors []Tensor) []float32 {
	a, b := tensors[0], tensors[1]
	r := a.Shape[0]
	out := make([]float32, 9*7)
	for o := range 9 {
		for i := range 7 {
			for k := range r {
				out[o*7+i] += b.Values[o*r+k] * a.Values[k*7+i]
			}
		}
	}
	return out
}

func TestStackIsExact(t *testing.T) {
	updates := drawnUpdates(2, 4, 1)
	stacked, err := testProducts.Stack(updates)
	if err != nil {
		t.Fatal(err)
	}
	if r := stacked[0].Shape[0]; r != 7 {
		t.Errorf("rank: want the sum 7, have %d", r)
	}
	if d := golden.RelL2(dense(stacked), meanProduct(t, updates)); !(d <= 1e-6) {
		t.Errorf("relative error %g", d)
	}
}

func TestProductsOfFullRankAreExact(t *testing.T) {
	updates := drawnUpdates(2, 4, 1)
	global := drawnTensors(rand.New(rand.NewPCG(3, 4)), 7)
	s, err := NewStrategy("flexlora", Options{Products: testProducts})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Aggregate(1, global, updates)
	if err != nil {
		t.Fatal(err)
	}
	want := meanProduct(t, updates)
	if d := golden.RelL2(dense(out), want); !(d <= 1e-6) {
		t.Errorf("relative error %g", d)
	}
	// Cut to a lower rank, it is the best of that rank: its error is that of the singular values left out.
	last := math.Inf(1)
	for r := 1; r <= 7; r++ {
		shapes := drawnTensors(rand.New(rand.NewPCG(3, 4)), r)
		cut, err := testProducts.Cut(out, shapes)
		if err != nil {
			t.Fatal(err)
		}
		d := golden.RelL2(dense(cut), want)
		if d > last+1e-6 {
			t.Errorf("rank %d: error %g above that of a lower rank, %g", r, d, last)
		}
		last = d
	}
	if _, err := testProducts.Cut(out, drawnTensors(rand.New(rand.NewPCG(3, 4)), 8)); err == nil {
		t.Error("want an error for a client of a higher rank")
	}
}

// TestFactorsAverageWrongly is the smallest case: the mean of the products 2·1 and −1·3 is −0.5, the product of the
// means is 1.
func TestFactorsAverageWrongly(t *testing.T) {
	one := func(client string, a, b float32) Update {
		return Update{Client: client, Examples: 1, Tensors: []Tensor{{"a", []int{1, 1}, []float32{a}}, {"b", []int{1, 1}, []float32{b}}}}
	}
	updates := []Update{one("x", 1, 2), one("y", 3, -1)}
	product := func(name string) float32 {
		s, err := NewStrategy(name, Options{Products: testProducts})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Aggregate(1, updates[0].Tensors, updates)
		if err != nil {
			t.Fatal(err)
		}
		return out[0].Values[0] * out[1].Values[0]
	}
	if have := product("fedit"); have != 1 {
		t.Errorf("factor by factor: want 1, have %g", have)
	}
	if have := product("flexlora"); math.Abs(float64(have)+0.5) > 1e-6 {
		t.Errorf("products: want -0.5, have %g", have)
	}
	if have, err := testProducts.Mismatch(updates); err != nil || math.Abs(have-3) > 1e-9 {
		t.Errorf("mismatch: want |−0.5 − 1|/0.5 = 3, have %g, %v", have, err)
	}
	// With one factor the same everywhere, the mean of the other is exact.
	same := []Update{one("x", 3, 2), one("y", 3, -1)}
	if have, err := testProducts.Mismatch(same); err != nil || have > 1e-9 {
		t.Errorf("mismatch with one factor frozen: want 0, have %g, %v", have, err)
	}
}

func TestMomentumAtRest(t *testing.T) {
	updates := drawnUpdates(2, 2, 2)
	global := drawnTensors(rand.New(rand.NewPCG(3, 4)), 2)
	want, err := average{}.Aggregate(1, global, updates)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fedavgm", "fedprox", "scaffold"} {
		s, err := NewStrategy(name, Options{Clients: 3})
		if err != nil {
			t.Fatal(err)
		}
		have, err := s.Aggregate(1, global, updates)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if d := golden.RelL2(have[i].Values, want[i].Values); !(d <= 1e-6) {
				t.Errorf("%s at rest: relative error to FedAvg %g", name, d)
			}
		}
	}
}

// TestNesterov follows two rounds by hand: μ 0.9, rate 0.5, changes of −1 each.
func TestNesterov(t *testing.T) {
	mu := 0.9
	s, err := NewStrategy("diloco", Options{Rate: 0.5, Momentum: &mu})
	if err != nil {
		t.Fatal(err)
	}
	w := []Tensor{{"w", []int{1}, []float32{0}}}
	for r, want := range []float64{0.5 * 1.9, 0.5*1.9 + 0.5*(1+0.9*1.9)} {
		own := Update{Client: "a", Examples: 1, Tensors: []Tensor{{"w", []int{1}, []float32{w[0].Values[0] + 1}}}}
		if w, err = s.Aggregate(r+1, w, []Update{own}); err != nil {
			t.Fatal(err)
		}
		if have := float64(w[0].Values[0]); math.Abs(have-want) > 1e-6 {
			t.Errorf("round %d: want %g, have %g", r+1, want, have)
		}
	}
}

func TestRobustStrategiesRefuseTooFew(t *testing.T) {
	updates := drawnUpdates(2, 2)
	for name, o := range map[string]Options{"krum": {Malicious: 1}, "multikrum": {Malicious: 1, Select: 2}, "bulyan": {Malicious: 1}} {
		s, err := NewStrategy(name, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Aggregate(1, updates[0].Tensors, updates); err == nil {
			t.Errorf("%s: want an error for 2 updates", name)
		}
	}
	if _, err := NewStrategy("fedavgg", Options{}); err == nil {
		t.Error("want an error for an unknown strategy")
	}
}

// TestRobustAgainstSigns: clients that send the opposite move the mean, not the robust strategies.
func TestRobustAgainstSigns(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	global := []Tensor{{"w", []int{50}, make([]float32, 50)}}
	var updates []Update
	for c := range 10 {
		u := Update{Client: fmt.Sprint(c), Examples: 1, Tensors: empty(global)}
		for i := range 50 {
			v := 1 + 0.1*rng.NormFloat64()
			if c < 2 {
				v *= -10
			}
			u.Tensors[0].Values[i] = float32(v)
		}
		updates = append(updates, u)
	}
	cut := 0.2
	for name, o := range map[string]Options{
		"fedavg": {}, "fedmedian": {}, "fedtrimmedavg": {Trim: &cut}, "krum": {Malicious: 2}, "multikrum": {Malicious: 2}, "bulyan": {Malicious: 2},
	} {
		s, _ := NewStrategy(name, o)
		out, err := s.Aggregate(1, global, updates)
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, v := range out[0].Values {
			sum += float64(v) / 50
		}
		if robust := math.Abs(sum-1) < 0.2; robust != (name != "fedavg") {
			t.Errorf("%s: mean value %g", name, sum)
		}
	}
}

func TestCodecs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	x := []Tensor{{"w", []int{1000}, make([]float32, 1000)}, {"none", []int{0}, nil}, {"odd", []int{77}, make([]float32, 77)}}
	for _, t := range x {
		for i := range t.Values {
			t.Values[i] = float32(rng.NormFloat64())
		}
	}
	for name, most := range map[string]float64{"fp32": 0, "fp16": 1e-3, "int8": 1e-2, "nf4": 0.11, "topk": 0.75, "randk": 1} {
		c := Codec{Name: name, Keep: 0.25}
		wire, arrives, err := c.Encode(x, 7)
		if err != nil {
			t.Fatal(err)
		}
		if want := c.Bytes(1000, 0, 77); name != "topk" && len(wire) != want || len(wire) > want {
			t.Errorf("%s: the formula says %d bytes, have %d", name, want, len(wire))
		}
		if d := golden.RelL2(arrives[0].Values, x[0].Values); !(d <= most) {
			t.Errorf("%s: relative error %g, want at most %g", name, d, most)
		}
		for cut := range wire {
			if _, err := c.Decode(wire[:cut], x, 7); err == nil {
				t.Fatalf("%s: want an error for %d of %d bytes", name, cut, len(wire))
			}
		}
		if _, err := c.Decode(append(wire, 0), x, 7); err == nil {
			t.Errorf("%s: want an error for a byte too many", name)
		}
	}
	if _, _, err := (Codec{Name: "zip"}).Encode(x, 0); err == nil {
		t.Error("want an error for an unknown codec")
	}
}

func TestInt8Golden(t *testing.T) {
	g := []float32{0.5, -0.1, 0.3, 0.05}
	b := Codec{Name: "int8"}.encode(nil, g, 0)
	want := []int8{127, -25, 76, 13}
	for i, v := range b[4:] {
		if int8(v) != want[i] {
			t.Errorf("place %d: want %d, have %d", i, want[i], int8(v))
		}
	}
}

// TestFeedback follows the known case: the largest of four, the same gradient each round.
func TestFeedback(t *testing.T) {
	g := []Tensor{{"g", []int{4}, []float32{0.5, -0.1, 0.3, 0.05}}}
	c := Codec{Name: "topk", Keep: 0.25}
	var f Feedback
	for r, want := range [][]float32{{0.5, 0, 0, 0}, {0, 0, 0.6, 0}, {1, 0, 0, 0}} {
		wire, err := f.Encode(c, g, 0)
		if err != nil {
			t.Fatal(err)
		}
		have, err := c.Decode(wire, g, 0)
		if err != nil {
			t.Fatal(err)
		}
		if d := golden.MaxAbs(have[0].Values, want); d > 1e-6 {
			t.Errorf("round %d: want %v, have %v", r+1, want, have[0].Values)
		}
	}
	if d := golden.MaxAbs(f.Rest[0].Values, []float32{0, -0.3, 0.3, 0.15}); d > 1e-6 {
		t.Errorf("rest: have %v", f.Rest[0].Values)
	}
}

// TestFeedbackLosesNothing: what has arrived and the rest are what was sent, for every codec.
func TestFeedbackLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Codec{Name: rapid.SampledFrom(codecs).Draw(t, "codec"), Keep: rapid.Float64Range(0.05, 1).Draw(t, "keep")}
		n := rapid.IntRange(1, 300).Draw(t, "n")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		all, arrived := make([]float64, n), make([]float64, n)
		var f Feedback
		for r := range uint64(4) {
			x := []Tensor{{"x", []int{n}, make([]float32, n)}}
			for i := range n {
				x[0].Values[i] = float32(rng.NormFloat64())
				all[i] += float64(x[0].Values[i])
			}
			wire, err := f.Encode(c, x, r)
			if err != nil {
				t.Fatal(err)
			}
			have, err := c.Decode(wire, x, r)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range have[0].Values {
				arrived[i] += float64(v)
			}
		}
		for i := range n {
			rest := 0.0
			if f.Rest != nil {
				rest = float64(f.Rest[0].Values[i])
			}
			if math.Abs(all[i]-arrived[i]-rest) > 1e-4 {
				t.Fatalf("%s: value %d: sent %g, arrived %g, rest %g", c.Name, i, all[i], arrived[i], rest)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	like := []Tensor{{"a", []int{70}, make([]float32, 70)}, {"b", []int{3}, make([]float32, 3)}}
	for i := range codecs {
		wire, _, _ := Codec{Name: codecs[i], Keep: 0.3}.Encode(like, 1)
		f.Add(uint8(i), wire)
	}
	f.Fuzz(func(t *testing.T, kind uint8, wire []byte) {
		c := Codec{Name: codecs[int(kind)%len(codecs)], Keep: 0.3}
		out, err := c.Decode(wire, like, 1)
		if err == nil && sameTensors(like, out) != nil {
			t.Error("decoded into other tensors")
		}
	})
}

func TestDirichlet(t *testing.T) {
	var labels []string
	for i := range 6000 {
		labels = append(labels, fmt.Sprint(i%3))
	}
	even, err := Partition{Kind: "dirichlet", Clients: 4, Alpha: 1e6, Seed: 3}.Split(labels)
	if err != nil {
		t.Fatal(err)
	}
	for k, part := range even {
		if math.Abs(float64(len(part))/1500-1) > 0.02 {
			t.Errorf("alpha 1e6: client %d: want about 1500, have %d", k, len(part))
		}
	}
	skewed, err := Partition{Kind: "dirichlet", Clients: 4, Alpha: 0.1, Least: 1, Seed: 3}.Split(labels)
	if err != nil {
		t.Fatal(err)
	}
	lengths := func(parts [][]int) (out []int) {
		for _, p := range parts {
			out = append(out, len(p))
		}
		return out
	}
	if n := lengths(skewed); slices.Max(n)-slices.Min(n) < 500 {
		t.Errorf("alpha 0.1: want very different sizes, have %v", n)
	}
	natural, err := Partition{Kind: "natural"}.Split([]string{"b", "a", "b"})
	if err != nil || !slices.EqualFunc(natural, [][]int{{1}, {0, 2}}, slices.Equal) {
		t.Errorf("natural: have %v, %v", natural, err)
	}
	for _, p := range []Partition{{Kind: "irid", Clients: 2}, {Kind: "iid"}, {Kind: "dirichlet", Clients: 2}, {Kind: "classes", Clients: 1, Classes: 2}, {Kind: "shards", Clients: 2, Shards: 9}} {
		if _, err := p.Split([]string{"a", "b", "c"}); err == nil {
			t.Errorf("%+v: want an error", p)
		}
	}
}
