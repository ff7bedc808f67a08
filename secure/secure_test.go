package secure

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// federation is a sum of n parties under way.
type federation struct {
	session   []byte
	parties   []*Party
	keys      []Keys
	envelopes []Envelope
}

func begin(t testing.TB, n, threshold int, silent map[int]bool) *federation {
	t.Helper()
	f := &federation{session: []byte("one")}
	for i := range n {
		_, sign, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewParty(fmt.Sprintf("p%02d", i), f.session, sign)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Advertise().Verify(f.session, sign.Public().(ed25519.PublicKey)); err != nil {
			t.Fatal(err)
		}
		f.parties, f.keys = append(f.parties, p), append(f.keys, p.Advertise())
	}
	for i, p := range f.parties {
		e, err := p.Share(f.keys, threshold)
		if err != nil {
			t.Fatal(err)
		}
		if !silent[i] {
			f.envelopes = append(f.envelopes, e...)
		}
	}
	return f
}

func (f *federation) to(name string) []Envelope {
	return slices.DeleteFunc(slices.Clone(f.envelopes), func(e Envelope) bool { return e.To != name })
}

// TestSum: for every pattern of drop-outs the sum is exact, or the threshold is missed and nothing opens.
func TestSum(t *testing.T) {
	const n, threshold, length = 5, 3, 40
	for pattern := range 1 << n {
		f := begin(t, n, threshold, nil)
		sum, err := NewSum(f.session, f.keys, threshold, length)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]uint32, length)
		for i, p := range f.parties {
			values := make([]uint32, length)
			for k := range values {
				values[k] = uint32(i*1e9 + k)
			}
			hidden, err := p.Mask(values, f.to(p.name))
			if err != nil {
				t.Fatal(err)
			}
			if slices.Equal(hidden, values) {
				t.Fatal("the values are not hidden")
			}
			if pattern>>i&1 == 1 {
				continue // drops out before its values arrive
			}
			if err := sum.Add(p.name, hidden); err != nil {
				t.Fatal(err)
			}
			for k, v := range values {
				want[k] += v
			}
		}
		var reveals []Reveal
		alive := sum.Survivors()
		for i, p := range f.parties {
			if pattern>>i&1 == 1 {
				continue
			}
			r, err := p.Reveal(alive)
			if len(alive) < threshold {
				if !errors.Is(err, ErrTooFew) || len(r.Masks)+len(r.Keys) > 0 {
					t.Fatalf("pattern %b: want nothing revealed, have %v, %v", pattern, r, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for name := range r.Masks {
				if _, both := r.Keys[name]; both {
					t.Fatalf("both secrets of %s are revealed", name)
				}
			}
			reveals = append(reveals, r)
		}
		have, err := sum.Open(reveals, Order(f.keys))
		if len(alive) < threshold {
			if !errors.Is(err, ErrTooFew) {
				t.Fatalf("pattern %b: want the sum to stay closed, have %v", pattern, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("pattern %b: %v", pattern, err)
		}
		if !slices.Equal(have, want) {
			t.Fatalf("pattern %b: want %v, have %v", pattern, want, have)
		}
	}
}

// TestSilentParty: one that never shares its secrets is no part of the sum.
func TestSilentParty(t *testing.T) {
	f := begin(t, 5, 3, map[int]bool{2: true})
	var shared []Keys
	for i, k := range f.keys {
		if i != 2 {
			shared = append(shared, k)
		}
	}
	sum, err := NewSum(f.session, shared, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range f.parties {
		if i == 2 {
			continue
		}
		hidden, err := p.Mask([]uint32{uint32(i + 1)}, f.to(p.name))
		if err != nil {
			t.Fatal(err)
		}
		if i == 4 {
			continue
		}
		if err := sum.Add(p.name, hidden); err != nil {
			t.Fatal(err)
		}
	}
	var reveals []Reveal
	for _, i := range []int{0, 1, 3} {
		r, err := f.parties[i].Reveal(sum.Survivors())
		if err != nil {
			t.Fatal(err)
		}
		reveals = append(reveals, r)
	}
	have, err := sum.Open(reveals, Order(f.keys))
	if err != nil || have[0] != 1+2+4 {
		t.Errorf("want 7, have %v, %v", have, err)
	}
}

// TestHidden: what the server sees of one party is spread evenly, by χ² over the top four bits.
func TestHidden(t *testing.T) {
	f := begin(t, 3, 2, nil)
	const n = 1 << 16
	hidden, err := f.parties[0].Mask(make([]uint32, n), f.to("p00"))
	if err != nil {
		t.Fatal(err)
	}
	var bins [16]float64
	for _, v := range hidden {
		bins[v>>28]++
	}
	chi := 0.0
	for _, b := range bins {
		chi += (b - n/16) * (b - n/16) / (n / 16)
	}
	if chi > 50 { // 15 degrees of freedom: one in 10⁵ by chance
		t.Errorf("χ² of 15 degrees of freedom: have %g", chi)
	}
}

func TestRefusals(t *testing.T) {
	f := begin(t, 4, 3, nil)
	p := f.parties[0]
	k := p.Advertise()
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	if k.Verify(f.session, other) == nil {
		t.Error("want an error for keys that another has signed")
	}
	if _, err := p.Share(f.keys, 3); err == nil {
		t.Error("want an error for secrets that are shared twice")
	}
	changed := f.to("p00")
	changed[0].Sealed = slices.Clone(changed[0].Sealed)
	changed[0].Sealed[3] ^= 1
	if _, err := p.Mask([]uint32{1}, changed); err == nil {
		t.Error("want an error for a changed envelope")
	}
	if _, err := f.parties[1].Mask([]uint32{1}, f.to("p01")[:1]); !errors.Is(err, ErrTooFew) {
		t.Errorf("want an error for too few envelopes, have %v", err)
	}
	q := f.parties[2]
	if _, err := q.Mask([]uint32{1}, f.to("p02")); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Mask([]uint32{2}, f.to("p02")); err == nil {
		t.Error("want an error for masks that are used twice")
	}
	if _, err := q.Reveal([]string{"p00", "p02", "p09"}); err == nil {
		t.Error("want an error for a survivor that is no party")
	}
	if _, err := q.Reveal([]string{"p00", "p01", "p02"}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Reveal([]string{"p02", "p01", "p03"}); err == nil {
		t.Error("want an error for a second reveal: it would open more than the sum")
	}
	fresh, err := NewParty("p00", f.session, ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Share(f.keys, 3); err == nil {
		t.Error("want an error for a list with another's keys in one's own place")
	}
	f.keys[0] = fresh.Advertise()
	if _, err := fresh.Share(f.keys, 2); err == nil {
		t.Error("want an error for a threshold of half the parties")
	}
	sum, err := NewSum(f.session, f.keys, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Add("p09", []uint32{1}) == nil || sum.Add("p00", []uint32{1, 2}) == nil {
		t.Error("want errors for a stranger and for a wrong length")
	}
}

func TestFixed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Fixed{Limit: rapid.Float64Range(1e-3, 100).Draw(t, "limit"), Parties: rapid.IntRange(1, 2000).Draw(t, "parties")}
		x := rapid.Float64Range(-2*f.Limit, 2*f.Limit).Draw(t, "x")
		one, err := f.Encode([]float64{x})
		if err != nil {
			t.Fatal(err)
		}
		total := []uint32{0}
		for range f.Parties {
			total[0] += one[0]
		}
		want := float64(f.Parties) * max(-f.Limit, min(f.Limit, x))
		if have := f.Decode(total)[0]; math.Abs(have-want) > float64(f.Parties)*f.Limit/f.scale() {
			t.Fatalf("%d times %g: want %g, have %g", f.Parties, x, want, have)
		}
	})
	if _, err := (Fixed{Limit: 1, Parties: 2}).Encode([]float64{math.NaN()}); err == nil {
		t.Error("want an error for what is no number")
	}
}

// TestShamir: shares at any places give the secret, one fewer gives something else.
func TestShamir(t *testing.T) {
	secret, err := newSecret()
	if err != nil {
		t.Fatal(err)
	}
	shares, err := split(secret, 3, 5)
	if err != nil {
		t.Fatal(err)
	}
	have, err := join([]int{4, 0, 2}, [][]byte{shares[4], shares[0], shares[2]})
	if err != nil || !slices.Equal(have, secret) {
		t.Errorf("three shares: want the secret, have %x, %v", have, err)
	}
	if have, _ := join([]int{4, 0}, [][]byte{shares[4], shares[0]}); slices.Equal(have, secret) {
		t.Error("two shares give the secret away")
	}
	if _, err := join([]int{1, 1}, [][]byte{shares[1], shares[1]}); err == nil {
		t.Error("want an error for one share twice")
	}
}

// BenchmarkRound is the work of one of 16 parties and of the server for a million values.
func BenchmarkRound(b *testing.B) {
	const parties, length = 16, 1 << 20
	for b.Loop() {
		b.StopTimer()
		f := begin(b, parties, 9, nil)
		values := make([]uint32, length)
		envelopes := f.to("p00")
		b.StartTimer()
		if _, err := f.parties[0].Mask(values, envelopes); err != nil {
			b.Fatal(err)
		}
	}
}
