package privacy

import (
	"errors"
	"math"
	"testing"
)

func TestNoise(t *testing.T) {
	key := []byte("secret")
	n := NewNoise(key, "a")
	const draws = 100000
	var sum, square float64
	for range draws {
		x := n.Normal()
		sum, square = sum+x, square+x*x
	}
	if mean := sum / draws; math.Abs(mean) > 0.015 {
		t.Errorf("mean: want 0, have %g", mean)
	}
	if dev := math.Sqrt(square / draws); math.Abs(dev-1) > 0.01 {
		t.Errorf("standard deviation: want 1 within 1 %%, have %g", dev)
	}
	first := NewNoise(key, "a").Uint64()
	if again := NewNoise(key, "a").Uint64(); again != first {
		t.Errorf("want the same stream of the same key and label, have %x and %x", first, again)
	}
	if NewNoise(key, "b").Uint64() == first {
		t.Error("want another stream of another label")
	}
}

func TestAccountantRefuses(t *testing.T) {
	a := Accountant{By: ByRDP, Budget: 2, Delta: 1e-5}
	e := Event{Noise: 1, Rate: 0.01, Steps: 100}
	made := 0
	for range 100 {
		if err := a.Spend(e); err != nil {
			if !errors.Is(err, ErrBudget) {
				t.Fatal(err)
			}
			break
		}
		made++
	}
	spent, err := a.Spent()
	if err != nil || !(spent <= 2) || made == 0 || made == 100 {
		t.Errorf("want some steps within ε 2, have %d with ε %g, %v", made, spent, err)
	}
	if len(a.History) != 1 || a.History[0].Steps != 100*made {
		t.Errorf("want equal steps in one entry, have %+v", a.History)
	}
	if err := (&Accountant{By: "guess", Budget: 1, Delta: 1e-5}).Spend(e); err == nil {
		t.Error("want an error for an unknown accountant")
	}
	if err := (&Accountant{By: ByRDP, Budget: 1, Delta: 1e-5}).Spend(Event{Noise: -1, Rate: 2, Steps: 1}); err == nil {
		t.Error("want an error for an impossible event")
	}
	if e, err := Epsilon(ByPRV, []Event{{0, 0.5, 1}}, 1e-5); err != nil || !math.IsInf(e, 1) {
		t.Errorf("without noise: want ε without bound, have %g, %v", e, err)
	}
}

func TestAdaptive(t *testing.T) {
	a := Adaptive{Limit: 0.1, Quantile: 0.5, Rate: 0.2, Count: 0}
	noise := NewNoise([]byte("k"), "adaptive")
	for range 200 { // norms are spread evenly from 0 to 2: half of them are below 1
		within := int(100 * min(1, a.Limit/2))
		a.Update(within, 100, noise)
	}
	if math.Abs(a.Limit-1) > 0.05 {
		t.Errorf("limit: want about the median 1, have %g", a.Limit)
	}
	a.Count = 5
	z := a.Multiplier(1)
	if have := 1/(z*z) + 1/(4*a.Count*a.Count); math.Abs(have-1) > 1e-12 {
		t.Errorf("multiplier %g with the count is worth 1/√%g, want 1", z, have)
	}
}

func TestSumBlurs(t *testing.T) {
	s := Sum{Limit: 2}
	s.Add([][]float32{make([]float32, 50000)})
	s.Blur(1.5, NewNoise([]byte("k"), "blur"))
	var square float64
	for _, v := range s.Values[0] {
		square += v * v
	}
	if dev := math.Sqrt(square / 50000); math.Abs(dev-3) > 0.06 {
		t.Errorf("noise: want a standard deviation of 3, have %g", dev)
	}
}
